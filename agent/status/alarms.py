# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds new problems and recoveries on the status board; the only place that does.

A condition that comes and goes causes one notice: it is over only after it has been absent for QUIET_S. Problems from
before the agent's start are known from `told`; on the very first start they count as known. Pure: times are seconds
that the caller passes in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.model.identity import Key
from agent.model.notices import Event, News
from agent.status.conditions import ConditionType

SETTLE_S = 3.0  # a problem is reported once it has lasted this long or has recurred
QUIET_S = 60.0
START_S = 30.0  # grace time after the start, by which earlier problems have reappeared
DAEMON_SETTLE_S = 30.0  # dockerd restarts for some settings
DAEMON_START_S = 120.0  # dockerd may take longer to start after a boot
DAEMON_KEY = "daemon:dockerd"
_OWN = "notify"  # the kind of the conditions of notices themselves
_TROUBLE = frozenset(
    {Event.DEGRADED, Event.ROLLEDBACK, Event.CRASHLOOP, Event.UNHEALTHY, Event.DISKFULL, Event.DAEMON}
)
_UNKNOWN = frozenset({"Unknown", "EngineChanged"})  # what cannot be seen is neither a fault nor its end
_BY_REASON = {
    "RolledBack": Event.ROLLEDBACK,
    "CrashLoop": Event.CRASHLOOP,
    "Unhealthy": Event.UNHEALTHY,
    "NoSpace": Event.DISKFULL,
    "StorageFull": Event.DISKFULL,
}
_BY_CONDITION = {
    ConditionType.WAITING: Event.WAITING,
    ConditionType.DISK_LOW: Event.DISKFULL,
}
# until these are known, a missing fault does not mean that all is well
_NEEDED = {"container": ("Synced", "Running"), "network": ("Synced",), "volume": ("Synced",)}


@dataclass(slots=True)
class _Alarm:
    first: float  # when it was first seen
    last: float  # when it was last present
    standing: bool = True
    onsets: int = 1
    told: bool = False
    announced: bool = False  # really reported, not just assumed to be known
    old: bool = False  # it existed before the first start of notices
    news: News | None = None


@dataclass(slots=True)
class Alarms:
    """The state of all alarms. `told`: key -> events, from the previous run; None on the first run. `now`: when the
    agent started."""

    now: float
    told: Mapping[str, Iterable[str]] | None = None
    _alarms: dict[str, dict[Event, _Alarm]] = field(default_factory=dict)
    _heard: set[str] = field(default_factory=set)  # keys that have shown their state
    _recovering: dict[str, News] = field(default_factory=dict)  # key -> its last problem

    def __post_init__(self) -> None:
        for key, events in (self.told or {}).items():
            known = {Event(event) for event in events if event in set(Event)}
            # they last until their resource shows another state
            self._alarms[key] = {
                event: _Alarm(self.now, self.now, told=True, announced=True) for event in known
            }

    def see(self, resource: Mapping[str, Any], now: float) -> None:
        """Takes the present state of a resource."""
        key = str(resource["key"])
        if resource["kind"] != _OWN:
            self._see(key, alarms_of(resource), now, shows_state=shows_state(resource))

    def see_agent(self, agent: Mapping[str, Any], now: float) -> None:
        """Takes the facts about the agent: whether the engine answers."""
        engine = agent.get("engine")
        # nothing is known right after the start: that is neither a problem nor a recovery
        if engine is None:
            return
        found: dict[Event, News] = {}
        if not engine.get("reachable"):
            found[Event.DAEMON] = News(
                event=Event.DAEMON,
                key="engine",
                kind="daemon",
                section="dockerd",
                name="dockerd",
                level="error",
                reason=str(engine.get("reason", "")),
                label="Docker does not answer",
                message=str(engine.get("error", "")),
            )
        self._see("engine", found, now, shows_state=True)

    def gone(self, key: str, now: float) -> None:
        """A resource left the board. For the agent's own resources that means that they are fine."""
        if key.startswith(("agent:", "daemon:")):
            self._see(key, {}, now, shows_state=True)
        else:
            self._alarms.pop(key, None)
            self._recovering.pop(key, None)
            self._heard.discard(key)

    def keep(self, keys: Iterable[str], now: float) -> None:
        """Forgets all resources but these; call it when the board is complete."""
        for key in self._alarms.keys() - set(keys) - {"engine"}:
            self.gone(key, now)

    def _see(self, key: str, found: Mapping[Event, News], now: float, *, shows_state: bool) -> None:
        known = self._alarms.setdefault(key, {})
        for event, news in found.items():
            alarm = known.get(event)
            # the first start does not report problems that existed before: they are not news
            if alarm is None:
                old = self.told is None and now < self.now + START_S and key not in self._heard
                known[event] = _Alarm(now, now, news=news, old=old)
                continue
            if not alarm.standing:
                alarm.standing, alarm.onsets = True, alarm.onsets + 1
            alarm.last, alarm.news = now, news
        # a resource without a state (before the first pass, while the engine is unreachable) has not recovered
        for event, alarm in known.items():
            if event not in found and alarm.standing and shows_state:
                alarm.standing, alarm.last = False, now
        if not known:
            del self._alarms[key]
        if shows_state:
            self._heard.add(key)

    def due(self, now: float) -> list[News]:
        """The notices that are due now, each only once."""
        out = []
        for key in sorted(self._alarms):
            known = self._alarms[key]
            for event in sorted(known, key=lambda event: event is Event.DEGRADED):  # specific events first
                alarm = known[event]
                lasts = alarm.standing or alarm.onsets > 1
                if not alarm.told and lasts and now >= self._ripe_at(event, alarm):
                    alarm.told = True
                    # a specific event makes DEGRADED redundant
                    explained = event is Event.DEGRADED and any(
                        known[e].told for e in known if e in _TROUBLE - {event}
                    )
                    if alarm.news is not None and not explained and not alarm.old:
                        alarm.announced = True
                        out.append(alarm.news)
            # quiet for a while, too: a fault that comes and goes stays one alarm
            over = [e for e, alarm in known.items() if not alarm.standing and now >= alarm.last + QUIET_S]
            for event in over:
                alarm = known.pop(event)
                if alarm.announced and event in _TROUBLE:
                    self._recovering[key] = alarm.news or _remembered(key, event)
            if not known.keys() & _TROUBLE and key in self._recovering:
                out.append(_recovered(self._recovering.pop(key)))
            if not known:
                del self._alarms[key]
        return out

    def _ripe_at(self, event: Event, alarm: _Alarm) -> float:
        """When the event may be reported: dockerd takes longer to settle and starts later."""
        is_daemon = event is Event.DAEMON
        lasted = alarm.first + (DAEMON_SETTLE_S if is_daemon else SETTLE_S)
        return max(lasted, self.now + (DAEMON_START_S if is_daemon else START_S))

    def next_at(self, now: float) -> float | None:
        """When `due` may next return something, if nothing changes until then."""
        times = []
        for known in self._alarms.values():
            for event, alarm in known.items():
                if not alarm.standing:
                    # a problem that lasts is due by its own time; one that came and went, after a quiet time
                    times.append(alarm.last + QUIET_S)
                if not alarm.told and (alarm.standing or alarm.onsets > 1):
                    times.append(max(self._ripe_at(event, alarm), now))
        return min(times, default=None)

    def memory(self) -> dict[str, list[str]]:
        """The value of `told` for the next run."""
        found = {
            key: sorted(e.value for e, alarm in known.items() if alarm.told)
            for key, known in self._alarms.items()
        }
        return {key: events for key, events in sorted(found.items()) if events}


