# SPDX-License-Identifier: GPL-2.0-or-later
"""The committed UCI configuration: our own text store, and libuci through pyuci where that is installed.

Staged changes never count: we read files, and libuci gets an empty save directory of its own. A file in the override
directory wins over the one in the config directory (libuci: file.c, UCI_CONF2DIR); old libuci does not know it, so
the choice is ours on both.
"""

from __future__ import annotations

import fcntl
import hashlib
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from agent.clients.files import atomic_write
from agent.errors import ConfigError, ConflictError
from agent.uci.syntax import Option, Package, Section, format_file, parse


class UciMissing(ConfigError):
    """There is no such package."""

    code = "uci-missing"


class UciStore(Protocol):
    """Port: reads and commits packages."""

    def load(self, package: str) -> Package:
        """Raises UciMissing, UciSyntaxError, OSError."""

    def source_path(self, package: str) -> Path:
        """The file that counts."""

    def content_hash(self, package: str) -> str:
        """Hash of the file's bytes, "" when there is none."""

    def commit(self, package: Package, *, expected: str | None = None) -> None:
        """Writes as `uci commit` does. `expected`: the content hash it must still have, else ConflictError."""


class TextUciStore:
    """UciStore on the text syntax alone."""

    def __init__(
        self, *, config_dir: Path = Path("/etc/config"), override_dir: Path = Path("/var/run/uci")
    ) -> None:
        self._config_dir = config_dir
        self._override_dir = override_dir

    def source_path(self, package: str) -> Path:
        override = self._override_dir / package
        return override if override.is_file() else self._config_dir / package

    def load(self, package: str) -> Package:
        path = self.source_path(package)
        return parse(self._text(path), package=package, path=str(path))

    def _text(self, path: Path) -> str:
        try:
            return path.read_bytes().decode("utf-8", "surrogateescape")
        except FileNotFoundError as exc:
            raise UciMissing(f"there is no {path}") from exc

    def content_hash(self, package: str) -> str:
        try:
            return hashlib.sha256(self.source_path(package).read_bytes()).hexdigest()
        except FileNotFoundError:
            return ""

    def commit(self, package: Package, *, expected: str | None = None) -> None:
        path = self.source_path(package.name)
        with path.open("a+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if expected is not None and self.content_hash(package.name) != expected:
                raise ConflictError(f"{path} was changed by somebody else in the meantime")
            atomic_write(path, format_file(package).encode("utf-8", "surrogateescape"))


class PyuciStore(TextUciStore):
    """UciStore whose values come from libuci; line numbers come from our own parser on the same file."""

    def load(self, package: str) -> Package:
        ours = super().load(package)  # positions, and errors that name the line: pyuci's carry none
        import uci

        with tempfile.TemporaryDirectory(prefix="ucidockd-save-") as save:
            handle = uci.Uci(confdir=str(self.source_path(package).parent), savedir=save)
            values: dict[str, dict[str, Any]] = handle.get_all(package)
        return replace(
            ours, sections=tuple(_merge(section, values[section.name]) for section in ours.sections)
        )


def _merge(section: Section, values: dict[str, Any]) -> Section:
    options = tuple(
        Option(name=option.name, value=values[option.name], lines=option.lines) for option in section.options
    )
    return replace(section, options=options)
