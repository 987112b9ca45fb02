# SPDX-License-Identifier: GPL-2.0-or-later
"""Serves the application on the control socket. `tcp` does it on TCP."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from agent.controller.doors.connection import Door, GuardedProtocol
from agent.controller.doors.control_socket import BACKLOG, bind
from agent.controller.doors.guard import HEADERS
from agent.wire.http_head import HEAD_LIMIT

STOP_S = 3
_CUT_S = 2.0  # after the order to end, and before STOP_S
WS_LIMIT = 64 * 1024
CONTROL_CONNECTIONS = 128
_RESERVED_FDS = 32  # the engine's, UCI's, and our own files
_FDS_PER_CLIENT = 3


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The runtime handles signals."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, but what does not end by itself (a stream) ends as if its client had gone: uvicorn would break
        off the tasks of its requests, and log each as a defect."""
        cut = asyncio.get_running_loop().call_later(_CUT_S, self._cut)
        try:
            await super().shutdown(sockets)
        finally:
            cut.cancel()

    def _cut(self) -> None:
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()


def _is_ours(record: logging.LogRecord) -> bool:
    """A handshake that was refused or is none, and broken frames: anybody can send them, and they are no errors."""
    return record.msg.startswith("Exception in ASGI application")


logger = logging.getLogger(__name__)


def _has_websockets() -> bool:
    """A package that may be missing: then a request for a WebSocket is answered as any other that has no route."""
    if importlib.util.find_spec("websockets") is not None:
        return True
    logger.info(
        "no WebSockets (consoles by HTTP and ubus work): they need the Python package python3-websockets"
    )
    return False


def make_config(app: ASGIApp, door: Door) -> uvicorn.Config:
    """uvicorn's settings for connections that pass `door`."""

    def protocol(*args: Any, **named: Any) -> GuardedProtocol:
        return GuardedProtocol(door, *args, **named)

    def web_socket(*args: Any, **named: Any) -> asyncio.Protocol:
        from agent.controller.doors.websocket import make_protocol  # `websockets` only once somebody needs it

        return make_protocol(*args, **named)

    # below that it repeats what strangers send: targets, and the headers of WebSockets
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    logging.getLogger("uvicorn.error").addFilter(_is_ours)
    return uvicorn.Config(
        app,
        http=protocol,  # type: ignore[arg-type]  # a factory does, though the hint wants a class
        ws=web_socket if _has_websockets() else "none",  # type: ignore[arg-type]
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
        self._server = _Server(make_config(app, door))
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
