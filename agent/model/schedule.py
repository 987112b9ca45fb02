# SPDX-License-Identifier: GPL-2.0-or-later
"""When something that is done daily or weekly is due: windows of the local day such as `02:00-05:00`.

Local time is the C library's, which on OpenWrt follows `option timezone` of /etc/config/system.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from agent.model.quantities import QuantityError

PERIODS = ("daily", "weekly")
_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Window:
    """Minutes of the local day. One that ends before it starts goes over midnight; equal ends are the whole day."""

    start: int
    end: int

    def __str__(self) -> str:
        return "-".join(f"{minute // 60:02}:{minute % 60:02}" for minute in (self.start, self.end))

    def opened(self, now: float) -> float | None:
        """When the window that is open at `now` opened; None while it is closed. Both are unix seconds."""
        local = datetime.fromtimestamp(now)
        minute = local.hour * 60 + local.minute
        began = local.replace(hour=self.start // 60, minute=self.start % 60, second=0, microsecond=0)
        if self.start < self.end:
            return began.timestamp() if self.start <= minute < self.end else None
        if minute >= self.start:
            return began.timestamp()
        return (
            (began - timedelta(days=1)).timestamp() if minute < self.end or self.start == self.end else None
        )


WHOLE_DAY = Window(0, 0)
_AGE = re.compile(r"(\d{1,5})([mhdw])", re.ASCII)
_UNITS = {"w": 7 * 86400, "d": 86400, "h": 3600, "m": 60}


def parse_window(text: str) -> Window:
    """`02:00-05:00`. Raises QuantityError."""
    found = _WINDOW.fullmatch(text)
    if found is None:
        raise QuantityError(
            f"{text!r} is not a window of the day", "two local times such as 02:00-05:00, or 22:30-06:00"
        )
    hour, minute, end_hour, end_minute = (int(part) for part in found.groups())
    return Window(hour * 60 + minute, end_hour * 60 + end_minute)


def is_due(period: str, window: Window | None, *, last: float | None, now: float) -> bool:
    """Whether it is time: the window is open, and since it opened (a week ago for `weekly`) nothing was done.

    `period`: of PERIODS. `last`: when it was done, None for never. Unix seconds.
    """
    opened = (window or WHOLE_DAY).opened(now)
    if opened is None:
        return False
    days = 6 if period == "weekly" else 0  # six, lest each week be a little later than the one before
    return last is None or last > now or last < opened - days * 86400


def parse_age(text: str) -> float:
    """Seconds of `3d`, `12h`, `30m`, `1w`, or `0`. Raises QuantityError."""
    found = _AGE.fullmatch(text)
    if found is None and text != "0":
        raise QuantityError(f"{text!r} is not an age", "minutes, hours, days or weeks, such as 12h or 3d")
    return float(int(found[1]) * _UNITS[found[2]]) if found is not None else 0.0


def age_text(seconds: float) -> str:
    """As `parse_age` reads it; less than a minute is none."""
    whole = round(seconds)
    unit = next((unit for unit, length in _UNITS.items() if whole % length == 0), "m")
    return f"{whole // _UNITS[unit]}{unit}" if whole else "0"
