# SPDX-License-Identifier: GPL-2.0-or-later
"""Bodies of the engine by their media type."""

from __future__ import annotations

from typing import Any

import pytest

from agent.wire.bodies import decoded


@pytest.mark.parametrize(
    ("kind", "data", "body"),
    [
        ("application/json", b'{"a":1}', {"a": 1}),
        ("application/json; charset=utf-8", b"[]", []),
        ("application/json", b'{"a":1}\r\n{"b":2}\r\n', [{"a": 1}, {"b": 2}]),
        ("application/json", b'{"a":1}\n', {"a": 1}),
        ("application/json", b"", ""),
        ("application/json", b"{", "{"),
        ("application/json", b"[" * 100_000, "[" * 100_000),
        ("application/jsonl", b'{"a":1}\n', [{"a": 1}]),
        ("application/jsonl; charset=utf-8", b'{"a":1}\n{"b":2}\n', [{"a": 1}, {"b": 2}]),
        ("application/x-ndjson", b'{"a":1}\n\n', [{"a": 1}]),
        ("application/json-seq", b'\x1e{"a":1}\n\x1e{"b":2}\n', [{"a": 1}, {"b": 2}]),
        ("application/jsonl", b'{"a":', '{"a":'),
        ("text/plain; charset=utf-8", b"OK", "OK"),
        ("", b"\xff", "\ufffd"),
    ],
)
def test_a_body_is_a_value_a_list_of_values_or_text(kind: str, data: bytes, body: Any) -> None:
    assert decoded(kind, data) == body
