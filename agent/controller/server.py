# SPDX-License-Identifier: GPL-2.0-or-later
"""Serves the application on the control socket: root's, mode 0600, bound by us (uvicorn's own would be 0666)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import uvicorn
from starlette.applications import Starlette

from agent.errors import ConfigError

STOP_S = 3


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The runtime handles signals."""
        yield


class ControlServer:
    """`async with ControlServer(app, path):` serves until the block ends."""

    def __init__(self, app: Starlette, path: Path) -> None:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=STOP_S,
        )
        self._server = _Server(config)
        self._path = path
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> ControlServer:
        listener = bind(self._path)
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="control-socket")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        self._path.unlink(missing_ok=True)


def bind(path: Path) -> socket.socket:
    """A listening unix socket of mode 0600 in a directory of mode 0700. Takes a dead agent's place, no live one's."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.parent.stat().st_uid != os.geteuid():
        raise ConfigError(f"{path.parent} belongs to somebody else; remove it")
    with contextlib.suppress(FileNotFoundError):
        _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(mask)
    listener.listen(64)
    return listener


def _remove_stale(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise ConfigError(f"somebody listens on {path} already")
