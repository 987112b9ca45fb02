# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent on ubus: what triggers a pass, what holds deletions back, whose sessions count."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.engine.stream import DockerStream
from agent.runtime import servers as module
from agent.runtime.servers import Bus
from agent.runtime.triggers import Triggers
from agent.status.conditions import ConditionType
from agent.ubus.client import BusObject, UbusClient
from tests.support.box import Box
from tests.support.bus import running
from tests.support.controller import QuietAgent
from tests.support.fake_rpcd import ADMIN, FakeRpcd
from tests.support.fake_ubusd import FakeUbusd

ONE = """
config container 'one'
	option image 'IMAGE'
	option command 'sleep 1000'
	option stop_timeout '0'
	option grace '0'
"""


class Agent(QuietAgent):
    """Notes the triggers."""

    def __init__(self) -> None:
        super().__init__()
        self.triggers: list[dict[str, Any]] = []
        self.triggered = asyncio.Event()

    def trigger_threadsafe(self, **what: Any) -> None:
        self.triggers.append(what)
        self.triggered.set()

    def trigger_after(self, seconds: float) -> None:
        raise AssertionError(seconds)

    async def wait(self) -> dict[str, Any]:
        async with asyncio.timeout(5):
            await self.triggered.wait()
        self.triggered.clear()
        return self.triggers[-1]


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[tuple[Bus, Agent]]:
    triggers, agent = Triggers(), Agent()
    triggers.follow(agent)
    bus = Bus(str(path), triggers)
    async with bus.serving(agent, DockerStream("unix:///none")):
        yield bus, agent


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[FakeUbusd]:
    async with FakeUbusd(tmp_path / "ubus.sock") as made:
        yield made


@pytest.fixture
async def rpcd(daemon: FakeUbusd) -> AsyncIterator[FakeRpcd]:
    async with FakeRpcd(daemon.path) as made:
        yield made


async def ready(bus: Bus) -> None:
    async with asyncio.timeout(5):
        await bus.client.ready.wait()


async def test_all_objects_are_there_also_when_ubusd_comes_later(tmp_path: Path) -> None:
    kinds = ("container", "exec", "image", "network", "volume")
    path = tmp_path / "ubus.sock"
    async with serving(path) as (bus, _), FakeUbusd(path):
        await ready(bus)
        names = ["docker", *(f"docker.{kind}" for kind in kinds), "ucidockd"]
        assert sorted(await bus.client.lookup()) == names


async def test_procds_word_about_packages_that_we_read_triggers_and_no_other(daemon: FakeUbusd) -> None:
    async with serving(daemon.path) as (bus, agent):
        await ready(bus)
        procd = UbusClient(str(daemon.path), jitter=lambda: 1.0)
        service = BusObject(name="service", methods={})
        await procd.add_object(service)
        async with running(procd):
            async with asyncio.timeout(5):
                while not service.subscribed:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.01)
            for kind, data in (
                ("config.change", {"config": "wireless"}),
                ("event.trigger", {"type": "config.change", "data": {"package": "containers"}}),
                ("instance.start", {"service": "dockerd"}),
                ("config.change", {}),
            ):
                await procd.notify(service, kind, data, answer_s=2)
            assert agent.triggers == []
            for package in ("containers", "dockerd", "network", "firewall", "fstab"):
                await procd.notify(service, "config.change", {"config": package}, answer_s=2)
                assert await agent.wait() == {"config": True}


async def test_a_hotplug_notice_triggers_a_pass(daemon: FakeUbusd) -> None:
    async with serving(daemon.path) as (bus, agent):
        await ready(bus)
        async with running(UbusClient(str(daemon.path), jitter=lambda: 1.0)) as script:
            env = {"ACTION": "add", "DEVNAME": "../../etc\n", "INTERFACE": "$(x)"}
            await script.call("ucidockd", "hotplug", {"subsystem": "block", "env": env})
        assert agent.triggers == [{}]


async def held(bus: Bus) -> str:
    """As a pass asks it, in its thread."""
    return await asyncio.to_thread(bus.deletions_held)


