# SPDX-License-Identifier: GPL-2.0-or-later
"""The only module that looks at paths and reads files that users name: binds, mounts, devices, env files, certificates.

Such a path may be too long, forbidden, on a dead sshfs, or on a mount that does not answer (NFS, CIFS, FUSE, a sleeping
disk). A system call on it can then block for ever, and no signal ends it. So separate threads make these calls, with a
deadline. A mount that misses the deadline is remembered, and everything on it fails at once until the hanging call
returns. The mount is found by following the path one component at a time, because a link may lead anywhere.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import re
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar

from agent.errors import PathAwayError, PathError

logger = logging.getLogger(__name__)

DEADLINE_S = 2.0  # for one question
FILE_LIMIT = 1024 * 1024  # bytes of a file that a section names
_LINKS = 40  # the kernel's limit (path_resolution(7))
_MOUNTINFO = Path("/proc/self/mountinfo")
_ESCAPE = re.compile(r"\\([0-7]{3})")  # how mountinfo writes spaces and the like (proc(5))
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR})  # errors that mean "not there", and not "not known"

Value = TypeVar("Value")
Question = tuple[Callable[[str], Any], str]


# questions: functions that take a path, may block, and raise OSError


def mode_of(path: str) -> int | None:
    """`st_mode` with links followed; None if nothing exists."""
    try:
        return os.stat(path).st_mode
    except OSError as exc:
        if exc.errno in _ABSENT:
            return None
        raise


def no_folder(path: str) -> str:
    """`/a/b is a file, not a folder`, about the path or one of its parents; "" if it is a folder, or can become one."""
    here = path
    while (mode := mode_of(here)) is None and here != os.path.dirname(here):
        here = os.path.dirname(here)
    return "" if mode is None or stat.S_ISDIR(mode) else f"{here} is {kind_of(mode)}, not a folder"


def kind_of(mode: int) -> str:
    """The kind of file in words, for messages."""
    return _KINDS.get(stat.S_IFMT(mode), "of an unknown kind")


_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a block device",
    stat.S_IFCHR: "a character device",
}


def is_mounted(path: str) -> bool:
    """Whether something is mounted on that directory."""
    return mode_of(path) is not None and os.path.ismount(path)


def is_read_only(path: str) -> bool:
    """Whether the file system of a path, or of its nearest existing parent, is read-only."""
    here = path
    while mode_of(here) is None and here != os.path.dirname(here):
        here = os.path.dirname(here)
    return bool(os.statvfs(here).f_flag & os.ST_RDONLY)


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes on a file system: free for unprivileged users, and total."""

    free: int
    total: int


def space_of(path: str) -> Space:
    """The space on the file system of a path."""
    found = os.statvfs(path)
    return Space(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)


def real_path(path: str) -> str:
    """The path with all links resolved."""
    return os.path.realpath(path)


def file_bytes(path: str) -> bytes:
    """The content of a regular file of at most FILE_LIMIT bytes. Never waits for the writer of a FIFO."""
    with _named(path), _opened(path) as file:
        data: bytes = file.read(FILE_LIMIT + 1)
    if len(data) > FILE_LIMIT:
        raise _too_large(path)
    return data


@dataclass(frozen=True, slots=True)
class Stamp:
    """Values that change when a file is written again."""

    mode: int
    written_ns: int
    inode: int
    size: int


def file_stamp(path: str) -> Stamp:
    """The stamp of a file that `file_bytes` would read."""
    with _named(path):
        found = os.stat(path)
    _check_regular(path, found.st_mode)
    if found.st_size > FILE_LIMIT:
        raise _too_large(path)
    return Stamp(found.st_mode, found.st_mtime_ns, found.st_ino, found.st_size)


