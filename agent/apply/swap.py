# SPDX-License-Identifier: GPL-2.0-or-later
"""Replaces a container without losing it: a swap that survives a crash at any step.

`agent.apply.steps` defines the steps. With `strategy handover` the new container is started and proven before the old
one stops; the undo is the same.

Writing state.json is the commit point. Until then the old container is the valid one, and `undo` restores it after
any failure or crash. From then on the new container is the valid one, and only the removal of the old one is left.
Two values in state.json ("new", "retired") hold the whole state, so it never has to be derived from names on the
engine.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from agent.apply.failures import is_refusal, without_secrets
from agent.apply.images import ImageHistory, create_from
from agent.apply.networks import with_addresses
from agent.apply.ports import SYSTEM_CLOCK, Clock, Engine, Records, SavedData, answering, made_for, miss
from agent.apply.steps import (
    ORDER,
    GateError,
    Hooks,
    Step,
    UndecidedError,
    check_there,
    failed_fields,
    go_back,
    inherit,
    prove,
)
from agent.errors import ConflictError, EngineError, EngineUnreachableError, StorageError, UcidockdError
from agent.model.identity import own_labels, spec_hash
from agent.model.observed import ObservedContainer, Record
from agent.model.resources import Container, Strategy
from agent.plan.container.bodies import (
    anonymous_volumes,
    container_body,
    extra_endpoints,
    volume_words,
    volumes_of,
)
from agent.plan.draft import desired_spec, joined_ids, plugged_words
from agent.plan.records import is_alive, name_outside, swap_name, waits_of

logger = logging.getLogger(__name__)


class DataNotMovedError(EngineError):
    """The data could not be saved before an update, or could not be restored. The replacement does not go on without it."""

    code = "data"


@dataclass(slots=True, kw_only=True)
class _SwapState:
    """The state of one swap. `new`: the present record of the new container."""

    container: Container
    old: Record
    new: Record
    before: ObservedContainer
    saves: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """One replacement. `run` raises the error that caused a rollback, after the old container is back. `restores`: the
    key of the saved data to restore into the volumes."""

    engine: Engine
    records: Records
    api: tuple[int, int]
    history: ImageHistory | None = None
    data: SavedData | None = None
    restores: str = ""
    stopping: Callable[[], bool] = lambda: False
    current: Callable[[Container], bool] = lambda container: True
    waiting: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
    starting: Callable[[Container], AbstractContextManager[None]] = lambda container: contextlib.nullcontext()
    clock: Clock = SYSTEM_CLOCK

    def run(self, container: Container, old: Record, *, image_id: str) -> None:
        """Replaces the container of record `old` with one of `container`'s spec."""
        # inspect now instead of using the plan: a pull may have taken minutes since then
        before = self.engine.inspect_container(old.object_id)
        if before is None:
            raise EngineError(f"{old.name} went away before it could be replaced", retryable=True)
        # left over from a swap whose old container was removed outside of ucidockd
        if name_outside(before.name, "new") == container.name:
            self.engine.rename(old.object_id, container.name)
            before = replace(before, name=container.name)
        old = replace(old, running=is_alive(before))
        if container.policy.backup_before_update:
            # an agent that is killed again and again, with its router for example, would fill the disk with copies
            forget_copies(self.data, self.records)
        saves = self._check_data(container, old, image_id)
        # The nonce is in the names of both containers during the swap and in the new one's labels: it distinguishes
        # them from anything that a user creates.
        nonce = secrets.token_hex(8)
        self._check_names(swap_name(container.name, "new", nonce), swap_name(before.name, "old", nonce))
        new = self._announce(container, old, image_id, nonce)
        under_way = _SwapState(container=container, old=old, new=new, before=before, saves=saves)
        try:
            with answering(self.engine):
                self._do(Step.CREATE, under_way)
                # Both strategies create first: the volumes of the created container show whether the two may run at
                # the same time. Not if anonymous volumes move from one to the other: sections do not name them, and
                # both would write. Nor if there is data to save or restore, which must not change meanwhile.
                policy, new = container.policy, under_way.new
                overlap = policy.should_run and old.running and not (new.volumes or saves or new.restores)
                strategy = (
                    Strategy.HANDOVER if overlap and policy.strategy is Strategy.HANDOVER else Strategy.SWAP
                )
                for step in ORDER[strategy][1:]:
                    self._do(step, under_way)
            # the commit point: from this write on, the new container is the valid one
            self._commit(old, under_way.new)
        except (EngineError, StorageError) as exc:
            new = under_way.new
            unmoved = isinstance(exc, DataNotMovedError)
            # an engine that was lost, or that failed while the old container was set aside, says nothing about the
            # new container
            refused = isinstance(exc, EngineError) and is_refusal(exc)
            rejected = unmoved or refused or isinstance(exc, GateError)
            # undo restored data in any case: a failed container must not cost what was written since the update
            undone = container.policy.rollback or unmoved or bool(new.restores)
            if undone or not rejected or not new.object_id:
                self._roll_back(new, refused=isinstance(exc, EngineError) and exc.status > 0)
                # if only the create failed and will be retried, there was nothing to roll back: an ordinary failure
                # without an engine it is not undone yet, and is tried again when the engine is back
                lost = isinstance(exc, EngineUnreachableError)
                exc.rolled_back = not lost and (rejected or bool(new.object_id))
                now = self.records.get(old.nonce)
                if rejected and now is not None:
                    digest = new.digest if image_id != old.image_id else ""
                    failed = failed_fields(container, image_id, exc, now, digest=digest)
                    self.records.change(old.nonce, **failed)
                raise
            told = without_secrets(exc, container)
            logger.warning("%s: %s; rollback is off, the new container stays", container.name, told)
            self._commit(old, self.records.get(new.nonce) or new)
        self.finish(replace(old, swap="retired"), volumes=False)

    def _check_data(self, container: Container, old: Record, image_id: str) -> tuple[str, ...]:
        """The volumes to save first. Raises DataNotMovedError if they cannot be saved, and UndecidedError if only another
        process could save them, before anything is stopped."""
        # Only a new image may convert its data to a format that the old image cannot read; a changed option does not.
        # When going back to an earlier image, its data is already saved.
        is_update = old.image_id and image_id != old.image_id and not (self.history and self.history.pin)
        saves: tuple[str, ...] = ()
        if is_update and container.policy.backup_before_update:
            named = (mount.source for mount in container.spec.mounts if not mount.is_bind)
            saves = tuple(dict.fromkeys(filter(None, named)))
        if saves or self.restores:
            if self.data is None:
                raise UndecidedError("only a running agent saves and restores data: start it", retryable=True)
            self._move(lambda data: data.check(saves))
        return saves

    def _move(self, what: Callable[[SavedData], None]) -> None:
        try:
            if self.data is None:
                raise ConflictError("only a running agent saves and restores data: start it first")
            what(self.data)
        except EngineUnreachableError:
            raise
        except UcidockdError as exc:
            raise DataNotMovedError(str(exc)) from exc

    def _check_names(self, *names: str) -> None:
        """Checks that the temporary names are free. Raises ConflictError now, because the second name is needed only
        after the stop."""
        for name in names:
            if self.engine.inspect_container(name) is not None:
                raise ConflictError(f"a container named {name} exists, and ucidockd did not create it")

    def _roll_back(self, new: Record, *, refused: bool) -> None:
        """Rolls back. Errors are only logged: the record stays, so the next pass tries again."""
        try:
            self.undo(self.records.get(new.nonce) or new, refused=refused)
        except (EngineError, StorageError) as exc:
            logger.warning("%s: the rollback is not complete: %s", new.name, exc)

    def _announce(self, container: Container, old: Record, image_id: str, nonce: str) -> Record:
        spec = desired_spec(container)
        kept = self.history.after(old, container, image_id) if self.history is not None else {}
        # the saved data is being restored into the volumes; there is no second copy for another way back
        if self.restores:
            kept["saved"] = ()
        new = Record(
            kind="container",
            section=container.section,
            nonce=nonce,
            name=container.name,
            spec=spec,
            spec_hash=spec_hash(spec),
            image_id=image_id,
            swap="new",
            partner=old.nonce,
            joined=joined_ids(self.records.records(), container),
            completed=False,
            **kept_policy(container),
            restores=self.restores,
            **kept,
        )
        # in one write: a rollback, even after a restart, reads in `old.running` whether to start the old container
        self.records.put(new, old)
        return new

    def _do(self, step: Step, under_way: _SwapState) -> None:
        container, old, new = under_way.container, under_way.old, under_way.new
        match step:
            case Step.CREATE:
                under_way.new = self._create(container, new, under_way.before)
            case Step.STOP:
                remark = self._hooks().pre_stop(container, old.object_id) if old.running else ""
                if remark:
                    under_way.new = self.records.change(new.nonce, lasting=False, remark=remark)
                self._disable_restarts(old)
                self.engine.stop(old.object_id, container.spec.stop_timeout_s)
            case Step.MOVE_DATA:
                if under_way.saves:
                    self._move(lambda data: data.save(under_way.saves, new.nonce))
                    saved = (new.nonce, f"{old.image_id}={old.digest}")
                    under_way.new = self.records.change(new.nonce, saved=saved)
                if new.restores:
                    self._move(lambda data: data.lend(new.restores))
            case Step.SET_ASIDE:
                # names are unique on an engine: rename the old container first
                self.engine.rename(old.object_id, swap_name(under_way.before.name, "old", new.nonce))
                self.engine.rename(new.object_id, container.name)
            case Step.PROVE:
                if container.policy.should_run:
                    start = partial(self._start, container, new)
                    prove(
                        container,
                        start,
                        hooks=self._hooks(),
                        waiting=self.waiting,
                        leave=self.leave,
                        replaces=old.running,
                    )

    def _create(self, container: Container, new: Record, before: ObservedContainer) -> Record:
        check_there(self.engine, self.records.records(), container)
        labels = own_labels(instance=self.records.instance, section=container.section, nonce=new.nonce)
        mounted = anonymous_volumes(before.inspect or {})
        # match anonymous volumes by target: the new image may use other targets than the old one
        old = self.records.get(new.partner)
        heir = inherit(
            self.engine, container, new.image_id, mounted, left=old.left if old is not None else ()
        )
        image = container.spec.image
        body = container_body(container, labels=labels, image=image, api=self.api, carry=heir.carry)
        # under a temporary name: the old container still has the declared name, and is reachable by it
        name = swap_name(container.name, "new", new.nonce)
        object_id, inspect = create_from(
            self.engine, name, body, image_id=new.image_id, platform=container.spec.platform or ""
        )
        volumes = volumes_of(inspect) or volume_words(heir.carry)
        new = self.records.change(
            new.nonce, lasting=False, object_id=object_id, volumes=volumes, left=heir.left
        )
        for network, endpoint in extra_endpoints(container, self.api):
            self.engine.connect(network, object_id, endpoint)
        return new

    def _disable_restarts(self, old: Record) -> None:
        """Disables the restart policy, also of a stopped container: an engine that restarts in the middle of the swap
        would start both."""
        try:
            self.engine.update(old.object_id, restart_body("no"))
        except EngineError:
            # a container that ended at this moment: the engine tried to update a process that no longer exists
            seen = self.engine.inspect_container(old.object_id)
            if seen is None or is_alive(seen):
                raise
            self.engine.update(old.object_id, restart_body("no"))

    def _start(self, container: Container, new: Record) -> str:
        with self.starting(container):
            start = partial(self.engine.start, new.object_id)
            with_addresses(self.engine, self.records, container.spec, new.object_id, start)
        return new.object_id

    def _hooks(self) -> Hooks:
        return Hooks(engine=self.engine, records=self.records, clock=self.clock)

    def leave(self, container: Container) -> None:
        """Raises UndecidedError if there is no point in waiting for the new container."""
        if self.stopping():
            raise UndecidedError(
                "the agent stops before the new container has passed its gate", retryable=True
            )
        if not self.current(container):
            raise UndecidedError("the configuration changed again before the gate was passed", retryable=True)

    def _commit(self, old: Record, new: Record) -> None:
        """Commits the swap. Drops every other record of the section: of a container removed earlier, or replaced by
        adopting a foreign one."""
        fresh = sorted(set(new.left) - set(old.left))
        if fresh:
            logger.warning("%s: not mounted any more and kept: volume %s", new.name, ", ".join(fresh))
        of = ("container", new.section, "")
        for record in self.records.records():
            is_of_it = (record.kind, record.section, record.swap) == of
            if is_of_it and record.nonce not in {old.nonce, new.nonce}:
                self.records.drop(record.nonce, lasting=False)
        # both in one write: with only one of them, a restart would find two valid containers, or none
        self.records.put(replace(new, swap="", partner="", restores=""), replace(old, swap="retired"))

    def finish(self, old: Record, *, volumes: bool) -> None:
        """Removes a replaced container; its anonymous volumes live on in the new one."""
        # force: it was stopped, but a user may have started it again
        self.engine.remove_container(old.object_id, volumes=volumes, force=True)
        if old.saved:  # drop its record last: after a kill it shows that there may be copies
            forget_copies(self.data, self.records)
        self.records.drop(old.nonce, lasting=False)

    def undo(self, new: Record, *, refused: bool = False) -> None:
        """Restores the old container and removes the new one. If the old one no longer exists, the new one stays,
        because it has the data. Safe to repeat. `refused`: the engine refused to create the new one.
        """
        old = self.records.get(new.partner)
        # without its id, the new container would keep its ports and addresses for ever
        made = None if new.object_id else made_for(self.engine, self.records, new)
        # the create may have succeeded without a response
        object_id = made.id if made is not None else new.object_id
        seen = self.engine.inspect_container(old.object_id) if old is not None else None
        if object_id and old is not None and seen is None:
            self._commit(old, replace(new, object_id=object_id))
            self.finish(replace(old, swap="retired"), volumes=False)
            return
        new = replace(new, object_id=object_id)
        # A handover is undone in the order of a swap: the old container gets nothing back while the new one still
        # exists or has its data. Its name and its restart policy do not depend on each other.
        failed = go_back(
            Strategy.SWAP,
            lambda step: self._undo(step, new, old, seen),
            later={Step.SET_ASIDE, Step.STOP},
        )
        try:
            # Running again matters most, even if its name, its restart policy or our disk have problems. Before the
            # record is dropped: killed in between, the next agent would try the change again instead of starting it.
            if old is not None and seen is not None and old.running and not is_alive(seen):
                self.engine.start(old.object_id)
        finally:
            if failed is None and (object_id or refused):
                self.records.drop(new.nonce)
            elif failed is None:
                miss(self.records, new, self.clock.wall())
        if failed is not None:
            raise failed

    def _undo(self, step: Step, new: Record, old: Record | None, seen: ObservedContainer | None) -> None:
        """Undoes a step. `seen`: the old container, None if it no longer exists."""
        match step:
            case Step.PROVE:
                # Remove the new container first: it holds ports, addresses and volumes that the old one needs. To the
                # engine, carried-over volumes are named volumes and stay; only volumes created for this container are
                # removed.
                if new.object_id:
                    self.engine.remove_container(new.object_id, volumes=True, force=True)
            case Step.MOVE_DATA:
                self._take_data_back(new)
            case Step.SET_ASIDE:
                if old is not None and seen is not None:
                    self._give_name_back(old, seen)
            case Step.STOP:
                # `undo` starts it
                if old is not None and seen is not None:
                    policy = old.spec.get("restart") or {}
                    body = restart_body(policy.get("name", "no"), policy.get("max_retries", 0))
                    self.engine.update(old.object_id, body)
            case Step.CREATE:
                pass  # removed with PROVE

    def _take_data_back(self, new: Record) -> None:
        """Restored data stays revocable until the commit; data that was saved first is what the old container left."""
        if new.restores:
            self._move(lambda data: data.take_back(new.restores))
        if new.saved[:1] != (new.nonce,):
            return
        try:
            self._move(lambda data: data.lend(new.nonce))
        except DataNotMovedError as exc:  # running the old container matters more than its data
            logger.warning("%s: its data stays as the new container left it: %s", new.name, exc)
            self._move(lambda data: data.take_back(new.nonce))

    def _give_name_back(self, old: Record, seen: ObservedContainer) -> None:
        """Renames the old container back if it lost its name. One of ours can do without the name for a while, because
        any pass renames it when the name is free; a foreign container cannot."""
        name = name_outside(seen.name, "old")
        if not name:
            return
        try:
            self.engine.rename(old.object_id, name)
        except EngineError as exc:
            if exc.status != 409 or old.swap == "foreign":
                raise
            logger.warning("%s: its name is taken: %s", old.name, exc)


