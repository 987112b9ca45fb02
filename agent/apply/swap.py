# SPDX-License-Identifier: GPL-2.0-or-later
"""Replacing a container without losing it: a swap that a crash at any step cannot break.

The steps, and what undoes each, in the order in which that is done (`Swap.undo`):

    create the new one under a temporary name, rename and start it   remove it
    save the volumes, or give them the data of before                the data is as it was when the old one stopped
    rename the old one to its backup name                            rename it back
    disable its restart policy (else a restart of the engine         its restart policy
    would start both)
    stop it                                                          start it

Undoing what was not done does nothing. With `strategy handover` the new one is started and proven before the old one stops.
Until the commit in state.json the old container is the right one: whatever fails or crashes before, `undo` puts it
back. After the commit the new one is right and only the old one's removal is left. So the names on the engine never
need to be understood: two words in state.json ("new", "retired") say all.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from agent.apply.failures import is_refusal, last_output, without_secrets
from agent.apply.hooks import Hooks
from agent.apply.images import History, create_from
from agent.apply.networks import with_addresses
from agent.apply.ports import SYSTEM_CLOCK, Clock, Engine, Records, SavedData, made_for
from agent.apply.volumes import inherit
from agent.errors import ConflictError, EngineError, EngineUnreachableError, StorageError, UcidockdError
from agent.model.identity import LABEL_NONCE, own_labels, spec_hash
from agent.model.observed import NO_OBJECT, ObservedContainer, ObservedNetwork, ObservedVolume, Record
from agent.model.resources import Container, Strategy
from agent.plan.applied import is_alive, is_completed, waits_of
from agent.plan.container.image import failure_of
from agent.plan.container.inspected import anonymous_volumes, volume_words, volumes_of
from agent.plan.container.payload import container_body, extra_endpoints
from agent.plan.container.renames import name_outside, swap_name
from agent.plan.draft import desired_spec, joined_ids, plugged_words

logger = logging.getLogger(__name__)

_POLL_S = 0.2
_HEALTH_LIMIT_S = 300.0
_WHY_LIMIT = 512  # characters of an error that a record keeps


class GateError(EngineError):
    """The new container did not start, did not stay up, or did not become healthy."""

    code = "gate"


class DataNotMovedError(EngineError):
    """The data could not be saved before an update, or not be put back: nothing is begun without."""

    code = "data"


class SupersededError(EngineError):
    """The new container is no longer wanted; nothing is wrong with it."""

    code = "superseded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """One replacement; `run` raises what made it roll back, after the old container is back. `restores`: the key of the data
    that its volumes get.
    """

    engine: Engine
    records: Records
    api: tuple[int, int]
    history: History | None = None
    hooks: Hooks | None = None
    data: SavedData | None = None
    restores: str = ""
    stopping: Callable[[], bool] = lambda: False
    current: Callable[[Container], bool] = lambda container: True
    waiting: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
    starting: Callable[[Container], AbstractContextManager[None]] = lambda container: contextlib.nullcontext()
    clock: Clock = SYSTEM_CLOCK

    def run(self, container: Container, old: Record, *, image_id: str) -> None:
        """Replaces the container of record `old` by one of `container`'s spec."""
        before = self.engine.inspect_container(old.object_id)
        if before is None:
            raise EngineError(f"{old.name} went away before it could be replaced", retryable=True)
        # it stayed from a swap whose old one was removed by hand
        if name_outside(before.name, "new") == container.name:
            self.engine.rename(old.object_id, container.name)
            before = replace(before, name=container.name)
        old = replace(old, running=is_alive(before))
        saves = self._check_data(container, old, image_id)
        nonce = secrets.token_hex(8)
        self._check_names(swap_name(container.name, "new", nonce), swap_name(before.name, "old", nonce))
        new = self._announce(container, old, image_id, nonce)
        try:
            new = self._create(container, new, before)
            new = self._switch(container, old, new, before, saves)
            self._commit(old, new)
        except (EngineError, StorageError) as exc:
            if isinstance(exc, GateError) and not exc.output:
                exc.output = last_output(self.engine, new.object_id, container)
            unmoved = isinstance(exc, DataNotMovedError)
            rejected = unmoved or _is_rejection(exc)
            # undo the restored data in any case: a failed container must not cost what was written since the update
            undone = container.policy.rollback or unmoved or bool(new.restores)
            if undone or not rejected or not new.object_id:
                self._roll_back(new)
                exc.rolled_back = True
                if rejected and self.records.get(old.nonce) is not None:
                    told = without_secrets(exc, container)
                    self.records.change(
                        old.nonce,
                        **failure_of(container, image_id),
                        failed_why=str(told)[:_WHY_LIMIT],
                        failed_output=exc.output if isinstance(exc, EngineError) else "",
                        failed_digest=new.digest if image_id != old.image_id else "",
                    )
                raise
            told = without_secrets(exc, container)
            logger.warning("%s: %s; rollback is off, the new container stays", container.name, told)
            self._commit(old, self.records.get(new.nonce) or new)
        self.finish(replace(old, swap="retired"), volumes=False)

    def _check_data(self, container: Container, old: Record, image_id: str) -> tuple[str, ...]:
        """The volumes that are saved first. Raises DataNotMovedError for what cannot be, before anything is stopped."""
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
                raise ConflictError(f"a container named {name} exists and is not ours")

    def _roll_back(self, new: Record) -> None:
        """What keeps the old one from coming back is logged; the record stays, so the next pass tries again."""
        try:
            self.undo(self.records.get(new.nonce) or new)
        except (EngineError, StorageError) as exc:
            logger.warning("%s: the rollback is not complete: %s", new.name, exc)

    def _announce(self, container: Container, old: Record, image_id: str, nonce: str) -> Record:
        spec = desired_spec(container)
        kept = self.history.after(old, container, image_id) if self.history is not None else {}
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
        self.records.put(new, old)
        return new

    def _create(self, container: Container, new: Record, before: ObservedContainer) -> Record:
        labels = own_labels(instance=self.records.instance, section=container.section, nonce=new.nonce)
        mounted = anonymous_volumes(before.inspect or {})
        old = self.records.get(new.partner)
        heir = inherit(
            self.engine, container, new.image_id, mounted, left=old.left if old is not None else ()
        )
        image = container.spec.image
        body = container_body(container, labels=labels, image=image, api=self.api, carry=heir.carry)
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

    def _switch(
        self,
        container: Container,
        old: Record,
        new: Record,
        before: ObservedContainer,
        saves: Sequence[str],
    ) -> Record:
        """The new one runs under the name, and passed its gate; its record, with what went wrong on the way."""
        early = self._is_handover(container, old, new) and not (saves or new.restores)
        if early:
            self._prove(container, old, new)
        if self.hooks is not None and old.running:
            remark = self.hooks.pre_stop(container, old.object_id)
            if remark:
                new = self.records.change(new.nonce, lasting=False, remark=remark)
        try:
            self.engine.update(old.object_id, restart_body("no"))
        except EngineError:
            # a container that ends by itself at this moment: the engine was about to change a process that is gone
            seen = self.engine.inspect_container(old.object_id)
            if seen is None or is_alive(seen):
                raise
            self.engine.update(old.object_id, restart_body("no"))
        self.engine.stop(old.object_id, container.spec.stop_timeout_s)
        if saves:
            self._move(lambda data: data.save(saves, new.nonce))
            new = self.records.change(new.nonce, saved=(new.nonce, f"{old.image_id}={old.digest}"))
        if new.restores:
            self._move(lambda data: data.lend(new.restores))
        self.engine.rename(old.object_id, swap_name(before.name, "old", new.nonce))
        self.engine.rename(new.object_id, container.name)
        if not early and container.policy.should_run:
            self._prove(container, old, new)
        return new

    def _is_handover(self, container: Container, old: Record, new: Record) -> bool:
        """Whether the new one starts while the old one runs. Not with volumes of the image that go from one to the other:
        sections do not name them, and both would write."""
        policy = container.policy
        wanted = policy.should_run and old.running
        return wanted and policy.strategy is Strategy.HANDOVER and not new.volumes

    def _prove(self, container: Container, old: Record, new: Record) -> None:
        """Starts the new one, and waits until it passed its gate."""
        self._start(container, new)
        if self.hooks is not None:
            try:
                self.hooks.post_start(container, new.object_id)
            except EngineUnreachableError:
                raise
            except EngineError as exc:
                failed = GateError(str(exc))
                failed.output = exc.output
                raise failed from exc
        with self.waiting():
            gate(
                self.engine,
                container,
                new.object_id,
                replaces=old.running,
                leave=self.leave,
                clock=self.clock,
            )

    def _start(self, container: Container, new: Record) -> None:
        try:
            with self.starting(container):
                start = partial(self.engine.start, new.object_id)
                with_addresses(self.engine, self.records, container.spec, new.object_id, start)
        except EngineError as exc:
            if exc.status:
                raise GateError(str(exc), status=exc.status) from exc
            raise

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
        self.records.put(replace(new, swap="", partner="", restores=""), replace(old, swap="retired"))

    def finish(self, old: Record, *, volumes: bool) -> None:
        """Removes a replaced container; its anonymous volumes live on in the new one."""
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
        object_id = new.object_id or self._created_unseen(new)
        seen = self.engine.inspect_container(old.object_id) if old is not None else None
        if object_id and old is not None and seen is None:
            self._commit(old, replace(new, object_id=object_id))
            self.finish(replace(old, swap="retired"), volumes=False)
            return
        if object_id:
            # what was carried over is named to the engine, and stays: only what was made for this one goes
            self.engine.remove_container(object_id, volumes=True, force=True)
        self._take_data_back(new)
        if old is None or seen is None:
            self.records.drop(new.nonce)
            return
        try:
            self._give_name_back(old, seen)
            self._give_policy_back(old)
            self.records.drop(new.nonce)
        finally:  # that it runs again matters most, whatever its name is
            if old.running and not is_alive(seen):
                self.engine.start(old.object_id)

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

    def _created_unseen(self, new: Record) -> str:
        """The id of a container whose creation was not answered."""
        seen = made_for(self.engine, self.records, new)
        return seen.id if seen is not None else ""

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

    def _give_policy_back(self, old: Record) -> None:
        policy = old.spec.get("restart") or {}
        body = restart_body(policy.get("name", "no"), policy.get("max_retries", 0))
        self.engine.update(old.object_id, body)


