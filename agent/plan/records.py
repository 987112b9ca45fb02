# SPDX-License-Identifier: GPL-2.0-or-later
"""What records say: a container's section as it was applied last, how it ended, and the engine that its object is on.

What runs goes by the section that was applied last. Another `data_root`, another disk or another storage driver is
another, empty engine, and the old one with its containers may come back. So a record names the engine that its object is
on, by a tag, and stays while another engine answers.

The tag is made of what the engine says about itself and of our mark on its disk (20.10 keeps its id outside of
`data_root`). Data that was moved has another tag and the same objects: their ids are the proof, and the records follow.
Containers are there for one storage driver only; networks and volumes for all of them.
"""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

from agent.model.identity import LABEL_NONCE, SPEC_VERSION, version_of
from agent.model.observed import EngineIdentity, Observed, ObservedContainer, Record
from agent.model.resources import (
    Container,
    ContainerSpec,
    Device,
    Endpoint,
    Healthcheck,
    Mount,
    Port,
    RestartPolicy,
    Tmpfs,
    Ulimit,
    WaitFor,
    WaitKind,
)

_PARTS: Mapping[str, type] = {
    "restart": RestartPolicy,
    "health": Healthcheck,
    "ports": Port,
    "mounts": Mount,
    "tmpfs": Tmpfs,
    "endpoints": Endpoint,
    "devices": Device,
    "ulimits": Ulimit,
}
_KEPT_ENGINES = 4  # beside the present one: one that was emptied, or thrown away, does not come back


def as_applied(container: Container, record: Record) -> Container | None:
    """`container` with the spec of its record; values of environment variables are hashes in it. None where the
    record's spec is another version's, or that of something that was not ours."""
    if not record.spec_hash or version_of(record.spec_hash) != SPEC_VERSION or "image" not in record.spec:
        return None
    known = {f.name for f in fields(ContainerSpec)}
    try:
        values = {name: _value(name, value) for name, value in record.spec.items() if name in known}
        return replace(container, spec=ContainerSpec(**values))
    except TypeError:
        return None


def _value(name: str, value: Any) -> Any:
    part = _PARTS.get(name)
    if part is not None and isinstance(value, dict):
        return part(**_tuples(value))
    if isinstance(value, list):
        return tuple(part(**_tuples(item)) if part is not None else _plain(item) for item in value)
    return value


def _tuples(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in item.items()}


def _plain(value: Any) -> Any:
    return tuple(_plain(item) for item in value) if isinstance(value, list) else value


def waits_of(container: Container) -> tuple[str, ...]:
    """What a container waits for, as records keep it: `wait_for` and `depends_on` entries, sorted."""
    policy = container.policy
    found = [f"{wanted.kind.value}:{wanted.target}" for wanted in policy.wait_for]
    found += [f"depends_on {wanted.section}:{wanted.condition.value}" for wanted in policy.depends_on]
    return tuple(sorted(found))


def applied_waits(record: Record) -> tuple[WaitFor, ...]:
    """The `wait_for` entries among them."""
    pairs = (text.partition(":") for text in record.waits if not text.startswith("depends_on "))
    known = {kind.value: kind for kind in WaitKind}
    return tuple(WaitFor(kind=known[kind], target=target) for kind, _, target in pairs if kind in known)


# How a container ended: by itself, or stopped by a user, by the engine or by us. Only the former can be a job done.
#
# The engine does not show that (its `HasBeenManuallyStopped` stays inside). It keeps its last 256 events, until it is
# stopped itself; its default bridge is made at each start (20.10 to 29) and so tells what ended before.


OLD_VERSION_S = 3600.0  # an end so long before a start of the engine was none by that
# what programs are sent to read their files again, to open their logs again, or with a window
_HARMLESS = frozenset({signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGCONT})


def is_job(container: Container) -> bool:
    """Whether ending with 0 is what it is there for: `restart` says so, or a section that waits for its completion.

    An unset `restart` is a service: the engine does not restart it, we do.
    """
    if container.spec.restart is None:
        return container.awaited
    return container.spec.restart.name in {"no", "on-failure"}


def is_alive(seen: ObservedContainer) -> bool:
    """Whether it has a process, or will get one again by itself."""
    return seen.state in {"running", "restarting", "paused"}


def is_completed(container: Container, seen: ObservedContainer, *, replaces: bool = False) -> bool:
    """Whether one that was just started, and ended, did its job. `replaces`: one that ran has made room for it.

    With `on-failure` it may be a service as well: one that ends at once, where the one before it ran on, is not a job.
    """
    if seen.exit_code != 0 or not is_job(container):
        return False
    restart = container.spec.restart
    return not replaces or restart is None or restart.name == "no"


def was_stopped(events: Iterable[Mapping[str, Any]], stop_signal: str = "") -> bool | None:
    """Whether the last run of a container was ended from outside; None where its events are not there any more.

    `events`: of GET /events, of that container. The engine tells of a signal before the end that it leads to.
    """
    known, asked = False, False
    for event in events:
        action = str(event.get("Action") or event.get("status") or "")
        # Only the last run counts: what stopped the one before says nothing about this end.
        if action == "start":
            known, asked = True, False
        elif action == "kill":
            asked = asked or _ends(event, stop_signal)
            known = True
        elif action in {"die", "oom"}:
            known = True
    return asked if known else None


def _ends(event: Mapping[str, Any], stop_signal: str) -> bool:
    number = str(((event.get("Actor") or {}).get("Attributes") or {}).get("signal") or "")
    if number in {stop_signal, str(_signal_number(stop_signal))}:
        return True
    return not (number.isdigit() and int(number) in _HARMLESS)