def kept_policy(container: Container) -> dict[str, Any]:
    """Record fields with what must be known after the section is removed, the ports of USB devices, and the needs that
    the container was applied with."""
    return {
        "grace_s": container.policy.grace_s,
        "remove_volumes": container.policy.remove_volumes,
        "plugged": plugged_words(container),
        "waits": waits_of(container),
        "waits_known": True,
    }


def restart_body(name: str, max_retries: int = 0) -> dict[str, Any]:
    """Body of POST /containers/{id}/update that sets only the restart policy."""
    return {"RestartPolicy": {"Name": name, "MaximumRetryCount": max_retries}}


def forget_copies(data: SavedData | None, records: Records) -> None:
    """Removes copies of volumes that no record needs: their update failed or was followed by another, or their section
    was removed."""
    if data is None:
        return
    try:
        # the set is built only when requested, after the copies were listed, so that a copy added meanwhile is not
        # missed
        data.keep_only(
            lambda: {
                key
                for record in records.everywhere()
                # a retired record goes away with its container, and a swap whose new container was missed is undone;
                # any other copy may still be needed for a way back
                if record.swap != "retired" and not (record.swap and record.missed_at is not None)
                for key in (*record.saved[:1], record.restores, record.nonce)
            }
        )
    # unneeded copies only cost space; the next swap tries again
    except UcidockdError as exc:
        logger.warning("copies from before updates are removed later: %s", exc)
