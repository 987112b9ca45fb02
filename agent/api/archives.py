# SPDX-License-Identifier: GPL-2.0-or-later
"""Archives into and out of the engine, for requests and for transfers: as they come, with what an engine may unpack."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from typing import Protocol, runtime_checkable

from agent.api.problems import RequestError
from agent.engine.stream import DockerStream, EngineResponse
from agent.wire.bodies import BLOCK, is_plain_tar

_UNPACKS_SAFELY = (29, 5, 1)
HEAD_TIMEOUT_S = 600.0  # the engine packs a large image before it answers


@runtime_checkable
class Returnable(Protocol):
    """A body that takes back what was read of its beginning."""

    def give_back(self, data: bytes) -> None:
        """`data` comes first again."""


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
