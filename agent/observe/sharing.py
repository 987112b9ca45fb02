# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds containers that sit in a namespace whose process is gone: the one that they share it with was started anew.

Its id is the same then, so nothing else shows: such a container has only `lo`, and runs on. Their starts are in the
records as well: an agent that was away cannot trust the clock to tell which of two came later.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.apply.ports import Engine, Records
from agent.errors import StorageError
from agent.model.observed import ObservedContainer, Record
from agent.plan.endings import moment

logger = logging.getLogger(__name__)

_MODES = ("NetworkMode", "IpcMode", "PidMode")


@dataclass(frozen=True, slots=True)
class _Look:
    """When a container was started, when each of those that it shares with was, and whether it is left behind."""

    started: str
    others: tuple[str, ...]
    stale: bool


@dataclass(slots=True)
class Sharing:
    """Remembers the last look at each: that one was started anew is known by that, whatever the clock did."""

    engine: Engine
    _looks: dict[str, _Look] = field(default_factory=dict)  # by id

    def left_behind(self, sharers: Mapping[str, tuple[Record, ObservedContainer]]) -> frozenset[str]:
        """The ids, of those `sharers` (by id) that run. Two calls for each. Raises EngineError."""
        for gone in self._looks.keys() - sharers.keys():
            del self._looks[gone]
        for object_id, (record, seen) in sharers.items():
            if object_id not in self._looks and record.starts:
                started, *others = record.starts
                self._looks[object_id] = _Look(started, tuple(others), stale=False)
            found = seen if seen.inspect is not None else self.engine.inspect_container(object_id)
            if found is not None and found.state == "running":
                self._look(found)
        return frozenset(key for key, look in self._looks.items() if look.stale)

    def remember(self, records: Records) -> None:
        """Writes down who was last seen together, so that the next agent knows."""
        for record in records.records():
            look = self._looks.get(record.object_id)
            starts = (look.started, *look.others) if look is not None and not look.stale else ()
            if starts and not record.swap and record.starts != starts:
                try:
                    records.change(record.nonce, lasting=False, starts=starts)
                except (StorageError, KeyError) as exc:
                    logger.warning(
                        "%s:%s: its start is not written down: %s", record.kind, record.section, exc
                    )

    def _look(self, seen: ObservedContainer) -> None:
        others = [self.engine.inspect_container(ref) for ref in _shares_with(seen)]
        if any(other is None or other.state != "running" for other in others):
            return  # once it runs again there is something to follow
        starts = tuple(other.started_at for other in others if other is not None)
        before = self._looks.get(seen.id)
        newer = any(_is_before(seen.started_at, start) for start in starts)
        if before is None:
            stale = newer
        elif before.started == seen.started_at:
            stale = before.stale or before.others != starts
        else:
            stale = newer and before.others != starts
        self._looks[seen.id] = _Look(seen.started_at, starts, stale)


def _shares_with(seen: ObservedContainer) -> list[str]:
    """Names or ids, as the container was created with them."""
    host = (seen.inspect or {}).get("HostConfig") or {}
    modes = (str(host.get(mode) or "") for mode in _MODES)
    return sorted({mode.removeprefix("container:") for mode in modes if mode.startswith("container:")})


def _is_before(one: str, other: str) -> bool:
    first, second = moment(one), moment(other)
    return first is not None and second is not None and first < second
