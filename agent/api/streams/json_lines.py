# SPDX-License-Identifier: GPL-2.0-or-later
"""The engine's progress and event streams: JSON objects one after the other, a line each."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from agent.errors import EngineError

LINE_LIMIT = 1024 * 1024


async def json_lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    """The objects. Raises EngineError for what is no JSON object, or longer than LINE_LIMIT bytes."""
    rest = bytearray()
    async for piece in pieces:
        rest += piece
        if b"\n" in piece:
            *lines, rest = rest.split(b"\n")
            for line in lines:
                if line.strip():
                    yield _object(line)
        if len(rest) > LINE_LIMIT:
            raise EngineError(f"the engine sent a line longer than {LINE_LIMIT} bytes")
    if rest.strip():
        yield _object(rest)


def _object(line: bytearray) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise EngineError(f"the engine sent no JSON: {bytes(line[:80])!r}") from exc
    if not isinstance(value, dict):
        raise EngineError(f"the engine sent no JSON object: {bytes(line[:80])!r}")
    return value
