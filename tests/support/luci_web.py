# SPDX-License-Identifier: GPL-2.0-or-later
"""Replaces uhttpd, which Debian does not have: files, ubus calls as JSON-RPC, subscriptions, and LuCI's bridge.

It has uhttpd's limits (100 connections, 60 s per call) and its defect (docs/uhttpd.md): a subscription occupies its
connection for ever. A request without a free connection waits, like a connection that uhttpd does not accept.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from agent.errors import BusError
from agent.ubus.client import UbusClient
from agent.uci import syntax
from agent.wire.ubus_message import Status
from tests.support.bus import running

PLACES = 100  # uhttpd's max_connections
_CALL_S = 60.0  # uhttpd's script_timeout
_DENIED = {"code": -32002, "message": "Access denied"}


class Web:
    """Serves `folders` (URL prefix -> directory) and the objects on the bus at `bus`.

    With `config` (an /etc/config) pages can read and write UCI like with rpcd's `uci`; with `socket`, the agent's,
    their files are transferred like through LuCI's bridge. `page` is the content of each address of the app.
    """

    def __init__(self, bus: Path, folders: Mapping[str, Path]) -> None:
        self._bus = bus
        self._caller = UbusClient(str(bus), jitter=lambda: 1.0)
        self._places = PLACES
        self._freed = asyncio.Condition()
        self.reads: dict[asyncio.Future[None], tuple[str, str]] = {}  # in progress: session and object
        self._calls: Counter[str] = Counter()
        files = [Mount(prefix, StaticFiles(directory=folder)) for prefix, folder in folders.items()]
        self.config: Path | None = None
        self.socket = ""
        self.page: Path | None = None
        self.others: dict[tuple[str, str], dict[str, Any]] = {}  # answers of other objects on the bus
        app = "/admin/services/ucidockd"
        routes = [
            Route(f"{app}/transfer{{path:path}}", self._transfer, methods=["GET", "POST", "PUT", "DELETE"]),
            Route(f"{app}/{{path:path}}", self._page),
            Route("/ubus", self._call, methods=["POST"]),
            Route("/ubus/subscribe/{name}", self._subscribe),
        ]
        self._app = self._limited(Starlette(routes=[*routes, *files]))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        config = uvicorn.Config(
            self._app, log_config=None, log_level="error", lifespan="off", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        async with running(self._caller):
            task = asyncio.create_task(server.serve(sockets=[self._listener]))
            try:
                yield
            finally:
                self.cut()
                server.should_exit = True
                await task

    def cut(self) -> int:
        """Breaks every fetch of live data, like a bad network; returns how many there were."""
        for broken in self.reads:
            if not broken.done():
                broken.set_result(None)
        return len(self.reads)

    @property
    def places(self) -> int:
        """The number of free connections."""
        return self._places

    def calls_of(self, session: str) -> int:
        """The number of calls with this session."""
        return self._calls[session]

    def _limited(self, app: ASGIApp) -> ASGIApp:
        async def limited(scope: Scope, receive: Receive, send: Send) -> None:
            async with self._freed:
                await self._freed.wait_for(lambda: self._places > 0)
                self._places -= 1
            try:
                await app(scope, receive, send)
            finally:
                if not scope.get("state", {}).get("kept"):
                    async with self._freed:
                        self._places += 1
                        self._freed.notify()

        return limited

    async def _may(self, session: str, name: str, method: str) -> bool:
        asked = {"ubus_rpc_session": session, "scope": "ubus", "object": name, "function": method}
        try:
            return bool((await self._caller.call("session", "access", asked))["access"])
        except BusError:
            return False

    async def _call(self, request: Request) -> Response:
        """One call, or several that the page sends together."""
        calls = await request.json()
        if isinstance(calls, list):
            return JSONResponse(await asyncio.gather(*map(self._answer, calls)))
        answer = await self._answer(calls)
        return Response(status_code=502) if answer is None else JSONResponse(answer)

    async def _answer(self, call: dict[str, Any]) -> dict[str, Any] | None:
        """The answer, None if the connection was cut."""
        head = {"jsonrpc": "2.0", "id": call["id"]}
        if call["method"] == "list":
            found = {name: await self._caller.lookup(name) for name in call["params"]}
            return {**head, "result": {name: one[name] for name, one in found.items() if name in one}}
        session, name, method, args = call["params"]
        self._calls[session] += 1
        if not await self._may(session, name, method):
            return {**head, "error": _DENIED}
        if (name, method) in self.others:
            return {**head, "result": [Status.OK, self.others[name, method]]}
        if name == "uci":
            return {**head, "result": [Status.OK, self._uci(method, args)]}
        return await self._on_bus(head, session, name, method, args)

    async def _on_bus(
        self, head: dict[str, Any], session: str, name: str, method: str, args: dict[str, Any]
    ) -> dict[str, Any] | None:
        call = asyncio.ensure_future(
            self._caller.call(name, method, {**args, "ubus_rpc_session": session}, timeout_s=_CALL_S)
        )
        broken = asyncio.get_running_loop().create_future()
        if method == "stream_read":
            self.reads[broken] = (session, args["id"])
        try:
            await asyncio.wait({call, broken}, return_when=asyncio.FIRST_COMPLETED)
            if broken.done():
                return None
            result = [Status.OK, call.result()]
        except BusError as exc:
            result = [Status.UNKNOWN_ERROR if exc.status is None else exc.status]
        finally:
            self.reads.pop(broken, None)
            call.cancel()
        return {**head, "result": result}

    def _uci(self, method: str, args: dict[str, Any]) -> dict[str, Any]:
        """`get` of a whole file, and `put`, which replaces all changes, `commit` and `apply`."""
        assert self.config
        path = self.config / args["config"]
        if method == "put":
            sections = [_section(name, values) for name, values in args["values"].items()]
            temporary = path.with_name(f".{path.name}.uci-x")
            package = syntax.Package(name=path.name, sections=tuple(sections))
            temporary.write_text(syntax.format_file(package))
            temporary.replace(path)
            return {}
        text = path.read_text() if path.exists() else ""
        return {"values": {one.name: _values(one) for one in syntax.parse(text, package=path.name).sections}}

    async def _page(self, _: Request) -> Response:
        return FileResponse(self.page) if self.page else Response(status_code=404)

    async def _transfer(self, request: Request) -> Response:
        """Like luci/ucode/controller/ucidockd.uc, but without rights and parts."""
        transport = httpx.AsyncHTTPTransport(uds=self.socket)
        client = httpx.AsyncClient(transport=transport, base_url="http://agent", timeout=_CALL_S)
        query = f"?{request.url.query}" if request.method == "GET" else ""
        target = f"/v1/transfers{request.path_params['path']}{query}"
        kept = {name: value for name, value in request.headers.items() if name == "content-type"}
        asked = client.build_request(request.method, target, content=await request.body(), headers=kept)
        answer = await client.send(asked, stream=True)
        passed = ("content-type", "content-length", "content-disposition")
        headers = {name: answer.headers[name] for name in passed if name in answer.headers}

        async def body() -> AsyncIterator[bytes]:
            try:
                async for piece in answer.aiter_raw():
                    yield piece
            finally:
                await client.aclose()

        return StreamingResponse(body(), answer.status_code, headers)

    async def _subscribe(self, request: Request) -> Response:
        name = request.path_params["name"]
        session = request.headers["authorization"].removeprefix("Bearer ")
        if not await self._may(session, name, ":subscribe"):
            return Response(status_code=403)
        request.scope.setdefault("state", {})["kept"] = True
        return StreamingResponse(self._events(name), media_type="text/event-stream")

    async def _events(self, name: str) -> AsyncIterator[str]:
        """Sends events until the reader closes the connection."""
        heard: asyncio.Queue[tuple[str, Mapping[str, Any]]] = asyncio.Queue()
        client = UbusClient(str(self._bus), jitter=lambda: 1.0)
        client.subscribe(name, lambda kind, data: heard.put_nowait((kind, data)))
        async with running(client):
            while True:
                kind, data = await heard.get()
                yield f"event: {kind}\ndata: {json.dumps(data)}\n\n"


def _values(section: syntax.Section) -> dict[str, Any]:
    own = {".type": section.type, ".name": section.name, ".anonymous": section.anonymous}
    return {
        **own,
        **{
            one.name: list(one.value) if isinstance(one.value, tuple) else one.value
            for one in section.options
        },
    }


def _section(name: str, values: Mapping[str, Any]) -> syntax.Section:
    options = tuple(
        syntax.Option(name=key, value=tuple(value) if isinstance(value, list) else str(value))
        for key, value in values.items()
        if not key.startswith(".")
    )
    anonymous = bool(values.get(".anonymous"))
    return syntax.Section(type=values[".type"], name=name, anonymous=anonymous, options=options)
