# SPDX-License-Identifier: GPL-2.0-or-later
"""A real registry (Debian's docker-registry) on a loopback port, with which engines speak plain HTTP."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

USER = "keeper"
PASSWORD = "S3CRET-registry"
_HTPASSWD = f"{USER}:$2y$05$abcdefghijklmnopqrstuunFgmY/TKKc09xngFu9g4H/5V1x1ZRey\n"  # bcrypt of PASSWORD


def is_installed() -> bool:
    return shutil.which("docker-registry") is not None


class Registry:
    """`with_login`: it requires USER and PASSWORD."""

    def __init__(self, folder: Path, *, with_login: bool = False) -> None:
        self.port = _free_port()
        self.address = f"127.0.0.1:{self.port}"
        folder.mkdir(parents=True, exist_ok=True)
        config: dict[str, object] = {
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}},
            "http": {"addr": self.address},
        }
        if with_login:
            (folder / "htpasswd").write_text(_HTPASSWD)
            config["auth"] = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
        (folder / "config.yml").write_text(json.dumps(config))  # JSON is valid YAML
        self._folder = folder
        self.start()

    def start(self) -> None:
        """Starts the registry; may be called again after `close`."""
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                ["docker-registry", "serve", str(self._folder / "config.yml")], stdout=log, stderr=log
            )
        self._wait(self._folder / "log")

    def _wait(self, log: Path) -> None:
        deadline = time.monotonic() + 10
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("docker-registry did not start:\n" + log.read_text()[-2000:])
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"http://{self.address}/v2/", timeout=2).close()
        except urllib.error.HTTPError as exc:
            exc.close()
            return exc.code == 401
        except OSError:
            return False
        return True

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)


class Throttle:
    """A proxy to a port with a limit of bytes per second for all connections together. 0: lets nothing through."""

    def __init__(self, port: int, *, bytes_per_s: int) -> None:
        self.bytes_per_s = bytes_per_s
        self.open = 0
        self.carried = 0  # bytes sent to clients
        self._target = port
        self._lock = threading.Lock()
        self._due = time.monotonic()
        self._ends = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            threading.Thread(target=self._carry, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._carry, args=(server, client, True), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        with self._lock:
            self.open += counted
        try:
            while piece := source.recv(16384):
                if counted:
                    self._wait_for(len(piece))
                sink.sendall(piece)
                with self._lock:
                    self.carried += len(piece) * counted
        except OSError:
            pass
        finally:
            for end in (source, sink):
                _shut(end)
            with self._lock:
                self.open -= counted

    def _wait_for(self, count: int) -> None:
        while not self.bytes_per_s:
            if self._ends.wait(0.02):
                raise ConnectionResetError("the throttle is closed")
        with self._lock:
            self._due = max(self._due, time.monotonic() - 0.05) + count / self.bytes_per_s
            pause = self._due - time.monotonic()
        if pause > 0 and self._ends.wait(pause):
            raise ConnectionResetError("the throttle is closed")

    def close(self) -> None:
        self._ends.set()
        self._listener.close()


def _shut(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
