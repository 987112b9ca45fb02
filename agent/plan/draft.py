# SPDX-License-Identifier: GPL-2.0-or-later
"""What planning works on: its input, and the plan while it is being built."""

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

COPY = "copy"  # value in `Context.held`: a volume of the container is being copied (not a manual action)


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A condition that a container waits for.

    `stop`: the container must not run while the condition is not met. `keep`: an existing container keeps running
    meanwhile, and is restarted if it ends. `once`: the condition as a phrase if it depends on another of our
    resources, such as "db is healthy".
    """

    reason: str
    once: str = ""
    stop: bool = False
    keep: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The rest of the input of planning, collected by the runtime."""

    now: float  # wall clock, seconds
    records: tuple[Record, ...] = ()
    # containers that are not ours, by name
    foreign: Mapping[str, ObservedContainer] = field(default_factory=dict)
    waiting: Mapping[str, Missing] = field(default_factory=dict)  # key -> what the section waits for
    # key -> last error, while it is too early for the next try
    backoff: Mapping[str, str] = field(default_factory=dict)
    # keys of `backoff` whose change failed: their running container is still looked after
    changing: frozenset[str] = frozenset()
    # key -> why its `hold_cmd` postpones a replacement
    held_back: Mapping[str, str] = field(default_factory=dict)
    # key -> the manual action that must not be undone, or COPY
    held: Mapping[str, str] = field(default_factory=dict)
    # image reference -> local image id ("" = not present), as far as looked up
    image_ids: Mapping[str, str] = field(default_factory=dict)
    # local image id -> the image's defaults for options that a section leaves unset, as far as looked up
    image_defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    # local image id -> its digests in registries ("repo@sha256:..."), as far as looked up
    image_digests: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    # key -> the newer image that the last check found in the registry
    offered: Mapping[str, Available] = field(default_factory=dict)
    # keys that operations of an earlier plan still work on: do not touch them
    busy: frozenset[str] = frozenset()
    # nonce -> seconds since we saw that its section was removed, by a monotonic clock
    orphaned_s: Mapping[str, float] = field(default_factory=dict)
    routes: tuple[Route, ...] = ()  # of this machine; empty if the engine runs on another machine
    router_devices: frozenset[str] = frozenset()  # network devices that carry the router's own addresses
    deletions_held: str = ""  # why nothing may be deleted now: a rollback in LuCI may bring the section back
    # key -> a condition that was met when its container was last applied, and no longer is
    lost: Mapping[str, Missing] = field(default_factory=dict)
    completed: frozenset[str] = frozenset()  # ids of containers that completed their job
    left_behind: frozenset[str] = frozenset()  # ids of those whose shared namespace is gone
    # ids of containers that share a namespace of a container that no longer exists
    api: tuple[int, int] = (1, 41)
    # plan as if every dependency were met: shows what the next waves would do
    assume_met: bool = False


def desired_spec(resource: Container | Network | Volume) -> dict[str, object]:
    """The masked canonical spec, in the form that records store."""
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
    """Docker names of the containers whose network, ipc or pid namespace this container joins."""
    modes = [m for m in (container.spec.network_mode, container.spec.ipc, container.spec.pid) if m]
    return {mode.removeprefix("container:") for mode in modes if mode.startswith("container:")}


def lending_names(container: Container) -> set[str]:
    """`shared_names`, plus the containers whose volumes it uses (`volumes_from`): when one of them is recreated, this
    container is recreated after it."""
    return shared_names(container) | {entry.partition(":")[0] for entry in container.spec.volumes_from}


def joined_ids(records: Iterable[Record], container: Container) -> tuple[str, ...]:
    """The engine's ids of those containers of `lending_names` that are ours, sorted."""
    names = lending_names(container)
    if not names:
        return ()
    mine = (r for r in records if r.kind == "container" and not r.swap and r.object_id)
    return tuple(sorted(r.object_id for r in mine if r.name in names))


def plugged_words(container: Container) -> tuple[str, ...]:
    """The ports that its USB devices are plugged into, in the form that records store."""
    return tuple(f"{name}={path}" for name, path in container.plugged)


