# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults that the random state machine found, each as its own scenario: each test failed before the fix."""

from __future__ import annotations

from typing import Any

import pytest

from agent.errors import EngineError
from agent.plan.records import Role, name_outside
from tests.support.state import state_of
from tests.support.virtual.taps import Fault
from tests.support.virtual.world import World

NETWORKS = """
config network 'lan'
	list subnet '10.219.50.0/24'

config network 'dmz'
"""
WEB = """
config container 'web'
	option image 'app:1'
	option command 'sleep 100000'
	option stop_timeout '0'
	option gate '1'
	option grace '5'
"""
LOOPING = (
    WEB.replace("sleep 100000", 'sh -c "sleep 2; exit 1"')
    + "\toption restart 'always'\n\tlist network 'lan'\n"
)
DEEP_S = 700.0  # contains a resync with a deep pass


def in_swap(world: World, role: Role) -> str:
    """The name of web's container in that role."""
    return next(c.name for c in world.engine.containers.values() if name_outside(c.name, role) == "web")


def crash_loop(world: World) -> None:
    """Runs until the container is between two restarts."""
    world.declare(NETWORKS + LOOPING, 60)
    while world.container().state != "restarting":
        world.rest(0.2)


def conditions(world: World, key: str) -> dict[str, Any]:
    return {kind: (found["status"], found["reason"]) for kind, found in world.conditions(key).items()}


def test_one_in_a_crash_loop_is_not_taken_for_disconnected(world: World) -> None:
    crash_loop(world)
    before = len(world.writes)
    world.rest(2 * DEEP_S)
    assert world.writes[before:] == []


def test_a_network_is_replaced_under_a_member_in_a_crash_loop(world: World) -> None:
    crash_loop(world)
    world.declare(NETWORKS.replace("'10.219.50.0/24'", "'10.219.50.0/24'\n\tlist label 'a=b'") + LOOPING)
    lan = world.engine.networks.get("lan")
    web = world.engine.find("web")
    assert web is not None
    assert lan.sent["Labels"]["a"] == "b"
    assert (web.networks["lan"]["NetworkID"], web.alive) == (lan.id, True)


def test_endpoints_of_one_in_a_crash_loop_are_changed(world: World) -> None:
    crash_loop(world)
    world.declare(NETWORKS + LOOPING.replace("'lan'", "'dmz'"))
    web = world.engine.find("web")
    assert web is not None
    assert (sorted(web.networks), web.alive) == (["dmz"], True)


def test_a_section_that_never_came_to_anything_leaves_the_status_with_its_text(world: World) -> None:
    world.declare(WEB + "\tlist network 'nowhere'\n")
    assert conditions(world, "container:web")["Accepted"] == (False, "Invalid")
    assert world.agent is not None
    world.agent.board.ensure("daemon:dockerd")
    world.declare("\n")
    assert [r["key"] for r in world.snapshot()["resources"]] == ["daemon:dockerd"]  # other writers' entry


def test_a_disabled_section_shows_no_conflict_once_nobody_is_in_the_way(world: World) -> None:
    world.engine.create_container("web", {"Image": "app:1", "Cmd": ["true"]})
    world.declare(WEB)
    assert conditions(world, "container:web")["Synced"] == (False, "Conflict")
    world.engine.remove_container("web", volumes=False)
    world.declare(WEB + "\toption enabled '0'\n")
    assert conditions(world, "container:web")["Synced"] == (True, "InSync")


def test_a_disabled_section_shows_no_drift_of_what_is_gone(world: World) -> None:
    disabled = WEB + "\toption enabled '0'\n\toption on_drift 'report'\n"
    world.declare(WEB)
    world.declare(disabled)
    world.engine.rename("web", "elsewhere")
    world.rest(5)
    assert conditions(world, "container:web")["Degraded"] == (True, "Drift")
    world.engine.remove_container("elsewhere", volumes=False)
    world.rest(5)
    assert "Degraded" not in conditions(world, "container:web")


