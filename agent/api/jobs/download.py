# SPDX-License-Identifier: GPL-2.0-or-later
"""A file out of the engine in parts: its answer is read as parts are asked for; the last bytes can be had again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Coroutine
from typing import Any

from agent.api.jobs.transfer import State, Transfer
from agent.api.problems import RequestError
from agent.engine.stream import EngineResponse
from agent.wire.window import Window, WindowError

WINDOW = 4 * 1024 * 1024  # what can be asked for again, before the furthest byte that was sent
AHEAD = 256 * 1024  # read of the engine before it is asked for
PIECE = 256 * 1024  # no piece of the engine's answer is longer


class Download(Transfer):
    """Holds WINDOW bytes, and what the engine sends at once."""

    direction = "down"

    def __init__(self, title: str) -> None:
        super().__init__(title)
        self._begun = asyncio.Event()
        self._window = Window(WINDOW + AHEAD + PIECE)  # what was read ahead takes nothing from the WINDOW
        self._wanted = 0
        self._news = asyncio.Condition()

    @property
    def offset(self) -> int:
        return self._window.end

    @property
    def holds(self) -> bool:
        return not self.is_over or self._window.start < self._window.end

    def release(self) -> None:
        self._window.clear()

    def as_json(self) -> dict[str, Any]:
        return {**super().as_json(), "kept_from": self._window.start}

    async def read_all(self, opening: Awaitable[EngineResponse]) -> None:
        """Reads the engine's answer, never further than AHEAD past what was asked for."""
        async with await opening as response:
            self._begun.set()
            async for piece in response.chunks():
                async with self._news:
                    await self._news.wait_for(lambda: self._window.end - self._wanted < AHEAD)
                    self._window.add(piece)
                    self._digest.update(piece)
                    self._news.notify_all()

    async def _run(self, work: Coroutine[Any, Any, None]) -> None:
        await super()._run(work)
        self._begun.set()
        async with self._news:
            self._news.notify_all()

    async def begun(self, wait_s: float) -> None:
        """Until the engine answers, but no longer than `wait_s`: it packs a large image first."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._begun.wait()

    def check(self, offset: int) -> None:
        """Raises RequestError 416 where no part can begin, and what the engine failed of."""
        self.check_error()
        if not self._window.start <= offset <= self._window.end:
            raise RequestError(
                f"a part can begin at {self._window.start} to {self._window.end}; what came before is not kept",
                status=416,
                headers={"x-transfer-offset": str(self._window.start)},
            )

    async def part(self, offset: int, length: int | None) -> AsyncGenerator[bytes, None]:
        """`length` bytes from `offset`, fewer where the file ends. Raises what the engine failed of."""
        turn = self._begin()
        stop = None if length is None else offset + length
        self.parts += 1
        try:
            while stop is None or offset < stop:
                piece = await self._next(turn, offset, PIECE if stop is None else min(PIECE, stop - offset))
                if not piece:
                    return
                yield piece
                offset += len(piece)
        finally:
            self.parts -= 1
            self.on_touch()

    async def _next(self, turn: int, offset: int, limit: int) -> bytes:
        async with self._news:
            self._wanted = max(self._wanted, offset)
            self._news.notify_all()
            await self._news.wait_for(
                lambda: self._window.end > offset or self.state is not State.OPEN or turn != self._turn
            )
            self._check(turn)
            try:
                return self._window.get(offset, limit)
            except WindowError as exc:
                raise RequestError(str(exc), status=416) from exc
