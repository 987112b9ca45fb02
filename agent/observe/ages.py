# SPDX-License-Identifier: GPL-2.0-or-later
"""Since when each container is as it is: the engine's lists tell it in words only ("Up 3 minutes"), which grow old.

An inspect tells the time (State.StartedAt, State.FinishedAt). Between two of them it stays, unless the words of a list
say that it cannot be so any more: then it is what the words say, as exactly as they do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from agent.model.observed import ObservedContainer

_AGE = re.compile(r"(?:Up|Exited \(-?\d+\)|Restarting \(-?\d+\)) (.*?)(?: ago)?(?: \(.*\))?\Z")
_ONE = re.compile(r"(?:About an? |Less than a |1 )?(\d+ )?([a-z]+?)s?\Z")
_UNITS = {  # seconds, by moby's units.HumanDuration
    "second": 1,
    "minute": 60,
    "hour": 3600,
    "day": 86_400,
    "week": 604_800,
    "month": 2_592_000,
    "year": 31_536_000,
}
_SLACK_S = 3.0  # between the engine's look at its clock and ours


class Ages:
    """Remembers the times of the containers that it was shown."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, float]] = {}  # id -> state, wall clock in seconds

    def dated(self, containers: Iterable[ObservedContainer], *, now: float) -> tuple[ObservedContainer, ...]:
        """The same with `since`. `now`: wall clock, seconds."""
        found = tuple(replace(c, since=self._since(c, now)) for c in containers)
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


def _told(seen: ObservedContainer) -> float | None:
    """By an inspect of just this state."""
    state = (seen.inspect or {}).get("State") or {}
    if state.get("Status") != seen.state:
        return None
    ended = seen.state in {"exited", "restarting", "dead"}
    return seconds_of(str(state.get("FinishedAt" if ended else "StartedAt") or ""))


def seconds_of(text: str) -> float | None:
    """An RFC 3339 time as seconds since 1970, None for the engine's zero time and for what is not one."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.timestamp() if moment.year > 1 and moment.tzinfo is not None else None


def age_of(words: str) -> tuple[float, float] | None:
    """The least and the greatest age in seconds that a list's `Status` stands for; None where it tells none."""
    found = _AGE.match(words)
    age = _ONE.match(found[1]) if found else None
    unit = _UNITS.get(age[2]) if age else None
    if age is None or unit is None:
        return None
    if "Less" in words:
        return 0.0, 1.0
    count = int(age[1] or 1)
    # hours are rounded, all others are cut
    return (max(0.0, count - 0.5) * unit, (count + 1) * unit)
