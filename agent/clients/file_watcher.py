# SPDX-License-Identifier: GPL-2.0-or-later
"""Watches the configuration directories. `uci commit` renames a temporary file over the package's file, so the
directory is watched, never the file (libuci file.c, uci_file_commit).

An editor that truncates and writes in place leaves half a file for a moment: between `modified` and `closed` the
file counts as unsettled, and the runtime keeps the configuration that it has.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

logger = logging.getLogger(__name__)

UNSETTLED_LIMIT_S = 3.0  # a writer that never closes its file must not hold us for ever


class FileWatcher(FileSystemEventHandler):
    """Calls `changed` (from its own thread) when one of `names` may have new content."""

    def __init__(
        self, directories: tuple[Path, ...], names: frozenset[str], changed: Callable[[], None]
    ) -> None:
        self._directories = directories
        self._names = names
        self._changed = changed
        self._unsettled: dict[str, float] = {}
        self._watched: dict[Path, int] = {}
        self._observer = Observer()

    def start(self) -> None:
        """Begins to watch the directories that exist; `look_again` adds those that come later."""
        self._observer.start()
        self.look_again()

    def stop(self) -> None:
        """Ends the watching threads."""
        self._observer.stop()
        self._observer.join(timeout=2)

    def look_again(self) -> bool:
        """Watches directories that appeared or were replaced. True when there was one: its files may have changed."""
        found = False
        for directory in self._directories:
            inode = _inode(directory)
            if inode == self._watched.get(directory, 0):
                continue
            found = True
            self._watch(directory, inode)
        return found

    def _watch(self, directory: Path, inode: int) -> None:
        self._watched.pop(directory, None)
        for watch in [w for w in self._observer._watches if w.path == str(directory)]:  # noqa: SLF001 - no public list
            self._observer.unschedule(watch)
        if inode:
            try:
                self._observer.schedule(self, str(directory), recursive=False)
            except OSError as exc:
                logger.warning("cannot watch %s (%s): changes are seen at the next resync", directory, exc)
                return
            self._watched[directory] = inode

    def unsettled(self) -> bool:
        """Whether a file is being written in place at this moment."""
        now = time.monotonic()
        return any(now - begun < UNSETTLED_LIMIT_S for begun in self._unsettled.values())

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type in {"opened", "closed_no_write"}:
            return
        if event.is_directory:
            self._changed()
            return
        for path in (event.src_path, event.dest_path):
            name = Path(str(path)).name
            if name in self._names:
                self._note(name, event.event_type)

    def _note(self, name: str, event_type: str) -> None:
        if event_type == "modified":
            self._unsettled[name] = time.monotonic()
            return
        self._unsettled.pop(name, None)
        self._changed()


def _inode(directory: Path) -> int:
    try:
        return directory.stat().st_ino
    except OSError:
        return 0
