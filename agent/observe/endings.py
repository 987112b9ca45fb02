# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds out how containers ended, once for each end, and remembers it (`Record.ended_at`, `Record.completed`)."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from agent.apply.ports import Engine, Records
from agent.errors import EngineError, StorageError
from agent.model.observed import ObservedContainer, Record
from agent.model.resources import Container
from agent.plan.endings import is_job, moment, unwitnessed, was_stopped

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """Ids of containers that ended: those that did their job, and those that were stopped from outside."""

    completed: frozenset[str] = frozenset()
    stopped: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _End:
    at: str  # FinishedAt
    stopped: bool | None  # None: nobody knows


@dataclass(slots=True)
class Endings:
    """`stale`: ids of which something was heard since the last look. Times are the engine's."""

    engine: Engine
    _known: dict[str, _End] = field(default_factory=dict)
    _completed: dict[str, tuple[str, bool]] = field(default_factory=dict)  # id -> FinishedAt, verdict

    def look(
        self,
        containers: Mapping[str, tuple[Container, Record, ObservedContainer]],
        *,
        stale: Collection[str],
        counted: Collection[str],
    ) -> Ends:
        """`containers` by key; of those in `counted` it matters whether they were stopped. Raises EngineError."""
        completed, stopped = set(), set()
        present = {seen.id for _, _, seen in containers.values()}
        for known in (self._known, self._completed):
            for gone in known.keys() - present:
                known.pop(gone)
        for key, (container, record, seen) in containers.items():
            if seen.state not in {"exited", "dead"}:
                self._known.pop(seen.id, None)
                self._completed.pop(seen.id, None)
                continue
            if is_job(container) and seen.exit_code == 0 and self._is_completed(record, seen, stale):
                completed.add(seen.id)
            if key in counted and self._end(seen, stale).stopped:
                stopped.add(seen.id)
        return Ends(completed=frozenset(completed), stopped=frozenset(stopped))

    def remember(self, records: Records) -> None:
        """Writes down what was found out, so that it outlives the engine's memory."""
        for record in records.records():
            at, completed = self._completed.get(record.object_id, ("", False))
            if at and not record.swap and (record.ended_at, record.completed) != (at, completed):
                try:
                    records.change(record.nonce, ended_at=at, completed=completed)
                except (StorageError, KeyError) as exc:
                    logger.warning("container:%s: how it ended is not written down: %s", record.section, exc)

    def start_again(self, records: Records) -> None:
        """What did its job is to do it again. Raises StorageError."""
        for record in records.records():
            if record.completed:
                records.change(record.nonce, completed=False)
        self._completed = {key: (at, False) for key, (at, _) in self._completed.items()}

    def _is_completed(self, record: Record, seen: ObservedContainer, stale: Collection[str]) -> bool:
        at = self._when(seen, stale)
        known = self._completed.get(seen.id)
        if record.ended_at == at and record.completed is not None:
            verdict = record.completed  # it may have been told to do it again since
        elif known is not None and known[0] == at:
            verdict = known[1]
        else:
            stopped = self._end(seen, stale).stopped
            verdict = not stopped if stopped is not None else self._guess(record, seen, at)
        self._completed[seen.id] = (at, verdict)
        return verdict

    def _guess(self, record: Record, seen: ObservedContainer, at: str) -> bool:
        bridge = self.engine.inspect_network("bridge")
        since = str(bridge.inspect.get("Created") or "") if bridge is not None else ""
        found = self._inspected(seen)
        return unwitnessed(record, found if found is not None and found.finished_at == at else seen, since)

    def _when(self, seen: ObservedContainer, stale: Collection[str]) -> str:
        """FinishedAt, which a list does not tell: asked for once, until something is heard of that container."""
        known = self._completed.get(seen.id)
        if seen.inspect is None and seen.id not in stale and known is not None:
            return known[0]
        found = self._inspected(seen)
        return found.finished_at if found is not None else ""

    def _inspected(self, seen: ObservedContainer) -> ObservedContainer | None:
        return seen if seen.inspect is not None else self.engine.inspect_container(seen.id)

    def _end(self, seen: ObservedContainer, stale: Collection[str]) -> _End:
        known = self._known.get(seen.id)
        if known is not None and seen.inspect is None and seen.id not in stale:
            return known
        found = self._inspected(seen)
        if found is None:
            return _End("", None)
        if known is None or known.at != found.finished_at:
            now = moment(str(self.engine.info().get("SystemTime") or "")) or 0.0
            config = (found.inspect or {}).get("Config") or {}
            try:
                events = self.engine.past_events(found.id, f"{now:.9f}")
            except EngineError as exc:  # an engine without events must not end the pass
                logger.debug("how %s ended is not known: %s", found.name, exc)
                return _End(found.finished_at, None)
            known = _End(found.finished_at, was_stopped(events, str(config.get("StopSignal") or "")))
            self._known[seen.id] = known
        return known
