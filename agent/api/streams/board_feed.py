# SPDX-License-Identifier: GPL-2.0-or-later
"""The status board as a stream: a snapshot, then each change, resumable. Doors make of it what their readers take."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from agent.status.board import StatusBoard
from agent.threads import tell


async def board_feed(
    board: StatusBoard, resume: int | None = None
) -> AsyncGenerator[tuple[str, dict[str, Any], int | None], None]:
    """("status", page, version) for each page of it, then ("change", event, version). Resumes after `resume` where the
    ring reaches. The last page has no `next`; the version of those before it is None, as nobody can resume after them.

    A reader that falls behind the ring gets the whole status instead of what it missed: it slows nobody down.
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
                sent = board.version  # what changes while the pages go out comes after them
                for page in board.pages():
                    yield "status", page, None if "next" in page else sent
                continue
            for event in events:
                sent = int(event["id"])
                yield "change", event, sent
            await wake.wait()
    finally:
        unsubscribe()
