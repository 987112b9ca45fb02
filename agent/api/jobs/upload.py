# SPDX-License-Identifier: GPL-2.0-or-later
"""A file into the engine in parts: the bytes of each go on into one request that is held open. Nothing is spooled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

from agent.api.archives import Way, put_archive
from agent.api.jobs.jobs import Job, Jobs, JobState
from agent.api.jobs.transfer import State, Transfer
from agent.api.problems import RequestError
from agent.data.parts import Data
from agent.engine.stream import DockerStream, SourceError
from agent.errors import ConflictError, EngineError

# The end of a file goes to the engine only once its hash was found right. Longer than what tar puts after the last
# member by itself, so that to the engine no archive is complete before.
TAIL = 64 * 1024


class Pipe:
    """An upload's bytes on their way from one request into the other; holds one piece."""

    def __init__(self) -> None:
        self._piece = b""
        self._ended = False
        self._satisfied = False
        self._error: Exception | None = None
        self._news = asyncio.Event()

    async def put(self, piece: bytes) -> None:
        """Returns when there is room for it; when cancelled, it was not taken. Raises what `fail` was given."""
        while self._piece and not self._satisfied and self._error is None:
            await self._news.wait()
        if self._error is not None:
            raise self._error
        if not self._satisfied:
            self._piece = piece
            self._tell()

    def end(self) -> None:
        """The file is complete."""
        self._ended = True
        self._tell()

    def satisfy(self) -> None:
        """The engine needs no more: what still comes is dropped."""
        self._satisfied = True
        self._tell()

    def fail(self, error: Exception) -> None:
        """Both ends get `error`, the first one."""
        self._error = self._error or error
        self._tell()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            while not self._piece and not self._ended and self._error is None:
                await self._news.wait()
            if self._error is not None:
                raise self._error
            piece, self._piece = self._piece, b""
            self._tell()
            if not piece:
                return
            yield piece

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class Upload(Transfer):
    """`job` is the load or build that it feeds; an archive into a container has none."""

    direction = "up"

    def __init__(self, title: str, pipe: Pipe | None = None, job: Job | None = None) -> None:
        super().__init__(title)
        self.pipe = pipe or Pipe()
        self.job = job
        self._tail = b""
        self._taken = 0
        self._one = asyncio.Lock()
        self._satisfied = False

    @property
    def offset(self) -> int:
        return self._taken

    def release(self) -> None:
        self._tail = b""

    def as_json(self) -> dict[str, Any]:
        return {**super().as_json(), "job": None if self.job is None else self.job.id}

    async def take(self, offset: int, pieces: AsyncIterator[bytes]) -> None:
        """A part that begins at `offset`. What was taken already is passed over: its answer may have got lost.

        Raises RequestError 409 with the offset that is expected, ConflictError, and what the engine failed of.
        """
        self.check_error()
        if self.state is not State.OPEN:
            raise ConflictError("the transfer has been ended")
        # a gap cannot be filled later, since nothing is kept of what has gone to the engine
        if offset > self._taken:
            headers = {"x-transfer-offset": str(self._taken)}
            raise RequestError(
                f"the next part begins at {self._taken}, not at {offset}", status=409, headers=headers
            )
        turn = self._begin()
        self.parts += 1
        position = offset
        try:
            async for piece in pieces:
                # a part that hangs may still be putting its last piece when the next part takes over
                async with self._one:
                    self._check(turn)
                    await self._add(piece[max(0, self._taken - position) :])
                position += len(piece)
        finally:
            self.parts -= 1
            self.on_touch()

    async def _add(self, piece: bytes) -> None:
        """All or nothing of a piece: no await follows the `put`, so a part that is cut cannot stop half-way."""
        held = self._tail + piece
        ready = held[: max(0, len(held) - TAIL)]
        if ready:
            await self._put(ready)
        self._tail = held[len(ready) :]
        self._taken += len(piece)
        self._digest.update(piece)

    async def _put(self, piece: bytes) -> None:
        try:
            await self.pipe.put(piece)
        except SourceError:
            # the engine knows better why than "the pipe broke"
            await self._settled()
            if self.error is not None:
                raise self.error from None
            raise

    async def end(self, *, sha256: str, size: int | None) -> None:
        """The file is complete. Asking twice does no harm: the first answer may have got lost.

        Raises RequestError 409 for another `size`: parts are missing; 422 for another hash: then the file is lost.
        """
        self.check_error()
        if self.state is State.OPEN and size is not None and size != self._taken:
            raise RequestError(f"{self._taken} bytes came, not {size}", status=409)
        # a part that is still open belongs to a client that has given up on it
        self._begin()
        async with self._one:
            if self.state is State.OPEN:
                await self._end(sha256)

    async def _end(self, sha256: str) -> None:
        found = self._digest.hexdigest()
        if sha256 and sha256.lower() != found:
            wrong = RequestError(
                f"the sha256 of what came is {found}, not {sha256[:64]}; it was not handed over", status=422
            )
            await self.abort(wrong)
            raise wrong
        if self._tail:
            await self._put(self._tail)
            self._tail = b""
        self.state = State.DONE if self._satisfied else State.ENDING
        self.pipe.end()

    async def over(self, wait_s: float) -> None:
        """Waits until the engine is done with it, `wait_s` at most."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=wait_s)

    async def abort(self, why: Exception) -> None:
        self.fail(why)
        self.pipe.fail(SourceError(str(why)))
        await self._settled()  # the engine's side fails of the broken body, and says so itself
        await super().abort(why)

    def _worked(self) -> None:
        self._satisfied = True
        if self.state is State.ENDING:
            self.state = State.DONE

    async def through_job(self, jobs: Jobs, job: Job) -> None:
        """Until the job is over. Raises what it failed of."""
        try:
            async for _ in job.changes():
                pass
            if job.state is not JobState.SUCCEEDED:
                why = (job.error or {}).get("message", f"the job was {job.state}")
                raise EngineError(str(why), status=409)
        except BaseException:
            self.pipe.fail(SourceError("the engine accepts no more"))
            if not job.is_over:
                await jobs.cancel(job.id)
            raise
        self.pipe.satisfy()

    async def into_archive(self, engine: DockerStream, container: str, query: list[tuple[str, str]]) -> None:
        """PUT /containers/{id}/archive."""
        await self._feeding(put_archive(engine, container, query, self.pipe))

    async def into_volume(self, data: Data, volume: str, way: Way) -> None:
        """See `Way.fill`."""
        await self._feeding(way.fill(data, volume, self.pipe))

    async def _feeding(self, work: Awaitable[object]) -> None:
        try:
            await work
        except BaseException:
            self.pipe.fail(SourceError("the engine accepts no more"))
            raise
        self.pipe.satisfy()