def test_what_was_made_unseen_is_found_under_whatever_name(world: World) -> None:
    world.declare(WEB)
    world.plan.fault, world.plan.count, world.plan.skip = (
        Fault.KILL_AFTER,
        1,
        1,
    )  # records.put, create_container
    world.declare(WEB.replace("100000", "200000"), 1)
    assert not world.alive
    world.engine.rename(in_swap(world, "new"), "moved")
    world.rest(30)
    assert [c.name for c in world.engine.containers.values()] == ["web"]


def test_what_was_made_unseen_at_first_is_found_under_whatever_name(world: World) -> None:
    world.plan.fault, world.plan.count, world.plan.skip = Fault.KILL_AFTER, 1, 1
    world.declare(WEB, 1)
    assert not world.alive
    world.engine.rename("web", "moved")
    world.rest(30)
    assert [(c.name, c.state) for c in world.engine.containers.values()] == [("web", "running")]


def test_one_connected_by_hand_to_a_network_that_goes_starts_again(world: World) -> None:
    world.declare(NETWORKS + WEB)
    world.engine.connect("dmz", "web", {})
    world.declare(NETWORKS + WEB + "\toption state 'stopped'\n")
    world.declare(WEB + "\toption state 'stopped'\n", 300)
    assert world.engine.networks.find("dmz") is None
    world.declare(WEB)
    web = world.engine.find("web")
    assert web is not None
    assert (web.state, sorted(web.networks)) == ("running", ["bridge"])


def test_an_empty_list_is_not_believed_about_what_was_made_unseen(world: World) -> None:
    world.declare(WEB + WEB.replace("'web'", "'db'"))
    world.plan.fault, world.plan.count, world.plan.skip = Fault.KILL_AFTER, 1, 1
    world.declare(WEB.replace("100000", "200000") + WEB.replace("'web'", "'db'"), 1)
    assert not world.alive
    world.engine.rename(in_swap(world, "new"), "moved")
    world.plan.fault, world.plan.count = Fault.EMPTY_LIST, 3
    world.rest(60)
    assert sorted(c.name for c in world.engine.containers.values()) == ["db", "web"]


def test_one_that_ends_again_and_again_is_started_ever_more_seldom(world: World) -> None:
    world.declare(WEB.replace("sleep 100000", 'sh -c "sleep 2; exit 1"'), 3600)
    starts = [text for text in world.writes if text.startswith("start ")]
    # the delays double up to five minutes: 1 + 2 + ... + 256 s are nine starts, and twelve to twenty each hour follow
    assert 15 < len(starts) < 35, len(starts)
    told = world.conditions("container:web")["Synced"]
    assert (told["status"], told["reason"]) == (False, "BackOff")
    assert told["message"].startswith("exited with 1; it ended again soon after it was started (")
    # since the first of these ends, not since the last try
    assert 3500 < world.time.wall() - told["since"] < 3601
    world.declare(WEB)
    web = world.engine.find("web")
    assert web is not None
    assert web.state == "running"


def test_one_that_was_stopped_by_hand_twice_in_an_hour_runs_at_once(world: World) -> None:
    world.declare(WEB)
    web = world.engine.find("web")
    assert web is not None
    for _ in range(2):
        world.engine.kill("web")
        world.rest(2)
        assert web.state == "running"
        world.rest(1800)


def test_one_whose_device_comes_and_goes_starts_at_once_each_time(world: World) -> None:
    world.declare(WEB + f"\tlist wait_for 'device:{world.device}'\n")
    web = world.engine.find("web")
    assert web is not None
    for _ in range(6):
        for there, state in ((False, "exited"), (True, "running")):
            world.plug("device", there=there)
            world.tell()
            world.rest(1)
            assert web.state == state


def in_mid_swap_somebody_takes_the_name(world: World, text: str) -> None:
    """Makes the name of the old container unavailable during a swap."""

    def take() -> None:
        if world.engine.find("web") is None:
            world.engine.create_container("web", {"Image": "app:1", "Cmd": ["true"]})
        else:
            world.plan.count += 1  # not yet

    world.plan.fault, world.plan.count, world.plan.interfere = Fault.INTERFERE, 1, take
    world.declare(text.replace("100000", "200000"))


