# SPDX-License-Identifier: GPL-2.0-or-later
"""In place of uhttpd, which Debian does not have: files, calls on ubus as JSON-RPC, and subscriptions as events."""

from __future__ import annotations

import asyncio
import json
import socket
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

from agent.clients.ubus_client import UbusClient
from agent.errors import BusError
from agent.wire.ubus_message import Status
from tests.support.bus import running

_CALL_S = 30.0


class Web:
    """Serves `folders` (URL prefix -> folder) and what is on the bus at `bus`."""

    def __init__(self, bus: Path, folders: Mapping[str, Path]) -> None:
        self._bus = bus
        self._caller = UbusClient(str(bus), jitter=lambda: 1.0)
        self._readers: set[asyncio.Queue[tuple[str, Mapping[str, Any]] | None]] = set()
        files = [Mount(prefix, StaticFiles(directory=folder)) for prefix, folder in folders.items()]
        routes = [
            Route("/ubus", self._call, methods=["POST"]),
            Route("/ubus/subscribe/{name}", self._subscribe),
        ]
        self._app = Starlette(routes=[*routes, *files])
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        config = uvicorn.Config(self._app, log_level="error", lifespan="off", timeout_graceful_shutdown=1)
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
        """Breaks every subscription's connection, as a bad network does; says how many there were."""
        for heard in self._readers:
            heard.put_nowait(None)
        return len(self._readers)

    async def _call(self, request: Request) -> Response:
        session, name, method, args = (await request.json())["params"]
        given = {**args, "ubus_rpc_session": session}
        try:
            result = [Status.OK, await self._caller.call(name, method, given, timeout_s=_CALL_S)]
        except BusError as exc:
            result = [Status.UNKNOWN_ERROR if exc.status is None else exc.status]
        return JSONResponse({"jsonrpc": "2.0", "id": 1, "result": result})

    async def _subscribe(self, request: Request) -> Response:
        name = request.path_params["name"]
        session = request.headers["authorization"].removeprefix("Bearer ")
        asked = {"ubus_rpc_session": session, "scope": "ubus", "object": name, "function": ":subscribe"}
        if not (await self._caller.call("session", "access", asked))["access"]:
            return Response(status_code=403)
        return StreamingResponse(self._events(name), media_type="text/event-stream")

    async def _events(self, name: str) -> AsyncIterator[str]:
        """Until the reader goes, or the connection is cut."""
        heard: asyncio.Queue[tuple[str, Mapping[str, Any]] | None] = asyncio.Queue()
        client = UbusClient(str(self._bus), jitter=lambda: 1.0)
        client.subscribe(name, lambda kind, data: heard.put_nowait((kind, data)))
        self._readers.add(heard)
        try:
            async with running(client):
                while news := await heard.get():
                    kind, data = news
                    yield f"event: {kind}\ndata: {json.dumps(data)}\n\n"
        finally:
            self._readers.discard(heard)
