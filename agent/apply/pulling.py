# SPDX-License-Identifier: GPL-2.0-or-later
"""How far a pull is, for status: `status/progress` adds up, this says when there is something to tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agent.status.progress import Progress

REPORT_S = 0.5


class PullProgress:
    """Takes steps, calls `report(percent)` when it has grown, at most twice a second. `clock`: monotonic seconds."""

    def __init__(self, report: Callable[[int], None], clock: Callable[[], float]) -> None:
        self._report, self._clock = report, clock
        self._progress = Progress(unpacks=True)
        self._reported = -1
        self._reported_at = float("-inf")

    def step(self, step: dict[str, Any]) -> None:
        """One JSON object of the stream of POST /images/create."""
        self._progress.feed(step)
        percent, now = self._progress.percent, self._clock()
        if percent is not None and percent > self._reported and now - self._reported_at >= REPORT_S:
            self._reported, self._reported_at = percent, now
            self._report(percent)
