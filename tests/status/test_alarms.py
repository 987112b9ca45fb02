# SPDX-License-Identifier: GPL-2.0-or-later
"""What of the status board becomes a notice, and when."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Reason
from agent.model.notices import Event, News
from agent.status.alarms import QUIET_S, START_S, Alarms
from agent.status.board import StatusBoard
from agent.status.conditions import ConditionType

KEY = "container:web"
START = 1000.0
LATER = START + START_S + 1


class Scene:
    """A board with one container that is well, and alarms that follow it; `at` is the time of both clocks."""

    def __init__(self, told: dict[str, list[str]] | None = None, *, well: bool = True) -> None:
        self.at = START
        self.alarms = Alarms(START, told)
        self.board = StatusBoard(lambda: self.at)
        self.board.ensure(KEY, "web")
        if well:
            self.well()

    def well(self) -> None:
        self.set(ConditionType.SYNCED, "InSync", status=True)
        self.set(ConditionType.RUNNING, "Running", status=True)

    def set(self, condition: ConditionType, reason: Reason, *, status: bool, key: str = KEY) -> None:
        self.board.set(key, condition, status=status, reason=reason, message=f"because {reason}")
        self.see(key)

    def clear(self, condition: ConditionType) -> None:
        self.board.clear(KEY, condition)
        self.see(KEY)

    def see(self, key: str) -> None:
        found = self.board.resource(key)
        assert found is not None
        self.alarms.see(found, self.at)

    def crash(self) -> None:
        self.set(ConditionType.RUNNING, "CrashLoop", status=False)

    def wait(self, seconds: float) -> list[News]:
        """What is told meanwhile; asked for only when it says that there may be something."""
        end, found = self.at + seconds, self.alarms.due(self.at)
        while (at := self.alarms.next_at(self.at)) is not None and at <= end:
            self.at = max(at, self.at + 0.001)
            found += self.alarms.due(self.at)
        self.at = end
        return [*found, *self.alarms.due(self.at)]

    def events(self, seconds: float) -> list[str]:
        return [news.event.value for news in self.wait(seconds)]


def started(told: dict[str, list[str]] | None = None) -> Scene:
    scene = Scene(told)
    assert scene.wait(START_S + 1) == []
    return scene


def test_a_change_for_the_worse_is_told_once_and_its_end_too() -> None:
    scene = started()
    scene.crash()
    (news,) = scene.wait(5)
    assert (news.event, news.key, news.reason, news.title) == (
        Event.CRASHLOOP,
        KEY,
        "CrashLoop",
        "web: Keeps crashing",
    )
    assert news.message == "because CrashLoop"
    assert scene.events(1000) == []
    scene.well()
    assert scene.events(QUIET_S - 1) == []
    (over,) = scene.wait(2)
    assert (over.event, over.section, over.message) == (Event.RECOVERED, "web", "no longer: Keeps crashing")


def test_what_comes_and_goes_is_one_notice() -> None:
    scene = started()
    found = []
    for _ in range(30):
        scene.crash()
        found += scene.events(1)
        scene.well()
        found += scene.events(10)
    assert found == ["crashloop"]
    assert scene.events(QUIET_S) == ["recovered"]


def test_what_is_over_within_a_moment_is_not_told() -> None:
    scene = started()
    scene.set(ConditionType.DEGRADED, "Failed", status=True)
    assert scene.events(1) == []
    scene.clear(ConditionType.DEGRADED)
    assert scene.events(1000) == []


def test_what_was_so_at_the_first_start_is_known_already() -> None:
    scene = Scene(well=False)
    scene.set(ConditionType.SYNCED, "InSync", status=True)
    scene.crash()
    assert scene.events(1000) == []
    scene.well()
    assert scene.events(1000) == []
    scene.crash()
    assert scene.events(10) == ["crashloop"]


def test_what_breaks_right_after_the_first_start_is_told() -> None:
    scene = Scene()
    scene.crash()
    assert scene.events(100) == ["crashloop"]


def test_what_changed_while_the_agent_was_away_is_told() -> None:
    """And what was told before is not told again, however late the engine comes up."""
    before = started()
    before.crash()
    before.wait(5)
    memory = before.alarms.memory()
    assert memory == {KEY: ["crashloop"]}

    scene = Scene(memory, well=False)
    assert scene.events(600) == []  # nothing is known of it yet
    scene.set(ConditionType.SYNCED, "InSync", status=True)
    scene.crash()
    assert scene.events(600) == []

    scene = Scene(memory)
    assert scene.events(600) == ["recovered"]

    scene = Scene({"container:other": ["crashloop"], "agent:disk": ["diskfull"], **memory})
    scene.crash()
    scene.alarms.keep({KEY}, scene.at)  # a section was removed, and there is space again
    assert scene.events(600) == ["recovered"]

    scene = Scene({})
    scene.crash()
    assert scene.events(START_S - 1) == []
    assert scene.events(5) == ["crashloop"]


def test_an_engine_that_is_away_says_nothing_of_its_containers() -> None:
    scene = started()
    scene.crash()
    assert scene.events(5) == ["crashloop"]
    scene.set(ConditionType.RUNNING, "Unknown", status=False)
    assert scene.events(1000) == []
    scene.crash()
    assert scene.events(1000) == []


def test_the_engine_is_told_of_when_it_is_away_for_long() -> None:
    scene = started()
    scene.wait(200)
    scene.alarms.see_agent(
        {"engine": {"reachable": False, "reason": "EngineUnreachable", "error": "gone"}}, scene.at
    )
    assert scene.events(20) == []  # a restart
    assert scene.events(20) == ["daemon"]
    scene.alarms.see_agent({"engine": {"reachable": True}}, scene.at)
    assert scene.events(100) == ["recovered"]


def test_the_more_telling_event_stands_for_the_general_one() -> None:
    scene = started()
    scene.set(ConditionType.DEGRADED, "RolledBack", status=True)
    scene.set(ConditionType.SYNCED, "RolledBack", status=False)
    assert scene.events(10) == ["rolledback"]
    scene = started()
    scene.set(ConditionType.SYNCED, "BackOff", status=False)
    assert scene.events(10) == ["degraded"]
    scene.set(ConditionType.HEALTHY, "Unhealthy", status=False)
    assert scene.events(10) == ["unhealthy"]


def test_waiting_and_little_space() -> None:
    scene = started()
    scene.set(ConditionType.WAITING, "Missing", status=True)
    assert scene.events(10) == ["waiting"]
    scene.clear(ConditionType.WAITING)
    assert scene.events(1000) == []
    scene.board.ensure("agent:disk")
    scene.set(ConditionType.DISK_LOW, "NoSpace", status=True, key="agent:disk")
    assert scene.events(10) == ["diskfull"]
    scene.alarms.gone("agent:disk", scene.at)
    assert scene.events(100) == ["recovered"]


def test_a_section_that_is_gone_has_not_recovered() -> None:
    scene = started()
    scene.crash()
    scene.wait(5)
    scene.alarms.gone(KEY, scene.at)
    assert scene.events(1000) == []
    assert scene.alarms.memory() == {}


def test_notices_about_notices_there_are_none() -> None:
    scene = started()
    scene.board.ensure("notify:phone")
    scene.set(ConditionType.DELIVERED, "NotSent", status=False, key="notify:phone")
    assert scene.events(1000) == []


STEPS = st.lists(
    st.tuples(st.sampled_from(["crash", "well", "unhealthy", "failed", "unknown"]), st.floats(0, 200)),
    max_size=30,
)


@given(STEPS)
def test_whatever_happens_what_was_told_is_over_in_the_end(
    steps: list[tuple[str, Any]],
) -> None:
    scene = started()
    open_: set[str] = set()

    def wait(seconds: float) -> None:
        for news in scene.wait(seconds):
            if news.event is Event.RECOVERED:
                assert open_
                open_.clear()
            else:
                open_.add(news.event.value)

    for step, seconds in [*steps, ("well", 1000.0)]:
        if step == "unhealthy":
            scene.set(ConditionType.HEALTHY, "Unhealthy", status=False)
        elif step == "failed":
            scene.set(ConditionType.SYNCED, "BackOff", status=False)
        elif step == "unknown":
            scene.set(ConditionType.RUNNING, "Unknown", status=False)
        elif step == "crash":
            scene.crash()
        else:
            scene.clear(ConditionType.HEALTHY)
            scene.well()
        wait(seconds)
    assert not open_
    assert scene.alarms.memory() == {}
