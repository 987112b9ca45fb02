# SPDX-License-Identifier: GPL-2.0-or-later
"""An object that the engine creates after the agent looked for it: the agent was killed, or gave up waiting."""

from __future__ import annotations

from typing import Any

import pytest

from agent.apply.ports import MISSED_S
from agent.model.identity import LABEL_NONCE
from agent.wire.record_lines import read
from tests.support.virtual.taps import Fault
from tests.support.virtual.world import RESPAWN_S, World

LAN = "\nconfig network 'lan'\n"
DATA = "\nconfig volume 'data'\n"
WEB = """
config container 'web'
	option image 'app:1'
	option command 'sleep 100000'
	option stop_timeout '0'
	option gate '1'
	option grace '5'
	list network 'lan'
	list volume 'data:/data'
	list volume '/anonymous'
"""
TEXT = LAN + DATA + WEB
KINDS = ("network", "volume", "container")  # in the order of their creation
LATE = (Fault.LATE, Fault.KILL_LATE)


def declare(world: World, text: str, seconds: float = 20) -> None:
    world.write(text)
    world.tell()
    world.rest(1)  # a rest ends with the start of an agent that was killed in it
    world.rest(seconds - 1)


def lose(world: World, fault: Fault, *, skip: int = 0, late_s: float = RESPAWN_S + 1) -> None:
    """The next creation but `skip` has no answer, and comes late: after the next agent has looked."""
    world.plan.fault, world.plan.skip, world.plan.count, world.plan.late_s = fault, skip, 1, late_s


def conditions(world: World, key: str) -> dict[str, Any]:
    return {kind: (found["status"], found["reason"]) for kind, found in world.conditions(key).items()}


def all_synced(world: World) -> bool:
    reasons = [c for r in world.snapshot()["resources"] for c in r["conditions"] if c["type"] == "Synced"]
    return len(reasons) == len(KINDS) and all(c["status"] for c in reasons)


def missed(world: World) -> list[str]:
    records = read((world.options.state_dir / "state.json").read_bytes()).records.values()
    return [record.key for record in records if record.missed_at is not None]


def nonce_of(world: World, section: str) -> str:
    return next(str(r["nonce"]) for r in world.records() if r["section"] == section and not r["missed_at"])


@pytest.mark.parametrize("fault", LATE)
@pytest.mark.parametrize("skip", range(len(KINDS)), ids=KINDS)
@pytest.mark.parametrize("late_s", [0.0, RESPAWN_S + 1])
def test_it_is_taken_when_it_comes(world: World, fault: Fault, skip: int, late_s: float) -> None:
    lose(world, fault, skip=skip, late_s=late_s)
    declare(world, TEXT, 120)
    assert world.plan.count == 0
    assert all_synced(world), world.snapshot()["resources"]
    assert world.plan_text() == "nothing to do"
    web = world.engine.find("web")
    assert web is not None
    assert web.state == "running"
    assert web.config["Labels"][LABEL_NONCE] == nonce_of(world, "web")
    assert sorted(c.name for c in world.engine.containers.values()) == ["web"]
    world.rest(MISSED_S + 60)
    assert missed(world) == []
    assert world.open_records() == []


@pytest.mark.parametrize("fault", LATE)
def test_the_new_container_of_a_swap_is_removed(world: World, fault: Fault) -> None:
    declare(world, TEXT)
    lose(world, fault, late_s=100)
    declare(world, TEXT.replace("100000", "200000"), 400)
    assert [(c.name, c.state) for c in world.engine.containers.values()] == [("web", "running")]
    assert all_synced(world), world.snapshot()["resources"]


def test_it_goes_after_its_grace_period_without_its_section(world: World) -> None:
    lose(world, Fault.KILL_LATE, skip=2)
    declare(world, TEXT, 1)
    assert not world.alive
    declare(world, LAN + DATA, 10)
    assert world.engine.find("web") is not None
    world.rest(60)
    assert world.engine.containers == {}


def test_what_came_first_stays(world: World) -> None:
    """The section was renamed on the engine meanwhile, so that both could be created."""
    lose(world, Fault.KILL_LATE, skip=2, late_s=60)
    declare(world, TEXT, 1)
    declare(world, TEXT + "\toption name 'www'\n", 30)
    www = world.engine.find("www")
    assert www is not None
    world.rest(120)
    assert [c.id for c in world.engine.containers.values()] == [www.id]
    assert www.state == "running"


def test_a_container_that_someone_started_is_not_removed(world: World) -> None:
    lose(world, Fault.KILL_LATE, skip=2, late_s=60)
    declare(world, TEXT, 1)
    declare(world, TEXT + "\toption name 'www'\n", 30)
    world.kill_agent()
    while world.engine.find("web") is None:
        world.run(1)
    world.engine.start("web")
    world.rest(120)
    web = world.engine.find("web")
    assert web is not None
    assert web.state == "running"


def test_a_copy_of_its_labels_is_not_taken(world: World) -> None:
    """`docker commit` puts the labels of a container into the image."""
    lose(world, Fault.KILL_LATE, skip=2, late_s=1e6)
    declare(world, TEXT, 30)
    (nonce,) = (
        r.nonce
        for r in read((world.options.state_dir / "state.json").read_bytes()).records.values()
        if r.missed_at is not None
    )
    world.engine.reserved.clear()
    labels = {"ucidockd.instance": world.instance(), LABEL_NONCE: nonce}
    body = {
        "Image": "app:1",
        "Cmd": ["sleep", "100"],
        "HostConfig": {"NetworkMode": "none"},
        "Labels": labels,
    }
    copy = world.engine.create_container("copy", body)
    world.engine.start(copy)
    world.rest(400)
    assert world.engine.find(copy) is not None
    assert world.engine.find(copy).name == "copy"
    web = world.engine.find("web")
    assert web is not None
    assert (web.state, web.id == copy) == ("running", False)


def test_the_data_of_the_container_before_is_kept(world: World) -> None:
    declare(world, TEXT)
    before = anonymous(world)
    lose(world, Fault.KILL_LATE, late_s=RESPAWN_S + 1)
    world.engine.remove_container("web", volumes=False, force=True)
    declare(world, TEXT, 120)
    assert anonymous(world) == before
    assert all_synced(world), world.snapshot()["resources"]
    world.rest(MISSED_S + 60)
    assert missed(world) == []


def anonymous(world: World) -> str:
    web = world.engine.find("web")
    assert web is not None
    return next(str(m["Name"]) for m in web.mounts if m["Destination"] == "/anonymous")


def test_a_network_that_is_put_back_is_known_though_the_engine_gave_no_answer(world: World) -> None:
    declare(world, TEXT)
    calls = iter((Fault.ERROR_500, Fault.LOST_REPLY))
    taken = world.plan.take

    def take(name: str) -> Fault | None:
        return next(calls, None) if name == "engine.create_network" else taken(name)

    world.plan.take = take  # type: ignore[method-assign]
    declare(world, TEXT.replace("'lan'\n\nconfig v", "'lan'\n\toption internal '1'\n\nconfig v"), 120)
    assert next(calls, None) is None
    assert all_synced(world), world.snapshot()["resources"]


def test_few_of_them_are_kept(world: World) -> None:
    declare(world, TEXT)
    for number in range(40):
        lose(world, Fault.KILL_LATE, late_s=1e6)
        declare(world, TEXT + f"\nconfig network 'n{number}'\n", 1)
        world.rest(RESPAWN_S + 1)
    assert 20 < len(missed(world)) <= 32
