# SPDX-License-Identifier: GPL-2.0-or-later
"""Server-sent events (WHATWG HTML, 9.2): the lines, heartbeats, and resuming."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

from agent.wire.natural import natural

HEARTBEAT_S = 15.0
HEARTBEAT = b": still here\n\n"
MEDIA_TYPE = "text/event-stream"


def event(name: str, data: Any, number: int | str | None = None) -> bytes:
    """One event with JSON data."""
    head = "" if number is None else f"id: {number}\n"
    return f"{head}event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode("utf-8", "replace")


def resume_id(headers: Mapping[str, str]) -> int | None:
    """The Last-Event-ID of a reader that comes back; None for one that starts, or whose id is not ours."""
    last = headers.get("last-event-id", "")
    return natural(last)


async def with_heartbeat(
    source: AsyncIterator[bytes], every_s: float = HEARTBEAT_S
) -> AsyncGenerator[bytes, None]:
    """Adds a comment whenever `source` is quiet for `every_s`: the reader, and every proxy, sees that we live."""
    step: asyncio.Future[bytes] | None = None
    try:
        while True:
            step = step or asyncio.ensure_future(anext(source))
            done, _ = await asyncio.wait({step}, timeout=every_s)
            if not done:
                yield HEARTBEAT
                continue
            finished, step = step, None
            try:
                yield finished.result()
            except StopAsyncIteration:
                return
    finally:
        if step is not None:
            step.cancel()
            await asyncio.wait({step})
        if isinstance(source, AsyncGenerator):
            await source.aclose()
