# SPDX-License-Identifier: GPL-2.0-or-later
"""The condition of the running dockerd: what it has lost, how it ended, and whether its engine is the expected one.

dockerd may lose its bridge in a network restart, or the file system of its data. One restart of dockerd repairs a
lost bridge, and a disk that was mounted again under dockerd; if the restart does not help, the fault is shown and not
tried again. While the disk is away, nothing is created or removed: the engine would work on the bare mount point.

A thread sleeps until the running dockerd ends. Code that stops and starts dockerd on purpose runs in
`DaemonWatch.acting`, so that this end does not count as a failure. `stage` decides whether dockerd is started, and
with which settings.

The expected engine has the same data_root, on the same disk, managed by the same storage driver. If the disk is a
mount that fstab declares, we leave a mark in data_root. Without that mark it is another disk, or it was emptied: the
user may want everything created there again, but has to say so (`ucidockd reconcile`). An engine that has our
containers is the right one, wherever its data was moved to.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from agent.apply.worker_pool import BackOff
from agent.dockerd.change import DaemonChange
from agent.dockerd.files import DaemonFiles, EngineData
from agent.dockerd.status import DaemonStatus
from agent.dockerd.target import prior_drivers
from agent.engine import process as daemon_process
from agent.engine.process import has_files_on, network_devices
from agent.errors import PathError, Reason
from agent.files.atomic import atomic_write
from agent.files.user_paths import PATHS, file_bytes
from agent.files.watcher import read_only_or_silent
from agent.model.dockerd.settings import (
    DAEMON_KEY,
    DEFAULT_BRIDGE,
    DaemonTarget,
    Document,
    Effect,
    Process,
    data_root,
)
from agent.model.dockerd.table import TABLE, identity_of, value_at
from agent.model.resources import Desired
from agent.plan.daemon import DaemonPlan, store_trouble

logger = logging.getLogger(__name__)

_UNMOUNTED: Reason = "Unmounted"

MARK = ".ucidockd-engine"
_MARK_BYTES = 64  # of the mark that are read: a file in Docker's data may hold anything


class DaemonHealth:
    """Watches what dockerd needs. `missing_mount`: the mount point that a directory needs and on which nothing is
    mounted; "" if nothing is missing.

    `needs_mount`: whether the directory is declared to be on a mount.
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
        # the loss, and the dockerd for which the restart was requested
        self._asked: tuple[str, Process] | None = None

    def storage_lost(self, running: DaemonTarget | None, goal: DaemonTarget) -> str:
        """Why nothing may be done with this engine; "" if its data is available, or if another data_root is wanted
        anyway."""
        # check the root that dockerd runs with, not the one in UCI: it works on those files now
        root = data_root(running.document) if running is not None else ""
        text, reason = "", _UNMOUNTED
        matters = bool(root) and root == data_root(goal.document)
        read_only, silent = read_only_or_silent(root) if matters else (False, "")
        if not matters:
            pass  # this data will not be used any more
        elif silent:
            text = f"{silent}, and the data of the running dockerd is in {root}"
        elif mount := self._missing_mount(root):
            text = f"{mount} was unmounted under the running dockerd, whose data is in {root}"
        elif read_only:
            text, reason = f"the file system of dockerd's data in {root} has become read-only", "ReadOnly"
        self._status.storage_lost(text, reason=reason)
        return text

    def repair(
        self, process: Process, goal: DaemonTarget, *, answers: Callable[[], bool]
    ) -> DaemonPlan | None:
        """A single restart for what was lost. It stops the containers, because their ports and mounts depend on what was
        lost.

        `answers`: whether the engine responds; if not, it may be starting and about to create what is missing.
        """
        lost = self._lost(process, goal)
        if lost and not answers():
            return None
        # a dockerd that was still starting may have it by now
        if not lost or not (lost := self._lost(process, goal)):
            self._asked = None
            self._status.impaired("")
            return None
        # a second restart for the same loss would stop all containers in every pass and repair nothing
        if self._asked is not None and self._asked[0] == lost and self._asked[1] != process:
            self._status.impaired(f"{lost}, and a restart of dockerd did not help")
            return None
        if self._asked != (lost, process):
            logger.warning("dockerd needs a restart: %s", lost)
        self._asked = (lost, process)
        return DaemonPlan(effect=Effect.RESTART, causes=(lost,), stops=True)

    def _lost(self, process: Process, goal: DaemonTarget) -> str:
        if bridge := lost_bridge(goal.document, goal.arguments, network_devices(process.pid)):
            return bridge
        # Its open files are on the old mount, while paths lead to the new one. None: the kernel does not say. Checked
        # only if a mount is declared: other paths may be on a mount by chance.
        root = data_root(goal.document)
        if self._needs_mount(root) and has_files_on(process.pid, root) is False:
            return f"the file system of {root} was mounted again under dockerd"
        return ""


