# SPDX-License-Identifier: GPL-2.0-or-later
"""What planning works on: its input, and the plan as it grows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agent.errors import Reason
from agent.model.addresses import Route
from agent.model.identity import SPEC_VERSION, Key, canonical, in_words, masked, spec_hash, version_of
from agent.model.observed import Observed, ObservedContainer, Record
from agent.model.resources import Container, Desired, Network, Volume
from agent.model.updates import Available
from agent.plan import operations as ops
from agent.plan.container.meaning import Defaults, changed_fields, defaults_of

COPY = "copy"  # in `Context.held`: no manual action, a volume of the container is being copied


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """Something that a container waits for. `stop`: without it the container must not run either; `keep`: what there
    is of it runs on meanwhile, and is started again where it has ended. `once`: what of ours it waits for, as "db is
    healthy"."""

    reason: str
    once: str = ""
    stop: bool = False
    keep: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What else planning needs to know, gathered by the runtime."""

    now: float  # wall clock, seconds
    records: tuple[Record, ...] = ()
    # containers that are not ours, by name
    foreign: Mapping[str, ObservedContainer] = field(default_factory=dict)
    waiting: Mapping[str, Missing] = field(default_factory=dict)  # key -> what it waits for
    # key -> last error, while not to be tried again yet
    backoff: Mapping[str, str] = field(default_factory=dict)
    # of these, the keys whose change failed: what runs is looked after
    changing: frozenset[str] = frozenset()
    # key -> why its `hold_cmd` puts a replacement off
    held_back: Mapping[str, str] = field(default_factory=dict)
    # key -> the manual action that must not be undone, or COPY
    held: Mapping[str, str] = field(default_factory=dict)
    # image -> local id ("" = none), where looked up
    image_ids: Mapping[str, str] = field(default_factory=dict)
    # local image id -> what the image gives where a section says nothing, where looked up
    image_defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    # local image id -> by which registries know it: "repo@sha256:..."
    image_digests: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    # key -> a newer image in its registry, by the last check
    offered: Mapping[str, Available] = field(default_factory=dict)
    busy: frozenset[str] = frozenset()  # keys that an earlier plan is still at work on: hands off
    # nonce -> seconds since its section was seen to be removed, by a clock that cannot be set
    orphaned_s: Mapping[str, float] = field(default_factory=dict)
    routes: tuple[Route, ...] = ()  # of this machine; none where the engine is on another
    router_devices: frozenset[str] = frozenset()  # that carry its own addresses
    deletions_held: str = ""  # why nothing may be deleted: a rollback of LuCI may bring its section back
    # key -> what is missing of that with which its container was applied
    lost: Mapping[str, Missing] = field(default_factory=dict)
    completed: frozenset[str] = frozenset()  # ids of containers that did their job
    left_behind: frozenset[str] = frozenset()  # ids of those whose shared namespace is gone
    api: tuple[int, int] = (1, 41)  # the version that the engine speaks
    # as if each dependency were as far as it must be: what the next waves would do
    assume_met: bool = False


def desired_spec(resource: Container | Network | Volume) -> dict[str, object]:
    """The masked canonical spec, as records keep it."""
    return masked(canonical(resource.spec))


def with_hashes(desired: Desired) -> Desired:
    """`desired` with the spec hash of each of its resources."""
    groups = (("container", desired.containers), ("network", desired.networks), ("volume", desired.volumes))
    hashes: dict[str, str] = {
        Key(kind, resource.section): spec_hash(desired_spec(resource))
        for kind, resources in groups
        for resource in resources
    }
    return replace(desired, spec_hashes=hashes)


def shared_names(container: Container) -> set[str]:
    """Docker names of the containers whose network, ipc or pid namespace a container is put into."""
    modes = [m for m in (container.spec.network_mode, container.spec.ipc, container.spec.pid) if m]
    return {mode.removeprefix("container:") for mode in modes if mode.startswith("container:")}


def lending_names(container: Container) -> set[str]:
    """The same, and those whose volumes it takes (`volumes_from`): it is created again after one of them."""
    return shared_names(container) | {entry.partition(":")[0] for entry in container.spec.volumes_from}


def joined_ids(records: Iterable[Record], container: Container) -> tuple[str, ...]:
    """The engine's ids of those among `lending_names` that are ours, sorted."""
    names = lending_names(container)
    if not names:
        return ()
    mine = (r for r in records if r.kind == "container" and not r.swap and r.object_id)
    return tuple(sorted(r.object_id for r in mine if r.name in names))


