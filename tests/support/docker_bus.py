# SPDX-License-Identifier: GPL-2.0-or-later
"""The published `docker*` objects with an engine, and a caller."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from agent.api.ubus.docker import DockerObjects, Ttyd
from agent.engine.stream import DockerStream
from tests.support.bus import Bus, a_bus
from tests.support.controller import QuietAgent


class Agent(QuietAgent):
    """Remembers the manual actions that were announced to it."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, ...]] = []

    async def manual(self, container: str, action: str) -> None:
        self.told.append((container, action))

    async def manual_failed(self, container: str) -> None:
        self.told.append((container,))


class Docker:
    """The published objects, and a caller."""

    def __init__(self, bus: Bus, agent: Agent) -> None:
        self.bus, self.agent = bus, agent

    async def call(
        self, name: str, args: dict[str, Any] | None = None, *, session: str = ""
    ) -> dict[str, Any]:
        target, _, method = name.rpartition(".")
        given = {**(args or {}), **({"ubus_rpc_session": session} if session else {})}
        return await self.bus.caller.call(target, method, given, timeout_s=20)


@asynccontextmanager
async def docker_on(path: Path, url: str) -> AsyncIterator[Docker]:
    async with a_bus(path) as bus:
        agent = Agent()
        await bus.publish(
            DockerObjects(agent, DockerStream(url), bus.sessions, ttyd=Ttyd(("-H", url))).objects()
        )
        yield Docker(bus, agent)
