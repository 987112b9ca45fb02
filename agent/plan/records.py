# SPDX-License-Identifier: GPL-2.0-or-later
"""What records say: the container as it was last applied, how it ended, and which engine its object belongs to.

A running container corresponds to the section that was last applied, not to the present one. Another `data_root`,
disk or storage driver means another, empty engine, and the old engine with its containers may come back. So every
record names the engine that its object belongs to with a tag, and is kept while another engine answers.

The tag is a digest of the engine's own identity and of our mark in its data_root (20.10 keeps its id outside of
`data_root`). Data that was moved to another disk has a new tag but the same objects: their ids prove it, and the
records get the new tag. Containers belong to one storage driver; networks and volumes belong to all drivers of an
engine.

A section is identified by its name, an object by its Docker name. After a section was renamed, the record of the object
with its Docker name still names the old section, which no longer exists or now has another Docker name. Then the record
moves to the new section (`renamed`), so that the container keeps running. If both names changed, it counts as a new
section: nothing distinguishes it from an added one.
"""

from __future__ import annotations

import hashlib
import re
import signal
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any, Literal

from agent.model.identity import LABEL_NONCE, SPEC_VERSION, Key, spec_hash, version_of
from agent.model.observed import EngineIdentity, Observed, ObservedContainer, Record
from agent.model.resources import (
    Container,
    ContainerSpec,
    Desired,
    Device,
    Endpoint,
    Healthcheck,
    Mount,
    Network,
    Port,
    RestartPolicy,
    Tmpfs,
    Ulimit,
    Volume,
    WaitFor,
    WaitKind,
)
from agent.plan.container.meaning import meaning_hash
from agent.plan.draft import desired_spec

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
_KEPT_ENGINES = 4  # besides the present engine; an engine that was emptied or thrown away does not come back


def as_applied(container: Container, record: Record) -> Container | None:
    """`container` with the spec of its record, in which values of environment variables are hashes. None if another
    version wrote the record, or if it describes a container that was not ours."""
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
    """The `wait_for` and `depends_on` entries of a container, sorted, in the form that records store."""
    policy = container.policy
    found = [f"{wanted.kind.value}:{wanted.target}" for wanted in policy.wait_for]
    found += [f"depends_on {wanted.section}:{wanted.condition.value}" for wanted in policy.depends_on]
    return tuple(sorted(found))


def applied_waits(record: Record) -> tuple[WaitFor, ...]:
    """The `wait_for` entries of `record.waits`."""
    pairs = (text.partition(":") for text in record.waits if not text.startswith("depends_on "))
    known = {kind.value: kind for kind in WaitKind}
    return tuple(WaitFor(kind=known[kind], target=target) for kind, _, target in pairs if kind in known)


# How a container ended: by itself, or stopped by a user, by the engine or by us. Only a container that ended by
# itself can have completed a job.
#
# The engine's API does not say which (`HasBeenManuallyStopped` is internal). But the engine keeps its last 256 events
# until it is itself stopped. It also creates its default bridge at each start (20.10 to 29), so that bridge's
# creation time tells which containers ended before the start.


# a container that ended this long before an engine start was not stopped by the engine's shutdown
OLD_VERSION_S = 3600.0
# signals that ask programs to reload files, reopen logs or notice a new window size
_HARMLESS = frozenset({signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGCONT})


def is_job(container: Container) -> bool:
    """Whether the container is a job, that is, meant to end with 0: `restart` says so, or another section waits for its
    completion.

    With an unset `restart` it is a service: not the engine but the agent restarts it.
    """
    if container.spec.restart is None:
        return container.awaited
    return container.spec.restart.name in {"no", "on-failure"}


def is_alive(seen: ObservedContainer) -> bool:
    """Whether the container has a process, or will get one by itself."""
    return seen.state in {"running", "restarting", "paused"}


def is_completed(container: Container, seen: ObservedContainer, *, replaces: bool = False) -> bool:
    """Whether a container that ended right after its start has done its job. `replaces`: it replaced a container that
    ran.

    With `on-failure` it may also be a service: if the container before it kept running and this one ends at once, it
    is not a job.
    """
    if seen.exit_code != 0 or not is_job(container):
        return False
    restart = container.spec.restart
    return not replaces or restart is None or restart.name == "no"


def was_stopped(events: Iterable[Mapping[str, Any]], stop_signal: str = "") -> bool | None:
    """Whether the last run of a container was ended from outside; None if its events are no longer available.

    `events`: of GET /events, for that container. The engine reports a signal before the end that the signal causes.
    """
    known, asked = False, False
    for event in events:
        action = str(event.get("Action") or event.get("status") or "")
        # only the last run counts: how an earlier run was stopped does not explain this end
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
    """The number of `SIGTERM`, `TERM` or `15`; 0 for an unknown name."""
    if name.isdigit():
        return int(name)
    known = {one.name: int(one) for one in signal.Signals}
    return known.get(f"SIG{name.removeprefix('SIG')}", 0)


