# SPDX-License-Identifier: GPL-2.0-or-later
"""How far a pull is, for status: `status/progress` adds up, this says when there is something to tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agent.status.progress import Progress

REPORT_S = 0.5
# An engine waits for a registry for ever. With the containerd store it says nothing of a layer's first MiB, and three
# layers come at once: 300 s are 10 KiB/s.
STALL_S = 300.0


class PullProgress:
    """Takes steps, calls `report(percent)` when it has grown, at most twice a second. `clock`: monotonic seconds."""

    def __init__(self, report: Callable[[int], None], clock: Callable[[], float]) -> None:
        self._report, self._clock = report, clock
        self._progress = Progress(unpacks=True)
        self._moved_at, self._work = clock(), self._progress.work
        self._reported = -1
        self._reported_at = float("-inf")

    def step(self, step: dict[str, Any]) -> None:
        """One JSON object of the stream of POST /images/create."""
        self._progress.feed(step)
        percent, now = self._progress.percent, self._clock()
        if self._work != (work := self._progress.work):
            self._moved_at, self._work = now, work
        if percent is not None and percent > self._reported and now - self._reported_at >= REPORT_S:
            self._reported, self._reported_at = percent, now
            self._report(percent)

    def is_stalled(self) -> bool:
        """Whether nothing came forward for STALL_S, whatever the engine said meanwhile."""
        return self._clock() - self._moved_at > STALL_S