def test_an_old_one_whose_name_was_taken_goes_with_its_section(world: World) -> None:
    world.declare(WEB)
    in_mid_swap_somebody_takes_the_name(world, WEB)
    assert sorted(c.name for c in world.engine.containers.values()) == ["web", in_swap(world, "old")]
    world.declare("\n", 400)
    assert [(c.name, c.state) for c in world.engine.containers.values()] == [("web", "created")]
    assert world.open_records() == []


@pytest.mark.parametrize("policy", ["repair", "report"])
def test_an_old_one_whose_name_was_taken_runs_and_gets_it_back(world: World, policy: str) -> None:
    text = WEB + f"\toption on_drift '{policy}'\n"
    world.declare(text)
    in_mid_swap_somebody_takes_the_name(world, text)
    old = world.engine.find(in_swap(world, "old"))
    assert old is not None
    world.engine.kill(old.id)
    world.rest(600)
    assert (name_outside(old.name, "old"), old.state) == ("web", "running")
    world.engine.remove_container("web", volumes=False)
    world.reconcile()
    world.rest(600)
    assert [(c.name, c.state) for c in world.engine.containers.values()] == [("web", "running")]


def test_the_new_one_stays_with_its_data_where_somebody_removed_the_old_one_in_mid_swap(world: World) -> None:
    world.declare(WEB)
    world.declare(WEB.replace("gate '1'", "gate '60'") + "\tlist volume '/anonymous'\n")
    new = world.engine.find("web")
    assert new is not None
    world.engine.remove_container(in_swap(world, "old"), volumes=False, force=True)
    world.plan.fault, world.plan.count, world.plan.changing = Fault.ERROR_404, 2, False
    world.rest(200)
    assert [(c.id, c.name, c.state) for c in world.engine.containers.values()] == [(new.id, "web", "running")]
    assert world.open_records() == []
    assert conditions(world, "container:web")["Synced"][0]


def test_one_that_stayed_under_its_name_of_the_swap_can_be_replaced(world: World) -> None:
    world.declare(WEB)
    world.plan.fault, world.plan.count, world.plan.skip = Fault.KILL_AFTER, 1, 1
    world.declare(WEB.replace("100000", "200000"), 1)
    assert not world.alive
    world.engine.remove_container("web", volumes=False, force=True)
    world.declare(WEB.replace("100000", "300000"), 60)
    assert [(c.name, c.state) for c in world.engine.containers.values()] == [("web", "running")]
    web = world.engine.find("web")
    assert web is not None
    assert web.command() == ["sleep", "300000"]


def test_what_somebody_sets_back_in_the_moment_of_a_change_is_not_taken_for_ignored(world: World) -> None:
    world.declare(WEB)
    updates: list[str] = []

    def meddle(name: str, args: tuple[Any, ...]) -> None:
        """Changes the engine after the first update, before the agent checks the result."""
        del args
        if name == "engine.inspect_container" and updates == ["engine.update"]:
            updates.append("by hand")
            world.engine.update("web", {"RestartPolicy": {"Name": "no"}})
        elif name == "engine.update":
            updates.append(name)

    world.watch = meddle
    world.declare(WEB + "\toption restart 'always'\n")
    web = world.engine.find("web")
    assert web is not None
    assert (web.policy["Name"], updates) == ("always", ["engine.update", "by hand", "engine.update"])


def test_a_container_of_a_section_with_a_mistake_that_somebody_removed_does_not_run_in_status(
    world: World,
) -> None:
    world.write(WEB)
    world.tell()
    world.rest(10)
    world.write(WEB.replace("'1'", "'soon'"))
    world.tell()
    world.rest(10)
    world.engine.remove_container("web", volumes=False, force=True)
    world.rest(10)
    (web,) = [r for r in world.snapshot()["resources"] if r["key"] == "container:web"]
    running = next(c for c in web["conditions"] if c["type"] == "Running")
    assert (running["status"], running["reason"]) == (False, "Absent")


# another engine, and then the earlier one again


def exchange(world: World, root: str, seconds: float = 60) -> None:
    world.stop_engine(live_restore=False)
    world.rest(3)
    world.exchange_engine(root)
    world.start_engine()
    world.rest(seconds)


