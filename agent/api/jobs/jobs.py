# SPDX-License-Identifier: GPL-2.0-or-later
"""Jobs: pulls, pushes, builds, loads and prunes, which continue after their client has left. Knows nothing of HTTP.

`job_specs` makes the specifications; routes and stream objects on ubus show and follow the jobs. A job is one request to the
engine. Ending the job closes that request, which ends the engine's work.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from enum import StrEnum
from socket import socket
from typing import Any

from agent.api.jobs.job_specs import STALL_S, JobKind, JobSpec
from agent.api.problems import RequestError
from agent.api.streams.engine_streams import json_lines
from agent.engine.body_pump import Note, Passing
from agent.engine.stream import DockerStream, SourceError
from agent.errors import ConflictError, EngineError, UcidockdError
from agent.model.secrets import redactor
from agent.status.progress import Progress, clean
from agent.status.ring import Ring

logger = logging.getLogger(__name__)

KEPT = 100  # jobs, with those that have ended
RUNNING_LIMIT = 16  # each may hold a connection to the engine
LIMIT_S = 24 * 3600.0  # for a whole job, because an engine that keeps sending output is not proof of progress
MESSAGES = 256  # kept of a running job, for resuming; fewer are kept once it has ended
MESSAGES_ENDED = 64
COALESCE_S = 0.1  # between two changes that a client is sent: a pull reports each layer many times a second
_CANCEL_S = 5.0  # until a cancelled request to the engine has to be gone
_IMAGES_LIMIT = 64  # names in the result of a load
_LOADED = ("Loaded image: ", "Loaded image ID: ")
# the last line of a push (moby distribution/push_v2.go); the containerd store sends no `aux`
_PUSHED = re.compile(r"\S+: digest: (\S+) size: \d+")

Change = tuple[str, dict[str, Any], int]


class JobState(StrEnum):
    """The state of a job. All but the first are final."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class UnknownJobError(RequestError):
    """The job does not exist, or is no longer kept."""

    code = "no-such-job"

    def __init__(self) -> None:
        super().__init__(f"no such job; the last {KEPT} are kept", status=404)


class Job:
    """One job. Each change increments `version`. Messages are kept in a ring; the rest is a snapshot."""

    def __init__(self, spec: JobSpec, *, now: float, upload_bytes: int = 0) -> None:
        self.id = secrets.token_hex(16)
        self.spec = spec
        self.state = JobState.RUNNING
        self.created = now
        self.ended: float | None = None
        self.error: dict[str, Any] | None = None  # for readers, without secrets
        self.result: dict[str, Any] = {}
        self.progress = Progress(
            unpacks=spec.kind in (JobKind.PULL, JobKind.BUILD),
            uploads=spec.uploads,
            upload_bytes=upload_bytes,
        )
        self.version = 1  # not 0, so that every reader gets the current state first
        self.body_taken = asyncio.Event()  # the upload was read to its end, or will not be read any more
        self._messages: Ring[str] = Ring()
        self._redact = redactor(spec.secrets, shortest=1)  # the engine repeats logins in its errors
        self._news = asyncio.Event()  # replaced at each change, so that all readers wake up
        self._stall: asyncio.Timeout | None = None  # ends a job whose engine makes no progress
        self._stall_s = 0.0

    @property
    def is_over(self) -> bool:
        return self.state is not JobState.RUNNING

    def as_json(self) -> dict[str, Any]:
        """What every reader may see: no query, headers or login. Times are unix seconds."""
        return {
            "id": self.id,
            "kind": self.spec.kind,
            "title": self.spec.title,
            "state": self.state,
            "created": self.created,
            "ended": self.ended,
            # the step of a build quotes a line of the Dockerfile, with the value of its `ARG`s
            "progress": {**self.progress.as_json(), "step": self._hide(self.progress.step)},
            "result": self.result,
            "error": self.error,
            "version": self.version,
        }

    async def changes(self, after: int | None = None) -> AsyncGenerator[Change, None]:
        """Yields (`message` | `gap` | `job`, data, id) until the job is over. Resumes after id `after`.

        Each message comes once; a `gap` means that some are no longer kept. `job` is the whole job, in its newest
        state only: a slow reader gets fewer of them.
        """
        sent = after if after is not None and after <= self.version else 0
        while True:
            # tells a reader that was away too long that messages are lost
            if sent < self._messages.lost:
                sent = self._messages.lost
                yield "gap", {}, sent
            for number, message in self._messages.after(sent):
                sent = number
                yield "message", {"text": message}, number
            if self.version > sent:
                sent = self.version
                yield "job", self.as_json(), sent
                continue
            if self.is_over:
                return
            await self._news.wait()
            if not self.is_over:
                # a pull reports each layer many times a second: readers get one update per tenth of a second
                await asyncio.sleep(COALESCE_S)

    # called by the registry of jobs

    def expect(self, total: int) -> None:
        """Sets the number of bytes to do."""
        self.progress.expect(total)
        self._changed()

    def take(self, line: Mapping[str, Any]) -> None:
        """Takes one line of the engine's stream. Raises EngineError for an error line, because the status 200 was
        sent before the work began.
        """
        detail = line.get("errorDetail")
        wrong = line.get("error") or (detail.get("message") if isinstance(detail, Mapping) else None)
        if wrong is not None:
            raise EngineError(
                self._hide(clean(wrong, 1024) or "the engine reported an error without a message")
            )
        before = self.progress.work
        # the engine may repeat a line: a repetition is neither worth a message nor proof of progress
        is_new = self.progress.feed(line)
        aux = line.get("aux")
        if isinstance(aux, Mapping):
            named = {"ID": "image_id", "Digest": "digest"}
            self.result |= {named[key]: clean(aux[key]) for key in named if isinstance(aux.get(key), str)}
        status, stream = clean(line.get("status")), clean(line.get("stream"))
        if status.startswith("Digest: "):
            self.result["digest"] = status.removeprefix("Digest: ")
        elif pushed := _PUSHED.fullmatch(status):
            self.result.setdefault("digest", pushed[1])
        # POST /images/load reports what it loaded in text only
        for prefix in _LOADED:
            if stream.startswith(prefix):
                images = self.result.get("images", [])
                self.result["images"] = [*images, stream.removeprefix(prefix)][:_IMAGES_LIMIT]
        said = ("id" not in line or bool(line.get("stream"))) and self._add_message(
            line.get("stream") or line.get("status")
        )
        if is_new or said:
            self._changed(worked=said or self.progress.work != before)

    def sent(self, count: int) -> None:
        """Counts `count` bytes of the upload that were passed on to the engine."""
        self.progress.sent(count)
        self._changed()

    def watched(self, stall: asyncio.Timeout, stall_s: float) -> None:
        """Sets the stall timer: any progress postpones `stall` by `stall_s` seconds."""
        self._stall, self._stall_s = stall, stall_s

    def end(self, state: JobState, *, now: float, error: dict[str, Any] | None = None) -> None:
        """Sets the final state."""
        self._stall = None
        self.state, self.ended = state, now
        self.error = error and {**error, "message": self._hide(clean(error["message"], 1024))}
        if state is JobState.SUCCEEDED:
            self.progress.succeed()
        # a hundred ended jobs are kept, but few are read again
        self._messages.keep(MESSAGES_ENDED)
        self.body_taken.set()
        self._changed()

    def _add_message(self, value: object) -> bool:
        text = self._hide(clean(value))
        if not text:
            return False
        self.version += 1
        self._messages.add(text, self.version)
        self._messages.keep(MESSAGES)
        return True

    def _hide(self, text: str) -> str:
        """Hides secrets: readers see jobs too, and the engine may repeat in its output what it was given."""
        return self._redact(text)

    def _changed(self, *, worked: bool = True) -> None:
        self.version += 1
        if worked and self._stall is not None and not self._stall.expired():
            self._stall.reschedule(asyncio.get_running_loop().time() + self._stall_s)
        # a new event for the next change: a reader must not clear the event that others still wait for
        self._news.set()
        self._news = asyncio.Event()