def _is_rejection(exc: EngineError | StorageError) -> bool:
    """Whether it was the new container that failed, so that trying the same again is pointless.

    An engine that went away or failed while the old one was put aside says nothing about the new one.
    """
    return isinstance(exc, GateError) or (isinstance(exc, EngineError) and is_refusal(exc))


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


def gate(
    engine: Engine,
    container: Container,
    object_id: str,
    *,
    replaces: bool = False,
    leave: Callable[[Container], None],
    clock: Clock,
) -> None:
    """Waits until the new container stayed up for `gate` seconds, healthy all the time where it has a health check.

    Raises GateError, and what `leave` raises when there is no point in waiting any longer. Blocks for as long as the
    gate or the health check takes; runs in a thread.
    """
    begun = well_since = clock.monotonic()
    while True:
        seen = engine.inspect_container(object_id)
        now = clock.monotonic()
        if seen is not None and _health(seen) == "starting":
            well_since = now
        if _judge(container, seen, replaces=replaces, elapsed_s=now - begun, well_s=now - well_since):
            return
        leave(container)
        clock.sleep(_POLL_S)


def _health(seen: ObservedContainer) -> str:
    state = (seen.inspect or {}).get("State", {})
    return str((state.get("Health") or {}).get("Status") or "")


def _judge(
    container: Container,
    seen: ObservedContainer | None,
    *,
    replaces: bool,
    elapsed_s: float,
    well_s: float,
) -> bool:
    if seen is None:
        raise GateError("the new container was removed")
    state: dict[str, Any] = (seen.inspect or {}).get("State", {})
    if state.get("Status") != "running":
        if is_completed(container, seen, replaces=replaces):
            return True
        if state.get("ExitCode") == 0:
            text = f"the new container ended with 0 after {elapsed_s:.1f} s, but a service must keep running"
            raise GateError(f"{text}; a job says `restart no`")
        killed = " (OOMKilled: out of memory)" if state.get("OOMKilled") else ""
        raise GateError(
            f"the new container exited with {state.get('ExitCode')}{killed} after {elapsed_s:.1f} s"
        )
    restarts = (seen.inspect or {}).get("RestartCount", 0)
    if state.get("Restarting") or restarts > 0:  # it runs again: its last exit code is not shown any more
        raise GateError(f"the new container ended and was restarted ({restarts}x) within {elapsed_s:.1f} s")
    health = _health(seen)
    if health == "unhealthy":
        raise GateError("the new container is unhealthy")
    if health == "starting":
        if elapsed_s > _HEALTH_LIMIT_S:
            raise GateError(f"the new container is not healthy after {_HEALTH_LIMIT_S:.0f} s")
        return False
    return well_s >= container.policy.gate_s


# Finishes or undoes what a crash cut short, before anything is planned: state.json says where it stood.


def forget_copies(data: SavedData | None, records: Records) -> None:
    """Removes copies of volumes that no record needs: their update failed, another followed, or their section is gone."""
    if data is None:
        return
    try:
        data.keep_only(
            lambda: {
                key
                for record in records.everywhere()
                if record.swap != "retired"
                for key in (*record.saved[:1], record.restores, record.nonce)
            }
        )
    except UcidockdError as exc:
        logger.warning("copies from before updates are removed later: %s", exc)


def recover(
    engine: Engine, records: Records, busy: Collection[str], data: SavedData | None = None
) -> dict[str, UcidockdError]:
    """Finishes or undoes what a crash cut short, `busy` keys apart. Does nothing when nothing is open.

    Returns what could not be: key -> error; nothing may be planned for such a key. Raises EngineUnreachableError.
    """
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
