# SPDX-License-Identifier: GPL-2.0-or-later
"""A proxy in front of the engine's unix socket that makes calls fail in realistic ways.

Each request gets its own connection to the engine, and `rule` decides its fate.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from agent.wire.http_head import ChunkDecoder


class Fault(Enum):
    """The fate of a call."""

    ERROR_500 = 500  # refused; the engine never receives it
    ERROR_409 = 409
    ERROR_404 = 404
    LOST_REQUEST = "lost request"  # the connection breaks before the engine receives the request
    LOST_REPLY = "lost reply"  # the engine carries it out, but the answer never arrives
    CUT_REPLY = "cut reply"  # half of the answer arrives, or `keep` bytes of its body
    SHORT_LIST = "short list"  # the first object is missing; of networks the first that is not predefined
    FORGED = "forged"  # the engine never receives it; the answer is `forged`, which ends at `release`
    EMPTY_LIST = "empty list"
    HANG = "hang"  # nothing arrives until `release`
    STALL = "stall"  # the head and a part of the body arrive, then nothing until `release`


@dataclass(frozen=True)
class Call:
    """`number` counts from 1 since the last `reset`."""

    number: int
    method: str
    path: str
    at: float  # monotonic, seconds

    @property
    def changes(self) -> bool:
        return self.method != "GET"


class FaultProxy:
    """`with FaultProxy(path, engine) as proxy:`; clients connect to `proxy.host`."""

    def __init__(self, path: Path, engine: Path) -> None:
        self.host = f"unix://{path}"
        self.calls: list[Call] = []
        self.rule: Callable[[Call], Fault | None] = lambda call: None
        self.hit = threading.Event()
        self.release = threading.Event()
        self.keep: int | None = None
        self.forged = b""
        self._engine = str(engine)
        self._lock = threading.Lock()
        self._clients: set[socket.socket] = set()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)

    def __enter__(self) -> FaultProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.release.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def reset(self, rule: Callable[[Call], Fault | None] = lambda call: None) -> None:
        """Restarts the count, with a new rule."""
        with self._lock:
            self.calls, self.rule = [], rule
            self.hit.clear()
            self.release.clear()

    def close_streams(self) -> None:
        """Breaks all open connections."""
        for client in list(self._clients):
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._clients.add(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            self._serve_one(client)
        finally:
            self._clients.discard(client)

    def _serve_one(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):  # either side may close at any time
            request = _read_request(client)
            if not request:
                return
            method, path = request.split(b" ", 2)[:2]
            with self._lock:
                call = Call(len(self.calls) + 1, method.decode(), path.decode(), time.monotonic())
                self.calls.append(call)
                fault = self.rule(call)
            if fault is not None:
                self.hit.set()
            self._answer(client, request, fault)

    def _answer(self, client: socket.socket, request: bytes, fault: Fault | None) -> None:
        if fault is Fault.HANG:
            self.release.wait()
        if fault in {Fault.HANG, Fault.LOST_REQUEST}:
            return
        if fault is Fault.EMPTY_LIST:
            client.sendall(_reply(200, b"[]"))
        elif fault is Fault.FORGED:
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n")
            client.sendall(self.forged)
            self.release.wait()
        elif fault is not None and isinstance(fault.value, int):
            client.sendall(_reply(fault.value, json.dumps({"message": f"injected {fault.value}"}).encode()))
        else:
            self._pass_on(client, request, fault)

    def _pass_on(self, client: socket.socket, request: bytes, fault: Fault | None) -> None:
        with socket.socket(socket.AF_UNIX) as engine:
            engine.connect(self._engine)
            engine.sendall(request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            if fault is None:
                while data := engine.recv(65536):
                    client.sendall(data)
                return
            whole = b""
            while data := engine.recv(65536):
                whole += data
        head, _, body = whole.partition(b"\r\n\r\n")
        if fault is Fault.LOST_REPLY:
            return
        if fault is Fault.SHORT_LIST:
            client.sendall(_reply(200, _without_the_first(_payload(head, body))))
            return
        client.sendall(head + b"\r\n\r\n" + body[: len(body) // 2 if self.keep is None else self.keep])
        if fault is Fault.STALL:
            self.release.wait()


def _reply(status: int, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} Injected\r\nContent-Type: application/json\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _payload(head: bytes, body: bytes) -> bytes:
    """Chunks a body longer than 2 KiB, as an engine does."""
    chunked = b"transfer-encoding: chunked" in head.lower()
    return b"".join(ChunkDecoder().split(body, len(body))) if chunked else body


def _without_the_first(body: bytes) -> bytes:
    listed = json.loads(body)
    if isinstance(listed, dict):
        listed["Volumes"] = listed["Volumes"][1:]
    else:
        ours = [item for item in listed if item.get("Name") not in {"bridge", "host", "none"}]
        listed = [item for item in listed if item is not (ours or listed)[0]]
    return json.dumps(listed).encode()


def _read_request(client: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(65536)
        if not piece:
            return b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    kept = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
    fields = dict(line.lower().split(b":", 1) for line in kept[1:])
    length = int(fields.get(b"content-length", b"0"))
    while len(body) < length:
        body += client.recv(65536)
    if b"chunked" in fields.get(b"transfer-encoding", b""):
        chunks = ChunkDecoder()
        chunks.split(body, len(body))
        while not chunks.done and (piece := client.recv(65536)):
            chunks.split(piece, len(piece))
            body += piece
    return b"\r\n".join(kept) + b"\r\n\r\n" + body
