# SPDX-License-Identifier: GPL-2.0-or-later
"""Carries out operations and decides nothing. `agent.apply.worker_pool` decides when each one runs.

An engine call that changes something is always awaited to its end: a thread cannot be cancelled, so after a time-out
the state of the object would be unknown.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial, singledispatchmethod
from typing import Any

from agent.apply.failures import without_secrets
from agent.apply.images import ImageHistory, Images, create_from
from agent.apply.networks import (
    NetworkExchange,
    disconnect_from_gone,
    reconnect,
    with_addresses,
    without_parent,
)
from agent.apply.ports import Clock, Engine, Records, SavedData
from agent.apply.steps import (
    Hooks,
    Inheritance,
    UndecidedError,
    check_there,
    holds_data,
    inherit_from_gone,
    names,
)
from agent.apply.swap import Swap, forget_copies, kept_policy, restart_body
from agent.apply.worker_pool import Outcome, Run, SkippedError, WorkerPool
from agent.errors import (
    ConflictError,
    EngineError,
    EngineUnreachableError,
    InternalError,
    LeftoverError,
    UcidockdError,
)
from agent.model.identity import LABEL_NONCE, own_labels, spec_hash
from agent.model.observed import Record
from agent.model.resources import Container, Network, Volume
from agent.plan import operations as ops
from agent.plan.container.bodies import (
    container_body,
    extra_endpoints,
    network_body,
    update_body,
    volume_body,
    volume_words,
    volumes_of,
)
from agent.plan.container.difference import (
    MAC_FIELD,
    container_drift,
    network_difference,
    shows_macs,
    volume_difference,
)
from agent.plan.container.image import failure_of
from agent.plan.container.meaning import is_same_image, meaning_hash
from agent.plan.draft import desired_spec, joined_ids

logger = logging.getLogger(__name__)

# part of the temporary name of a container whose Docker name another of our containers needs
ASIDE_SUFFIX = ".ucidockd-aside-"


@dataclass(slots=True, kw_only=True)
class Executor:
    """Carries out plans on one engine. `current`: whether a container is still what the configuration asks for.
    `interfaces`: the network interfaces of the engine's machine, none if they are not known."""

    engine: Engine
    records: Records
    images: Images
    pool: WorkerPool
    clock: Clock
    stopping: Callable[[], bool] = lambda: False
    current: Callable[[Container], bool] = lambda container: True
    report: Callable[[Outcome], None] = lambda outcome: None
    ended: Callable[[ops.Work, bool], None] = lambda work, succeeded: None
    api: tuple[int, int] = (1, 41)
    keep_images: int = 1
    data: SavedData | None = None
    interfaces: Callable[[], Collection[str]] = tuple

    def begin(self, plan: ops.Plan) -> Run:
        """Starts to carry out the plan and returns at once."""
        return Run(plan, self.pool, self._run)

    def _run(self, work: ops.Work, failed_needs: set[str]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        try:
            for operation in work.operations:
                began = self.clock.monotonic()
                error = self._attempt(operation, failed_needs)
                took_s = self.clock.monotonic() - began
                outcome = Outcome(operation=operation, error=error, took_s=took_s)
                self.report(outcome)
                outcomes.append(outcome)
                if outcome.error is not None:
                    break
        finally:
            complete = len(outcomes) == len(work.operations) and not any(o.error for o in outcomes)
            # also after an unexpected error: every later pass would leave a key alone that stayed busy
            self.ended(work, complete)
        return outcomes

    def _attempt(self, operation: ops.Operation, failed_needs: set[str]) -> UcidockdError | None:
        if failed_needs:
            return SkippedError(f"depends on {', '.join(sorted(failed_needs))}, which failed", retryable=True)
        if self.stopping():
            return SkippedError("the agent stops", retryable=True)
        try:
            self._do(operation)
        except UcidockdError as exc:
            return without_secrets(exc, getattr(operation, "container", None))
        except Exception as exc:
            # each resource has its own task: an internal error in one must not stop the others
            logger.exception("%s %s", operation.verb, operation.key)
            return InternalError(f"internal error ({type(exc).__name__}); see the log")
        return None

    @singledispatchmethod
    def _do(self, operation: ops.Operation) -> None:
        raise InternalError(f"no executor for {operation.verb}")

    def _current(self, key: str) -> Record:
        """The present record of a resource: an earlier operation may have changed it."""
        found = [r for r in self.records.records() if r.key == key and not r.swap]
        if not found:
            raise InternalError(f"{key} has no record")
        return found[-1]

    @_do.register
    def _restart(self, operation: ops.RestartContainer) -> None:
        # Not the engine's restart call: `_start_or_free` may have to remove an obstacle between the stop and the
        # start.
        self.engine.stop(operation.record.object_id, operation.container.spec.stop_timeout_s)
        with self._starting(operation.container):
            self._start_or_free(operation.record.object_id)

    @_do.register
    def _set_aside(self, operation: ops.SetAsideContainer) -> None:
        # Two sections that exchange their names need a third name in between. Part of the nonce keeps that name
        # unique.
        record = operation.record
        self.engine.rename(record.object_id, f"{record.name}{ASIDE_SUFFIX}{record.nonce[:4]}")

    def _announce(self, kind: str, resource: Container | Network | Volume, **more: Any) -> Record:
        """Writes the record of an object before the object is created, so that a crash in between leaves no unknown
        object."""
        stale = [
            r.nonce
            for r in self.records.records()
            if (r.kind, r.section, r.swap) == (kind, resource.section, "")
        ]
        spec = desired_spec(resource)
        record = Record(
            kind=kind,
            section=resource.section,
            nonce=secrets.token_hex(8),
            name=resource.name,
            spec=spec,
            spec_hash=spec_hash(spec),
            **more,
        )
        # in one write, because the old record names the data of the removed object
        self.records.put(record, instead_of=stale)
        return record

    def _labels(self, record: Record) -> dict[str, str]:
        return own_labels(instance=self.records.instance, section=record.section, nonce=record.nonce)

    # networks and volumes

    @_do.register
    def _create_network(self, operation: ops.CreateNetwork) -> None:
        record = self._announce("network", operation.network)
        try:
            object_id = self.engine.create_network(network_body(operation.network, self._labels(record)))
        except EngineError as exc:
            self._undo_announce(record, exc)
            raise without_parent(exc, operation.network, self.interfaces()) from exc
        # the id may be lost in a power cut: the nonce in the network's label identifies it
        self.records.change(record.nonce, lasting=False, object_id=object_id)

    @_do.register
    def _replace_network(self, operation: ops.ReplaceNetwork) -> None:
        # Docker cannot change a network: its containers are disconnected, and connected to the new network as their
        # sections say
        old = self._current(operation.key)
        declared = {container.section: container for container in operation.members}
        exchange = NetworkExchange(engine=self.engine, records=self.records)
        exchange.take_down(old)
        create = ops.CreateNetwork(key=operation.key, cause=operation.cause, network=operation.network)
        try:
            self._create_network(create)
        except EngineError as exc:
            # the engine refused the new network: restore the old one, and do not try again until the section changes
            if exc.status:
                spec = desired_spec(operation.network)
                meant = meaning_hash("network", spec)
                back = exchange.put_back(old)
                self.records.put(
                    replace(
                        back,
                        failed_hash=spec_hash(spec),
                        failed_meaning=meant,
                        failed_why=str(without_secrets(exc, None)),
                    )
                )
            raise
        exchange.connect_members(self._current(operation.key), declared)

    @_do.register
    def _adopt_network(self, operation: ops.AdoptNetwork) -> None:
        differing = network_difference(operation.network, operation.foreign.inspect)
        self._adopt_object("network", operation.network, operation.foreign.id, differing)

    @_do.register
    def _adopt_volume(self, operation: ops.AdoptVolume) -> None:
        differing = volume_difference(operation.volume, operation.foreign.inspect)
        self._adopt_object("volume", operation.volume, operation.foreign.name, differing)

    def _adopt_object(
        self, kind: str, resource: Network | Volume, object_id: str, differing: tuple[str, ...]
    ) -> None:
        """Records options that differ as unknown, so that the next plan sees a change."""
        # The object itself stays unchanged: labels of networks and volumes cannot be set later, so only the record
        # says that it is ours.
        record = self._announce(kind, resource, adopted=True)
        spec = {name: "as found" if name in differing else value for name, value in record.spec.items()}
        spec |= dict.fromkeys(differing, "as found")
        self.records.change(record.nonce, object_id=object_id, spec=spec, spec_hash=spec_hash(spec))

    @_do.register
    def _remove_network(self, operation: ops.RemoveNetwork) -> None:
        # Remove the object before its record: after a crash in between the next pass drops the record of an object
        # that no longer exists. In the other order the network would stay as a foreign one for ever.
        self.engine.remove_network(operation.record.object_id)
        self.records.drop(operation.record.nonce)

    @_do.register
    def _create_volume(self, operation: ops.CreateVolume) -> None:
        # A volume with data that was deleted outside of ucidockd comes back empty. Its users are warned until the
        # user acknowledges the loss.
        before = self._record_of(operation.key)
        empty = before is not None and before.object_id and holds_data(operation.volume)
        record = self._announce("volume", operation.volume, lost=(operation.volume.name,) if empty else ())
        try:
            made = self.engine.create_volume(volume_body(operation.volume, self._labels(record)))
        except EngineError as exc:
            self._undo_announce(record, exc, before)
            raise
        if made.labels.get(LABEL_NONCE) != record.nonce:
            # the engine silently returns an existing volume: another client created it first
            self.records.drop(record.nonce)
            raise ConflictError(f"a volume named {made.name} exists, and ucidockd did not create it")
        self.records.change(record.nonce, lasting=False, object_id=made.name)

    @_do.register
    def _acknowledge(self, operation: ops.AcknowledgeLoss) -> None:
        self.records.change(operation.record.nonce, lost=())

    @_do.register
    def _remove_volume(self, operation: ops.RemoveVolume) -> None:
        self.engine.remove_volume(operation.record.name)
        self.records.drop(operation.record.nonce)

    # containers

    @_do.register
    def _create_container(self, operation: ops.CreateContainer) -> None:
        container = operation.container
        image_id = self.images.ensure(container, keep=operation.keep, fresh=operation.fresh)
        before = self._record_of(operation.key)
        fields = self._history().after(before, container, image_id)
        if before is not None and operation.keep == before.image_id:
            fields["asked"] = before.asked  # this operation does not fulfil the request
        self._make(operation.key, container, image_id, **fields)

    def _make(self, key: str, container: Container, image_id: str, **fields: Any) -> None:
        """Creates a container from that image, replacing one that no longer exists. `fields`: additional fields of its
        record."""
        before = self._record_of(key)
        check_there(self.engine, self.records.records(), container)
        heir = Inheritance()
        # the container was removed outside of ucidockd: the new one inherits its data
        if before is not None and before.object_id:
            declared = [record.name for record in self.records.records() if record.kind == "volume"]
            heir = inherit_from_gone(self.engine, container, image_id, before, declared)
            # an earlier loss is shown until it is acknowledged
            heir = replace(heir, lost=tuple(dict.fromkeys((*before.lost, *heir.lost))))
        more = {"image_id": image_id, "joined": joined_ids(self.records.records(), container), **fields}
        kept = {"volumes": volume_words(heir.carry), "left": heir.left, "lost": heir.lost}
        # recorded before it is created: after a crash the record shows that the container is ours
        record = self._announce(
            "container", container, completed=False, **more, **kept, **kept_policy(container)
        )
        try:
            image = container.spec.image
            labels = self._labels(record)
            body = container_body(container, labels=labels, image=image, api=self.api, carry=heir.carry)
            object_id, inspect = create_from(
                self.engine, container.name, body, image_id=image_id, platform=container.spec.platform or ""
            )
        except EngineError as exc:
            self._undo_announce(record, exc, before)
            raise
        volumes = volumes_of(inspect) or record.volumes
        self.records.change(record.nonce, lasting=False, object_id=object_id, volumes=volumes)
        if heir.lost:
            logger.warning("%s: created again, empty: %s", key, ", ".join(heir.lost))
        # engines before API 1.44 accept one network at create; connect the others before the start
        for network, endpoint in extra_endpoints(container, self.api):
            self.engine.connect(network, object_id, endpoint)

    def _record_of(self, key: str) -> Record | None:
        """The record of a container that no longer exists on the engine."""
        found = [r for r in self.records.records() if r.key == key and not r.swap]
        return found[-1] if found else None

    def _undo_announce(self, record: Record, exc: EngineError, before: Record | None = None) -> None:
        # without a response the engine may have created the object: keep the record; the nonce in its label will show
        if exc.status:
            if before is not None:
                self.records.put(before)  # it names the data of the removed container
            self.records.drop(record.nonce, lasting=False)

    @_do.register
    def _start(self, operation: ops.StartContainer) -> None:
        object_id = self._start_now(operation.key, operation.container)
        if operation.container.policy.post_start:
            record = self._current(operation.key)
            # noted before the hook runs: after a crash in between the next pass runs it again instead of never
            self.records.change(record.nonce, hook_due=True)
            self._run_hook(operation.container, record.nonce, object_id)

    @_do.register
    def _prepare(self, operation: ops.PrepareContainer) -> None:
        record = self._current(operation.key)
        self._run_hook(operation.container, record.nonce, record.object_id)

    def _run_hook(self, container: Container, nonce: str, object_id: str) -> None:
        """Runs `post_start`. If it fails, the container keeps running, and a pass retries after the back-off."""
        self._hooks().post_start(container, object_id)
        self.records.change(nonce, hook_due=False)

    def _start_now(self, key: str, container: Container) -> str:
        """Starts a container and returns the id of what runs then: a new container if the engine could not start the old
        one."""
        with self._starting(container):
            object_id = self._current(key).object_id
            try:
                start = partial(self._start_or_free, object_id)
                with_addresses(self.engine, self.records, container.spec, object_id, start)
            except LeftoverError:
                seen = self.engine.inspect_container(object_id)
                if seen is None or seen.state != "created":
                    raise  # it has run before: what it wrote would be lost
                logger.warning("%s: created again, because the engine can no longer start it", key)
                self.engine.remove_container(object_id, volumes=True, force=True)
                # some volumes were deleted with the container; it never ran, so they were empty
                record = self._current(key)
                kept = tuple(
                    word for word in record.volumes if self.engine.inspect_volume(*names([word])) is not None
                )
                self.records.change(record.nonce, volumes=kept)
                self._create_container(ops.CreateContainer(key=key, cause="", container=container))
                object_id = self._current(key).object_id
                self.engine.start(object_id)
        return object_id

    def _start_or_free(self, object_id: str) -> None:
        """Starts a container. If it is still connected to a network that was removed, it is disconnected from it first,
        because the engine refuses to start it otherwise."""
        try:
            self.engine.start(object_id)
        except EngineError as exc:
            if exc.status != 404 or not disconnect_from_gone(self.engine, object_id):
                raise
            self.engine.start(object_id)

    def _starting(self, container: Container) -> AbstractContextManager[None]:
        """Lets only one container start at a time if the engine chooses host ports: its choice is not atomic
        (moby#50054).

        Ranges are sent port by port, so the engine has nothing to choose in them.
        """
        picks = container.spec.publish_all or any(
            not port.host_port or port.host_port_end for port in container.spec.ports
        )
        return self.pool.one_at_a_time() if picks else nullcontext()

    @_do.register
    def _stop(self, operation: ops.StopContainer) -> None:
        # the record does not change: every plan derives from the section that the container should be stopped
        self.engine.stop(operation.record.object_id, operation.stop_timeout_s)

    @_do.register
    def _unpause(self, operation: ops.UnpauseContainer) -> None:
        self.engine.unpause(operation.record.object_id)

    @_do.register
    def _note(self, operation: ops.NoteContainer) -> None:
        record = operation.record
        changes = kept_policy(operation.container)
        # Changed needs count as applied only after the next replacement: until then the container runs with its old
        # mounts.
        if not operation.waits:
            changes |= {"waits": record.waits, "waits_known": record.waits_known}
        if operation.volumes is not None:
            changes["volumes"] = operation.volumes
        self.records.change(record.nonce, **changes, completed=record.completed and not operation.again)

    @_do.register
    def _update(self, operation: ops.UpdateContainer) -> None:
        record, container = self._current(operation.key), operation.container
        # where the kernel lacks a feature, the engine silently ignores the setting, and would do so again
        ignored = self._update_and_look(record, operation)
        if ignored:  # or another client reset it just now
            ignored = self._update_and_look(record, operation)
        if ignored:
            logger.warning("%s: the engine ignores %s", operation.key, ", ".join(ignored))
        # a field that took effect this time is checked again from now on
        others = set(record.ignored) - set(operation.fields)
        every = tuple(sorted({*others, *ignored}))
        if operation.again:
            self.records.change(record.nonce, ignored=every)
        else:
            self._applied(record, container, ignored=every)

    def _update_and_look(self, record: Record, operation: ops.UpdateContainer) -> tuple[str, ...]:
        """Updates the container and returns the fields that did not take effect."""
        container = operation.container
        self.engine.update(record.object_id, update_body(container.spec, operation.fields))
        seen = self.engine.inspect_container(record.object_id)
        drift = container_drift(container, (seen.inspect if seen else None) or {}, {}, api=self.api)
        return tuple(change.field for change in drift if change.field in operation.fields)

    def _applied(self, record: Record, container: Container, **changes: Any) -> None:
        # After an update in place the record is the same as that of a new container, so the next plan sees no
        # difference.
        spec = desired_spec(container)
        if record.spec_hash != spec_hash(spec):
            # the section changed: this acknowledges a loss and ends the pin of a rollback
            changes = {"lost": (), "pinned": False, **changes}
        self.records.change(
            record.nonce, spec=spec, spec_hash=spec_hash(spec), name=container.name, **changes
        )

    @_do.register
    def _rename(self, operation: ops.RenameContainer) -> None:
        self.engine.rename(self._current(operation.key).object_id, operation.container.name)
        self.records.change(operation.record.nonce, name=operation.container.name)

    @_do.register
    def _reconnect(self, operation: ops.ReconnectContainer) -> None:
        record, container = self._current(operation.key), operation.container
        try:
            reconnect(self.engine, self.records, record.object_id, container.spec, ignored=record.ignored)
        except EngineError as exc:
            # the engine refused what the section says: try again when the section changes
            if exc.status and not operation.again and record.spec_hash != spec_hash(desired_spec(container)):
                self.records.change(record.nonce, **failure_of(container, record.image_id, record))
            raise
        if operation.again:
            return
        self._applied(record, container)
        if MAC_FIELD not in record.ignored and not self._has_its_macs(record.object_id, container):
            logger.warning("%s: the engine forgot the MAC address in the reconnect", operation.key)
            cause = "the engine forgets a MAC address in a reconnect"
            self._replace(
                ops.ReplaceContainer(key=operation.key, cause=cause, container=container, record=record)
            )

    @_do.register
    def _replace(self, operation: ops.ReplaceContainer) -> None:
        container, before = operation.container, self._current(operation.key)
        if operation.frees:
            self._replace_in_place(operation, before)
            return
        try:
            # Pull first: it takes longest and fails most often, and nothing of the old container has been touched
            # yet.
            image_id = self.images.ensure(
                container,
                keep=operation.keep,
                digest=operation.digest,
                fresh=operation.fresh,
                running=before.image_id,
                only=operation.pin,
            )
            if operation.only_image and not operation.restores and image_id == before.image_id:
                self.records.change(before.nonce, asked="", pinned=before.pinned and operation.pin)
                return
            if operation.runs:
                self._hooks().hold(container, before)
            swap = self._swap(pin=operation.pin, restores=operation.restores)
            try:
                swap.run(container, before, image_id=image_id)
            finally:  # also removes copies that interrupted attempts have left
                if before.saved or operation.restores or container.policy.backup_before_update:
                    forget_copies(self.data, self.records)
        except (SkippedError, UndecidedError, EngineUnreachableError):
            raise  # the request stays open
        except UcidockdError:
            if before.asked and self.records.get(before.nonce) is not None:
                self.records.change(before.nonce, asked="")
            raise
        record = self._current(operation.key)
        if not self._has_its_macs(record.object_id, container):
            # a new container would not have the address either
            logger.warning("%s: the engine ignores mac_address", operation.key)
            self.records.change(record.nonce, ignored=(*record.ignored, MAC_FIELD))

    def _replace_in_place(self, operation: ops.ReplaceContainer, before: Record) -> None:
        from agent.apply.free_first import FreeFirst  # imported here because few users need it

        container, key = operation.container, operation.key
        steps = FreeFirst(
            engine=self.engine,
            records=self.records,
            images=self.images,
            history=self._history(pin=operation.pin),
            hooks=self._hooks(),
            current=lambda: self._current(key),
            create=partial(self._make, key),
            start=partial(self._start_now, key, container),
            leave=self._swap().leave,
            waiting=self.pool.elsewhere,
        )
        try:
            if operation.runs and not before.freed:
                self._hooks().hold(container, before)
            steps.run(operation)
        except (SkippedError, UndecidedError, EngineUnreachableError):
            raise  # the request stays open
        except UcidockdError:
            now = self._current(key)
            if now.asked and not now.freed:
                self.records.change(now.nonce, asked="")
            raise

    def _has_its_macs(self, object_id: str, container: Container) -> bool:
        if not any(endpoint.mac_address for endpoint in container.spec.endpoints):
            return True
        seen = self.engine.inspect_container(object_id)
        return seen is None or shows_macs(container.spec, seen.inspect or {})

    @_do.register
    def _adopt(self, operation: ops.AdoptContainer) -> None:
        # The foreign container is replaced like one of ours, so that it comes back if the new one fails. Its record
        # holds what a rollback has to restore.
        foreign = operation.foreign
        made_of = str(((foreign.inspect or {}).get("Config") or {}).get("Image") or "")
        keep = foreign.image_id if is_same_image(made_of, operation.container.spec.image) else ""
        image_id = self.images.ensure(operation.container, keep=keep)
        policy = ((foreign.inspect or {}).get("HostConfig") or {}).get("RestartPolicy") or {}
        spec = {
            "restart": {"name": policy.get("Name") or "no", "max_retries": policy.get("MaximumRetryCount", 0)}
        }
        section = operation.container.section
        for earlier in self.records.records():
            if (earlier.section, earlier.swap) == (section, "foreign"):
                self.records.drop(earlier.nonce)
        nonce = secrets.token_hex(8)
        record = Record(
            kind="container",
            section=section,
            nonce=nonce,
            name=foreign.name,
            object_id=foreign.id,
            spec=spec,
            spec_hash=spec_hash(spec),
            swap="foreign",
        )
        self.records.put(record)
        try:
            self._swap().run(operation.container, record, image_id=image_id)
        except UcidockdError:
            left = self.records.get(nonce)
            unfinished = any(other.partner == nonce for other in self.records.records())
            # keep the record while a rollback needs it, or to remember that the adoption failed
            if left is not None and not unfinished and not left.failed_hash:
                self.records.drop(nonce)
            raise

    def _history(self, *, pin: bool = False) -> ImageHistory:
        return ImageHistory(images=self.images, keep=self.keep_images, pin=pin)

    def _hooks(self) -> Hooks:
        return Hooks(engine=self.engine, records=self.records, clock=self.clock)

    def _swap(self, *, pin: bool = False, restores: str = "") -> Swap:
        return Swap(
            data=self.data,
            restores=restores,
            history=self._history(pin=pin),
            engine=self.engine,
            records=self.records,
            api=self.api,
            stopping=self.stopping,
            current=self.current,
            waiting=self.pool.elsewhere,
            starting=self._starting,
            clock=self.clock,
        )

    @_do.register
    def _retire(self, operation: ops.RetireContainer) -> None:
        record = operation.record
        if record.kind == "container":
            # otherwise the engine would start it again at its next start
            self.engine.update(record.object_id, restart_body("no"))
            self.engine.stop(record.object_id, None)
        # The grace period begins now. The container keeps its name and data, so that a section that comes back gets
        # everything.
        self.records.change(record.nonce, removed_at=self.clock.wall())

    @_do.register
    def _restore(self, operation: ops.RestoreContainer) -> None:
        policy = operation.record.spec.get("restart") or {}
        body = restart_body(policy.get("name", "no"), policy.get("max_retries", 0))
        self.engine.update(operation.record.object_id, body)
        self.records.change(operation.record.nonce, removed_at=None)

    @_do.register
    def _remove_container(self, operation: ops.RemoveContainer) -> None:
        record = operation.record
        self.engine.remove_container(record.object_id, volumes=operation.volumes, force=True)
        if operation.volumes:
            # the anonymous volumes of the removed container; volumes that were carried over have to be removed by
            # name
            volumes = names(record.volumes, record.left)
            # The engine's `v=1` removes only volumes that it created for this container, not volumes carried over
            # from an earlier one.
            for name in volumes:
                try:
                    self.engine.remove_volume(name)
                except EngineError as exc:
                    if exc.status != 409:  # another container uses it
                        raise
                    logger.warning("volume %s stays: %s", name, exc)
        self._drop(record)

    @_do.register
    def _forget(self, operation: ops.Forget) -> None:
        self._drop(operation.record)

    def _drop(self, record: Record) -> None:
        self.records.drop(record.nonce)
        if record.saved:
            forget_copies(self.data, self.records)