async def test_deletions_wait_for_a_pending_rollback_and_are_tried_again(
    daemon: FakeUbusd, rpcd: FakeRpcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ASK_AGAIN_S", 0.1)
    async with serving(daemon.path) as (bus, agent):
        await ready(bus)
        assert not await held(bus)
        rpcd.values = {"rollback": {"token": "t", "session": ADMIN, "timeout": int(time.time()) + 90}}
        assert await held(bus) == "LuCI may still roll the change back"
        assert await agent.wait() == {}
        rpcd.values = {"rollback": {}}
        assert not await held(bus)


async def test_deletions_wait_while_nobody_answers(
    daemon: FakeUbusd, rpcd: FakeRpcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.ubus.rpcd.DEADLINE_S", 0.2)
    async with serving(daemon.path) as (bus, _):
        await ready(bus)
        rpcd.answering.clear()
        assert "rpcd cannot be asked" in await held(bus)
        rpcd.answering.set()
        await daemon.stop()
        assert "rpcd cannot be asked" in await held(bus)
        await daemon.start()


async def test_deletions_do_not_wait_where_there_is_no_luci(daemon: FakeUbusd, tmp_path: Path) -> None:
    async with serving(daemon.path) as (bus, _):
        await ready(bus)
        assert not await held(bus)
    async with serving(tmp_path / "no" / "ubus.sock") as (bus, _):
        assert not await held(bus)


async def test_sessions_are_rpcds_on_openwrt_and_the_token_elsewhere(
    daemon: FakeUbusd, rpcd: FakeRpcd, tmp_path: Path
) -> None:
    class Token:
        async def allowed(self, session: str, object: str, method: str) -> bool:  # noqa: A002 - the port's word
            return session == "token"

    async with serving(daemon.path) as (bus, _):
        await ready(bus)
        sessions = bus.sessions(Token())
        assert await sessions.allowed(ADMIN, "docker", "info")
        assert not await sessions.allowed("token", "docker", "info")
    elsewhere = Bus(str(tmp_path / "no" / "ubus.sock"), Triggers()).sessions(Token())
    assert await elsewhere.allowed("token", "docker", "info")
    assert not await elsewhere.allowed(ADMIN, "docker", "info")


async def test_a_defect_on_the_bus_does_not_end_the_agent(
    daemon: FakeUbusd, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_AFTER_DEFECT_S", 0.01)
    async with serving(daemon.path) as (bus, _):
        await ready(bus)
        broken = bus.client._take

        def once(*args: Any) -> None:
            bus.client._take = broken  # type: ignore[method-assign]
            raise ZeroDivisionError

        bus.client._take = once  # type: ignore[method-assign]
        with pytest.raises(Exception, match="lost"):
            await bus.client.lookup()
        await ready(bus)
        assert "docker" in await bus.client.lookup()
    assert "ubus failed" in caplog.text


def test_a_removed_container_stays_until_the_rollback_is_over(box: Box) -> None:
    asked = []

    def pending() -> str:
        asked.append(True)
        return "LuCI may still roll the change back" if len(asked) < 3 else ""

    box.reconciler.deletions_held = pending
    box.apply(ONE)
    made = box.get("one").id
    assert asked == []
    box.apply("")  # stopped, and kept
    for _ in range(2):
        plan = box.apply()[0]
        assert box.get("one").id == made
        said = next(f for f in plan.findings if f.key == "container:one" and f.type == "Synced")
        assert (said.reason, "LuCI may still" in said.message) == ("Pending", True)
    box.apply()
    assert box.names() == []


async def test_a_status_of_thousands_comes_in_pages_that_the_bus_carries(daemon: FakeUbusd) -> None:
    async with serving(daemon.path) as (bus, agent):
        await ready(bus)
        keys = [f"container:c{number:04}" for number in range(3000)]
        for key in keys:
            agent.board.ensure(key)
            for kind in (ConditionType.ACCEPTED, ConditionType.SYNCED, ConditionType.RUNNING):
                agent.board.set(key, kind, status=True, reason="R", message="m" * 100)
        caller = UbusClient(str(daemon.path), jitter=lambda: 1.0)
        async with running(caller):
            page = await caller.call("ucidockd", "status", {}, timeout_s=20)
            found = page["resources"]
            while "next" in page:
                page = await caller.call("ucidockd", "status", {"after": page["next"]}, timeout_s=20)
                found += page["resources"]
            assert [resource["key"] for resource in found] == keys
            page = await caller.call("ucidockd", "status", {"after": keys[9], "limit": 2}, timeout_s=20)
            assert [resource["key"] for resource in page["resources"]] == keys[10:12]
            refused = await caller.call("ucidockd", "status", {"limit": 0}, timeout_s=20)
            assert refused["error"]["code"] == "bad-request"
