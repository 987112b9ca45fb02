# SPDX-License-Identifier: GPL-2.0-or-later
"""The committed UCI configuration: our own text store, and libuci through pyuci if that is installed.

Staged changes are neither applied nor lost: we read and write the files, and leave the save directory alone. A file
in the override directory takes precedence over the one in the config directory (libuci: file.c, UCI_CONF2DIR). Old
libuci does not know the override, so both stores choose the file themselves.

Both stores write files themselves: pyuci cannot set bytes that are not UTF-8 and does not report a failed commit, and
a commit by libuci would include what others have staged.

Only this module imports pyuci. Pitfalls of pyuci 0.10 (pyuci.c):
- A handle is never freed, so the process has only one.
- `with` on a handle releases one reference too many.
- A string that is not UTF-8 ends the interpreter if it is in a list.
- Sections are a dict by name without their types; of two with the same name only the last is in it.
- Errors do not say what is wrong.

It gets a file by an absolute path, which leads to a file in memory with exactly the bytes that our own parser gets.
With such a path libuci looks for neither staged changes nor an override (file.c, uci_file_load).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import os
import re
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from agent.errors import ConfigError, ConflictError, StorageError
from agent.files.atomic import atomic_write
from agent.uci.syntax import Option, Package, Section, UciSyntaxError, format_file, parse

if TYPE_CHECKING:
    from agent.uci.edit import UciChange

SIZE_LIMIT = 8 * 1024 * 1024  # bytes of a UCI file; the parser needs about forty times as much memory
_COMMIT_LIMIT_S = 2.0  # between the first byte of `uci commit`'s temporary file and its rename
_LOOK_AGAIN_S = 0.002
Values = dict[str, dict[str, str | tuple[str, ...]]]
"""section -> option -> value; a list is a tuple."""
_lock = threading.Lock()  # all threads share libuci's handle
_PACKAGE = re.compile(r"[A-Za-z0-9_-]+\Z")  # libuci: util.c, uci_validate_package


class UciMissing(ConfigError):
    """The package does not exist."""

    code = "uci-missing"


class UciUnwritable(ConfigError):
    """The value would read back differently from the text format."""

    code = "uci-unwritable"


class LibuciError(ConfigError):
    """libuci is not available, or reads the file differently from our own parser."""

    code = "libuci"


class UciStore(Protocol):
    """Port: reads and commits packages."""

    def load(self, package: str) -> Package:
        """Raises UciMissing, UciSyntaxError, ConfigError if the file cannot be read."""

    def load_with_hash(self, package: str) -> tuple[Package, str]:
        """Like `load`, with the hash of exactly the content that was read."""

    def source_path(self, package: str) -> Path:
        """The file that takes precedence."""

    def content_hash(self, package: str) -> str:
        """Hash of the file's bytes, "" without a file."""

    def commit(self, package: Package, *, expected: str | None = None) -> None:
        """Writes like `uci commit`. `expected`: the content hash that the file must still have, else ConflictError.

        Raises UciUnwritable, StorageError; then the file is unchanged.
        """


class TextUciStore:
    """A UciStore that uses only our own parser."""

    def __init__(
        self, *, config_dir: Path = Path("/etc/config"), override_dir: Path = Path("/var/run/uci")
    ) -> None:
        self._config_dir = config_dir
        self._override_dir = override_dir

    def source_path(self, package: str) -> Path:
        if not _PACKAGE.match(package):
            raise ConfigError(f"{package!r} is not a package name, expected letters, digits, _ and -")
        # like libuci: a file in /var/run/uci replaces the one in /etc/config
        override = self._override_dir / package
        return override if override.is_file() else self._config_dir / package

    def load(self, package: str) -> Package:
        return self.load_with_hash(package)[0]

    def load_with_hash(self, package: str) -> tuple[Package, str]:
        path = self.source_path(package)
        raw = _read(path)
        return self._parse(raw, package, path), _hash(raw)

    def _parse(self, raw: bytes, package: str, path: Path) -> Package:
        return parse(raw.decode("utf-8", "surrogateescape"), package=package, path=str(path))

    def content_hash(self, package: str) -> str:
        return _hash_of(self.source_path(package))

    def commit(self, package: Package, *, expected: str | None = None) -> None:
        path = self.source_path(package.name)
        data = _text(package)
        try:
            self._write(path, data, expected)
        # /etc may be read-only or full; the caller reports it
        except OSError as exc:
            full = exc.errno in {errno.ENOSPC, errno.EDQUOT}
            raise StorageError(f"{path} cannot be written: {exc.strerror}", full=full) from exc

    @staticmethod
    def _write(path: Path, data: bytes, expected: str | None) -> None:
        with _locked(path):
            found = _hash_of(path)
            # the file is not the one that the change was made for: the caller reads it and retries
            if expected is not None and found != expected:
                raise _changed(path)

            def still_as_found() -> None:
                if _is_being_committed(path) or _hash_of(path) != found:
                    raise _changed(path)

            atomic_write(path, data, last_check=still_as_found)
            # `uci` may have created its temporary file before our rename: its rename then came last, and our change is lost
            if _wait_for_commit(path) and _hash_of(path) != _hash(data):
                raise _changed(path)