def unwitnessed(record: Record, seen: ObservedContainer, engine_since: str) -> bool:
    """Whether a container that ended with 0 completed its job, if we did not see how it ended. `engine_since`: start
    time of the engine, "" if unknown.

    A container that ended before the engine's start was most likely stopped by the shutdown of the engine. A
    container that ended after that start is treated as the engine would treat it: as a completed job.
    """
    ended, began = moment(seen.finished_at), moment(engine_since)
    # An unreadable time proves nothing: `record.completed` decides if it is set, otherwise the exit code.
    if ended is None or began is None:
        return record.completed is None
    # an older version wrote the record, without noting how the container ended
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
    """The tags for records of the engine that answers: `<number>-<digest>`; later engines have higher numbers."""

    containers: str
    others: str  # networks and volumes

    def of(self, kind: str) -> str:
        """The tag for records of this kind."""
        return self.containers if kind == "container" else self.others

    def include(self, record: Record) -> bool:
        """Whether a record is of this engine, or may be: version 0.1.0 wrote no tags."""
        return record.engine in {"", self.of(record.kind)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """Records to update because their objects were found on this engine, and nonces of records to drop."""

    changed: tuple[Record, ...] = ()
    dropped: tuple[str, ...] = ()


def tags_of(records: Iterable[Record], identity: EngineIdentity, mark: str) -> Tags:
    """The tags of an engine; `mark`: the mark that we left in its data_root, "" if there is none."""
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
    """The records of this engine. If a section has a record with this engine's tag, its records without a tag are
    ignored. Records whose object was missed are not part of any plan."""
    mine = [record for record in records if tags.include(record) and record.missed_at is None]
    sure = {(r.kind, r.section) for r in mine if r.engine and not r.swap}
    return [r for r in mine if r.engine or r.swap or (r.kind, r.section) not in sure]


def is_known(records: Iterable[Record], observed: Observed) -> bool:
    """Whether the engine has an object that records name: one of our containers or, if no container is recorded, one of
    our networks or volumes."""
    known = list(records)
    containers = [record for record in known if record.kind == "container"]
    return bool(_found(containers or known, observed))


def claims(records: Iterable[Record], tags: Tags, observed: Observed) -> Claims:
    """The changes of records that follow from the engine's lists, which show where each object is."""
    known = list(records)
    here = _found(known, observed)
    comes = [r for r in known if r.nonce in here and r.engine != tags.of(r.kind)]
    changed = {r.nonce: replace(r, engine=tags.of(r.kind)) for r in comes}
    now = [changed.get(r.nonce, r) for r in known]
    # drop the records of engines from long ago: such an engine was thrown away and does not come back
    others = sorted({record.engine for record in now if not tags.include(record)}, key=_tag_number)
    old = set(others[: -2 * _KEPT_ENGINES])  # each engine has two tags
    dropped = _doubled(now, tags, here) | {record.nonce for record in now if record.engine in old}
    stay = tuple(record for nonce, record in changed.items() if nonce not in dropped)
    return Claims(changed=stay, dropped=tuple(sorted(dropped)))


def _found(records: Iterable[Record], observed: Observed) -> set[str]:
    """Nonces of the records whose objects exist. Names do not count as proof."""
    containers = {c.id for c in observed.containers}
    networks = {n.id for n in observed.networks}
    # a volume has no id: only the nonce tells it from a later one of its name
    volumes = {v.labels.get(LABEL_NONCE) for v in observed.volumes}
    return {
        r.nonce
        for r in records
        if (r.kind == "container" and r.object_id in containers)
        or (r.kind == "network" and r.object_id in networks)
        or (r.kind == "volume" and r.nonce in volumes)
    }


def _doubled(records: list[Record], tags: Tags, here: set[str]) -> set[str]:
    """Nonces of records to drop because their section has another record on this engine; the record whose object exists
    stays."""
    chosen: dict[tuple[str, str], Record] = {}
    dropped: set[str] = set()
    for record in records:
        # a swap needs the records of both objects, and records of another engine have their objects there
        if record.swap or record.missed_at is not None or record.engine != tags.of(record.kind):
            continue
        other = chosen.setdefault((record.kind, record.section), record)
        if other is record:
            continue
        # drop the record without an object: without the other record, nothing would manage its container
        loser = other if record.nonce in here and other.nonce not in here else record
        chosen[record.kind, record.section] = record if loser is other else other
        dropped.add(loser.nonce)
    return dropped


_Resource = Container | Network | Volume


def renamed(desired: Desired, records: Iterable[Record], busy: Collection[str] = ()) -> tuple[Record, ...]:
    """The records that belong to another section now, with that section. Keys in `busy` are left alone."""
    before = {record.nonce: record for record in records}
    now = dict(before)
    # A move can free a section for another record. A plan must not see half of them: each round moves one at least.
    for _ in before:
        found = _one_round(desired, now.values(), busy)
        if not found:
            break
        now |= {record.nonce: record for record in found}
    return tuple(record for nonce, record in now.items() if record.section != before[nonce].section)


def _one_round(desired: Desired, records: Iterable[Record], busy: Collection[str]) -> tuple[Record, ...]:
    known = tuple(records)
    groups: tuple[tuple[str, tuple[_Resource, ...]], ...] = (
        ("container", desired.containers),
        ("network", desired.networks),
        ("volume", desired.volumes),
    )
    found: list[Record] = []
    for kind, resources in groups:
        mine = [record for record in known if record.kind == kind]
        declared = {resource.section: resource for resource in resources}
        odd = [r for r in mine if r.section not in declared or declared[r.section].name != r.name]
        if odd:  # otherwise every record already belongs to its section
            found += _Moves(desired, kind, declared, mine, busy).find()
    return tuple(found)


@dataclass
class _Moves:
    desired: Desired
    kind: str
    declared: dict[str, _Resource]
    records: list[Record]
    busy: Collection[str]
    own: dict[str, Record] = field(init=False)  # by section
    named: dict[str, Record] = field(init=False)  # by Docker name
    unsettled: set[str] = field(init=False)  # sections whose records may still change

    def __post_init__(self) -> None:
        # in the middle of a swap or a create it is uncertain which object belongs to which section
        open_sections = {r.section for r in self.records if r.swap or not r.object_id}
        free = [
            r
            for r in self.records
            if r.section not in open_sections
            and self._key(r.section) not in self.busy
            and self._key(r.section) not in self.desired.broken
        ]
        self.own = {r.section: r for r in free}
        self.named = {r.name: r for r in free}
        self.unsettled = {r.section for r in self.records} - self.own.keys()

    def _key(self, section: str) -> str:
        return Key(self.kind, section)

    def _is_same(self, record: Record, section: str) -> bool:
        resource = self.declared[section]
        known = self.desired.spec_hashes.get(self._key(section))
        wanted = desired_spec(resource)
        if record.spec_hash == (known or spec_hash(wanted)):
            return True
        return meaning_hash(self.kind, record.spec) == meaning_hash(self.kind, wanted)

    def find(self) -> list[Record]:
        # dropping a move can invalidate another one, so repeat until all remaining moves are valid
        wanted = {s: r for s in self.declared if (r := self._wanted(s)) is not None}
        while bad := [s for s, record in wanted.items() if not self._may_take(s, record, wanted)]:
            for section in bad:
                del wanted[section]
        return [replace(record, section=section) for section, record in sorted(wanted.items())]

    def _wanted(self, section: str) -> Record | None:
        """The record with this section's Docker name, if another section has it and it fits better than the section's
        own record."""
        if section in self.unsettled or self._key(section) in self.busy:
            return None
        mine, found = self.own.get(section), self.named.get(self.declared[section].name)
        if found is None or found is mine or (mine is not None and mine.name == found.name):
            return None
        if mine is not None and (self._is_same(mine, section) or not self._is_same(found, section)):
            return None  # the same section with another Docker name
        return found

    def _may_take(self, section: str, record: Record, wanted: dict[str, Record]) -> bool:
        """Whether the move leaves no record without a section: another section takes this section's old record, and the
        former holder gets another record or was removed."""
        mine, holder = self.own.get(section), record.section
        if mine is not None and all(other is not mine for other in wanted.values()):
            return False
        if holder not in self.declared or holder in wanted:
            return True
        return self._is_same(record, section) and not self._is_same(record, holder)


# The temporary names of two containers during a swap (`agent.apply.swap`).
#
# They contain the nonce of the new container, so that no other container has such a name. Version 0.1.0 left out the
# nonce; those names are still recognized.


Role = Literal["old", "new"]
# a name during a swap, without or with a part of the nonce
_FORM = re.compile(r"(.+)\.ucidockd-(old|new)(?:-[0-9a-f]+)?")


def swap_name(name: str, role: Role, nonce: str) -> str:
    """The name of the new container before the switch, or of the old container after it."""
    return f"{name}.ucidockd-{role}-{nonce}"


def name_outside(name: str, role: Role) -> str:
    """The container's name outside of a swap; "" if this is not a temporary name of that role."""
    match = _FORM.fullmatch(name)
    return match[1] if match is not None and match[2] == role else ""
