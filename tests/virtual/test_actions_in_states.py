# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests of users in every state of a section: each gets an answer, or a refusal with the next step, and nothing is
lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from agent.convert.requests import ImportRequest
from agent.errors import EngineUnreachableError, UcidockdError
from agent.model.resources import PruneImages
from agent.runtime.requests.agent import RunningAgent
from tests.support.virtual.taps import Fault
from tests.support.virtual.world import World, a_world

SLEEPS = "sleep 1000000"
ALL = {"images": PruneImages.UNUSED, "older_s": 0.0}
# every refusal contains one of these: a command, or advice to wait; an unreachable engine speaks for itself
NEXT_STEPS = ("`ucidockd ", "try again", "`option ", "expected ", "cannot be shown")


def section(command: str, *lines: str) -> str:
    options = (
        "option image 'app:1'",
        "option stop_timeout '0'",
        "option gate '2'",
        "list volume 'data:/data'",
    )
    more = ("option backup_before_update '1'", f"option command '{command}'", *lines)
    lines = (*options, *more)
    return "config volume 'data'\nconfig container 'web'\n" + "".join(f"\t{line}\n" for line in lines)


def crash_loop(world: World) -> None:
    world.engine.failing = {world.container().image_id}
    world.engine.crash("web")
    world.rest(120)


def back_off(world: World) -> None:
    world.plan.fault, world.plan.count, world.plan.changing = Fault.ERROR_500, 10_000, True
    world.declare(section("sleep 2000000"))
    world.plan.clear()


def waiting(world: World) -> None:
    world.declare(section(SLEEPS, f"list wait_for 'device:{world.device}'"))
    world.plug("device", there=False)
    world.rest(90)


def away(world: World, *, new_agent: bool = False) -> None:
    world.stop_engine(live_restore=False)
    if new_agent:
        world.kill_agent()
    world.rest(20)


def just_started(world: World) -> None:
    world.kill_agent()
    world.start_agent()
    world.run(0)


def unreadable_from_the_start(world: World) -> None:
    world.write("config container 'web\n")
    world.kill_agent()
    world.rest(20)


def hidden(world: World, *, image: bool) -> None:
    found = world.container()
    world.plan.hidden = frozenset({"app:1", found.image_id} if image else {"web", found.id})
    world.rest(20)


def removed(world: World) -> None:
    world.engine.remove_container(world.container().id, force=True, volumes=False)
    world.run(0)


def taken_back(world: World) -> None:
    world.renew("web", back=True)
    world.rest(40)


# each one after an update of `web`, so that there is an earlier image
STATES: dict[str, Callable[[World], object]] = {
    "as declared": lambda world: None,
    "crash loop": crash_loop,
    "back-off": back_off,
    "held": lambda world: world.manual("web", "stop"),
    "waiting": waiting,
    "rolled back": lambda world: world.declare(section("false"), 40),
    "taken back": taken_back,
    "just started": just_started,
    "engine away": away,
    "engine away from the start": lambda world: away(world, new_agent=True),
    "unreadable": lambda world: world.declare("config container 'web\n"),
    "unreadable from the start": unreadable_from_the_start,
    "mistake": lambda world: world.declare(section(SLEEPS, "option memory 'lots'")),
    "disabled": lambda world: world.declare(section(SLEEPS, "option enabled '0'")),
    "section gone": lambda world: world.declare(""),
    "container hidden": lambda world: hidden(world, image=False),
    "image hidden": lambda world: hidden(world, image=True),
    "removed by others": removed,
}


async def exported(agent: RunningAgent) -> str:
    return agent.export_text("run", ["web"])


LOOKS: dict[str, Callable[[RunningAgent], Awaitable[Any]]] = {
    "plan": lambda agent: agent.plan(),
    "diff": lambda agent: agent.diff("web"),
    "describe": lambda agent: agent.describe("web"),
    "export": exported,
    "import": lambda agent: agent.import_text(ImportRequest(run="docker run -d app:2")),
    "prune, shown": lambda agent: agent.prune({**ALL, "dry_run": True}),
}
CHANGES: dict[str, Callable[[RunningAgent], Awaitable[Any]]] = {
    "update": lambda agent: agent.update(["web"]),
    "rollback": lambda agent: agent.rollback("web"),
    "rollback with data": lambda agent: agent.rollback("web", with_data=True),
    "prune": lambda agent: agent.prune(ALL),
    "reconcile": lambda agent: agent.reconcile(),
}


def asked(world: World, call: Coroutine[Any, Any, Any]) -> Any:
    """The answer, or the refusal."""
    task = world.loop.create_task(call)
    for _ in range(120):
        world.run(1)
        if task.done():
            break
    assert task.done(), "no answer within two minutes"
    failure = task.exception()
    assert failure is None or isinstance(failure, UcidockdError), failure
    return task.result() if failure is None else failure