@contextmanager
def _named(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise PathAwayError(f"{path} cannot be read: {exc.strerror or exc}") from exc


def _too_large(path: str) -> PathError:
    return PathError(f"{path} is larger than {FILE_LIMIT // 1024**2} MiB")


def _check_regular(path: str, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise PathError(f"{path} is {kind_of(mode)}, not a regular file")


def _opened(path: str) -> BinaryIO:
    """Opens a regular file. Checks before opening, because opening a device can have an effect."""
    _check_regular(path, os.stat(path).st_mode)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    file = os.fdopen(descriptor, "rb")
    try:
        _check_regular(path, os.fstat(descriptor).st_mode)  # it may have been replaced in between
    except PathError:
        file.close()
        raise
    return file


@dataclass(slots=True)
class View:
    """Answers as of one moment: a question is asked only once."""

    _paths: UserPaths
    _answers: dict[Question, Any] = field(default_factory=dict)

    def __call__(self, question: Callable[[str], Value], path: str) -> Value:
        """The answer. Raises PathError with a reason for people."""
        key: Question = (question, path)
        # a question that was not in the batch is asked alone, which takes another thread
        if key not in self._answers:
            self._answers.update(self._paths.answers([key]))
        answer = self._answers[key]
        if isinstance(answer, PathError):
            raise answer
        found: Value = answer
        return found


class UserPaths:
    """`woken` is called, in any thread, when a mount answers again."""

    def __init__(self, *, deadline_s: float = DEADLINE_S, woken: Callable[[], None] = lambda: None) -> None:
        self._deadline_s = deadline_s
        self._woken = woken
        self._lock = threading.Lock()
        self._hung: dict[str, _Walk] = {}  # mount point -> the thread that hangs in it
        self._stuck: dict[Question, _Batch] = {}  # questions that hang although their mount answers

    def wake_by(self, woken: Callable[[], None]) -> None:
        """Sets `woken` later: the process's only instance is used before its event loop exists."""
        self._woken = woken

    def view(self, questions: Iterable[Question] = ()) -> View:
        """Asks all questions in one thread."""
        return View(self, self.answers(dict.fromkeys(questions)))

    def ask(self, question: Callable[[str], Value], path: str) -> Value:
        """Asks one question. Blocks for little longer than the deadline. Raises PathError."""
        return self.view()(question, path)

    def read_text(self, path: str) -> str:
        """The text of a UTF-8 file. Raises PathError."""
        try:
            return self.ask(file_bytes, path).decode("utf-8-sig")
        except UnicodeDecodeError as exc:
            raise PathError(f"{path} is not UTF-8 text (byte {exc.start})") from exc

    def real(self, path: str) -> str:
        """The path with links resolved; unchanged if that is not possible."""
        try:
            return self.ask(real_path, path)
        except PathError:
            return path

    def hung(self) -> tuple[str, ...]:
        """The mount points that do not answer."""
        with self._lock:
            return tuple(sorted(self._hung))

    def answers(self, questions: Iterable[Question]) -> dict[Question, Any]:
        """The answer to each question, or a PathError."""
        with self._lock:
            # do not ask again what hung before: each question would cost another thread
            stuck = frozenset(self._stuck)
        found: dict[Question, Any] = {}
        todo = []
        for question in questions:
            if question in stuck:
                found[question] = _late(question)
            else:
                todo.append(question)
        while todo:
            batch = _Batch(todo, self.hung(), self._batch_returned)
            batch.start()
            # the deadline applies to one question: a batch that progresses may take longer
            while not batch.done.wait(self._deadline_s):
                if not batch.progressed():
                    break
            found.update(batch.leave())
            todo = [question for question in todo if question not in found]
            if todo:
                # the thread hangs in the first unanswered question
                question = todo.pop(0)
                found[question] = self._blame(question, batch)
        return found

    def _blame(self, question: Question, batch: _Batch) -> PathError:
        """Finds the mount on the way to a path that hangs, and remembers it; otherwise remembers the question itself."""
        # in another thread, because the walk hangs where the question hangs
        walk = _Walk(question[1], self._walk_returned)
        walk.start()
        walk.join(self._deadline_s)
        with self._lock:
            mount = "" if walk.returned else walk.at
            if mount:
                self._hung[mount] = walk
            elif not batch.returned:
                self._stuck[question] = batch
        # slow, not dead
        if not mount and batch.returned:
            self._woken()  # it has just answered
        else:
            logger.warning("%s does not answer; what needs it waits", mount or question[1])
        return _silent(mount) if mount else _late(question)

    def _walk_returned(self, walk: _Walk) -> None:
        with self._lock:
            walk.returned = True
            mounts = [mount for mount, known in self._hung.items() if known is walk]
            for mount in mounts:
                del self._hung[mount]
        if mounts:
            logger.info("%s answers again", mounts[0])
            self._woken()

    def _batch_returned(self, batch: _Batch) -> None:
        with self._lock:
            batch.returned = True
            questions = [question for question, known in self._stuck.items() if known is batch]
            for question in questions:
                del self._stuck[question]
        if questions:
            self._woken()


def _silent(mount: str) -> PathError:
    return PathAwayError(f"{mount} does not answer")


def _late(question: Question) -> PathError:
    return PathAwayError(f"{question[1]} does not answer")


class _Batch(threading.Thread):
    """A thread that answers questions one after the other. If one hangs, only this thread is lost."""

    def __init__(
        self, questions: list[Question], hung: tuple[str, ...], returned: Callable[[_Batch], None]
    ) -> None:
        super().__init__(name="paths", daemon=True)
        self._on_return, self.returned = returned, False
        self.done = threading.Event()  # every question is answered
        self._questions = questions
        self._hung = frozenset(hung)
        # read while the thread still adds to it: one item at a time, which needs no lock
        self._answers: dict[Question, Any] = {}
        self._left = False  # the caller no longer waits
        self._seen = 0  # answers at the last call of `progressed`

    def run(self) -> None:
        for question in self._questions:
            self._answers[question] = self._answer(*question)
            if self._left:
                self._on_return(self)
                return
        self.done.set()

    def progressed(self) -> bool:
        """Whether a question was answered since the last call."""
        before, self._seen = self._seen, len(self._answers)
        return self._seen > before

    def leave(self) -> dict[Question, Any]:
        """The answers so far; later ones are dropped."""
        self._left = True
        return dict(self._answers.copy())

    def _answer(self, question: Callable[[str], Any], path: str) -> Any:
        try:
            if self._hung:
                for mount in mounts_on_the_way(path):
                    if mount in self._hung:
                        return _silent(mount)
            return question(path)
        except PathError as exc:
            return exc
        except OSError as exc:
            return PathAwayError(f"{path}: {exc.strerror or exc}")
        except ValueError as exc:  # a NUL
            return PathError(f"{path!r}: {exc}")


class _Walk(threading.Thread):
    """A thread that follows a path until it hangs: on the mount `at`."""

    def __init__(self, path: str, returned: Callable[[_Walk], None]) -> None:
        super().__init__(name="paths", daemon=True)
        self.at, self.returned = "/", False
        self._path, self._on_return = path, returned

    def run(self) -> None:
        try:
            for mount in mounts_on_the_way(self._path, to_the_end=True):
                self.at = mount
        except (OSError, ValueError):
            pass  # the path answers, which is all that matters
        self._on_return(self)


def mounts_on_the_way(path: str, *, to_the_end: bool = False) -> Iterator[str]:
    """Yields the mount of each component of a path (with links followed), before that component is accessed.

    `to_the_end`: the last component is accessed too, by `stat` and `statvfs`. Raises OSError.
    """
    # the mount points of this mount namespace (proc(5), mountinfo, the fifth field)
    lines = _MOUNTINFO.read_text(errors="surrogateescape").splitlines()
    fields = (line.split(" ", 5) for line in lines)
    points = frozenset(_unescaped(field[4]) for field in fields if len(field) > 4)
    here, links = "/", 0
    parts = _parts(path)
    while parts:
        name = parts.pop(0)
        if name == "..":
            here = os.path.dirname(here)
            continue
        wanted = os.path.join(here, name)
        yield _mount_of(wanted, points)
        if not stat.S_ISLNK(os.lstat(wanted).st_mode):
            here = wanted
            continue
        links += 1
        if links > _LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = os.readlink(wanted)
        parts = _parts(target) + parts
        if target.startswith("/"):
            here = "/"
    yield _mount_of(here, points)
    if to_the_end:
        os.stat(here)
        os.statvfs(here)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _mount_of(path: str, points: frozenset[str]) -> str:
    while path not in points and path != "/":
        path = os.path.dirname(path)
    return path


@functools.lru_cache(maxsize=256)
def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8)), text)


PATHS = UserPaths()
"""The process's only instance, because the mounts that hang are the same for all callers."""


# The file system that a path is on: proc_pid_mountinfo(5).


def file_system_of(path: str, mounts: Path = _MOUNTINFO) -> str:
    """The type of the file system, such as ext4 or overlay, with links followed; "" if it cannot be determined. The
    path need not exist.
    """
    try:
        real = PurePosixPath(PATHS.ask(real_path, path))
    except PathError:
        return ""
    found, depth = "", -1
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    for line in lines:
        mount, _, system = line.partition(" - ")
        point = PurePosixPath(_unescaped(mount.split()[4]))
        # of two mounts on the same point the later one hides the earlier one
        if len(point.parts) >= depth and real.is_relative_to(point):
            found, depth = system.split()[0], len(point.parts)
    return found
