# SPDX-License-Identifier: GPL-2.0-or-later
"""Who serves the agent's clients: `Web` by HTTP, and `Bus` by ubus.

HTTP is created when it is needed: on the first client of the control socket, or for `listen`. Starlette,
uvicorn and the routes take 6 MiB, and may never be needed if LuCI uses ubus. Until then the control socket exists and
the kernel queues its clients.

On ubus are our objects, the triggers that come over it, and rpcd, which manages the sessions. Without ubusd there are no
objects; we try to connect every two seconds.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any

from agent.api.jobs.jobs import Jobs
from agent.api.local_access import TokenFile, bind
from agent.api.port import AgentPort, Sessions
from agent.api.streams.consoles import Consoles
from agent.api.streams.stream_sources import StreamKind, our_kinds
from agent.api.ubus.agent import AgentMethods, StatusNotifier, make_agent_object
from agent.api.ubus.docker import DockerObjects, Ttyd
from agent.api.ubus.streams import Streams
from agent.data.parts import Data
from agent.engine.stream import DockerStream
from agent.errors import BusError, ConfigError
from agent.files.options import RuntimeOptions
from agent.files.uci_store import TextUciStore, UciMissing
from agent.model.addresses import IpAddress
from agent.model.resources import AgentSettings
from agent.router.addresses import device_addresses
from agent.runtime.triggers import Triggers
from agent.threads import tell
from agent.ubus.client import Method, UbusClient
from agent.ubus.rpcd import DEADLINE_S, Rpcd
from agent.uci.decode import PACKAGES
from agent.uci.router import wan_devices
from agent.uci.syntax import UciSyntaxError
from agent.wire.ubus_message import Status

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
        await asyncio.to_thread(_import_api)
        server, self._listeners = _make_servers(self._parts, self._settings, listener, self._path)
        async with server, self._listeners:
            await self._closing.wait()
            server.close_soon()


def _import_api() -> None:
    import agent.api.access.listeners
    import agent.api.app  # noqa: F401


def _make_servers(
    parts: ApiParts, settings: AgentSettings, listener: socket.socket, path: Path
) -> tuple[ControlServer, Listeners]:
    """The server of the control socket that `listener` is bound to, and the listeners of the agent section."""
    # imported here: Starlette and uvicorn take some MiB that an agent without clients does not need
    from agent.api.access.access import Access, Subnets
    from agent.api.access.listeners import Listeners
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


_PACKAGES = frozenset({*PACKAGES, "network", "firewall", "fstab"})  # packages about the router around dockerd
_ASK_AGAIN_S = 5.0
_ASK_S = 5.0  # for one call, while a pass waits
_AFTER_DEFECT_S = 5.0  # before ubus is begun again


class Bus:
    """The agent's connection to ubusd at `socket`. Belongs to the running event loop."""

    def __init__(self, socket: str, triggers: Triggers) -> None:
        self._triggers = triggers
        self._loop = asyncio.get_running_loop()
        self.client = UbusClient(socket)
        self.rpcd = Rpcd(self.client)
        self._folder = Path(socket).parent
        self._asking_again = False  # a timer is set for the end of a rollback

    def has_ubus(self) -> bool:
        """Whether this system has ubus, even if ubusd is not running at the moment."""
        return self._folder.is_dir()

    def sessions(self, token: Sessions) -> Sessions:
        """The session manager of this host: rpcd if there is ubus, otherwise `token`."""
        return self.rpcd if self.has_ubus() else token

    @asynccontextmanager
    async def serving(
        self,
        agent: AgentPort,
        engine: DockerStream,
        *,
        kinds: Mapping[str, StreamKind] = MappingProxyType({}),
        methods: Mapping[str, Method] = MappingProxyType({}),
    ) -> AsyncIterator[None]:
        """Publishes, listens and triggers until the block ends. `kinds`: additional kinds of streams; `methods`:
        additional methods of the object `ucidockd`."""
        streams = Streams(self.client, self.rpcd, {**kinds, **our_kinds(agent.board, engine)})
        ttyd = Ttyd(engine.docker_arguments())
        basic = AgentMethods(agent, self._on_hotplug).methods()
        ours = make_agent_object(self.rpcd, basic, streams.methods(), methods)
        # Published before the connection exists: the client adds the objects at each new connection, because ubusd
        # forgets them when it restarts.
        for owned in (ours, *DockerObjects(agent, engine, self.rpcd, ttyd=ttyd).objects()):
            await self.client.add_object(owned)
        self.client.subscribe("service", self._on_service)
        notifier = StatusNotifier(agent, self.client, ours)
        tasks = [
            asyncio.create_task(_for_ever(self.client.run), name="ubus"),
            asyncio.create_task(_for_ever(notifier.run), name="ubus-status"),
        ]
        try:
            yield
        finally:
            # streams first: they notify their clients over the connection that the tasks below hold
            await streams.stop()
            await ttyd.close()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def _on_service(self, kind: str, data: Mapping[str, Any]) -> None:
        if kind == "config.change" and data.get("config") in _PACKAGES:
            self._triggers.config()

    def _on_hotplug(self, subsystem: str, variables: Mapping[str, Any]) -> None:
        logger.debug("hotplug: %.32r %.32r", subsystem, variables.get("ACTION", ""))
        self._triggers.now()

    def ask(self, name: str, method: str) -> Mapping[str, Any] | None:
        """A ubus call from the thread of a pass; None without a connection. Blocks. Raises BusError."""
        if not self.client.connected:
            return None
        asked = asyncio.run_coroutine_threadsafe(self.client.call(name, method, timeout_s=_ASK_S), self._loop)
        # twice the time limit of the call: reached only if the loop is busy or ending, and a pass must not hang
        # because of that
        try:
            return asked.result(2 * _ASK_S)
        except TimeoutError as exc:  # the agent is ending
            asked.cancel()
            raise BusError(f"ubus: {name} {method}: no answer") from exc

    def deletions_held(self) -> str:
        """Why deletions must wait: LuCI may still roll back the last change. "" if it may not. If rpcd cannot be asked,
        it may.

        Blocks, in the thread of a pass.
        """
        if not self.has_ubus():
            return ""
        asked = asyncio.run_coroutine_threadsafe(self._rollback_pending(), self._loop)
        try:
            pending = asked.result(2 * DEADLINE_S)
        except TimeoutError:  # the agent is ending
            asked.cancel()
            return "the agent is ending"

        def ask_again() -> None:
            # there is no event when a rollback is confirmed
            if not self._asking_again:
                self._asking_again = True
                self._loop.call_later(_ASK_AGAIN_S, asked_again)

        def asked_again() -> None:
            self._asking_again = False
            self._triggers.now()

        if pending:
            tell(self._loop, ask_again)
        return pending

    async def _rollback_pending(self) -> str:
        try:
            left_s = await self.rpcd.rollback_left_s()
        except BusError as exc:
            if exc.status == Status.NOT_FOUND:  # without rpcd there is no LuCI
                return ""
            return f"rpcd cannot be asked whether LuCI may roll the change back ({exc})"
        return "LuCI may still roll the change back" if left_s > 0 else ""


async def _for_ever(work: Callable[[], Awaitable[None]]) -> None:
    """Restarts `work` whenever it fails: an internal error here must not end the agent."""
    while True:
        try:
            await work()
        except Exception:
            logger.exception("ubus failed")
        await asyncio.sleep(_AFTER_DEFECT_S)
