# SPDX-License-Identifier: GPL-2.0-or-later
"""Somebody else works on the same containers in the middle of our swap: it converges, and nothing foreign is lost."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

import docker.errors
import pytest
from docker.models.containers import Container

from agent.engine.client import DockerEngine
from agent.errors import EngineError, EngineUnreachableError
from agent.plan.records import Role, name_outside, swap_name
from tests.support.box import Box
from tests.support.dockerd import BUSYBOX
from tests.support.oracle import Oracle

WEB = """
config container 'web'
	option image 'IMAGE'
	option command 'sleep 1000'
	option stop_timeout '0'
	option gate '0.4'
	option restart 'always'
"""


def aside(box: Box, role: Role) -> Container:
    """The container of that role while one is replaced."""
    return box.get(next(name for name in box.names() if name_outside(name, role) == "web"))


def take_the_name(box: Box) -> None:
    box.client.containers.create(BUSYBOX, ["sleep", "5"], name="web")


def test_looks_go_on_while_a_container_is_adopted(box: Box) -> None:
    box.client.containers.run(BUSYBOX, ["sleep", "5"], name="web", detach=True)
    box.write(WEB + "\toption adopt '1'\n")
    box.reconciler.read_config()
    _, run = box.reconciler.begin_pass(deep=None)
    assert run is not None
    while box.reconciler.under_way.is_busy():
        assert str(box.reconciler.make_plan(deep=None)) == "nothing to do"
    assert [outcome.error for outcome in run.wait()] == [None]
    box.apply()
    assert box.get("web").attrs["Config"]["Cmd"] == ["sleep", "1000"]


def test_a_failed_adoption_leaves_the_container_as_it_was_and_is_not_tried_again(box: Box) -> None:
    foreign = box.client.containers.run(BUSYBOX, ["sleep", "500"], name="web", detach=True)
    bad = (WEB + "\toption adopt '1'\n").replace("sleep 1000", "false")
    assert len(box.errors(bad)) == 1
    restarted = box.get("web").attrs["State"]["StartedAt"]
    box.restart_agent()
    for _ in range(2):
        assert str(box.apply(bad)[0]) == "nothing to do"
    assert (box.get("web").id, box.get("web").attrs["State"]["StartedAt"]) == (foreign.id, restarted)
    assert box.errors(bad.replace("false", "sleep 1000")) == []
    assert box.names() == ["web"]
    assert [record.swap for record in box.reconciler.records.records()] == [""]


def test_an_old_container_that_ends_while_its_restart_policy_is_switched_off_is_replaced(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine refuses to change the process that it has just lost."""
    box.apply(WEB.replace("always", "no"))
    real = box.reconciler.engine.update

    def lost(ref: str, body: dict[str, Any]) -> None:
        if box.client.api.inspect_container(ref)["State"]["Running"]:
            box.client.api.kill(ref)
            box.client.api.wait(ref)
            raise EngineError("cannot update a stopped container", status=500)
        real(ref, body)

    monkeypatch.setattr(box.reconciler.engine, "update", lost)
    assert box.errors(WEB.replace("always", "no").replace("1000", "2000")) == []
    assert box.get("web").attrs["Config"]["Cmd"] == ["sleep", "2000"]


