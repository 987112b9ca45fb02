# SPDX-License-Identifier: GPL-2.0-or-later
"""Somebody else works on the same containers in the middle of our swap: it converges, and nothing foreign is lost."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import docker.errors
import pytest

from agent.errors import EngineError
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
OLD, NEW = "web.ucidockd-old", "web.ucidockd-new"


def take_the_name(box: Box) -> None:
    box.client.containers.create(BUSYBOX, ["sleep", "5"], name="web")


def test_looks_go_on_while_a_container_is_adopted(box: Box) -> None:
    box.client.containers.run(BUSYBOX, ["sleep", "5"], name="web", detach=True)
    box.write(WEB + "\toption adopt '1'\n")
    box.reconciler.read_config()
    _, run = box.reconciler.begin_pass(deep=None)
    assert run is not None
    while box.reconciler.is_busy():
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


# before which call of the swap, which of them, and what is done
RACES: dict[str, tuple[str, int, Callable[[Box], object]]] = {
    "the new one is removed before its start": ("start", 1, lambda box: box.get("web").remove(force=True)),
    "the old one is removed": ("rename", 1, lambda box: box.get("web").remove(force=True)),
    "the old one is removed once set aside": ("start", 1, lambda box: box.get(OLD).remove(force=True)),
    "the old one is started again": ("start", 1, lambda box: box.get(OLD).start()),
    "the new one is renamed": ("rename", 1, lambda box: box.get(NEW).rename("mine")),
    "the old one is renamed": ("start", 1, lambda box: box.get(OLD).rename("mine")),
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
            assert box.get(OLD).status == "running"  # not under its name, but it runs
        assert box.get("web").id == foreign.id
        foreign.remove(force=True)
    oracle.converge()
    oracle.check({"web": "sleep 2000"})
