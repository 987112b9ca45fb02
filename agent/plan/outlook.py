# SPDX-License-Identifier: GPL-2.0-or-later
"""What a plan tells people and programs: what an operation means for what runs, and what stands beside the operations.

How much of a change an operation is, how long something is down and who follows; and what is under way, waits, is in
conflict, is retried, or comes later. A plan without operations is not "nothing to do" while anything of that stands.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from agent.model.container_table import Level as Cost
from agent.model.resources import Container
from agent.plan import operations as ops
from agent.plan.container.changes import OptionChange, network_changes, option_changes
from agent.plan.draft import desired_spec, shared_names
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
    "NameTaken": "conflict",
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
        # Without the level and the fields: the same operation for the same cause is old news, even if more is
        # known of it now.
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
        # what it waits for is in this plan too: people want to know what follows, not that it waits
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


# What an operation means for what runs: how much of a change it is, how long something is down, who follows.


SCHEMA = 1
"""Of the answers of `plan` and `reconcile`: counts up when a field changes its meaning or goes."""

DOWN_S = 2
"""About how long a container is away in a swap or a restart, where it ends at its stop signal."""
STOP_TIMEOUT_S = 10  # moby's, for a container that does not say another


class Kind(StrEnum):
    """What an operation is for the object, from the most to the least that can be said of it."""

    REPLACE = "replace"
    CREATE = "create"
    REMOVE = "remove"
    IN_PLACE = "in place"
    RUN = "run"  # start, prepare, stop, restart, unpause
    NOTE = "note"  # nothing changes on the engine


_KINDS: dict[type[ops.Operation], Kind] = {
    ops.CreateNetwork: Kind.CREATE,
    ops.ReplaceNetwork: Kind.REPLACE,
    ops.AdoptNetwork: Kind.IN_PLACE,
    ops.RemoveNetwork: Kind.REMOVE,
    ops.CreateVolume: Kind.CREATE,
    ops.AdoptVolume: Kind.IN_PLACE,
    ops.AcknowledgeLoss: Kind.NOTE,
    ops.RemoveVolume: Kind.REMOVE,
    ops.CreateContainer: Kind.CREATE,
    ops.StartContainer: Kind.RUN,
    ops.PrepareContainer: Kind.RUN,
    ops.StopContainer: Kind.RUN,
    ops.UnpauseContainer: Kind.RUN,
    ops.RestartContainer: Kind.RUN,
    ops.SetAsideContainer: Kind.NOTE,
    ops.UpdateContainer: Kind.IN_PLACE,
    ops.RenameContainer: Kind.IN_PLACE,
    ops.ReconnectContainer: Kind.IN_PLACE,
    ops.ReplaceContainer: Kind.REPLACE,
    ops.AdoptContainer: Kind.REPLACE,
    ops.NoteContainer: Kind.NOTE,
    ops.RetireContainer: Kind.REMOVE,
    ops.RestoreContainer: Kind.IN_PLACE,
    ops.RemoveContainer: Kind.REMOVE,
    ops.Forget: Kind.NOTE,
}
_ORDER = {kind: rank for rank, kind in enumerate(Kind)}


def kind_of(operation: ops.Operation) -> Kind:
    """By the class of the operation; of dockerd, by its step."""
    if isinstance(operation, ops.ChangeDaemon):
        return Kind.IN_PLACE if operation.step == "reload" else Kind.RUN
    return _KINDS[type(operation)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """`text`: a sentence without its end, "" where the operation says it all. `down_s`: seconds, about; None where
    nothing is down. `follows`: sections of the containers that have to be replaced or restarted with it, or that lose
    the network meanwhile."""

    text: str = ""
    down_s: int | None = None
    follows: tuple[str, ...] = ()


def effect_of(operation: ops.Operation, plan: Iterable[ops.Operation]) -> Effect:
    """`plan`: all operations of the plan that it is a part of."""
    match operation:
        # Nobody notices the replacement of a container that is down: it is not counted as a time without service.
        case ops.ReplaceContainer(runs=False):
            return Effect(text="replaces the container, which does not run; its volumes stay")
        case ops.ReplaceContainer(container=container) | ops.AdoptContainer(container=container):
            follows = _following(container, plan)
            text = f"replaces the container, {_down(container)}; its volumes stay"
            return Effect(text=text + _and(follows), down_s=DOWN_S, follows=follows)
        case ops.RestartContainer(container=container):
            follows = _following(container, plan)
            return Effect(
                text=f"restarts the container, {_down(container)}{_and(follows)}",
                down_s=DOWN_S,
                follows=follows,
            )
        case ops.ReplaceNetwork(members=members):
            names = tuple(member.section for member in members)
            cut = f"; meanwhile {_listed(names)} cannot use it" if names else ""
            return Effect(text=f"replaces the network{cut}", follows=names)
        case ops.ReconnectContainer():
            return Effect(
                text="connects it again, its process keeps running; the network is away for about 1 s"
            )
        case ops.UpdateContainer():
            return Effect(text="no restart")
        case ops.RetireContainer(record=record):
            kind, grace_s = record.kind, record.grace_s
            stops = "stops the container; it" if kind == "container" else f"the {kind}"
            text = f"{stops} will be deleted in {grace_s:.0f} s, unless its section comes back"
            return Effect(text=text)
        case ops.RemoveContainer(volumes=True):
            return Effect(text="deletes the container and its anonymous volumes")
        case ops.RemoveVolume():
            return Effect(text="deletes the volume and its data")
    return Effect()


def _down(container: Container) -> str:
    timeout = container.spec.stop_timeout_s
    longest = DOWN_S + (STOP_TIMEOUT_S if timeout is None else timeout)
    slow = f" ({longest} s if it ignores its stop signal)" if longest > DOWN_S else ""
    return f"about {DOWN_S} s down{slow}"


def _following(container: Container, plan: Iterable[ops.Operation]) -> tuple[str, ...]:
    """Those that share its network, ipc or pid namespace."""
    moved = (o for o in plan if isinstance(o, ops.ReplaceContainer | ops.RestartContainer))
    return tuple(o.container.section for o in moved if container.name in shared_names(o.container))


def _and(follows: tuple[str, ...]) -> str:
    return f"; {_listed(follows)} {'follows' if len(follows) == 1 else 'follow'}" if follows else ""


def _listed(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def changes_of(operation: ops.Operation) -> tuple[OptionChange, ...]:
    """The options that an operation is about; of what is created, all that its section says."""
    match operation:
        case ops.CreateContainer(container=container):
            spec = desired_spec(container)
            return tuple(
                change for name in spec for change in option_changes(name, None, spec[name], Cost.RECREATE)
            )
        case ops.CreateNetwork(network=network):
            return network_changes({}, desired_spec(network))
    return operation.changes


def operations_as_json(operations: Iterable[ops.Operation]) -> list[dict[str, Any]]:
    """For clients: what, on which object, why, how much of a change it is, option by option, and what that means."""
    whole = tuple(operations)
    return [_as_json(operation, effect_of(operation, whole)) for operation in whole]


def _as_json(operation: ops.Operation, effect: Effect) -> dict[str, Any]:
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


def summary_of(found: Outlook) -> dict[str, int]:
    """Objects by the most that is done to each, and by what they are in where nothing is done to them."""
    most: dict[str, Kind] = {}
    for operation in found.operations:
        kind = kind_of(operation)
        most[operation.key] = min(most.get(operation.key, kind), kind, key=_ORDER.__getitem__)
    counts = {kind.value.replace(" ", "_"): list(most.values()).count(kind) for kind in Kind}
    states = {entry.key: entry for entry in reversed(found.entries)}
    counts["in_progress"] = sum(entry.state == "in progress" for entry in states.values())
    counts["waiting"] = sum(entry.level is Level.WAITING for entry in states.values()) - counts["in_progress"]
    counts["errors"] = sum(entry.level is Level.ERROR for entry in states.values())
    return counts
