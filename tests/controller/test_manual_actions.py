# SPDX-License-Identifier: GPL-2.0-or-later
"""Which requests hold a container: the same by every door, on the real engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.controller.manual_actions import manual_action
from agent.controller.routes.engine_routes import ROUTES
from agent.controller.ubus.calls import CALLS
from tests.controller.conftest import Containers
from tests.support.controller import Controller
from tests.support.docker_bus import docker_on
from tests.support.dockerd import PrivateDockerd

KILLS = {
    "HUP": False,
    "sighup": False,
    "SIGUSR1": False,
    "1": False,
    "28": False,
    "CONT": False,
    "": True,
    "TERM": True,
    "9": True,
    "15": True,
    "SIGKILL": True,
    "99": True,
    "9" * 5000: True,
}


@pytest.mark.parametrize("signal", KILLS)
def test_a_signal_that_asks_for_a_reload_holds_nothing(signal: str) -> None:
    held = manual_action("docker.container", "kill", [("signal", signal), ("signal", "HUP")])
    assert held == ("kill" if KILLS[signal] else "")


def test_both_doors_name_the_same_actions() -> None:
    there = {(route.grant.object, route.grant.method) for route in ROUTES if route.is_manual}
    assert there == {
        (name, method) for name, calls in CALLS.items() for method in calls if manual_action(name, method, ())
    }
    assert ("docker.container", "update") in there


async def test_each_door_tells_the_agent_the_same(
    controller: Controller, engine: PrivateDockerd, containers: Containers, tmp_path: Path
) -> None:
    made = containers.run(["sh", "-c", "trap : HUP; while :; do sleep 1; done"])
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
            args = {"id": made, **({"query": query} if query else {}), **({"body": body} if body else {})}
            assert (await bus.call(f"docker.container.{method}", args))["code"] < 300
        told = [action for _, action in bus.agent.told]
    assert controller.agent.manual_actions == told == ["update", "pause", "unpause", "kill", "start"]