ALL = NETWORKS + "\nconfig volume 'data'\n" + WEB + "\tlist network 'lan'\n\tlist volume 'data:/data'\n"


@pytest.mark.parametrize("reconciles", [False, True])
@pytest.mark.parametrize("killed", [False, True])
def test_another_engine_and_back_finds_what_is_ours(world: World, *, killed: bool, reconciles: bool) -> None:
    world.declare(ALL)
    first = world.engine.find("web")
    assert first is not None
    exchange(world, "elsewhere")
    second = world.engine.find("web")
    assert second is not None
    assert second.id != first.id
    if reconciles:
        world.reconcile()
        world.rest(10)
    if killed:
        world.kill_agent()
    exchange(world, "data")
    for _ in range(2):
        assert world.engine.containers.keys() == {first.id}
        assert first.state == "running"
        keys = ("container:web", "network:lan", "network:dmz", "volume:data")
        assert {key: conditions(world, key)["Synced"][0] for key in keys} == dict.fromkeys(keys, True)
        ids = {r["key"]: r["object_id"] for r in world.snapshot()["resources"]}
        assert ids["container:web"] == first.id
        world.rest(DEEP_S)
    world.declare(ALL.replace("100000", "200000"))
    third = world.engine.find("web")
    assert third is not None
    assert (world.engine.containers.keys(), third.config["Cmd"]) == ({third.id}, ["sleep", "200000"])


def test_data_that_was_moved_is_the_same_engine(world: World) -> None:
    world.declare(ALL)
    before = world.engine.find("web")
    assert before is not None
    writes = len(world.writes)
    world.stop_engine(live_restore=False)
    world.engine.root = "moved"
    world.rest(3)
    world.start_engine()
    world.rest(DEEP_S)
    assert world.engine.containers.keys() == {before.id}
    assert world.writes[writes:] in ([], [f"start {before.id}"])
    records = state_of(world.options.state_dir)["records"]
    assert len({r["engine"] for r in records if r["kind"] == "container"}) == 1
    assert len(records) == 4


def test_an_adopted_container_takes_the_place_of_one_that_was_removed(world: World) -> None:
    """Two records of one section led to changes that failed for ever."""
    world.declare(ALL)
    world.lose_events("mute")
    world.engine.remove_container("web", volumes=False, force=True)
    body = {"Image": "app:1", "Cmd": ["sleep", "1"], "HostConfig": {"NetworkMode": "none"}}
    foreign = world.engine.create_container("web", body)
    world.lose_events("hear")
    world.declare(ALL + "\toption adopt '1'\n")
    web = world.engine.find("web")
    assert web is not None
    assert web.id != foreign
    assert [
        r["object_id"] for r in state_of(world.options.state_dir)["records"] if r["kind"] == "container"
    ] == [web.id]


def test_a_look_at_a_new_container_that_fails_disowns_nothing(world: World) -> None:
    """The engine refused the inspect after the create; the container existed, but its record was dropped."""
    inspect, looks = world.engine.inspect_container, []

    def refuse_once(ref: str) -> Any:
        if len(ref) == 64 and not looks:
            looks.append(ref)
            raise EngineError("injected", status=500, retryable=True)
        return inspect(ref)

    world.engine.inspect_container = refuse_once  # type: ignore[method-assign]
    world.kill_agent()
    world.rest(6)
    world.declare(WEB, 60)
    web = world.engine.find("web")
    assert looks
    assert web is not None
    assert (web.id, web.state) == (looks[0], "running")
    assert conditions(world, "container:web")["Synced"] == (True, "InSync")


def test_a_renamed_section_with_a_mistake_keeps_its_container(world: World) -> None:
    """The container was stopped, and removed after the grace period."""
    world.declare(WEB)
    web = world.engine.find("web")
    assert web is not None
    renamed = WEB.replace("'web'", "'www'") + "\toption name 'web'\n"
    world.declare(renamed + "\toption memory 'much'\n", DEEP_S)
    assert (world.engine.find("web"), web.state) == (web, "running")
    assert "container:web" in world.plan_text()
    world.declare(renamed)
    assert (world.engine.find("web"), web.state) == (web, "running")
    assert conditions(world, "container:www")["Synced"] == (True, "InSync")


