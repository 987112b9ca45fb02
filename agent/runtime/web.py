# SPDX-License-Identifier: GPL-2.0-or-later
"""The HTTP side of the agent, created when it is needed: on the first client of the control socket, or for `listen`.

Starlette, uvicorn and the routes take 6 MiB, and may never be needed if LuCI uses ubus. Until then the control socket
exists and the kernel queues its clients.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from agent.api.jobs.jobs import Jobs
from agent.api.local_access import TokenFile, bind
from agent.api.port import AgentPort, Sessions
from agent.api.streams.consoles import Consoles
from agent.data.parts import Data
from agent.engine.stream import DockerStream
from agent.errors import BusError, ConfigError
from agent.files.options import RuntimeOptions
from agent.files.uci_store import TextUciStore, UciMissing
from agent.model.addresses import IpAddress
from agent.model.resources import AgentSettings
from agent.router.addresses import device_addresses
from agent.threads import tell
from agent.uci.router import wan_devices
from agent.uci.syntax import UciSyntaxError

if TYPE_CHECKING:
    from agent.api.access.listeners import Listeners
    from agent.api.access.tcp import ControlServer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiParts:
    """The objects that the routes need, and the session manager."""

    options: RuntimeOptions
    agent: AgentPort
    engine: DockerStream
    consoles: Consoles
    jobs: Jobs
    data: Data
    sessions: Sessions


class Web:
    """`async with Web(parts, path):` serves the control socket at `path` until the block ends."""

    def __init__(self, parts: ApiParts, path: Path) -> None:
        self._settings = AgentSettings()
        self._parts = parts
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._wanted = asyncio.Event()  # the first client has come, or `listen` is set
        self._closing = asyncio.Event()
        self._listener: socket.socket | None = None
        self._listeners: Listeners | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Web:
        self._listener = listener = bind(self._path)

        def first_client() -> None:
            # not accepted here: the server accepts it once it exists
            self._loop.remove_reader(listener)
            self._wanted.set()

        self._loop.add_reader(listener, first_client)
        self._task = asyncio.create_task(self._run(listener), name="web")
        return self

    def close_soon(self) -> None:
        """Begins to close; the end of the block waits until it is closed."""
        self._closing.set()
        self._wanted.set()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close_soon()
        if self._task is not None:
            await self._task

    def settings_read(self, settings: AgentSettings) -> None:
        """Takes the agent section that a pass read. Called in the pass's thread."""
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
            # the rest of the agent continues; clients notice immediately, because the socket is closed
            logger.exception("the control socket cannot be served")
        finally:
            listener.close()
            self._path.unlink(missing_ok=True)

    async def _serve(self, listener: socket.socket) -> None:
        # in a thread: takes some tenths of a second, during which passes must be able to run
        await asyncio.to_thread(_import_doors)
        server, self._listeners = _make_doors(self._parts, self._settings, listener, self._path)
        async with server, self._listeners:
            await self._closing.wait()
            server.close_soon()


def _import_doors() -> None:
    import agent.api.access.listeners
    import agent.api.app  # noqa: F401


def _make_doors(
    parts: ApiParts, settings: AgentSettings, listener: socket.socket, path: Path
) -> tuple[ControlServer, Listeners]:
    """The server of the control socket that `listener` is bound to, and the listeners of the agent section."""
    # imported here: Starlette and uvicorn take some MiB that an agent without clients does not need
    from agent.api.access.access import Access
    from agent.api.access.listeners import Listeners
    from agent.api.access.subnets import Subnets
    from agent.api.access.tcp import ControlServer
    from agent.api.app import make_app

    access = Access(parts.sessions, Subnets(parts.engine), settings=settings)
    app = make_app(parts.agent, parts.engine, access, parts.consoles, jobs=parts.jobs, data=parts.data)
    listeners = Listeners(app, access, parts.agent.board, wan=lambda: wan_addresses(parts.options))
    # apply the settings immediately: the next pass may be a minute away
    listeners.want(settings)
    return ControlServer(app, path, listener=listener), listeners


def wan_addresses(options: RuntimeOptions) -> frozenset[IpAddress]:
    """Addresses in zones that refuse input; empty without an OpenWrt firewall. Blocks. Raises ConfigError."""
    store = TextUciStore(config_dir=options.config_dir, override_dir=options.override_dir)
    try:
        return device_addresses(wan_devices(store.load("firewall"), store.load("network")))
    except UciMissing:
        return frozenset()
    except UciSyntaxError as exc:
        raise ConfigError(str(exc)) from exc
