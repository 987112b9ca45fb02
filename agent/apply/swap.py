# SPDX-License-Identifier: GPL-2.0-or-later
"""Replacing a container without losing it: a swap that a crash at any step cannot break.

The steps are those of `agent.apply.steps`. With `strategy handover` the new container is started and proven before the old
one stops; the undo is the same.
Until the commit in state.json the old container is the right one: whatever fails or crashes before, `undo` puts it
back. After the commit the new one is right and only the old one's removal is left. So the names on the engine never
need to be understood: two words in state.json ("new", "retired") say all.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from agent.apply.failures import is_refusal, without_secrets
from agent.apply.images import History, create_from
from agent.apply.networks import with_addresses
from agent.apply.ports import SYSTEM_CLOCK, Clock, Engine, Records, SavedData, made_for
from agent.apply.steps import ORDER, GateError, Hooks, Step, SupersededError, failed_fields, go_back, prove
from agent.apply.volumes import inherit
from agent.errors import ConflictError, EngineError, EngineUnreachableError, StorageError, UcidockdError
from agent.model.identity import LABEL_NONCE, own_labels, spec_hash
from agent.model.observed import NO_OBJECT, ObservedContainer, ObservedNetwork, ObservedVolume, Record
from agent.model.resources import Container, Strategy
from agent.plan.container.bodies import (
    anonymous_volumes,
    container_body,
    extra_endpoints,
    volume_words,
    volumes_of,
)
from agent.plan.container.renames import name_outside, swap_name
from agent.plan.draft import desired_spec, joined_ids, plugged_words
from agent.plan.records import is_alive, waits_of

logger = logging.getLogger(__name__)


class DataNotMovedError(EngineError):
    """The data could not be saved before an update, or not be put back: nothing is begun without."""

    code = "data"


@dataclass(slots=True, kw_only=True)
class _Exchange:
    """What the steps of one swap work on. `new`: the record of the new container as it is by now."""

    container: Container
    old: Record
    new: Record
    before: ObservedContainer
    saves: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """One replacement; `run` raises what made it roll back, after the old container is back. `restores`: the key of the data
    that its volumes get.
    """

    engine: Engine
    records: Records
    api: tuple[int, int]
    history: History | None = None
    data: SavedData | None = None
    restores: str = ""
    stopping: Callable[[], bool] = lambda: False
    current: Callable[[Container], bool] = lambda container: True
    waiting: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
    starting: Callable[[Container], AbstractContextManager[None]] = lambda container: contextlib.nullcontext()
    clock: Clock = SYSTEM_CLOCK

    def run(self, container: Container, old: Record, *, image_id: str) -> None:
        """Replaces the container of record `old` by one of `container`'s spec."""
        # Looked at now and not taken from the plan: a pull may have taken minutes since that was made.
        before = self.engine.inspect_container(old.object_id)
        if before is None:
            raise EngineError(f"{old.name} went away before it could be replaced", retryable=True)
        # it stayed from a swap whose old one was removed by hand
        if name_outside(before.name, "new") == container.name:
            self.engine.rename(old.object_id, container.name)
            before = replace(before, name=container.name)
        old = replace(old, running=is_alive(before))
        saves = self._check_data(container, old, image_id)
        # It is in the names of both containers during the swap and in the labels of the new one: a half-done swap can
        # be told from anything a user makes.
        nonce = secrets.token_hex(8)
        self._check_names(swap_name(container.name, "new", nonce), swap_name(before.name, "old", nonce))
        new = self._announce(container, old, image_id, nonce)
        under_way = _Exchange(container=container, old=old, new=new, before=before, saves=saves)
        try:
            self._do(Step.CREATE, under_way)
            # both ways create first: whether the two may run at once shows in the volumes of what was created
            strategy = Strategy.HANDOVER if self._may_overlap(under_way) else Strategy.SWAP
            for step in ORDER[strategy][1:]:
                self._do(step, under_way)
            # From this write on the new container is the right one, whatever happens.
            self._commit(old, under_way.new)
        except (EngineError, StorageError) as exc:
            new = under_way.new
            unmoved = isinstance(exc, DataNotMovedError)
            # An engine that went away or failed while the old one was put aside says nothing about the new one
            refused = isinstance(exc, EngineError) and is_refusal(exc)
            rejected = unmoved or refused or isinstance(exc, GateError)
            # undo the restored data in any case: a failed container must not cost what was written since the update
            undone = container.policy.rollback or unmoved or bool(new.restores)
            if undone or not rejected or not new.object_id:
                self._roll_back(new)
                # Where only the creation failed and is tried again, nothing was put back: that is a plain failure.
                exc.rolled_back = rejected or bool(new.object_id)
                if rejected and self.records.get(old.nonce) is not None:
                    digest = new.digest if image_id != old.image_id else ""
                    self.records.change(old.nonce, **failed_fields(container, image_id, exc, digest=digest))
                raise
            told = without_secrets(exc, container)
            logger.warning("%s: %s; rollback is off, the new container stays", container.name, told)
            self._commit(old, self.records.get(new.nonce) or new)
        self.finish(replace(old, swap="retired"), volumes=False)

    def _check_data(self, container: Container, old: Record, image_id: str) -> tuple[str, ...]:
        """The volumes that are saved first. Raises DataNotMovedError for what cannot be, before anything is stopped."""
        # A new image may change the format of its data so that the old image cannot read it; a changed option may not.
        # And the way back to an image has its data already.
        is_update = old.image_id and image_id != old.image_id and not (self.history and self.history.pin)
        saves: tuple[str, ...] = ()
        if is_update and container.policy.backup_before_update:
            named = (mount.source for mount in container.spec.mounts if not mount.is_bind)
            saves = tuple(dict.fromkeys(filter(None, named)))
        if saves or self.restores:
            self._move(lambda data: data.check(saves))
        return saves

    def _move(self, what: Callable[[SavedData], None]) -> None:
        try:
            if self.data is None:
                raise ConflictError("data is saved and put back by a running agent only: start it first")
            what(self.data)
        except EngineUnreachableError:
            raise
        except UcidockdError as exc:
            raise DataNotMovedError(str(exc)) from exc

    def _check_names(self, *names: str) -> None:
        """Raises ConflictError. Later it would be too late: the second name is needed after the stop."""
        for name in names:
            if self.engine.inspect_container(name) is not None:
                raise ConflictError(f"a container named {name} exists, and ucidockd did not create it")

    def _roll_back(self, new: Record) -> None:
        """What keeps the old one from coming back is logged; the record stays, so the next pass tries again."""
        try:
            self.undo(self.records.get(new.nonce) or new)
        except (EngineError, StorageError) as exc:
            logger.warning("%s: the rollback is not complete: %s", new.name, exc)

    def _announce(self, container: Container, old: Record, image_id: str, nonce: str) -> Record:
        spec = desired_spec(container)
        kept = self.history.after(old, container, image_id) if self.history is not None else {}
        # What was saved before the update is what the volumes get back now; a second way back does not exist.
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
        # in one write: a rollback, also one after a restart, reads in `old.running` whether to start it
        self.records.put(new, old)
        return new

    def _do(self, step: Step, under_way: _Exchange) -> None:
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
                # names are unique on an engine: the old one gives its own up first
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
        labels = own_labels(instance=self.records.instance, section=container.section, nonce=new.nonce)
        mounted = anonymous_volumes(before.inspect or {})
        # Anonymous volumes are found by where they are mounted: the image may name other places than the one before.
        old = self.records.get(new.partner)
        heir = inherit(
            self.engine, container, new.image_id, mounted, left=old.left if old is not None else ()
        )
        image = container.spec.image
        body = container_body(container, labels=labels, image=image, api=self.api, carry=heir.carry)
        # under another name: the old one still has, and answers to, the declared one
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

    def _may_overlap(self, under_way: _Exchange) -> bool:
        """Whether the new one starts while the old one runs. Not with volumes of the image that go from one to the other:
        sections do not name them, and both would write. Nor with data to move, which must rest meanwhile."""
        policy, new = under_way.container.policy, under_way.new
        wanted = policy.should_run and under_way.old.running
        moves = under_way.saves or new.restores
        return wanted and policy.strategy is Strategy.HANDOVER and not new.volumes and not moves

    def _disable_restarts(self, old: Record) -> None:
        """Of a stopped container too: an engine that restarts in the middle of the swap would start both."""
        try:
            self.engine.update(old.object_id, restart_body("no"))
        except EngineError:
            # a container that ends by itself at this moment: the engine was about to change a process that is gone
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
        """Raises SupersededError when there is no point in waiting for the new one."""
        if self.stopping():
            raise SupersededError(
                "the agent stops before the new container has passed its gate", retryable=True
            )
        if not self.current(container):
            raise SupersededError(
                "the configuration changed again before the gate was passed", retryable=True
            )

    def _commit(self, old: Record, new: Record) -> None:
        """What else the records say of the section is over: one that was removed, and a foreign one adopted instead."""
        fresh = sorted(set(new.left) - set(old.left))
        if fresh:
            logger.warning("%s: not mounted any more and kept: volume %s", new.name, ", ".join(fresh))
        of = ("container", new.section, "")
        for record in self.records.records():
            is_of_it = (record.kind, record.section, record.swap) == of
            if is_of_it and record.nonce not in {old.nonce, new.nonce}:
                self.records.drop(record.nonce, lasting=False)
        # Both in one write: with only one of them a restart would find two right containers, or none.
        self.records.put(replace(new, swap="", partner="", restores=""), replace(old, swap="retired"))

    def finish(self, old: Record, *, volumes: bool) -> None:
        """Removes a replaced container; its anonymous volumes live on in the new one."""
        # By force: it is stopped, but a user may have started it again, and it has no place any more.
        self.engine.remove_container(old.object_id, volumes=volumes, force=True)
        if old.saved:  # its record goes last: after a kill it tells that there may be copies
            forget_copies(self.data, self.records)
        self.records.drop(old.nonce, lasting=False)

    def undo(self, new: Record) -> None:
        """Puts the old container back as it was and removes the new one, which stays where the old one is gone: it has
        the data. Safe to repeat.

        Once the old one has its name and restart policy again, starting it is a matter for any pass.
        """
        old = self.records.get(new.partner)
        # A new container whose id is not recorded would keep its ports and addresses for ever.
        made = None if new.object_id else made_for(self.engine, self.records, new)
        object_id = made.id if made is not None else new.object_id  # its creation may not have been answered
        seen = self.engine.inspect_container(old.object_id) if old is not None else None
        if object_id and old is not None and seen is None:
            self._commit(old, replace(new, object_id=object_id))
            self.finish(replace(old, swap="retired"), volumes=False)
            return
        new = replace(new, object_id=object_id)
        # A handover goes back in a swap's order: nothing of the old one is given back beside the new one, nor on its data.
        # Its name and its restart policy do not depend on each other.
        failed = go_back(
            Strategy.SWAP,
            lambda step: self._undo(step, new, old, seen),
            later={Step.SET_ASIDE, Step.STOP},
        )
        try:
            if failed is not None:
                raise failed
            self.records.drop(new.nonce)
        finally:  # that it runs again matters most, whatever its name and its restart policy are, and our disk
            if old is not None and seen is not None and old.running and not is_alive(seen):
                self.engine.start(old.object_id)

    def _undo(self, step: Step, new: Record, old: Record | None, seen: ObservedContainer | None) -> None:
        """`seen`: the old container, None where it is gone."""
        match step:
            case Step.PROVE:
                # It goes first, as it holds ports, addresses and volumes that the old one needs. To the engine, volumes
                # that were carried over are named ones, and stay: only what was made for this one goes
                if new.object_id:
                    self.engine.remove_container(new.object_id, volumes=True, force=True)
            case Step.MOVE_DATA:
                self._take_data_back(new)
            case Step.SET_ASIDE:
                if old is not None and seen is not None:
                    self._give_name_back(old, seen)
            case Step.STOP:
                # starting it is left to `undo`, after the record of the swap is dropped: from then on any pass does
                if old is not None and seen is not None:
                    policy = old.spec.get("restart") or {}
                    body = restart_body(policy.get("name", "no"), policy.get("max_retries", 0))
                    self.engine.update(old.object_id, body)
            case Step.CREATE:
                pass  # it went with PROVE

    def _take_data_back(self, new: Record) -> None:
        """The data of before is lent for as long as it is not committed; what was saved is what the old one left."""
        if new.restores:
            self._move(lambda data: data.take_back(new.restores))
        if new.saved[:1] != (new.nonce,):
            return
        try:
            self._move(lambda data: data.lend(new.nonce))
        except DataNotMovedError as exc:  # that the old one runs matters more
            logger.warning("%s: its data stays as the new container left it: %s", new.name, exc)
            self._move(lambda data: data.take_back(new.nonce))

    def _give_name_back(self, old: Record, seen: ObservedContainer) -> None:
        """Where it came so far as to lose it. One of ours can do without it for a while, as any pass gives it back when it
        is free; a foreign one cannot."""
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
    """The record's fields that hold what has to be known once the section is gone, where devices were, and what the
    container was applied with."""
    return {
        "grace_s": container.policy.grace_s,
        "remove_volumes": container.policy.remove_volumes,
        "plugged": plugged_words(container),
        "waits": waits_of(container),
        "waits_known": True,
    }