class Jobs:
    """The registry of jobs. Belongs to one event loop. `wall` returns unix seconds."""

    def __init__(
        self,
        engine: DockerStream,
        *,
        wall: Callable[[], float] = time.time,
        stall_s: Mapping[JobKind, float] = STALL_S,
    ) -> None:
        self._engine = engine
        self._wall = wall
        self._stall_s = stall_s
        self._jobs: dict[str, Job] = {}  # in the order of their start; `get` finds ended ones too
        self._tasks: dict[str, asyncio.Task[None]] = {}  # of the running jobs
        # for metrics; jobs that are dropped from `_jobs` still count
        self.ended: Counter[tuple[JobKind, JobState]] = Counter()

    def start(
        self,
        spec: JobSpec,
        *,
        body: AsyncIterable[bytes] | None = None,
        length: int | None = None,
        upload_bytes: int = 0,
        work: Callable[[Job], Awaitable[None]] | None = None,
    ) -> Job:
        """Starts a job. `body` is read as fast as the engine takes it. `length` is the body's size in bytes,
        `upload_bytes` the size that the client announced. `work` runs instead of a request to the engine.

        Raises ConflictError if too many jobs are running, StorageLostError while the engine's data is not mounted.
        """
        if work is None:
            # here, not in the task: the client gets an error instead of a job that fails
            self._engine.permit("POST", spec.path)
        if len(self._tasks) >= RUNNING_LIMIT:
            raise ConflictError(f"{RUNNING_LIMIT} jobs are running; wait for one to end, or cancel one")
        job = Job(spec, now=self._wall(), upload_bytes=upload_bytes or length or 0)
        upload = None if body is None else _Upload(body, length, job)
        if upload is None:
            job.body_taken.set()
        self._jobs[job.id] = job
        task = asyncio.create_task(self._run(job, upload, work), name=f"job-{spec.kind}-{job.id[:8]}")
        self._tasks[job.id] = task
        task.add_done_callback(lambda _: self._left(job))
        # drops only ended jobs: a running job must stay reachable, so that it can be cancelled
        over = [number for number, job in self._jobs.items() if job.is_over]
        for number in over[: max(0, len(self._jobs) - KEPT)]:
            del self._jobs[number]
        return job

    def _left(self, job: Job) -> None:
        del self._tasks[job.id]
        if not job.is_over:  # cancelled before its first step
            self._end(job, JobState.CANCELLED)

    def get(self, number: str) -> Job:
        """Raises UnknownJobError."""
        try:
            return self._jobs[number]
        except KeyError:
            raise UnknownJobError from None

    def all(self) -> list[Job]:
        """All jobs, newest first."""
        return list(reversed(self._jobs.values()))

    async def cancel(self, number: str) -> Job:
        """Ends a running job and its request to the engine. Raises UnknownJobError, ConflictError if the job has
        ended already.
        """
        job = self.get(number)
        task = self._tasks.get(number)
        if job.is_over or task is None:
            raise ConflictError(f"the job has {job.state} already")
        task.cancel()
        # bounded: the engine may take its time to end a request, and the caller only wants it begun
        await asyncio.wait({task}, timeout=_CANCEL_S)
        return job

    async def close(self) -> None:
        """Ends all running jobs."""
        tasks = set(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CANCEL_S)

    async def _run(
        self, job: Job, upload: _Upload | None, work: Callable[[Job], Awaitable[None]] | None
    ) -> None:
        error: dict[str, Any] | None = None
        state = JobState.FAILED
        try:
            await self._limited(job, work(job) if work is not None else self._work(job, upload))
            state = JobState.SUCCEEDED
        except asyncio.CancelledError:
            # this is the task's last step, so swallowing the cancellation is safe
            state = JobState.CANCELLED
        except (UcidockdError, SourceError) as exc:
            code = exc.code if isinstance(exc, UcidockdError) else "upload"
            error = {"code": code, "message": str(exc), "retryable": getattr(exc, "retryable", False)}
        except Exception:
            logger.exception("job %s of %s failed", job.id, job.spec.kind)
            error = {"code": "internal", "message": "internal error", "retryable": False}
        self._end(job, state, error)

    def _end(self, job: Job, state: JobState, error: dict[str, Any] | None = None) -> None:
        job.end(state, now=self._wall(), error=error)
        self.ended[job.spec.kind, state] += 1
        logger.info(
            "job %s %s: %s", job.spec.kind, job.spec.title, job.error["message"] if job.error else state
        )

    async def _limited(self, job: Job, work: Awaitable[None]) -> None:
        stall_s = self._stall_s[job.spec.kind]
        # two limits: a slow connection may take as long as it moves, and an engine that reports for ever is stopped
        whole, stall = asyncio.timeout(LIMIT_S), asyncio.timeout(stall_s)
        try:
            async with whole, stall:
                job.watched(stall, stall_s)
                await work
        except TimeoutError as exc:
            why = f"no progress in {stall_s:g} s" if stall.expired() else f"not done in {LIMIT_S / 3600:g} h"
            raise EngineError(f"{why}, the job was stopped", retryable=True) from exc

    async def _work(self, job: Job, upload: _Upload | None) -> None:
        spec = job.spec
        if spec.least_api > (0, 0):
            text = await self._engine.call(
                "GET", "/version", read=lambda body: str(body.get("ApiVersion", ""))
            )
            major, _, minor = text.partition(".")
            if not (major.isdigit() and minor.isdigit() and (int(major), int(minor)) >= spec.least_api):
                least = ".".join(map(str, spec.least_api))
                raise EngineError(
                    f"{spec.kind} of {spec.title} needs an engine with API {least} or newer, this one has {text[:16]}"
                )
        # no deadline for the head: with the containerd store a pull sends nothing until its first MiB is there
        response = await self._engine.open(
            "POST",
            spec.path,
            query=spec.query,
            headers=spec.headers,
            body=upload,
            length=None if upload is None else upload.length,
            head_timeout_s=None,
        )
        async with await response.checked():
            if spec.kind is JobKind.PRUNE:
                # POST /containers/prune and the like answer with the number of objects and of bytes
                answer = await response.json()
                if not isinstance(answer, Mapping):
                    raise EngineError("the engine's answer to a prune is not an object")
                lists = [
                    value
                    for key, value in answer.items()
                    if key.endswith("Deleted") and isinstance(value, list)
                ]
                size = answer.get("SpaceReclaimed")
                job.result = {
                    "deleted": sum(len(found) for found in lists),
                    "reclaimed_bytes": size if isinstance(size, int) else 0,
                }
                return
            async for line in json_lines(response.chunks()):
                job.take(line)


class _Upload:
    """An upload body that reports its progress to its job. `length` is in bytes, None if not known."""

    def __init__(self, body: AsyncIterable[bytes], length: int | None, job: Job) -> None:
        self.length = length
        self._body = body
        self._job = job

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._body:
            yield piece
            self._job.sent(len(piece))
        self._job.body_taken.set()

    async def pass_into(self, sink: socket, note: Note | None = None) -> None:
        """See `body_pump.Passing`."""
        del note
        if isinstance(self._body, Passing):
            await self._body.pass_into(sink, self._job.sent)
