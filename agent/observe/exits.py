# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds out how containers ended, once per end, and remembers it (`Record.ended_at`, `Record.completed`)."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from agent.apply.failures import was_stopped_from_outside
from agent.apply.ports import Engine, Records, noting_errors
from agent.errors import EngineError, StorageError
from agent.model.identity import Key
from agent.model.observed import ObservedContainer, Record
from agent.model.quantities import clock_is_set
from agent.model.resources import Container
from agent.plan.records import is_job, moment, unwitnessed

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedContainers:
    """Ids of containers that ended: those that completed their job, and those that were stopped from outside. `unseen`:
    see `agent.observe.snapshot`."""

    completed: frozenset[str] = frozenset()
    stopped: frozenset[str] = frozenset()
    unseen: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _End:
    at: str  # FinishedAt
    stopped: bool | None  # None: not known


@dataclass(slots=True)
class ExitTracker:
    """Finds out how containers ended. `stale`: ids for which there was an event since the last pass. Times are the
    engine's."""

    engine: Engine
    _known: dict[str, _End] = field(default_factory=dict)  # id -> its last end
    _completed: dict[str, tuple[str, bool]] = field(default_factory=dict)  # id -> FinishedAt, verdict

    def update(
        self,
        containers: Mapping[str, tuple[Container, Record, ObservedContainer]],
        *,
        stale: Collection[str],
        counted: Collection[str],
    ) -> EndedContainers:
        """How the containers ended. `containers` by key; whether one was stopped is only found out for those in
        `counted`. Raises EngineError."""
        completed, stopped = set(), set()
        unseen: dict[str, str] = {}
        # forget removed containers, because an agent runs for years
        present = {seen.id for _, _, seen in containers.values()}
        for known in (self._known, self._completed):
            for gone in known.keys() - present:
                known.pop(gone)
        for key, (container, record, seen) in containers.items():
            if seen.state not in {"exited", "dead"}:
                self._known.pop(seen.id, None)
                self._completed.pop(seen.id, None)
                continue
            # finding out how it ended may take an engine call; an error there affects only this container
            with noting_errors(Key("container", container.section), unseen):
                if is_job(container) and seen.exit_code == 0 and self._is_completed(record, seen, stale):
                    completed.add(seen.id)
                if key in counted and self._end(seen, stale).stopped:
                    stopped.add(seen.id)
        return EndedContainers(completed=frozenset(completed), stopped=frozenset(stopped), unseen=unseen)

    def remember(self, records: Records) -> None:
        """Stores the results, because the engine forgets its events."""
        for record in records.records():
            at, completed = self._completed.get(record.object_id, ("", False))
            if at and not record.swap and (record.ended_at, record.completed) != (at, completed):
                try:
                    records.change(record.nonce, ended_at=at, completed=completed)
                except (StorageError, KeyError) as exc:
                    logger.warning("container:%s: how it ended is not written down: %s", record.section, exc)

    def start_again(self, records: Records) -> None:
        """Makes completed jobs run again. Raises StorageError."""
        for record in records.records():
            if record.completed:
                records.change(record.nonce, completed=False)
        self._completed = {key: (at, False) for key, (at, _) in self._completed.items()}

    def _is_completed(self, record: Record, seen: ObservedContainer, stale: Collection[str]) -> bool:
        at = self._when(seen, stale)
        known = self._completed.get(seen.id)
        if record.ended_at == at and record.completed is not None:
            verdict = record.completed  # a user may have asked to run it again since
        elif known is not None and known[0] == at:
            verdict = known[1]
        else:
            stopped = self._end(seen, stale).stopped
            if stopped is not None:
                verdict = not stopped
            else:
                # the engine keeps 256 events, and none across a restart; its start time is that of its bridge
                bridge = self.engine.inspect_network("bridge")
                since = str(bridge.inspect.get("Created") or "") if bridge is not None else ""
                found = self._inspected(seen)
                as_it_ended = found if found is not None and found.finished_at == at else seen
                verdict = unwitnessed(record, as_it_ended, since)
        self._completed[seen.id] = (at, verdict)
        return verdict

    def _when(self, seen: ObservedContainer, stale: Collection[str]) -> str:
        """FinishedAt, which lists do not contain: queried once, until there is an event for that container."""
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
            try:
                stopped = was_stopped_from_outside(self.engine, found)
            except EngineError as exc:  # an engine without events must not end the pass
                logger.debug("how %s ended is not known: %s", found.name, exc)
                return _End(found.finished_at, None)
            known = _End(found.finished_at, stopped)
            self._known[seen.id] = known
        return known


# When each container's present state began. The engine's lists only say so in words ("Up 3 minutes"), which become
# outdated.
#
# An inspect returns exact times (State.StartedAt, State.FinishedAt). Between two inspects the time is kept, unless
# the words of a list contradict it; then it is estimated from the words.


# the engine's words for how long a container has run, or when it ended (docker/go-units, HumanDuration)
_AGE = re.compile(r"(?:Up|Exited \(-?\d+\)|Restarting \(-?\d+\)) (.*?)(?: ago)?(?: \(.*\))?\Z")
_ONE = re.compile(r"(?:About an? |Less than a |1 )?(\d+ )?([a-z]+?)s?\Z")
_UNITS = {  # in seconds, as in moby's units.HumanDuration
    "second": 1,
    "minute": 60,
    "hour": 3600,
    "day": 86_400,
    "week": 604_800,
    "month": 2_592_000,
    "year": 31_536_000,
}
_SLACK_S = 3.0  # between the engine's reading of the clock and ours