@dataclass(slots=True, kw_only=True)
class Draft:
    """A plan while it is being built.

    `withheld`: key -> why nothing that needs this resource can be done. `turns`: see `agent.plan.container.needs`.
    `left`: key -> why nothing is planned for this resource. `defects`: exceptions raised while planning a single
    resource.
    """

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
    # withheld resources that exist: containers that use them may keep running
    looked: set[str] = field(default_factory=set)
    after: dict[str, set[str]] = field(default_factory=dict)  # key -> works that its own has to wait for
    # key -> other keys whose works must end before the work on this key begins
    declared: dict[str, Container] = field(init=False)
    containers_seen: dict[str, ObservedContainer] = field(init=False)  # by id
    # Docker name -> record of the container of ours that has this name on the engine
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
        """Plans one resource. An error affects only this resource, never the others."""
        why = self.left.get(key)
        if why is None:
            try:
                plan()
            except Exception as exc:  # noqa: BLE001 - whatever it is, it is about this resource alone
                # do not carry out a partly built plan for a resource
                self.works.pop(key, None)
                self.defects.append((key, exc))
                why = f"internal error ({type(exc).__name__}); see the log"
            else:
                return
        self.find(
            key, "Synced", status=False, reason="Pending" if key in self.left else "Failed", message=why
        )
        # Resources that need it wait as well and name the reason; otherwise each of them would fail with its own
        # error.
        self.withheld[key] = f"{key.partition(':')[2]} waits: {why}"

    def record(self, kind: str, section: str) -> Record | None:
        """The record of a section's object."""
        return self._records.get((kind, section))

    def container(self, section: str) -> ObservedContainer | None:
        """The engine's view of a section's container."""
        record = self.record("container", section)
        return self.containers_seen.get(record.object_id) if record is not None else None

    def spec_hash_of(self, key: str, resource: Container | Network | Volume) -> str:
        """The hash of a desired spec."""
        return self.desired.spec_hashes.get(key) or spec_hash(desired_spec(resource))

    def defaults(self, image_id: str) -> Defaults:
        """The values that the engine uses for unset fields of a container of this image."""
        return defaults_of(self.desired.daemon, self.context.image_defaults.get(image_id))

    def is_as_recorded(self, record: Record, resource: Network | Volume) -> bool:
        """Whether the section asks for what its record holds, literally or in effect."""
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
        """Notes that the last change of a resource failed and was rolled back: the recorded reason, and in `message`
        what happens next."""
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
        # Two conditions: `Degraded` says that a change failed and stays until one succeeds; `Synced` says why the
        # section is not followed.
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
        """Adds work on a resource, to begin after the works on `needs`. Adds nothing while an earlier plan still works
        on one of these."""
        operations, wanted = tuple(todo), frozenset(needs) | self.after.get(key, set())
        if all(isinstance(operation, ops.StopContainer) for operation in operations):
            wanted = frozenset()  # a stop needs nothing from other resources and keeps its Docker name
        # a work can wait for works of its own plan only; when the work of the earlier plan ends, the next pass comes
        unfinished = sorted(wanted & self.context.busy)
        if unfinished and operations:
            self.find(key, "Synced", status=False, reason="Pending", message=f"after {', '.join(unfinished)}")
            self.looked.discard(key)
        elif operations:
            needed = wanted & self.works.keys()
            self.works[key] = ops.Work(key=key, operations=operations, needs=needed, partial=partial)

    def must_skip(self, key: str, record: Record | None, *, settled: bool = False) -> bool:
        """Whether planning must leave this resource alone for now. `settled`: the change that failed is not repeated, so
        that there is nothing to delay."""
        if key in self.context.busy:
            return True
        # after a downgrade: this version cannot interpret the newer spec, so it must not change the object
        if record is not None and record.spec_hash and version_of(record.spec_hash) > SPEC_VERSION:
            message = "a newer version of ucidockd created it: this version leaves it alone"
            self.find(key, "Synced", status=False, reason="NewerVersion", message=message)
            return True
        error = self.context.backoff.get(key)
        if error is None:
            return False
        # While its change is in back-off, the running container is still looked after. Exception: a swap waits to be
        # rolled back. Then the new container may be running, and it must never run together with the old one.
        half_swapped = record is not None and any(
            other.swap == "new" and other.partner == record.nonce for other in self.context.records
        )
        if not settled or half_swapped:
            self.find(key, "Synced", status=False, reason="BackOff", message=error)
        return key not in self.context.changing or half_swapped

    def conflict(self, key: str, message: str) -> None:
        """Notes that an object that is not ours blocks this resource."""
        text = f"{message}; `option adopt 1` takes it over"
        self.find(key, "Synced", status=False, reason="Conflict", message=text)
        self.withheld[key] = f"{in_words(key)} is in conflict"
