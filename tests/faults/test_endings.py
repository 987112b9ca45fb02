# SPDX-License-Identifier: GPL-2.0-or-later
"""The end of the agent while everything that it can be busy with is open: procd sends SIGKILL 5 s after SIGTERM."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.agent_process import Agent, running, wait_for
from tests.support.box import Box
from tests.support.bus import Bus, a_bus
from tests.support.fake_rpcd import ADMIN

LIMIT_S = 4
WEB = """
config container 'web'
	option image 'IMAGE'
	option command 'sh -c "while :; do echo x; sleep 0.1; done"'
	option stop_timeout '0'
	option gate '0.1'
"""
STREAMS = (
    "/v1/status/stream",
    "/v1/events",
    "/v1/containers/web/logs?follow=1",
    "/v1/containers/web/stats",
    "/docker/events",
)


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[Bus]:
    async with a_bus(tmp_path / "ubus.sock") as made:
        yield made


@pytest.fixture
async def agent(box: Box, bus: Bus) -> AsyncIterator[Agent]:
    made = Agent(box)
    made.ubus = bus.daemon.path
    made.commit(WEB)
    await asyncio.to_thread(made.start)
    await asyncio.to_thread(wait_for, lambda: running(box, "web"))
    yield made
    made.close()


@pytest.fixture
async def http(agent: Agent) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.AsyncHTTPTransport(uds=str(agent.box.options.socket))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=30) as made:
        yield made


async def call(bus: Bus, method: str, **args: Any) -> dict[str, Any]:
    """A call of LuCI's; the agent may not be on the bus yet."""
    async with asyncio.timeout(15):
        while "ucidockd" not in await bus.caller.lookup("ucidockd"):  # noqa: ASYNC110 - the bus has no such event
            await asyncio.sleep(0.05)
        return await bus.caller.call("ucidockd", method, {**args, "ubus_rpc_session": ADMIN}, timeout_s=10)


async def test_the_end_waits_for_no_stream_job_console_and_tab(
    agent: Agent, box: Box, bus: Bus, http: httpx.AsyncClient
) -> None:
    async with AsyncExitStack() as stack:
        for path in STREAMS:
            await begun(stack, http, path)
        made = await http.post("/v1/containers/web/exec", json={"command": ["sleep", "4718"]})
        await begun(stack, http, f"/v1/exec/{made.json()['id']}/stream")
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        image = f"127.0.0.1:{silent.getsockname()[1]}/never:1"
        job = await http.post("/v1/jobs", json={"kind": "pull", "image": image})
        assert job.status_code < 300, job.text
        await begun(stack, http, f"/v1/jobs/{job.json()['job']['id']}/stream")
        tab = await call(bus, "stream_open", kind="logs", args={"container": "web"})
        assert "stream" in tab, tab
        began = time.monotonic()
        code = await asyncio.to_thread(agent.end)
        took = time.monotonic() - began
    assert code == 0, agent.log.read_text()
    assert took < LIMIT_S
    assert running(box, "web")
    assert "sleep 4718" not in str(box.get("web").top())
    log = agent.log.read_text()
    assert [line for line in log.splitlines() if line.startswith(("ERROR", "Traceback"))] == [], log


async def begun(stack: AsyncExitStack, http: httpx.AsyncClient, path: str) -> None:
    """Opens a stream that goes on; returns once its first bytes are there, which for quiet ones are the head."""
    answer = await stack.enter_async_context(http.stream("GET", path))
    assert answer.status_code == 200, path