class PyuciStore(TextUciStore):
    """A UciStore whose values come from libuci; positions, types and errors come from our own parser.

    Both parse the same bytes. Raises LibuciError if they see different sections, because neither can be trusted then.
    """

    def _parse(self, raw: bytes, package: str, path: Path) -> Package:
        ours = super()._parse(raw, package, path)
        try:
            # compare the parsers: a file that they read differently would be applied by one and shown by the other
            values = read_with_libuci(raw)
            places = {section.name: number for number, section in enumerate(ours.sections)}
            if places.keys() != values.keys():
                names = ", ".join(sorted(places.keys() ^ values.keys()))
                raise LibuciError(f"libuci and ucidockd do not see the same sections: {names}")
            return replace(
                ours,
                sections=tuple(
                    # a name may occur twice, once given and once generated: libuci returns only the last one's values
                    replace(
                        section,
                        options=tuple(_option(section, *each) for each in values[section.name].items()),
                    )
                    if places[section.name] == number
                    else section
                    for number, section in enumerate(ours.sections)
                ),
            )
        except LibuciError as exc:
            raise LibuciError(f"{path}: {exc}") from exc


def _option(section: Section, name: str, value: str | tuple[str, ...]) -> Option:
    ours = section.get(name)
    count = 1 if isinstance(value, str) else len(value)
    lines = ours.lines if ours is not None and len(ours.lines) == count else (section.line,) * count
    overwritten = ours.overwritten if ours is not None else ()
    return Option(name=name, value=value, lines=lines, overwritten=overwritten)


def read_staged(save_dir: Path, package: str) -> tuple[UciChange, ...]:
    """The changes that `uci changes PACKAGE` shows, from libuci's save directory. Raises ConfigError if it
    cannot be read.
    """
    try:
        raw = _read(save_dir / package)
    except UciMissing:
        return ()
    from agent.uci.edit import parse_delta

    return parse_delta(raw.decode("utf-8", "surrogateescape"), package=package)


