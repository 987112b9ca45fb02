# SPDX-License-Identifier: GPL-2.0-or-later
"""The media types of the engine's JSON answers. Pure.

From API 1.52 on streams such as `/events` are `application/jsonl` whatever `Accept` asks for; before, they were
`application/json` as well (moby, daemon/server/httputils). RFC 7464 is `json-seq`.
"""

from __future__ import annotations

import json
from typing import Any

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