def lost_bridge(document: Document, arguments: Sequence[str], devices: frozenset[str] | None) -> str:
    """The network device that a dockerd with these settings misses; "" if none.

    With `bridge` none, or a bridge chosen on the command line, no device is expected.
    """
    chosen = any(word.lstrip("-").partition("=")[0] in {"b", "bridge"} for word in arguments)
    bridge = str(document.get("bridge") or DEFAULT_BRIDGE)
    # None: this dockerd has ended, and its bridge comes back with the next start
    if devices is None or chosen or bridge == "none" or bridge in devices:
        return ""
    return f"the bridge {bridge} was removed"


STABLE_S = 60.0  # a dockerd that lived at least this long is restarted immediately when it dies


class DaemonWatch:
    """Watches the dockerd process, with back-off for restarts. `wake(seconds)` requests a pass after that time, from any
    thread. `clock`: monotonic, seconds."""

    def __init__(
        self, status: DaemonStatus, *, wake: Callable[[float], None], clock: Callable[[], float]
    ) -> None:
        self._status, self._wake, self._clock = status, wake, clock
        self._backoff = BackOff(jitter=lambda: 1.0)
        self._watched: Process | None = None  # the process whose end is waited for
        self._intended = False  # dockerd is being stopped on purpose right now

    def acting(self, action: Callable[[], None]) -> None:
        """Runs an action that stops or starts dockerd on purpose."""
        self._intended = True
        try:
            action()
        finally:
            self._intended = False

    def watch(self, process: Process) -> None:
        """Starts one thread per dockerd that sleeps until it ends."""
        if self._watched == process:
            return
        self._watched = process
        # the kernel reports its end immediately, while the next pass may be a minute away
        threading.Thread(target=self._wait_for_end, args=(process,), name="dockerd", daemon=True).start()

    def _wait_for_end(self, process: Process) -> None:
        begun = self._clock()
        daemon_process.wait_end(process, None)
        # checked after the end, not before: the intended stop is what made it end
        if self._intended:
            return
        now = self._clock()
        if now - begun < STABLE_S:
            self._backoff.failed(DAEMON_KEY, "dockerd died", now)
        else:
            self._backoff.succeeded(DAEMON_KEY)
        self._wake(0)

    def failed(self, why: str) -> None:
        """Notes a failure; a pass retries after the back-off."""
        self._backoff.failed(DAEMON_KEY, why, self._clock())
        self._wake_when_due()

    def watch_passed(self) -> None:
        """The running dockerd has outlived its watch."""
        self._backoff.succeeded(DAEMON_KEY)

    def forget_backoff(self) -> None:
        """A person asked: forget the back-off."""
        self._backoff.clear()

    def backing_off(self) -> bool:
        """Whether the back-off still delays the restart of a dockerd that died."""
        if not self._backoff.blocked(self._clock()):
            return False
        # otherwise status would keep showing the process that died
        self._status.running(None)
        self._wake_when_due()
        return True

    def _wake_when_due(self) -> None:
        now = self._clock()
        due = self._backoff.next_try(now)
        if due is not None:
            self._wake(max(0.1, due - now))


