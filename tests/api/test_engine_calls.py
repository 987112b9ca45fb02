# SPDX-License-Identifier: GPL-2.0-or-later
"""Every row of the table of engine calls does the same over HTTP and over ubus, on the real engine too."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from agent.api.engine_calls import BUS_CALLS, ENGINE_CALLS, EngineCall, ReplyKind
from agent.api.problems import checked_id
from tests.api.conftest import Containers
from tests.support.agent_process import wait_for
from tests.support.controller import Controller, serving
from tests.support.docker_bus import docker_on
from tests.support.dockerd import PrivateDockerd
from tests.support.scripted_engine import ScriptedEngine, answer

KILLS = {
    "HUP": False,
    "sighup": False,
    "SIGUSR1": False,
    "1": False,
    "28": False,
    "CONT": False,
    "WINCH": False,
    "CHLD": False,
    "17": False,
    "URG": False,
    "": True,
    "TERM": True,
    "9": True,
    "15": True,
    "SIGKILL": True,
    "STOP": True,
    "99": True,
    "9" * 5000: True,
}
KILL = BUS_CALLS["docker.container"]["kill"]
MANUAL = {"start", "stop", "restart", "kill", "pause", "unpause", "rename", "update", "remove"}
EXEC = "e" * 64
ANSWERS = {
    "done": b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
    "refused": b"HTTP/1.1 409 Conflict\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
    "broken off": b"",
}


@pytest.mark.parametrize("signal", KILLS)
def test_a_signal_that_does_not_stop_the_container_holds_nothing(signal: str) -> None:
    held = KILL.action([("signal", signal), ("signal", "HUP")])
    assert held == ("kill" if KILLS[signal] else "")


def test_the_manual_actions_are_these() -> None:
    assert {(call.object, call.method) for call in ENGINE_CALLS if call.manual} == {
        ("docker.container", method) for method in MANUAL
    }
    assert all(call.action([]) == call.method for call in ENGINE_CALLS if call.manual)


def test_one_method_has_one_right() -> None:
    rights: dict[tuple[str, str], set[str]] = {}
    for call in ENGINE_CALLS:
        rights.setdefault((call.object, call.method), set()).add(call.need)
    assert {name: needs for name, needs in rights.items() if len(needs) > 1} == {}


def rows() -> list[EngineCall]:
    """Those of both entry points; without archives, and logs, which ubus decodes and so asks for the terminal first."""
    published = [call for calls in BUS_CALLS.values() for call in calls.values()]
    return [call for call in published if not call.takes_tar and call.output is not ReplyKind.LOGS]


def example(call: EngineCall) -> tuple[str, dict[str, str]]:
    """A target and a query for the call."""
    target = EXEC if call.object == "docker.exec" else checked_id("web")
    return target, {"remote": "https://h/x.git"} if call.method == "build" else {}


@pytest.mark.parametrize("outcome", ANSWERS)
async def test_both_entry_points_ask_the_engine_and_tell_the_agent_the_same(
    outcome: str, tmp_path: Path
) -> None:
    """Path, query and manual actions of every row, also when the engine refuses or disappears."""
    engine = ScriptedEngine(tmp_path / "engine.sock", answer(ANSWERS[outcome]))
    try:
        with serving(tmp_path, engine.url) as http:
            async with docker_on(tmp_path / "ubus.sock", engine.url) as bus:
                for call in rows():
                    queries = [{}, {"signal": "HUP"}, {"signal": "9"}] if call is KILL else [{}]
                    for more in queries:
                        assert await by_http(http, engine, call, more) == await by_ubus(
                            bus, engine, call, more
                        ), f"{call.verb} {call.path} {more}"
    finally:
        engine.close()


Asked = tuple[list[str], list[str]]


async def by_http(http: Controller, engine: ScriptedEngine, call: EngineCall, more: dict[str, str]) -> Asked:
    target, query = example(call)
    engine.heads.clear()
    http.agent.manual_actions.clear()
    path = re.sub(r"\{\w+\}", target, call.path)
    http.client.request(call.verb, f"/docker{path}", params=query | more)
    return lines(engine, call), http.agent.manual_actions[:]


async def by_ubus(bus: Any, engine: ScriptedEngine, call: EngineCall, more: dict[str, str]) -> Asked:
    target, query = example(call)
    engine.heads.clear()
    bus.agent.told.clear()
    args: dict[str, Any] = {"query": query | more} if "query" in str(call.args).split() else {}
    for name in ("id", "name"):
        if name in str(call.args).split():
            args[name] = target
    await bus.call(f"{call.object}.{call.method}", args)
    told: list[str] = []
    for container, *action in bus.agent.told:
        assert container == target
        told.append(action[0] if action else f"{told[-1]} failed")
    return lines(engine, call), told


def lines(engine: ScriptedEngine, call: EngineCall) -> list[str]:
    """What the engine was asked for, without the query where a call on ubus is answered once."""
    found = [head.split(b" HTTP/")[0].decode() for head in engine.heads]
    return [line.split("?")[0] if call.bus_query else line for line in found]


async def test_each_door_tells_the_agent_the_same(
    controller: Controller, engine: PrivateDockerd, containers: Containers, tmp_path: Path
) -> None:
    # another one for each door: a signal that comes before the shell has taken over ends a container that just started
    made, other = (containers.run("trap : HUP; echo ready; while :; do sleep 1; done") for _ in range(2))
    for each in (made, other):
        wait_for(lambda each=each: b"ready" in containers.client.containers.get(each).logs())  # type: ignore[misc]
    asked = [
        ("kill", {"signal": "HUP"}, None),
        ("update", {}, {"Memory": 64 << 20, "MemorySwap": 64 << 20}),
        ("pause", {}, None),
        ("unpause", {}, None),
        ("kill", {"signal": "9"}, None),
        ("start", {}, None),
    ]
    controller.agent.manual_actions.clear()
    for method, query, body in asked:
        more = {} if body is None else {"json": body}
        answer = controller.client.post(f"/docker/containers/{made}/{method}", params=query, **more)
        assert answer.status_code < 300, answer.text
    async with docker_on(tmp_path / "ubus.sock", engine.host) as bus:
        for method, query, body in asked:
            args = {"id": other, **({"query": query} if query else {}), **({"body": body} if body else {})}
            given = await bus.call(f"docker.container.{method}", args)
            assert given["code"] < 300, (method, given)
        told = [action for _, action in bus.agent.told]
    assert controller.agent.manual_actions == told == ["update", "pause", "unpause", "kill", "start"]


async def test_a_quiet_signal_that_the_container_is_stopped_with_stops_it_by_hand(
    controller: Controller, engine: PrivateDockerd, containers: Containers, tmp_path: Path
) -> None:
    """httpd's image says WINCH, which other programs do not even notice."""
    script = ["sh", "-c", "trap 'exit 0' WINCH; while :; do sleep 0.1; done"]
    made = [containers.run(script, stop_signal=name) for name in ("SIGWINCH", "28")]
    controller.agent.manual_actions.clear()
    for container in made:
        answer = controller.client.post(f"/docker/containers/{container}/kill", params={"signal": "winch"})
        assert answer.status_code == 204, answer.text
    assert controller.agent.manual_actions == ["kill", "kill"]
    async with docker_on(tmp_path / "ubus.sock", engine.host) as bus:
        other = containers.run(script, stop_signal="SIGWINCH")
        for container in (other, "not-there"):
            await bus.call("docker.container.kill", {"id": container, "query": {"signal": "WINCH"}})
        assert bus.agent.told == [(other, "kill")]
