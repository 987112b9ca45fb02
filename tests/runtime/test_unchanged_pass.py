# SPDX-License-Identifier: GPL-2.0-or-later
"""A pass over what has not changed: it plans nothing anew, and says nothing new."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from agent.model.observed import ObservedContainer
from agent.runtime import reconciler as module
from agent.runtime.reconciler import Reconciler
from tests.support.box import Box

CONFIG = "".join(
    f"config container '{name}'\n\toption image 'IMAGE'\n\toption command 'sleep 1000'\n"
    "\toption network_mode 'none'\n\toption stop_timeout '0'\n"
    for name in ("one", "two")
)


@dataclass(kw_only=True)
class Settled:
    """Two containers that need nothing, `seen` in the engine's list; `plans` counts what was planned since."""

    reconciler: Reconciler
    seen: tuple[ObservedContainer, ...]
    plans: list[str] = field(default_factory=list)

    def show(self, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
        """From now on the list shows container `one` with these changes."""
        shown = tuple(replace(c, **changes) if c.name == "one" else c for c in self.seen)
        monkeypatch.setattr(self.reconciler.engine, "list_containers", lambda instance: shown)

    def said(self) -> dict[str, float]:
        """Section -> since when it runs."""
        return {
            resource["section"]: condition["since"]
            for resource in self.reconciler.board.snapshot()["resources"]
            for condition in resource["conditions"]
            if condition["type"] == "Running"
        }


@pytest.fixture
def settled(box: Box, monkeypatch: pytest.MonkeyPatch) -> Settled:
    assert box.errors(CONFIG) == []
    reconciler = box.reconciler
    reconciler.run_pass(deep=frozenset())
    made = Settled(reconciler=reconciler, seen=reconciler.engine.list_containers(reconciler.records.instance))
    real = module.reconcile

    def counted(*args: Any) -> Any:
        plan = real(*args)
        made.plans.append(str(plan))
        return plan

    monkeypatch.setattr(module, "reconcile", counted)
    return made


def test_a_container_that_grew_older_is_not_planned_for(
    settled: Settled, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, version = settled.said(), settled.reconciler.board.version
    began, up = settled.reconciler.wall(), settled.reconciler.monotonic()
    for age, words in ((45, "Up 45 seconds"), (200, "Up 3 minutes"), (8 * 604_800, "Up 8 weeks")):
        settled.reconciler.wall = lambda age=age: began + age  # type: ignore[misc]
        settled.reconciler.monotonic = lambda age=age: up + age  # type: ignore[misc]
        settled.seen = tuple(replace(c, status_text=words) for c in settled.seen)
        settled.show(monkeypatch)
        assert str(settled.reconciler.run_pass(deep=frozenset())[0]) == "nothing to do"
        assert settled.said() == before
    assert settled.plans == []
    assert settled.reconciler.board.version == version


def test_whatever_else_changes_is_planned_for(settled: Settled, monkeypatch: pytest.MonkeyPatch) -> None:
    changes: tuple[dict[str, Any], ...] = (
        {"state": "paused"},
        {"health": "unhealthy"},
        {"state": "exited", "exit_code": 1},
        {"labels": {}},
        {"name": "other"},
    )
    for number, change in enumerate(changes, 1):
        settled.show(monkeypatch, **change)
        settled.reconciler.make_plan(deep=frozenset())
        assert len(settled.plans) == number, change
