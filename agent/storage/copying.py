# SPDX-License-Identifier: GPL-2.0-or-later
"""Copies Docker's data so that an engine finds in the copy all that it had: hard links, owners, modes, times, extended
attributes (capabilities, access lists and overlay's marks among them), sparse files, device nodes, pipes and sockets.

What the copy has already, and what did not change since, is left as it is. So one function makes the first copy while
containers run, brings it up to date once they have stopped, and takes up a copy that was cut short. A file gets its name
when it is complete. Containers write the names and links in the source: no link of theirs is followed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from agent.errors import DataError

NOTE = ".ucidockd-moving"  # in a copy that is not complete
MARGIN_S = 120.0  # what was changed so shortly before a copy began may have pages in memory that are written without a trace
_PARTIAL = ".ucidockd-copying"
_OWN_NAMES = frozenset({NOTE, "lost+found"})  # at the top: not the engine's
_PIECE = 1024 * 1024
_DEPTH = 400  # of folders; two descriptors each
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE})
_OF_THE_FILE_SYSTEM = ("btrfs.",)  # attributes that another one does not know


@dataclass(slots=True)
class Contents:
    """What a folder holds. `size`: bytes that its files take; `digest` stands for names, kinds, owners, modes and sizes."""

    entries: int = 0
    files: int = 0  # not counting a further name of one
    size: int = 0
    digest: int = 0


def measure(root: Path, check: Callable[[], None] = lambda: None, *, live: bool = False) -> Contents:
    """Counts. `live`: containers may change it meanwhile; `check` is called often and may raise. Raises OSError."""
    found, seen = Contents(), set[tuple[int, int]]()
    with _opened(os.fsencode(root), None) as top:
        for path, entry in _below(top, "", os.fstat(top).st_dev, 0, live=live):
            check()
            found.entries += 1
            # a folder's own size is its file system's affair, and differs in a copy that is complete
            size = entry.st_size if stat.S_ISREG(entry.st_mode) else 0
            words = (path, entry.st_mode, entry.st_uid, entry.st_gid, size, _device(entry))
            # by XOR: the order in which a folder lists its names differs as well
            found.digest ^= int.from_bytes(hashlib.blake2b(repr(words).encode(), digest_size=8).digest())
            if stat.S_ISDIR(entry.st_mode) or (entry.st_dev, entry.st_ino) in seen:
                continue
            if entry.st_nlink > 1:
                seen.add((entry.st_dev, entry.st_ino))
            found.files += 1
            found.size += _taken(entry)
    return found


def _device(entry: os.stat_result) -> int:
    return entry.st_rdev if stat.S_ISCHR(entry.st_mode) or stat.S_ISBLK(entry.st_mode) else 0


def _taken(entry: os.stat_result) -> int:
    """Bytes on the disk; holes take none."""
    return min(entry.st_size, entry.st_blocks * 512) if stat.S_ISREG(entry.st_mode) else 0


def _below(
    folder: int, path: str, device: int, depth: int, *, live: bool
) -> Iterator[tuple[str, os.stat_result]]:
    """Relative path and look of all that is below, folders first."""
    for name in _names(folder, top=not depth):
        inside = f"{path}/{name}" if path else name
        try:
            entry = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if _is_elsewhere(entry, device, inside, live=live):
                continue
            yield inside, entry
            if stat.S_ISDIR(entry.st_mode):
                _check_depth(inside, depth)
                with _opened(name, folder) as child:
                    yield from _below(child, inside, device, depth + 1, live=live)
        except OSError as exc:  # containers remove, exchange and rename what we have just listed
            if not (live and exc.errno in _GONE):
                raise


@contextlib.contextmanager
def _opened(name: str | bytes, folder: int | None) -> Iterator[int]:
    descriptor = os.open(name, _FOLDER, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _names(folder: int, *, top: bool) -> list[str]:
    return [name for name in os.listdir(folder) if not (top and name in _OWN_NAMES)]


def _is_elsewhere(entry: os.stat_result, device: int, path: str, *, live: bool) -> bool:
    """Whether it is a mount, as those of containers that run. Raises DataError for one that stays."""
    if entry.st_dev == device:
        return False
    if live:
        return True
    raise DataError(f"{path} is a mount of its own, and is not copied: unmount it, or move it yourself")


def _check_depth(path: str, depth: int) -> None:
    if depth >= _DEPTH:
        raise DataError(f"{path[:64]}... has more than {_DEPTH} folders in each other")


@dataclass(slots=True, kw_only=True)
class TreeCopy:
    """Makes `target` like `source`. `since`: unix seconds; what changed from then on is copied whatever it looks like.

    `live`: containers run, so what is mounted or vanishes is left out. `thorough`: what the copy has is read and compared,
    as its file system may have lost some of it.
    """

    source: Path
    target: Path
    since: float
    live: bool = False
    thorough: bool = False
    size: int = 0  # bytes done
    entries: int = 0
    _device: int = 0
    _linked: dict[tuple[int, int], str] = field(
        default_factory=dict
    )  # of files with several names: the first
    _check: Callable[[], None] = lambda: None

    def run(self, check: Callable[[], None] = lambda: None) -> None:
        """Calls `check` often. Raises OSError, DataError, and what `check` raises."""
        self._check = check
        with (
            _opened(os.fsencode(self.source), None) as source,
            _opened(os.fsencode(self.target), None) as target,
        ):
            # Only this file system is copied: what is mounted below belongs elsewhere.
            self._device = os.fstat(source).st_dev
            self._folder(source, target, "", 0)
            # The root's own looks come last: each file below changes its times.
            _give_attributes(source, None, target, None)
            _give_looks(os.fstat(source), None, target)

    def _folder(self, source: int, target: int, path: str, depth: int) -> None:
        names = _names(source, top=not depth)
        # what went since the first copy must not come back with the new engine
        for name in {*_names(target, top=not depth)} - {*names}:
            _remove(name, target)
        for name in names:
            self._check()
            inside = f"{path}/{name}" if path else name
            try:
                entry = os.stat(name, dir_fd=source, follow_symlinks=False)
                if _is_elsewhere(entry, self._device, inside, live=self.live):
                    continue
                if stat.S_ISDIR(entry.st_mode):
                    self._one_folder(name, entry, source, target, inside, depth)
                else:
                    self._entry(name, entry, source, target, inside)
            except OSError as exc:
                # an error that says "gone" may be about the copy: only what is gone from the source is left out
                if self.live and exc.errno in _GONE and not os.path.lexists(f"/proc/self/fd/{source}/{name}"):
                    continue
                raise OSError(
                    exc.errno, exc.strerror, exc.filename if "/" in str(exc.filename) else inside
                ) from exc
            self.entries += 1

    def _one_folder(
        self, name: str, entry: os.stat_result, source: int, target: int, path: str, depth: int
    ) -> None:
        _check_depth(path, depth)
        there = _look(name, target)
        if there is not None and not stat.S_ISDIR(there.st_mode):
            _remove(name, target)
            there = None
        # closed to others until all of it is there: its own mode comes last, and so do its times, which each file changes
        if there is None:
            os.mkdir(name, 0o700, dir_fd=target)
        with _opened(name, source) as below, _opened(name, target) as copy:
            self._folder(below, copy, path, depth + 1)
            _give_attributes(below, None, copy, None)
            _give_looks(entry, None, copy)

    def _entry(self, name: str, entry: os.stat_result, source: int, target: int, path: str) -> None:
        there = _look(name, target)
        number = (entry.st_dev, entry.st_ino)
        # Hard links are kept: layers of images share files by them, and would need several times the space.
        first = self._linked.get(number)
        if first is not None:
            self._link(first, name, there, target)
            return
        if there is None or not self._is_same(name, entry, there, source, target):
            self._make(name, entry, source, target)
        else:
            self.size += _taken(entry)
        # Only those that may come again are remembered: there are hundreds of thousands of files.
        if entry.st_nlink > 1:
            self._linked[number] = path

    def _link(self, first: str, name: str, there: os.stat_result | None, target: int) -> None:
        """A further name of a file."""
        copy = self.target / first
        if there is not None and os.path.samestat(there, copy.lstat()):
            return
        if there is not None:
            _remove(name, target)
        os.link(copy, name, dst_dir_fd=target, follow_symlinks=False)

    def _is_same(
        self, name: str, entry: os.stat_result, there: os.stat_result, source: int, target: int
    ) -> bool:
        """Whether the copy has it already. No program can set a ctime, so that tells of every change."""
        looks = ("st_mode", "st_uid", "st_gid", "st_size")
        unit = 1 if there.st_mtime_ns % 10**9 else 10**9  # some file systems keep whole seconds
        if (
            entry.st_ctime >= self.since
            or any(getattr(entry, name) != getattr(there, name) for name in looks)
            or entry.st_mtime_ns // unit != there.st_mtime_ns // unit
            or _device(entry) != _device(there)
        ):
            return False
        if entry.st_nlink == 1 and there.st_nlink > 1:  # they were one file, and are not any more
            return False
        if stat.S_ISLNK(entry.st_mode):
            return os.readlink(name, dir_fd=source) == os.readlink(name, dir_fd=target)
        return not (self.thorough and stat.S_ISREG(entry.st_mode)) or self._reads_same(name, source, target)

    def _reads_same(self, name: str, source: int, target: int) -> bool:
        with _reading(name, source) as one, _reading(name, target) as other:
            if _attributes(one, None) != _attributes(other, None):
                return False
            while True:
                self._check()
                piece = os.read(one, _PIECE)
                if piece != os.read(other, _PIECE):
                    return False
                if not piece:
                    return True

    def _make(self, name: str, entry: os.stat_result, source: int, target: int) -> None:
        """Under another name first: what has its own is complete."""
        if _look(_PARTIAL, target) is not None:
            _remove(_PARTIAL, target)
        if stat.S_ISREG(entry.st_mode):
            self._file(name, entry, source, target)
        else:
            if stat.S_ISLNK(entry.st_mode):
                os.symlink(os.readlink(name, dir_fd=source), _PARTIAL, dir_fd=target)
            else:  # pipes, sockets, devices, and the whiteouts of overlay: devices of number 0
                os.mknod(_PARTIAL, entry.st_mode, _device(entry), dir_fd=target)
            _give_looks(entry, _PARTIAL, target, times=False)
            _give_attributes(source, name, target, _PARTIAL)
            _give_times(entry, _PARTIAL, target)
        there = _look(name, target)
        if there is not None and stat.S_ISDIR(there.st_mode):
            _remove(name, target)
        os.rename(_PARTIAL, name, src_dir_fd=target, dst_dir_fd=target)

    def _file(self, name: str, entry: os.stat_result, source: int, target: int) -> None:
        with _reading(name, source) as one:
            descriptor = os.open(
                _PARTIAL, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target
            )
            try:
                self._bytes(one, descriptor, entry.st_size)
                _give_looks(entry, None, descriptor, times=False)
                _give_attributes(one, None, descriptor, None)
                _give_times(entry, None, descriptor)
            finally:
                os.close(descriptor)

    def _bytes(self, source: int, target: int, size: int) -> None:
        """What is not a hole, without a copy of it in our memory."""
        os.ftruncate(target, size)
        place = 0
        while place < size:
            try:
                place = os.lseek(source, place, os.SEEK_DATA)
                end = min(size, os.lseek(source, place, os.SEEK_HOLE))
            except OSError as exc:
                if exc.errno != errno.ENXIO:
                    raise
                return  # a hole up to the end
            os.lseek(target, place, os.SEEK_SET)
            while place < end:
                self._check()
                sent = os.sendfile(target, source, place, min(_PIECE, end - place))
                if not sent:
                    return  # it became shorter while it was read
                place += sent
                self.size += sent


@contextlib.contextmanager
def _reading(name: str, folder: int) -> Iterator[int]:
    # a container may put a pipe or a device in the file's place: opening that must neither hang nor do anything
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    descriptor = os.open(name, flags, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # exchanged since we looked
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), name)
        yield descriptor
    finally:
        os.close(descriptor)


def _look(name: str, folder: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _remove(name: str, folder: int) -> None:
    there = _look(name, folder)
    if there is not None and stat.S_ISDIR(there.st_mode):
        shutil.rmtree(name, dir_fd=folder)
    elif there is not None:
        os.unlink(name, dir_fd=folder)


def _give_looks(entry: os.stat_result, name: str | None, place: int, *, times: bool = True) -> None:
    """Owner, mode and times, to `name` in the folder `place`, or without one to `place` itself."""
    if name is None:
        os.fchown(place, entry.st_uid, entry.st_gid)
        os.fchmod(place, stat.S_IMODE(entry.st_mode))
    else:
        os.chown(name, entry.st_uid, entry.st_gid, dir_fd=place, follow_symlinks=False)
        # Linux has no modes of links.
        if not stat.S_ISLNK(entry.st_mode):
            os.chmod(name, stat.S_IMODE(entry.st_mode), dir_fd=place)
    if times:
        _give_times(entry, name, place)


def _give_times(entry: os.stat_result, name: str | None, place: int) -> None:
    times = (entry.st_atime_ns, entry.st_mtime_ns)
    if name is None:
        os.utime(place, ns=times)
    else:
        os.utime(name, ns=times, dir_fd=place, follow_symlinks=False)


def _give_attributes(source: int, name: str | None, target: int, copy: str | None) -> None:
    """After owner and mode: a change of the owner drops capabilities."""
    wanted, there = _attributes(source, name), _attributes(target, copy)
    where = _place(target, copy)
    # What the source does not have must go: an old attribute can make a layer invalid for overlayfs.
    for key in there.keys() - wanted.keys():
        os.removexattr(where, key, follow_symlinks=copy is None)
    for key, value in wanted.items():
        if there.get(key) != value:
            try:
                os.setxattr(where, key, value, follow_symlinks=copy is None)
            except OSError as exc:
                # The attribute is named, since overlayfs needs some that a file system may not be able to keep.
                raise OSError(exc.errno, f"{exc.strerror} (attribute {key})", name) from exc


def _attributes(place: int, name: str | None) -> dict[str, bytes]:
    where, follow = _place(place, name), name is None
    try:
        keys = os.listxattr(where, follow_symlinks=follow)
    except OSError as exc:
        # A file system without extended attributes has none to copy.
        if exc.errno == errno.ENOTSUP:
            return {}
        raise
    # What belongs to the file system itself is made by the target, and may not be written.
    return {
        key: os.getxattr(where, key, follow_symlinks=follow)
        for key in keys
        if not key.startswith(_OF_THE_FILE_SYSTEM)
    }


def _place(place: int, name: str | None) -> int | str:
    """The kernel takes attributes of what is open, or of a path: this one leads through an open folder."""
    return place if name is None else f"/proc/self/fd/{place}/{name}"


def written(folder: Path) -> None:
    """All that was written to that file system is on its disk. Raises OSError, also for an earlier write that failed.

    syncfs(2), which Python lacks, by the program; a BusyBox without `sync -f` waits for all disks.
    """
    done = subprocess.run(["sync", "-f", str(folder)], stderr=subprocess.PIPE, check=False)
    if done.returncode:
        raise OSError(
            errno.EIO, done.stderr.decode("utf-8", "replace").strip() or "it cannot be synced", str(folder)
        )


def unfit(folder: str) -> str:
    """Why Docker's data cannot be on the file system of that folder, "" when it can: each thing is tried. Raises OSError."""
    trial = os.path.join(folder, f"{_PARTIAL}-trial")
    shutil.rmtree(trial, ignore_errors=True)
    os.mkdir(trial, 0o700)
    steps: tuple[tuple[str, Callable[[str], None]], ...] = (
        ("owners", lambda path: os.chown(path, 1, 1)),
        ("extended attributes of the kind trusted", lambda path: os.setxattr(path, "trusted.ucidockd", b"y")),
        ("hard links", lambda path: os.link(path, f"{path}-link")),
        ("symbolic links", lambda path: os.symlink("target", f"{path}-symlink")),
        ("device nodes", lambda path: os.mknod(f"{path}-device", stat.S_IFCHR | 0o600, 0)),
        ("pipes", lambda path: os.mkfifo(f"{path}-pipe")),
    )
    try:
        path = os.path.join(trial, "file")
        with open(path, "wb"):
            pass
        # tried and not looked up: mount options, FUSE and network file systems decide as well as the kind of file system
        for what, step in steps:
            try:
                step(path)
            except OSError as exc:
                if exc.errno in (errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT):
                    raise
                return f"its file system keeps no {what} ({exc.strerror})"
        return ""
    finally:
        shutil.rmtree(trial, ignore_errors=True)
