# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes files completely or not at all. All files of ours are written here."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO


def atomic_write(
    path: Path, data: bytes, *, mode: int | None = None, last_check: Callable[[], None] = lambda: None
) -> None:
    """Writes these bytes with `atomic_file`."""
    with atomic_file(path, mode=mode, last_check=last_check) as file:
        file.write(data)


@contextlib.contextmanager
def atomic_file(
    path: Path, *, mode: int | None = None, last_check: Callable[[], None] = lambda: None
) -> Iterator[BinaryIO]:
    """Writes a temporary file, then fsync, rename, fsync of the directory. Symlinks are followed, as `uci commit` does.

    With `mode` None the mode (and owner) of an existing file is kept; a new file gets 0600. `last_check` is called
    just before the rename, and prevents it by raising. Raises OSError, and what the writer raises; then the old file
    is unchanged and no temporary file is left.
    """
    target = path.resolve()
    old = target.stat() if target.exists() else None
    # in the same directory, because a rename cannot cross file systems
    descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.ucidockd-", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            os.fchmod(file.fileno(), mode if mode is not None else (old.st_mode & 0o7777 if old else 0o600))
            if old is not None and mode is None:
                os.fchown(file.fileno(), old.st_uid, old.st_gid)
            file.flush()
            os.fsync(file.fileno())
        last_check()
        Path(temporary).replace(target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise
    # the directory's blocks are written separately: without a sync a power failure could bring the old file back
    sync_directory(target.parent)


def sync_directory(path: Path) -> None:
    """Makes what was created, renamed or removed in a directory survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(path: Path) -> None:
    """Removes temporary files that killed writers of `path` left behind. Call it only as the sole writer of `path`."""
    for temporary in path.parent.glob(f".{path.name}.ucidockd-*"):
        temporary.unlink(missing_ok=True)
