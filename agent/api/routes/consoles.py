# SPDX-License-Identifier: GPL-2.0-or-later
"""Routes: consoles, as server-sent events with POST for input, or as one WebSocket; and raw streams for docker's clients.

The output of a terminal need not be text: an `output` event carries it in base64, a WebSocket in binary frames. Event
ids are the numbers of `consoles.Console.output`, so `Last-Event-ID` resumes.

For a raw stream, an attach or an exec of the Engine API turns its connection into bytes both ways (`Upgrade: tcp`).
`routes.engine` first checks call, path and query, and opens the engine's side. After the upgrade nothing on either
connection is parsed as HTTP, so no second request can be smuggled behind the first (docs/decisions/raw-streams.md).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from typing import Any

from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from agent.api.access.access import caller_of
from agent.api.access.connection import GuardedProtocol
from agent.api.engine_calls import EngineCall, ReplyKind
from agent.api.http import replies
from agent.api.http.replies import STALL_S, EventReply, Inbox, read_body, read_json
from agent.api.http.routing import each_message, refuse, run_both, send_bytes, send_json
from agent.api.problems import RequestError, container_id, flag, picked
from agent.api.rules import EVENT_STREAM, Rule, delete, get, post, websocket, write
from agent.api.streams.consoles import Console, Consoles, exec_spec, size_of
from agent.api.streams.engine_streams import decoded, mapped
from agent.engine.stream import EnginePipe, EngineResponse
from agent.engine.wire import Wire
from agent.errors import EngineError, UcidockdError
from agent.status.ring import Item, OutputEnd
from agent.wire.bodies import FrameDecoder

_ID = "/v1/exec/{id}"
_START = write("docker.exec", "start")


class ConsoleRoutes:
    """`docker exec` for browsers."""

    def __init__(self, consoles: Consoles) -> None:
        self._consoles = consoles

    def rules(self) -> list[Rule]:
        return [
            post(
                "/v1/containers/{id}/exec",
                write("docker.container", "exec"),
                self.open,
                "Runs a command in a container; returns the id of its console",
                body="json",
                status=201,
            ),
            get(
                f"{_ID}/stream",
                _START,
                self.stream,
                "A console's output and exit code as server-sent events, resumable",
                answer=(
                    "`output`: {stream, data in base64}; `exit`: {code, reason}; `gap`: output is "
                    "lost. 204 once everything was read."
                    f" {EVENT_STREAM}"
                ),
            ),
            post(
                f"{_ID}/input",
                _START,
                self.input,
                "Bytes for a console's input; `eof=1` ends it",
                body="raw",
                query={"eof": "1: the input ends with this body"},
                status=204,
                answer="Accepted",
            ),
            post(
                f"{_ID}/resize",
                write("docker.exec", "resize"),
                self.resize,
                "Resizes a console's terminal",
                body="json",
                status=204,
                answer="Resized",
            ),
            delete(
                _ID,
                _START,
                self.end,
                "Kills a console's process",
                status=204,
                answer="Killed",
            ),
            websocket(
                f"{_ID}/ws",
                _START,
                self.socket,
                "A console: binary frames for data, JSON text frames for resize, eof and exit",
            ),
        ]

    async def open(self, request: Request) -> Response:
        container = container_id(request)
        caller = caller_of(request)
        spec = exec_spec(await read_json(request))
        console = await self._consoles.open(container, spec, allowed=lambda: caller.may(_START))
        return JSONResponse({"id": console.id}, status_code=201)

    async def stream(self, request: Request) -> Response:
        console = self._console(request)
        after = replies.resume_id(request.headers) or 0
        if console.is_over(after):
            # 204 stops an EventSource, which would otherwise reconnect for ever
            return Response(status_code=204)
        return EventReply(mapped(console.output(after), _event))

    async def input(self, request: Request) -> Response:
        console = self._console(request)
        picked(request, ("eof",))
        # piece by piece: a file sent to a program must not be held in memory
        async for piece in Inbox(request):
            await console.input(piece)
        if flag(request.query_params, "eof"):
            await console.input_end()
        return Response(status_code=204)

    async def resize(self, request: Request) -> Response:
        console = self._console(request)
        await _resize(console, await read_json(request))
        return Response(status_code=204)

    async def end(self, request: Request) -> Response:
        await self._consoles.end(self._console(request))
        return Response(status_code=204)

    async def socket(self, socket: WebSocket) -> None:
        try:
            console = self._console(socket)
        except RequestError as exc:
            await refuse(socket, exc)
            return
        await socket.accept()
        await run_both(socket, _typed(socket, console), _shown(socket, console))

    def _console(self, connection: HTTPConnection) -> Console:
        console = self._consoles.get(str(connection.path_params["id"]))
        if console is None:
            raise RequestError("no such console, or it has ended", status=404)
        return console


async def _resize(console: Console, body: Mapping[str, Any]) -> None:
    rows, columns = size_of(body)
    if not rows or not columns:
        raise RequestError("rows and columns: expected whole numbers from 1")
    await console.resize(rows=rows, columns=columns)


def _event(item: Item | None) -> bytes:
    if item is None:
        return replies.sse_event("gap", {})
    if isinstance(item, OutputEnd):
        return replies.sse_event("exit", {"code": item.code, "reason": item.reason}, item.number)
    data = base64.b64encode(item.data).decode("ascii")
    return replies.sse_event("output", {"stream": item.stream, "data": data}, item.number)


async def _shown(socket: WebSocket, console: Console) -> None:
    output = console.output()
    try:
        async for item in output:
            if item is None:
                await send_json(socket, {"type": "gap"})
            elif isinstance(item, OutputEnd):
                await send_json(socket, {"type": "exit", "code": item.code, "reason": item.reason})
            else:
                await send_bytes(socket, item.data)
    finally:
        await output.aclose()


async def _typed(socket: WebSocket, console: Console) -> None:
    async def told(work: Awaitable[None]) -> None:
        try:
            await work
        except (
            UcidockdError
        ) as exc:  # an error does not close the console; if the process has ended, `exit` reports it
            await send_json(socket, {"type": "error", "message": str(exc)})

    async def on_bytes(data: bytes) -> None:
        await told(console.input(data))

    async def on_text(message: str) -> None:
        await told(_control(console, message))

    await each_message(socket, on_bytes, on_text)


async def _control(console: Console, message: str) -> None:
    try:
        body = json.loads(message)
    except (ValueError, RecursionError) as exc:
        raise RequestError("a text frame is JSON; data goes in binary frames") from exc
    kind = body.get("type") if isinstance(body, dict) else None
    if kind == "resize":
        await _resize(console, body)
    elif kind == "eof":
        await console.input_end()
    else:
        raise RequestError('expected {"type": "resize", "rows": N, "columns": N} or {"type": "eof"}')


# A browser's WebSocket on a container's main process (Engine API, `POST /containers/{id}/attach`).
#
# Works like the engine's own `attach/ws`: output comes as binary frames without the engine's stream headers, input
# may be frames of either kind. If the browser does not read, the reading from the engine stops.


_FRAME = 64 * 1024  # bytes of one frame to a browser


async def attach(socket: WebSocket, pipe: EnginePipe, *, tty: bool) -> None:
    """Accepts the socket and serves it until either side ends."""

    async def on_text(text: str) -> None:
        await pipe.write(text.encode())

    async def send_output() -> None:
        decoder = FrameDecoder()
        while piece := await pipe.read():
            for _, data in [("stdout", piece)] if tty else decoded(decoder, piece):
                # in small frames, because a browser shows a frame only when it is complete
                for start in range(0, len(data), _FRAME):
                    await send_bytes(socket, data[start : start + _FRAME])

    try:
        await socket.accept()
        await run_both(socket, each_message(socket, pipe.write, on_text), send_output())
    finally:
        pipe.close()


logger = logging.getLogger(__name__)

_LOOK_S = 2.0  # between looks whether a client is still there


async def wanted_raw(call: EngineCall, request: Request) -> bytes:
    """The body of a request for a raw stream. Raises RequestError if the call cannot have one."""
    # read the whole body before the connection is switched: what follows it is not HTTP
    body = await read_body(request) if call.hijacks else b""
    connection: GuardedProtocol = request.scope["state"]["connection"]
    # accept what the command `docker` sends (Engine API, "Attach to a container"); BuildKit's h2c is refused
    tokens = {token.strip().lower() for token in request.headers.get("connection", "").split(",")}
    for_tcp = "upgrade" in tokens and request.headers.getlist("upgrade") == ["tcp"]
    if not call.hijacks or not for_tcp or not connection.may_switch():
        raise RequestError(
            "this kind of upgrade is not supported: use /v1/containers/{id}/exec and /v1/exec/{id}/ws, or attach/ws",
            status=501,
            headers={"connection": "close"},
        )
    return body


def starts_terminal(call: EngineCall, body: bytes) -> bool:
    """Whether the request starts an exec with a terminal (`POST /exec/{id}/start`)."""
    if call.output is not ReplyKind.EXEC:
        return False
    try:
        wanted = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        return False
    return isinstance(wanted, dict) and wanted.get("Tty") is True


class RawReply(Response):
    """A raw stream both ways until the engine ends it or its client disconnects; then `place` is released.

    `on_client_left` is called if the client ended it first.
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
            # after a normal close a client would take a broken stream for the whole output: drop the connection instead
            await (client.finish(STALL_S) if complete else client.drop())
            if client_first and self._on_client_left is not None:
                await self._on_client_left()


