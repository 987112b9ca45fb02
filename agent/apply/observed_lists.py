# SPDX-License-Identifier: GPL-2.0-or-later
"""What the engine's lists may be believed: an engine that is still loading, or a reply that was cut, lacks what is there."""

from __future__ import annotations

from collections.abc import Callable

from agent.apply.ports import Engine
from agent.apply.records import Records
from agent.errors import EngineError
from agent.model.identity import LABEL_NONCE
from agent.model.observed import ObservedContainer, Record


def confirm(missing: set[str], inspect: Callable[[str], object | None]) -> None:
    """Asks for what a list lacks, by id. Raises EngineError where it is there."""
    for object_id in sorted(missing):
        if inspect(object_id) is not None:
            raise EngineError(f"the engine's list lacks {object_id[:12]}, which is there", retryable=True)


def made_for(engine: Engine, records: Records, record: Record) -> ObservedContainer | None:
    """The container that was made for a record, whatever its name is by now: our state file knows its label's nonce."""
    ours = engine.list_containers(records.instance)
    found = next((seen for seen in ours if seen.labels.get(LABEL_NONCE) == record.nonce), None)
    if found is None:
        known = {
            r.object_id for r in records.records() if r.kind == "container" and r.object_id and not r.swap
        }
        confirm(known - {seen.id for seen in ours}, engine.inspect_container)
    return found
