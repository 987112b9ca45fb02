# SPDX-License-Identifier: GPL-2.0-or-later
"""What a body is, and says: a refusal's message, JSON by its media type, a plain tar. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

LIMIT = 1024  # characters: a body may echo what it was sent


def error_message(body: bytes, status: int, *, who: str = "the engine", limit: int = LIMIT) -> str:
    """Its `message`, or a body that is not JSON (a proxy's) as it is, cut to `limit` characters; else the bare status."""
    try:
        found = json.loads(body)
        text = str(found.get("message", "")) if isinstance(found, dict) else ""
    except RecursionError:
        text = ""
    except ValueError:
        text = body.decode("utf-8", "replace").strip()
    if not text:
        return f"{who} answered {status}"
    return text if len(text) <= limit else text[:limit] + "..."


JSON = "application/json"
JSON_LINES = frozenset({"application/jsonl", "application/x-ndjson", "application/json-seq"})
_RECORD_SEPARATOR = "\x1e"  # before each text of a json-seq


def essence(content_type: str) -> str:
    """The type without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def decoded(content_type: str, data: bytes) -> Any:
    """One JSON value, a list of them where the type or the data has one a line, or text."""
    kind, text = essence(content_type), data.decode("utf-8", "replace")
    if not data or (kind != JSON and kind not in JSON_LINES):
        return text
    if kind == JSON:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass  # old engines call lines of it so too
    try:
        lines = (line.strip().lstrip(_RECORD_SEPARATOR) for line in text.split("\n"))
        return [json.loads(line) for line in lines if line]
    except (ValueError, RecursionError):
        return text


BLOCK = 512


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a tar archive. `kind`: its type flag, such as 0 (a file), 5 (a folder), x (records about the next one)."""

    kind: str
    size: int

    @classmethod
    def of(cls, block: bytes) -> Entry:
        """A header. A size that is too large for octal digits is binary, with the highest bit set (GNU, star)."""
        field = block[124:136]
        if field[0] & 0x80:
            size = int.from_bytes(field[1:], "big")
        else:
            digits = field.strip(b"\0 ")
            size = int(digits, 8) if digits.isdigit() else 0
        return cls(chr(block[156]), size)

    @property
    def is_records(self) -> bool:
        """Whether it is about other entries: pax records, or GNU's long names."""
        return self.kind in ("x", "g", "L", "K")


def size_of_records(records: bytes) -> int | None:
    """The size that pax records state (POSIX.1-2001, `<length> size=<bytes>` a line), None where they state none."""
    for line in records.split(b"\n"):
        _, _, record = line.partition(b" ")
        if record.startswith(b"size=") and record[5:].isdigit():
            return int(record[5:])
    return None


def is_plain_tar(block: bytes) -> bool:
    """Whether a tar archive starts with this block: a header whose checksum fits, or the end mark of an empty one."""
    if len(block) < BLOCK:
        return False
    block = block[:BLOCK]
    if not any(block):
        return True
    field = block[148:156].strip(b"\0 ")
    try:
        stated = int(field, 8)
    except ValueError:
        return False
    # the checksum counts its own field as blanks
    return stated == sum(block[:148]) + 8 * 0x20 + sum(block[156:])
