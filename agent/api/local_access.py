# SPDX-License-Identifier: GPL-2.0-or-later
"""How root on this machine gets access: by the control socket and, without LuCI, by a token in a file.

The socket has mode 0600. We bind it, since uvicorn would create it with 0666. Anyone who can read the token's file is
a writer; `TokenFile` implements `agent.api.port.Sessions`.
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

BACKLOG = 64  # asyncio accepts up to this many connections at once, before any of them can be refused

logger = logging.getLogger(__name__)

_TOKEN = re.compile(r"[0-9a-f]{32}\n?")  # the form of a session of rpcd, so that clients need no second one


def bind(path: Path) -> socket.socket:
    """A listening unix socket of mode 0600 in a directory of mode 0700. It replaces the socket of a dead agent, but
    not of a running one. Raises ConfigError.
    """
    # In a directory that another user owns, that user could put a socket of their own in our place.
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.parent.stat().st_uid != os.geteuid():
        raise ConfigError(f"{path.parent} belongs to another user; remove it")
    with contextlib.suppress(FileNotFoundError):
        _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Set the mode by umask: a chmod after bind would leave a moment in which others can connect.
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
        # A killed process can hang in the kernel on a dead mount and keep its sockets open (unix(7), SO_PEERCRED).
        pid, _, _ = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if pid and process_of(pid) is None:
            path.unlink()
            return
    raise ConfigError(f"another process is already listening on {path}")


class TokenFile:
    """The token at `path`, created at first use. A token file that others can read is replaced."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def allowed(self, session: str, object: str, method: str) -> bool:  # noqa: A002 - ubus's word
        """Whether `session` is the token. Raises BusError if the file can be neither read nor created."""
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
        # someone who could read the file may already know the token
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
