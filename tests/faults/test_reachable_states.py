# SPDX-License-Identifier: GPL-2.0-or-later
"""Edits behind our back, restarts and renamed sections in the states that a router gets into: done, stopped, waiting,
rolled back, sharing a namespace."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.engine.client import DockerEngine
from tests.support.agent_process import wait_for
from tests.support.box import Box
from tests.support.dockerd import BUSYBOX, PrivateDockerd

STOPS_WELL = """sh -c "trap \\"exit 0\\" TERM; while :; do sleep 0.1; done\""""
WEB = """
config container 'web'
	option image 'IMAGE'
	option command 'COMMAND'
	option stop_timeout '5'
	option gate '0.2'
""".replace("COMMAND", STOPS_WELL)
PLAIN = WEB.replace(STOPS_WELL, "sleep 100000").replace("'5'", "'0'")
LAN = "\nconfig network 'lan'\n\tlist subnet '10.219.81.0/24'\n"
POLICIES = ["", "\toption restart 'no'\n", "\toption restart 'on-failure'\n"]


def conditions(box: Box, section: str = "web") -> dict[str, tuple[bool, str]]:
    resources = box.reconciler.board.snapshot()["resources"]
    found = next(r["conditions"] for r in resources if r["key"] == f"container:{section}")
    return {c["type"]: (c["status"], c["reason"]) for c in found}


def state(box: Box, name: str = "web") -> dict[str, Any]:
    found: dict[str, Any] = box.client.api.inspect_container(name)["State"]
    return found


def wait_for_trap(box: Box) -> None:
    """Until its shell catches SIGTERM: on a busy machine that is later than the gate, and then a stop kills it."""
    status = Path(f"/proc/{state(box)['Pid']}/status")

    def ready() -> (
        bool
    ):  # proc(5): a mask of the signals that the process catches; runc, before it becomes the shell, all
        text = status.read_text()
        return "Name:\tsh\n" in text and bool(
            int(text.partition("SigCgt:")[2].split()[0], 16) >> signal.SIGTERM - 1 & 1
        )

    wait_for(ready)


def crash(box: Box, name: str) -> None:
    """Its process dies, and the engine starts it again by its policy."""
    before = state(box, name)["Pid"]
    os.kill(before, signal.SIGKILL)
    end = time.monotonic() + 20
    while state(box, name)["Pid"] in {0, before} or not state(box, name)["Running"]:
        assert time.monotonic() < end, "the engine did not start it again"
        time.sleep(0.05)


def hear(box: Box, name: str) -> None:
    """A pass as after an event of that container."""
    box.reconciler.read_config()
    box.reconciler.run_pass(deep=frozenset({box.get(name).id}))


# what ended with 0


@pytest.mark.variants(2)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("option", ["state 'stopped'", "enabled '0'"])
def test_what_was_stopped_by_its_section_starts_again(box: Box, policy: str, option: str) -> None:
    box.apply(WEB + policy)
    wait_for_trap(box)
    box.apply(WEB + policy + f"\toption {option}\n")
    assert (state(box)["Status"], state(box)["ExitCode"]) == ("exited", 0)
    box.apply()
    box.restart_agent()
    box.apply(WEB + policy)
    assert state(box)["Status"] == "running"


@pytest.mark.variants(1)
@pytest.mark.parametrize("policy", POLICIES)
def test_what_was_stopped_with_its_section_or_by_hand_starts_again(box: Box, policy: str) -> None:
    box.apply(WEB + policy)
    wait_for_trap(box)
    before = box.get("web").id
    box.apply("\n")
    assert state(box)["ExitCode"] == 0
    box.apply(WEB + policy)
    assert (box.get("web").id, state(box)["Status"]) == (before, "running")
    box.get("web").stop(timeout=5)
    hear(box, "web")
    assert state(box)["Status"] == "running"
    box.get("web").stop(timeout=5)
    box.restart_agent()  # it was away when that happened
    box.apply()
    assert state(box)["Status"] == "running"


