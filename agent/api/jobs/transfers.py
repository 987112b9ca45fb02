# SPDX-License-Identifier: GPL-2.0-or-later
"""Transfers: one file in several requests, for servers that cut every request after a while (uhttpd: 60 s).

The registry creates transfers, limits their number, and ends those whose client has left. An open transfer holds one
request to the engine and a few MiB at most. The parts of an upload go straight into that request: nothing is spooled
to disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from agent.api.archives import Body, UploadTarget, put_archive
from agent.api.jobs.job_specs import JobSpec
from agent.api.jobs.jobs import Job, Jobs, JobState
from agent.api.jobs.transfer import Download, State, Transfer
from agent.api.problems import RequestError
from agent.data.parts import Data
from agent.engine.stream import DockerStream, EngineResponse, SourceError
from agent.errors import ConflictError, EngineError

IDLE_S = 120.0  # without a request of its client
OPEN_LIMIT = 4  # each may hold a request to the engine and a few MiB
KEPT = 32  # transfers, with those that have ended


class IdleError(RequestError):
    """The client did not come back in time (410: it has to start over)."""

    code = "idle"

    def __init__(self, message: str) -> None:
        super().__init__(message, status=410)


class Transfers:
    """Belongs to one event loop. A transfer without a request for `idle_s` seconds is ended, and forgotten after as
    long again.
    """

    def __init__(self, engine: DockerStream, jobs: Jobs, *, idle_s: float = IDLE_S) -> None:
        self._engine = engine
        self._jobs = jobs
        self._idle_s = idle_s
        self._all: dict[str, Transfer] = {}  # in the order of their start
        self._timers: dict[str, asyncio.TimerHandle] = {}  # by id; each request of the client sets it back
        self._opening = 0
        # held, because the loop keeps only weak references to tasks
        self._ends: set[asyncio.Task[None]] = set()

    @property
    def open(self) -> int:
        """The number of transfers that have not ended."""
        return sum(not transfer.is_over for transfer in self._all.values())

    @contextmanager
    def room(self) -> Iterator[None]:
        """Reserves a slot; create the transfer inside the block. Raises ConflictError.

        If needed, the oldest ended download that could still be read again is released to make room.
        """
        holders = [transfer for transfer in self._all.values() if transfer.holds]
        ended = [transfer for transfer in holders if transfer.is_over]
        # ended downloads are kept for a client that lost the last part; a new transfer matters more
        for transfer in ended[: max(0, len(holders) + self._opening - OPEN_LIMIT + 1)]:
            transfer.release()
        if self.open + self._opening >= OPEN_LIMIT:
            raise ConflictError(f"{OPEN_LIMIT} transfers are open; end one of them first")
        # reserved already now: the engine may take seconds to answer, and other requests come meanwhile
        self._opening += 1
        try:
            yield
        finally:
            self._opening -= 1

    def upload_job(self, spec: JobSpec, *, size: int) -> Upload:
        """An upload that feeds an image load or a build. `size` is in bytes, 0 if not known. Raises ConflictError if
        too many jobs run.
        """
        pipe = Pipe()
        job = self._jobs.start(spec, body=pipe, upload_bytes=size)
        upload = Upload(spec.title, pipe, job)
        self._add(upload, upload.through_job(self._jobs, job))
        return upload

    def upload_archive(self, container: str, query: list[tuple[str, str]]) -> Upload:
        """An upload of files into a container."""
        upload = Upload(container)
        self._add(upload, upload.into_archive(self._engine, container, query))
        return upload

    def upload_volume(self, data: Data, volume: str, way: UploadTarget) -> Upload:
        """An upload of an archive into a volume."""
        upload = Upload(volume)
        self._add(upload, upload.into_volume(data, volume, way))
        return upload

    async def download(
        self, title: str, opening: Awaitable[EngineResponse | Body], *, wait_s: float
    ) -> Download:
        """Opens a download; returns when the engine answers, or after `wait_s`. Raises the engine's error if it
        refuses by then.
        """
        download = Download(title)
        self._add(download, download.read_all(opening))
        await download.begun(wait_s)
        if download.error is not None:
            # its client gets the error, and never an id to ask for it with
            self._forget(download)
            raise download.error
        return download

    def get(self, number: str, *, target: str | None = None) -> Transfer:
        """`target`: the transfer must have this kind of content. Raises RequestError 404."""
        found = self._all.get(number)
        if found is None or target not in (None, found.target):
            raise RequestError("no such transfer, or its client did not come back in time", status=404)
        return found

    def all(self) -> list[Transfer]:
        """All transfers, newest first."""
        return list(reversed(self._all.values()))

    async def remove(self, number: str) -> None:
        """Ends and forgets a transfer. Raises RequestError 404."""
        found = self.get(number)
        self._forget(found)
        await found.abort(ConflictError("the transfer was cancelled"))

    def _add(self, transfer: Transfer, work: Coroutine[Any, Any, None]) -> None:
        self._all[transfer.id] = transfer
        transfer.run(work, lambda: self._touched(transfer))
        self._touched(transfer)
        for old in [item for item in self._all.values() if item.is_over][: max(0, len(self._all) - KEPT)]:
            self._forget(old)

    def _touched(self, transfer: Transfer) -> None:
        if transfer.id not in self._all:
            return
        if timer := self._timers.pop(transfer.id, None):
            timer.cancel()
        loop = asyncio.get_running_loop()
        self._timers[transfer.id] = loop.call_later(self._idle_s, self._idle, transfer)

    def _idle(self, transfer: Transfer) -> None:
        if transfer.is_over:
            self._forget(transfer)
            return
        self._touched(transfer)
        # a transfer that waits for the engine is not idle: packing a large image takes minutes
        if transfer.is_waiting:
            why = IdleError(f"no part of the transfer was requested for {self._idle_s:g} s")
            task = asyncio.create_task(transfer.abort(why), name=f"idle-{transfer.id[:8]}")
            self._ends.add(task)
            task.add_done_callback(self._ends.discard)

    def _forget(self, transfer: Transfer) -> None:
        self._all.pop(transfer.id, None)
        if timer := self._timers.pop(transfer.id, None):
            timer.cancel()


# The end of a file goes to the engine only after its checksum matched. This is longer than the padding that tar
# writes after the last member, so the engine never has a complete archive before.
TAIL = 64 * 1024


class Pipe:
    """Passes an upload's bytes from the client's requests to the engine's request; holds one piece."""

    def __init__(self) -> None:
        self._piece = b""  # taken from the client, and not yet by the engine
        self._ended = False
        self._satisfied = False  # the engine needs no more: pieces are dropped
        self._error: Exception | None = None
        self._news = asyncio.Event()  # replaced at each change, so that both sides wake up

    async def put(self, piece: bytes) -> None:
        """Returns when the piece was taken; if cancelled, it was not. Raises the error given to `fail`."""
        while self._piece and not self._satisfied and self._error is None:
            await self._news.wait()
        if self._error is not None:
            raise self._error
        if not self._satisfied:
            self._piece = piece
            self._tell()

    def end(self) -> None:
        """Marks the file as complete."""
        self._ended = True
        self._tell()

    def satisfy(self) -> None:
        """The engine needs no more: further pieces are dropped."""
        self._satisfied = True
        self._tell()

    def fail(self, error: Exception) -> None:
        """Both sides get `error`; only the first one is kept."""
        self._error = self._error or error
        self._tell()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            # woken by the next piece, by the end, or by an error of the client's side
            while not self._piece and not self._ended and self._error is None:
                await self._news.wait()
            if self._error is not None:
                raise self._error
            piece, self._piece = self._piece, b""
            # tells `put` that the piece was taken, so that at most one is held in memory
            self._tell()
            if not piece:
                return
            yield piece

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class Upload(Transfer):
    """`job` is the load or build that the upload feeds; an archive into a container has no job."""

    direction = "up"

    def __init__(self, title: str, pipe: Pipe | None = None, job: Job | None = None) -> None:
        super().__init__(title)
        self.pipe = pipe or Pipe()
        self.job = job
        self._tail = b""  # held back until the checksum is right
        self._taken = 0  # bytes of the file so far
        self._one = asyncio.Lock()  # held while a piece is added
        self._satisfied = False

    @property
    def offset(self) -> int:
        return self._taken

    def release(self) -> None:
        self._tail = b""

    def as_json(self) -> dict[str, Any]:
        return {**super().as_json(), "job": None if self.job is None else self.job.id}

    async def take(self, offset: int, pieces: AsyncIterator[bytes]) -> None:
        """Takes a part that begins at `offset`. Bytes that were taken before are skipped, because the answer to the
        earlier request may have been lost.

        Raises RequestError 409 with the expected offset, ConflictError, and the engine's error.
        """
        self.check_error()
        if self.state is not State.OPEN:
            raise ConflictError("the transfer has been ended")
        # nothing is kept of what went to the engine, so a gap could not be filled later
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
        """Takes a piece completely or not at all: nothing is awaited after `put`, so a cancelled part
        cannot stop half-way.
        """
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
            # the engine's side knows the actual reason, not only that the pipe broke
            await self._settled()
            if self.error is not None:
                raise self.error from None
            raise

    async def end(self, *, sha256: str, size: int | None) -> None:
        """Completes the file. Asking twice is harmless, because the first answer may have been lost.

        Raises RequestError 409 for a different `size` (parts are missing), and 422 for a different checksum (the file
        is discarded).
        """
        self.check_error()
        if self.state is State.OPEN and size is not None and size != self._taken:
            raise RequestError(f"{self._taken} bytes were received, not {size}", status=409)
        # a part that is still open belongs to a client that has given up on it
        self._begin()
        async with self._one:
            if self.state is State.OPEN:
                await self._end(sha256)

    async def _end(self, sha256: str) -> None:
        # The last 64 KiB are still held here. Without them the engine's archive is incomplete, so a damaged file is
        # never loaded.
        found = self._digest.hexdigest()
        if sha256 and sha256.lower() != found:
            wrong = RequestError(
                f"the sha256 of the received file is {found}, not {sha256[:64]}; it was not passed on",
                status=422,
            )
            await self.abort(wrong)
            raise wrong
        if self._tail:
            await self._put(self._tail)
            self._tail = b""
        # the engine may have answered already, or still be working
        self.state = State.DONE if self._satisfied else State.ENDING
        self.pipe.end()

    async def over(self, wait_s: float) -> None:
        """Waits until the engine is done with the file, at most `wait_s`."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=wait_s)

    async def abort(self, why: Exception) -> None:
        self.fail(why)
        self.pipe.fail(SourceError(str(why)))
        await self._settled()  # the engine's side fails because of the broken body, and reports that itself
        await super().abort(why)

    def _worked(self) -> None:
        self._satisfied = True
        if self.state is State.ENDING:
            self.state = State.DONE

    async def through_job(self, jobs: Jobs, job: Job) -> None:
        """Waits until the job is over. Raises the error that it failed with."""
        try:
            async for _ in job.changes():
                pass
            if job.state is not JobState.SUCCEEDED:
                why = (job.error or {}).get("message", f"the job was {job.state}")
                raise EngineError(str(why), status=409)
        # also when cancelled: otherwise the job would wait for bytes that never come
        except BaseException:
            self.pipe.fail(SourceError("the engine accepts no more"))
            if not job.is_over:
                await jobs.cancel(job.id)
            raise
        self.pipe.satisfy()

    async def into_archive(self, engine: DockerStream, container: str, query: list[tuple[str, str]]) -> None:
        """PUT /containers/{id}/archive."""
        await self._feeding(put_archive(engine, container, query, self.pipe))

    async def into_volume(self, data: Data, volume: str, way: UploadTarget) -> None:
        """See `UploadTarget.fill`."""
        await self._feeding(way.fill(data, volume, self.pipe))

    async def _feeding(self, work: Awaitable[object]) -> None:
        try:
            await work
        except BaseException:
            self.pipe.fail(SourceError("the engine accepts no more"))
            raise
        self.pipe.satisfy()
