# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's nginx with our example configuration, in which only paths and addresses are changed."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path

from tests.support.tcp import make_certificate

EXAMPLE = Path(__file__).parents[2] / "examples" / "nginx.conf"
USER, PASSWORD = "admin", "correct horse"


def why_not() -> str:
    """Why nginx cannot be used, "" if it can."""
    return "" if shutil.which("nginx") else "no nginx: `make browser` installs it"


class Nginx:
    """Listens on two ports of 127.0.0.1: `agent` in front of the control socket, `docker` in front of dockerd."""

    def __init__(
        self, folder: Path, control: Path, *, docker_port: int = 1, docker_keys: Path | None = None
    ) -> None:
        self.agent, self.docker = free_port(), free_port()
        self.www = folder / "www"
        self.www.mkdir()
        cert, key = make_certificate(folder, "router.lan")
        password = subprocess.run(
            ["openssl", "passwd", "-apr1", PASSWORD], capture_output=True, text=True, check=True
        )
        (folder / "htpasswd").write_text(f"{USER}:{password.stdout}")
        text = EXAMPLE.read_text()
        for place, ours in (
            ("/var/run/nginx-ucidockd.pid", folder / "nginx.pid"),
            ("/etc/nginx/ucidockd.crt", cert),
            ("/etc/nginx/ucidockd.key", key),
            ("/etc/nginx/ucidockd.htpasswd", folder / "htpasswd"),
            ("/var/run/ucidockd/agent.sock", control),
            ("/www/ucidockd", self.www),
            ("192.168.1.1:8443", f"127.0.0.1:{self.agent}"),
            ("192.168.1.1:8444", f"127.0.0.1:{self.docker}"),
            ("127.0.0.1:2376", f"127.0.0.1:{docker_port}"),
            # nginx reads these at its start: without a dockerd, any pair will do
            ("/etc/nginx/docker/cert.pem", docker_keys / "client.crt" if docker_keys else cert),
            ("/etc/nginx/docker/key.pem", docker_keys / "client.key" if docker_keys else key),
            ("/etc/nginx/docker/ca.pem", docker_keys / "ca.crt" if docker_keys else cert),
        ):
            assert place in text, f"the example does not name {place} any more"
            text = text.replace(place, str(ours))
        self._config = folder / "nginx.conf"
        self._config.write_text(text)
        self._folder = folder

    def __enter__(self) -> Nginx:
        command = ["nginx", "-p", str(self._folder), "-c", str(self._config), "-g", "daemon off;"]
        with (self._folder / "nginx.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 10
        while not self._answers():
            assert self._process.poll() is None and time.monotonic() < deadline, self.log()
            time.sleep(0.02)
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.terminate()
        self._process.wait(10)

    def log(self) -> str:
        return (self._folder / "nginx.log").read_text()

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.agent)) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
