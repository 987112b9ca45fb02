# SPDX-License-Identifier: GPL-2.0-or-later
"""What is between the agent and the engine: the socket's file, answers that break off, events that end, lie or come in
heaps, and an agent that is stopped for a while."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from agent.engine.client import DockerEngine
from agent.errors import EngineUnreachableError
from tests.support.agent_process import Agent, running, wait_for
from tests.support.box import Box
from tests.support.dockerd import PrivateDockerd
from tests.support.fault_proxy import Call, Fault, FaultProxy

WEB = """
config container 'web'
	option image 'IMAGE'
	option command 'sleep 1000'
	option stop_timeout '0'
	option gate '0.1'
	option memory '64m'

config agent
	option resync '3600'
"""
MORE = WEB.replace("64m", "65m")


def limit(box: Box) -> int:
    """Memory of the container, in MiB."""
    return int(box.get("web").attrs["HostConfig"]["Memory"]) >> 20


def processor_s(pid: int) -> float:
    """Processor time that a process took."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def agent_through(box: Box, path: Path) -> Iterator[Agent]:
    """An agent whose engine is at that socket."""
    box.options = replace(box.options, docker_host=f"unix://{path}")
    agent = Agent(box)
    try:
        yield agent
    finally:
        agent.close()


def settled(agent: Agent) -> bool:
    facts = agent.status().get("agent", {})
    return bool(facts.get("generation")) and facts["generation"] == facts["desired_generation"]


# the file of the socket


def nothing(path: Path) -> None:
    """It is gone."""


def plain_file(path: Path) -> None:
    path.write_text("no socket")


def directory(path: Path) -> None:
    path.mkdir()


def stale_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))


DOORS: dict[str, Callable[[Path], None]] = {
    "gone": nothing,
    "a plain file": plain_file,
    "a directory": directory,
    "a socket that nobody listens on": stale_socket,
}


