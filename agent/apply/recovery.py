# SPDX-License-Identifier: GPL-2.0-or-later
"""Finishes or rolls back what was interrupted, before anything is planned: by a crash, or because the engine did not
answer. state.json holds the state.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Collection
from dataclasses import replace

from agent.apply.ports import MISSED_S, Clock, Engine, Records, SavedData, made_for, miss, name_at_creation
from agent.apply.swap import Swap
from agent.errors import EngineError, EngineUnreachableError, StorageError, UcidockdError
from agent.model.identity import LABEL_NONCE
from agent.model.observed import NO_OBJECT, ObservedContainer, ObservedNetwork, ObservedVolume, Record
from agent.model.quantities import is_later

logger = logging.getLogger(__name__)


def recover(
    engine: Engine,
    records: Records,
    busy: Collection[str],
    data: SavedData | None = None,
    *,
    clock: Clock,
) -> dict[str, UcidockdError]:
    """Finishes or rolls back what was interrupted, except for `busy` keys. Does nothing if nothing was interrupted.

    Returns key -> error for what could not be finished; nothing may be planned for such a key. Raises
    EngineUnreachableError.
    """
    # the lowest API version: nothing is created here, and removing and renaming are the same in all versions
    swap = Swap(engine=engine, records=records, api=(1, 41), data=data, clock=clock)
    failed: dict[str, UcidockdError] = {}
    missed = records.missed()  # before what is missed now
    # new containers first: restoring the old container needs the old record
    for record in (*sorted(records.records(), key=lambda r: r.swap != "new"), *missed):
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
    if record.missed_at is not None:
        _look_again(swap, record, record.missed_at)
    elif record.swap == "new":
        logger.info("undoing an unfinished swap of %s", record.name)
        swap.undo(record)
    elif record.swap == "retired":
        swap.finish(record, volumes=False)
    # an adoption that did not come to its end; with `failed_hash` the record keeps it from being tried again
    elif record.swap == "foreign" and not record.failed_hash:
        swap.records.drop(record.nonce)
    elif not record.swap and not record.object_id:
        _settle(swap, record)


def _settle(swap: Swap, record: Record) -> None:
    """A record without an object id, because the engine did not answer: its object carries the nonce, was never created,
    or is still to come."""
    records = swap.records
    found = _find(swap.engine, records, record)
    if found is not None:
        records.change(record.nonce, object_id=_id_of(found))
        return
    # the next container needs what this record says about the data of the container before
    more: tuple[Record, ...] = ()
    if record.volumes or record.left or record.lost or record.freed:
        more = (replace(record, nonce=secrets.token_hex(8), object_id=NO_OBJECT),)
    miss(records, record, swap.clock.wall(), *more)


_Object = ObservedContainer | ObservedNetwork | ObservedVolume


def _find(engine: Engine, records: Records, record: Record) -> _Object | None:
    """The object that was created for a record. A name proves nothing, because another program may have created an
    object with that name since: only the nonce is ours."""
    if record.kind == "container":
        return made_for(engine, records, record)
    # an inspect by name fails before 25.0 if two networks have the name
    listed: tuple[_Object, ...] = (
        engine.list_networks() if record.kind == "network" else engine.list_volumes()
    )
    own = (record.name, record.nonce)
    return next((seen for seen in listed if (seen.name, seen.labels.get(LABEL_NONCE)) == own), None)


def _id_of(seen: _Object) -> str:
    return seen.name if isinstance(seen, ObservedVolume) else seen.id


def _look_again(swap: Swap, record: Record, since: float) -> None:
    """A record whose object was missed: takes the object if it has come, as if it had been found at once."""
    engine, records, now = swap.engine, swap.records, swap.clock.wall()
    found = _find(engine, records, record)
    if found is None:
        if not is_later(now, since):
            records.change(record.nonce, missed_at=now)
        elif now - since >= MISSED_S:
            records.drop(record.nonce, lasting=False)
        return
    # Labels prove little, because they can be copied: what has run under another name is not what we asked for.
    was_run = isinstance(found, ObservedContainer) and found.state != "created"
    if was_run and found.name != name_at_creation(record):
        return
    present = [other for other in records.records() if other.key == record.key and not other.swap]
    look = {
        "container": engine.inspect_container,
        "network": engine.inspect_network,
        "volume": engine.inspect_volume,
    }[record.kind]
    if not record.swap and not any(other.object_id and look(other.object_id) for other in present):
        logger.info("%s: the engine has created %s late", record.key, record.name)
        taken = replace(record, object_id=_id_of(found), missed_at=None)
        records.put(taken, instead_of=[other.nonce for other in present])
        return
    _remove(engine, record, found)
    records.drop(record.nonce)


def _remove(engine: Engine, record: Record, found: _Object) -> None:
    """Removes what the engine created late, because its section has another one by now. Nothing that has been used."""
    if isinstance(found, ObservedContainer):
        if found.state == "created":
            logger.info("%s: removes %s, which the engine has created late", record.key, found.name)
            # carried-over volumes are named ones to the engine: only empty ones go with it
            engine.remove_container(found.id, volumes=True, force=False)
    elif isinstance(found, ObservedNetwork):
        try:
            engine.remove_network(found.id)
        except EngineUnreachableError:
            raise
        except EngineError as exc:  # someone uses it
            logger.warning("%s: network %s stays: %s", record.key, found.name, exc)
