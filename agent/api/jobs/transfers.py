# SPDX-License-Identifier: GPL-2.0-or-later
"""Transfers: one file in several requests, for doors that cut every request after a while (uhttpd: 60 s).

The registry: makes them, bounds their number, and ends those that are not asked for any more. Every open one holds a
request to the engine and a few MiB at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from agent.api.archives import Body, Way
from agent.api.jobs.job_specs import JobSpec
from agent.api.jobs.jobs import Jobs
from agent.api.jobs.transfer import Download, Transfer
from agent.api.jobs.upload import Pipe, Upload
from agent.api.problems import RequestError
from agent.data.parts import Data
from agent.engine.stream import DockerStream, EngineResponse
from agent.errors import ConflictError

IDLE_S = 120.0
OPEN_LIMIT = 4
KEPT = 32


class IdleError(RequestError):
    """The client did not come back in time (410: it starts over)."""

    code = "idle"

    def __init__(self, message: str) -> None:
        super().__init__(message, status=410)


class Transfers:
    """Belongs to one event loop. What is not asked about for `idle_s` is ended, and after as long again forgotten."""

    def __init__(self, engine: DockerStream, jobs: Jobs, *, idle_s: float = IDLE_S) -> None:
        self._engine = engine
        self._jobs = jobs
        self._idle_s = idle_s
        self._all: dict[str, Transfer] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._opening = 0
        self._ends: set[asyncio.Task[None]] = set()

    @property
    def open(self) -> int:
        """How many are not over."""
        return sum(not transfer.is_over for transfer in self._all.values())

    @contextmanager
    def room(self) -> Iterator[None]:
        """Make a transfer inside it: the place is taken from the first step on. Raises ConflictError.

        An ended download whose last part could still be asked for again makes room, the oldest first.
        """
        holders = [transfer for transfer in self._all.values() if transfer.holds]
        ended = [transfer for transfer in holders if transfer.is_over]
        for transfer in ended[: max(0, len(holders) + self._opening - OPEN_LIMIT + 1)]:
            transfer.release()
        if self.open + self._opening >= OPEN_LIMIT:
            raise ConflictError(f"{OPEN_LIMIT} transfers are open; end one of them first")
        # counted while it is being made: the engine may take seconds to answer, and others come meanwhile
        self._opening += 1
        try:
            yield
        finally:
            self._opening -= 1

    def upload_job(self, spec: JobSpec, *, size: int) -> Upload:
        """An image load or a build. `size` 0: not known. Raises ConflictError where too many jobs run."""
        pipe = Pipe()
        job = self._jobs.start(spec, body=pipe, upload_bytes=size)
        upload = Upload(spec.title, pipe, job)
        self._add(upload, upload.through_job(self._jobs, job))
        return upload

    def upload_archive(self, container: str, query: list[tuple[str, str]]) -> Upload:
        """Files into a container."""
        upload = Upload(container)
        self._add(upload, upload.into_archive(self._engine, container, query))
        return upload

    def upload_volume(self, data: Data, volume: str, way: Way) -> Upload:
        """An archive into a volume."""
        upload = Upload(volume)
        self._add(upload, upload.into_volume(data, volume, way))
        return upload

    async def download(
        self, title: str, opening: Awaitable[EngineResponse | Body], *, wait_s: float
    ) -> Download:
        """A file of the engine, once it answers or after `wait_s`. Raises what it refuses with until then."""
        download = Download(title)
        self._add(download, download.read_all(opening))
        await download.begun(wait_s)
        if download.error is not None:
            self._forget(download)
            raise download.error
        return download

    def get(self, number: str) -> Transfer:
        """Raises RequestError 404."""
        found = self._all.get(number)
        if found is None:
            raise RequestError("no such transfer, or its client did not come back in time", status=404)
        return found

    def all(self) -> list[Transfer]:
        """Newest first."""
        return list(reversed(self._all.values()))

    async def remove(self, number: str) -> None:
        """Ends and forgets it. Raises RequestError 404."""
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
        # a transfer that waits for the engine is not idle: a large image is packed for minutes
        if transfer.is_waiting:
            why = IdleError(f"no part of the transfer was requested for {self._idle_s:g} s")
            task = asyncio.create_task(transfer.abort(why), name=f"idle-{transfer.id[:8]}")
            self._ends.add(task)
            task.add_done_callback(self._ends.discard)

    def _forget(self, transfer: Transfer) -> None:
        self._all.pop(transfer.id, None)
        if timer := self._timers.pop(transfer.id, None):
            timer.cancel()
