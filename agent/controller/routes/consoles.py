# SPDX-License-Identifier: GPL-2.0-or-later
"""Routes: consoles, as server-sent events with POST for input, or as one WebSocket.

Output is bytes, and a terminal's bytes need not be text: an `output` event carries base64, a WebSocket binary frames.
Event ids are the numbers of `consoles.Console.output`: `Last-Event-ID` resumes.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator, Awaitable, Mapping
from typing import Any

from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.websockets import WebSocket

from agent.controller.doors.access import caller_of
from agent.controller.http import sse
from agent.controller.http.replies import EventReply, Inbox, read_json
from agent.controller.http.sockets import each_message, refuse, run_both, send_bytes, send_json
from agent.controller.names import container_id, flag, number, picked, text
from agent.controller.problems import RequestError
from agent.controller.rules import WEBSOCKET, Rule, write
from agent.controller.streams.consoles import Console, Consoles, ExecSpec
from agent.controller.streams.output_buffer import Ended, Item
from agent.errors import UcidockdError

_ID = "/v1/exec/{id}"
_START = write("docker.exec", "start")
_SIZE_LIMIT = 10_000
_WORDS_LIMIT = 1000
_OPTIONS = frozenset({"command", "tty", "user", "env", "workdir", "privileged", "rows", "columns"})


class ConsoleRoutes:
    """`docker exec` for browsers."""

    def __init__(self, consoles: Consoles) -> None:
        self._consoles = consoles

    def rules(self) -> list[Rule]:
        return [
            Rule(
                method="POST",
                path="/v1/containers/{id}/exec",
                grant=write("docker.container", "exec"),
                handler=self.open,
                summary="Runs a command in a container; its console's id",
                body="json",
            ),
            Rule(
                method="GET",
                path=f"{_ID}/stream",
                grant=_START,
                handler=self.stream,
                summary="A console's output and exit code as server-sent events, resumable",
            ),
            Rule(
                method="POST",
                path=f"{_ID}/input",
                grant=_START,
                handler=self.input,
                summary="Bytes for a console's input; `eof=1` ends it",
                body="raw",
            ),
            Rule(
                method="POST",
                path=f"{_ID}/resize",
                grant=write("docker.exec", "resize"),
                handler=self.resize,
                summary="The size of a console's terminal",
                body="json",
            ),
            Rule(
                method="DELETE",
                path=_ID,
                grant=_START,
                handler=self.end,
                summary="Kills a console's process",
            ),
            Rule(
                method=WEBSOCKET,
                path=f"{_ID}/ws",
                grant=_START,
                handler=self.socket,
                summary="A console: binary frames for data, JSON text frames for resize, eof and exit",
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
        last = request.headers.get("last-event-id", "")
        after = int(last) if last.isascii() and last.isdigit() else 0
        if console.is_over(after):
            return Response(status_code=204)  # an EventSource would come back for ever: this tells it not to
        return EventReply(_events(console, after))

    async def input(self, request: Request) -> Response:
        console = self._console(request)
        picked(request, ("eof",))
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


def exec_spec(body: Mapping[str, Any]) -> ExecSpec:
    """The JSON of a request. Raises RequestError that says what is expected."""
    if unknown := sorted(set(body) - _OPTIONS):
        raise RequestError(f"{unknown[0][:64]!r} is not known; known: {', '.join(sorted(_OPTIONS))}")
    env = _words(body, "env", ())
    if any("=" not in item[1:] for item in env):
        raise RequestError("env: expected a list of NAME=value")
    command = _words(body, "command", ExecSpec().command)
    if not command or not command[0]:
        raise RequestError("command: expected a list of at least one word")
    rows, columns = _size(body)
    return ExecSpec(
        command=command,
        tty=_flag(body, "tty", default=True),
        user=text(body, "user"),
        env=env,
        workdir=text(body, "workdir"),
        privileged=_flag(body, "privileged", default=False),
        rows=rows,
        columns=columns,
    )


def _words(body: Mapping[str, Any], name: str, default: tuple[str, ...]) -> tuple[str, ...]:
    """Text with line breaks is right here: a script as an argument has them."""
    value = body.get(name, list(default))
    if not isinstance(value, list) or len(value) > _WORDS_LIMIT:
        raise RequestError(f"{name}: expected a list of texts")
    if not all(isinstance(word, str) and "\0" not in word for word in value):
        raise RequestError(f"{name}: expected texts without NUL")
    return tuple(value)


def _flag(body: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = body.get(name, default)
    if not isinstance(value, bool):
        raise RequestError(f"{name}: expected true or false")
    return value


def _size(body: Mapping[str, Any]) -> tuple[int, int]:
    rows = number(body, "rows", low=0, high=_SIZE_LIMIT, default=0)
    return rows, number(body, "columns", low=0, high=_SIZE_LIMIT, default=0)


async def _resize(console: Console, body: Mapping[str, Any]) -> None:
    rows, columns = _size(body)
    if not rows or not columns:
        raise RequestError("rows and columns: expected whole numbers from 1")
    await console.resize(rows=rows, columns=columns)


async def _events(console: Console, after: int) -> AsyncGenerator[bytes, None]:
    output = console.output(after)
    try:
        async for item in output:
            yield _event(item)
    finally:
        await output.aclose()


def _event(item: Item | None) -> bytes:
    if item is None:
        return sse.event("gap", {})
    if isinstance(item, Ended):
        return sse.event("exit", {"code": item.code, "reason": item.reason}, item.number)
    data = base64.b64encode(item.data).decode("ascii")
    return sse.event("output", {"stream": item.stream, "data": data}, item.number)


async def _shown(socket: WebSocket, console: Console) -> None:
    output = console.output()
    try:
        async for item in output:
            if item is None:
                await send_json(socket, {"type": "gap"})
            elif isinstance(item, Ended):
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
        ) as exc:  # no reason to lose the console; how it ended, if it did, comes with `exit`
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
