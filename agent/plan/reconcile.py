# SPDX-License-Identifier: GPL-2.0-or-later
"""Reconcile: desired, observed and recorded in, a plan out.

Ownership is by `Record` (state.json): an object that no record names is foreign and never touched, whatever its
labels say. Differences are three-way: what was last applied (the record), what is desired, what the engine shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from agent.model.identity import canonical, masked, spec_hash
from agent.model.observed import Observed, ObservedContainer, ObservedNetwork, ObservedVolume, Record
from agent.model.resources import Container, DependsOn, Desired, Network, OnDrift, RunState, Volume
from agent.plan import operations as ops
from agent.plan.changes import FieldChange, Level, classify
from agent.plan.drift import container_drift

DEFAULT_GRACE_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What else planning needs to know, gathered by the runtime."""

    now: float  # wall clock, seconds
    records: tuple[Record, ...] = ()
    foreign_containers: Mapping[str, ObservedContainer] = field(default_factory=dict)  # by name
    foreign_networks: Mapping[str, ObservedNetwork] = field(default_factory=dict)
    foreign_volumes: Mapping[str, ObservedVolume] = field(default_factory=dict)
    waiting: Mapping[str, str] = field(default_factory=dict)  # key -> what it waits for
    backoff: Mapping[str, str] = field(
        default_factory=dict
    )  # key -> the last error, while not to be retried yet
    image_ids: Mapping[str, str] = field(
        default_factory=dict
    )  # image reference -> local image id, where looked up
    busy: frozenset[str] = frozenset()  # keys that an earlier plan is still at work on: hands off
    deletions_held: bool = False  # a LuCI rollback is pending


def key_of(kind: str, section: str) -> str:
    """The name of a resource in plans and status: `container:web`."""
    return f"{kind}:{section}"


def desired_spec(resource: Container | Network | Volume) -> dict[str, object]:
    """The masked canonical spec, as records keep it."""
    return masked(canonical(resource.spec))


def reconcile(desired: Desired, observed: Observed, context: Context) -> ops.Plan:
    """The plan that makes `observed` match `desired`. Same input, same plan."""
    return _Reconciler(desired=desired, observed=observed, context=context).plan()


