# SPDX-License-Identifier: GPL-2.0-or-later
"""What uploads and downloads in parts share: an id, a state, and which request may go on."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from enum import StrEnum
from typing import Any

from agent.api.archives import Body
from agent.api.problems import RequestError
from agent.engine.stream import EngineResponse, SourceError
from agent.errors import ConflictError, InternalError, UcidockdError

logger = logging.getLogger(__name__)

_END_S = 5.0  # until a cancelled request to the engine has to be gone


class State(StrEnum):
    """The state of a transfer."""

    OPEN = "open"
    ENDING = "ending"  # the engine has the whole file and is still working on it
    DONE = "done"
    FAILED = "failed"


class Transfer(ABC):
    """One file, moved one part at a time. A new part replaces one that is still open, because its client has given up
    on it.
    """

    direction = ""

    def __init__(self, title: str) -> None:
        self.id = secrets.token_hex(16)
        self.title = title
        self.target = ""  # the kind of content, such as `save`; sessions that may only read may get `logs`
        self.state = State.OPEN
        self.error: Exception | None = None
        self.parts = 0  # the number of requests being served now
        self.on_touch: Callable[[], None] = lambda: None
        self._digest = hashlib.sha256()
        self._turn = 0  # a newer part takes over from one that hangs
        self._task: asyncio.Task[None] | None = None

    @property
    @abstractmethod
    def offset(self) -> int:
        """For an upload, where the next part begins; for a download, how far the engine's answer was read. In bytes."""

    @property
    def is_over(self) -> bool:
        return self.state in (State.DONE, State.FAILED)

    @property
    def is_waiting(self) -> bool:
        """Whether the next step is the client's."""
        return self.state is State.OPEN and not self.parts

    @property
    def holds(self) -> bool:
        """Whether it holds bytes in memory, or a request to the engine."""
        return not self.is_over

    @abstractmethod
    def release(self) -> None:
        """Frees what an ended transfer still holds."""

    def as_json(self) -> dict[str, Any]:
        """As JSON. `size` and `sha256` of the whole file appear once they are known."""
        # an earlier number would be mistaken for the final size
        known = self.state in (State.ENDING, State.DONE)
        return {
            "id": self.id,
            "direction": self.direction,
            "target": self.target,
            "title": self.title,
            "state": self.state,
            "offset": self.offset,
            "size": self.offset if known else None,
            "sha256": self._digest.hexdigest() if known else None,
            "error": None if self.error is None else str(self.error),
        }

    def run(self, work: Coroutine[Any, Any, None], touched: Callable[[], None]) -> None:
        """Runs the engine's side in a separate task, because it outlives the requests that carry the parts.
        Calls `touched` for each request of the client and at the end; that restarts the idle time.
        """
        self.on_touch = touched
        self._task = asyncio.create_task(self._run(work), name=f"transfer-{self.direction}-{self.id[:8]}")

    async def abort(self, why: Exception) -> None:
        """Ends the transfer and its request to the engine."""
        self.fail(why)
        self._turn += 1
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=_END_S)

    def fail(self, why: Exception) -> None:
        """Marks the transfer as failed; only the first reason is kept."""
        if not self.is_over:
            self.state, self.error = State.FAILED, why
            logger.info("transfer %s of %s: %s", self.direction, self.title, why)

    async def _run(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            # the task's last step, so swallowing the cancellation is safe
            self.fail(ConflictError("the transfer was stopped"))
        except (UcidockdError, SourceError) as exc:
            self.fail(exc)
        except Exception:
            logger.exception("transfer %s failed", self.id)
            self.fail(InternalError("internal error"))
        else:
            self._worked()
        self.on_touch()

    def _worked(self) -> None:
        self.state = State.DONE

    async def _settled(self) -> None:
        """Waits until the engine's side, which has failed, has reported why."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=_END_S)

    def check_error(self) -> None:
        """Raises the error that the transfer failed with."""
        if self.error is not None:
            raise self.error

    def _begin(self) -> int:
        """Starts the turn of a new part, which ends the turn of the one before."""
        self._turn += 1
        self.on_touch()
        return self._turn

    def _check(self, turn: int) -> None:
        self.check_error()
        if turn != self._turn:
            raise ConflictError("another request for this transfer took over")


# Downloads a file from the engine in parts. The engine's answer is read as parts are requested; the last bytes can be
# requested again.


WINDOW = 4 * 1024 * 1024  # how far back from the last byte sent a client may read again
AHEAD = 256 * 1024  # read from the engine before a client asks for it
PIECE = 256 * 1024  # the longest piece of the engine's answer


class Download(Transfer):
    """Keeps WINDOW bytes, and what the engine sends at once."""

    direction = "down"

    def __init__(self, title: str) -> None:
        super().__init__(title)
        self._begun = asyncio.Event()
        self._window = ReplayBuffer(
            WINDOW + AHEAD + PIECE
        )  # room for what is read ahead, in addition to WINDOW
        self._wanted = 0
        self._news = asyncio.Condition()
        self.total: int | None = None  # size of the file in bytes, if the engine states it
        self._is_used = False  # whether the link to the whole file was used

    @property
    def offset(self) -> int:
        return self._window.end

    @property
    def holds(self) -> bool:
        return not self.is_over or self._window.start < self._window.end

    def release(self) -> None:
        self._window.clear()

    def as_json(self) -> dict[str, Any]:
        shown = {**super().as_json(), "kept_from": self._window.start, "is_read": self.parts > 0}
        return {**shown, "total": self.total if shown["size"] is None else shown["size"]}

    async def read_all(self, opening: Awaitable[EngineResponse | Body]) -> None:
        """Reads the engine's answer, at most AHEAD bytes past what was requested."""
        async with await opening as response:
            self.total = response.length
            self._begun.set()
            async for piece in response.chunks():
                async with self._news:
                    # back-pressure: what the client does not fetch stays with the engine
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
        """Waits until the engine answers, at most `wait_s`: it packs a large image before it answers."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._begun.wait()

    def check(self, offset: int) -> None:
        """Raises RequestError 416 if no part can begin at `offset`, and the error that the engine failed with."""
        self.check_error()
        if not self._window.start <= offset <= self._window.end:
            raise RequestError(
                f"a part can begin at {self._window.start} to {self._window.end}; earlier bytes are no longer kept",
                status=416,
                headers={"x-transfer-offset": str(self._window.start)},
            )

    def use_link(self) -> None:
        """Allows a single request without an offset, which reads the whole file: a link in a page. Raises
        RequestError 410.
        """
        if self._is_used:
            raise RequestError("this link was used already: start another transfer", status=410)
        self._is_used = True

    async def part(self, offset: int, length: int | None) -> AsyncGenerator[bytes, None]:
        """Yields `length` bytes from `offset`, fewer at the end of the file. Raises the engine's error."""
        # a request for a part replaces one that hangs, because its client has given up on that one
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
        # also if the client disconnects in the middle: a part that seems open for ever would keep the transfer from ending
        finally:
            self.parts -= 1
            self.on_touch()

    async def _next(self, turn: int, offset: int, limit: int) -> bytes:
        async with self._news:
            # a part that is requested again must not move the mark back, or reading would stop too early
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


# The last bytes of a stream by offset: a client whose connection broke can request them again.


class WindowError(ValueError):
    """These bytes are no longer kept, or not read yet."""


class ReplayBuffer:
    """Keeps at least the last `limit` bytes that were added, in their original pieces."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pieces: deque[bytes] = deque()  # as they arrived; together `start` to `end`
        self.start = 0
        self.end = 0

    def add(self, piece: bytes) -> None:
        """Appends a piece, and drops old pieces that are not needed for `limit` bytes."""
        if not piece:
            return
        self._pieces.append(piece)
        self.end += len(piece)
        # whole pieces only, since cutting one would copy it
        while self.end - self.start - len(self._pieces[0]) >= self._limit:
            self.start += len(self._pieces.popleft())

    def clear(self) -> None:
        """Drops all pieces; the end stays where it was."""
        self._pieces.clear()
        self.start = self.end

    def get(self, offset: int, limit: int) -> bytes:
        """Up to `limit` bytes from `offset`; b"" at the end. Raises WindowError."""
        if not self.start <= offset <= self.end:
            raise WindowError(f"offset {offset} is not in {self.start} to {self.end}")
        # searched from the end, where most readers are
        begin = self.end
        for piece in reversed(self._pieces):
            begin -= len(piece)
            if begin <= offset:
                return piece[offset - begin : offset - begin + limit]
        return b""
