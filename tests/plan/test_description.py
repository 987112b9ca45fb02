# SPDX-License-Identifier: GPL-2.0-or-later
"""What a plan says beyond its operations, in every state; never "nothing to do" beside any of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agent.plan.description import STATES, PlanDescription, describe_plan, text_of
from agent.plan.draft import Missing
from agent.status.conditions import Level
from tests.plan.test_plan_text import ROWS
from tests.support.plans import NOW, World, a_world

DB = "config container 'db'\n\toption image 'postgres'\n"
APP = "config container 'app'\n\toption image 'app'\n\tlist depends_on 'db:healthy'\n"
TOOL = "config container 'tool'\n\toption image 'tool'\n\tlist depends_on 'app'\n"
WEB = "config container 'web'\n\toption image 'nginx'\n"


def seen_of(world: World, **more: dict[str, float] | dict[str, str]) -> PlanDescription:
    """As the reconciler asks."""
    plan = world.plan()
    world.context["assume_met"] = True
    return describe_plan(plan, world.plan(), busy=more.get("busy", {}), retry_in_s=more.get("retry_in_s", {}))  # type: ignore[arg-type]


def text(found: PlanDescription) -> list[str]:
    return text_of(found.plan.operations, found.entries).splitlines()


def test_later_waves_say_what_comes_once_what_is_there() -> None:
    assert text(seen_of(a_world("", DB + APP + TOOL))) == [
        "create         container:db             it does not exist yet",
        "start          container:db             it should be running",
        "then create    container:app            once db is healthy",
        "then create    container:tool           once app is ready",
    ]


def test_a_wave_that_waits_for_more_than_its_dependency_is_no_later_one() -> None:
    world = a_world("", DB + APP)
    world.context["waiting"] = {"container:app": Missing(reason="nothing is mounted on /mnt/a")}
    assert text(seen_of(world))[-1] == "waiting        container:app            nothing is mounted on /mnt/a"
    world = a_world("", DB + APP)
    world.context["waiting"] = {"container:db": Missing(reason="nothing is mounted on /mnt/a")}
    assert [entry.state for entry in seen_of(world).entries] == ["waiting", "waiting"]


CASES: dict[str, tuple[Callable[[World], None], str, Level]] = {
    "waiting": (
        lambda w: w.context.update(waiting={"container:web": Missing(reason="no mount")}),
        "waiting        container:web            no mount",
        Level.WAITING,
    ),
    "held": (
        lambda w: w.context.update(held={"container:web": "stop"}),
        "held           container:web            manual stop; `ucidockd reconcile` undoes it",
        Level.OFF,
    ),
    "retry": (
        lambda w: w.context.update(backoff={"container:web": "no such image"}),
        "retry in 40 s  container:web            no such image",
        Level.ERROR,
    ),
    "in progress": (
        lambda w: w.context.update(busy=frozenset({"container:web"})),
        "in progress    container:web            pulling nginx: 45 %",
        Level.WAITING,
    ),
}


@pytest.mark.parametrize("state", CASES)
def test_every_state_is_told(state: str) -> None:
    change, line, level = CASES[state]
    world = a_world(WEB, WEB.replace("nginx", "caddy"), change)
    busy = {"container:web": "pulling nginx: 45 %"} if state == "in progress" else {}
    found = seen_of(world, busy=busy, retry_in_s={"container:web": 39.2})
    assert text(found) == [line]
    (entry,) = found.entries
    assert (entry.state, entry.level) == (state, level)
    assert found.ok is (level is not Level.ERROR)


def test_a_conflict_is_an_error_that_names_the_way() -> None:
    world = a_world("", WEB)
    world.foreign("web", "sleep")
    found = seen_of(world)
    assert text(found)[0].startswith("conflict       container:web            a container named web exists")
    assert "option adopt" in text(found)[0]
    assert not found.ok


def test_what_is_kept_for_its_grace_period_is_told() -> None:
    world = a_world(WEB, "")
    world.record("web", removed_at=NOW - 20)
    world.see("web", state="exited", exit_code=0)
    (entry,) = seen_of(world).entries
    assert (entry.state, entry.level) == ("removal", Level.OFF)


def test_a_crash_loop_is_told_although_nothing_is_to_be_done() -> None:
    """The engine restarts it: `reconcile` can do nothing, and the container does not run as declared."""
    world = a_world(WEB, WEB)
    world.see("web", state="restarting", last_exit_code=3)
    found = seen_of(world)
    assert text(found) == ["failed         container:web            it ends again and again: exited with 3"]
    assert not found.ok


@pytest.mark.parametrize("state", ["created", "exited"])
@pytest.mark.parametrize(
    ("section", "reason"),
    [
        (WEB, "Created Exited"),
        (WEB + "\toption state 'stopped'\n", "Stopped"),
        (WEB + "\toption enabled '0'\n", "Disabled"),
    ],
)
def test_what_is_to_be_off_is_off_and_not_ended_with_an_exit_code(
    section: str, reason: str, state: str
) -> None:
    world = a_world(WEB, section)
    world.see("web", state=state, last_exit_code=137 if state == "exited" else None)
    (running,) = [f for f in world.plan().findings if f.type == "Running"]
    assert not running.status
    assert running.reason == (reason if " " not in reason else state.capitalize())
    assert ("137" in running.message) == (running.reason == "Exited")


@pytest.mark.parametrize("name", ROWS)
def test_nothing_to_do_is_said_only_where_nothing_is_out_of_sync(name: str) -> None:
    row = ROWS[name]
    world = a_world(row.before, row.after, row.change)
    found = seen_of(world)
    out_of_sync = [f for f in found.plan.findings if f.type == "Synced" and not f.status]
    if out_of_sync:
        assert text(found) != ["nothing to do"]
    assert all(entry.state in STATES for entry in found.entries)


def test_planning_ahead_changes_nothing_of_the_plan() -> None:
    world = a_world("", DB + APP + TOOL)
    first = world.plan()
    seen_of(world)
    world.context.pop("assume_met")
    assert world.plan() == first
