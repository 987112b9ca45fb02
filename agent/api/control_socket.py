# SPDX-License-Identifier: GPL-2.0-or-later
"""The control socket: root's, mode 0600, bound by us since uvicorn's own would be 0666. `server` serves on it."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path

from agent.errors import ConfigError

BACKLOG = 64  # asyncio takes up to so many at once before a door can turn any away


def bind(path: Path) -> socket.socket:
    """A listening unix socket of mode 0600 in a directory of mode 0700. Takes a dead agent's place, no live one's."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.parent.stat().st_uid != os.geteuid():
        raise ConfigError(f"{path.parent} belongs to another user; remove it")
    with contextlib.suppress(FileNotFoundError):
        _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(mask)
    listener.listen(BACKLOG)
    return listener


def _remove_stale(path: Path) -> None:
    found = path.lstat()
    if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid():
        raise ConfigError(f"{path} is not a socket of ours; remove it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise ConfigError(f"another process is already listening on {path}")