def test_a_foreign_container_on_a_name_of_the_swap_costs_nothing(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.apply(WEB)
    started = box.get("web").attrs["State"]["StartedAt"]
    monkeypatch.setattr("agent.apply.swap.secrets.token_hex", lambda size: "ab" * size)
    for role in ("old", "new"):
        foreign = box.client.containers.create(BUSYBOX, ["sleep", "5"], name=swap_name("web", role, "ab" * 8))
        [error] = box.errors(WEB.replace("1000", "2000"))
        assert error == f"a container named {foreign.name} exists, and ucidockd did not create it"
        assert box.get("web").attrs["State"]["StartedAt"] == started
        assert box.get(foreign.name).id == foreign.id
        assert [record.swap for record in box.reconciler.records.records()] == [""]
        foreign.remove()
        box.later(400)
    monkeypatch.undo()
    assert box.errors(WEB.replace("1000", "2000")) == []


def test_names_that_were_those_of_a_swap_once_are_nothing_to_an_edit(box: Box) -> None:
    box.apply(WEB)
    for name in ("web.ucidockd-old", "web.ucidockd-new"):
        box.client.containers.create(BUSYBOX, ["sleep", "5"], name=name)
    assert box.errors(WEB.replace("1000", "2000")) == []
    assert box.names() == ["web", "web.ucidockd-new", "web.ucidockd-old"]


@pytest.mark.parametrize("step", ["start", "stop"])
def test_a_swap_that_version_0_1_0_began_is_undone(
    box: Box, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Its names had no nonce."""
    box.apply(WEB)
    web = box.get("web").id

    class Killed(BaseException):
        pass

    def die(*args: Any, **named: Any) -> Any:
        raise Killed

    monkeypatch.setattr(box.reconciler.engine, step, die)
    record = box.reconciler.records.records()[0]
    box.write(WEB.replace("1000", "2000"))
    box.reconciler.read_config()
    container = box.reconciler.desired.containers[0] if box.reconciler.desired else None
    assert container is not None
    executor = box.reconciler.under_way.executor(box.reconciler.desired, (1, 41))
    with pytest.raises(Killed):
        executor._swap().run(container, record, image_id=record.image_id)
    monkeypatch.undo()
    for role in ("old", "new"):
        for name in box.names():
            if name_outside(name, role):
                box.get(name).rename(f"web.ucidockd-{role}")
    assert len(box.names()) == 2
    box.restart_agent()
    box.apply(WEB)
    assert box.names() == ["web"]
    assert (box.get("web").id, box.get("web").status) == (web, "running")


# before which call of the swap, which of them, and what is done
RACES: dict[str, tuple[str, int, Callable[[Box], object]]] = {
    "the new one is removed before its start": ("start", 1, lambda box: box.get("web").remove(force=True)),
    "the old one is removed": ("rename", 1, lambda box: box.get("web").remove(force=True)),
    "the old one is removed once set aside": ("start", 1, lambda box: aside(box, "old").remove(force=True)),
    "the old one is started again": ("start", 1, lambda box: aside(box, "old").start()),
    "the new one is renamed": ("rename", 1, lambda box: aside(box, "new").rename("mine")),
    "the old one is renamed": ("start", 1, lambda box: aside(box, "old").rename("mine")),
    "the new one is killed at the gate": ("inspect_container", 2, lambda box: box.get("web").kill()),
    "somebody takes the name": ("rename", 2, take_the_name),
}
FAST = {"the old one is removed once set aside", "somebody takes the name"}


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.long) for name in RACES]
)
def test_it_converges_when(box: Box, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    method, number, act = RACES[name]
    box.apply(WEB)
    oracle = Oracle(box)
    engine, calls = box.reconciler.engine, 0
    real = getattr(engine, method)

    def racing(*args: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            act(box)
        return real(*args, **named)

    monkeypatch.setattr(engine, method, racing)
    box.write(WEB.replace("1000", "2000"))
    box.reconciler.read_config()
    plan, run = box.reconciler.begin_pass(deep=frozenset())
    assert [op.verb for op in plan.operations] == ["replace"]
    assert run is not None
    run.wait()
    assert calls >= number
    monkeypatch.undo()
    if name == "somebody takes the name":
        foreign = box.get("web")
        assert foreign.attrs["Config"]["Cmd"] == ["sleep", "5"]
        box.reconciler.backoff.clear()
        box.apply()
        with contextlib.suppress(docker.errors.NotFound):
            assert aside(box, "old").status == "running"  # not under its name, but it runs
        assert box.get("web").id == foreign.id
        foreign.remove(force=True)
    oracle.converge()
    oracle.check({"web": "sleep 2000"})


@pytest.mark.variants(1)
@pytest.mark.parametrize("what", ["create_container", "create_network", "create_volume"])
def test_what_the_engine_creates_after_the_next_agent_looked_is_ours(box: Box, what: str) -> None:
    """The agent is killed while the engine creates something, and the next agent creates it again meanwhile."""
    oracle, asked = Oracle(box), list[Callable[[], Any]]()

    def never_answered(*args: Any, **named: Any) -> None:
        asked.append(partial(getattr(DockerEngine, what), box.reconciler.engine, *args, **named))
        raise EngineUnreachableError("no answer")

    setattr(box.reconciler.engine, what, never_answered)
    text = (
        "config network 'lan'\n\nconfig volume 'data'\n"
        + WEB
        + "\tlist network 'lan'\n\tlist volume 'data:/data'\n"
    )
    with contextlib.suppress(EngineError):
        box.apply(text)
    box.restart_agent()
    create = getattr(box.reconciler.engine, what)

    def after_the_late_one(*args: Any, **named: Any) -> Any:
        while asked:
            asked.pop()()
        return create(*args, **named)

    setattr(box.reconciler.engine, what, after_the_late_one)
    oracle.converge()
    assert asked == []
    oracle.check({"web": "sleep 1000"}, networks={"lan"})