class StateTimes:
    """Remembers since when each container is in its state."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, float]] = {}  # id -> state, wall clock in seconds

    def dated(
        self, containers: Iterable[ObservedContainer], *, now: float, booted: float = -math.inf
    ) -> tuple[ObservedContainer, ...]:
        """The containers with `since`. `now`: wall clock, seconds; `booted`: when the machine started, by the same clock."""
        # A router without a battery-backed clock starts containers before its clock is set: "Up 56 years".
        found = tuple(
            replace(c, since=_in_this_life(c, self._since(c, now), now, booted)) for c in containers
        )
        self._known = {c.id: (c.state, c.since) for c in found if c.since is not None}
        return found

    def _since(self, seen: ObservedContainer, now: float) -> float | None:
        told = _told(seen)
        if told is not None:
            return told
        state, since = self._known.get(seen.id, ("", 0.0))
        age = age_of(seen.status_text)
        if state == seen.state and (age is None or age[0] - _SLACK_S <= now - since <= age[1] + _SLACK_S):
            return since
        return None if age is None else now - (age[0] + age[1]) / 2


def _in_this_life(seen: ObservedContainer, since: float | None, now: float, booted: float) -> float | None:
    if since is None or since >= booted:
        return since
    if seen.state in {"running", "restarting", "paused"}:  # nothing runs longer than the machine
        return booted
    return since if clock_is_set(since) or not clock_is_set(now) else None


def _told(seen: ObservedContainer) -> float | None:
    """The time from an inspect of this very state."""
    state = (seen.inspect or {}).get("State") or {}
    if state.get("Status") != seen.state:
        return None
    ended = seen.state in {"exited", "restarting", "dead"}
    return seconds_of(str(state.get("FinishedAt" if ended else "StartedAt") or ""))


def seconds_of(text: str) -> float | None:
    """An RFC 3339 time as seconds since 1970, None for the engine's zero time and for invalid text."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.timestamp() if moment.year > 1 and moment.tzinfo is not None else None


def age_of(words: str) -> tuple[float, float] | None:
    """The minimum and maximum age in seconds for the `Status` text of a list; None if it contains no age."""
    found = _AGE.match(words)
    age = _ONE.match(found[1]) if found else None
    unit = _UNITS.get(age[2]) if age else None
    if age is None or unit is None:
        return None
    if "Less" in words:
        return 0.0, 1.0
    count = int(age[1] or 1)
    # hours are rounded, all other units are truncated
    return (max(0.0, count - 0.5) * unit, (count + 1) * unit)


# Finds containers that are in a namespace whose process has ended, because the container that they share it with was
# restarted.
#
# That container's id stays the same, so nothing else shows it: the sharing container only has `lo`, and keeps
# running. The start times are stored in the records too: after an absence of the agent, the clock cannot be trusted
# to tell which of two starts was later.


_MODES = ("NetworkMode", "IpcMode", "PidMode")  # the namespaces that a container may share


@dataclass(frozen=True, slots=True)
class _StartTimes:
    """When a container was started, when each of those it shares with was started, and whether it is left behind."""

    started: str
    others: tuple[str, ...]
    stale: bool


@dataclass(slots=True)
class NamespaceSharing:
    """Remembers the start times of the last pass: a change shows a restart, whatever the clock did."""

    engine: Engine
    _looks: dict[str, _StartTimes] = field(default_factory=dict)  # by id

    def left_behind(self, sharers: Mapping[str, tuple[Record, ObservedContainer]]) -> frozenset[str]:
        """Ids of those running `sharers` (by id) that are left behind. Two calls for each. Raises EngineError."""
        for gone in self._looks.keys() - sharers.keys():
            del self._looks[gone]
        for object_id, (record, seen) in sharers.items():
            if object_id not in self._looks and record.starts:
                started, *others = record.starts
                self._looks[object_id] = _StartTimes(started, tuple(others), stale=False)
            with noting_errors(record.section, {}):  # the next pass may find out
                found = seen if seen.inspect is not None else self.engine.inspect_container(object_id)
                if found is not None and found.state == "running":
                    self._look(found)
        return frozenset(key for key, look in self._looks.items() if look.stale)

    def remember(self, records: Records) -> None:
        """Stores which starts were last seen together, for the next agent."""
        for record in records.records():
            look = self._looks.get(record.object_id)
            starts = (look.started, *look.others) if look is not None and not look.stale else ()
            if starts and not record.swap and record.starts != starts:
                try:
                    # a work may have dropped the record meanwhile; if storing fails, the next pass tries again
                    records.change(record.nonce, lasting=False, starts=starts)
                except (StorageError, KeyError) as exc:
                    logger.warning(
                        "%s:%s: its start is not written down: %s", record.kind, record.section, exc
                    )

    def _look(self, seen: ObservedContainer) -> None:
        host = (seen.inspect or {}).get("HostConfig") or {}
        modes = [str(host.get(mode) or "") for mode in _MODES]
        # names or ids, as the container was created
        refs = sorted({mode.removeprefix("container:") for mode in modes if mode.startswith("container:")})
        others = [self.engine.inspect_container(ref) for ref in refs]
        if any(other is None or other.state != "running" for other in others):
            return  # wait until it runs again: then there is a namespace to join
        starts = tuple(other.started_at for other in others if other is not None)
        before = self._looks.get(seen.id)
        own = moment(seen.started_at)
        begun = [moment(start) for start in starts]
        newer = any(own is not None and each is not None and own < each for each in begun)
        if before is None:  # only the clock can tell, and it may have jumped
            stale = newer
        # still the same process: any restart of the others left it behind
        elif before.started == seen.started_at:
            stale = before.stale or before.others != starts
        else:  # it was restarted, so it joined the namespaces that existed then
            stale = newer and before.others != starts
        self._looks[seen.id] = _StartTimes(seen.started_at, starts, stale)
