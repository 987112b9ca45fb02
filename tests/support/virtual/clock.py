# SPDX-License-Identifier: GPL-2.0-or-later
"""Virtual time, and threads that take turns.

Time stands still while anything can run and jumps to the next moment at which something is due. What would run in
threads runs in guests: real threads of which one at a time has the turn, and gives it away only where it sleeps or
blocks. A seed decides whose turn is next, so a run is the same each time. Blocking code of the agent runs unchanged.
"""

from __future__ import annotations

import heapq
import itertools
import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime

FIRST = 1000.0  # monotonic seconds at the begin
BEGIN = 1_750_000_000.0  # wall clock, unix seconds: a time at which a router's clock counts as set


class Killed(BaseException):
    """What is raised in guests of a process that was killed: no handler of errors may see it."""


def _taken() -> threading.Lock:
    """A lock whose release is a signal to whoever waits to acquire it: cheaper than a semaphore."""
    lock = threading.Lock()
    lock.acquire()
    return lock


class Guest:
    """One blocking function under way; `group` is the process that it belongs to."""

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
    """The clocks, what is due when, and the guests."""

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
        """The wall clock as the engine writes it."""
        return f"{datetime.fromtimestamp(self.wall(), UTC):%Y-%m-%dT%H:%M:%S.%f}000Z"

    def set_wall(self, seconds: float) -> None:
        """Somebody sets the clock; no timer notices."""
        self._wall_minus_monotonic = seconds - self.now

    def call_at(self, when: float, call: Callable[[], None]) -> None:
        """Has `call` called when the monotonic clock shows `when`."""
        heapq.heappush(self._due, (when, next(self._numbers), call))

    def next_due(self) -> float:
        """When the next call is due; infinity for never."""
        return self._due[0][0] if self._due else float("inf")

    def advance_to(self, when: float) -> None:
        """Moves time on; what is due on the way happens at its time."""
        while self._due and self._due[0][0] <= when:
            moment, _, call = heapq.heappop(self._due)
            self.now = max(self.now, moment)
            call()
        self.now = max(self.now, when)

    def sleep(self, seconds: float) -> None:
        """A guest gives its turn away; whoever is none takes the time with him."""
        until = self.now + seconds
        if self._current is None:
            self.advance_to(until)
            return
        self.call_at(until, lambda: None)
        self.block(lambda: self.now >= until)

    # guests

    def spawn(self, run: Callable[[], None], group: object) -> None:
        """Begins a guest; it gets its turn when the others rest."""
        guest = Guest(run, group)
        guest.thread.start()
        self._guests.append(guest)

    def block(self, may_go_on: Callable[[], bool]) -> None:
        """Called in a guest: gives the turn away until the condition holds."""
        guest = self._current
        if guest is None:
            raise RuntimeError("only a guest can wait for others")
        if guest.killed:  # cleaning up after itself
            raise Killed
        guest.may_go_on = may_go_on
        guest.back.release()
        guest.turn.acquire()
        guest.may_go_on = lambda: True
        if guest.killed:
            raise Killed

    def run_a_guest(self) -> bool:
        """Gives one of those that can go on its turn; False when there is none."""
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
        """Ends the guests of a process where they stand."""
        for guest in [g for g in self._guests if g.group is group]:
            guest.killed = True
            if guest is not self._current:
                self._resume(guest)