@pytest.mark.variants(1)
@pytest.mark.parametrize("policy", POLICIES)
def test_what_waited_starts_when_that_is_back(box: Box, tmp_path: Path, policy: str) -> None:
    there = tmp_path / "there"
    there.touch()
    config = WEB + policy + f"\tlist wait_for 'file:{there}'\n"
    box.apply(config)
    there.unlink()
    box.apply()
    assert state(box)["Status"] == "exited"
    there.touch()
    box.apply()
    assert state(box)["Status"] == "running"


@pytest.mark.variants(1)
@pytest.mark.parametrize("policy", POLICIES)
def test_what_ended_with_the_engine_starts_again_and_a_job_that_was_done_does_not(
    box: Box, engine: PrivateDockerd, policy: str
) -> None:
    job = PLAIN.replace("'web'", "'job'").replace("sleep 100000", "true") + "\toption restart 'no'\n"
    box.apply(WEB + policy + job)
    wait_for_trap(box)
    box.get("job").wait()
    box.apply()
    finished = state(box, "job")["FinishedAt"]
    engine.stop()
    engine.start()
    assert state(box)["ExitCode"] == 0
    box.apply()
    assert (state(box)["Status"], state(box, "job")["FinishedAt"]) == ("running", finished)
    box.restart_agent()
    assert str(box.apply()[0]) == "nothing to do"
    assert conditions(box, "job")["Running"] == (False, "Completed")


def test_a_job_is_done_again_on_reconcile_and_when_its_section_changes(box: Box) -> None:
    job = PLAIN.replace("sleep 100000", "true") + "\toption restart 'on-failure'\n"
    limited = job + "\toption memory '64m'\n"
    finished = []
    for text in (job, job, limited, limited + "\toption state 'stopped'\n", limited):
        if finished and text is job:
            box.reconciler.forget_failures()
        box.apply(text)
        box.get("web").wait()
        box.apply()
        finished.append(state(box)["FinishedAt"])
    first, asked, edited, stopped, back = finished
    assert len({first, asked, edited, back}) == 4
    assert stopped == edited
    assert str(box.apply()[0]) == "nothing to do"


def test_an_unset_restart_is_a_service_whatever_it_ends_with(box: Box) -> None:
    box.apply(PLAIN.replace("sleep 100000", "sleep 1"))
    box.get("web").wait()
    started = state(box)["StartedAt"]
    box.apply()
    assert state(box)["StartedAt"] != started


def test_a_section_that_waits_for_completion_makes_a_job_of_the_other(box: Box) -> None:
    app = PLAIN.replace("'web'", "'app'") + "\tlist depends_on 'web:completed'\n"
    job = PLAIN.replace("sleep 100000", "sleep 0.3")
    box.apply(job + app)
    box.get("web").wait()
    box.apply()
    assert state(box, "app")["Status"] == "running"
    assert str(box.apply()[0]) == "nothing to do"


@pytest.mark.variants(1)
@pytest.mark.parametrize("policy", [POLICIES[0], POLICIES[2], "\toption restart 'always'\n"])
def test_a_service_is_not_replaced_by_what_ends_at_once(box: Box, policy: str) -> None:
    box.apply(PLAIN + policy)
    before = box.get("web").id
    assert len(box.errors(PLAIN.replace("sleep 100000", "echo hello") + policy)) == 1
    assert (box.get("web").id, state(box)["Status"]) == (before, "running")


def test_killed_by_hand_again_and_again_is_no_crash_loop(box: Box) -> None:
    box.apply(PLAIN)
    for _ in range(4):
        box.get("web").kill()
        hear(box, "web")
        assert state(box)["Status"] == "running"


# shared namespaces


