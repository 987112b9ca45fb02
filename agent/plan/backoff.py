# SPDX-License-Identifier: GPL-2.0-or-later
"""Back-off per object: 1 s doubling to 5 min, with jitter; forgotten on success or when the configuration changes.

A container that ends soon after every start also counts as failing, although each start call succeeds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

FIRST_S = 1.0  # before the second try; it doubles from then on
LIMIT_S = 300.0  # between tries at most, so that a repaired cause is noticed within minutes
ENDED_AGAIN = "it ended again soon after it was started ({starts} times in a row)"
UNHEALTHY_AGAIN = "its health check failed again after a restart ({restarts} restarts in a row)"
GOOD_RUN_S = 600.0  # a container that ran this long did not end at once


@dataclass(slots=True)
class _Failure:
    count: int
    next_try: float
    error: str


@dataclass(slots=True, kw_only=True)
class BackOff:
    """Failures and repeated starts by key. Times are monotonic seconds; `jitter` returns a factor around 1."""

    jitter: Callable[[], float]
    _failures: dict[str, _Failure] = field(default_factory=dict)  # operations that failed
    # starts of containers, whether or not they succeeded
    _starts: dict[str, _Failure] = field(default_factory=dict)

    def failed(self, key: str, error: str, now: float) -> None:
        """Notes a failure and schedules the next try."""
        before = self._failures.get(key)
        count = before.count + 1 if before else 1
        self._failures[key] = _Failure(count, now + self._delay(count), error)

    def started_again(self, key: str, now: float, text: str = ENDED_AGAIN) -> None:
        """Notes a start. `text` tells people why the next start has to wait, with places for numbers.

        The first restart is not delayed: a person may have stopped the container.
        """
        before = self._starts.get(key)
        count = before.count + 1 if before and now < before.next_try + GOOD_RUN_S else 0
        error = text.format(starts=count + 1, restarts=count)
        self._starts[key] = _Failure(count, now + (self._delay(count - 1) if count > 1 else 0.0), error)

    def started(self) -> frozenset[str]:
        """Keys of containers that were started; starting one of them again counts as a restart."""
        return frozenset(self._starts)

    def stopped(self, key: str) -> None:
        """The container was stopped from outside, so it does not count as failing."""
        self._starts.pop(key, None)

    def _delay(self, count: int) -> float:
        seconds: float = min(LIMIT_S, FIRST_S * 2.0 ** min(count - 1, 16))
        return seconds * self.jitter()

    def succeeded(self, key: str) -> None:
        """Forgets the failures, so that the next one starts with the first delay again."""
        self._failures.pop(key, None)

    def clear(self) -> None:
        """Forgets everything: with a new configuration every object deserves a prompt try."""
        self._failures.clear()
        self._starts.clear()

    def blocked(self, now: float) -> dict[str, str]:
        """Key -> last error, for objects that must not be tried yet."""
        both = (*self._starts.items(), *self._failures.items())
        return {key: failure.error for key, failure in both if failure.next_try > now}

    def retry_in(self, now: float) -> dict[str, float]:
        """Key -> seconds until the next try, for objects that must not be tried yet."""
        both = (*self._starts.items(), *self._failures.items())
        return {key: failure.next_try - now for key, failure in both if failure.next_try > now}

    def next_try(self, now: float) -> float | None:
        """When the next object is due for a try; None if there is none.

        Overdue objects do not count: something else holds them (they wait, or their section was removed), so waking
        up for them would change nothing.
        """
        times = (failure.next_try for failure in (*self._starts.values(), *self._failures.values()))
        return min((time for time in times if time > now), default=None)

    def any(self) -> bool:
        """Whether anything failed and has not succeeded since."""
        return bool(self._failures)