def restart_body(name: str, max_retries: int = 0) -> dict[str, Any]:
    """Body of POST /containers/{id}/update that sets the restart policy alone."""
    return {"RestartPolicy": {"Name": name, "MaximumRetryCount": max_retries}}


# Finishes or undoes what a crash cut short, before anything is planned: state.json says where it stood.


def forget_copies(data: SavedData | None, records: Records) -> None:
    """Removes copies of volumes that no record needs: their update failed, another followed, or their section is gone."""
    if data is None:
        return
    try:
        # The set is made only when it is asked for, after the copies were listed: a copy that is added meanwhile
        # is not overlooked.
        data.keep_only(
            lambda: {
                key
                for record in records.everywhere()
                # What is retired goes with its container; everything else may still be needed for a way back.
                if record.swap != "retired"
                for key in (*record.saved[:1], record.restores, record.nonce)
            }
        )
    # It costs space and nothing else. The next swap tries again.
    except UcidockdError as exc:
        logger.warning("copies from before updates are removed later: %s", exc)


def recover(
    engine: Engine, records: Records, busy: Collection[str], data: SavedData | None = None
) -> dict[str, UcidockdError]:
    """Finishes or undoes what a crash cut short, `busy` keys apart. Does nothing when nothing is open.

    Returns what could not be: key -> error; nothing may be planned for such a key. Raises EngineUnreachableError.
    """
    # The lowest API version: nothing is created here, and what is removed and renamed is the same in all of them.
    swap = Swap(engine=engine, records=records, api=(1, 41), data=data)
    failed: dict[str, UcidockdError] = {}
    # the new ones first: what they replace is needed for bringing it back
    for record in sorted(records.records(), key=lambda r: r.swap != "new"):
        key = record.key
        if key in busy or key in failed:
            continue
        try:
            _recover(swap, record)
        except EngineUnreachableError:
            raise
        except (EngineError, StorageError) as exc:
            logger.warning("%s: an interrupted change cannot be finished or undone yet: %s", key, exc)
            failed[key] = exc
    return failed


