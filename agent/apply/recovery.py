# SPDX-License-Identifier: GPL-2.0-or-later
"""Finishes or undoes what a crash cut short, before anything is planned: state.json says where it stood."""

from __future__ import annotations

import logging
from collections.abc import Collection

from agent.apply.observed_lists import made_for
from agent.apply.ports import Engine
from agent.apply.records import Records
from agent.apply.swap import Swap
from agent.errors import EngineError, EngineUnreachableError, StorageError, UcidockdError
from agent.model.identity import LABEL_NONCE
from agent.model.observed import NO_OBJECT, ObservedContainer, ObservedNetwork, ObservedVolume, Record

logger = logging.getLogger(__name__)


def recover(engine: Engine, records: Records, busy: Collection[str]) -> dict[str, UcidockdError]:
    """Finishes or undoes what a crash cut short, `busy` keys apart. Does nothing when nothing is open.

    Returns what could not be: key -> error; nothing may be planned for such a key. Raises EngineUnreachableError.
    """
    swap = Swap(engine=engine, records=records, api=(1, 41))
    failed: dict[str, UcidockdError] = {}
    # the new ones first: what they replace is needed for bringing it back
    for record in sorted(records.records(), key=lambda r: r.swap != "new"):
        key = f"{record.kind}:{record.section}"
        if key in busy or key in failed:
            continue
        try:
            _recover(swap, record)
        except EngineUnreachableError:
            raise
        except (EngineError, StorageError) as exc:
            logger.warning("%s: what was cut short cannot be mended yet: %s", key, exc)
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
        if record.volumes or record.left or record.lost:  # it names the data of the one before
            records.change(record.nonce, object_id=NO_OBJECT)
        else:
            records.drop(record.nonce)
        return
    records.change(record.nonce, object_id=seen.name if isinstance(seen, ObservedVolume) else seen.id)