@pytest.mark.parametrize(
    "name", [name if name == "a plain file" else pytest.param(name, marks=pytest.mark.long) for name in DOORS]
)
def test_a_socket_that_leads_nowhere_is_said_without_a_spin_and_another_one_is_found(
    box: Box, engine: PrivateDockerd, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "door.sock"
    with agent_through(box, path) as agent:
        with FaultProxy(path, engine.socket) as door:
            agent.commit(WEB)
            agent.start()
            wait_for(lambda: settled(agent), 40)
            before = box.get("web").id
            path.rename(tmp_path / "away.sock")
            DOORS[name](path)
            door.close_streams()
        wait_for(lambda: agent.status()["agent"]["engine"].get("reason") == "EngineUnreachable")
        agent.commit(MORE)
        assert agent.process is not None
        used, until = processor_s(agent.process.pid), time.monotonic() + 2
        wait_for(lambda: time.monotonic() > until)
        assert processor_s(agent.process.pid) - used < 1
        if path.is_dir():
            path.rmdir()
        path.unlink(missing_ok=True)
        with FaultProxy(path, engine.socket):
            wait_for(lambda: limit(box) == 65)
            wait_for(lambda: settled(agent), 40)
            assert agent.status()["agent"]["engine"]["reachable"] is True
            assert box.get("web").id == before


# answers


@pytest.fixture
def proxy(engine: PrivateDockerd, tmp_path: Path) -> Iterator[FaultProxy]:
    with FaultProxy(tmp_path / "proxy.sock", engine.socket) as made:
        yield made


@pytest.fixture
def agent(box: Box, proxy: FaultProxy, tmp_path: Path) -> Iterator[Agent]:
    with agent_through(box, tmp_path / "proxy.sock") as made:
        yield made


def test_an_answer_that_breaks_off_at_any_byte_is_no_answer(box: Box, proxy: FaultProxy) -> None:
    box.apply(WEB)
    through = DockerEngine(proxy.host)
    instance = box.reconciler.records.instance  # type: ignore[attr-defined]
    whole = len(box.client.api._get(box.client.api._url("/containers/json?all=1")).content)
    assert whole > 500
    # from the end: the list's length changes with the words for its time
    for keep in (0, *range(-8, -whole, -37)):
        proxy.reset(lambda call: Fault.CUT_REPLY if "/containers/json" in call.path else None)
        proxy.keep = keep
        with pytest.raises(EngineUnreachableError):
            through.list_containers(instance)
    proxy.reset()
    assert [c.name for c in through.list_containers(instance)] == ["web"]


# events


def is_events(call: Call) -> bool:
    return "/events" in call.path


def lists(proxy: FaultProxy) -> int:
    return sum("/containers/json" in call.path for call in proxy.calls)


def test_what_happened_while_the_events_were_cut_is_seen_when_they_come_again(
    agent: Agent, box: Box, proxy: FaultProxy
) -> None:
    proxy.rule = lambda call: Fault.FORGED if is_events(call) else None
    agent.commit(WEB)
    agent.start()
    wait_for(lambda: settled(agent), 40)
    wait_for(lambda: any(map(is_events, proxy.calls)))
    box.get("web").kill()
    proxy.rule = lambda call: None
    proxy.release.set()
    wait_for(lambda: running(box, "web"))


def event(action: str, container: str, **more: object) -> bytes:
    actor = {"ID": container, "Attributes": {"name": "web", "exitCode": "137"}}
    head = {"Type": "container", "Action": action, "status": action, "id": container, "Actor": actor}
    return json.dumps({**head, "time": 1, "timeNano": 1, **more}).encode() + b"\n"


def test_events_are_hints_only_whatever_they_say_and_however_many_come(
    agent: Agent, box: Box, proxy: FaultProxy
) -> None:
    agent.commit(WEB)
    agent.start()
    wait_for(lambda: settled(agent), 40)
    agent.end()
    web = box.get("web")
    lies = [
        event("destroy", web.id),
        event("die", web.id),
        event("destroy", web.id),
        event("start", web.id, time=0),
        event("die", "f" * 64),
        event("no such action", "no id"),
        b'{"Type": "network", "Action": "destroy", "Actor": {"ID": 5}}\n',
        b"{}\n",
    ]
    proxy.reset(lambda call: Fault.FORGED if is_events(call) else None)
    proxy.forged = b"".join(lies) + event("die", web.id) * 1000
    begun = time.monotonic()
    agent.start()
    wait_for(lambda: any(map(is_events, proxy.calls)))
    wait_for(lambda: settled(agent), 40)
    before = lists(proxy)
    agent.commit(MORE)
    wait_for(lambda: limit(box) == 65)
    assert lists(proxy) > before
    assert lists(proxy) <= 10 * (time.monotonic() - begun + 1)
    assert [call.path.rpartition("/")[2] for call in proxy.calls if call.changes] == ["update"]
    seen = box.get("web")
    assert (seen.id, seen.attrs["State"]["StartedAt"]) == (web.id, web.attrs["State"]["StartedAt"])


# the agent itself


@pytest.mark.long
def test_an_agent_that_was_stopped_for_a_while_looks_again_and_makes_up_for_nothing(
    agent: Agent, box: Box, proxy: FaultProxy
) -> None:
    often = WEB.replace("3600", "1")
    agent.commit(often)
    agent.start()
    wait_for(lambda: settled(agent), 40)
    agent.send(signal.SIGSTOP)
    box.get("web").remove(force=True)
    for number in range(300):  # more than the engine keeps for who does not read
        box.client.api.tag("busybox:test", "other", f"t{number}")
        box.client.api.remove_image(f"other:t{number}")
    agent.commit(often.replace("64m", "65m"))
    until = time.monotonic() + 3  # three resyncs
    wait_for(lambda: time.monotonic() > until)
    proxy.reset()
    begun = time.monotonic()
    agent.send(signal.SIGCONT)
    wait_for(lambda: running(box, "web") and limit(box) == 65)
    wait_for(lambda: settled(agent), 40)
    assert lists(proxy) <= 10 * (time.monotonic() - begun + 1)
    assert [call.path for call in proxy.calls if call.changes and "/create" in call.path] != []
    assert box.names() == ["web"]
