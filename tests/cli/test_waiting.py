# SPDX-License-Identifier: GPL-2.0-or-later
"""How `start` and `stop` wait for the agent: an error ends the wait, but not one from before."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from agent.cli import actions

KEY = "container:web"
IDLE: dict[str, Any] = {"operations": [], "pending": []}
BUSY: dict[str, Any] = {"operations": [], "pending": [{"key": KEY, "state": "in progress"}]}


def look(level: str, *, synced: bool = False) -> dict[str, Any]:
    conditions = [{"type": "Synced", "status": synced, "reason": "Pending", "message": level}]
    resource = {
        "key": KEY,
        "kind": "container",
        "level": level,
        "verdict": "Synced",
        "conditions": conditions,
    }
    return {"agent": {}, "resources": [resource]}


@pytest.mark.parametrize(
    ("looks", "plans", "ends"),
    [
        ([look("error"), look("error")], [IDLE], "error"),
        ([look("error"), look("ok", synced=True)], [IDLE], ""),
        ([look("error"), look("waiting"), look("error"), look("ok", synced=True)], [IDLE, BUSY], ""),
        ([look("error"), look("error"), look("error")], [BUSY, IDLE], "error"),
    ],
)
def test_an_error_ends_the_wait_if_no_work_goes_on_at_this_and_the_last_look(
    monkeypatch: pytest.MonkeyPatch, looks: list[dict[str, Any]], plans: list[dict[str, Any]], ends: str
) -> None:
    answers = iter(plans)
    monkeypatch.setattr(actions, "LOOK_S", 0)
    monkeypatch.setattr(actions, "catch_up", lambda args, seconds: "")
    monkeypatch.setattr(actions, "_looks", lambda args: iter(looks))
    monkeypatch.setattr(actions, "call", lambda socket, method, path: next(answers))
    args = argparse.Namespace(socket="agent.sock")
    assert actions.settled(args, "web", 30, lambda: False) == ends
    assert not list(answers)
