# SPDX-License-Identifier: GPL-2.0-or-later
"""`ucidockd diff NAME`: one container as its section says, as it was applied, as the engine shows it. Blocking."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from agent.errors import ConfigError
from agent.model.observed import ObservedContainer, Record
from agent.model.resources import Container, RunState
from agent.plan.container.difference import FieldDifference, differences
from agent.plan.container.meaning import defaults_of
from agent.plan.draft import key_of
from agent.runtime.reconciler import Reconciler
from agent.status.conditions import ConditionType


def diff(reconciler: Reconciler, name: str) -> dict[str, Any]:
    """`name` is a section or a Docker name. Raises ConfigError for neither, EngineError."""
    container = _find(reconciler, name)
    key = key_of("container", container.section)
    records = [r for r in reconciler.records.records() if r.kind == "container" and not r.swap]
    record = next((r for r in records if r.section == container.section), None)
    seen = reconciler.engine.inspect_container(record.object_id if record else container.name)
    names = {r.object_id: r.name for r in records}
    plan = reconciler.make_plan(deep=None)
    image_id = reconciler.image_ids.get(container.spec.image, "")
    daemon = reconciler.desired.daemon if reconciler.desired is not None else None
    defaults = defaults_of(daemon, reconciler.image_defaults.get(record.image_id if record else ""))
    inspect = seen.inspect if seen else None
    found = differences(container, record, inspect, names=names, image_id=image_id, defaults=defaults)
    rows = (*_outside(container, record, seen), *found)
    return {
        "key": key,
        "name": container.name,
        "object_id": seen.id if seen else "",
        "ours": record is not None,
        "fields": [asdict(row) for row in rows],
        "operations": [
            {"op": op.verb, "key": op.key, "cause": op.cause} for op in plan.operations if op.key == key
        ],
        "output": _failed_output(reconciler, key),
        "findings": [
            {"type": f.type, "status": f.status, "reason": f.reason, "message": f.message}
            for f in plan.findings
            if f.key == key
        ],
    }


def _failed_output(reconciler: Reconciler, key: str) -> str:
    """What the container printed last whose start failed, or that ends again and again."""
    standing = (
        reconciler.board.standing(key, kind) for kind in (ConditionType.DEGRADED, ConditionType.RUNNING)
    )
    return next((c.details["output"] for c in standing if c is not None and "output" in c.details), "")


def _find(reconciler: Reconciler, name: str) -> Container:
    declared = reconciler.desired.containers if reconciler.desired is not None else ()
    for container in sorted(declared, key=lambda c: c.section != name):
        if name in (container.section, container.name):
            return container
    broken = reconciler.desired is not None and f"container:{name}" in reconciler.desired.broken
    reason = "the section has a mistake, see `ucidockd check`" if broken else "no container section has it"
    known = ", ".join(c.section for c in declared) or "none is declared"
    raise ConfigError(f"{name}: {reason}; expected a section or a Docker name ({known})")


def _outside(
    container: Container, record: Record | None, seen: ObservedContainer | None
) -> tuple[FieldDifference, ...]:
    """What is not part of the spec: whether it is there, its name, whether it runs."""
    if seen is None:
        return (_row("container", "declared", "created" if record else "", "absent"),)
    rows = []
    if seen.name != container.name:
        rows.append(_row("name", container.name, record.name if record else "", seen.name))
    runs = container.policy.enabled and container.policy.state is RunState.RUNNING
    if runs is not (seen.state == "running"):
        rows.append(_row("state", "running" if runs else "stopped", "", seen.state))
    return tuple(rows)


def _row(field: str, desired: str, applied: str, observed: str) -> FieldDifference:
    edited = applied not in ("", "created", desired)
    return FieldDifference(
        field=field, desired=desired, applied=applied, observed=observed, edited=edited, drifted=True
    )
