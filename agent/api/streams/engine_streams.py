# SPDX-License-Identifier: GPL-2.0-or-later
"""What the engine streams, without regard to the door it leaves by: HTTP here, stream objects on ubus.

Every function gives an async generator; closing it ends the engine's request.
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

# Async generators around another one: closing the outer one closes the source, which ends its request to the engine.


A = TypeVar("A")
B = TypeVar("B")

FIRST_WAIT_S = 0.25


async def mapped(source: AsyncGenerator[A, None], make: Callable[[A], B]) -> AsyncGenerator[B, None]:
    """`make(item)` for each item."""
    async with aclosing(source):
        async for item in source:
            yield make(item)


async def primed(source: AsyncGenerator[A, None], wait_s: float = FIRST_WAIT_S) -> AsyncGenerator[A, None]:
    """Starts `source` and gives a generator of the same items.

    Raises what the source raises within `wait_s` seconds: an error of the engine becomes its own answer, not a
    broken stream. Output may come later.
    """
    # a future and no await: where nothing comes in time, the step goes on inside of the generator that is given back
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
        first.cancel()
        await asyncio.wait({first})
        await source.aclose()


async def texts(source: AsyncGenerator[tuple[str, bytes], None]) -> AsyncGenerator[tuple[str, str], None]:
    """Output as text, by stream: a character that two pieces share stays whole, bytes that are not UTF-8 become U+FFFD."""
    make = codecs.getincrementaldecoder("utf-8")
    decoders = {name: make("replace") for name in ("stdin", "stdout", "stderr")}
    async with aclosing(source):
        async for name, piece in source:
            if text := decoders[name].decode(piece):
                yield name, text
        for name, decoder in decoders.items():
            if text := decoder.decode(b"", final=True):
                yield name, text


# The engine's progress and event streams: JSON objects one after the other, a line each.


LINE_LIMIT = 1024 * 1024


async def json_lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    """The objects. Raises EngineError for what is not a JSON object, or longer than LINE_LIMIT bytes."""
    rest = bytearray()
    async for piece in pieces:
        rest += piece
        # split only where there is an end: a line in many pieces would be searched again for each
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
    """A container's output as ("stdout" | "stderr", bytes); one with a terminal has "stdout" only.

    `query` is the engine's: follow, since, until, tail, timestamps, stdout, stderr (GET /containers/{id}/logs). `tty`:
    whether it has a terminal, where that is known.
    """
    # the content type tells it from API 1.42 on, older engines do not say
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
    """Whether its output comes without frames. On engines before API 1.42 only the configuration tells."""
    path = f"/containers/{container}/json"
    return await engine.call("GET", path, read=lambda inspect: bool(inspect["Config"]["Tty"]))


def decoded(decoder: FrameDecoder, piece: bytes) -> list[tuple[str, bytes]]:
    """`feed` with our own error, what follows on the same stream as one: an engine makes a frame of each line."""
    try:
        frames = decoder.feed(piece)
        return [
            (name, b"".join(payload for _, payload in group))
            for name, group in groupby(frames, itemgetter(0))
        ]
    except FrameError as exc:
        raise EngineError(f"the engine's output is broken: {exc}") from exc


async def stats(engine: DockerStream, container: str, query: Query) -> AsyncGenerator[dict[str, Any], None]:
    """GET /containers/{id}/stats: an object each second, or one with `stream=0`."""
    response = await engine.open(
        "GET", f"/containers/{container}/stats", query=query, piece_limit=LIVE_PIECE_LIMIT
    )
    async with await response.checked():
        async for item in json_lines(response.chunks()):
            yield item


async def events(engine: DockerStream, query: Query, *, writer: bool) -> AsyncGenerator[dict[str, Any], None]:
    """GET /events. Who is no `writer` gets them without secrets."""
    # the head of an event stream comes with the first event on some engines: no deadline for it
    response = await engine.open(
        "GET", "/events", query=query, head_timeout_s=None, piece_limit=LIVE_PIECE_LIMIT
    )
    async with await response.checked():
        async for item in json_lines(response.chunks()):
            yield item if writer else for_readers(item)
