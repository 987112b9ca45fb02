# SPDX-License-Identifier: GPL-2.0-or-later
"""The life of a dockerd: which end of it is meant and which is a surprise, and how long it stays down after a failure.

A thread sleeps until the dockerd that runs ends. What ends and starts dockerd on purpose runs in `acting`, so that its end
then counts for nothing. Whether and with what dockerd is started is decided in `stage`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from agent.dockerd.status import DaemonStatus
from agent.engine import process as daemon_process
from agent.model.dockerd.settings import DAEMON_KEY, Process
from agent.plan.backoff import BackOff

STABLE_S = 60.0  # a dockerd that lived so long may be started again at once when it dies


class DaemonLife:
    """`wake(seconds)` asks for a pass after that time, from any thread. `clock`: monotonic, seconds."""

    def __init__(
        self, status: DaemonStatus, *, wake: Callable[[float], None], clock: Callable[[], float]
    ) -> None:
        self._status, self._wake, self._clock = status, wake, clock
        self._backoff = BackOff(jitter=lambda: 1.0)
        self._watched: Process | None = None
        self._intended = False  # dockerd's end is what we want right now

    def acting(self, action: Callable[[], None]) -> None:
        """Runs what ends and starts dockerd on purpose."""
        self._intended = True
        try:
            action()
        finally:
            self._intended = False

    def watch(self, process: Process) -> None:
        """One thread per dockerd that sleeps until it ends."""
        if self._watched == process:
            return
        self._watched = process
        # the kernel tells of its end at once; the next pass may be a minute away
        threading.Thread(target=self._wait_for_end, args=(process,), name="dockerd", daemon=True).start()

    def _wait_for_end(self, process: Process) -> None:
        begun = self._clock()
        daemon_process.wait_end(process, None)
        # Looked at after the end and not before: the stop is what made it end.
        if self._intended:
            return
        now = self._clock()
        if now - begun < STABLE_S:
            self._backoff.failed(DAEMON_KEY, "dockerd died", now)
        else:
            self._backoff.succeeded(DAEMON_KEY)
        self._wake(0)

    def failed(self, why: str) -> None:
        """It is tried again by a pass, each time later."""
        self._backoff.failed(DAEMON_KEY, why, self._clock())
        self._wake_when_due()

    def proved(self) -> None:
        """The dockerd that runs has outlived its watch."""
        self._backoff.succeeded(DAEMON_KEY)

    def forgive(self) -> None:
        """A person asked: nothing waits for what failed before."""
        self._backoff.clear()

    def backing_off(self) -> bool:
        """Whether a dockerd that died is not started again yet."""
        if not self._backoff.blocked(self._clock()):
            return False
        # Status would go on showing the process that died.
        self._status.running(None)
        self._wake_when_due()
        return True

    def _wake_when_due(self) -> None:
        now = self._clock()
        due = self._backoff.next_try(now)
        if due is not None:
            self._wake(max(0.1, due - now))