def plugged_words(container: Container) -> tuple[str, ...]:
    """Where its USB devices are, as records keep it."""
    return tuple(f"{name}={path}" for name, path in container.plugged)


@dataclass(slots=True, kw_only=True)
class Draft:
    """A plan in the making. `withheld`: key -> why nothing that needs it can be done; `turns`: see `container.needs`;
    `left`: key -> why nothing is planned for it; `defects`: what planning one resource raised."""

    desired: Desired
    observed: Observed
    context: Context
    turns: Mapping[str, Missing] = field(default_factory=dict)
    left: Mapping[str, str] = field(default_factory=dict)
    defects: list[tuple[str, Exception]] = field(default_factory=list)
    works: dict[str, ops.Work] = field(default_factory=dict)
    findings: list[ops.Finding] = field(default_factory=list)
    withheld: dict[str, str] = field(default_factory=dict)
    unchanged: set[str] = field(default_factory=set)  # withheld, but there: who uses it may run on
    looked: set[str] = field(default_factory=set)  # see `Plan.looked`
    after: dict[str, set[str]] = field(default_factory=dict)  # key -> works that its own has to wait for
    declared: dict[str, Container] = field(init=False)  # by key
    containers_seen: dict[str, ObservedContainer] = field(init=False)  # by id
    # name on the engine -> record of the one of ours that has it
    holders: dict[str, Record] = field(init=False)
    networks_declared: dict[str, str] = field(init=False)  # Docker name -> section
    volumes_declared: dict[str, str] = field(init=False)
    _records: dict[tuple[str, str], Record] = field(init=False)

    def __post_init__(self) -> None:
        self.declared = {Key("container", c.section): c for c in self.desired.containers}
        self.containers_seen = {c.id: c for c in self.observed.containers}
        self.networks_declared = {n.name: n.section for n in self.desired.networks}
        self.volumes_declared = {v.name: v.section for v in self.desired.volumes}
        mine = {r.object_id: r for r in self.context.records if r.kind == "container" and not r.swap}
        self.holders = {c.name: mine[c.id] for c in self.observed.containers if c.id in mine}
        self._records = {(r.kind, r.section): r for r in reversed(self.context.records) if not r.swap}

    def attempt(self, key: str, plan: Callable[[], None]) -> None:
        """Plans one resource. What goes wrong with it costs the others nothing."""
        why = self.left.get(key)
        if why is None:
            try:
                plan()
            except Exception as exc:  # noqa: BLE001 - whatever it is, it is about this resource alone
                # Half of a plan for a resource is worse than none.
                self.works.pop(key, None)
                self.defects.append((key, exc))
                why = f"internal error ({type(exc).__name__}); see the log"
            else:
                return
        self.find(
            key, "Synced", status=False, reason="Pending" if key in self.left else "Failed", message=why
        )
        # Those that need it wait as well, and say for what: otherwise they would fail one after the other, each with an
        # error of its own.
        self.withheld[key] = f"{key.partition(':')[2]} waits: {why}"

    def record(self, kind: str, section: str) -> Record | None:
        """The record of a section's object."""
        return self._records.get((kind, section))

    def container(self, section: str) -> ObservedContainer | None:
        """What the engine shows of a section's container."""
        record = self.record("container", section)
        return self.containers_seen.get(record.object_id) if record is not None else None

    def spec_hash_of(self, key: str, resource: Container | Network | Volume) -> str:
        """The hash of a desired spec."""
        return self.desired.spec_hashes.get(key) or spec_hash(desired_spec(resource))

    def defaults(self, image_id: str) -> Defaults:
        """What unset fields of a container of that image stand for."""
        return defaults_of(self.desired.daemon, self.context.image_defaults.get(image_id))

    def is_as_recorded(self, record: Record, resource: Network | Volume) -> bool:
        """Whether a section asks for what its record has, word for word or not."""
        key = record.key
        return record.spec_hash == self.spec_hash_of(key, resource) or not changed_fields(
            record.kind, record.spec, desired_spec(resource)
        )

    def find(
        self,
        key: str,
        kind: str,
        *,
        status: bool,
        reason: Reason,
        message: str = "",
        once: str = "",
        since: float | None = None,
    ) -> None:
        """Notes a condition."""
        self.findings.append(
            ops.Finding(
                key=key, type=kind, status=status, reason=reason, message=message, once=once, since=since
            )
        )

    def find_rolled_back(self, key: str, record: Record, message: str) -> None:
        """Notes that the last change of a resource failed: why, as `record` keeps it, and what becomes of it."""
        why = record.failed_why
        if why:
            self.findings.append(
                ops.Finding(
                    key=key,
                    type="Degraded",
                    status=True,
                    reason="RolledBack",
                    message=why,
                    output=record.failed_output,
                )
            )
        # Two conditions: one says that something failed, which stays until it works; the other why the section is not
        # followed.
        text = f"{why}; {message}" if why else message
        self.find(key, "Synced", status=False, reason="RolledBack", message=text)

    def add(
        self,
        key: str,
        todo: Iterable[ops.Operation],
        needs: Iterable[str] = (),
        *,
        partial: bool = False,
    ) -> None:
        """Adds work on a resource, to be begun after that on `needs`; none while an earlier plan is at one of these."""
        operations, wanted = tuple(todo), frozenset(needs) | self.after.get(key, set())
        if all(isinstance(operation, ops.StopContainer) for operation in operations):
            wanted = frozenset()  # it takes nothing, and keeps whatever name it has
        # a work of this plan can be waited for, one of an earlier plan cannot: the next pass comes when that has ended
        unfinished = sorted(wanted & self.context.busy)
        if unfinished and operations:
            self.find(key, "Synced", status=False, reason="Pending", message=f"after {', '.join(unfinished)}")
            self.looked.discard(key)
        elif operations:
            needed = wanted & self.works.keys()
            self.works[key] = ops.Work(key=key, operations=operations, needs=needed, partial=partial)

    def hands_off(self, key: str, record: Record | None) -> bool:
        """Whether nothing may be planned for a resource now."""
        if key in self.context.busy:
            return True
        # after a downgrade: what a spec of that version asks for cannot be told, so nothing of it may be changed
        if record is not None and record.spec_hash and version_of(record.spec_hash) > SPEC_VERSION:
            message = "a newer version of ucidockd made it: this one only looks"
            self.find(key, "Synced", status=False, reason="NewerVersion", message=message)
            return True
        error = self.context.backoff.get(key)
        if error is None:
            return False
        self.find(key, "Synced", status=False, reason="BackOff", message=error)
        # what runs is looked after while its change is put off, except where a swap waits to be undone: the new container
        # may run, and never together with the old one
        half_swapped = record is not None and any(
            other.swap == "new" and other.partner == record.nonce for other in self.context.records
        )
        return key not in self.context.changing or half_swapped

    def conflict(self, key: str, message: str) -> None:
        """Something foreign is in the way."""
        text = f"{message}; `option adopt 1` takes it over"
        self.find(key, "Synced", status=False, reason="Conflict", message=text)
        self.withheld[key] = f"{in_words(key)} is in conflict"
