# SPDX-License-Identifier: GPL-2.0-or-later
"""What is found out about the dockerd that runs: what it has lost, how it ended, and whether its engine is the one meant.

It may lose its bridge, after a network restart, or the file system of its data. A lost bridge, and a disk that was mounted
again under dockerd, are mended by one restart; what that does not mend is shown and not tried again. While the disk is
away nothing is created or removed: the engine would work on the bare mount point.

A thread sleeps until the dockerd that runs ends. What ends and starts dockerd on purpose runs in `DaemonLife.acting`, so
that its end then counts for nothing. Whether and with what dockerd is started is decided in `stage`.

The engine that containers were meant for has the same data_root, on the same disk, kept by the same storage driver. On a
disk (a mount that fstab declares) we leave a mark in data_root. One that lacks it is another disk or was emptied: to create
everything there again is what the user may want, and has to say (`ucidockd reconcile`). An engine that has our containers is
the right one, wherever its data was moved to.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from agent.dockerd.change import DaemonChange
from agent.dockerd.files import DaemonFiles, EngineData
from agent.dockerd.status import DaemonStatus
from agent.dockerd.target import prior_drivers
from agent.engine import process as daemon_process
from agent.engine.process import has_files_on, network_devices
from agent.errors import PathError, Reason
from agent.files.atomic import atomic_write
from agent.files.user_paths import PATHS, file_bytes
from agent.model.dockerd.settings import (
    DAEMON_KEY,
    DEFAULT_BRIDGE,
    Document,
    Effect,
    Process,
    Target,
    data_root,
)
from agent.model.dockerd.table import TABLE, identity_of, value_at
from agent.model.resources import Desired
from agent.plan.backoff import BackOff
from agent.plan.daemon import Change, store_trouble
from agent.router.mounts import read_only_or_silent

logger = logging.getLogger(__name__)

_UNMOUNTED: Reason = "Unmounted"

MARK = ".ucidockd-engine"
_MARK_BYTES = 64


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


class EngineHome:
    """`on_disk`: whether a directory is declared to be on a mount."""

    def __init__(self, files: DaemonFiles, status: DaemonStatus, *, on_disk: Callable[[str], bool]) -> None:
        self._files, self._status, self._on_disk = files, status, on_disk
        self.mark = ""  # on the disk of the engine that runs

    def other(
        self,
        root: str,
        *,
        accepted: bool,
        store: str = "",
        asked: bool = True,
        has_ours: Callable[[], bool] = lambda: False,
    ) -> str:
        """Why nothing is to be created on the engine with this data_root, "" where it is the right one.

        `accepted`: a reconcile was asked for, so that this one is. `store`: what keeps its images and containers, "" when
        that is not known. `asked`: whether it is the engine that UCI asks for, and not one that stands in for it.
        `has_ours`: whether it has our containers; asked only where the rest says that it is another one. Raises OSError.
        """
        meant = self._files.engine()
        disk = self._on_disk(root)
        found = _mark_of(root) if disk else ""
        now = EngineData(data_root=root, mark=found, store=store)
        self.mark = found
        what, reason = _difference(meant, now, disk=disk)
        # a person said so; or it is the first engine, and the one that UCI names; or its data was only moved elsewhere
        if accepted or (not meant.data_root and asked) or (meant.data_root and what and has_ours()):
            self.mark = (found or _new_mark(root)) if disk else ""
            self._files.write_engine(replace(now, mark=self.mark, store=store or meant.store))
            return self._show("")
        if not meant.data_root:
            return self._show("this is not the engine that was asked for", reason="Fallback")
        if what:
            return self._show(what, reason=reason)
        self.mark = meant.mark or ((found or _new_mark(root)) if disk else "")
        self._files.write_engine(EngineData(data_root=root, mark=self.mark, store=meant.store or store))
        return self._show("")

    def _show(self, what: str, *, reason: Reason = "DataRoot") -> str:
        text = f"{what}: nothing is created there until `ucidockd reconcile`" if what else ""
        self._status.engine_changed(text, reason=reason)
        return text


def _difference(meant: EngineData, now: EngineData, *, disk: bool) -> tuple[str, Reason]:
    """How the engine differs from the one that the containers were meant for ("": not at all), and the word for it."""
    # In the order of what a user can have changed: settings, the disk, the driver.
    root = now.data_root
    if meant.data_root != root:
        return f"data_root was {meant.data_root} and is {root}", "DataRoot"
    # The mark lies on the disk itself, so that another one at the same path is noticed.
    if disk and meant.mark and now.mark != meant.mark:
        return f"{root} is on another disk than before, or that was emptied", "Disk"
    if now.store and meant.store and now.store != meant.store:
        return f"images and containers were kept by {meant.store}, now by {now.store}", "Store"
    return "", "DataRoot"


def _mark_of(root: str) -> str:
    try:
        return PATHS.ask(file_bytes, f"{root}/{MARK}")[:_MARK_BYTES].decode("ascii", "replace").strip()
    except PathError:
        return ""


def _new_mark(root: str) -> str:
    """Without a mark (the disk is full, say) it is tried again in the next pass."""
    mark = secrets.token_hex(16)
    with contextlib.suppress(OSError):
        atomic_write(Path(root, MARK), f"{mark}\n".encode(), mode=0o600)
        return mark
    logger.debug("no mark could be left in %s", root)
    return ""


class RunningEngine:
    """The engine of the dockerd that runs. `has_ours`, `restarted`: see `DaemonStage`; `file_system`: of a path."""

    def __init__(
        self,
        home: EngineHome,
        status: DaemonStatus,
        *,
        has_ours: Callable[[], bool],
        restarted: Callable[[], None],
        file_system: Callable[[str], str],
    ) -> None:
        self._home, self._status = home, status
        self._has_ours, self._restarted, self._file_system = has_ours, restarted, file_system
        self._accepted = threading.Event()
        self._asked: Process | None = None  # whose identity was asked for
        self._store: tuple[Process, str] | None = None  # what keeps the data of that dockerd

    def accept(self) -> None:
        """From any thread: the engine that runs, or the next one that comes up, is the one that is meant."""
        self._accepted.set()

    def mark(self) -> str:
        """Our mark on the disk of the engine that runs, "" where there is none."""
        return self._home.mark

    def other(self, change: DaemonChange, desired: Desired, wanted: Target | None) -> str:
        """Whether this engine keeps other data than the containers were meant for, until a reconcile is asked for."""
        running, process = change.record.running, change.record.process
        if running is None or process is None:
            return ""
        # A new process may be another engine: its id, kept until then, must be asked for again.
        if self._asked != process:
            self._restarted()
            self._asked = process
        why = self._home.other(
            data_root(running.document),
            store=self._store_of(change, process),
            asked=_is_asked(desired, wanted, running),
            accepted=self._accepted.is_set(),
            has_ours=self._has_ours,
        )
        self._accepted.clear()
        return why

    def unsuitable(self, change: DaemonChange, version: tuple[int, int]) -> str:
        """Why no container can be created on the file system of the data; shown before anything is tried there."""
        running, process = change.record.running, change.record.process
        if running is None or process is None:
            return ""
        root = data_root(running.document)
        # What dockerd uses wins over what UCI says: it picks by itself where nothing is said, and keeps what it used
        # before.
        driver = self._store_of(change, process).removeprefix("containerd's ").partition(" ")[0]
        text = store_trouble(
            {**running.document, "storage-driver": driver} if driver else running.document,
            version,
            file_system=self._file_system(root),
            prior=prior_drivers(root),
        )
        self._status.unsuitable(text)
        return text

    def _store_of(self, change: DaemonChange, process: Process) -> str:
        """What keeps images and containers; each dockerd is asked once."""
        if self._store is None or self._store[0] != process:
            store = change.probe.store()
            if not store:
                return ""
            self._store = (process, store)
        return self._store[1]


def _is_asked(desired: Desired, wanted: Target | None, running: Target) -> bool:
    """Whether this is the engine that UCI asks for: none of what decides about that is wrong, or did not work."""
    if (
        desired.daemon is None
        or wanted is None
        or identity_of(running.document) != identity_of(wanted.document)
    ):
        return False
    # Compared only where UCI says something: what is left out is dockerd's default, whatever that is.
    said = {row.key for row in TABLE if row.identity and value_at(desired.daemon.values, row.key) is not None}
    given = all(value_at(desired.daemon.values, key) == value_at(wanted.document, key) for key in said)
    return given and not any(row.key in desired.daemon.left_out for row in TABLE if row.identity)
