# SPDX-License-Identifier: GPL-2.0-or-later
"""In place of uhttpd, which Debian does not have: files, calls on ubus as JSON-RPC, and subscriptions as events.

With its limits (100 connections, 60 s a call) and its defect (docs/uhttpd.md): a subscription keeps its place for ever. A
request that finds no place waits for one, as a connection does that uhttpd does not accept.
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

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from agent.errors import BusError
from agent.ubus.client import UbusClient
from agent.wire.ubus_message import Status
from tests.support.bus import running

PLACES = 100  # uhttpd's max_connections
_CALL_S = 60.0  # uhttpd's script_timeout
_DENIED = {"code": -32002, "message": "Access denied"}


class Web:
    """Serves `folders` (URL prefix -> folder) and what is on the bus at `bus`."""

    def __init__(self, bus: Path, folders: Mapping[str, Path]) -> None:
        self._bus = bus
        self._caller = UbusClient(str(bus), jitter=lambda: 1.0)
        self._places = PLACES
        self._freed = asyncio.Condition()
        self.reads: dict[asyncio.Future[None], tuple[str, str]] = {}  # those under way: session and object
        self._calls: Counter[str] = Counter()
        files = [Mount(prefix, StaticFiles(directory=folder)) for prefix, folder in folders.items()]
        routes = [
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
        """Breaks every fetch of live data, as a bad network does; says how many there were."""
        for broken in self.reads:
            if not broken.done():
                broken.set_result(None)
        return len(self.reads)

    @property
    def places(self) -> int:
        """How many connections are free."""
        return self._places

    def calls_of(self, session: str) -> int:
        """How many calls came with it."""
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
        session, name, method, args = (await request.json())["params"]
        self._calls[session] += 1
        if not await self._may(session, name, method):
            return JSONResponse({"jsonrpc": "2.0", "id": 1, "error": _DENIED})
        call = asyncio.ensure_future(
            self._caller.call(name, method, {**args, "ubus_rpc_session": session}, timeout_s=_CALL_S)
        )
        broken = asyncio.get_running_loop().create_future()
        if method == "stream_read":
            self.reads[broken] = (session, args["id"])
        try:
            await asyncio.wait({call, broken}, return_when=asyncio.FIRST_COMPLETED)
            if broken.done():
                return Response(status_code=502)
            result = [Status.OK, call.result()]
        except BusError as exc:
            result = [Status.UNKNOWN_ERROR if exc.status is None else exc.status]
        finally:
            self.reads.pop(broken, None)
            call.cancel()
        return JSONResponse({"jsonrpc": "2.0", "id": 1, "result": result})

    async def _subscribe(self, request: Request) -> Response:
        name = request.path_params["name"]
        session = request.headers["authorization"].removeprefix("Bearer ")
        if not await self._may(session, name, ":subscribe"):
            return Response(status_code=403)
        request.scope.setdefault("state", {})["kept"] = True
        return StreamingResponse(self._events(name), media_type="text/event-stream")

    async def _events(self, name: str) -> AsyncIterator[str]:
        """Until the reader goes."""
        heard: asyncio.Queue[tuple[str, Mapping[str, Any]]] = asyncio.Queue()
        client = UbusClient(str(self._bus), jitter=lambda: 1.0)
        client.subscribe(name, lambda kind, data: heard.put_nowait((kind, data)))
        async with running(client):
            while True:
                kind, data = await heard.get()
                yield f"event: {kind}\ndata: {json.dumps(data)}\n\n"