@pytest.mark.variants(4)
@pytest.mark.parametrize("mode", ["network_mode", "ipc", "pid"])
@pytest.mark.parametrize("how", ["restart", "kill", "away", "policy"])
def test_who_shares_a_namespace_follows_its_owner(box: Box, mode: str, how: str) -> None:
    app = PLAIN.replace("'web'", "'app'") + f"\toption {mode} 'service:web'\n"
    restart = "\toption restart 'always'\n" if how == "policy" else ""
    config = PLAIN + restart + "\toption ipc 'shareable'\n" + app
    box.apply(config)
    ids = box.get("web").id, box.get("app").id
    kind = {"network_mode": "net"}.get(mode, mode)
    if how == "kill":
        box.get("web").kill()
        wait_for(lambda: box.get("web").status == "exited")  # with the PIDs shared, app ends first
    elif how == "policy":
        crash(box, "web")
    else:
        box.get("web").restart(timeout=0)
    if how == "away":
        box.restart_agent()
    for _ in range(3):
        box.reconciler.run_pass(deep=frozenset()) if how != "away" else box.apply()
    spaces = {Path(f"/proc/{state(box, name)['Pid']}/ns/{kind}").readlink() for name in ("web", "app")}
    assert len(spaces) == 1
    assert ids == (box.get("web").id, box.get("app").id)
    started = state(box, "app")["StartedAt"]
    assert str(box.apply()[0]) == "nothing to do"
    assert state(box, "app")["StartedAt"] == started


@pytest.mark.parametrize("seen", ["1970-01-01T00:01:00Z", "2099-01-01T00:00:00Z"])
def test_an_owner_that_restarted_while_the_agent_was_away_is_noticed_whatever_the_clock_says(
    box: Box, seen: str
) -> None:
    """Without a clock of its own the router may date the owner's new start before the one of who shares with it."""
    app = PLAIN.replace("'web'", "'app'") + "\toption network_mode 'service:web'\n"
    box.apply(PLAIN + app)
    box.apply()  # as the loop does once a work has ended
    record = next(r for r in box.reconciler.records.records() if r.section == "app")
    ids, started = (box.get("web").id, box.get("app").id), state(box, "app")["StartedAt"]
    assert record.starts == (started, state(box, "web")["StartedAt"])
    box.restart_agent()
    box.apply()
    assert state(box, "app")["StartedAt"] == started, "nothing has happened"
    box.reconciler.records.change(record.nonce, starts=(started, seen))  # as the agent saw it before
    box.restart_agent()
    box.apply()
    assert state(box, "app")["StartedAt"] != started
    assert ids == (box.get("web").id, box.get("app").id)
    assert str(box.apply()[0]) == "nothing to do"


# what was heard of while nothing could be done


@pytest.mark.parametrize("why", ["back-off", "held", "waiting"])
def test_what_was_heard_of_is_kept_until_a_pass_may_act_on_it(box: Box, tmp_path: Path, why: str) -> None:
    there = tmp_path / "there"
    there.touch()
    config = (
        LAN + PLAIN + f"\tlist network 'lan'\n\toption restart 'always'\n\tlist wait_for 'file:{there}'\n"
    )
    box.apply(config)
    box.apply()
    reconciler = box.reconciler
    now = reconciler.monotonic()
    if why == "back-off":
        reconciler.backoff.failed("container:web", "a test", now)
    elif why == "held":
        reconciler.manual.hold("web", "start")
        reconciler.manual.hold("web", "pause")
    else:
        there.unlink()
        box.apply()
    box.client.networks.get("lan").disconnect("web")
    hear(box, "web")
    if why == "back-off":
        reconciler.backoff.clear()
    elif why == "held":
        reconciler.holds.clear()
    there.touch()
    reconciler.run_pass(deep=frozenset())  # as a timer's
    if why == "waiting":
        reconciler.run_pass(deep=frozenset())
    assert "lan" in box.client.api.inspect_container("web")["NetworkSettings"]["Networks"]


