# SPDX-License-Identifier: GPL-2.0-or-later
"""A file into the engine in parts: the bytes of each go on into one request that is held open. Nothing is spooled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

from agent.api.jobs.jobs import Job, Jobs, JobState
from agent.api.jobs.transfer import State, Transfer
from agent.api.problems import RequestError
from agent.engine.stream import DockerStream, EngineResponse, SourceError
from agent.errors import ConflictError, EngineError
from agent.wire.bodies import BLOCK, Entry, is_plain_tar, size_of_records

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
        """The engine wants no more: whatever still comes is let go."""
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

    def __init__(self, title: str) -> None:
        super().__init__(title)
        self.pipe = Pipe()
        self.job: Job | None = None
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
                async with self._one:
                    self._check(turn)
                    await self._add(piece[max(0, self._taken - position) :])
                position += len(piece)
        finally:
            self.parts -= 1
            self.on_touch()

    async def _add(self, piece: bytes) -> None:
        """What follows the `put` is one step: a part that is cut takes all of a piece or nothing of it."""
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
        """Until the engine is done with it, but no longer than `wait_s`."""
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
            self.pipe.fail(SourceError("the engine takes no more"))
            if not job.is_over:
                await jobs.cancel(job.id)
            raise
        self.pipe.satisfy()

    async def into_archive(self, engine: DockerStream, container: str, query: list[tuple[str, str]]) -> None:
        """PUT /containers/{id}/archive."""
        try:
            await put_archive(engine, container, query, self.pipe)
        except BaseException:
            self.pipe.fail(SourceError("the engine takes no more"))
            raise
        self.pipe.satisfy()


# Archives into and out of the engine, for requests and for transfers: as they come, with what an engine may unpack; and
# what a download is made of that is not an archive: a single file, a log.


_UNPACKS_SAFELY = (29, 5, 1)
HEAD_TIMEOUT_S = 600.0  # the engine packs a large image before it answers


@runtime_checkable
class Returnable(Protocol):
    """A body that takes back what was read of its beginning."""

    def give_back(self, data: bytes) -> None:
        """`data` comes first again."""


class Body:
    """A body that is made of one of the engine's. `size`: its bytes, None where they are not known before."""

    def __init__(self, pieces: AsyncGenerator[bytes, None], size: int | None = None) -> None:
        self._pieces = pieces
        self.length = size

    async def __aenter__(self) -> Body:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pieces.aclose()

    def chunks(self) -> AsyncIterator[bytes]:
        """The body in pieces."""
        return self._pieces


async def single_file(opening: Awaitable[EngineResponse]) -> Body:
    """The one file that an archive of the engine holds. Raises RequestError where it holds something else."""
    response = await opening
    pieces = aiter(response.chunks())
    buffer = bytearray()

    async def take(count: int) -> bytes:
        while len(buffer) < count:
            piece = await anext(pieces, b"")
            if not piece:
                raise EngineError("the engine sent an archive that ends too early")
            buffer.extend(piece)
        taken = bytes(buffer[:count])
        del buffer[:count]
        return taken

    try:
        size = await _size_of_file(take)
    except BaseException:
        await response.close()
        raise

    async def file() -> AsyncGenerator[bytes, None]:
        left = size
        async with response:
            while left:
                piece = bytes(buffer) or await anext(pieces, b"")
                buffer.clear()
                if not piece:
                    raise EngineError("the engine sent an archive that ends too early")
                yield piece[:left]
                left -= min(left, len(piece))

    return Body(file(), size)


async def _size_of_file(take: Callable[[int], Awaitable[bytes]]) -> int:
    """Reads up to the first byte of the file, and says how many there are."""
    stated: int | None = None
    while True:
        entry = Entry.of(await take(BLOCK))
        if entry.is_records:  # what does not fit into the header, about the entry that follows
            records = await take(-(-entry.size // BLOCK) * BLOCK)
            stated = size_of_records(records[: entry.size]) if entry.kind == "x" else stated
            continue
        if entry.kind == "5":
            raise RequestError("this is a folder: download it as a tar archive")
        if entry.kind not in ("0", "\0", "7"):
            raise RequestError("this is not a regular file: download it as a tar archive")
        return entry.size if stated is None else stated


async def open_download(engine: DockerStream, path: str, query: list[tuple[str, str]]) -> EngineResponse:
    """A download's response, its status checked."""
    response = await engine.open("GET", path, query=query, head_timeout_s=HEAD_TIMEOUT_S)
    return await response.checked()


async def put_archive(
    engine: DockerStream,
    container: str,
    query: list[tuple[str, str]],
    body: AsyncIterable[bytes],
    *,
    length: int | None = None,
) -> None:
    """PUT /containers/{id}/archive with a body as it comes; `length` None: not known.

    Raises RequestError 415, EngineError.
    """
    response = await engine.open(
        "PUT",
        f"/containers/{container}/archive",
        query=query,
        headers=[("content-type", "application/x-tar")],
        body=await safe_archive(engine, body),
        length=length,
        head_timeout_s=HEAD_TIMEOUT_S,
    )
    async with await response.checked():
        await response.read(65536)


async def safe_archive(engine: DockerStream, body: AsyncIterable[bytes]) -> AsyncIterable[bytes]:
    """The same archive, as far as that engine may have it. Raises RequestError 415.

    Engines before 29.5.1 unpack compressed archives in a way that lets them break out (CVE-2026-41567): only plain tar
    goes there.
    """
    return body if await _unpacks_safely(engine) else await _plain_only(body)


async def _plain_only(body: AsyncIterable[bytes]) -> AsyncIterable[bytes]:
    head = b""
    pieces = aiter(body)
    async for piece in pieces:
        head += piece
        if len(head) >= BLOCK:
            break
    if not is_plain_tar(head):
        raise RequestError("this engine takes plain tar archives only (not compressed)", status=415)
    if isinstance(body, Returnable):
        body.give_back(head)
        return body

    async def rest() -> AsyncIterator[bytes]:
        yield head
        async for piece in pieces:
            yield piece

    return rest()


async def _unpacks_safely(engine: DockerStream) -> bool:
    version = await engine.call("GET", "/version", read=lambda body: str(body.get("Version", "")))
    numbers = version.split("-")[0].split("+")[0].split(".")
    return all(n.isdigit() for n in numbers) and tuple(map(int, numbers)) >= _UNPACKS_SAFELY
