# SPDX-License-Identifier: GPL-2.0-or-later
"""Streams archives into and out of the engine, for requests and for transfers, and refuses archives that an old
engine must not unpack. It also holds the bodies of downloads that are not archives: a single file, a log.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, runtime_checkable

from agent.api.problems import RequestError
from agent.data.parts import Data
from agent.engine.stream import DockerStream, EngineResponse
from agent.errors import EngineError
from agent.wire.bodies import BLOCK, TarHeader, is_plain_tar, rooted, size_of_records

_UNPACKS_SAFELY = (29, 5, 1)  # the first engine without CVE-2026-41567, see `safe_archive`
HEAD_TIMEOUT_S = 600.0  # the engine packs a large image before it answers


@runtime_checkable
class PushbackBody(Protocol):
    """A request body whose first bytes can be put back after they were read."""

    def give_back(self, data: bytes) -> None:
        """Puts `data` back: the next read starts with it."""


class Body:
    """A download body made from an engine response. `size` is in bytes, None if it is not known in advance."""

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
    """The single file inside an archive of the engine. Raises RequestError if the archive holds anything else."""
    # the engine sends a tar even for one file; the data follows the header, so nothing is unpacked or stored here
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
        # before the answer begins: a folder must give an error, not an empty download
        size = await _size_of_file(take)
    except BaseException:
        await response.close()
        raise

    async def file() -> AsyncGenerator[bytes, None]:
        left = size
        async with response:
            while left:
                # what was read with the head comes first
                piece = bytes(buffer) or await anext(pieces, b"")
                buffer.clear()
                if not piece:
                    raise EngineError("the engine sent an archive that ends too early")
                yield piece[:left]
                left -= min(left, len(piece))

    return Body(file(), size)


async def _size_of_file(take: Callable[[int], Awaitable[bytes]]) -> int:
    """Reads up to the first byte of the file and returns the file's size in bytes."""
    stated: int | None = None
    while True:
        entry = TarHeader.of(await take(BLOCK))
        if entry.is_records:  # a record about the next entry, with the values that do not fit into its header
            records = await take(-(-entry.size // BLOCK) * BLOCK)
            stated = size_of_records(records[: entry.size]) if entry.kind == "x" else stated
            continue
        if entry.kind == "5":
            raise RequestError("this is a folder: download it as a tar archive")
        if entry.kind not in ("0", "\0", "7"):
            raise RequestError("this is not a regular file: download it as a tar archive")
        return entry.size if stated is None else stated


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadTarget:
    """Where the archive of an upload goes: into a folder of the volume, over the files there (`path`); in place of
    all files of the volume, once the archive is complete (`replace`); or into a new volume (`create`).
    """

    path: str = ""
    stop: bool = False
    replace: bool = False
    create: bool = False

    @classmethod
    def of(cls, path: str, **flags: bool) -> UploadTarget:
        """Raises RequestError for a combination that makes no sense."""
        way = cls(path=path, **flags)
        if (way.replace or way.create) and (path or way.replace is way.create):
            raise RequestError("use only one of path, replace and create")
        return way

    async def fill(self, data: Data, volume: str, body: AsyncIterable[bytes], size: int = 0) -> int:
        """Unpacks the body of `size` bytes (0: not known); returns the number of members.

        Raises DataError, ConflictError, EngineError.
        """
        if self.create:
            return await data.restores.into_new(volume, body, size)
        if self.replace:
            return await data.restores.replace(volume, body, size)
        return (await data.volumes.put(volume, body, self.path, stop=self.stop)).members


def archive_name(volume: str, path: str = "") -> str:
    """The file name of a download."""
    return "_".join([volume, *rooted(path).split("/")]).rstrip("_") + ".tar"


async def open_download(engine: DockerStream, path: str, query: list[tuple[str, str]]) -> EngineResponse:
    """Opens a download and checks its status."""
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
    """PUT /containers/{id}/archive, streamed. `length` is the body's size in bytes, None if it is not known.

    Raises RequestError 415, EngineError.
    """
    response = await engine.open(
        # no deadline for the whole call: an upload takes as long as its client sends; only the answer's head has one
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
    """The same archive, once this engine may safely unpack it. Raises RequestError 415.

    Engines before 29.5.1 unpack compressed archives in a way that lets an archive break out of the container
    (CVE-2026-41567), so they get plain tar only.
    """
    version = await engine.call("GET", "/version", read=lambda body: str(body.get("Version", "")))
    numbers = version.split("-")[0].split("+")[0].split(".")
    if all(n.isdigit() for n in numbers) and tuple(map(int, numbers)) >= _UNPACKS_SAFELY:
        return body
    head = b""
    pieces = aiter(body)
    async for piece in pieces:
        head += piece
        if len(head) >= BLOCK:
            break
    if not is_plain_tar(head):
        raise RequestError("this engine takes plain tar archives only (not compressed)", status=415)
    # a body that can be rewound can still be pumped by a thread; a generator cannot
    if isinstance(body, PushbackBody):
        body.give_back(head)
        return body

    async def rest() -> AsyncIterator[bytes]:
        yield head
        async for piece in pieces:
            yield piece

    return rest()
