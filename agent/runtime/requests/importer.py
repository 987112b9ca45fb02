# SPDX-License-Identifier: GPL-2.0-or-later
"""Imports into /etc/config/containers: `agent.convert` decides what to write, here it is committed. Blocking."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.convert.conversion import PACKAGE
from agent.convert.requests import ImportRequest, convert
from agent.errors import ConfigError, ConflictError
from agent.files.atomic import atomic_write
from agent.files.uci_store import UciMissing, UciStore, load_for_edit
from agent.files.user_paths import PATHS, file_bytes, mode_of
from agent.runtime.requests.adopt import lost_comments
from agent.uci.decode import PACKAGES
from agent.uci.syntax import Package

_TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Importer:
    """What importing works on. `files`: the folder that stands for `/`, for tests."""

    store: UciStore
    read_compose: Callable[[str], str] | None = None
    files: Path = Path("/")

    def run(self, request: ImportRequest) -> dict[str, Any]:
        """The sections with a report, and whether they were committed.

        Raises ConfigError, ConflictError (others wrote the file each time we tried), OSError.
        """
        # Others may write the file between our reading and our commit: what was decided is then decided again, beside
        # what they wrote.
        for left in reversed(range(_TRIES)):
            packages, content_hash = self._packages()
            imported = convert(request, packages, read_file=PATHS.read_text, read_compose=self.read_compose)
            if not request.commit:
                break
            imported.answer["warnings"] += lost_comments(self.store, PACKAGE)
            # before the sections that name them. A file that is there is never overwritten.
            for name, content in imported.files.items():
                path = self.files / name.lstrip("/")
                data = content.encode()
                if PATHS.ask(mode_of, str(path)) is not None:
                    if PATHS.ask(file_bytes, str(path)) != data:
                        raise ConfigError(f"{name} is there already with another content; move it away first")
                    continue
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                atomic_write(path, data, mode=0o600)
            package = packages[PACKAGE]
            try:
                whole = replace(package, sections=(*package.sections, *imported.sections))
                self.store.commit(whole, expected=content_hash)
                break
            except ConflictError:
                if not left:
                    raise
        return {**imported.answer, "committed": request.commit}

    def _packages(self) -> tuple[dict[str, Package], str]:
        packages = {PACKAGE: Package(name=PACKAGE)}
        content_hash = ""
        for name in PACKAGES:
            try:
                packages[name], found = load_for_edit(self.store, name)
            except UciMissing:
                continue
            # Only this package is written; the others are read for what their sections mean.
            content_hash = found if name == PACKAGE else content_hash
        return packages, content_hash