ENDS_WELL = WEB.replace("sleep 100000", 'sh -c "trap \\"exit 0\\" TERM; while :; do sleep 1; done"')


@pytest.mark.parametrize("policy", ["", "no", "on-failure", "unless-stopped"])
def test_a_service_that_ends_with_0_when_it_is_stopped_runs_again(world: World, policy: str) -> None:
    text = ENDS_WELL + (f"\toption restart '{policy}'\n" if policy else "")
    world.declare(text)
    web = world.engine.find("web")
    assert web is not None
    world.declare(text + "\toption state 'stopped'\n")
    assert (web.state, web.exit_code) == ("exited", 0)
    world.declare(text)
    assert web.state == "running"
    world.engine.stop("web", 0)
    world.rest(20)
    assert web.state == "running"
    world.stop_engine(live_restore=False)
    world.rest(5)
    world.start_engine()
    world.rest(60)
    assert web.state == "running"


@pytest.mark.parametrize("skip", range(4, 10))
def test_old_and_new_never_run_together_where_a_rollback_is_cut_short(world: World, skip: int) -> None:
    """A container whose rollback was incomplete was started again next to the new container."""
    world.declare(WEB)
    world.plan.fault, world.plan.skip, world.plan.count = Fault.ERROR_409, skip, 2
    world.declare(WEB.replace("sleep 100000", "false") + "\toption restart 'always'\n", 0)
    for _ in range(60):
        world.rest(0.1)
        assert sum(c.alive for c in world.engine.containers.values()) <= 1
    world.declare(WEB)
    assert [(c.name, c.state) for c in world.engine.containers.values()] == [("web", "running")]


def test_a_section_renamed_to_one_that_shared_its_network_is_applied(world: World) -> None:
    """The old one waited for its child to be removed, and the child's section waited for the old one's address: no pass
    ended."""
    nine = "\tlist network 'lan,ip=10.219.50.9'\n"
    job = WEB.replace("'web'", "'job'").replace("sleep 100000", "false") + "\toption restart 'no'\n"
    world.declare(NETWORKS + WEB + nine + job + "\toption network_mode 'service:web'\n", 20)
    world.declare(NETWORKS + WEB + nine, 2)
    world.declare(NETWORKS + WEB.replace("'web'", "'job'") + nine + "\toption name 'web'\n", 120)
    assert [(c.name, c.state) for c in world.engine.containers.values()] == [("web", "running")]
    assert world.alive
    assert "pass failed" not in world.everything_said()


@pytest.mark.parametrize("count", [1, 3])
def test_a_full_disk_at_the_renaming_of_a_section_costs_only_that_section(world: World, count: int) -> None:
    """The full disk ended the pass for all sections."""
    db = WEB.replace("'web'", "'db'")
    world.declare(WEB + db)
    web = world.engine.find("web")
    world.plan.fault, world.plan.skip, world.plan.count = Fault.DISK_FULL, 0, count
    renamed = WEB.replace("'web'", "'app'") + "\toption name 'web'\n"
    world.declare(renamed + db, 1)
    assert conditions(world, "container:app")["Degraded"] == (True, "StorageFull")
    assert conditions(world, "container:db")["Synced"] == (True, "InSync")
    world.declare(renamed + db.replace("100000", "200000"), 120)
    assert web is not None and web is world.engine.find("web") and web.state == "running"
    assert conditions(world, "container:app")["Synced"] == (True, "InSync")
    assert conditions(world, "container:db")["Synced"] == (True, "InSync")
    assert "pass failed" not in world.everything_said()


