# SPDX-License-Identifier: GPL-2.0-or-later
"""Serves the application on the control socket. `tcp` does it on TCP."""

from __future__ import annotations

import asyncio
import resource
import socket
from pathlib import Path
from types import TracebackType
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from agent.api.access.connection import Door, GuardedProtocol
from agent.api.access.control_socket import BACKLOG, bind
from agent.api.access.guard import HEADERS
from agent.api.access.uvicorn_compat import (
    STOP_S,
    Server,
    has_websockets,
    make_web_socket,
    quieten_logs,
)
from agent.wire.http_head import HEAD_LIMIT

WS_LIMIT = 64 * 1024
CONTROL_CONNECTIONS = 128
_RESERVED_FDS = 32  # the engine's, UCI's, and our own files
_FDS_PER_CLIENT = 3


def make_config(app: ASGIApp, door: Door) -> uvicorn.Config:
    """uvicorn's settings for connections that pass `door`."""

    def protocol(*args: Any, **named: Any) -> GuardedProtocol:
        return GuardedProtocol(door, *args, **named)

    quieten_logs()
    return uvicorn.Config(
        app,
        http=protocol,  # type: ignore[arg-type]  # a factory does, though the hint wants a class
        ws=make_web_socket if has_websockets() else "none",  # type: ignore[arg-type]
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        proxy_headers=False,
        headers=list(HEADERS),
        h11_max_incomplete_event_size=HEAD_LIMIT,
        ws_max_size=WS_LIMIT,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=STOP_S,
        backlog=BACKLOG,
    )


class ControlServer:
    """`async with ControlServer(app, path):` serves until the block ends. `listener`: bound at `path` already."""

    def __init__(self, app: ASGIApp, path: Path, *, listener: socket.socket | None = None) -> None:
        room = places(CONTROL_CONNECTIONS)
        door = Door(control=True, connections=room, per_client=room, per_prefix=room)
        self._server = Server(make_config(app, door))
        self._path = path
        self._listener = listener
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> ControlServer:
        listener = self._listener or bind(self._path)
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="control-socket")
        return self

    def close_soon(self) -> None:
        """Begins to close; the end of the block waits for that."""
        self._server.should_exit = True

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        self._path.unlink(missing_ok=True)


def places(wanted: int) -> int:
    """How many clients there is room for: no crowd of them may take the descriptors that reconciling needs."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, (limit - _RESERVED_FDS) // _FDS_PER_CLIENT))
