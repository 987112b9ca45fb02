# SPDX-License-Identifier: GPL-2.0-or-later
"""A bus with a session daemon and a caller: everything between a browser and our objects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.ubus.client import BusObject, UbusClient
from agent.ubus.rpcd import Rpcd
from tests.support.fake_rpcd import FakeRpcd
from tests.support.fake_ubusd import FakeUbusd


@asynccontextmanager
async def running(client: UbusClient) -> AsyncIterator[UbusClient]:
    """The client, connected."""
    task = asyncio.create_task(client.run())
    try:
        async with asyncio.timeout(5):
            await client.ready.wait()
        yield client
    finally:
        task.cancel()
        await asyncio.wait({task})


@dataclass
class Bus:
    """`ours` is the agent's client, `caller` is another client."""

    daemon: FakeUbusd
    rpcd: FakeRpcd
    ours: UbusClient
    caller: UbusClient

    @property
    def sessions(self) -> Rpcd:
        return Rpcd(self.ours)

    async def publish(self, objects: list[BusObject]) -> None:
        for owned in objects:
            await self.ours.add_object(owned)

    def client(self) -> UbusClient:
        return UbusClient(str(self.daemon.path), jitter=lambda: 1.0)


@asynccontextmanager
async def a_bus(path: Path) -> AsyncIterator[Bus]:
    async with FakeUbusd(path) as daemon, FakeRpcd(path) as rpcd:
        ours, caller = UbusClient(str(path), jitter=lambda: 1.0), UbusClient(str(path), jitter=lambda: 1.0)
        async with running(ours), running(caller):
            yield Bus(daemon, rpcd, ours, caller)
