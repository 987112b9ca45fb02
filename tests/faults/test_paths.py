# SPDX-License-Identifier: GPL-2.0-or-later
"""Paths and files that sections name and that cannot be looked at: each costs its own section, the others go on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.runtime import loop
from agent.runtime.reconciler import Reconciler
from tests.support.agent_process import Agent, running, wait_for
from tests.support.box import Box
from tests.support.hanging import HangingMount

OTHER = """
config container 'other'
	option image 'IMAGE'
	option command 'sleep 1000'
	option stop_timeout '0'
	option gate '0.1'
	option memory 'MEMORY'
"""
ONE = """
config container 'one'
	option image 'IMAGE'
	option command 'sleep 1000'
	option stop_timeout '0'
	option gate '0.1'
"""


@pytest.fixture
def agent(box: Box) -> Iterator[Agent]:
    made = Agent(box)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.end()


def _conditions(agent: Agent, section: str) -> dict[str, dict[str, Any]]:
    found = next((r for r in agent.status()["resources"] if r["section"] == section), {"conditions": []})
    return {condition["type"]: condition for condition in found["conditions"]}


def _memory(box: Box) -> int:
    return int(box.client.containers.get("other").attrs["HostConfig"]["Memory"])


def _others_go_on(agent: Agent, box: Box, one: str) -> None:
    agent.commit(OTHER.replace("MEMORY", "64m") + one)
    wait_for(lambda: box.client.containers.list(filters={"name": "other"}), 30)
    agent.commit(OTHER.replace("MEMORY", "96m") + one)
    wait_for(lambda: _memory(box) == 96 * 1024**2, 30)


@pytest.mark.variants(4)
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (f"list volume '/srv/{'a' * 300}:/x'", "File name too long"),
        (f"list volume '/{'a/' * 2500}:/x'", "File name too long"),
        (f"list wait_for 'file:/srv/{'a' * 300}'", "File name too long"),
        (f"list wait_for 'mount:/srv/{'a' * 300}'", "File name too long"),
        (f"list device '/dev/{'a' * 300}'", "File name too long"),
        ("list volume 'LOOP/x:/x'", "Too many levels of symbolic links"),
        ("list volume 'DEAD/x:/x'", "Transport endpoint is not connected"),
        ("list wait_for 'file:DEAD/x'", "Transport endpoint is not connected"),
    ],
)
def test_a_path_that_cannot_be_looked_at_makes_its_section_wait(
    agent: Agent, box: Box, tmp_path: Path, line: str, reason: str
) -> None:
    (tmp_path / "loop").symlink_to("pool")
    (tmp_path / "pool").symlink_to("loop")
    with HangingMount(tmp_path / "dead") as dead:
        dead.die()
        line = line.replace("LOOP", str(tmp_path / "loop")).replace("DEAD", str(tmp_path / "dead"))
        agent.commit("")
        agent.start()
        _others_go_on(agent, box, ONE + f"\t{line}\n")
        wait_for(lambda: reason in _conditions(agent, "one").get("Waiting", {}).get("message", ""))
        assert "pass failed" not in agent.log.read_text()


def test_a_mount_that_hangs_holds_its_containers_and_nothing_else(
    agent: Agent, box: Box, tmp_path: Path
) -> None:
    source = tmp_path / "nas"
    source.mkdir()
    (source / "data").mkdir()
    one = ONE + f"\tlist volume '{source}/data:/x'\n"
    agent.commit(OTHER.replace("MEMORY", "64m") + one)
    agent.start()
    wait_for(lambda: box.client.containers.list(filters={"name": "one"}), 30)
    with HangingMount(source):
        started = box.client.containers.get("one").attrs["State"]["StartedAt"]
        agent.commit(OTHER.replace("MEMORY", "128m") + one)
        wait_for(lambda: _memory(box) == 128 * 1024**2, 30)
        wait_for(lambda: "does not answer" in _conditions(agent, "one").get("Waiting", {}).get("message", ""))
        assert box.client.containers.get("one").attrs["State"]["StartedAt"] == started, "it runs on"
        agent.end(signal.SIGTERM)
        agent.start()  # an agent that starts meanwhile gets to its passes too
        _others_go_on(agent, box, one)
        began = time.monotonic()
        agent.end(signal.SIGTERM)
        assert time.monotonic() - began < 8
        agent.start()
        wait_for(
            lambda: "does not answer" in _conditions(agent, "one").get("Waiting", {}).get("message", ""), 30
        )
    wait_for(lambda: _conditions(agent, "one").get("Waiting", {}).get("status") is False, 30)


@pytest.mark.long
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_look_that_cannot_be_ended_keeps_no_next_agent_out(
    agent: Agent, box: Box, tmp_path: Path, end: signal.Signals
) -> None:
    """Where another process asked for a name first, the kernel lets nothing end the second look: not even SIGKILL."""
    source = tmp_path / "nas"
    one = ONE + f"\tlist volume '{source}/data:/x'\n"
    with HangingMount(source) as mount:
        first = subprocess.Popen(["stat", f"{source}/data"], stdout=subprocess.DEVNULL)
        time.sleep(0.5)
        agent.commit(OTHER.replace("MEMORY", "64m") + one)
        agent.start()
        wait_for(lambda: "does not answer" in _conditions(agent, "one").get("Waiting", {}).get("message", ""))
        wait_for(lambda: running(box, "other"))
        held = (
            OTHER.replace("MEMORY", "64m").replace("sleep 1000", "sleep 1001")
            + "\toption hold_cmd 'sleep 52'\n"
        )
        agent.commit(held + one)  # something else is under way as well: it is not waited for
        wait_for(lambda: "sleep 52" in str(box.get("other").top()))
        stays, second = agent.process, Agent(box)
        assert stays is not None
        stays.send_signal(end)
        agent.process = None
        lock = tmp_path / "agent.lock"
        if end is signal.SIGTERM:  # it leaves its lock
            wait_for(lambda: subprocess.run(["flock", "-n", lock, "true"], check=False).returncode == 0, 12)
        try:
            second.start()
            _others_go_on(second, box, one)
            assert ("still hangs in the kernel" in second.log.read_text()) is (end is signal.SIGKILL)
        finally:
            mount.die()
            second.close()
            first.wait(10)
            stays.wait(10)


@pytest.mark.variants(3)
@pytest.mark.parametrize("kind", ["fifo", "endless", "hanging"])
@pytest.mark.parametrize("when", ["at start", "later"])
def test_an_env_file_that_cannot_be_read_costs_only_its_section(
    agent: Agent, box: Box, tmp_path: Path, kind: str, when: str
) -> None:
    path = Path("/dev/zero") if kind == "endless" else tmp_path / "nas" / "file"
    path.parent.mkdir(exist_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    one = ONE + f"\tlist env_file '{path}'\n"
    hanging = HangingMount(path.parent) if kind == "hanging" else None
    if hanging is not None:
        hanging.__enter__()
    try:
        agent.commit(OTHER.replace("MEMORY", "64m") + (one if when == "at start" else ""))
        agent.start()
        _others_go_on(agent, box, one)
        shown, message = ("Accepted", "not a regular file")
        if kind == "hanging":
            shown, message = ("Waiting", "does not answer")
        wait_for(lambda: message in _conditions(agent, "one").get(shown, {}).get("message", ""))
    finally:
        if hanging is not None:
            hanging.__exit__(None, None, None)


def test_validating_files_that_hang_does_not_hold_passes_up(agent: Agent, box: Box, tmp_path: Path) -> None:
    agent.commit("")
    agent.start()
    text = ONE + f"\tlist env_file '{tmp_path}/nas/file'\n"
    transport = httpx.HTTPTransport(uds=str(box.options.socket))
    client = httpx.Client(transport=transport, base_url="http://localhost", timeout=30)
    with HangingMount(tmp_path / "nas"), client:
        for _ in range(10):
            answer = client.post("/v1/validate", json={"containers": text.replace("IMAGE", "x")})
            assert "does not answer" in answer.text
        _others_go_on(agent, box, "")


def test_a_certificate_that_is_a_fifo_leaves_the_agent_answering(
    agent: Agent, box: Box, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "cert")
    section = (
        f"config agent\n\tlist listen '127.0.0.1:28943'\n\toption cert '{tmp_path}/cert'\n"
        f"\toption key '{tmp_path}/cert'\n"
    )
    agent.commit("")
    agent.start()
    _others_go_on(agent, box, section)
    wait_for(lambda: "not a regular file" in agent.command("status", "--json").stdout)
    assert agent.end(signal.SIGTERM) == 0


async def test_passes_that_stop_are_a_condition(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "STUCK_RESYNCS", 0.1)
    box.write("config agent\n\toption resync '5'\n")
    agent = loop.Loop(box.reconciler, watch=(box.config,))
    stuck, begin_pass = threading.Event(), Reconciler.begin_pass

    def hanging(self: Reconciler, *, deep: frozenset[str] | None) -> Any:
        stuck.wait()
        return begin_pass(self, deep=deep)

    def shown() -> list[str]:
        resources = agent.board.snapshot()["resources"]
        return [c["type"] for r in resources if r["key"] == loop.PASSES_KEY for c in r["conditions"]]

    async def until(seen: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not seen():  # noqa: ASYNC110 - the board and the counters tell nobody
                await asyncio.sleep(0.05)

    task = asyncio.create_task(agent.run())
    await until(lambda: agent.passes.succeeded > 0)
    monkeypatch.setattr(Reconciler, "begin_pass", hanging)
    agent.trigger()
    await until(lambda: shown() == ["PassStuck"])
    stuck.set()
    await until(lambda: not shown())
    agent.stop()
    await task
