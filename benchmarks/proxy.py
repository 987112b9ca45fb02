# SPDX-License-Identifier: GPL-2.0-or-later
"""A proxy in front of the engine's unix socket that records every request with its time."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path

# a client waits for the answer before its next request, so a request is always at the start of what is read
_REQUEST = re.compile(rb"(GET|POST|PUT|DELETE|HEAD) (\S+) HTTP/1\.1\r\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """`at` is monotonic, in seconds."""

    at: float
    method: str
    path: str


class Recorder:
    """`with Recorder(path, engine) as recorder:`; requests are added to `recorder.calls`."""

    def __init__(self, path: Path, engine: Path) -> None:
        self.host = f"unix://{path}"
        self.calls: list[Call] = []
        self._engine = str(engine)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(64)

    def __enter__(self) -> Recorder:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.close()

    def after(self, moment: float) -> list[Call]:
        """The calls since that time, without those that open an event stream."""
        return [call for call in list(self.calls) if call.at >= moment and "/events" not in call.path]

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            engine = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            engine.connect(self._engine)
            threading.Thread(target=self._pump, args=(client, engine, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(engine, client, False), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, note: bool) -> None:  # noqa: FBT001 - a thread's argument
        with contextlib.suppress(OSError):  # either side may close at any time
            while data := source.recv(65536):
                found = _REQUEST.match(data) if note else None
                if found:
                    method, path = found.group(1).decode(), found.group(2).decode()
                    self.calls.append(Call(at=time.monotonic(), method=method, path=path))
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
