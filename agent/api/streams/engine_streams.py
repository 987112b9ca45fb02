# SPDX-License-Identifier: GPL-2.0-or-later
"""The engine's streams, for HTTP and for stream objects on ubus.

Every function returns an async generator; closing it ends the engine's request.
"""

from __future__ import annotations

import asyncio
import codecs
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeVar

from agent.api.engine_requests import for_readers
from agent.engine.stream import LIVE_PIECE_LIMIT, DockerStream
from agent.errors import EngineError
from agent.wire.bodies import FrameDecoder, FrameError

# Async generators that wrap another one: closing the outer one closes the source, and so its request to the engine.


A = TypeVar("A")
B = TypeVar("B")

FIRST_WAIT_S = 0.25  # a refusal of the engine comes within that time as a rule; after it the answer has begun


async def mapped(source: AsyncGenerator[A, None], make: Callable[[A], B]) -> AsyncGenerator[B, None]:
    """Yields `make(item)` for each item."""
    async with aclosing(source):
        async for item in source:
            yield make(item)


async def primed(source: AsyncGenerator[A, None], wait_s: float = FIRST_WAIT_S) -> AsyncGenerator[A, None]:
    """Starts `source` and returns a generator of the same items.

    Raises what the source raises within `wait_s` seconds, so that an error of the engine becomes the answer and not a
    broken stream. The first item may come later.
    """
    # a future instead of an await: if nothing comes in time, this step continues inside the returned generator
    step = asyncio.ensure_future(anext(source))
    done, _ = await asyncio.wait({step}, timeout=wait_s)
    if done and step.exception() is not None and not isinstance(step.exception(), StopAsyncIteration):
        step.result()
    return _resumed(step, source)


async def _resumed(first: asyncio.Future[A], source: AsyncGenerator[A, None]) -> AsyncGenerator[A, None]:
    try:
        try:
            yield await first
        except StopAsyncIteration:
            return
        async for item in source:
            yield item
    finally:
        # also if the client leaves before the first item: the engine's request must not outlive it
        first.cancel()
        await asyncio.wait({first})
        await source.aclose()


async def texts(source: AsyncGenerator[tuple[str, bytes], None]) -> AsyncGenerator[tuple[str, str], None]:
    """Output as text, by stream. A character that is split over two pieces stays whole; bytes that are not UTF-8
    become U+FFFD.
    """
    make = codecs.getincrementaldecoder("utf-8")
    decoders = {name: make("replace") for name in ("stdin", "stdout", "stderr")}
    async with aclosing(source):
        async for name, piece in source:
            if text := decoders[name].decode(piece):
                yield name, text
        # what is left is half a character at the end of the output
        for name, decoder in decoders.items():
            if text := decoder.decode(b"", final=True):
                yield name, text


# The engine's progress and event streams: one JSON object per line.


LINE_LIMIT = 1024 * 1024  # bytes of one object; a longer line would be held in memory


async def json_lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    """The objects. Raises EngineError for a line that is not a JSON object, or is longer than LINE_LIMIT bytes."""
    rest = bytearray()
    async for piece in pieces:
        rest += piece
        # split only at a line end: a line in many pieces would otherwise be searched again for each piece
        if b"\n" in piece:
            *lines, rest = rest.split(b"\n")
            for line in lines:
                if line.strip():
                    yield _object(line)
        if len(rest) > LINE_LIMIT:
            raise EngineError(f"the engine sent a line longer than {LINE_LIMIT} bytes")
    if rest.strip():
        yield _object(rest)


def _object(line: bytearray) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise EngineError(f"the engine sent no JSON: {bytes(line[:80])!r}") from exc
    if not isinstance(value, dict):
        raise EngineError(f"the engine sent no JSON object: {bytes(line[:80])!r}")
    return value


Query = Iterable[tuple[str, str]]


async def logs(
    engine: DockerStream, container: str, query: Query, *, tty: bool | None = None
) -> AsyncGenerator[tuple[str, bytes], None]:
    """A container's output as ("stdout" | "stderr", bytes); with a terminal it is all "stdout".

    `query` is the engine's: follow, since, until, tail, timestamps, stdout, stderr (GET /containers/{id}/logs). `tty`
    tells whether the container has a terminal, None if that is not known.
    """
    # ask, because only engines with API 1.42 or newer tell it by the content type
    if tty is None:
        tty = await has_terminal(engine, container)
    response = await engine.open(
        "GET", f"/containers/{container}/logs", query=query, piece_limit=LIVE_PIECE_LIMIT
    )
    async with await response.checked():
        decoder = FrameDecoder()
        async for piece in response.chunks():
            if tty:
                yield "stdout", piece
                continue
            for frame in decoded(decoder, piece):
                yield frame
        if not tty:
            try:
                decoder.end()
            except FrameError as exc:
                raise EngineError(f"the engine's output is broken: {exc}") from exc


async def has_terminal(engine: DockerStream, container: str) -> bool:
    """Whether the container's output comes without frames. Before API 1.42 only its configuration tells."""
    path = f"/containers/{container}/json"
    return await engine.call("GET", path, read=lambda inspect: bool(inspect["Config"]["Tty"]))


def decoded(decoder: FrameDecoder, piece: bytes) -> list[tuple[str, bytes]]:
    """Decodes frames; raises our own error. Joins neighbouring frames of a stream, because the engine makes one of
    each line.
    """
    try:
        frames = decoder.feed(piece)
        return [
            (name, b"".join(payload for _, payload in group))
            for name, group in groupby(frames, itemgetter(0))
        ]
    except FrameError as exc:
        raise EngineError(f"the engine's output is broken: {exc}") from exc


async def stats(engine: DockerStream, container: str, query: Query) -> AsyncGenerator[dict[str, Any], None]:
    """GET /containers/{id}/stats: an object each second, or a single one with `stream=0`."""
    response = await engine.open(
        "GET", f"/containers/{container}/stats", query=query, piece_limit=LIVE_PIECE_LIMIT
    )
    async with await response.checked():
        async for item in json_lines(response.chunks()):
            yield item


async def events(engine: DockerStream, query: Query, *, writer: bool) -> AsyncGenerator[dict[str, Any], None]:
    """GET /events. Without `writer` secrets are removed."""
    # no deadline for the head: some engines send it with the first event
    response = await engine.open(
        "GET", "/events", query=query, head_timeout_s=None, piece_limit=LIVE_PIECE_LIMIT
    )
    async with await response.checked():
        async for item in json_lines(response.chunks()):
            yield item if writer else for_readers(item)
