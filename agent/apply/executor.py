# SPDX-License-Identifier: GPL-2.0-or-later
"""Carries plans out, deciding nothing: works in parallel as their needs allow, operations of one work in order.

An engine call that changes something is always awaited to its end: a thread cannot be cancelled, so after a time-out
the object would be in an unknown state. A failed work fails those that need it, not the others. A plan is begun
without waiting for its end: a pull or a gate of one container takes minutes and must not hold up the others.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import singledispatchmethod

from agent.apply.images import Images
from agent.apply.ports import Engine
from agent.apply.records import Records
from agent.apply.swap import Swap, restart_body
from agent.errors import ConflictError, EngineError, InternalError, UcidockdError
from agent.model.identity import own_labels, spec_hash
from agent.model.observed import Record
from agent.model.resources import Container, Network, Volume
from agent.plan import operations as ops
from agent.plan.payload import (
    container_body,
    endpoint_body,
    extra_endpoints,
    network_body,
    update_body,
    volume_body,
)
from agent.plan.reconcile import desired_spec

logger = logging.getLogger(__name__)

_THREADS = 32  # more than workers: those that pull or wait at a gate hold no place


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one operation; `error` is None when it worked."""

    operation: ops.Operation
    error: UcidockdError | None = None


class Crew:
    """The threads that works run in, shared by all plans; at most `workers` of them talk to the engine at once."""

    def __init__(self, workers: int) -> None:
        self.pool = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="apply")
        self._places = threading.BoundedSemaphore(workers)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Holds one of the places."""
        with self._places:
            yield

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        """Gives the place up for as long as the holder only waits."""
        self._places.release()
        try:
            yield
        finally:
            self._places.acquire()


class Run:
    """One plan being carried out."""

    def __init__(
        self, plan: ops.Plan, crew: Crew, work: Callable[[ops.Work, set[str]], list[Outcome]]
    ) -> None:
        self._crew, self._work = crew, work
        self._pending = {each.key: each for each in plan.works}
        self._running: set[str] = set()
        self._failed: set[str] = set()
        self._outcomes: list[Outcome] = []
        self._fault: BaseException | None = None
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._begin_ready()

    def wait(self) -> tuple[Outcome, ...]:
        """Blocks until every work ended; returns the outcomes in the order in which they came.

        Raises what a work raised that is no UcidockdError: a fault of ours.
        """
        self._ended.wait()
        if self._fault is not None:
            raise self._fault
        return tuple(self._outcomes)

    def _begin_ready(self) -> None:
        with self._lock:
            open_keys = self._pending.keys() | self._running
            ready = [work for work in self._pending.values() if not work.needs & open_keys]
            for work in ready:
                del self._pending[work.key]
                self._running.add(work.key)
            if not self._running:
                self._ended.set()
        for work in ready:
            self._crew.pool.submit(self._carry_out, work, self._failed & work.needs)

    def _carry_out(self, work: ops.Work, failed_needs: set[str]) -> None:
        outcomes: list[Outcome] = []
        try:
            with self._crew.place():
                outcomes = self._work(work, failed_needs)
        except BaseException as exc:
            logger.exception("%s: work ended by a fault of ours", work.key)
            self._fault = exc
        with self._lock:
            self._outcomes += outcomes
            self._running.remove(work.key)
            if self._fault is not None or any(outcome.error for outcome in outcomes):
                self._failed.add(work.key)
        self._begin_ready()


@dataclass(slots=True, kw_only=True)
class Executor:
    """Runs plans on one engine. `current`: whether a container still is what the configuration says."""

    engine: Engine
    records: Records
    images: Images
    crew: Crew
    wall_clock: Callable[[], float]
    stopping: Callable[[], bool] = lambda: False
    current: Callable[[Container], bool] = lambda container: True
    report: Callable[[Outcome], None] = lambda outcome: None
    ended: Callable[[ops.Work, bool], None] = lambda work, succeeded: None
    api: tuple[int, int] = (1, 41)

    def begin(self, plan: ops.Plan) -> Run:
        """Starts to carry the plan out and returns at once."""
        return Run(plan, self.crew, self._run)

    def _run(self, work: ops.Work, failed_needs: set[str]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        try:
            for operation in work.operations:
                outcome = Outcome(operation=operation, error=self._attempt(operation, failed_needs))
                self.report(outcome)
                outcomes.append(outcome)
                if outcome.error is not None:
                    break
        finally:
            complete = len(outcomes) == len(work.operations) and not any(o.error for o in outcomes)
            self.ended(work, complete)
        return outcomes

    def _attempt(self, operation: ops.Operation, failed_needs: set[str]) -> UcidockdError | None:
        if failed_needs:
            return EngineError(f"{', '.join(sorted(failed_needs))} failed first", retryable=True)
        if self.stopping():
            return EngineError("the agent stops", retryable=True)
        try:
            self._do(operation)
        except UcidockdError as exc:
            return exc
        except OSError as exc:
            return EngineError(f"state.json cannot be written: {exc.strerror}", retryable=True)
        return None

    @singledispatchmethod
    def _do(self, operation: ops.Operation) -> None:
        raise InternalError(f"no executor for {operation.verb}")

    def _current(self, key: str) -> Record:
        """The record of a resource as it is now: an operation before this one may have changed it."""
        kind, _, section = key.partition(":")
        found = [r for r in self.records.records() if (r.kind, r.section, r.swap) == (kind, section, "")]
        if not found:
            raise InternalError(f"{key} has no record")
        return found[-1]

    def _announce(self, kind: str, resource: Container | Network | Volume, image_id: str = "") -> Record:
        """A record is written before its object is created: a crash in between leaves nothing unknown."""
        stale = [
            r for r in self.records.records() if (r.kind, r.section, r.swap) == (kind, resource.section, "")
        ]
        for record in stale:
            self.records.drop(record.nonce)
        spec = desired_spec(resource)
        record = Record(
            kind=kind,
            section=resource.section,
            nonce=secrets.token_hex(8),
            name=resource.name,
            spec=spec,
            spec_hash=spec_hash(spec),
            image_id=image_id,
        )
        self.records.put(record)
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
            raise
        self.records.change(record.nonce, object_id=object_id)

    @_do.register
    def _replace_network(self, operation: ops.ReplaceNetwork) -> None:
        old = operation.record
        seen = self.engine.inspect_network(old.object_id)
        attached = set((seen.inspect.get("Containers") or {}) if seen else ())
        ours = {r.object_id for r in self.records.records() if r.kind == "container"}
        if attached - ours:
            names = (
                ", ".join(sorted(seen.inspect["Containers"][i]["Name"] for i in attached - ours))
                if seen
                else ""
            )
            raise ConflictError(f"network {old.name} is used by containers that are not ours: {names}")
        for object_id in sorted(attached):
            self.engine.disconnect(old.object_id, object_id)
        self.engine.remove_network(old.object_id)
        self._create_network(
            ops.CreateNetwork(key=operation.key, cause=operation.cause, network=operation.network)
        )
        for member in operation.members:
            self._connect_again(member, operation.network.name, attached)

    def _connect_again(self, member: Container, network: str, attached: set[str]) -> None:
        record = next(
            (r for r in self.records.records() if (r.kind, r.section) == ("container", member.section)), None
        )
        if record is not None and record.object_id in attached:
            endpoint = next(e for e in member.spec.endpoints if e.network == network)
            self.engine.connect(network, record.object_id, endpoint_body(endpoint))

    @_do.register
    def _remove_network(self, operation: ops.RemoveNetwork) -> None:
        self.engine.remove_network(operation.record.object_id)
        self.records.drop(operation.record.nonce)

    @_do.register
    def _create_volume(self, operation: ops.CreateVolume) -> None:
        record = self._announce("volume", operation.volume)
        made = self.engine.create_volume(volume_body(operation.volume, self._labels(record)))
        self.records.change(record.nonce, object_id=made.created or made.name)

    @_do.register
    def _remove_volume(self, operation: ops.RemoveVolume) -> None:
        self.engine.remove_volume(operation.record.name)
        self.records.drop(operation.record.nonce)

    # containers

    @_do.register
    def _create_container(self, operation: ops.CreateContainer) -> None:
        container = operation.container
        image_id = self.images.ensure(container)
        record = self._announce("container", container, image_id)
        try:
            body = container_body(container, labels=self._labels(record), image=image_id, api=self.api)
            object_id = self.engine.create_container(container.name, body)
        except EngineError as exc:
            self._undo_announce(record, exc)
            raise
        self.records.change(record.nonce, object_id=object_id)
        for network, endpoint in extra_endpoints(container):
            self.engine.connect(network, object_id, endpoint)

    def _undo_announce(self, record: Record, exc: EngineError) -> None:
        # without an answer the engine may have created it: the record stays, the label's nonce tells at the next look
        if exc.status:
            self.records.drop(record.nonce)

    @_do.register
    def _start(self, operation: ops.StartContainer) -> None:
        self.engine.start(self._current(operation.key).object_id)

    @_do.register
    def _stop(self, operation: ops.StopContainer) -> None:
        self.engine.stop(operation.record.object_id, operation.stop_timeout_s)

    @_do.register
    def _update(self, operation: ops.UpdateContainer) -> None:
        record = self._current(operation.key)
        self.engine.update(record.object_id, update_body(operation.container.spec, operation.fields))
        self._applied(record, operation.container)

    def _applied(self, record: Record, container: Container) -> None:
        spec = desired_spec(container)
        self.records.change(record.nonce, spec=spec, spec_hash=spec_hash(spec), name=container.name)

    @_do.register
    def _rename(self, operation: ops.RenameContainer) -> None:
        self.engine.rename(self._current(operation.key).object_id, operation.container.name)
        self.records.change(operation.record.nonce, name=operation.container.name)

    @_do.register
    def _reconnect(self, operation: ops.ReconnectContainer) -> None:
        record = self._current(operation.key)
        seen = self.engine.inspect_container(record.object_id)
        networks = ((seen and seen.inspect) or {}).get("NetworkSettings", {}).get("Networks") or {}
        for name in sorted(networks):
            self.engine.disconnect(name, record.object_id)
        for endpoint in operation.container.spec.endpoints:
            self.engine.connect(endpoint.network, record.object_id, endpoint_body(endpoint))
        self._applied(record, operation.container)

    @_do.register
    def _replace(self, operation: ops.ReplaceContainer) -> None:
        image_id = self.images.ensure(operation.container)
        self._swap().run(operation.container, self._current(operation.key), image_id=image_id)

    @_do.register
    def _adopt(self, operation: ops.AdoptContainer) -> None:
        image_id = self.images.ensure(operation.container)
        foreign = operation.foreign
        policy = ((foreign.inspect or {}).get("HostConfig") or {}).get("RestartPolicy") or {}
        spec = {
            "restart": {"name": policy.get("Name") or "no", "max_retries": policy.get("MaximumRetryCount", 0)}
        }
        section = operation.container.section
        nonce = secrets.token_hex(8)
        record = Record(
            kind="container",
            section=section,
            nonce=nonce,
            name=foreign.name,
            object_id=foreign.id,
            spec=spec,
            swap="foreign",
        )
        self.records.put(record)
        try:
            self._swap().run(operation.container, record, image_id=image_id)
        except UcidockdError:
            self.records.drop(nonce)
            raise

    def _swap(self) -> Swap:
        return Swap(
            engine=self.engine,
            records=self.records,
            api=self.api,
            stopping=self.stopping,
            current=self.current,
            waiting=self.crew.elsewhere,
        )

    @_do.register
    def _retire(self, operation: ops.RetireContainer) -> None:
        record = operation.record
        if record.kind == "container":
            self.engine.update(record.object_id, restart_body("no"))
            self.engine.stop(record.object_id, None)
        self.records.change(record.nonce, removed_at=self.wall_clock())

    @_do.register
    def _restore(self, operation: ops.RestoreContainer) -> None:
        policy = operation.record.spec.get("restart") or {}
        body = restart_body(policy.get("name", "no"), policy.get("max_retries", 0))
        self.engine.update(operation.record.object_id, body)
        self.records.change(operation.record.nonce, removed_at=None)

    @_do.register
    def _remove_container(self, operation: ops.RemoveContainer) -> None:
        self.engine.remove_container(operation.record.object_id, volumes=operation.volumes, force=True)
        self.records.drop(operation.record.nonce)

    @_do.register
    def _forget(self, operation: ops.Forget) -> None:
        self.records.drop(operation.record.nonce)


def recover(engine: Engine, records: Records, busy: Collection[str]) -> None:
    """Finishes or undoes what a crash cut short, `busy` keys apart. Does nothing when nothing is open."""
    swap = Swap(engine=engine, records=records, api=(1, 41))
    for record in records.records():
        if record.swap == "new" and f"{record.kind}:{record.section}" not in busy:
            logger.info("undoing an unfinished swap of %s", record.name)
            swap.undo(record)
    for record in records.records():
        if f"{record.kind}:{record.section}" in busy:
            continue
        if record.swap == "retired":
            swap.finish(record, volumes=False)
        elif record.swap == "foreign":
            records.drop(record.nonce)
        elif not record.object_id:
            _settle(engine, records, replace(record))


def _settle(engine: Engine, records: Records, record: Record) -> None:
    """A record announced without an answer: its object either carries the nonce, or was never made."""
    look = {
        "container": engine.inspect_container,
        "network": engine.inspect_network,
        "volume": engine.inspect_volume,
    }[record.kind]
    seen = look(record.name)
    if seen is None or seen.labels.get("ucidockd.nonce") != record.nonce:
        records.drop(record.nonce)
        return
    object_id = getattr(seen, "id", "") or getattr(seen, "created", "") or seen.name
    records.change(record.nonce, object_id=object_id)
