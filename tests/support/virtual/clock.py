# SPDX-License-Identifier: GPL-2.0-or-later
"""Virtual time, and threads that take turns.

Time stands still while anything can run and jumps to the next moment at which something is due. Code that would run
in a thread runs in a guest: a real thread. Only one guest runs at a time, and it gives its turn away only where it
sleeps or blocks. A seed decides which guest runs next, so each run with the same seed is the same. The agent's
blocking code runs unchanged.
"""

from __future__ import annotations

import heapq
import itertools
import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime

FIRST = 1000.0  # monotonic seconds at the start
# wall clock at the start, Unix seconds; late enough that the agent takes the clock for set
BEGIN = 1_750_000_000.0


class Killed(BaseException):
    """Raised in the guests of a killed process. It is a BaseException, so that no error handler catches it."""


def _taken() -> threading.Lock:
    """A lock that is already held. A guest waits to acquire it, and a release wakes the guest; cheaper than a semaphore."""
    lock = threading.Lock()
    lock.acquire()
    return lock


class Guest:
    """A blocking function that runs in its own thread; `group` is the process that the guest belongs to."""

    def __init__(self, run: Callable[[], None], group: object) -> None:
        self.group = group
        self.killed = False
        self.ended = False
        self.may_go_on: Callable[[], bool] = lambda: True
        self.turn, self.back = _taken(), _taken()
        self._run = run
        self.thread = threading.Thread(target=self._main, daemon=True)

    def _main(self) -> None:
        self.turn.acquire()
        try:
            if not self.killed:
                self._run()
        except Killed:
            pass
        finally:
            self.ended = True
            self.back.release()


class VirtualTime:
    """The clocks, the calls that are due, and the guests."""

    def __init__(self, seed: int = 0) -> None:
        self.now = FIRST  # monotonic seconds
        self.random = random.Random(seed)
        self._wall_minus_monotonic = BEGIN - self.now
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._guests: list[Guest] = []
        self._current: Guest | None = None

    # the clocks

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + self._wall_minus_monotonic

    def text(self) -> str:
        """The wall clock in the engine's format."""
        return f"{datetime.fromtimestamp(self.wall(), UTC):%Y-%m-%dT%H:%M:%S.%f}000Z"

    def set_wall(self, seconds: float) -> None:
        """Sets the wall clock. No timer notices the change."""
        self._wall_minus_monotonic = seconds - self.now

    def call_at(self, when: float, call: Callable[[], None]) -> None:
        """Schedules `call` for the moment when the monotonic clock shows `when`."""
        heapq.heappush(self._due, (when, next(self._numbers), call))

    def next_due(self) -> float:
        """When the next call is due; infinity if no call is scheduled."""
        return self._due[0][0] if self._due else float("inf")

    def advance_to(self, when: float) -> None:
        """Moves time on to `when` and makes each call that becomes due on the way, at its own time."""
        while self._due and self._due[0][0] <= when:
            moment, _, call = heapq.heappop(self._due)
            self.now = max(self.now, moment)
            call()
        self.now = max(self.now, when)

    def sleep(self, seconds: float) -> None:
        """A guest gives its turn away until the time has passed; any other caller advances time itself."""
        until = self.now + seconds
        if self._current is None:
            self.advance_to(until)
            return
        self.call_at(until, lambda: None)
        self.block(lambda: self.now >= until)

    # guests

    def spawn(self, run: Callable[[], None], group: object) -> None:
        """Starts a guest. It gets its first turn when the running guest sleeps or blocks."""
        guest = Guest(run, group)
        guest.thread.start()
        self._guests.append(guest)

    def block(self, may_go_on: Callable[[], bool]) -> None:
        """Called by a guest: gives its turn away until the condition holds."""
        guest = self._current
        if guest is None:
            raise RuntimeError("only a guest can wait for others")
        if guest.killed:  # the guest runs its cleanup code after a kill
            raise Killed
        guest.may_go_on = may_go_on
        guest.back.release()
        guest.turn.acquire()
        guest.may_go_on = lambda: True
        if guest.killed:
            raise Killed

    def run_a_guest(self) -> bool:
        """Gives a turn to one guest that can run. Returns False if no guest can run."""
        ready = [guest for guest in self._guests if guest.killed or guest.may_go_on()]
        if not ready:
            return False
        self._resume(self.random.choice(ready))
        return True

    def _resume(self, guest: Guest) -> None:
        before, self._current = self._current, guest
        guest.turn.release()
        guest.back.acquire()
        self._current = before
        if guest.ended:
            guest.thread.join()
            self._guests.remove(guest)

    def kill(self, group: object) -> None:
        """Ends the guests of a process at the point that each has reached."""
        for guest in [g for g in self._guests if g.group is group]:
            guest.killed = True
            if guest is not self._current:
                self._resume(guest)
