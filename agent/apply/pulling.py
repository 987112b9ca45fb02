# SPDX-License-Identifier: GPL-2.0-or-later
"""How far a pull is, from the steps that POST /images/create streams: one number that never goes back. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_DOWNLOAD = 70  # of a layer's 100: downloading takes longer than extracting
_AFTER = {
    "Pull complete": 100,
    "Already exists": 100,
    "Download complete": _DOWNLOAD,
    "Verifying Checksum": _DOWNLOAD,
}
_SCALE = {"Downloading": (0, _DOWNLOAD), "Extracting": (_DOWNLOAD, 100)}
_LAYERS_MAX = 1000  # a hostile registry may name more; those count as none
REPORT_S = 0.5


class PullProgress:
    """Takes steps, calls `report(percent)` when it has grown, at most twice a second. `clock`: monotonic seconds."""

    def __init__(self, report: Callable[[int], None], clock: Callable[[], float]) -> None:
        self._report, self._clock = report, clock
        self._layers: dict[str, int] = {}
        self._reported = -1
        self._reported_at = float("-inf")

    def step(self, step: dict[str, Any]) -> None:
        """One JSON object of the stream; what is no progress of a layer is passed over."""
        layer, status = step.get("id"), step.get("status")
        if not isinstance(layer, str) or not isinstance(status, str) or status.startswith("Pulling from"):
            return
        if layer in self._layers or len(self._layers) < _LAYERS_MAX:
            done = _AFTER.get(status, _part(status, step.get("progressDetail")))
            self._layers[layer] = max(done, self._layers.get(layer, 0))
        percent = min(99, sum(self._layers.values()) // max(1, len(self._layers)))  # 100 only the end can say
        now = self._clock()
        if percent > self._reported and now - self._reported_at >= REPORT_S:
            self._reported, self._reported_at = percent, now
            self._report(percent)


def _part(status: str, detail: Any) -> int:
    low, high = _SCALE.get(status, (0, 0))
    if not isinstance(detail, dict):
        return low
    current, total = detail.get("current"), detail.get("total")
    if not isinstance(current, int) or not isinstance(total, int) or total <= 0:
        return low
    return low + (high - low) * min(max(current, 0), total) // total
