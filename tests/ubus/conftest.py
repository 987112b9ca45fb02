# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures: a ubusd (the fake one, and the real one where it is on PATH) and clients that are connected to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from agent.ubus.client import UbusClient
from tests.support.fake_ubusd import FakeUbusd
from tests.support.real_ubusd import UBUSD, RealUbusd

Ubusd = FakeUbusd | RealUbusd
Connect = Callable[[], Awaitable[UbusClient]]


@pytest.fixture(params=["fake", "real"] if UBUSD else ["fake"])
async def ubusd(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ubusd]:
    kind = FakeUbusd if request.param == "fake" else RealUbusd
    async with kind(tmp_path / "ubus.sock") as made:
        yield made


@pytest.fixture
async def connect(ubusd: Ubusd) -> AsyncIterator[Connect]:
    """Makes clients; they end with the test."""
    tasks: list[asyncio.Task[None]] = []

    async def make() -> UbusClient:
        client = UbusClient(str(ubusd.path), jitter=lambda: 1.0)
        tasks.append(asyncio.create_task(client.run()))
        async with asyncio.timeout(5):
            await client.ready.wait()
        return client

    yield make
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
