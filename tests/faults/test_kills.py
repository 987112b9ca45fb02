# SPDX-License-Identifier: GPL-2.0-or-later
"""SIGKILL before and after every call by which the agent changes something, then a new start: one container, the
right one, nothing left over."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent.model.identity import LABEL_SAVED
from agent.model.observed import ASKED_ROLLBACK, ASKED_UPDATE, ASKED_WITH_DATA
from tests.support import failing_agent
from tests.support.agent_process import Agent, running, wait_for
from tests.support.box import Box
from tests.support.dockerd import BUSYBOX, import_busybox
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
LONG_GATE = "'5'"  # a busy machine takes a while to end a program
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
    """From `before` to `after`; `trace` are the calls that change something on the way, in order. `done`: what the agent
    is given time for beside its passes; `check`: what else has to hold in the end."""

    before: str
    after: str
    trace: str
    upset: Callable[[Box], object] = lambda box: None
    done: Callable[[Box], bool] = lambda box: True
    check: Callable[[Box], object] = lambda box: None
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
SWAPPED = " records.put engine.remove_container records.drop"
SWAPPED_SAVED = SWAPPED.replace("records.drop", "data.keep_only records.drop")
# as SWAP, but the new one passes its gate while the old one runs
HANDOVER = (
    "records.put engine.create_container records.change engine.start engine.update engine.stop engine.rename"
    " engine.rename"
)
APP = "app:kill"
UPDATED = (
    WEB.replace("IMAGE", APP).replace("\toption command 'sleep 1000'\n", "")
    + "\toption pull 'never'\n\tlist volume 'data:/data'\n"
)
SAVING = "\nconfig volume 'data'\n" + UPDATED + "\toption backup_before_update '1'\n"
# what killed updates left goes first
SAVED_SWAP = "data.keep_only " + SWAP.replace("engine.stop", "engine.stop data.save records.change")
# its image is not what the name stands for now: made by the name first, then by the id
BACK_SWAP = "data.keep_only " + SWAP.replace(
    "engine.create_container", "engine.create_container engine.remove_container engine.create_container"
)
OLD = 'CMD ["sleep", "1000"]'
NEW = 'CMD ["sh", "-c", "echo new >/data/words; exec sleep 2000"]'
BAD = 'CMD ["sh", "-c", "echo bad >/data/words; exit 3"]'
HOOKS = "\toption pre_stop 'true'\n\toption post_start 'true'\n"
READY = "\toption post_start 'test -e /ready'\n"
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
    "handover": Scenario(
        before=WEB + "\toption strategy 'handover'\n",
        after=WEB.replace("1000", "2000") + "\toption strategy 'handover'\n",
        trace=HANDOVER + SWAPPED,
        expected={"web": "sleep 2000"},
    ),
    "update": Scenario(
        before="\n",
        after=SAVING,
        upset=lambda box: upset_by(box, NEW, ASKED_UPDATE),
        trace=SAVED_SWAP + SWAPPED + " data.keep_only",
        expected={"web": "sh -c 'echo new >/data/words; exec sleep 2000'"},
        check=lambda box: check_words(box, "new", copies=1),
    ),
    "bad update": Scenario(
        before="\n",
        after=SAVING.replace("'0.3'", LONG_GATE),
        upset=lambda box: upset_by(box, BAD, ASKED_UPDATE),
        trace=SAVED_SWAP
        + " engine.remove_container engine.rename data.lend engine.update engine.start records.drop records.change"
        + " data.keep_only",
        expected={"web": "sleep 1000"},
        check=lambda box: check_words(box, "old", copies=0),
    ),
    "taken back": Scenario(
        before="\n",
        after=SAVING,
        upset=lambda box: (upset_by(box, NEW, ASKED_UPDATE), update(box), ask(box, ASKED_ROLLBACK)),
        trace=BACK_SWAP + SWAPPED_SAVED + " data.keep_only",
        expected={"web": "sleep 1000"},
        check=lambda box: check_words(box, "new", copies=1),
    ),
    "taken back with data": Scenario(
        before="\n",
        after=SAVING,
        upset=lambda box: (upset_by(box, NEW, ASKED_UPDATE), update(box), ask(box, ASKED_WITH_DATA)),
        trace=BACK_SWAP.replace("engine.stop", "engine.stop data.lend") + SWAPPED_SAVED + " data.keep_only",
        expected={"web": "sleep 1000"},
        check=lambda box: check_words(box, "old", copies=0),
    ),
    "clean-up": Scenario(
        before=WEB,
        after="\nconfig agent 'agent'\n\toption prune_images 'dangling'\n\toption prune_older '0'\n" + WEB,
        upset=lambda box: (
            make_app(box, OLD),
            box.client.images.prune(),
            make_app(box, NEW),
            make_app(box, BAD),
        ),
        trace="engine.remove_image engine.remove_image",
        expected={"web": "sleep 1000"},
        done=lambda box: not box.client.api.images(filters={"dangling": True}),
    ),
    "rollback": Scenario(
        before=WEB,
        after=WEB.replace("sleep 1000", "false").replace("'0.3'", LONG_GATE),
        trace=SWAP
        + " engine.remove_container engine.rename engine.update engine.start records.drop records.change",
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
    "post_start again": Scenario(
        before=WEB + READY,
        after=WEB + READY,
        upset=lambda box: box.get("web").exec_run(["touch", "/ready"]),
        trace="engine.execute records.change",
        expected={"web": "sleep 1000"},
        check=lambda box: check_prepared(box),
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
    ("bad update", "engine.start#2", "after"),
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


def make_app(box: Box, command: str) -> None:
    """Another image of that name."""
    import_busybox(str(box.options.docker_host), APP, [command])


def upset_by(box: Box, command: str, asked: str) -> None:
    """What runs is of an image, its data is old, and one with another command is asked for."""
    make_app(box, OLD)
    box.apply(SAVING)
    box.get("web").exec_run(["sh", "-c", "echo old >/data/words"])
    make_app(box, command)
    ask(box, asked)


def ask(box: Box, asked: str) -> None:
    (record,) = (r for r in box.reconciler.records.records() if r.kind == "container")
    box.reconciler.records.change(record.nonce, asked=asked)
    box.reconciler.records.fold()


def update(box: Box) -> None:
    """By an agent of its own: it takes the running loop to save data."""
    box.write(SAVING)
    agent = Agent(box)
    try:
        agent.start()
        wait_for(lambda: settled(agent) and words(box) == "new", 40)
    finally:
        agent.end()
        box.restart_agent()


def words(box: Box) -> str:
    return str(box.get("web").exec_run(["cat", "/data/words"])[1].decode().strip())


def check_words(box: Box, expected: str, *, copies: int) -> None:
    assert words(box) == expected
    saved = [v.name for v in box.client.volumes.list() if LABEL_SAVED in (v.attrs["Labels"] or {})]
    assert len(saved) == copies, saved


def check_prepared(box: Box) -> None:
    assert [r.hook_due for r in box.reconciler.records.records()] == [False]


def settled(agent: Agent) -> bool:
    """A pass looked after the last operation and found nothing to do, or only what was rolled back."""
    status = agent.status()
    resources = status.get("resources", [])
    conditions = [c for r in resources for c in r["conditions"] if c["type"] == "Synced"]
    return "last_pass" in status.get("agent", {}) and all(
        c["reason"] in {"InSync", "RolledBack"} for c in conditions
    )


def is_done(box: Box, agent: Agent, scenario: Scenario) -> bool:
    runs = all(running(box, name) for name in scenario.expected)
    return runs and settled(agent) and scenario.done(box)


def check_after_a_new_start(box: Box, agent: Agent, oracle: Oracle, scenario: Scenario) -> None:
    agent.start()
    # "rolled back" is said before the pass that starts what a kill kept from running
    try:
        wait_for(lambda: is_done(box, agent, scenario), 90)
    except AssertionError as exc:
        raise AssertionError(agent.command("status").stdout + agent.log.read_text()) from exc
    agent.end()
    box.restart_agent()
    assert str(box.apply()[0]) == "nothing to do"
    scenario.check(box)
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
    ("name", "first", "second"),
    [
        ("swap", "engine.start#1:after", "engine.remove_container#1:after"),
        pytest.param("swap", "engine.start#1:after", "engine.rename#1:before", marks=pytest.mark.long),
        pytest.param("swap", "engine.rename#1:after", "engine.rename#1:after", marks=pytest.mark.long),
        pytest.param("swap", "engine.rename#2:after", "records.drop#1:before", marks=pytest.mark.long),
        pytest.param(
            "swap", "records.put#2:after", "engine.remove_container#1:after", marks=pytest.mark.long
        ),
        *(
            pytest.param(
                "taken back with data",
                "engine.start#1:after",
                f"data.take_back#1:{side}",
                marks=pytest.mark.long,
            )
            for side in ("before", "after")
        ),
    ],
)
def test_killed_again_while_it_mends_the_first_kill(
    box: Box, oracle: Oracle, failing: Agent, agent: Agent, name: str, first: str, second: str
) -> None:
    scenario = SCENARIOS[name]
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
    wait_for(lambda: trace.exists() and len(trace.read_text().split()) >= len(scenario.points()), 60)
    failing.end()
    # works run side by side, so only the calls count, not their order across works; what was seen meanwhile of how
    # containers ended may be written down, too
    seen, listed = Counter(trace.read_text().split()), Counter(scenario.points())
    assert not listed - seen, trace.read_text()
    assert {call.partition("#")[0] for call in seen - listed} <= {"records.fold", "records.change"}


@pytest.mark.parametrize("side", ["before", pytest.param("after", marks=pytest.mark.long)])
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
    listed.add("data.take_back")  # in those that are killed twice
    for prefix, port in failing_agent.PORTS.items():
        missing = {f"{prefix}.{name}" for name in failing_agent.changing(port)} - listed
        # a pull in mid-air leaves nothing of ours; old build cache is made by no engine of these tests
        other = {"engine.pull", "engine.prune_build_cache", "records.fold"}
        assert missing <= other, "a new call needs a scenario in which the agent is killed at it"
