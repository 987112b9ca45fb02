# SPDX-License-Identifier: GPL-2.0-or-later
"""Manual actions asked for through us are not undone; what is done behind our back still is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from docker.models.containers import Container

from tests.support.box import Box

WEB = """
config container 'web'
	option image 'IMAGE'
	option command 'sleep 1000'
	option stop_timeout '0'
	option gate '0.3'
"""

ACTIONS: dict[str, Callable[[Container], object]] = {
    "stop": lambda c: c.stop(timeout=0),
    "pause": lambda c: c.pause(),
    "rename": lambda c: c.rename("other"),
    "remove": lambda c: c.remove(force=True),
}


def synced(box: Box) -> tuple[bool, str, str]:
    resources = {r["key"]: r for r in box.reconciler.board.snapshot()["resources"]}
    conditions = {c["type"]: c for c in resources["container:web"]["conditions"]}
    return tuple(conditions["Synced"][name] for name in ("status", "reason", "message"))  # type: ignore[return-value]


@pytest.mark.parametrize("action", ACTIONS)
def test_a_manual_action_is_held_until_a_reconcile_is_asked_for(box: Box, action: str) -> None:
    box.apply(WEB)
    assert box.reconciler.manual.hold("web", action)
    ACTIONS[action](box.get("web"))
    assert str(box.apply()[0]) == "nothing to do"
    assert synced(box) == (False, "Held", f"manual {action}; `ucidockd reconcile` undoes it")
    box.restart_agent()
    assert str(box.apply()[0]) == "nothing to do"
    box.reconciler.holds.clear()
    box.apply()
    assert (box.get("web").name, box.get("web").status) == ("web", "running")


def test_a_changed_section_ends_the_hold_and_another_section_does_not(box: Box) -> None:
    box.apply(WEB)
    box.reconciler.manual.hold("web", "stop")
    box.get("web").stop(timeout=0)
    box.apply(WEB + WEB.replace("'web'", "'two'"))
    assert box.get("web").status == "exited"
    box.apply(WEB.replace("gate '0.3'", "gate '0.2'"))
    assert box.get("web").status == "running"


def test_a_start_by_hand_ends_the_hold_of_a_stop(box: Box) -> None:
    box.apply(WEB)
    box.reconciler.manual.hold(box.get("web").short_id, "stop")
    box.get("web").stop(timeout=0)
    box.reconciler.manual.hold(box.get("web").id or "", "start")
    box.get("web").start()
    assert str(box.apply()[0]) == "nothing to do"
    assert synced(box)[:2] == (True, "InSync")


def test_a_container_that_is_declared_stopped_may_be_started_by_hand(box: Box) -> None:
    stopped = WEB + "\toption state 'stopped'\n"
    box.apply(stopped)
    box.reconciler.manual.hold("web", "start")
    box.get("web").start()
    assert str(box.apply(stopped)[0]) == "nothing to do"
    assert box.get("web").status == "running"


def test_an_action_that_failed_holds_nothing(box: Box) -> None:
    box.apply(WEB)
    box.reconciler.manual.hold("web", "stop")
    box.reconciler.manual.release("web")
    box.get("web").stop(timeout=0)
    box.apply()
    assert box.get("web").status == "running"


def test_containers_that_are_not_ours_are_never_held(box: Box) -> None:
    box.client.containers.run("busybox:test", ["sleep", "1000"], name="foreign", detach=True)
    box.apply(WEB)
    assert not box.reconciler.manual.hold("foreign", "stop")
    assert not box.reconciler.manual.hold("nobody", "stop")
