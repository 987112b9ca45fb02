# SPDX-License-Identifier: GPL-2.0-or-later
"""Hooks around a replacement, and the handover: on virtual time, and with a kill of the agent at each step."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.virtual.objects import FakeContainer
from tests.support.virtual.taps import Fault
from tests.support.virtual.world import World, a_world

HEAD = "config container 'web'\n\toption image 'app:1'\n\toption stop_timeout '0'\n\toption gate '2'\n"
HOUR_S = 3600.0


def section(command: str, *lines: str) -> str:
    return HEAD + "".join(f"\t{line}\n" for line in (f"option command '{command}'", *lines))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as made:
        yield made


def begin(world: World, text: str) -> FakeContainer:
    world.write(text)
    world.start_agent()
    world.rest(20)
    return world.container()


def test_a_creation_that_fails_for_now_is_no_rollback(world: World) -> None:
    """The old container was never stopped: nothing was rolled back, and the change is tried again."""
    before = begin(world, section("sleep 1000000"))
    world.plan.fault, world.plan.count = Fault.ERROR_500, 1  # the first call of a swap that changes something
    world.declare(section("sleep 2000000"), 0)
    while "Degraded" not in world.conditions():
        world.rest(0.1)
    assert world.conditions()["Degraded"]["reason"] == "Failed"
    assert (world.container().id, world.container().state) == (before.id, "running")
    world.rest(60)
    assert world.container().id != before.id
    assert "Degraded" not in world.conditions()


def test_a_replacement_waits_while_hold_cmd_says_so_and_not_for_ever(world: World) -> None:
    hold = ("option hold_cmd 'busy'", "option hold_limit '2h'")
    before = begin(world, section("sleep 1000000", *hold)).id
    world.engine.exit_codes["busy"] = 1
    world.declare(section("sleep 2000000", *hold), 120)
    assert (world.container().id, world.container().state) == (before, "running")
    waiting = world.conditions()["Waiting"]
    assert waiting["status"]
    assert "hold_cmd exited with 1: no such thing" in waiting["message"]
    assert world.conditions()["Synced"]["level"] == "waiting"
    asked = len(world.engine.executed)
    world.rest(HOUR_S)
    assert 50 <= len(world.engine.executed) - asked <= 62  # once a minute
    world.kill_agent()  # the limit does not start again
    world.rest(1.2 * HOUR_S)
    assert world.container().id != before


@pytest.mark.parametrize("limit_s", [60, 120, 300])
def test_a_hold_ends_with_its_limit_however_rare_other_passes_are(world: World, limit_s: int) -> None:
    hold = ("option hold_cmd 'busy'", f"option hold_limit '{limit_s // 60}m'")
    rare = "config agent 'agent'\n\toption resync '10m'\n"
    before = begin(world, rare + section("sleep 1000000", *hold)).id
    world.engine.exit_codes["busy"] = 1
    world.declare(rare + section("sleep 2000000", *hold), limit_s - 8)
    assert world.container().id == before
    world.rest(20)  # the replacement itself takes its time
    assert world.container().id != before


def test_a_hold_ends_when_the_command_does(world: World) -> None:
    before = begin(world, section("sleep 1000000", "option hold_cmd 'busy'")).id
    world.engine.exit_codes["busy"] = 1
    world.declare(section("sleep 2000000", "option hold_cmd 'busy'"), 90)
    assert world.container().id == before
    del world.engine.exit_codes["busy"]
    world.rest(90)
    assert world.container().id != before
    assert world.conditions()["Synced"]["status"]
    assert not world.conditions()["Waiting"]["status"]


def test_what_is_between_two_restarts_does_not_hold_its_cure(world: World) -> None:
    """No command can run in a restarting container: that does not count as an objection."""
    lines = ("option hold_cmd 'busy'", "option restart 'always'")
    before = begin(world, section("sleep 1000000", *lines))
    before.config["Cmd"] = ["false"]  # it fails from now on
    world.engine.crash("web")
    world.rest(30)
    assert world.container().state == "restarting"
    world.declare(section("sleep 2000000", *lines), 30)
    assert (world.container().id != before.id, world.container().state) == (True, "running")


@pytest.mark.parametrize("code", [0, 2, None])
def test_pre_stop_runs_in_the_old_one_and_stops_nothing(world: World, code: int | None) -> None:
    lines = ("list pre_stop 'dump'", "option pre_stop_timeout '5'")
    before = begin(world, section("sleep 1000000", *lines)).id
    world.engine.exit_codes["dump"] = code
    world.declare(section("sleep 2000000", *lines), 60)
    assert world.container().id != before
    assert world.engine.executed == [("web", ("dump",))]
    said = world.conditions()["Synced"]["message"]
    expected = {0: "", 2: "pre_stop exited with 2", None: "pre_stop did not end within 5 s"}
    assert said.startswith(expected[code])
    assert bool(said) is (code != 0)


def test_a_failing_post_start_is_rolled_back(world: World) -> None:
    before = begin(world, section("sleep 1000000")).id
    world.engine.exit_codes["join"] = 3
    world.declare(section("sleep 2000000", "option post_start 'join'"), 60)
    assert (world.container().id, world.container().state) == (before, "running")
    degraded = world.conditions()["Degraded"]
    assert (degraded["reason"], degraded["details"]["output"]) == ("RolledBack", "no such thing")
    assert degraded["message"] == "post_start exited with 3: no such thing"


HANDOVER = ("option strategy 'handover'",)


def test_in_a_handover_the_old_one_runs_until_the_new_one_has_proved_itself(world: World) -> None:
    before = begin(world, section("sleep 1000000", *HANDOVER))
    both: list[bool] = []

    def watch(name: str, args: tuple[Any, ...]) -> None:
        if name == "engine.stop" and args[0] == before.id:
            both.append(sum(c.state == "running" for c in world.engine.containers.values()) == 2)

    world.watch = watch
    world.declare(section("sleep 2000000", *HANDOVER))
    assert both == [True]
    assert world.container().id != before.id
    assert len(world.engine.containers) == 1


def test_a_handover_that_fails_costs_nothing(world: World) -> None:
    before = begin(world, section("sleep 1000000", *HANDOVER))
    run = before.run
    world.declare(section("false", *HANDOVER))
    assert (world.container().id, world.container().run, world.container().state) == (
        before.id,
        run,
        "running",
    )
    assert world.conditions()["Degraded"]["reason"] == "RolledBack"
    assert len(world.engine.containers) == 1


@pytest.mark.parametrize("fault", [Fault.KILL_BEFORE, Fault.KILL_AFTER])
@pytest.mark.parametrize("strategy", ["swap", "handover"])
def test_a_kill_at_any_step_ends_in_one_container_as_declared(
    tmp_path: Path, strategy: str, fault: Fault
) -> None:
    more = (f"option strategy '{strategy}'", "list pre_stop 'dump'", "list post_start 'join'")
    for step in range(14):
        folder = tmp_path / str(step)
        folder.mkdir()
        with a_world(folder, step) as world:
            begin(world, section("sleep 1000000", *more))
            world.plan.fault, world.plan.skip, world.plan.count, world.plan.changing = fault, step, 1, True
            world.declare(section("sleep 2000000", *more), 60)
            world.plan.clear()
            world.rest(120)
            (one,) = world.engine.containers.values()
            assert (one.name, one.state) == ("web", "running"), step
            assert one.config["Cmd"] == ["sleep", "2000000"], step
            assert world.open_records() == [], step


def push(world: World, *, here: bool = False) -> str:
    """Pushes another image for that tag, known by its digest, to the registry only; returns its id."""
    world.retag("app:1", gone=not here)
    image = world.engine.registry["app:1"]
    world.engine.pushed[f"docker.io/library/app@{image.id}"] = image
    return image.id


def images(world: World) -> set[str]:
    return {image.id for image in (*world.engine.images.values(), *world.engine.dangling.values())} & {
        image.id for image in world.engine.pushed.values()
    }


@pytest.mark.parametrize("fault", [Fault.KILL_BEFORE, Fault.KILL_AFTER])
@pytest.mark.parametrize("works", [True, False])
def test_a_kill_at_any_step_of_free_first_ends_with_one_image_and_its_container(
    tmp_path: Path, fault: Fault, *, works: bool
) -> None:
    more = ("option strategy 'free-first'", "list volume '/kept'", "list post_start 'join'")
    for step in range(26):
        folder = tmp_path / str(step)
        folder.mkdir()
        with a_world(folder, step) as world:
            first = push(world, here=True)
            (kept,) = begin(world, section("sleep 1000000", *more)).mounts
            second = push(world)
            if not works:
                world.engine.failing = {second}
            world.plan.fault, world.plan.skip, world.plan.count, world.plan.changing = fault, step, 1, True
            world.renew("web", back=False)
            world.rest(60)
            world.plan.clear()
            world.rest(400)
            if world.container().image_id == first and "Degraded" not in world.conditions():
                world.renew("web", back=False)  # the agent was killed before it noted the request
                world.rest(60)
            (one,) = world.engine.containers.values()
            expected = second if works else first
            assert (one.name, one.state, one.image_id) == ("web", "running", expected), step
            assert images(world) == {expected}, step
            assert [mount["Name"] for mount in one.mounts] == [kept["Name"]], step
            assert world.open_records() == [], step
            told = world.conditions().get("Degraded", {})
            assert (told.get("reason") == "RolledBack") is not works, step


@pytest.mark.parametrize("strategy", ["swap", "handover", "free-first"])
def test_a_dockerd_that_ends_says_nothing_about_the_new_image(tmp_path: Path, strategy: str) -> None:
    """It answers with errors until it is gone. The update stays requested, and is done as soon as dockerd is back."""
    more = (f"option strategy '{strategy}'", "list post_start 'join'")
    for step in range(12):
        folder = tmp_path / str(step)
        folder.mkdir()
        with a_world(folder, step) as world:
            push(world, here=True)
            begin(world, section("sleep 1000000", *more))
            second = push(world)
            world.plan.fault, world.plan.skip, world.plan.count, world.plan.changing = (
                Fault.ENDING,
                step,
                1,
                True,
            )
            world.renew("web", back=False)
            for _ in range(100):  # an update takes less than 20 s
                world.rest(0.2 * world.plan.count)
            world.engine.stop_engine()
            world.rest(5)
            degraded = world.conditions().get("Degraded", {})
            assert degraded.get("reason") != "RolledBack", step
            world.plan.clear()
            world.engine.start_engine()
            world.rest(120)
            (one,) = world.engine.containers.values()
            assert (one.name, one.state, one.image_id) == ("web", "running", second), step
            assert "Degraded" not in world.conditions(), step
            assert world.open_records() == [], step


def test_a_container_that_was_stopped_during_its_trial_has_not_failed(world: World) -> None:
    push(world, here=True)
    begin(world, section("sleep 1000000"))
    second = push(world)
    world.renew("web", back=False)
    while world.container().image_id != second or world.container().state != "running":
        world.rest(0.1)
    world.engine.stop(world.container().id, 0)
    world.rest(60)
    assert (world.container().image_id, world.container().state) == (second, "running")
    assert "Degraded" not in world.conditions()


AUTO = ("option update 'auto'", "option update_age '2d'")


def test_an_automatic_update_comes_in_its_window_after_its_age(world: World) -> None:
    begin(world, section("sleep 1000000", *AUTO))
    old = world.container().image_id
    world.rest(HOUR_S)
    world.retag("app:1", gone=False)
    new, since = world.engine.images["app:1"].id, world.time.wall()
    world.rest(20)
    assert world.container().image_id == old
    assert "earliest" in world.conditions()["UpdateAvailable"]["message"]
    world.kill_agent()  # the age does not start again
    while world.container().image_id == old:
        assert world.time.wall() < since + 3 * 86400 + HOUR_S
        world.rest(1800)
    assert world.time.wall() >= since + 2 * 86400
    assert 2 <= datetime.fromtimestamp(world.time.wall()).hour < 6
    assert world.container().image_id == new
    assert "UpdateAvailable" not in world.conditions()


def test_what_was_asked_for_outlives_the_agent_and_is_done_once(world: World) -> None:
    begin(world, section("sleep 1000000", f"list wait_for 'device:{world.device}'"))
    old = world.container().image_id
    world.retag("app:1", gone=False)
    world.plug("device", there=False)
    world.rest(90)
    world.renew("web", back=False)
    world.rest(30)
    assert world.container().image_id == old
    world.kill_agent()
    world.plug("device", there=True)
    world.rest(90)
    assert world.container().image_id == world.engine.images["app:1"].id
    world.renew("web", back=True)
    world.rest(60)
    assert world.container().image_id == old
    assert world.conditions()["Pinned"]["status"]
