# SPDX-License-Identifier: GPL-2.0-or-later
"""Watches the configuration directories. `uci commit` renames a temporary file over the package's file, so the
directory is watched and not the file (libuci file.c, uci_file_commit).

It watches the directories, their parents (a directory may be removed and created again) and the directories that
symlinks lead to. An editor that truncates and writes in place leaves half a file for a moment: from its first change
until it is closed, the file counts as unsettled, and the runtime keeps its current configuration. If the kernel
refuses a watch or loses an event, `look_again` finds changes by comparing the files' inode, time and size.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers.inotify import InotifyObserver

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
