# SPDX-License-Identifier: GPL-2.0-or-later
"""Behaviour over minutes to days: back-off, grace periods, resyncs, unreachable engines. On virtual time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.virtual.world import World, a_world

WEB = """
config container 'web'
	option image 'app:1'
	option command 'sleep 1000000'
	option restart 'always'
	option memory '64m'
	option stop_timeout '0'
	option grace '120'
"""
DAY_S = 86_400.0


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as made:
        made.write(WEB)
        made.start_agent()
        made.rest(20)
        yield made


def passes_of(world: World) -> int:
    assert world.agent is not None
    return world.agent.passes.succeeded + world.agent.passes.failed


def test_a_quiet_day_is_a_day_without_a_write_and_with_one_look_a_minute(world: World) -> None:
    writes, passes = len(world.writes), passes_of(world)
    world.rest(DAY_S)
    assert world.writes[writes:] == []
    assert passes_of(world) - passes <= DAY_S / 60 + 2


def test_what_fails_is_tried_at_once_and_later_every_five_minutes(world: World) -> None:
    world.declare(WEB.replace("app:1", "missing:1"), 5)
    begun = len(world.writes)
    world.rest(60)
    first = len(world.writes) - begun
    world.rest(3540)
    tries = [text for text in world.writes[begun:] if text.startswith("pull")]
    assert 3 <= first <= 8
    assert 15 <= len(tries) <= 25
    assert world.container().state == "running"  # the old one


def test_an_image_that_comes_to_the_registry_is_taken_within_six_minutes(world: World) -> None:
    world.declare(WEB.replace("app:1", "late:1"), 5)
    world.rest(7200)
    world.engine.registry["late:1"] = world.an_image()
    world.rest(360 + 20)
    assert world.container().image_id == world.engine.registry["late:1"].id


def test_without_events_a_stopped_container_is_seen_within_a_minute(world: World) -> None:
    world.lose_events("mute")
    world.rest(7)
    world.engine.kill("web")
    world.rest(62)
    assert world.container().state == "running"


def test_without_events_changed_settings_are_seen_within_ten_minutes(world: World) -> None:
    world.lose_events("mute")
    world.engine.update("web", {"Memory": 16 << 20, "MemorySwap": 32 << 20})
    world.rest(602)
    assert world.container().host["Memory"] == 64 << 20


def test_a_config_change_that_nobody_tells_of_is_seen_within_ten_minutes(world: World) -> None:
    world.write(WEB.replace("64m", "128m"))
    world.rest(602)
    assert world.container().host["Memory"] == 128 << 20


def test_a_section_that_comes_back_in_time_finds_its_container(world: World) -> None:
    before = world.container().id
    world.declare("\n", 5)
    assert world.container().state == "exited"
    world.rest(110)
    world.declare(WEB, 5)
    assert (world.container().id, world.container().state) == (before, "running")
    assert world.container().policy["Name"] == "always"


def test_a_section_that_stays_away_takes_its_container_with_it(world: World) -> None:
    world.declare("\n", 5)
    world.rest(100)
    assert world.container().state == "exited"
    world.rest(90)
    assert world.engine.find("web") is None


def test_a_clock_that_jumps_deletes_nothing_before_its_time(world: World) -> None:
    world.declare("\n", 5)
    for offset in (50 * 31_557_600.0, -1_700_000_000.0, 0.0, -3600.0):
        world.set_clock(offset)
        world.rest(61)
    assert world.container().state == "exited"
    world.rest(180)
    assert world.engine.find("web") is None


def test_an_engine_that_is_away_for_a_day_is_looked_for_every_few_seconds_and_found_at_once(
    world: World,
) -> None:
    before = world.container().id
    world.stop_engine(live_restore=False)
    passes = passes_of(world)
    world.rest(DAY_S / 24)
    assert 3600 / 4 <= passes_of(world) - passes <= 3600
    assert world.snapshot()["agent"]["engine"]["reason"] == "EngineUnreachable"
    world.start_engine()
    world.rest(5)
    assert (world.container().id, world.container().state) == (before, "running")
    assert world.snapshot()["agent"]["engine"]["reachable"] is True


def test_after_a_suspend_there_is_one_pass_and_no_burst(world: World) -> None:
    world.engine.crash("web")
    passes = passes_of(world)
    world.time.advance_to(world.time.now + 8 * 3600)  # only the engine runs meanwhile
    world.rest(2)
    assert passes_of(world) - passes <= 4
    assert world.container().state == "running"


def test_ended_at_the_gate_it_leaves_in_time_and_goes_on_at_the_next_start(world: World) -> None:
    world.declare(WEB + "\toption gate '60'\n", 5)
    world.declare(WEB.replace("1000000", "2000000") + "\toption gate '60'\n", 5)
    begun = world.time.now
    world.end_agent()
    assert world.time.now - begun < 4
    world.rest(90)
    assert [(c.name, c.config["Cmd"][1], c.state) for c in world.engine.containers.values()] == [
        ("web", "2000000", "running")
    ]
    assert world.plan_text() == "nothing to do"


FLAPPING = """	option health_cmd 'flap 5'
	option health_interval '1s'
	option health_retries '1'
