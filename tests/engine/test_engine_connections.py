# SPDX-License-Identifier: GPL-2.0-or-later
"""One connection to the engine for each thread that talks to it, whatever it asks, and across the engine's restarts."""

from __future__ import annotations

import json
import socket
import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from agent.engine.client import DockerEngine
from agent.errors import EngineUnreachableError

BODIES = {"version": {"ApiVersion": "1.41"}, "json": [], "networks": [], "volumes": {"Volumes": []}}


class Keeper(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """An engine that keeps connections open; `seen` has a list of paths for each of them."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), Handler)
        self.seen: list[list[str]] = []
        self.connections: list[Any] = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Keeper

    def setup(self) -> None:
        super().setup()
        self.paths: list[str] = []
        self.server.seen.append(self.paths)
        self.server.connections.append(self.connection)

    def do_GET(self) -> None:
        name = self.path.partition("?")[0].rpartition("/")[2]
        self.paths.append(name)
        body = json.dumps(BODIES[name]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Nobody reads it."""


@contextmanager
def serving(path: Path) -> Iterator[Keeper]:
    """Afterwards every connection is closed, as when an engine ends."""
    server = Keeper(path)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        for connection in server.connections:
            server.shutdown_request(connection)
        server.server_close()
        path.unlink()


def look(engine: DockerEngine) -> None:
    engine.list_containers("us")
    engine.list_networks()
    engine.list_volumes()


LOOK = ["json", "networks", "volumes"]


def test_all_calls_of_a_thread_take_one_connection(tmp_path: Path) -> None:
    with serving(tmp_path / "engine.sock") as server:
        engine = DockerEngine(f"unix://{tmp_path / 'engine.sock'}")
        look(engine)
        look(engine)
        assert sorted(server.seen) == sorted([["version"], LOOK + LOOK])
        other = threading.Thread(target=look, args=(engine,))
        other.start()
        other.join()
        assert sorted(server.seen) == sorted([["version"], LOOK + LOOK, LOOK])


def test_an_engine_that_was_restarted_in_between_is_connected_to_anew(tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"
    engine = DockerEngine(f"unix://{path}")
    for _ in range(2):
        with serving(path) as server:
            look(engine)
        assert LOOK in server.seen


@pytest.mark.parametrize("linger", [False, True], ids=["closed", "reset"])
def test_a_connection_that_breaks_is_told_in_plain_words(linger: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def end_each() -> None:
            with suppress(OSError):  # the server is closed
                while True:
                    connection, _ = server.accept()
                    connection.recv(1)
                    if linger:  # a zero timeout makes the close a reset
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    connection.close()

        threading.Thread(target=end_each, daemon=True).start()
        engine = DockerEngine(f"tcp://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(EngineUnreachableError) as told:
            engine.ping()
    assert "Errno" not in str(told.value)
    assert "(" not in str(told.value)
    assert str(told.value).endswith(("Connection reset by peer", "closed connection without response"))
