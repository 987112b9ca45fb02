# SPDX-License-Identifier: GPL-2.0-or-later
"""Copies Docker's data so that an engine finds everything in the copy: hard links, owners, modes, times, extended
attributes (including capabilities, access lists and overlay's marks), sparse files, device nodes, pipes and sockets.

Files that the copy already has and that did not change since are left as they are. So the same function makes the first
copy while containers run, updates it once they have stopped, and continues a copy that was interrupted. A file gets its
name only when it is complete. Containers control the names and links in the source, so their links are never followed.
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

NOTE = ".ucidockd-moving"  # marks a copy that is not complete
# a change shortly before a copy may still have pages in memory, which are written later without a new timestamp
MARGIN_S = 120.0
_PARTIAL = ".ucidockd-copying"
_OWN_NAMES = frozenset({NOTE, "lost+found"})  # at the top: not the engine's
_PIECE = 1024 * 1024
_DEPTH = 400  # nested folders, which take two file descriptors each
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# errors of a file that was removed or replaced while its folder was read
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE})
_OF_THE_FILE_SYSTEM = ("btrfs.",)  # attributes that only this kind of file system knows


@dataclass(slots=True)
class FolderContents:
    """The contents of a folder. `size`: bytes that its files use; `digest` covers names, kinds, owners, modes and sizes."""

    entries: int = 0
    files: int = 0  # a file with several names counts once
    size: int = 0
    digest: int = 0


def measure(root: Path, check: Callable[[], None] = lambda: None, *, live: bool = False) -> FolderContents:
    """Counts the contents of a folder. `live`: containers may change them meanwhile. `check` is called often and may
    raise. Raises OSError.
    """
    found, seen = FolderContents(), set[tuple[int, int]]()
    with _opened(os.fsencode(root), None) as top:
        for path, entry in _below(top, "", os.fstat(top).st_dev, 0, live=live):
            check()
            found.entries += 1
            # the size of a folder itself depends on the file system, and differs even in a complete copy
            size = entry.st_size if stat.S_ISREG(entry.st_mode) else 0
            words = (path, entry.st_mode, entry.st_uid, entry.st_gid, size, _device(entry))
            # XOR, because the order in which a folder lists its names differs too
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
    """Relative path and stat of everything below a folder, folders before their contents."""
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
        except OSError as exc:  # containers remove, replace and rename what was just listed
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
    """Whether the entry is on another mount, as running containers have them. Raises DataError if it is one
    without `live`.
    """
    if entry.st_dev == device:
        return False
    if live:
        return True
    raise DataError(f"{path} is a separate mount, and is not copied: unmount it, or move it yourself")


def _check_depth(path: str, depth: int) -> None:
    if depth >= _DEPTH:
        raise DataError(f"{path[:64]}... has more than {_DEPTH} folders in each other")


@dataclass(slots=True, kw_only=True)
class TreeCopy:
    """Makes `target` equal to `source`. `since`: unix seconds; files changed after that are copied even if they look
    the same.

    `live`: containers run, so mounts and vanishing files are left out. `thorough`: files in the copy are read and
    compared, because its file system may have lost some content.
    """

    source: Path
    target: Path
    since: float
    live: bool = False
    thorough: bool = False
    size: int = 0  # bytes done
    entries: int = 0
    _device: int = 0  # of the source, so that other file systems below it are noticed
    _linked: dict[tuple[int, int], str] = field(
        default_factory=dict
    )  # of files with several names: the first one
    _check: Callable[[], None] = lambda: None

    def run(self, check: Callable[[], None] = lambda: None) -> None:
        """Runs the copy; calls `check` often. Raises OSError, DataError, and what `check` raises."""
        self._check = check
        with (
            _opened(os.fsencode(self.source), None) as source,
            _opened(os.fsencode(self.target), None) as target,
        ):
            # copy only this file system: mounts below it belong elsewhere
            self._device = os.fstat(source).st_dev
            self._folder(source, target, "", 0)
            # the root's own attributes last, because each file changes its times
            _give_attributes(source, None, target, None)
            _give_looks(os.fstat(source), None, target)

    def _folder(self, source: int, target: int, path: str, depth: int) -> None:
        names = _names(source, top=not depth)
        # files removed since the first copy must not reappear
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
                # ENOENT may also concern the copy: only entries that are gone from the source are left out
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
        # closed to others until it is complete; its mode and times come last, because each file changes its times
        if there is None:
            os.mkdir(name, 0o700, dir_fd=target)
        with _opened(name, source) as below, _opened(name, target) as copy:
            self._folder(below, copy, path, depth + 1)
            _give_attributes(below, None, copy, None)
            _give_looks(entry, None, copy)

    def _entry(self, name: str, entry: os.stat_result, source: int, target: int, path: str) -> None:
        there = _look(name, target)
        number = (entry.st_dev, entry.st_ino)
        # keep hard links: image layers share files by them, and would otherwise need several times the space
        first = self._linked.get(number)
        if first is not None:
            self._link(first, name, there, target)
            return
        if there is None or not self._is_same(name, entry, there, source, target):
            self._make(name, entry, source, target)
        else:
            self.size += _taken(entry)
        # remember only files with several names: there are hundreds of thousands of files
        if entry.st_nlink > 1:
            self._linked[number] = path

    def _link(self, first: str, name: str, there: os.stat_result | None, target: int) -> None:
        """Adds another name of a file that is copied already."""
        copy = self.target / first
        if there is not None and os.path.samestat(there, copy.lstat()):
            return
        if there is not None:
            _remove(name, target)
        os.link(copy, name, dst_dir_fd=target, follow_symlinks=False)

    def _is_same(
        self, name: str, entry: os.stat_result, there: os.stat_result, source: int, target: int
    ) -> bool:
        """Whether the copy already has the file. Programs cannot set a ctime, so it shows every change."""
        looks = ("st_mode", "st_uid", "st_gid", "st_size")
        unit = 1 if there.st_mtime_ns % 10**9 else 10**9  # some file systems store whole seconds
        if (
            entry.st_ctime >= self.since
            or any(getattr(entry, name) != getattr(there, name) for name in looks)
            or entry.st_mtime_ns // unit != there.st_mtime_ns // unit
            or _device(entry) != _device(there)
        ):
            return False
        if entry.st_nlink == 1 and there.st_nlink > 1:
            # the copy's file had several names, this one no longer has
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
        """Copies under a temporary name, so that a file with its own name is complete."""
        if _look(_PARTIAL, target) is not None:
            _remove(_PARTIAL, target)
        if stat.S_ISREG(entry.st_mode):
            self._file(name, entry, source, target)
        else:
            if stat.S_ISLNK(entry.st_mode):
                os.symlink(os.readlink(name, dir_fd=source), _PARTIAL, dir_fd=target)
            else:  # pipes, sockets, devices, and the whiteouts of overlay (devices with number 0)
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
                # in this order: chown removes capabilities, which are attributes, and writing sets the times
                _give_looks(entry, None, descriptor, times=False)
                _give_attributes(one, None, descriptor, None)
                _give_times(entry, None, descriptor)
            finally:
                os.close(descriptor)

    def _bytes(self, source: int, target: int, size: int) -> None:
        """Copies everything except holes, without passing it through our memory."""
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
                    return  # the file became shorter while it was read
                place += sent
                self.size += sent


@contextlib.contextmanager
def _reading(name: str, folder: int) -> Iterator[int]:
    # a container may replace the file by a pipe or a device: opening that must neither hang nor have an effect
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    descriptor = os.open(name, flags, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # replaced since its stat
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
    """Sets owner, mode and times of `name` in the folder `place`, or without a name of `place` itself."""
    if name is None:
        os.fchown(place, entry.st_uid, entry.st_gid)
        os.fchmod(place, stat.S_IMODE(entry.st_mode))
    else:
        os.chown(name, entry.st_uid, entry.st_gid, dir_fd=place, follow_symlinks=False)
        # Linux has no modes for links
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
    """Copies extended attributes; call after setting the owner, because a change of the owner drops capabilities."""
    wanted, there = _attributes(source, name), _attributes(target, copy)
    where = _place(target, copy)
    # remove attributes that the source does not have: an old one can make a layer invalid for overlayfs
    for key in there.keys() - wanted.keys():
        os.removexattr(where, key, follow_symlinks=copy is None)
    for key, value in wanted.items():
        if there.get(key) != value:
            try:
                os.setxattr(where, key, value, follow_symlinks=copy is None)
            except OSError as exc:
                # name the attribute, since overlayfs needs some that a file system may not support
                raise OSError(exc.errno, f"{exc.strerror} (attribute {key})", name) from exc


def _attributes(place: int, name: str | None) -> dict[str, bytes]:
    where, follow = _place(place, name), name is None
    try:
        keys = os.listxattr(where, follow_symlinks=follow)
    except OSError as exc:
        # a file system without extended attributes has none to copy
        if exc.errno == errno.ENOTSUP:
            return {}
        raise
    # attributes of the file system itself are made by the target and may not be writable
    return {
        key: os.getxattr(where, key, follow_symlinks=follow)
        for key in keys
        if not key.startswith(_OF_THE_FILE_SYSTEM)
    }


def _place(place: int, name: str | None) -> int | str:
    """The kernel takes attributes of an open file or of a path: this path leads through an open folder."""
    return place if name is None else f"/proc/self/fd/{place}/{name}"


def written(folder: Path) -> None:
    """Waits until everything written to that file system is on its disk. Raises OSError, also if an earlier write failed.

    Runs the program `sync`, because Python lacks syncfs(2); a BusyBox without `sync -f` waits for all disks.
    """
    done = subprocess.run(["sync", "-f", str(folder)], stderr=subprocess.PIPE, check=False)
    if done.returncode:
        raise OSError(
            errno.EIO, done.stderr.decode("utf-8", "replace").strip() or "it cannot be synced", str(folder)
        )


def unfit(folder: str) -> str:
    """Why Docker's data cannot be on the file system of that folder, "" if it can. Raises OSError."""
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
        # try each feature, because mount options, FUSE and network file systems decide too, not only the type
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
