# SPDX-License-Identifier: GPL-2.0-or-later
"""Watches the configuration directories, and the mounts: the file system of dockerd's data, without which dockerd must
not start, and all others.

`uci commit` renames a temporary file over the package's file, so the directory is watched and not the file (libuci
file.c, uci_file_commit).

It watches the directories, their parents (a directory may be removed and created again) and the directories that
symlinks lead to. An editor that truncates and writes in place leaves half a file for a moment: from its first change
until it is closed, the file counts as unsettled, and the runtime keeps its current configuration. If the kernel
refuses a watch or loses an event, `look_again` finds changes by comparing the files' inode, time and size.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers.inotify import InotifyObserver

from agent.errors import PathError, UcidockdError
from agent.files import user_paths
from agent.files.config import open_store
from agent.files.options import RuntimeOptions
from agent.files.user_paths import PATHS, is_mounted, real_path
from agent.uci.router import is_on, text

logger = logging.getLogger(__name__)

UNSETTLED_LIMIT_S = 3.0  # a writer that never closes its file must not block us for ever
_QUIET = frozenset({"opened", "closed_no_write", "attrib"})
_Signature = tuple[tuple[int, int, int], ...]


class FileWatcher:
    """Calls `changed` (in its own thread) when one of the files `names` in `directories` may have new content."""

    def __init__(
        self, directories: tuple[Path, ...], names: frozenset[str], changed: Callable[[], None]
    ) -> None:
        self._directories = directories
        self._names = names
        self._changed = changed
        # path -> when it was last written in place; a file that is renamed into place is never here
        self._unsettled: dict[str, float] = {}
        self._observer: Any = None
        self._watches: dict[Path, _Folder] = {}  # by directory, links resolved
        self._refused: dict[Path, str] = {}  # directory -> why the kernel refuses to watch it
        self._signature: _Signature = ()
        self._lock = threading.Lock()

    def start(self) -> None:
        """Starts watching existing directories; `look_again` adds those that appear later."""
        self.look_again()

    def stop(self) -> None:
        """Ends the watching threads."""
        with self._lock:
            if self._observer is not None:
                self._observer.stop()
                self._observer.join(timeout=2)
            self._observer = None

    def is_blind(self) -> bool:
        """Whether an existing directory cannot be watched, so that `look_again` must be called regularly."""
        return bool(self._refused)

    def state(self) -> str:
        """The state for the status, as one word."""
        return "WatchDegraded" if self._refused else "Watching"

    def look_again(self) -> bool:
        """Watches directories that appeared or were replaced. Returns True if the files have changed since
        the last call.
        """
        with self._lock:
            wanted = self._wanted()
            # a watch stays on the inode: for a directory that was replaced it would report nothing
            for path in [p for p in self._watches if self._watches[p].is_stale(wanted.get(p))]:
                self._observer.unschedule(self._watches.pop(path).watch)
            self._refused = {path: reason for path, reason in self._refused.items() if path in wanted}
            for path in sorted(wanted.keys() - self._watches.keys()):
                self._watch(path, frozenset(wanted[path]))
            before, self._signature = self._signature, self._look()
        return before != self._signature

    def _wanted(self) -> dict[Path, set[str]]:
        """Existing directory -> the relevant names in it."""
        wanted: dict[Path, set[str]] = {}
        for directory in self._directories:
            for name in self._names:
                # a symlink may be changed to another target, which is visible only in the link's own directory
                for step in _links(directory / name):
                    wanted.setdefault(step.parent.resolve(), set()).add(step.name)
            for step in _links(directory):
                wanted.setdefault(step.parent.resolve(), set()).add(step.name)
        return {path: names for path, names in wanted.items() if path.is_dir()}

    def _watch(self, path: Path, names: frozenset[str]) -> None:
        folder = _Folder(path, names, self._note)
        try:
            if self._observer is None:
                # reports unpaired moves as moves: a renamed file is complete, a created one is still to be written
                observer = InotifyObserver(generate_full_events=True)
                observer.start()
                self._observer = observer
            folder.watch = self._observer.schedule(folder, str(path), recursive=False)
        except OSError as exc:
            if path not in self._refused:
                logger.warning("cannot watch %s (%s): it is looked at every few seconds", path, exc.strerror)
            self._refused[path] = str(exc.strerror)
            return
        self._refused.pop(path, None)
        self._watches[path] = folder

    def _look(self) -> _Signature:
        paths = [directory / name for directory in self._directories for name in sorted(self._names)]
        return tuple(_signature(path) for path in paths)

    def unsettled(self) -> bool:
        """Whether a file is being written in place at this moment."""
        now = time.monotonic()
        return any(now - begun < UNSETTLED_LIMIT_S for begun in list(self._unsettled.values()))

    def _note(self, path: str, event_type: str) -> None:
        # a rename brings a complete file; a write in place has only begun
        if event_type == "modified" or (event_type == "created" and _is_being_written(path)):
            self._unsettled[path] = time.monotonic()
            return
        self._unsettled.pop(path, None)
        self._changed()


class _Folder(FileSystemEventHandler):
    """One watched directory: passes on events for the relevant names."""

    def __init__(self, path: Path, names: frozenset[str], note: Callable[[str, str], None]) -> None:
        self.watch: Any = None
        self._path, self._names, self._note = path, names, note
        self._inode = _signature(path)[0]

    def is_stale(self, names: set[str] | None) -> bool:
        """Whether the directory was replaced or removed, or other names in it are relevant now."""
        return names is None or names != set(self._names) or _signature(self._path)[0] != self._inode

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type in _QUIET:
            return
        for raw in (event.src_path, event.dest_path):
            path = os.fsdecode(raw) if raw else ""
            name = os.path.basename(path)
            if event.is_directory and event.event_type == "modified":
                continue  # something in the directory; relevant files have events of their own
            if name in self._names or path == str(self._path):
                self._note(path, event.event_type)


def _links(path: Path) -> Iterator[Path]:
    """The path, and each target on the way through its symlinks."""
    for _ in range(8):
        yield path
        try:
            path = path.parent / os.readlink(path)
        except OSError:
            return


def _is_being_written(path: str) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return os.path.isfile(path) and not os.path.islink(path) and status.st_nlink == 1


def _signature(path: Path) -> tuple[int, int, int]:
    """Inode, time and size of a file; zeros if it does not exist."""
    try:
        status = path.stat()
    except OSError:
        return (0, 0, 0)
    return (status.st_ino, status.st_mtime_ns, status.st_size)


def missing_mount(root: str, options: RuntimeOptions) -> str:
    """The mount point in /etc/config/fstab for that directory if nothing is mounted there, else ""."""
    try:
        declared = _declared(root, options)
        return "" if not declared or PATHS.ask(is_mounted, declared) else declared
    except PathError:
        return root  # does not answer: dockerd would hang on it


def read_only_or_silent(path: str) -> tuple[bool, str]:
    """(is read-only, why that is unknown) for the file system of a path, or of its nearest existing parent. Unknown if
    it does not answer, or its server is gone."""
    try:
        return PATHS.ask(user_paths.is_read_only, path), ""
    except PathError as exc:
        return False, str(exc)


def declared_mount(root: str, options: RuntimeOptions) -> str:
    """The deepest mount point in /etc/config/fstab above that directory, with links resolved. "" if there is none, or if
    the directory does not answer."""
    try:
        return _declared(root, options)
    except PathError:
        return ""


def _declared(root: str, options: RuntimeOptions) -> str:
    try:
        package = open_store(options).load("fstab")
    except UcidockdError:
        return ""  # the file only exists on OpenWrt, and a broken one is not a reason to keep dockerd stopped
    real = PurePosixPath(PATHS.ask(real_path, root))
    targets = (
        text(section, "target") for section in package.sections if section.type == "mount" and is_on(section)
    )
    above = [
        target
        for target in targets
        if target.strip("/") and real.is_relative_to(PATHS.ask(real_path, target))
    ]
    return max(above, key=len, default="")


# Notices mounts, unmounts and remounts without hotplug (proc_pid_mountinfo(5): poll returns POLLPRI).
#
# The engine's own mounts for containers are ignored.


_MOUNTS = Path("/proc/self/mountinfo")
_OF_CONTAINERS = frozenset({"overlay", "nsfs", "mqueue", "proc", "sysfs", "devpts", "cgroup", "cgroup2"})
_SHM = "shm"  # the source of the tmpfs on a container's /dev/shm

Mounts = frozenset[tuple[str, str, str]]


class MountWatch:
    """A context manager that calls `changed` in the running loop after each change."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._known: Mounts = frozenset()
        self._open = contextlib.ExitStack()

    def __enter__(self) -> MountWatch:
        """Starts watching. Has no effect without /proc, because the next resync checks anyway."""
        with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
            mounts = opened.enter_context(_MOUNTS.open("rb"))
            # asyncio cannot wait for POLLPRI, but an epoll becomes readable on any event
            poll = opened.enter_context(select.epoll())
            poll.register(mounts, select.EPOLLPRI)
            loop = asyncio.get_running_loop()
            loop.add_reader(poll.fileno(), self._look, poll)
            opened.callback(loop.remove_reader, poll.fileno())
            self._known = _mounts()
            self._open = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _look(self, poll: select.epoll) -> None:
        poll.poll(0)
        now = _mounts()
        if now != self._known:
            self._known = now
            self._changed()


def _mounts() -> Mounts:
    try:
        return mounts_in(_MOUNTS.read_text(errors="surrogateescape"))
    except OSError:
        return frozenset()


def mounts_in(text: str) -> Mounts:
    """(device, mount point, options) for each line of mountinfo that is not a container's."""
    found = (line.partition(" - ")[::2] for line in text.splitlines())
    return frozenset(
        _told(mount.split(), system.split()) for mount, system in found if _counts(system.split())
    )


def _told(mount: list[str], system: list[str]) -> tuple[str, str, str]:
    """Includes the options of the file system itself, because it may have become read-only by itself."""
    return mount[2], mount[4], f"{mount[5]} {system[-1]}"


def _counts(system: list[str]) -> bool:
    """Whether a mount is not a container's, by type and source."""
    return system[0] not in _OF_CONTAINERS and system[1] != _SHM
