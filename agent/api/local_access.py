# SPDX-License-Identifier: GPL-2.0-or-later
"""How root of this machine comes in: by the control socket, and without LuCI by one token in a file.

The socket has mode 0600 and is bound by us, since uvicorn's own would be 0666. Anyone who can read the token's file is a
writer; `TokenFile` implements `agent.api.port.Sessions`.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import os
import re
import secrets
import socket
import stat
import struct
from pathlib import Path

from agent.engine.process import process_of
from agent.errors import BusError, ConfigError, PathError
from agent.files.atomic import atomic_write
from agent.files.user_paths import PATHS, file_bytes, file_stamp

BACKLOG = 64  # asyncio takes up to so many at once before a door can turn any away

logger = logging.getLogger(__name__)

_TOKEN = re.compile(r"[0-9a-f]{32}\n?")


def bind(path: Path) -> socket.socket:
    """A listening unix socket of mode 0600 in a directory of mode 0700. Takes a dead agent's place, no live one's."""
    # In a directory that another user owns, that user could put a socket of their own in our place.
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.parent.stat().st_uid != os.geteuid():
        raise ConfigError(f"{path.parent} belongs to another user; remove it")
    with contextlib.suppress(FileNotFoundError):
        _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The mode is right from the first moment: a chmod after bind would leave time to connect.
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
        # A killed process may hang in the kernel, on a dead mount, and its sockets with it (unix(7), SO_PEERCRED).
        pid, _, _ = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if pid and process_of(pid) is None:
            path.unlink()
            return
    raise ConfigError(f"another process is already listening on {path}")


class TokenFile:
    """The token at `path`, made at first use. One that others could read is replaced."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def allowed(self, session: str, object: str, method: str) -> bool:  # noqa: A002 - ubus's word
        """Whether `session` is the token. Raises BusError when the file can be neither read nor made."""
        del object, method
        return hmac.compare_digest(session.encode(), self.token().encode())

    def token(self) -> str:
        """The token: 32 hexadecimal digits. Raises BusError."""
        try:
            return self._read() or self._make()
        except (OSError, PathError) as exc:
            raise BusError(f"the token file {self._path} cannot be used: {exc}") from exc

    def _read(self) -> str:
        if not self._path.exists():
            return ""
        stamp = PATHS.ask(file_stamp, str(self._path))
        text = PATHS.ask(file_bytes, str(self._path)).decode("ascii", "replace")
        # who could read it once may still know it
        if stamp.mode & 0o077:
            logger.warning("%s could be read by others, and is replaced", self._path)
            return ""
        if not _TOKEN.fullmatch(text):
            logger.warning("%s holds no token, and is replaced", self._path)
            return ""
        return text.strip()

    def _make(self) -> str:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        token = secrets.token_hex(16)
        atomic_write(self._path, f"{token}\n".encode(), mode=0o600)
        return token
