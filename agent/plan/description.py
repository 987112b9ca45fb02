# SPDX-License-Identifier: GPL-2.0-or-later
"""Describes a plan for people and programs: the effect of each operation, and what else is going on besides operations.

The effect of an operation is how much it changes, how long something is down and which other containers are affected.
Besides operations, a plan shows what is in progress, waiting, in conflict, retried or due later. As long as any of
these exists, a plan without operations does not say "nothing to do".
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from agent.model.container_table import ChangeLevel
from agent.model.resources import Container
from agent.plan import operations as ops
from agent.plan.container.changes import OptionChange, network_changes, option_changes
from agent.plan.draft import desired_spec, shared_names
from agent.status.conditions import ConditionType, Level, level_of


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingResource:
    """A resource that is not as declared, or not yet.

    `state`: one of `STATES`. `level`: ERROR needs a person, WAITING resolves by itself, WARNING and OFF are as the
    user wanted. `op`: with state `then`, the operation that will follow. `retry_in_s`: seconds, with state `retry`.
    `output`: the last output of a container that keeps ending.
    """

    key: str
    state: str
    level: Level
    message: str
    op: str = ""
    retry_in_s: float | None = None
    output: str = ""

    def words(self) -> str:
        """The text in the first column of a plan."""
        if self.state == "then":
            return f"then {self.op}"
        if self.retry_in_s is not None:
            return f"retry in {math.ceil(self.retry_in_s)} s"
        return self.state


# in the order in which a plan lists them
STATES = (
    "then",  # a later wave: follows once something else is done
    "in progress",
    "waiting",
    "removal",  # its section was removed; it is deleted after the grace period
    "held",  # by a manual action, which is not undone
    "disabled",
    "drift",  # only reported, not corrected
    "retry",
    "failed",
    "rolled back",
    "conflict",
    "invalid",  # UCI holds a value that cannot be used
    "blocked",
)
_STATE_OF_REASON = {
    "BackOff": "retry",
    "Conflict": "conflict",
    "CrashLoop": "failed",
    "Drift": "drift",
    "Grace": "removal",
    "Held": "held",
    "NameTaken": "conflict",
    "Pending": "waiting",
    "RolledBack": "rolled back",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanDescription:
    """A plan with its entries. `before`: what the daemon stage does first. `ok`: no entry is an error."""

    plan: ops.Plan
    entries: tuple[PendingResource, ...]
    notes: tuple[
        PendingResource, ...
    ] = ()  # about resources that are as declared: state `update` or `pinned`
    before: tuple[ops.ChangeDaemon, ...] = ()

    @property
    def operations(self) -> tuple[ops.Operation, ...]:
        """All operations, in order."""
        return (*self.before, *self.plan.operations)

    @property
    def ok(self) -> bool:
        return all(entry.level is not Level.ERROR for entry in self.entries)

    def beyond(self, other: PlanDescription, *, own: Collection[str]) -> PlanDescription:
        """The part of this description that `other` does not contain, plus everything about the keys in `own`."""
        # Compared without level and fields: the same operation for the same cause is not news, even if more details
        # are known now.
        known = {(o.key, o.verb, o.cause) for o in other.operations}
        told = {(e.key, e.state, e.message) for e in other.entries}

        def is_new(operation: ops.Operation) -> bool:
            return operation.key in own or (operation.key, operation.verb, operation.cause) not in known

        works = (replace(work, operations=tuple(filter(is_new, work.operations))) for work in self.plan.works)
        return PlanDescription(
            plan=replace(self.plan, works=tuple(work for work in works if work.operations)),
            entries=tuple(e for e in self.entries if e.key in own or (e.key, e.state, e.message) not in told),
            notes=tuple(note for note in self.notes if note.key in own),
            before=tuple(filter(is_new, self.before)),
        )


def describe_plan(
    plan: ops.Plan,
    later: ops.Plan,
    *,
    busy: Mapping[str, str],
    retry_in_s: Mapping[str, float],
    extra: Iterable[PendingResource] = (),
) -> PlanDescription:
    """Describes `plan`. `later`: the plan that would follow if every dependency that `plan` waits for were
    met. `busy`: key -> what is in progress.

    `retry_in_s`: key -> seconds, for keys in back-off. `extra`: entries of the caller.
    """
    working = {work.key for work in plan.works}
    coming = {work.key: work.operations[0].verb for work in later.works if work.key not in working}
    notes = (
        PendingResource(key=f.key, state=NOTE_STATES[f.type], level=Level.OK, message=f.message)
        for f in plan.findings
        if f.type in NOTE_STATES and f.status
    )
    outputs = {finding.key: finding.output for finding in plan.findings if finding.output}
    found = [
        PendingResource(key=key, state="in progress", level=Level.WAITING, message=busy[key]) for key in busy
    ]
    for finding in plan.findings:
        level = level_of(ConditionType(finding.type), status=finding.status, reason=finding.reason)
        if not _is_told(plan, finding) or level is Level.OK or finding.key in busy:
            continue
        if finding.type == ConditionType.SYNCED and finding.reason == "Waiting":
            continue  # a separate finding says what it waits for
        # the resource that it waits for is in this plan too, so show the next operation instead of the waiting
        if finding.once and finding.key in coming:
            message, op = f"once {finding.once}", coming[finding.key]
            found.append(PendingResource(key=finding.key, state="then", level=level, message=message, op=op))
        elif not (finding.type == ConditionType.DEGRADED and _is_told_already(plan, finding)):
            entry = _entry(finding, level, retry_in_s.get(finding.key))
            found.append(replace(entry, output=outputs.get(finding.key, "")))
    ordered = sorted([*found, *extra], key=lambda entry: STATES.index(entry.state))
    return PlanDescription(plan=plan, entries=tuple(ordered), notes=tuple(notes))


# conditions that are worth a line although nothing has to be done
NOTE_STATES: Mapping[str, str] = {ConditionType.UPDATE_AVAILABLE: "update", ConditionType.PINNED: "pinned"}
_TOLD = frozenset({ConditionType.SYNCED, ConditionType.WAITING, ConditionType.DEGRADED})


def _is_told(plan: ops.Plan, finding: ops.Finding) -> bool:
    """Whether a plan shows this finding. A container in a crash loop is shown too: it needs no operation, but does not
    run as declared."""
    if finding.reason == "CrashLoop":
        return all(work.key != finding.key for work in plan.works) and not _is_told_already(plan, finding)
    return finding.type in _TOLD


def _is_told_already(plan: ops.Plan, other: ops.Finding) -> bool:
    return any(f.key == other.key and f.type == ConditionType.SYNCED and not f.status for f in plan.findings)


def _entry(finding: ops.Finding, level: Level, retry_in_s: float | None) -> PendingResource:
    state = _STATE_OF_REASON.get(finding.reason, "blocked")
    if finding.type == ConditionType.WAITING:
        state = "waiting"
    return PendingResource(
        key=finding.key,
        state=state,
        level=level,
        message=f"it ends again and again: {finding.message}"
        if state == "failed"
        else finding.message or finding.reason,
        retry_in_s=retry_in_s if state == "retry" else None,
    )


def text_of(
    operations: Iterable[ops.Operation],
    entries: Iterable[PendingResource],
    notes: Iterable[PendingResource] = (),
) -> str:
    """One line for each entry: what, which resource, why. Starts with `nothing to do` if there are only notes."""
    rows = [(operation.verb, operation.key, operation.cause) for operation in operations]
    rows += [(entry.words(), entry.key, entry.message) for entry in entries]
    head = [] if rows else ["nothing to do"]
    rows += [(note.words(), note.key, note.message) for note in notes]
    return "\n".join([*head, *(f"{what:<14} {key:<24} {why}".rstrip() for what, key, why in rows)])


# The effect of an operation: how much it changes, how long something is down, and which containers are affected.


SCHEMA = 1
"""Version of the answers of `plan` and `reconcile`: incremented when a field changes its meaning or is removed."""

DOWN_S = 2
"""About how long a container is down in a swap or a restart if it ends on its stop signal, in seconds."""
STOP_TIMEOUT_S = 10  # moby's default, for a container that does not set it


class ChangeKind(StrEnum):
    """How much an operation changes its object, strongest first: `summary_of` counts each object under its strongest
    kind."""

    REPLACE = "replace"
    CREATE = "create"
    REMOVE = "remove"
    IN_PLACE = "in place"
    RUN = "run"  # start, prepare, stop, restart, unpause
    NOTE = "note"  # nothing changes on the engine


_KINDS: dict[type[ops.Operation], ChangeKind] = {
    ops.CreateNetwork: ChangeKind.CREATE,
    ops.ReplaceNetwork: ChangeKind.REPLACE,
    ops.AdoptNetwork: ChangeKind.IN_PLACE,
    ops.RemoveNetwork: ChangeKind.REMOVE,
    ops.CreateVolume: ChangeKind.CREATE,
    ops.AdoptVolume: ChangeKind.IN_PLACE,
    ops.AcknowledgeLoss: ChangeKind.NOTE,
    ops.RemoveVolume: ChangeKind.REMOVE,
    ops.CreateContainer: ChangeKind.CREATE,
    ops.StartContainer: ChangeKind.RUN,
    ops.PrepareContainer: ChangeKind.RUN,
    ops.StopContainer: ChangeKind.RUN,
    ops.UnpauseContainer: ChangeKind.RUN,
    ops.RestartContainer: ChangeKind.RUN,
    ops.SetAsideContainer: ChangeKind.NOTE,
    ops.UpdateContainer: ChangeKind.IN_PLACE,
    ops.RenameContainer: ChangeKind.IN_PLACE,
    ops.ReconnectContainer: ChangeKind.IN_PLACE,
    ops.ReplaceContainer: ChangeKind.REPLACE,
    ops.AdoptContainer: ChangeKind.REPLACE,
    ops.NoteContainer: ChangeKind.NOTE,
    ops.RetireContainer: ChangeKind.REMOVE,
    ops.RestoreContainer: ChangeKind.IN_PLACE,
    ops.RemoveContainer: ChangeKind.REMOVE,
    ops.Forget: ChangeKind.NOTE,
}
_ORDER = {kind: rank for rank, kind in enumerate(ChangeKind)}  # the strongest first


def kind_of(operation: ops.Operation) -> ChangeKind:
    """The kind of an operation, from its class; for a change of dockerd, from its step."""
    if isinstance(operation, ops.ChangeDaemon):
        return ChangeKind.IN_PLACE if operation.step == "reload" else ChangeKind.RUN
    return _KINDS[type(operation)]


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationEffect:
    """What an operation does to running services.

    `text`: a phrase without a full stop, "" if the operation's name says it all. `down_s`: approximate downtime in
    seconds, None if nothing is down. `follows`: sections of the containers that are replaced or restarted with it, or
    that lose the network meanwhile.
    """

    text: str = ""
    down_s: int | None = None
    follows: tuple[str, ...] = ()


def effect_of(operation: ops.Operation, plan: Iterable[ops.Operation]) -> OperationEffect:
    """The effect of one operation. `plan`: all operations of the plan that contains it."""
    match operation:
        # replacing a container that does not run interrupts no service, so it counts no downtime
        case ops.ReplaceContainer(runs=False):
            return OperationEffect(text="replaces the container, which does not run; its volumes stay")
        case ops.ReplaceContainer(container=container) | ops.AdoptContainer(container=container):
            follows = _following(container, plan)
            text = f"replaces the container, {_down(container)}; its volumes stay"
            return OperationEffect(text=text + _and(follows), down_s=DOWN_S, follows=follows)
        case ops.RestartContainer(container=container):
            follows = _following(container, plan)
            return OperationEffect(
                text=f"restarts the container, {_down(container)}{_and(follows)}",
                down_s=DOWN_S,
                follows=follows,
            )
        case ops.ReplaceNetwork(members=members):
            names = tuple(member.section for member in members)
            cut = f"; meanwhile {_listed(names)} cannot use it" if names else ""
            return OperationEffect(text=f"replaces the network{cut}", follows=names)
        case ops.ReconnectContainer():
            return OperationEffect(
                text="connects it again, its process keeps running; the network is away for about 1 s"
            )
        case ops.UpdateContainer():
            return OperationEffect(text="no restart")
        case ops.RetireContainer(record=record):
            if record.kind == "container":
                return OperationEffect(
                    text=f"stops the container; it will be deleted in {record.grace_s:.0f} s, unless its section comes back"
                )
            return OperationEffect(
                text=f"the {record.kind} will be deleted in {record.grace_s:.0f} s, unless its section comes back"
            )
        case ops.RemoveContainer(volumes=True):
            return OperationEffect(text="deletes the container and its anonymous volumes")
        case ops.RemoveVolume():
            return OperationEffect(text="deletes the volume and its data")
    return OperationEffect()


def _down(container: Container) -> str:
    timeout = container.spec.stop_timeout_s
    longest = DOWN_S + (STOP_TIMEOUT_S if timeout is None else timeout)
    slow = f" ({longest} s if it ignores its stop signal)" if longest > DOWN_S else ""
    return f"about {DOWN_S} s down{slow}"


def _following(container: Container, plan: Iterable[ops.Operation]) -> tuple[str, ...]:
    """Sections of the containers in the plan that share its network, ipc or pid namespace."""
    moved = (o for o in plan if isinstance(o, ops.ReplaceContainer | ops.RestartContainer))
    return tuple(o.container.section for o in moved if container.name in shared_names(o.container))


def _and(follows: tuple[str, ...]) -> str:
    return f"; {_listed(follows)} {'follows' if len(follows) == 1 else 'follow'}" if follows else ""


def _listed(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def changes_of(operation: ops.Operation) -> tuple[OptionChange, ...]:
    """The options that an operation changes; for a new container or network, all options of its section."""
    match operation:
        case ops.CreateContainer(container=container):
            spec = desired_spec(container)
            return tuple(
                change
                for name in spec
                for change in option_changes(name, None, spec[name], ChangeLevel.RECREATE)
            )
        case ops.CreateNetwork(network=network):
            return network_changes({}, desired_spec(network))
    return operation.changes


def operations_as_json(operations: Iterable[ops.Operation]) -> list[dict[str, Any]]:
    """The operations as JSON for clients: what, which object, why, how much it changes, each changed option and the
    effect."""
    whole = tuple(operations)
    return [_as_json(operation, effect_of(operation, whole)) for operation in whole]


def _as_json(operation: ops.Operation, effect: OperationEffect) -> dict[str, Any]:
    return {
        "op": operation.verb,
        "key": operation.key,
        "cause": operation.cause,
        "besides": operation.besides,
        "level": kind_of(operation).value,
        "fields": [change.as_json() for change in changes_of(operation)],
        "effect": effect.text,
        "down_s": effect.down_s,
        "follows": list(effect.follows),
    }


def summary_of(found: PlanDescription) -> dict[str, int]:
    """Counts objects by the strongest operation on each, and by state for objects without an operation."""
    most: dict[str, ChangeKind] = {}
    for operation in found.operations:
        kind = kind_of(operation)
        most[operation.key] = min(most.get(operation.key, kind), kind, key=_ORDER.__getitem__)
    counts = {kind.value.replace(" ", "_"): list(most.values()).count(kind) for kind in ChangeKind}
    # reversed, so that the first entry of a key counts
    states = {entry.key: entry for entry in reversed(found.entries)}
    counts["in_progress"] = sum(entry.state == "in progress" for entry in states.values())
    counts["waiting"] = sum(entry.level is Level.WAITING for entry in states.values()) - counts["in_progress"]
    counts["errors"] = sum(entry.level is Level.ERROR for entry in states.values())
    return counts