def test_what_was_inspected_is_believed_before_what_was_listed(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.apply(PLAIN + "\toption restart 'always'\n")
    lagging = box.reconciler.engine.list_containers(box.reconciler.records.instance)
    box.get("web").kill()
    monkeypatch.setattr(box.reconciler.engine, "list_containers", lambda instance: lagging)
    hear(box, "web")
    assert state(box)["Status"] == "running"


# while a change waits, or was rolled back


HANDS: dict[str, Any] = {
    "memory": lambda box: box.get("web").update(mem_limit="16m", memswap_limit="32m"),
    "policy": lambda box: box.get("web").update(restart_policy={"Name": "no"}),
    "name": lambda box: box.get("web").rename("elsewhere"),
    "kill": lambda box: box.get("web").kill(),
    "stop": lambda box: box.get("web").stop(timeout=0),
    "pause": lambda box: box.get("web").pause(),
    "disconnect": lambda box: box.client.networks.get("lan").disconnect("web"),
    "network": lambda box: (
        box.client.networks.get("lan").disconnect("web"),
        box.client.networks.get("lan").remove(),
    ),
}
CHANGES = {
    "rolled back": ("sleep 100000", "/nonexistent"),
    "a device": ("\toption gate", "\tlist device '/dev/ttyUSB99'\n\toption gate"),
    "a mount": ("\toption gate", "\tlist wait_for 'mount:/nonexistent'\n\toption gate"),
    "a bind source": ("\toption gate", "\tlist volume '/nonexistent:/x'\n\toption gate"),
    "an image": ("\toption image 'IMAGE'", "\toption image 'not-there:1'\n\toption pull 'never'"),
    "a dependency": ("\toption gate", "\tlist depends_on 'dead'\n\toption gate"),
}
SERVED = PLAIN + "\tlist network 'lan,ip=10.219.81.9'\n\toption memory '64m'\n\toption restart 'always'\n"
DEAD = PLAIN.replace("'web'", "'dead'") + "\toption state 'stopped'\n"


@pytest.mark.variants(6)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("hand", HANDS)
def test_the_old_one_is_looked_after_while_its_change_is_not_made(box: Box, change: str, hand: str) -> None:
    box.apply(LAN + SERVED + DEAD)
    before = box.get("web").id
    box.apply(LAN + SERVED.replace(*CHANGES[change]) + DEAD)
    box.apply()
    assert (box.get("web").id, state(box)["Status"]) == (before, "running")
    assert conditions(box)["Synced"][0] is False
    HANDS[hand](box)
    for _ in range(3):
        box.apply()
    web = box.client.api.inspect_container(before)
    assert (web["Name"], web["State"]["Status"], web["State"]["Paused"]) == ("/web", "running", False)
    assert web["HostConfig"]["Memory"] == 64 << 20
    assert web["HostConfig"]["RestartPolicy"]["Name"] == "always"
    assert web["NetworkSettings"]["Networks"]["lan"]["IPAddress"] == "10.219.81.9"
    assert conditions(box)["Synced"][0] is False
    box.later(60)
    box.apply(LAN + SERVED + DEAD)
    box.apply()
    assert conditions(box)["Synced"][0] is True
    assert box.get("web").id == before


@pytest.mark.parametrize("now", ["Waiting", "Conflict"])
def test_what_failed_before_is_not_said_of_what_is_not_tried(box: Box, tmp_path: Path, now: str) -> None:
    there = tmp_path / "there"
    there.touch()
    waits = PLAIN + f"\tlist wait_for 'file:{there}'\n"
    box.apply(waits.replace("'IMAGE'", "'not-there:1'\n\toption pull 'never'"))
    assert conditions(box)["Degraded"] == (True, "Failed")
    if now == "Waiting":
        there.unlink()
    else:
        box.client.containers.create(BUSYBOX, ["sleep", "1"], name="web")
    box.later(600)
    box.apply()
    said = {reason for _, reason in conditions(box).values()}
    assert now in said and said.isdisjoint({"Failed", "BackOff"})


def test_it_stops_when_that_goes_away_which_it_was_applied_with(box: Box, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.touch()
    box.apply(PLAIN + f"\tlist wait_for 'file:{first}'\n")
    box.apply(PLAIN + f"\tlist wait_for 'file:{second}'\n")
    assert state(box)["Status"] == "running"
    first.unlink()
    box.apply()
    assert state(box)["Status"] == "exited"
    second.touch()
    box.apply()
    assert state(box)["Status"] == "running"
    box.apply()
    second.unlink()
    box.apply()
    assert state(box)["Status"] == "exited"


BY_HAND: dict[str, Any] = {
    "stopped": lambda container: container.stop(timeout=0),
    "killed": lambda container: container.kill(),
    "paused": lambda container: container.pause(),
    "removed": lambda container: container.remove(force=True),
}


@pytest.mark.variants(2)
@pytest.mark.parametrize("restart", ["", "\toption restart 'always'\n"])
@pytest.mark.parametrize("hand", BY_HAND)
def test_what_others_do_during_the_trial_does_not_count_against_the_new_container(
    box: Box, hand: str, restart: str
) -> None:
    box.apply(PLAIN + restart)
    clock, done = box.reconciler.under_way.clock, []

    def disturbed(seconds: float) -> None:
        if not done:
            done.append(hand)
            BY_HAND[hand](box.get("web"))
        clock.sleep(seconds)

    box.reconciler.under_way.clock = replace(clock, sleep=disturbed)
    other = PLAIN.replace("sleep 100000", "sleep 200000") + restart
    word = {"killed": "stopped"}.get(hand, hand)
    assert box.errors(other) == [f"the new container was {word} outside of ucidockd during its trial"]
    assert state(box)["Status"] == "running"
    box.later(60)
    assert box.errors(other) == []
    assert box.get("web").attrs["Config"]["Cmd"] == ["sleep", "200000"]
    assert str(box.apply()[0]) == "nothing to do"


@pytest.mark.parametrize("late", ["event", "removal"])
def test_what_docker_tells_of_late_does_not_count_against_the_new_container_either(
    box: Box, late: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `docker rm -f` looks for a moment: the process has ended, and neither a signal nor the removal is seen yet."""
    box.apply(PLAIN)
    clock, done = box.reconciler.under_way.clock, []
    events = DockerEngine.past_events

    def without_kill(engine: DockerEngine, container: str, until: str) -> tuple[dict[str, Any], ...]:
        found = events(engine, container, until)
        return found if len(done) > 1 else tuple(event for event in found if event["Action"] != "kill")

    def disturbed(seconds: float) -> None:
        done.append(seconds)
        if len(done) == 1:
            box.get("web").kill()
        elif len(done) == 2 and late == "removal":
            box.get("web").remove()
        clock.sleep(seconds)

    monkeypatch.setattr(DockerEngine, "past_events", without_kill)
    box.reconciler.under_way.clock = replace(clock, sleep=disturbed)
    word = {"event": "stopped", "removal": "removed"}[late]
    failed = box.errors(PLAIN.replace("sleep 100000", "sleep 200000"))
    assert failed == [f"the new container was {word} outside of ucidockd during its trial"]


# sections under other names


def named(section: str, name: str, command: str = "sleep 100000", more: str = "") -> str:
    text = PLAIN.replace("'web'", f"'{section}'").replace("sleep 100000", command)
    return text + (f"\toption name '{name}'\n" if name else "") + "\tlist volume '/kept'\n" + more


RENAMES = {
    "the Docker name stays": ([named("web", "")], [named("www", "web")]),
    "and the spec changes": ([named("web", "")], [named("www", "web", "sleep 200000")]),
    "two exchange their names": (
        [named("a1", "x1", "sleep 1000"), named("b1", "y1", "sleep 2000")],
        [named("a1", "y1", "sleep 1000"), named("b1", "x1", "sleep 2000")],
    ),
    "two sections exchange what they are": (
        [named("a1", "x1", "sleep 1000"), named("b1", "y1", "sleep 2000")],
        [named("a1", "y1", "sleep 2000"), named("b1", "x1", "sleep 1000")],
    ),
    "a chain of sections": (
        [named("a1", "x1", "sleep 1000"), named("b1", "y1", "sleep 2000")],
        [named("b1", "x1", "sleep 1000"), named("c1", "y1", "sleep 2000")],
    ),
    "a chain of names": (
        [named("a1", "x1", "sleep 1000"), named("b1", "y1", "sleep 2000"), named("c1", "z1", "sleep 3000")],
        [named("a1", "y1", "sleep 1000"), named("b1", "z1", "sleep 2000"), named("c1", "x1", "sleep 3000")],
    ),
}


@pytest.mark.variants(3)
@pytest.mark.parametrize("name", RENAMES)
def test_a_renamed_section_keeps_what_it_has(box: Box, name: str) -> None:
    before, after = RENAMES[name]
    box.apply("".join(before))
    commands = {item["Id"]: (item["Command"], kept(item)) for item in box.client.api.containers(all=True)}
    box.apply("".join(after))
    for _ in range(3):
        box.later(400)
        box.apply()
    assert str(box.apply()[0]) == "nothing to do"
    now = {item["Id"]: (item["Command"], kept(item)) for item in box.client.api.containers(all=True)}
    if name == "and the spec changes":
        assert [volume for _, volume in now.values()] == [volume for _, volume in commands.values()]
    else:
        assert now == commands
    assert all(item["State"] == "running" for item in box.client.api.containers(all=True))
    wanted = {part.split("'")[1] for text in after for part in [text]}
    sections = {r["section"] for r in box.reconciler.board.snapshot()["resources"]}
    assert sections == wanted


def test_a_network_and_a_volume_whose_sections_are_renamed_stay(box: Box) -> None:
    config = LAN + "\nconfig volume 'data'\n" + PLAIN + "\tlist network 'lan'\n\tlist volume 'data:/data'\n"
    box.apply(config)
    before = box.get("web").id
    renamed = config.replace(
        "network 'lan'\n\tlist subnet", "network 'home'\n\toption name 'lan'\n\tlist subnet"
    )
    renamed = renamed.replace("config volume 'data'", "config volume 'kept'\n\toption name 'data'")
    renamed = renamed.replace("list network 'lan'", "list network 'home'").replace("'data:/", "'kept:/")
    assert box.errors(renamed) == []
    assert str(box.apply()[0]) == "nothing to do"
    assert (box.get("web").id, state(box)["Status"]) == (before, "running")


def kept(item: dict[str, Any]) -> list[str]:
    return [mount["Name"] for mount in item["Mounts"]]


def test_a_name_that_one_whose_section_is_gone_has_is_free(box: Box) -> None:
    first = named("web", "", "sleep 1000")
    box.apply(first + named("b1", "", "sleep 2000"))
    box.apply(named("b1", "web", "sleep 2000"))
    box.apply()
    time.sleep(0.1)
    assert state(box)["Status"] == "running"
    assert "2000" in " ".join(box.get("web").attrs["Config"]["Cmd"])


def test_a_renamed_section_with_a_mistake_keeps_its_container_until_that_is_mended(box: Box) -> None:
    box.apply(named("web", ""))
    before = box.get("web").id
    renamed = named("www", "web")
    wrong = renamed + "\toption memory 'much'\n"
    for text in (wrong, wrong, renamed):
        box.apply(text)
        box.later(600)
        box.apply(text)
        assert (box.get("web").id, state(box)["Status"]) == (before, "running")
    assert conditions(box, "www")["Synced"][0] is True
    box.apply("\n")
    assert state(box)["Status"] == "exited"
