# SPDX-License-Identifier: GPL-2.0-or-later
"""What runs, as the engine shows it: told of every container of ours, whatever can be planned for it.

A section with a mistake, one that waits or is in back-off, and one that is gone have a container that runs or does not.
"""

from __future__ import annotations

from agent.errors import Reason
from agent.model.observed import ObservedContainer
from agent.model.resources import Container
from agent.plan.container.plan import is_alive
from agent.plan.draft import Draft, key_of
from agent.status.conditions import REASON_OF_HEALTH, REASON_OF_STATE


def show_states(draft: Draft) -> None:
    """Notes `Running` and `Healthy` of each container that is declared, or recorded."""
    recorded = {key_of(r.kind, r.section): None for r in draft.context.records if r.kind == "container"}
    for key in dict.fromkeys([*draft.declared, *recorded]):
        _show(draft, key, draft.declared.get(key), _seen(draft, key))


def _seen(draft: Draft, key: str) -> ObservedContainer | None:
    """The container of a section. During a swap that is the one of the two that runs, under whatever name."""
    section = key.partition(":")[2]
    ids = [
        record.object_id
        for record in sorted(draft.context.records, key=lambda r: r.swap)
        if (record.kind, record.section) == ("container", section) and record.object_id
    ]
    there = [draft.containers_seen[object_id] for object_id in ids if object_id in draft.containers_seen]
    return next((seen for seen in there if is_alive(seen)), there[0] if there else None)


def _show(draft: Draft, key: str, container: Container | None, seen: ObservedContainer | None) -> None:
    if seen is None:
        enabled = container is None or container.policy.enabled
        draft.find(key, "Running", status=False, reason="Absent" if enabled else "Disabled")
        return
    running = seen.state == "running"
    reason: Reason = REASON_OF_STATE.get(seen.state, "Unknown")
    if seen.id in draft.context.completed:
        reason = "Completed"
    ended = seen.state in {"exited", "restarting", "dead"} and seen.last_exit_code is not None
    message = f"exited with {seen.last_exit_code}" if ended else ""
    draft.find(key, "Running", status=running, reason=reason, message=message, since=seen.since)
    if seen.health and running:
        draft.find(
            key,
            "Healthy",
            status=seen.health == "healthy",
            reason=REASON_OF_HEALTH.get(seen.health, "Unknown"),
        )