def _recover(swap: Swap, record: Record) -> None:
    if record.swap == "new":
        logger.info("undoing an unfinished swap of %s", record.name)
        swap.undo(record)
    elif record.swap == "retired":
        swap.finish(record, volumes=False)
    elif record.swap == "foreign" and not record.failed_hash:
        swap.records.drop(record.nonce)
    elif not record.swap and not record.object_id:
        _settle(swap.engine, swap.records, record)


def _settle(engine: Engine, records: Records, record: Record) -> None:
    """A record announced without an answer: its object either carries the nonce, or was never made."""
    # A name alone proves nothing: another program may have made an object of that name since. Only the nonce is ours.
    seen: ObservedContainer | ObservedNetwork | ObservedVolume | None
    if record.kind == "container":
        seen = made_for(engine, records, record)
    else:
        look = engine.inspect_network if record.kind == "network" else engine.inspect_volume
        seen = look(record.name)
    if seen is None or seen.labels.get(LABEL_NONCE) != record.nonce:
        if record.volumes or record.left or record.lost or record.freed:  # it names what the one before had
            records.change(record.nonce, object_id=NO_OBJECT)
        else:
            records.drop(record.nonce)
        return
    records.change(record.nonce, object_id=seen.name if isinstance(seen, ObservedVolume) else seen.id)
