# SPDX-License-Identifier: GPL-2.0-or-later
"""What the engine streams, without regard to the door it leaves by: HTTP here, stream objects on ubus.

Every function gives an async generator; closing it ends the engine's request.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from itertools import groupby
from operator import itemgetter
from typing import Any

from agent.api.masking import for_readers
from agent.api.streams.json_lines import json_lines
from agent.engine.stream import LIVE_PIECE_LIMIT, DockerStream
from agent.errors import EngineError
from agent.wire.docker_frames import FrameDecoder, FrameError

Query = Iterable[tuple[str, str]]


async def logs(engine: DockerStream, container: str, query: Query) -> AsyncGenerator[tuple[str, bytes], None]:
    """A container's output as ("stdout" | "stderr", bytes); one with a terminal has "stdout" only.

    `query` is the engine's: follow, since, until, tail, timestamps, stdout, stderr (GET /containers/{id}/logs).
    """
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
            _ended(decoder)


async def has_terminal(engine: DockerStream, container: str) -> bool:
    """Whether its output comes without frames: on engines before API 1.42 only its configuration tells."""
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


def _ended(decoder: FrameDecoder) -> None:
    try:
        decoder.end()
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
