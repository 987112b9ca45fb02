# SPDX-License-Identifier: GPL-2.0-or-later
"""SIGKILL before and after every call by which the agent changes something, then a new start: one container, the
right one, nothing left over."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support import failing_agent
from tests.support.agent_process import Agent, running, wait_for
from tests.support.box import Box
from tests.support.dockerd import BUSYBOX
from tests.support.oracle import Oracle

WEB = """
config container 'web'
	option image 'IMAGE'
	option command 'sleep 1000'
	option stop_timeout '0'
	option gate '0.3'
	option grace '0'
	option restart 'always'
"""
LAN = """
config network 'lan'
	list subnet '10.219.6.0/24'

config network 'dmz'

config volume 'data'
"""
ON_LAN = WEB + "\tlist network 'lan,ip=10.219.6.9'\n\tlist network 'dmz'\n\tlist volume 'data:/data'\n"
REMOVE = "\nconfig agent 'agent'\n\toption remove '1'\n"


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """From `before` to `after`; `trace` are the calls that change something on the way, in order."""

    before: str
    after: str
    trace: str
    upset: Callable[[Box], object] = lambda box: None
    expected: dict[str, str] = field(default_factory=dict)
    networks: frozenset[str] = frozenset()

    def points(self) -> list[str]:
        """Each call by name, with its number among those of that name."""
        names = self.trace.split()
        return [f"{name}#{names[: i + 1].count(name)}" for i, name in enumerate(names)]


SWAP = (
    "records.put engine.create_container records.change engine.update engine.stop engine.rename engine.rename"
)
SWAP += " engine.start"
HOOKS = "\toption pre_stop 'true'\n\toption post_start 'true'\n"
HOOKED_SWAP = SWAP.replace("engine.stop", "engine.execute engine.stop") + " engine.execute"
SCENARIOS = {
    "swap": Scenario(
        before=WEB,
        after=WEB.replace("1000", "2000"),
        trace=SWAP + " records.put engine.remove_container records.drop",
        expected={"web": "sleep 2000"},
    ),
    "hooks": Scenario(
        before=WEB + HOOKS,
        after=WEB.replace("1000", "2000") + HOOKS,
        trace=HOOKED_SWAP + " records.put engine.remove_container records.drop",
        expected={"web": "sleep 2000"},
    ),
    "rollback": Scenario(
        before=WEB,
        after=WEB.replace("sleep 1000", "false"),
        trace=SWAP
        + " engine.remove_container engine.rename engine.update records.drop engine.start records.change",
        expected={"web": "sleep 1000"},
    ),
    "first apply": Scenario(
        before="\n",
        after=LAN + ON_LAN,
        trace="records.put engine.create_network records.change records.put engine.create_network records.change"
        " records.put engine.create_volume records.change records.put engine.create_container records.change"
        " engine.connect engine.start",
        expected={"web": "sleep 1000"},
        networks=frozenset({"lan", "dmz"}),
    ),
    "network replaced": Scenario(
        before=LAN + ON_LAN,
        after=LAN.replace("6.0/24'", "6.0/24'\n\tlist label 'a=b'") + ON_LAN,
        trace="engine.disconnect engine.remove_network records.put engine.create_network"
        " records.change engine.connect",
        expected={"web": "sleep 1000"},
        networks=frozenset({"lan", "dmz"}),
    ),
    "adoption": Scenario(
        before="\n",
        after=WEB + "\toption adopt '1'\n",
        upset=lambda box: box.client.containers.run(BUSYBOX, ["sleep", "500"], name="web", detach=True),
        trace="records.put " + SWAP + " records.put engine.remove_container records.drop",
        expected={"web": "sleep 1000"},
    ),
    "paused": Scenario(
        before=WEB,
        after=WEB,
        upset=lambda box: box.get("web").pause(),
        trace="engine.unpause",
        expected={"web": "sleep 1000"},
    ),
    "section gone": Scenario(
        before=WEB,
        after="\n",
        trace="engine.update engine.stop records.change engine.remove_container records.drop",
    ),
    "grace over": Scenario(
        before=LAN + REMOVE,
        after=REMOVE,
        upset=lambda box: retire_long_ago(box),
        trace="engine.remove_network records.drop engine.remove_network records.drop engine.remove_volume records.drop",
    ),
}
SAMPLE = {
    ("swap", "engine.create_container#1", "after"),
    ("swap", "engine.rename#1", "after"),
    ("rollback", "engine.rename#3", "before"),
    ("network replaced", "engine.remove_network#1", "after"),
}


def cases() -> Iterator[Any]:
    for name, scenario in SCENARIOS.items():
        for point in scenario.points():
            for side in ("before", "after"):
                marks = () if (name, point, side) in SAMPLE else (pytest.mark.long,)
                yield pytest.param(name, f"{point}:{side}", marks=marks, id=f"{name}-{point}-{side}")


@pytest.fixture
def oracle(box: Box) -> Oracle:
    return Oracle(box)


@pytest.fixture
def failing(box: Box) -> Iterator[Agent]:
    agent = Agent(box, module="tests.support.failing_agent")
    yield agent
    agent.close()


@pytest.fixture
def agent(box: Box) -> Iterator[Agent]:
    agent = Agent(box)
    yield agent
    agent.close()


def prepare(box: Box, scenario: Scenario) -> None:
    box.apply(scenario.before)
    scenario.upset(box)
    box.write(scenario.after)


def retire_long_ago(box: Box) -> None:
    now = box.reconciler.wall()
    box.reconciler.wall = lambda: now - 1000
    box.apply(REMOVE)


def settled(agent: Agent) -> bool:
    """A pass looked after the last operation and found nothing to do, or only what was rolled back."""
    status = agent.status()
    resources = status.get("resources", [])
    conditions = [c for r in resources for c in r["conditions"] if c["type"] == "Synced"]
    return "last_pass" in status.get("agent", {}) and all(
        c["reason"] in {"InSync", "RolledBack"} for c in conditions
    )


def check_after_a_new_start(box: Box, agent: Agent, oracle: Oracle, scenario: Scenario) -> None:
    agent.start()
    # "rolled back" is said before the pass that starts what a kill kept from running
    try:
        wait_for(lambda: settled(agent) and all(running(box, name) for name in scenario.expected), 40)
    except AssertionError as exc:
        raise AssertionError(agent.command("status").stdout + agent.log.read_text()) from exc
    agent.end()
    box.restart_agent()
    assert str(box.apply()[0]) == "nothing to do"
    oracle.check(scenario.expected, networks=set(scenario.networks))


@pytest.mark.parametrize(("name", "point"), list(cases()))
def test_killed_at_any_step_it_goes_on_and_leaves_nothing_over(
    box: Box, oracle: Oracle, failing: Agent, agent: Agent, name: str, point: str
) -> None:
    scenario = SCENARIOS[name]
    prepare(box, scenario)
    failing.spawn(UCIDOCKD_FAILPOINT=point)
    failing.wait_killed()
    check_after_a_new_start(box, agent, oracle, scenario)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("engine.start#1:after", "engine.remove_container#1:after"),
        pytest.param("engine.start#1:after", "engine.rename#1:before", marks=pytest.mark.long),
        pytest.param("engine.rename#1:after", "engine.rename#1:after", marks=pytest.mark.long),
        pytest.param("engine.rename#2:after", "records.drop#1:before", marks=pytest.mark.long),
        pytest.param("records.put#2:after", "engine.remove_container#1:after", marks=pytest.mark.long),
    ],
)
def test_killed_again_while_it_mends_the_first_kill(
    box: Box, oracle: Oracle, failing: Agent, agent: Agent, first: str, second: str
) -> None:
    scenario = SCENARIOS["swap"]
    prepare(box, scenario)
    for point in (first, second):
        failing.spawn(UCIDOCKD_FAILPOINT=point)
        failing.wait_killed()
    check_after_a_new_start(box, agent, oracle, scenario)


@pytest.mark.long
@pytest.mark.parametrize("name", SCENARIOS)
def test_the_listed_steps_are_those_that_it_takes(
    box: Box, failing: Agent, tmp_path: Path, name: str
) -> None:
    scenario, trace = SCENARIOS[name], tmp_path / "trace"
    prepare(box, scenario)
    failing.start(UCIDOCKD_TRACE=str(trace))
    wait_for(lambda: trace.exists() and len(trace.read_text().split()) >= len(scenario.points()))
    failing.end()
    # works run side by side, so only the calls count, not their order across works
    assert sorted(trace.read_text().split()) == sorted([*scenario.points(), "records.fold#1"])


@pytest.mark.parametrize("side", ["before", "after"])
def test_killed_at_its_end_it_has_lost_nothing(
    box: Box, oracle: Oracle, failing: Agent, agent: Agent, side: str
) -> None:
    scenario = SCENARIOS["first apply"]
    prepare(box, scenario)
    failing.start(UCIDOCKD_FAILPOINT=f"records.fold#1:{side}")
    wait_for(lambda: settled(failing) and running(box, "web"), 40)
    failing.send(signal.SIGTERM)
    failing.wait_killed()
    assert (b"\n+" in (box.options.state_dir / "state.json").read_bytes()) == (side == "before")
    check_after_a_new_start(box, agent, oracle, scenario)


def test_every_call_that_changes_something_is_in_a_scenario() -> None:
    listed = {name for scenario in SCENARIOS.values() for name in scenario.trace.split()}
    for prefix, port in failing_agent.PORTS.items():
        missing = {f"{prefix}.{name}" for name in failing_agent.changing(port)} - listed
        images = {"engine.pull", "engine.remove_image", "engine.prune_build_cache"}
        assert missing <= {*images, "records.fold"}, (
            "a new call needs a scenario in which the agent is killed at it"
        )
