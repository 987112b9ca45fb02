# SPDX-License-Identifier: GPL-2.0-or-later
"""Planning what no section declares any more: stopped at once, deleted after the grace period."""

from __future__ import annotations

import math

from agent.model.clock import clock_is_set
from agent.model.observed import Record
from agent.plan import operations as ops
from agent.plan.draft import Draft, key_of
from agent.plan.objects import is_same_volume

_ORDER = {"container": 0, "network": 1, "volume": 2}


def plan_orphans(draft: Draft) -> None:
    """Goes through the records that have no section."""
    desired = draft.desired
    known = {key_of("container", c.section) for c in desired.containers}
    known |= {key_of("network", n.section) for n in desired.networks}
    known |= {key_of("volume", v.section) for v in desired.volumes}
    known |= desired.broken
    for record in sorted(draft.context.records, key=lambda r: (_ORDER[r.kind], r.section)):
        key = key_of(record.kind, record.section)
        if key in known or record.swap or draft.hands_off(key, record):
            continue
        if key_of(record.kind, record.name) in desired.claimed:
            message = f"section removed; one with a mistake has its name, {record.name}: kept until that is mended"
            draft.find(key, "Synced", status=False, reason="Pending", message=message)
            continue
        _orphan(draft, key, record)


def _orphan(draft: Draft, key: str, record: Record) -> None:
    if _object_gone(draft, record):
        draft.add(key, [ops.Forget(key=key, cause="section and object are gone", record=record)])
        return
    if record.removed_at is None:
        draft.add(key, [ops.RetireContainer(key=key, cause="section removed", record=record)])
        return
    if _clock_was_set(record.removed_at, draft.context.now):
        cause = "section removed, and the clock was set since: the grace period begins again"
        draft.add(key, [ops.RetireContainer(key=key, cause=cause, record=record)])
        return
    if _is_kept(draft, record, record.removed_at):
        message = f"section removed; the {record.kind} will be deleted {record.grace_s:.0f} s later"
        draft.find(key, "Synced", status=False, reason="Grace", message=message)
        return
    if draft.context.deletions_held:
        message = f"section removed; it will be deleted later: {draft.context.deletions_held}"
        draft.find(key, "Synced", status=False, reason="Pending", message=message)
        return
    cause = "its section has been gone for the grace period"
    operation: ops.Operation
    if record.kind == "container":
        operation = ops.RemoveContainer(key=key, cause=cause, record=record, volumes=record.remove_volumes)
    elif record.kind == "network":
        operation = ops.RemoveNetwork(key=key, cause=cause, record=record)
    elif draft.desired.agent.remove:
        operation = ops.RemoveVolume(key=key, cause=cause, record=record)
    else:
        operation = ops.Forget(key=key, cause="volumes are kept; it is nobody's now", record=record)
    users = [k for k in draft.works if k.startswith("container:")] if record.kind != "container" else ()
    draft.add(key, [operation], users)


def _is_kept(draft: Draft, record: Record, removed_at: float) -> bool:
    """Whether its grace period is not over, by the clock on the wall and, as far as that was watched, by the other."""
    by_wall = draft.context.now < removed_at + record.grace_s
    return by_wall or draft.context.orphaned_s.get(record.nonce, math.inf) < record.grace_s


def _clock_was_set(then: float, now: float) -> bool:
    """Whether the two times do not tell how long ago it was."""
    return then > now or (clock_is_set(now) and not clock_is_set(then))


def _object_gone(draft: Draft, record: Record) -> bool:
    if record.kind == "container":
        return all(c.id != record.object_id for c in draft.observed.containers)
    if record.kind == "network":
        return all(n.id != record.object_id for n in draft.observed.networks)
    return not any(is_same_volume(v, record) for v in draft.observed.volumes)