@dataclass(slots=True, kw_only=True)
class _Reconciler:
    desired: Desired
    observed: Observed
    context: Context
    works: dict[str, ops.Work] = field(default_factory=dict)
    findings: list[ops.Finding] = field(default_factory=list)

    def plan(self) -> ops.Plan:
        for network in sorted(self.desired.networks, key=lambda item: item.section):
            self._network(network)
        for volume in sorted(self.desired.volumes, key=lambda item: item.section):
            self._volume(volume)
        for container in _by_dependency(self.desired.containers):
            self._container(container)
        self._orphans()
        return ops.Plan(works=tuple(self.works.values()), findings=tuple(self.findings))

    def _record(self, kind: str, section: str) -> Record | None:
        matches = (r for r in self.context.records if r.kind == kind and r.section == section and not r.swap)
        return next(matches, None)

    def _find(self, key: str, kind: str, *, status: bool, reason: str, message: str = "") -> None:
        self.findings.append(ops.Finding(key=key, type=kind, status=status, reason=reason, message=message))

    def _add(self, key: str, todo: Iterable[ops.Operation], needs: Iterable[str] = ()) -> None:
        todo, needs = tuple(todo), frozenset(needs)
        unfinished = sorted(needs & self.context.busy)
        if unfinished:
            self._find(
                key, "Synced", status=False, reason="Pending", message=f"after {', '.join(unfinished)}"
            )
        elif todo:
            self.works[key] = ops.Work(key=key, operations=todo, needs=needs & self.works.keys())

    def _blocked(self, key: str) -> bool:
        if key in self.context.busy:
            return True
        error = self.context.backoff.get(key)
        if error is not None:
            self._find(key, "Synced", status=False, reason="BackOff", message=error)
        return error is not None

    # networks and volumes

    def _network(self, network: Network) -> None:
        key = key_of("network", network.section)
        if self._blocked(key):
            return
        record = self._record("network", network.section)
        seen = record and next((n for n in self.observed.networks if n.id == record.object_id), None)
        if record is None or seen is None:
            foreign = self.context.foreign_networks.get(network.name)
            if foreign is not None:
                self._conflict(key, f"a network named {network.name} exists and is not ours")
                return
            cause = "declared, not there" if record is None else "it is gone from the engine"
            self._add(key, [ops.CreateNetwork(key=key, cause=cause, network=network)])
            return
        if record.spec_hash == spec_hash(desired_spec(network)) and seen.name == network.name:
            self._find(key, "Synced", status=True, reason="InSync")
            return
        cause = "its settings changed: " + _changed_names(record.spec, desired_spec(network))
        members = tuple(
            c for c in self.desired.containers if network.name in {e.network for e in c.spec.endpoints}
        )
        todo = [ops.ReplaceNetwork(key=key, cause=cause, network=network, record=record, members=members)]
        self._add(key, todo, [key_of("container", c.section) for c in members])

    def _volume(self, volume: Volume) -> None:
        key = key_of("volume", volume.section)
        if self._blocked(key):
            return
        record = self._record("volume", volume.section)
        seen = record and next((v for v in self.observed.volumes if v.name == record.name), None)
        if record is None or seen is None:
            if volume.name in self.context.foreign_volumes and not volume.adopt:
                self._conflict(key, f"a volume named {volume.name} exists and is not ours")
                return
            cause = "declared, not there" if record is None else "it is gone from the engine"
            self._add(key, [ops.CreateVolume(key=key, cause=cause, volume=volume)])
            return
        same = record.spec_hash == spec_hash(desired_spec(volume)) and record.name == volume.name
        message = "" if same else "a volume cannot change: copy its data to one with another name"
        self._find(key, "Synced", status=same, reason="InSync" if same else "VolumeDiffers", message=message)

    def _conflict(self, key: str, message: str) -> None:
        self._find(
            key,
            "Synced",
            status=False,
            reason="Conflict",
            message=message + "; `option adopt 1` takes it over",
        )

    # containers

    def _container(self, container: Container) -> None:
        key = key_of("container", container.section)
        if self._blocked(key) or self._unready(key, container):
            return
        record = self._record("container", container.section)
        seen = self._seen(container.section)
        if record is None or seen is None:
            self._absent(key, container, gone=record is not None)
            return
        self._present(key, container, record, seen)

    def _unready(self, key: str, container: Container) -> bool:
        """Whether something it waits for is missing; what runs is left to run."""
        reason = self.context.waiting.get(key) or self._dependency_missing(container)
        if reason:
            self._find(key, "Waiting", status=True, reason="Waiting", message=reason)
        else:
            self._find(key, "Waiting", status=False, reason="Ready")
        return bool(reason)

    def _dependency_missing(self, container: Container) -> str:
        for wanted in container.policy.depends_on:
            key = key_of("container", wanted.section)
            if key in self.desired.broken:
                return f"{wanted.section} has an error in its section"
            if wanted.condition is not DependsOn.STARTED and not self._condition_met(
                wanted.section, wanted.condition
            ):
                return f"{wanted.section} is not {wanted.condition} yet"
            if key not in self.works and not self._runs_or_ran(wanted.section):
                return f"{wanted.section} is not started"
        used = {e.network for e in container.spec.endpoints}
        broken = sorted(
            k for k in self.desired.broken if k.startswith("network:") and k.removeprefix("network:") in used
        )
        return f"{broken[0]} has an error in its section" if broken else ""

    def _seen(self, section: str) -> ObservedContainer | None:
        record = self._record("container", section)
        object_id = record.object_id if record else None
        return next((c for c in self.observed.containers if c.id == object_id), None)

    def _runs_or_ran(self, section: str) -> bool:
        seen = self._seen(section)
        return seen is not None and (seen.state == "running" or seen.exit_code == 0)

    def _condition_met(self, section: str, condition: DependsOn) -> bool:
        seen = self._seen(section)
        if seen is None:
            return False
        return seen.health == "healthy" if condition is DependsOn.HEALTHY else seen.exit_code == 0

    def _needs(self, container: Container) -> list[str]:
        needs = [key_of("container", wanted.section) for wanted in container.policy.depends_on]
        networks = {n.name: n.section for n in self.desired.networks}
        volumes = {v.name: v.section for v in self.desired.volumes}
        needs += [
            key_of("network", networks[e.network]) for e in container.spec.endpoints if e.network in networks
        ]
        needs += [key_of("volume", volumes[m.source]) for m in container.spec.mounts if m.source in volumes]
        return needs

    def _absent(self, key: str, container: Container, *, gone: bool) -> None:
        if not container.policy.enabled:
            self._find(key, "Running", status=False, reason="Disabled")
            return
        foreign = self.context.foreign_containers.get(container.name)
        if foreign is not None and not container.policy.adopt:
            self._conflict(key, f"a container named {container.name} exists and is not ours")
            return
        if foreign is not None:
            cause = f"takes over the container {foreign.name} ({foreign.id[:12]})"
            todo: list[ops.Operation] = [
                ops.AdoptContainer(key=key, cause=cause, container=container, foreign=foreign)
            ]
            self._add(key, todo, self._needs(container))
            return
        cause = "it was removed behind our back" if gone else "declared, not there"
        todo = [ops.CreateContainer(key=key, cause=cause, container=container)]
        if container.policy.state is RunState.RUNNING:
            todo.append(ops.StartContainer(key=key, cause="state is running", container=container))
        self._add(key, todo, self._needs(container))

    def _present(self, key: str, container: Container, record: Record, seen: ObservedContainer) -> None:
        changes = self._changes(container, record, seen)
        image = self._image_change(container, record)
        if image or any(change.level is Level.RECREATE for change in changes):
            if record.failed_hash and record.failed_hash == self._attempt(container):
                # what rolled it back is on the board since then; only a new spec or image is worth a new try
                return
            cause = image or _describe(changes)
            todo: list[ops.Operation] = [
                ops.ReplaceContainer(key=key, cause=cause, container=container, record=record)
            ]
            self._add(key, todo, self._needs(container))
            return
        todo = self._in_place(key, container, record, seen, changes)
        todo += self._running(key, container, record, seen)
        if todo:
            self._add(key, todo, self._needs(container))
        else:
            self._find(key, "Synced", status=True, reason="InSync")

    def _attempt(self, container: Container) -> str:
        return attempt_of(container, self.context.image_ids.get(container.spec.image, ""))

    def _image_change(self, container: Container, record: Record) -> str:
        local = self.context.image_ids.get(container.spec.image)
        if not local or not record.image_id or local == record.image_id:
            return ""
        return f"image {container.spec.image} is now {local.removeprefix('sha256:')[:12]}"

    def _changes(
        self, container: Container, record: Record, seen: ObservedContainer
    ) -> tuple[FieldChange, ...]:
        wanted = desired_spec(container)
        if record.spec_hash != spec_hash(wanted):
            return classify(record.spec, wanted)
        if seen.inspect is None:
            return ()
        drift = container_drift(container, seen.inspect)
        if drift and container.policy.on_drift is OnDrift.REPORT:
            message = _describe(drift)
            self._find(
                key_of("container", container.section),
                "Degraded",
                status=True,
                reason="Drift",
                message=message,
            )
            return ()
        return drift

    def _in_place(
        self,
        key: str,
        container: Container,
        record: Record,
        seen: ObservedContainer,
        changes: tuple[FieldChange, ...],
    ) -> list[ops.Operation]:
        todo: list[ops.Operation] = []
        if record.removed_at is not None:
            cause = "its section is back"
            todo.append(ops.RestoreContainer(key=key, cause=cause, container=container, record=record))
        if seen.name != container.name:
            cause = f"named {seen.name}, declared {container.name}"
            todo.append(ops.RenameContainer(key=key, cause=cause, container=container, record=record))
        updates = tuple(change for change in changes if change.level is Level.UPDATE)
        if updates:
            names = tuple(change.field for change in updates)
            cause = _describe(updates)
            todo.append(
                ops.UpdateContainer(key=key, cause=cause, container=container, record=record, fields=names)
            )
        reconnects = tuple(change for change in changes if change.level is Level.RECONNECT)
        if reconnects:
            cause = _describe(reconnects)
            todo.append(ops.ReconnectContainer(key=key, cause=cause, container=container, record=record))
        return todo

    def _running(
        self, key: str, container: Container, record: Record, seen: ObservedContainer
    ) -> list[ops.Operation]:
        wanted = container.policy.enabled and container.policy.state is RunState.RUNNING
        alive = seen.state in {"running", "restarting", "paused"}
        self._show_state(key, container, seen)
        if not wanted and alive:
            cause = "disabled" if not container.policy.enabled else "state is stopped"
            timeout = container.spec.stop_timeout_s
            return [ops.StopContainer(key=key, cause=cause, record=record, stop_timeout_s=timeout)]
        if wanted and not alive and not is_completed(container, seen):
            return [
                ops.StartContainer(
                    key=key, cause=f"it is {seen.state}, state is running", container=container
                )
            ]
        return []

    def _show_state(self, key: str, container: Container, seen: ObservedContainer) -> None:
        if is_completed(container, seen):
            self._find(key, "Running", status=False, reason="Completed", message=seen.status_text)
        elif seen.state == "restarting":
            self._find(key, "Running", status=False, reason="CrashLoop", message=seen.status_text)
        else:
            running = seen.state == "running"
            self._find(
                key, "Running", status=running, reason=seen.state.capitalize(), message=seen.status_text
            )
        if seen.health:
            self._find(key, "Healthy", status=seen.health == "healthy", reason=seen.health.capitalize())

    # what no section declares any more

    def _orphans(self) -> None:
        declared = {key_of("container", c.section) for c in self.desired.containers}
        declared |= {key_of("network", n.section) for n in self.desired.networks}
        declared |= {key_of("volume", v.section) for v in self.desired.volumes}
        order = {"container": 0, "network": 1, "volume": 2}
        for record in sorted(self.context.records, key=lambda r: (order[r.kind], r.section)):
            key = key_of(record.kind, record.section)
            known = declared | self.desired.broken | self.context.busy
            if key not in known and not record.swap:
                self._orphan(key, record)

    def _orphan(self, key: str, record: Record) -> None:
        if self._object_gone(record):
            self._add(key, [ops.Forget(key=key, cause="section and object are gone", record=record)])
            return
        if record.removed_at is None:
            self._add(key, [ops.RetireContainer(key=key, cause="its section is gone", record=record)])
            return
        grace = DEFAULT_GRACE_S
        if self.context.deletions_held or self.context.now < record.removed_at + grace:
            self._find(
                key, "Synced", status=False, reason="Grace", message="its section is gone; kept for a while"
            )
            return
        cause = "its section has been gone for the grace period"
        if record.kind == "container":
            self._add(key, [ops.RemoveContainer(key=key, cause=cause, record=record)])
        elif record.kind == "network":
            self._add(key, [ops.RemoveNetwork(key=key, cause=cause, record=record)])
        elif self.desired.agent.remove:
            self._add(key, [ops.RemoveVolume(key=key, cause=cause, record=record)])
        else:
            self._add(key, [ops.Forget(key=key, cause="volumes are kept; it is nobody's now", record=record)])

    def _object_gone(self, record: Record) -> bool:
        if record.kind == "container":
            return all(c.id != record.object_id for c in self.observed.containers)
        if record.kind == "network":
            return all(n.id != record.object_id for n in self.observed.networks)
        return all(v.name != record.name for v in self.observed.volumes)


def attempt_of(container: Container, image_id: str) -> str:
    """What a swap tried: the spec and the image. A rolled-back attempt is not made again."""
    return f"{spec_hash(desired_spec(container))}@{image_id}"


def is_completed(container: Container, seen: ObservedContainer) -> bool:
    """Whether it did its job: restart `no` or `on-failure`, and it exited with 0."""
    policy = container.spec.restart.name if container.spec.restart else "no"
    return policy in {"no", "on-failure"} and seen.exit_code == 0


def _by_dependency(containers: Iterable[Container]) -> list[Container]:
    """Sorted by section, prerequisites first. Cycles were refused by validation; a rest is taken in order."""
    pending = {c.section: c for c in sorted(containers, key=lambda c: c.section)}
    ordered: list[Container] = []
    while pending:
        ready = [c for c in pending.values() if not any(d.section in pending for d in c.policy.depends_on)]
        for container in ready or list(pending.values()):
            ordered.append(container)
            del pending[container.section]
    return ordered


def _changed_names(before: Mapping[str, object], after: Mapping[str, object]) -> str:
    names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return ", ".join(names) or "name"


def _describe(changes: Iterable[FieldChange]) -> str:
    return "; ".join(f"{change.field} {change.old} -> {change.new}" for change in changes)