"""


def test_one_whose_health_flaps_every_5_s_does_not_pass_the_gate_and_is_not_tried_again(world: World) -> None:
    before = world.container().id
    world.declare(WEB + FLAPPING, 5)
    world.rest(20)
    assert (world.container().id, world.container().state) == (before, "running")
    (resource,) = world.snapshot()["resources"]
    assert ("Synced", "RolledBack") in [(c["type"], c["reason"]) for c in resource["conditions"]]
    writes = len(world.writes)
    world.rest(3600)
    assert world.writes[writes:] == []


def test_one_whose_health_flaps_later_is_left_alone_and_so_is_who_needs_it(world: World) -> None:
    world.declare(
        WEB
        + FLAPPING
        + "\toption gate '1'\n"
        + WEB.replace("'web'", "'app'")
        + "\tlist depends_on 'web:healthy'\n",
        5,
    )
    world.rest(60)
    assert [c.state for c in world.engine.containers.values()] == ["running", "running"]
    seen = set()
    writes = len(world.writes)
    for _ in range(116):
        world.rest(31)
        seen.add(world.container().health)
    assert seen == {"healthy", "unhealthy"}
    assert world.writes[writes:] == []


def test_an_agent_that_was_stopped_for_10_minutes_makes_one_pass_when_it_goes_on(world: World) -> None:
    world.declare(WEB.replace("64m", "128m"), 5)
    world.engine.crash("web")
    passes, writes = passes_of(world), len(world.writes)
    world.write(WEB.replace("64m", "256m"))
    world.time.advance_to(world.time.now + 600)  # SIGSTOP: only the engine runs meanwhile
    world.rest(1)
    assert 1 <= passes_of(world) - passes <= 3
    assert world.container().host["Memory"] == 256 << 20
    assert world.container().state == "running"
    assert len(world.writes) - writes <= 2
    world.rest(60)
    assert passes_of(world) - passes <= 5


def test_a_change_at_the_gate_is_followed_without_waiting_for_its_end(world: World) -> None:
    world.declare(WEB.replace("1000000", "2000000") + "\toption gate '300'\n", 5)
    world.declare(WEB.replace("1000000", "3000000") + "\toption gate '1'\n", 5)
    world.rest(15)
    assert world.container().config["Cmd"][1] == "3000000"
    assert len(world.engine.containers) == 1


def test_a_clock_that_is_set_makes_nothing_older(world: World) -> None:
    """NTP, a minute after the boot of a router without a battery-backed clock."""
    assert world.agent is not None
    board = world.agent.reconciler.board
    world.set_clock(-3 * DAY_S)
    world.declare(WEB.replace("64m", "128m").replace("app:1", "missing:1"), 5)
    world.rest(60)
    world.set_clock(0)
    world.rest(120)
    resource = board.resource("container:web")
    assert resource is not None
    now = world.time.wall()
    times = {c["type"]: now - c["since"] for c in resource["conditions"]}
    times |= {note["op"]: now - note["at"] for note in resource["operations"]}
    assert all(-1 <= age < 1200 for age in times.values()), times
