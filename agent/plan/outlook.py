# SPDX-License-Identifier: GPL-2.0-or-later
"""What a plan says beyond its operations: what is under way, waits, is in conflict, is retried, or comes later.

A plan without operations is not "nothing to do" while anything of this stands.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from agent.plan import operations as ops
from agent.status.conditions import ConditionType, Level, level_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One resource that is not as declared, or not yet.

    `state`: one of `STATES`. `level`: ERROR needs a person, WAITING gets there by itself, WARNING and OFF are as
    a user wanted it. `op`: with `then`, what will be done. `retry_in_s`: seconds, with `retry`. `output`: what its
    container printed last, where it keeps ending.
    """

    key: str
    state: str
    level: Level
    message: str
    op: str = ""
    retry_in_s: float | None = None
    output: str = ""

    def words(self) -> str:
        """What the first column of a plan says."""
        if self.state == "then":
            return f"then {self.op}"
        if self.retry_in_s is not None:
            return f"retry in {math.ceil(self.retry_in_s)} s"
        return self.state


# in the order in which a plan lists them
STATES = (
    "then",  # a later wave: once something else is done
    "in progress",
    "waiting",
    "removal",  # its section is gone, it is deleted after its grace period
    "held",  # a manual action that is not undone
    "disabled",
    "drift",  # that is only reported
    "retry",
    "failed",
    "rolled back",
    "conflict",
    "invalid",  # what UCI says cannot be used
    "blocked",
)
_STATE_OF_REASON = {
    "BackOff": "retry",
    "Conflict": "conflict",
    "CrashLoop": "failed",
    "Drift": "drift",
    "Grace": "removal",
    "Held": "held",
    "Pending": "waiting",
    "RolledBack": "rolled back",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """A plan, and what else there is to say. `before`: what dockerd's stage does first. `ok`: nothing is an error."""

    plan: ops.Plan
    entries: tuple[Entry, ...]
    notes: tuple[Entry, ...] = ()  # worth knowing of what is as declared: its state is `update` or `pinned`
    before: tuple[ops.ChangeDaemon, ...] = ()

    @property
    def operations(self) -> tuple[ops.Operation, ...]:
        """All that would be done, in its order."""
        return (*self.before, *self.plan.operations)

    @property
    def ok(self) -> bool:
        return all(entry.level is not Level.ERROR for entry in self.entries)

    def beyond(self, other: Outlook, *, own: Collection[str]) -> Outlook:
        """What this one has and `other` has not, and whatever it has of the keys in `own`."""
        known = {(o.key, o.verb, o.cause) for o in other.operations}
        told = {(e.key, e.state, e.message) for e in other.entries}

        def is_new(operation: ops.Operation) -> bool:
            return operation.key in own or (operation.key, operation.verb, operation.cause) not in known

        works = (replace(work, operations=tuple(filter(is_new, work.operations))) for work in self.plan.works)
        return Outlook(
            plan=replace(self.plan, works=tuple(work for work in works if work.operations)),
            entries=tuple(e for e in self.entries if e.key in own or (e.key, e.state, e.message) not in told),
            notes=tuple(note for note in self.notes if note.key in own),
            before=tuple(filter(is_new, self.before)),
        )


def outlook(
    plan: ops.Plan,
    later: ops.Plan,
    *,
    busy: Mapping[str, str],
    retry_in_s: Mapping[str, float],
    extra: Iterable[Entry] = (),
) -> Outlook:
    """`later`: the plan were every dependency as far as `plan` waits for. `busy`: key -> what is under way.

    `retry_in_s`: key -> seconds, of what is in back-off. `extra`: what the caller knows.
    """
    working = {work.key for work in plan.works}
    coming = {work.key: work.operations[0].verb for work in later.works if work.key not in working}
    notes = (
        Entry(key=f.key, state=NOTE_STATES[f.type], level=Level.OK, message=f.message)
        for f in plan.findings
        if f.type in NOTE_STATES and f.status
    )
    outputs = {finding.key: finding.output for finding in plan.findings if finding.output}
    found = [Entry(key=key, state="in progress", level=Level.WAITING, message=busy[key]) for key in busy]
    for finding in plan.findings:
        level = level_of(ConditionType(finding.type), status=finding.status, reason=finding.reason)
        if not _is_told(plan, finding) or level is Level.OK or finding.key in busy:
            continue
        if finding.type == ConditionType.SYNCED and finding.reason == "Waiting":
            continue  # what it waits for is its own finding
        if finding.once and finding.key in coming:
            message, op = f"once {finding.once}", coming[finding.key]
            found.append(Entry(key=finding.key, state="then", level=level, message=message, op=op))
        elif not (finding.type == ConditionType.DEGRADED and _is_told_already(plan, finding)):
            entry = _entry(finding, level, retry_in_s.get(finding.key))
            found.append(replace(entry, output=outputs.get(finding.key, "")))
    ordered = sorted([*found, *extra], key=lambda entry: STATES.index(entry.state))
    return Outlook(plan=plan, entries=tuple(ordered), notes=tuple(notes))


NOTE_STATES: Mapping[str, str] = {ConditionType.UPDATE_AVAILABLE: "update", ConditionType.PINNED: "pinned"}
_TOLD = frozenset({ConditionType.SYNCED, ConditionType.WAITING, ConditionType.DEGRADED})


def _is_told(plan: ops.Plan, finding: ops.Finding) -> bool:
    """A container that the engine restarts again and again needs no operation, but does not run as declared."""
    if finding.reason == "CrashLoop":
        return all(work.key != finding.key for work in plan.works) and not _is_told_already(plan, finding)
    return finding.type in _TOLD


def _is_told_already(plan: ops.Plan, other: ops.Finding) -> bool:
    return any(f.key == other.key and f.type == ConditionType.SYNCED and not f.status for f in plan.findings)


def _entry(finding: ops.Finding, level: Level, retry_in_s: float | None) -> Entry:
    state = _STATE_OF_REASON.get(finding.reason, "blocked")
    if finding.type == ConditionType.WAITING:
        state = "waiting"
    return Entry(
        key=finding.key,
        state=state,
        level=level,
        message=f"it ends again and again: {finding.message}"
        if state == "failed"
        else finding.message or finding.reason,
        retry_in_s=retry_in_s if state == "retry" else None,
    )


def text_of(
    operations: Iterable[ops.Operation], entries: Iterable[Entry], notes: Iterable[Entry] = ()
) -> str:
    """A line for each: what, which resource, why. `nothing to do` where there is nothing but notes."""
    rows = [(operation.verb, operation.key, operation.cause) for operation in operations]
    rows += [(entry.words(), entry.key, entry.message) for entry in entries]
    head = [] if rows else ["nothing to do"]
    rows += [(note.words(), note.key, note.message) for note in notes]
    return "\n".join([*head, *(f"{what:<14} {key:<24} {why}".rstrip() for what, key, why in rows)])
