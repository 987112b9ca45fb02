# SPDX-License-Identifier: GPL-2.0-or-later
"""Failed logins: ten a minute from one address, then it has to wait; the log hears of it once a minute."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

logger = logging.getLogger(__name__)

WINDOW_S = 60.0
LIMIT = 10
_SOURCES_LIMIT = 256


@dataclass(slots=True)
class _Source:
    since: float
    count: int = 0


class Failures:
    """`clock` is monotonic, in seconds. Knows 256 sources; the oldest gives way to a new one."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._sources: dict[str, _Source] = {}
        self._logged_at = float("-inf")

    def wait_s(self, client: str) -> float:
        """How long that address has to wait; 0 when it may try."""
        found = self._sources.get(client)
        if found is None or found.count < LIMIT:
            return 0.0
        return max(0.0, found.since + WINDOW_S - self._clock())

    def note(self, client: str) -> None:
        """Counts a failed login."""
        now = self._clock()
        found = self._sources.get(client)
        if found is None or found.since + WINDOW_S <= now:
            self._sources.pop(client, None)
            if len(self._sources) >= _SOURCES_LIMIT:
                del self._sources[next(iter(self._sources))]
            found = self._sources[client] = _Source(since=now)
        found.count += 1
        if found.count >= LIMIT and self._logged_at + WINDOW_S <= now:
            self._logged_at = now
            logger.warning("%s failed to log in %d times in a minute, and has to wait", client, found.count)