class EngineRecognition:
    """Recognizes the engine that the containers belong to. `on_disk`: whether a directory is declared to be on a mount."""

    def __init__(self, files: DaemonFiles, status: DaemonStatus, *, on_disk: Callable[[str], bool]) -> None:
        self._files, self._status, self._on_disk = files, status, on_disk
        self.mark = ""  # our mark on the disk of the running engine

    def why_another(
        self,
        root: str,
        *,
        accepted: bool,
        store: str = "",
        asked: bool = True,
        has_ours: Callable[[], bool] = lambda: False,
    ) -> str:
        """Why nothing may be created on the engine with this data_root; "" if it is the right engine.

        `accepted`: a reconcile was requested, which makes this engine the right one. `store`: its storage driver, ""
        if not known. `asked`: whether this is the engine that UCI asks for, not a fallback. `has_ours`: whether it
        has our containers; called only if everything else indicates another engine. Raises OSError.
        """
        meant = self._files.engine()
        disk = self._on_disk(root)
        found = _mark_of(root) if disk else ""
        now = EngineData(data_root=root, mark=found, store=store)
        self.mark = found
        what, reason = _difference(meant, now, disk=disk)
        # the user said so, or it is the first engine and the one in UCI, or its data was only moved
        if accepted or (not meant.data_root and asked) or (meant.data_root and what and has_ours()):
            self.mark = (found or _new_mark(root)) if disk else ""
            self._files.write_engine(replace(now, mark=self.mark, store=store or meant.store))
            return self._show("")
        if not meant.data_root:
            return self._show("this is not the engine that was expected", reason="Fallback")
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
    """How the engine differs from the expected one ("" if it does not), and the reason code."""
    # in the order of what users may have changed: settings, disk, driver
    root = now.data_root
    if meant.data_root != root:
        return f"data_root was {meant.data_root} and is {root}", "DataRoot"
    # the mark is on the disk itself, so that another disk at the same path is noticed
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
    """Writes a new mark. If that fails (a full disk, for example), the next pass tries again."""
    mark = secrets.token_hex(16)
    with contextlib.suppress(OSError):
        atomic_write(Path(root, MARK), f"{mark}\n".encode(), mode=0o600)
        return mark
    logger.debug("no mark could be left in %s", root)
    return ""


class RunningEngine:
    """The engine of the running dockerd. `has_ours`, `restarted`: see `DaemonStage`; `file_system`: the file system type
    of a path."""

    def __init__(
        self,
        home: EngineRecognition,
        status: DaemonStatus,
        *,
        has_ours: Callable[[], bool],
        restarted: Callable[[], None],
        file_system: Callable[[str], str],
    ) -> None:
        self._home, self._status = home, status
        self._has_ours, self._restarted, self._file_system = has_ours, restarted, file_system
        self._accepted = threading.Event()
        self._asked: Process | None = None  # the process whose identity was queried
        self._store: tuple[Process, str] | None = None  # the storage driver of that dockerd

    def accept(self) -> None:
        """Accepts the running engine, or the next one that starts, as the right one. May be called from any thread."""
        self._accepted.set()

    def mark(self) -> str:
        """Our mark on the disk of the running engine, "" if there is none."""
        return self._home.mark

    def why_another(self, change: DaemonChange, desired: Desired, wanted: DaemonTarget | None) -> str:
        """Why this engine does not have the data that the containers belong to, until a reconcile is requested; "" if it
        does."""
        running, process = change.record.running, change.record.process
        if running is None or process is None:
            return ""
        # a new process may be another engine, so its cached id must be queried again
        if self._asked != process:
            self._restarted()
            self._asked = process
        why = self._home.why_another(
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
        # The driver that dockerd uses takes precedence over UCI: without a setting dockerd chooses by itself, and it
        # keeps the driver used before.
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
        """The storage driver; each dockerd is asked once."""
        if self._store is None or self._store[0] != process:
            store = change.probe.store()
            if not store:
                return ""
            self._store = (process, store)
        return self._store[1]


def _is_asked(desired: Desired, wanted: DaemonTarget | None, running: DaemonTarget) -> bool:
    """Whether this is the engine that UCI asks for: every setting that identifies the engine is valid and in force."""
    if (
        desired.daemon is None
        or wanted is None
        or identity_of(running.document) != identity_of(wanted.document)
    ):
        return False
    # compare only options that are set in UCI; the others have dockerd's defaults, whatever they are
    said = {row.key for row in TABLE if row.identity and value_at(desired.daemon.values, row.key) is not None}
    given = all(value_at(desired.daemon.values, key) == value_at(wanted.document, key) for key in said)
    return given and not any(row.key in desired.daemon.left_out for row in TABLE if row.identity)