def _signal_number(name: str) -> int:
    """Of `SIGTERM`, `TERM` or `15`; 0 for another."""
    if name.isdigit():
        return int(name)
    known = {one.name: int(one) for one in signal.Signals}
    return known.get(f"SIG{name.removeprefix('SIG')}", 0)


def unwitnessed(record: Record, seen: ObservedContainer, engine_since: str) -> bool:
    """Whether one that ended with 0 did its job, where it is not known how it ended. `engine_since`: when the engine was
    started, "" where that is not to be found out.

    What ended before this engine was started, and was not seen to end by itself, was most likely ended by the one before.
    In this engine's life it is taken for what the engine would take it for: a job that is done.
    """
    ended, began = moment(seen.finished_at), moment(engine_since)
    # A time that cannot be read proves nothing: what was remembered decides, and else the exit code.
    if ended is None or began is None:
        return record.completed is None
    # The record is of a version that did not note how containers ended.
    if record.completed is None:
        return ended > began or ended < began - OLD_VERSION_S
    return ended > began


def moment(text: str) -> float | None:
    """Unix seconds of an RFC 3339 time; None for any other text."""
    try:
        return datetime.fromisoformat(text).timestamp() if text else None
    except (ValueError, OverflowError):
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tags:
    """The tags of records of the engine that answers: `<number>-<digest>`, later engines have higher numbers."""

    containers: str
    others: str  # networks and volumes

    def of(self, kind: str) -> str:
        """The tag of records of a kind."""
        return self.containers if kind == "container" else self.others

    def include(self, record: Record) -> bool:
        """Whether a record is of this engine, or may be: version 0.1.0 did not say."""
        return record.engine in {"", self.of(record.kind)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """Records to be changed because their objects were found here, and nonces of those to be dropped."""

    changed: tuple[Record, ...] = ()
    dropped: tuple[str, ...] = ()


def tags_of(records: Iterable[Record], identity: EngineIdentity, mark: str) -> Tags:
    """The tags of an engine; `mark`: what we left in its data root, "" where there is none."""
    used = {record.engine for record in records if record.engine}
    home = (identity.id, identity.root, mark)
    others = _tag(used, home)
    return Tags(containers=_tag(used | {others}, (*home, identity.driver)), others=others)


def _tag(used: set[str], words: tuple[str, ...]) -> str:
    digest = hashlib.sha256("\0".join(words).encode()).hexdigest()[:12]
    known = next((tag for tag in used if tag.partition("-")[2] == digest), None)
    return known or f"{max(map(_tag_number, used), default=0) + 1}-{digest}"


def _tag_number(tag: str) -> int:
    head = tag.partition("-")[0]
    return int(head) if head.isascii() and head.isdigit() else 0


def visible(records: Iterable[Record], tags: Tags) -> list[Record]:
    """The records of this engine. If a section has a record with its tag, a record without a tag is not used."""
    mine = [record for record in records if tags.include(record)]
    sure = {(r.kind, r.section) for r in mine if r.engine and not r.swap}
    return [r for r in mine if r.engine or r.swap or (r.kind, r.section) not in sure]


def is_known(records: Iterable[Record], observed: Observed) -> bool:
    """Whether an engine has what records name: a container, or where there is none, a network or volume of ours."""
    known = list(records)
    containers = [record for record in known if record.kind == "container"]
    return bool(_found(containers or known, observed))


def claims(records: Iterable[Record], tags: Tags, observed: Observed) -> Claims:
    """What has to change in the records, as the lists of the engine show whose objects it has."""
    known = list(records)
    here = _found(known, observed)
    comes = [r for r in known if r.nonce in here and r.engine != tags.of(r.kind)]
    changed = {r.nonce: replace(r, engine=tags.of(r.kind)) for r in comes}
    now = [changed.get(r.nonce, r) for r in known]
    # the records of engines that came long before this one go: thrown away, they do not come back
    others = sorted({record.engine for record in now if not tags.include(record)}, key=_tag_number)
    old = set(others[: -2 * _KEPT_ENGINES])  # each engine has two tags
    dropped = _doubled(now, tags, here) | {record.nonce for record in now if record.engine in old}
    stay = tuple(record for nonce, record in changed.items() if nonce not in dropped)
    return Claims(changed=stay, dropped=tuple(sorted(dropped)))


def _found(records: Iterable[Record], observed: Observed) -> set[str]:
    """Nonces of the records whose objects are there. Names prove nothing."""
    containers = {c.id for c in observed.containers}
    networks = {n.id for n in observed.networks}
    volumes = {v.labels.get(LABEL_NONCE) for v in observed.volumes}
    return {
        r.nonce
        for r in records
        if (r.kind == "container" and r.object_id in containers)
        or (r.kind == "network" and r.object_id in networks)
        or (r.kind == "volume" and r.nonce in volumes)
    }


def _doubled(records: list[Record], tags: Tags, here: set[str]) -> set[str]:
    """Nonces of records whose section has another one on this engine: the one whose object is there stays."""
    chosen: dict[tuple[str, str], Record] = {}
    dropped: set[str] = set()
    for record in records:
        # Both objects of a swap are wanted while it lasts, and records of another engine have their object there.
        if record.swap or record.engine != tags.of(record.kind):
            continue
        other = chosen.setdefault((record.kind, record.section), record)
        if other is record:
            continue
        # The record without an object goes: forgetting the other would leave its container to no one.
        loser = other if record.nonce in here and other.nonce not in here else record
        chosen[record.kind, record.section] = record if loser is other else other
        dropped.add(loser.nonce)
    return dropped
