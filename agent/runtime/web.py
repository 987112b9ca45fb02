# SPDX-License-Identifier: GPL-2.0-or-later
"""The HTTP side of the agent, built when it is needed: a first client on the control socket, or `listen`.

Starlette, uvicorn and the routes take 6 MiB, and where LuCI uses ubus they may never be needed. Until then the control
socket is there and the kernel keeps its clients waiting; `runtime.listeners` does the rest.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from agent.api.control_socket import bind
from agent.api.jobs.jobs import Jobs
from agent.api.port import AgentPort, Sessions
from agent.api.streams.consoles import Consoles
from agent.data.parts import Data
from agent.engine.stream import DockerStream
from agent.errors import BusError
from agent.files.options import RuntimeOptions
from agent.files.token import TokenFile
from agent.model.resources import AgentSettings
from agent.threads import tell

if TYPE_CHECKING:
    from agent.api.access.listeners import Listeners

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the routes are about, and who knows the sessions."""

    options: RuntimeOptions
    agent: AgentPort
    engine: DockerStream
    consoles: Consoles
    jobs: Jobs
    data: Data
    sessions: Sessions


class Web:
    """`async with Web(parts, path):` holds the control socket at `path` until the block ends."""

    def __init__(self, parts: Parts, path: Path) -> None:
        self._settings = AgentSettings()
        self._parts = parts
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._wanted = asyncio.Event()
        self._closing = asyncio.Event()
        self._listener: socket.socket | None = None
        self._listeners: Listeners | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Web:
        self._listener = bind(self._path)
        self._loop.add_reader(self._listener, self._on_client, self._listener)
        self._task = asyncio.create_task(self._run(self._listener), name="web")
        return self

    def close_soon(self) -> None:
        """Begins to close; the end of the block waits for that."""
        self._closing.set()
        self._wanted.set()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close_soon()
        if self._task is not None:
            await self._task

    def _on_client(self, listener: socket.socket) -> None:
        self._loop.remove_reader(listener)
        self._wanted.set()

    def settings_read(self, settings: AgentSettings) -> None:
        """The agent section that a pass read, in its thread."""
        if settings.listen and isinstance(self._parts.sessions, TokenFile):
            # clients of the listener need the token file
            try:
                self._parts.sessions.token()
            except BusError as exc:
                logger.warning("%s", exc)
        tell(self._loop, self._follow, settings)

    def _follow(self, settings: AgentSettings) -> None:
        self._settings = settings
        if self._listeners is not None:
            self._listeners.want(settings)
        elif settings.listen:
            self._wanted.set()

    async def _run(self, listener: socket.socket) -> None:
        await self._wanted.wait()
        self._loop.remove_reader(listener)
        try:
            if not self._closing.is_set():
                await self._serve(listener)
        except Exception:
            # what runs continues; clients are told at once, since the socket is closed
            logger.exception("the control socket cannot be served")
        finally:
            listener.close()
            self._path.unlink(missing_ok=True)

    async def _serve(self, listener: socket.socket) -> None:
        await asyncio.to_thread(
            _import_doors
        )  # some tenths of a second, in which a pass may want to continue
        from agent.runtime.listeners import make_doors

        server, self._listeners = make_doors(self._parts, self._settings, listener, self._path)
        async with server, self._listeners:
            await self._closing.wait()
            server.close_soon()


def _import_doors() -> None:
    import agent.runtime.listeners  # noqa: F401
