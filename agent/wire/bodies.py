# SPDX-License-Identifier: GPL-2.0-or-later
"""Parses bodies that the engine sends or takes: error messages, JSON by its media type, a plain tar, framed output."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass
from typing import Any

LIMIT = 1024  # characters: a body may quote what it was sent
# the layers through which containerd and runc hand the cause of a failed start, each with words of its own
_LAYERS = re.compile(
    r"(?:failed to create (?:shim )?task(?: for container)?: |OCI runtime create failed: |runc create failed: "
    r"|unable to start container process: |container_linux\.go:\d+: |starting container process caused: "
    r"|error during container init: )+"
)


def error_message(body: bytes, status: int, *, who: str = "the engine", limit: int = LIMIT) -> str:
    """The cause in the body's `message`, or a body that is not JSON (from a proxy) as text, cut to `limit` characters;
    without either, a sentence with the status.
    """
    # a proxy in front of the engine answers in HTML or plain text, which says more than the status alone
    try:
        found = json.loads(body)
        text = str(found.get("message", "")) if isinstance(found, dict) else ""
    except RecursionError:
        text = ""
    except ValueError:
        text = body.decode("utf-8", "replace").strip()
    if not text:
        return f"{who} answered {status}"
    text = _cause(text)
    return text if len(text) <= limit else text[:limit] + "..."


def _cause(text: str) -> str:
    """`exec: "sh": executable file not found in $PATH` of the chain of words that ends with it. An inspected container
    has the whole.
    """
    layers = _LAYERS.match(text)
    return text[layers.end() :].removesuffix(": unknown") or text if layers else text


JSON = "application/json"
JSON_LINES = frozenset({"application/jsonl", "application/x-ndjson", "application/json-seq"})
_RECORD_SEPARATOR = "\x1e"  # before each text of a json-seq


def essence(content_type: str) -> str:
    """The media type without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def decoded(content_type: str, data: bytes) -> Any:
    """A JSON value; a list of values if the data has one per line; or text."""
    kind, text = essence(content_type), data.decode("utf-8", "replace")
    if not data or (kind != JSON and kind not in JSON_LINES):
        return text
    if kind == JSON:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass  # old engines use this type for JSON lines too
    try:
        lines = (line.strip().lstrip(_RECORD_SEPARATOR) for line in text.split("\n"))
        return [json.loads(line) for line in lines if line]
    except (ValueError, RecursionError):
        return text


BLOCK = 512  # bytes of a tar's block


@dataclass(frozen=True, slots=True)
class TarHeader:
    """The header of a tar entry. `kind` is its type flag: 0 (a file), 5 (a folder), x (records about the next entry)
    and others.
    """

    kind: str
    size: int

    @classmethod
    def of(cls, block: bytes) -> TarHeader:
        """Parses a header. A size that is too large for octal digits is binary, with the highest bit set (GNU, star)."""
        field = block[124:136]
        if field[0] & 0x80:
            size = int.from_bytes(field[1:], "big")
        else:
            digits = field.strip(b"\0 ")
            size = int(digits, 8) if digits.isdigit() else 0
        return cls(chr(block[156]), size)

    @property
    def is_records(self) -> bool:
        """Whether the entry describes other entries: pax records, or GNU's long names."""
        return self.kind in ("x", "g", "L", "K")


def size_of_records(records: bytes) -> int | None:
    """The size in pax records (POSIX.1-2001, lines of `<length> size=<bytes>`), None if they have none."""
    for line in records.split(b"\n"):
        _, _, record = line.partition(b" ")
        if record.startswith(b"size=") and record[5:].isdigit():
            return int(record[5:])
    return None


def is_plain_tar(block: bytes) -> bool:
    """Whether a tar archive starts with this block: a header with a valid checksum, or the end mark of an empty archive."""
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


# The engine's multiplexed output of containers without a terminal (Engine API, "Attach to a container", stream format).
#
# A frame is `type, 0, 0, 0, length (4 bytes, big endian)`, followed by that many bytes of one stream. The length is
# untrusted: payload is passed on as it arrives and never collected.


STREAMS = ("stdin", "stdout", "stderr")
HEADER = 8  # bytes in front of each frame: the stream, and the length


class FrameError(ValueError):
    """These bytes are not a frame."""


class FrameDecoder:
    """Takes pieces of any size. Holds at most an incomplete header."""

    def __init__(self) -> None:
        self._head = b""  # of the next frame, as far as it has come
        self._stream = ""
        self._left = 0  # bytes of the frame that are still to come

    def feed(self, data: bytes) -> list[tuple[str, bytes]]:
        """The payload in these bytes, in order, as (stream, bytes). Raises FrameError."""
        pieces: list[tuple[str, bytes]] = []
        position = 0
        while position < len(data):
            # a header too may be split over two pieces
            if self._left == 0:
                wanted = HEADER - len(self._head)
                self._head += data[position : position + wanted]
                position += wanted
                if len(self._head) < HEADER:
                    break
                self._open(self._head)
                self._head = b""
                continue
            piece = data[position : position + self._left]
            position += len(piece)
            self._left -= len(piece)
            pieces.append((self._stream, piece))
        return pieces

    def end(self) -> None:
        """Call at the end of the input. Raises FrameError if a frame is incomplete."""
        if self._head or self._left:
            raise FrameError(f"the output ended inside a frame ({self._left} bytes are missing)")

    def _open(self, head: bytes) -> None:
        kind, padding, length = struct.unpack(">B3sI", head)
        if kind >= len(STREAMS) or padding != b"\0\0\0":
            raise FrameError(f"no frame header: {head.hex()}")
        self._stream, self._left = STREAMS[kind], length


def encode_frame(stream: str, data: bytes) -> bytes:
    """One frame."""
    return struct.pack(">B3xI", STREAMS.index(stream), len(data)) + data
