# SPDX-License-Identifier: GPL-2.0-or-later
"""Raw streams: a connection that an attach or an exec of the Engine API turns into bytes both ways (`Upgrade: tcp`).

`routes.engine` checks call, path and query first, and opens the engine's side. Nothing on either connection is read as
HTTP again, so that no second request can pass unseen behind one (docs/decisions/raw-streams.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agent.api.access.connection import GuardedProtocol
from agent.api.engine_calls import EngineCall, Output
from agent.api.http.replies import STALL_S, read_body
from agent.api.problems import RequestError
from agent.engine.stream import EnginePipe, EngineResponse
from agent.engine.wire import Wire
from agent.errors import EngineError

logger = logging.getLogger(__name__)

_LOOK_S = 2.0


async def wanted_raw(call: EngineCall, request: Request) -> bytes:
    """The body of a request for a raw stream. Raises RequestError where there can be none."""
    # read to its end before the connection is switched: what follows the body is not HTTP
    body = await read_body(request) if call.hijacks else b""
    connection: GuardedProtocol = request.scope["state"]["connection"]
    # as the command `docker` asks (Engine API, "Attach to a container"). BuildKit asks for h2c, which stays refused
    tokens = {token.strip().lower() for token in request.headers.get("connection", "").split(",")}
    for_tcp = "upgrade" in tokens and request.headers.getlist("upgrade") == ["tcp"]
    if not call.hijacks or not for_tcp or not connection.may_switch():
        raise RequestError(
            "such an upgrade is not passed on: use /v1/containers/{id}/exec and /v1/exec/{id}/ws, or attach/ws",
            status=501,
            headers={"connection": "close"},
        )
    return body


def starts_terminal(call: EngineCall, body: bytes) -> bool:
    """Whether the request starts an exec with a terminal (`POST /exec/{id}/start`)."""
    if call.output is not Output.EXEC:
        return False
    try:
        wanted = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        return False
    return isinstance(wanted, dict) and wanted.get("Tty") is True


class RawReply(Response):
    """A raw stream both ways until the engine ends it or its client is gone. `place` is given back then.

    `on_client_left`: called when the client was the first to end it.
    """

    def __init__(
        self,
        response: EngineResponse,
        place: ExitStack,
        on_client_left: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__()
        self._response = response
        self._place = place
        self._on_client_left = on_client_left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del receive, send
        with self._place:
            connection: GuardedProtocol = scope["state"]["connection"]
            kind = self._response.headers.get("content-type", "")
            headers = [("connection", "Upgrade"), ("upgrade", "tcp")]
            client, head = connection.switch([*headers, ("content-type", kind)] if kind else headers)
            pipe = self._response.pipe()
            try:
                complete, client_first = await _both_ways(client, pipe, head)
            finally:
                pipe.close()
            # a client that saw a plain end would take a broken stream for the whole output
            await (client.finish(STALL_S) if complete else client.drop())
            if client_first and self._on_client_left is not None:
                await self._on_client_left()


async def _both_ways(client: Wire, pipe: EnginePipe, head: bytes) -> tuple[bool, bool]:
    """Whether all that the engine had to say came out, and whether the client was the first to end its side."""
    inward = asyncio.create_task(_inward(client, pipe), name="raw-in")
    outward = asyncio.create_task(_outward(client, pipe, head), name="raw-out")
    gone = asyncio.create_task(_gone(client, inward), name="raw-gone")
    try:
        # not for `inward`: `echo x | docker exec -i` ends its input and still waits for the output
        await asyncio.wait({outward, gone}, return_when=asyncio.FIRST_COMPLETED)
        complete = outward.done() and outward.result()
        return complete, inward.done() or not complete
    finally:
        for task in (inward, outward, gone):
            task.cancel()
        await asyncio.wait({inward, outward, gone})


async def _inward(client: Wire, pipe: EnginePipe) -> None:
    with contextlib.suppress(OSError, EngineError):  # the way out tells what became of the stream
        while piece := await client.read():
            await pipe.write(piece)
        pipe.write_eof()


async def _outward(client: Wire, pipe: EnginePipe, head: bytes) -> bool:
    """Whether all came out."""
    try:
        piece = head
        while piece:
            async with asyncio.timeout(STALL_S):
                await client.write(piece)
            piece = await pipe.read()
    except (OSError, EngineError) as exc:  # TimeoutError is an OSError
        logger.debug("a raw stream broke: %s", exc)
        return False
    return True


async def _gone(client: Wire, inward: asyncio.Task[None]) -> None:
    # asyncio looks no more at a connection whose other side has ended its input: `docker exec -i` killed after that
    while not client.lost.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_S):
                await client.lost.wait()
        if inward.done() and client.has_gone():
            return
