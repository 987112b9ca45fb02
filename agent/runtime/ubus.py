# SPDX-License-Identifier: GPL-2.0-or-later
"""Wiring of ubus: our objects, the triggers that come over ubus, and rpcd, which manages the sessions.

Without ubusd there are no objects; we try to connect every two seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from agent.api.port import AgentPort, Sessions
from agent.api.streams.stream_sources import StreamKind, our_kinds
from agent.api.ubus.agent import AgentMethods, StatusNotifier, make_agent_object
from agent.api.ubus.docker import DockerObjects
from agent.api.ubus.streams import Streams
from agent.api.ubus.ttyd import Ttyd
from agent.engine.stream import DockerStream
from agent.errors import BusError
from agent.runtime.triggers import Triggers
from agent.threads import tell
from agent.ubus.client import UbusClient
from agent.ubus.objects import Method
from agent.ubus.rpcd import DEADLINE_S, Rpcd
from agent.uci.decode import PACKAGES
from agent.wire.ubus_message import Status

logger = logging.getLogger(__name__)

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
