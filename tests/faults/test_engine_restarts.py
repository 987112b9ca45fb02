# SPDX-License-Identifier: GPL-2.0-or-later
"""The engine goes away and comes back, by order and by SIGKILL: nothing is made twice, nothing made anew for it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from agent.errors import EngineError
from agent.plan.records import name_outside
from tests.support.agent_process import Agent, wait_for
from tests.support.box import Box
from tests.support.dockerd import PrivateDockerd

WEB = """
config container 'web'
	option image 'IMAGE'
	option command 'sleep 1000'
	option stop_timeout '0'
	option gate '1'
	option restart 'always'
"""
JOB = WEB.replace("'web'", "'worker'").replace("'always'", "'no'")
LAN = "\nconfig network 'lan'\n"
MANY = LAN + "".join(WEB.replace("'web'", f"'c{n}'") + "\tlist network 'lan'\n" for n in range(6))


@pytest.fixture(scope="module")
def mortal() -> Iterator[PrivateDockerd]:
    """An engine that may be killed; it runs at the begin of each test."""
    dockerd = PrivateDockerd(subnet=2)
    try:
        dockerd.start()
        dockerd.import_busybox()
        yield dockerd
    finally:
        dockerd.close()


@pytest.fixture
def client(mortal: PrivateDockerd) -> Iterator[docker.DockerClient]:
    client = docker.DockerClient(base_url=mortal.host, version="1.41")
    yield client
    client.close()


@pytest.fixture
def agent(mortal: PrivateDockerd, client: docker.DockerClient, tmp_path: Path) -> Iterator[Agent]:
    box = Box.make(tmp_path, mortal, client)
    agent = Agent(box)
    yield agent
    agent.close()
    if not mortal.is_running():
        mortal.start()
    box.clean()
    mortal.arguments = ()


def settled(agent: Agent) -> bool:
    """The whole configuration is reached."""
    facts = agent.status().get("agent", {})
    return bool(facts.get("generation")) and facts["generation"] == facts["desired_generation"]


def wait_settled(agent: Agent) -> None:
    """Fails with the status as people see it."""
    try:
        wait_for(lambda: settled(agent), 30)
    except AssertionError as exc:
        raise AssertionError(agent.command("status").stdout) from exc


def engine_of(agent: Agent) -> dict[str, object]:
    """What status says about the engine."""
    return dict(agent.status().get("agent", {}).get("engine", {}))


def containers(agent: Agent) -> dict[str, tuple[str, str]]:
    """Name -> id, state."""
    found = agent.box.client.api.containers(all=True)
    return {c["Names"][0][1:]: (c["Id"], c["State"]) for c in found}


@pytest.mark.parametrize("live_restore", [pytest.param(False, marks=pytest.mark.long), True])
def test_a_restart_of_the_engine_recreates_nothing(
    agent: Agent, mortal: PrivateDockerd, *, live_restore: bool
) -> None:
    mortal.stop()
    mortal.arguments = ("--live-restore",) if live_restore else ()
    mortal.start()
    agent.commit(LAN + WEB + JOB)
    agent.start()
    wait_for(lambda: settled(agent))
    before = containers(agent)
    pid = agent.box.get("web").attrs["State"]["Pid"]
    mortal.stop()
    wait_for(lambda: engine_of(agent).get("reachable") is False)
    mortal.start()
    wait_for(lambda: engine_of(agent).get("reachable") is True)
    wait_for(lambda: settled(agent))
    wait_for(lambda: [state for _, state in containers(agent).values()] == ["running"] * 2)
    assert containers(agent) == before
    assert (agent.box.get("web").attrs["State"]["Pid"] == pid) is live_restore


@pytest.mark.parametrize(
    "count", [3, *(pytest.param(n, marks=pytest.mark.long) for n in (1, 2, 4, 5, 6))], ids=str
)
def test_an_engine_killed_in_the_middle_of_an_apply_is_gone_on_with(
    agent: Agent, mortal: PrivateDockerd, count: int
) -> None:
    agent.commit(MANY)
    agent.start()
    wait_for(lambda: len(containers(agent)) >= count)
    mortal.kill()
    mortal.start()
    wait_settled(agent)
    assert {name: state for name, (_, state) in containers(agent).items()} == {
        f"c{n}": "running" for n in range(6)
    }
    assert [n["Name"] for n in agent.box.client.api.networks(names=["lan"])] == ["lan"]


def test_an_engine_killed_in_the_middle_of_a_swap_ends_with_the_right_container(
    agent: Agent, mortal: PrivateDockerd
) -> None:
    agent.commit(WEB)
    agent.start()
    wait_for(lambda: settled(agent))
    agent.commit(WEB.replace("1000", "2000"))
    wait_for(lambda: any(name_outside(name, "old") == "web" for name in containers(agent)))
    mortal.kill()
    mortal.start()
    wait_settled(agent)
    assert list(containers(agent)) == ["web"]
    web = agent.box.get("web")
    assert (web.status, web.attrs["Config"]["Cmd"]) == ("running", ["sleep", "2000"])


def test_an_engine_that_comes_up_after_the_agent_is_found(agent: Agent, mortal: PrivateDockerd) -> None:
    mortal.stop()
    agent.commit(WEB)
    agent.start()
    wait_for(lambda: engine_of(agent).get("reason") == "EngineUnreachable")
    mortal.start()
    wait_for(lambda: settled(agent))
    assert containers(agent)["web"][1] == "running"


@pytest.mark.parametrize(
    "message",
    [
        f"failed to start shim: mkdir /run/moby/{'0a' * 32}: file exists: unknown",
        f"mkdir /run/moby/{'0a' * 32}: file exists",
        "id already in use",
    ],
)
def test_a_container_that_never_ran_and_cannot_start_any_more_is_made_anew(
    box: Box, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    engine, refused = box.reconciler.engine, []
    call = engine._call  # type: ignore[attr-defined]

    def refuse_the_first(method: str, path: str, **args: object) -> object:
        if path.endswith("/start") and path.split("/")[2] in (refused[:1] or [path.split("/")[2]]):
            refused.append(path.split("/")[2])
            raise EngineError(message, status=500, retryable=True)
        return call(method, path, **args)

    monkeypatch.setattr(engine, "_call", refuse_the_first)
    assert box.errors(WEB) == []
    web = box.get("web")
    assert (web.status, len(refused)) == ("running", 1)
    assert web.id != refused[0]
    assert box.names() == ["web"]
    assert str(box.apply()[0]) == "nothing to do"


@pytest.mark.long
def test_a_killed_containerd_costs_no_container(agent: Agent, mortal: PrivateDockerd) -> None:
    """The engine starts it again; the containers' own processes go on."""
    agent.commit(LAN + WEB + JOB)
    agent.start()
    wait_for(lambda: settled(agent))
    before, pid = containers(agent), agent.box.get("web").attrs["State"]["Pid"]
    file = mortal.root / "exec" / "containerd" / "containerd.pid"
    old = int(file.read_text())
    os.kill(old, signal.SIGKILL)
    file.unlink(missing_ok=True)  # where process 1 does not reap, the dead one counts as alive
    wait_for(lambda: file.exists() and int(file.read_text() or old) != old, 30)
    agent.commit((LAN + WEB + JOB).replace("option gate '1'", "option gate '1'\n\toption memory '70m'"))
    wait_for(lambda: agent.box.get("web").attrs["HostConfig"]["Memory"] == 70 << 20, 30)
    wait_settled(agent)
    assert containers(agent) == before
    assert agent.box.get("web").attrs["State"]["Pid"] == pid
