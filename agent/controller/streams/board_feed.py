# SPDX-License-Identifier: GPL-2.0-or-later
"""The status board as a stream: a snapshot, then each change, resumable. Doors make of it what their readers take."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from agent.clients.to_loop import tell
from agent.status.board import StatusBoard


async def board_feed(
    board: StatusBoard, resume: int | None = None
) -> AsyncGenerator[tuple[str, dict[str, Any], int], None]:
    """("status", snapshot, version) and ("change", event, version). Resumes after `resume` where the ring reaches.

    A reader that falls behind the ring gets a new snapshot instead of what it missed: it slows nobody down.
    """
    loop = asyncio.get_running_loop()
    wake = asyncio.Event()

    def changed() -> None:
        tell(loop, wake.set)

    unsubscribe = board.subscribe(changed)
    try:
        sent = resume
        while True:
            wake.clear()
            events = board.events_after(sent) if sent is not None else None
            if sent is None or events is None:
                snapshot = board.snapshot()
                sent = int(snapshot["version"])
                yield "status", snapshot, sent
                continue
            for event in events:
                sent = int(event["id"])
                yield "change", event, sent
            await wake.wait()
    finally:
        unsubscribe()
