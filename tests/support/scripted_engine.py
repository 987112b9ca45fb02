# SPDX-License-Identifier: GPL-2.0-or-later
"""An engine that only injects faults: it answers each connection with the bytes from a script, and counts requests."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

Script = Callable[[socket.socket, bytes], None]


class ScriptedEngine:
    """`script(connection, head)` runs for every request whose head was received; then the connection is closed.

    Listens on a unix socket at `path`, or without one on a port of 127.0.0.1, with `tls` if given.
    """

    def __init__(self, path: Path | None, script: Script, *, tls: ssl.SSLContext | None = None) -> None:
        self.heads: list[bytes] = []
        self.open = 0
        self._script = script
        self._tls = tls
        if path is not None:
            self.url = f"unix://{path}"
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(path))
        else:
            self._listener = socket.create_server(("127.0.0.1", 0))
            self.url = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._listener.listen(64)
        self._ends = False
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while not self._ends:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        self.open += 1
        with contextlib.ExitStack() as closed, contextlib.suppress(OSError):
            closed.enter_context(connection)
            if self._tls is not None:
                connection = closed.enter_context(self._tls.wrap_socket(connection, server_side=True))
            head = b""
            while b"\r\n\r\n" not in head:
                piece = connection.recv(65536)
                if not piece:
                    break
                head += piece
            if head:
                self.heads.append(head)
                self._script(connection, head)
        self.open -= 1

    def wait_closed(self, limit_s: float = 5) -> None:
        """Waits until no connection is open."""
        deadline = time.monotonic() + limit_s
        while self.open:
            assert time.monotonic() < deadline, "the request to the engine is still open"
            time.sleep(0.02)

    def close(self) -> None:
        self._ends = True
        self._listener.close()


def answer(data: bytes) -> Script:
    """Always sends these bytes, then closes."""

    def script(connection: socket.socket, head: bytes) -> None:
        del head
        connection.sendall(data)

    return script


def until_gone(data: bytes) -> Script:
    """Sends these bytes, then nothing until the client closes the connection."""

    def script(connection: socket.socket, head: bytes) -> None:
        del head
        connection.sendall(data)
        while connection.recv(65536):
            pass

    return script