def alarms_of(resource: Mapping[str, Any]) -> dict[Event, News]:
    """The events that a resource's conditions cause."""
    found: dict[Event, News] = {}
    for condition in resource["conditions"]:
        event = _event_of(resource, condition)
        if event is not None and event not in found:
            found[event] = _news(event, resource, condition)
    return found


def _event_of(resource: Mapping[str, Any], condition: Mapping[str, Any]) -> Event | None:
    level, kind, reason = condition["level"], condition["type"], condition["reason"]
    if kind == ConditionType.UPDATE_AVAILABLE and condition["status"]:
        return Event.UPDATE
    if level in ("ok", "off"):
        return None
    if event := _BY_CONDITION.get(kind):
        return event
    if resource["kind"] in ("daemon", "agent"):
        return Event.DAEMON if level == "error" else None
    if kind == ConditionType.SYNCED:
        reason = ""  # another condition says why it is not in sync
    if event := _BY_REASON.get(reason):
        return event
    return Event.DEGRADED if level == "error" else None


def shows_state(resource: Mapping[str, Any]) -> bool:
    """Whether the resource shows its state: not before the first pass, and not while the engine is unreachable."""
    reasons = {condition["type"]: condition["reason"] for condition in resource["conditions"]}
    needed = _NEEDED.get(str(resource["kind"]), ())
    return all(kind in reasons for kind in needed) and not _UNKNOWN & set(reasons.values())


def _news(event: Event, resource: Mapping[str, Any], condition: Mapping[str, Any]) -> News:
    return News(
        event=event,
        key=str(resource["key"]),
        kind=str(resource["kind"]),
        section=str(resource["section"]),
        name=str(resource["name"]),
        level=str(condition["level"]),
        condition=str(condition["type"]),
        reason=str(condition["reason"]),
        label=str(condition["label"]),
        message=str(condition["message"]),
        # only with the problem itself: old output next to "recovered" would cause alarm
        output=str(condition.get("details", {}).get("output", "")),
        since=float(condition["since"]),
    )


def _remembered(key: str, event: Event) -> News:
    """A problem that the previous run reported."""
    kind, section = Key.parse(key).kind, Key.parse(key).section
    return News(event=event, key=key, kind=kind, section=section or "dockerd", name=section or "dockerd")


def _recovered(trouble: News) -> News:
    # refer to the earlier notice by its own label
    was = trouble.label or trouble.event.value
    return News(
        event=Event.RECOVERED,
        key=trouble.key,
        kind=trouble.kind,
        section=trouble.section,
        name=trouble.name,
        level="ok",
        condition=trouble.condition,
        label="Recovered",
        message=f"no longer: {was}",
    )