def _hash(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def _hash_of(path: Path) -> str:
    try:
        return _hash(_read(path))
    except UciMissing:
        return ""


def _read(path: Path) -> bytes:
    """The whole file. Like libuci it accepts only a regular file; opening another kind does not block."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            found = os.fstat(file.fileno())
            # reading a pipe or a device might never end
            if stat.S_ISREG(found.st_mode):
                data = file.read(SIZE_LIMIT + 1) if found.st_size <= SIZE_LIMIT else b""
                if found.st_size > SIZE_LIMIT or len(data) > SIZE_LIMIT:
                    raise ConfigError(f"{path} is larger than {SIZE_LIMIT // 1024**2} MiB")
                return data
    except OSError as exc:
        if exc.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise ConfigError(f"{path} cannot be read: {exc.strerror}") from exc
    raise UciMissing(f"there is no {path}")


def load_for_edit(store: UciStore, package: str) -> tuple[Package, str]:
    """Like `load_with_hash`, before a write. Raises UciMissing, and ConfigError that says what to correct first."""
    try:
        return store.load_with_hash(package)
    except UciSyntaxError as exc:
        raise ConfigError(
            f"{exc.path or package} is not a valid UCI file, so nothing can be written to it: {exc}; `ucidockd check`"
            " shows what to correct first"
        ) from exc


def read_text(path: Path) -> str:
    """The text of a UCI file at any path. Raises UciMissing, ConfigError."""
    return _read(path).decode("utf-8", "surrogateescape")


def _text(package: Package) -> bytes:
    """The bytes to write. Raises UciUnwritable if they would be read differently (util.c does not quote types)."""
    try:
        text = format_file(package)
        data = text.encode("utf-8", "surrogateescape")
        # read it back before writing: a file with another meaning would be worse than none
        if _shape(parse(text, package=package.name)) == _shape(package):
            return data
        wrong = "it would be read as something else"
    except (UciSyntaxError, UnicodeEncodeError) as exc:
        wrong = str(exc)
    raise UciUnwritable(f"{package.name} cannot be written in UCI's syntax: {wrong}")


def _shape(package: Package) -> list[object]:
    """What a file preserves: no line numbers, and no generated names."""
    return [
        (
            section.type,
            None if section.anonymous else section.name,
            [(o.name, o.value) for o in section.options],
        )
        for section in package.sections
    ]


def _changed(path: Path) -> ConflictError:
    return ConflictError(f"{path} was changed by another program in the meantime")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Takes the lock that `uci commit` takes (file.c). If the file does not exist yet, locks its directory, which
    only our own processes respect.

    The lock does not exclude a process that opened the file before its last replacement: `uci` then holds the lock of
    the old file. And `uci` releases the lock before it renames. So its temporary file is checked too, before and
    after our rename.
    """
    while True:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            descriptor = os.open(path.resolve().parent, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
        try:
            # while we waited, a rename may have replaced the file that we locked
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not _wait_for_commit(path) and _still_there(descriptor, path):
                yield
                return
        finally:
            os.close(descriptor)


def _is_being_committed(path: Path) -> bool:
    """Whether `uci commit` is about to rename. An old temporary file was left by a crash and does not count."""
    for file in path.parent.glob(f".{path.name}.uci-??????"):
        with contextlib.suppress(FileNotFoundError):  # it was renamed just now
            if abs(time.time() - file.stat().st_mtime) < _COMMIT_LIMIT_S:
                return True
    return False


def _wait_for_commit(path: Path) -> bool:
    """Waits until a running commit has ended; returns whether there was one."""
    waited = False
    while _is_being_committed(path):
        waited = True
        time.sleep(_LOOK_AGAIN_S)
    return waited


def _still_there(descriptor: int, path: Path) -> bool:
    """False if the file was replaced while we waited for the lock."""
    held = os.fstat(descriptor)
    try:
        return os.path.samestat(held, path.stat())
    except FileNotFoundError:
        return stat.S_ISDIR(held.st_mode)


@functools.cache
def _pyuci() -> tuple[Any, type[Exception]]:
    """The handle, and the exception that it raises."""
    try:
        import uci
    except ImportError as exc:
        raise LibuciError(f"pyuci does not load: {exc}") from exc
    return uci.Uci(), uci.UciException


def read_with_libuci(raw: bytes) -> Values:
    """The values in a file's bytes; bytes that are not UTF-8 become surrogates. Raises LibuciError."""
    handle, refusal = _pyuci()
    # one character per byte: the syntax is ASCII, other bytes only pass through, and pyuci accepts the result as UTF-8
    file = os.memfd_create("uci", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(file), "wb") as writer:
            writer.write(raw.decode("latin-1").encode())
        with _lock:
            handle.__init__()  # a new context in the old handle
            try:
                found = handle.get_all(f"/proc/self/fd/{file}")
            finally:
                handle.__exit__()
    except refusal as exc:
        raise LibuciError(f"libuci refuses the file ({type(exc).__name__})") from exc
    finally:
        os.close(file)
    return {
        section: {
            name: _bytes_again(value) if isinstance(value, str) else tuple(map(_bytes_again, value))
            for name, value in options.items()
        }
        for section, options in found.items()
    }


def _bytes_again(text: str) -> str:
    return text if text.isascii() else text.encode("latin-1").decode("utf-8", "surrogateescape")