async def _both_ways(client: Wire, pipe: EnginePipe, head: bytes) -> tuple[bool, bool]:
    """Whether all of the engine's output reached the client, and whether the client ended its side first."""

    async def take_input() -> None:
        with contextlib.suppress(OSError, EngineError):  # the result of `_outward` tells how the stream ended
            while piece := await client.read():
                await pipe.write(piece)
            pipe.write_eof()

    inward = asyncio.create_task(take_input(), name="raw-in")
    outward = asyncio.create_task(_outward(client, pipe, head), name="raw-out")
    gone = asyncio.create_task(_gone(client, inward), name="raw-gone")
    try:
        # do not wait for `inward`: `echo x | docker exec -i` ends its input and still waits for the output
        await asyncio.wait({outward, gone}, return_when=asyncio.FIRST_COMPLETED)
        complete = outward.done() and outward.result()
        return complete, inward.done() or not complete
    finally:
        for task in (inward, outward, gone):
            task.cancel()
        await asyncio.wait({inward, outward, gone})


async def _outward(client: Wire, pipe: EnginePipe, head: bytes) -> bool:
    """Whether all output reached the client."""
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
    # after the client has closed its input asyncio no longer notices a lost connection, such as a `docker exec` killed then
    while not client.lost.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_S):
                await client.lost.wait()
        if inward.done() and client.has_gone():
            return
