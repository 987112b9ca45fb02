# SPDX-License-Identifier: GPL-2.0-or-later
"""What an operation means for what runs: how much of a change it is, how long something is down, who follows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from agent.model.container_table import Level as Cost
from agent.model.resources import Container
from agent.plan import operations as ops
from agent.plan.draft import desired_spec, shared_names
from agent.plan.outlook import Outlook
from agent.plan.written import OptionChange, network_changes, option_changes
from agent.status.conditions import Level

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
    RUN = "run"  # start, stop, restart, unpause
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
