# SPDX-License-Identifier: GPL-2.0-or-later
"""One pass without a running agent, for `ucidockd plan` and `ucidockd reconcile`."""

from __future__ import annotations

from pathlib import Path

from agent.model.resources import AgentSettings
from agent.runtime.config import load
from agent.runtime.main import locked, make_reconciler
from agent.runtime.options import RuntimeOptions
from agent.runtime.reconciler import outcomes_as_json, plan_as_json


def single_pass(options: RuntimeOptions, *, dry_run: bool) -> dict[str, object]:
    """Plans, and applies unless `dry_run`. Raises EngineError, ConfigError, AlreadyRunningError."""
    desired = load(options).desired
    settings = desired.agent if desired is not None else AgentSettings()
    reconciler = make_reconciler(options, settings)
    reconciler.read_config()
    issues = [{"severity": i.severity, "text": i.text()} for i in reconciler.last.issues]
    if dry_run:
        return {**plan_as_json(reconciler.make_plan(deep=None)), "issues": issues}
    socket = Path(options.socket or settings.socket)
    with locked(socket.parent / "agent.lock"):
        reconciler.forget_failures()
        reconciler.holds.clear()
        plan, outcomes = reconciler.run_pass(deep=None)
    return {**outcomes_as_json(plan, outcomes), "issues": issues}
