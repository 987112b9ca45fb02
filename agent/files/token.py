# SPDX-License-Identifier: GPL-2.0-or-later
"""Sessions without LuCI: one token in a file of root. Anyone who can read it is a writer.

Implements `agent.api.port.Sessions`.
"""

from __future__ import annotations

import hmac
import logging
import re
import secrets
from pathlib import Path

from agent.errors import BusError, PathError
from agent.files.atomic import atomic_write
from agent.files.user_paths import PATHS, file_bytes, file_stamp

logger = logging.getLogger(__name__)

_TOKEN = re.compile(r"[0-9a-f]{32}\n?")


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
