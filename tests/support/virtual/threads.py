# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests instead of the agent's threads: its worker pool, and its events."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agent.apply.worker_pool import WorkerPool
from tests.support.virtual.clock import VirtualTime


class GuestEvent(threading.Event):
    """An event on which a guest waits by giving its turn away."""

    def __init__(self, time: VirtualTime) -> None:
        super().__init__()
        self._time = time

    def wait(self, timeout: float | None = None) -> bool:
        until = float("inf") if timeout is None else self._time.now + timeout
        if timeout is not None:
            self._time.call_at(until, lambda: None)
        self._time.block(lambda: self.is_set() or self._time.now >= until)
        return self.is_set()


class GuestPool(WorkerPool):
    """A worker pool whose workers are guests of the process `group`."""

    def __init__(self, workers: int, time: VirtualTime, group: object) -> None:
        super().__init__(workers)
        self.make_event = lambda: GuestEvent(time)
        self._time, self._group, self._free, self._is_alone = time, group, workers, False

    def submit(self, work: Callable[[], None]) -> None:
        """Runs each job in a guest."""
        self._time.spawn(work, self._group)

    @contextmanager
    def place(self) -> Iterator[None]:
        self._take()
        try:
            yield
        finally:
            self._free += 1

    def _take(self) -> None:
        if not self._free:
            self._time.block(lambda: self._free > 0)
        self._free -= 1

    @contextmanager
    def one_at_a_time(self) -> Iterator[None]:
        if self._is_alone:
            self._time.block(lambda: not self._is_alone)
        self._is_alone = True
        try:
            yield
        finally:
            self._is_alone = False

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        self._free += 1
        try:
            yield
        finally:
            self._take()