@pytest.mark.parametrize("what", ["container", "image", "job", "not listed"])
def test_what_the_engine_cannot_show_costs_its_own_section_only(world: World, what: str) -> None:
    """The engine lists a container with damaged layers, and answers 500 to its inspect."""
    web = WEB.replace("sleep 100000", "true") + "\toption restart 'no'\n" if what == "job" else WEB
    other = WEB.replace("web", "other").replace("app:1", "app:2")
    world.declare(web + other)
    seen = world.engine.find("web")
    assert seen is not None
    world.plan.hidden = frozenset({"app:1", seen.image_id} if what == "image" else {seen.id, "web"})
    if what == "not listed":
        world.engine.remove_container(seen.id, volumes=False, force=True)
    if what == "job":  # about which nothing is known
        world.kill_agent()
        world.rest(6)
    world.declare(
        web + other + "\toption memory '64m'\n" + WEB.replace("web", "third").replace("app:1", "app:2")
    )
    assert [c.name for c in world.engine.containers.values() if c.state == "running"] == (
        ["other", "third"] if what in {"job", "not listed"} else ["web", "other", "third"]
    )
    conditions = {
        r["section"]: next(c for c in r["conditions"] if c["type"] == "Synced")
        for r in world.snapshot()["resources"]
    }
    assert conditions["other"]["status"] and conditions["third"]["status"]
    assert what == "image" or "cannot be shown" in conditions["web"]["message"]
    world.plan.hidden = frozenset()
    world.rest(70)
    assert (world.plan_text(), world.exceptions()) == ("nothing to do", [])
    now = world.engine.find("web")
    assert now is seen if what != "not listed" else now is not None and now.state == "running"


@pytest.mark.parametrize("away", [False, True], ids=["stopped", "removed while the engine was away"])
def test_without_a_health_check_nothing_is_said_of_one(world: World, *, away: bool) -> None:
    checked = WEB + "\toption health_cmd 'false'\n\toption health_interval '1s'\n\toption rollback '0'\n"
    world.declare(checked, 60)
    assert conditions(world, "container:web")["Healthy"] == (False, "Unhealthy")
    if away:
        world.stop_engine(live_restore=True)
        world.rest(40)
        assert conditions(world, "container:web")["Healthy"] == (False, "Unknown")
        world.write(WEB)
        world.start_engine()
        world.tell()
        world.rest(60)
    else:
        world.declare(checked + "\toption state 'stopped'\n", 60)
    assert "Healthy" not in conditions(world, "container:web")


def test_an_edit_that_cannot_be_made_is_tried_once_with_each_image(world: World) -> None:
    """With `update auto` both the newer image and the one before count."""
    auto = "\toption update 'auto'\n\toption update_age '0'\n\toption update_window '00:00-23:59'\n"
    world.declare(WEB)
    bad = WEB.replace("sleep 100000", "no-such-program") + auto
    for _ in range(3):
        world.retag("app:1", gone=False)
        before = len(world.writes)
        world.declare(bad, 3 * DEEP_S)
        swaps = [
            text
            for text in world.writes[before:]
            if name_outside(text.removeprefix("create_container "), "new")
        ]
        assert len(swaps) <= 3, swaps  # one of them is created again by id
        before = len(world.writes)
        world.rest(3600)
        assert world.writes[before:] == []
    assert conditions(world, "container:web")["Synced"] == (False, "RolledBack")
    world.declare(WEB + auto, 60)
    assert conditions(world, "container:web")["Synced"][0]
    web = world.engine.find("web")
    assert web is not None
    assert web.image_id == world.engine.images["app:1"].id


def test_two_sections_are_renamed_in_one_commit_and_one_of_them_changes(world: World) -> None:
    """`db` becomes `app`, and `web` becomes `db`: the second move is possible only after the first."""
    world.declare(WEB + WEB.replace("'web'", "'db'"))
    before = {name: found.id for name in ("web", "db") if (found := world.engine.find(name)) is not None}
    lines = len(world.trouble.lines)
    named = WEB.replace("'web'", "'db'").replace("100000", "200000") + "\toption name 'web'\n"
    world.declare(named + WEB.replace("'web'", "'app'") + "\toption name 'db'\n", 60)
    assert [text for text in world.trouble.lines[lines:] if "failed" in text] == []
    sections = {str(r["name"]): (r["section"], r["object_id"]) for r in world.records()}
    assert sections["db"] == ("app", before["db"])
    assert sections["web"][0] == "db"
    assert len([text for text in world.writes if text.startswith("create_container")]) == 3
