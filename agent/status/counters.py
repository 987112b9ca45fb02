# SPDX-License-Identifier: GPL-2.0-or-later
"""Counts of passes, for the metrics. Written by the runtime's threads, read by the controller."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field


@dataclass(slots=True)
class PassCounters:
    """Passes so far, and the seconds that they took."""

    succeeded: int = 0
    failed: int = 0
    seconds: float = 0.0
    last_seconds: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, seconds: float, *, ok: bool) -> None:
        """One more pass."""
        with self._lock:
            if ok:
                self.succeeded += 1
            else:
                self.failed += 1
            self.seconds += seconds
            self.last_seconds = seconds
