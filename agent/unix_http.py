# SPDX-License-Identifier: GPL-2.0-or-later
"""HTTP on a unix socket with the standard library only: `ucidockd status` has to start quickly, and dockerd is asked
many times a second while it starts. (Importing anything from `agent.engine` loads docker-py.)
"""

from __future__ import annotations

import http.client
import socket


class UnixConnection(http.client.HTTPConnection):
    """`timeout_s` None means no timeout."""

    def __init__(self, path: str, timeout_s: float | None = None) -> None:
        super().__init__("localhost")
        self._path, self._timeout_s = path, timeout_s

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self._timeout_s)
        self.sock.connect(self._path)
