# SPDX-License-Identifier: GPL-2.0-or-later
"""How the dockerd that runs is: what it has lost, which end of it is meant, and how long it stays down after a failure.

It may lose its bridge, after a network restart, or the file system of its data. A lost bridge, and a disk that was mounted
again under dockerd, are mended by one restart; what that does not mend is shown and not tried again. While the disk is
away nothing is created or removed: the engine would work on the bare mount point.

A thread sleeps until the dockerd that runs ends. What ends and starts dockerd on purpose runs in `DaemonLife.acting`, so
that its end then counts for nothing. Whether and with what dockerd is started is decided in `stage`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from agent.dockerd.status import DaemonStatus
from agent.engine import process as daemon_process
from agent.engine.process import has_files_on, network_devices
from agent.errors import Reason
from agent.model.dockerd.settings import (
    DAEMON_KEY,
    DEFAULT_BRIDGE,
    Document,
    Effect,
    Process,
    Target,
    data_root,
)
from agent.plan.backoff import BackOff
from agent.plan.daemon import Change
from agent.router.mounts import read_only_or_silent

logger = logging.getLogger(__name__)

_UNMOUNTED: Reason = "Unmounted"


class DaemonHealth:
    """`missing_mount`: the mount point that a directory needs and that has nothing mounted; "" for none.

    `needs_mount`: whether the directory is declared to be on one at all.
    """

    def __init__(
        self,
        status: DaemonStatus,
        *,
        missing_mount: Callable[[str], str],
        needs_mount: Callable[[str], bool],
    ) -> None:
        self._status = status
        self._missing_mount = missing_mount
        self._needs_mount = needs_mount
        # the loss, and the dockerd that was to be restarted for it
        self._asked: tuple[str, Process] | None = None

    def storage_lost(self, running: Target | None, goal: Target) -> str:
        """Why nothing may be done with this engine; "" when its data is there, or it is to have others."""
        # About the root that it runs with, not the one that UCI names: what counts is on which files it works now.
        root = data_root(running.document) if running is not None else ""
        text, reason = "", _UNMOUNTED
        matters = bool(root) and root == data_root(goal.document)
        read_only, silent = read_only_or_silent(root) if matters else (False, "")
        if not matters:
            pass  # this engine's data does not matter any more
        elif silent:
            text = f"{silent}, and the data of the running dockerd is in {root}"
        elif mount := self._missing_mount(root):
            text = f"{mount} was unmounted under the running dockerd, whose data is in {root}"
        elif read_only:
            text, reason = f"the file system of dockerd's data in {root} has become read-only", "ReadOnly"
        self._status.storage_lost(text, reason=reason)
        return text

    def repair(self, process: Process, goal: Target, *, answers: Callable[[], bool]) -> Change | None:
        """A restart for what was lost, once. Containers stop for it: their ports and mounts are of what is gone.

        `answers`: whether the engine does; one that does not may be about to make what is missing.
        """
        lost = self._lost(process, goal)
        if lost and not answers():
            return None
        # one that was only starting may have it by the time that it answers
        if not lost or not (lost := self._lost(process, goal)):
            self._asked = None
            self._status.impaired("")
            return None
        # A second restart for the same loss would stop all containers again, each pass, and mend nothing.
        if self._asked is not None and self._asked[0] == lost and self._asked[1] != process:
            self._status.impaired(f"{lost}, and a restart of dockerd did not help")
            return None
        if self._asked != (lost, process):
            logger.warning("dockerd needs a restart: %s", lost)
        self._asked = (lost, process)
        return Change(effect=Effect.RESTART, causes=(lost,), stops=True)

    def _lost(self, process: Process, goal: Target) -> str:
        if bridge := lost_bridge(goal.document, goal.arguments, network_devices(process.pid)):
            return bridge
        # its open files are on the old mount while paths lead to the new one. None: the kernel does not tell
        # Only where a mount is declared: other paths may be on a mount by chance, and their dockerd is left alone.
        root = data_root(goal.document)
        if self._needs_mount(root) and has_files_on(process.pid, root) is False:
            return f"the file system of {root} was mounted again under dockerd"
        return ""


def lost_bridge(document: Document, arguments: Sequence[str], devices: frozenset[str] | None) -> str:
    """What a dockerd with these settings lacks among its network devices; "" for nothing.

    With `bridge` none, or a choice on its command line, there is nothing to be expected.
    """
    chosen = any(word.lstrip("-").partition("=")[0] in {"b", "bridge"} for word in arguments)
    bridge = str(document.get("bridge") or DEFAULT_BRIDGE)
    # None: it has ended by now, and is brought back with its bridge.
    if devices is None or chosen or bridge == "none" or bridge in devices:
        return ""
    return f"the bridge {bridge} was removed"


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