def updated(world: World) -> None:
    world.write(section(SLEEPS))
    world.start_agent()
    world.rest(20)
    world.retag("app:1", gone=False)
    world.renew("web", back=False)
    world.rest(30)


_QUICK = ("back-off", "just started", "removed by others")


@pytest.mark.parametrize(
    "state", [pytest.param(s, marks=() if s in _QUICK else pytest.mark.long) for s in STATES]
)
def test_each_action_is_answered_and_nothing_is_lost(tmp_path: Path, state: str) -> None:
    for number, changing in enumerate((LOOKS, *({name: action} for name, action in CHANGES.items()))):
        folder = tmp_path / str(number)
        folder.mkdir()
        with a_world(folder) as world:
            updated(world)
            image = world.container().image_id
            STATES[state](world)
            for name, action in changing.items():
                assert world.agent is not None
                check(world, name, asked(world, action(world.asked)))
                kept = (*world.engine.images.values(), *world.engine.dangling.values())
                assert image in {found.id for found in kept}, name
                assert "data" in world.engine.volumes, name
            world.engine.failing = set()
            world.write(section(SLEEPS))
            world.heal()
            asked(world, world.asked.reconcile())
            world.rest(60)
            (one,) = world.engine.containers.values()
            assert (one.name, one.state, one.config["Cmd"]) == ("web", "running", SLEEPS.split()), name
            assert world.open_records() == [], name
            assert world.exceptions() == [], name


def check(world: World, name: str, answer: Any) -> None:
    if isinstance(answer, UcidockdError) and not isinstance(answer, EngineUnreachableError):
        assert any(step in str(answer) for step in NEXT_STEPS), (name, str(answer))
    for row in answer.get("containers", []) if isinstance(answer, dict) else []:
        assert row["message"] or row["outcome"] in ("updated", "rolled back", "current"), (name, row)
        if name.startswith("rollback") and row["outcome"] != "waiting":
            assert row["outcome"] == "rolled back", row
            world.rest(5)
            assert "Pinned" in condition_types(world)


def condition_types(world: World) -> set[str]:
    resources = world.snapshot()["resources"]
    (found,) = [r["conditions"] for r in resources if r["key"] == "container:web"]
    return {str(condition["type"]) for condition in found if condition["status"]}


def test_post_start_that_fails_without_a_replacement_is_repeated_and_told(tmp_path: Path) -> None:
    """The container keeps running, and a kill of the agent does not make it forget the hook."""
    with a_world(tmp_path) as world:
        world.engine.exit_codes["join"] = 3
        world.write(section(SLEEPS, "option post_start 'join'"))
        world.start_agent()
        world.rest(60)
        found = world.container()
        run = found.run
        assert "Degraded" in condition_types(world)
        assert "post_start exited with 3: no such thing" in world.plan_text()
        world.kill_agent()
        world.rest(60)
        assert "Degraded" in condition_types(world)
        del world.engine.exit_codes["join"]
        world.rest(300)
        assert "Degraded" not in condition_types(world)
        assert world.plan_text() == "nothing to do"
        tries = len(world.engine.executed)
        world.rest(300)
        assert (found.run, found.state, len(world.engine.executed)) == (run, "running", tries)


def test_what_was_asked_for_of_a_container_that_is_gone_is_done_to_its_successor(tmp_path: Path) -> None:
    """With its gate, its pin and its data, like a replacement; a plain create has none of these."""
    with a_world(tmp_path) as world:
        updated(world)
        removed(world)
        assert world.agent is not None
        answer = asked(world, world.asked.rollback("web", with_data=True))
        assert [row["outcome"] for row in answer["containers"]] == ["rolled back"]
        world.rest(5)
        assert "Pinned" in condition_types(world)
        assert world.saved.copies == {}  # it was restored


@pytest.mark.parametrize("dry_run", [True, False])
def test_an_image_that_the_engine_cannot_show_stays_and_the_others_go(
    tmp_path: Path, *, dry_run: bool
) -> None:
    with a_world(tmp_path) as world:
        updated(world)
        hidden(world, image=True)
        assert world.asked is not None and world.asked._pruning is not None
        with world.asked._pruning._lock if dry_run else nullcontext():  # a preview does not wait for the lock
            answer = asked(world, world.asked.prune({**ALL, "dry_run": dry_run}))
        assert [row["names"] for row in answer["going"]] == [["app:2"]]
        assert world.container().image_id in {row["id"] for row in answer["kept"]}
