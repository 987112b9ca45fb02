# SPDX-License-Identifier: GPL-2.0-or-later
"""A dockerd that also listens with TLS and requires client certificates, and clients that call it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import docker
import docker.tls

from agent.tls.certificates import ServerIdentity
from tests.support.dockerd import PrivateDockerd

ADDRESSES = ("127.0.0.1", "127.0.0.2")


class TlsDockerd(PrivateDockerd):
    """Listens on both ADDRESSES. A changed `identity` takes effect at the next start, as with any dockerd."""

    def __init__(self, identity: ServerIdentity, *, subnet: int) -> None:
        super().__init__(subnet=subnet)
        self.identity = identity
        self.port = _free_port()

    def _command(self) -> list[str]:
        return [
            *super()._command(),
            *(f"--host=tcp://{address}:{self.port}" for address in ADDRESSES),
            "--tlsverify",
            f"--tlscacert={self.identity.ca}",
            f"--tlscert={self.identity.cert}",
            f"--tlskey={self.identity.key}",
        ]

    def url(self, address: str = ADDRESSES[0]) -> str:
        return f"tcp://{address}:{self.port}"


def command_lines() -> list[str]:
    """The docker clients of this machine: Debian's, and a newer one if there is one."""
    return [path for path in ("/usr/bin/docker", "/usr/local/bin/docker") if shutil.which(path)]


def ask_with_command(command: str, url: str, bundle: Path) -> tuple[int, str]:
    """`docker --tlsverify` with a bundle, as people use it: exit code, and the server's version or the error."""
    done = subprocess.run(
        [command, "--tlsverify", "version", "--format", "{{.Server.Version}}"],
        env={
            "DOCKER_HOST": url,
            "DOCKER_CERT_PATH": str(bundle),
            "HOME": str(bundle),
            "PATH": os.environ["PATH"],
        },
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return done.returncode, (done.stdout + done.stderr).strip()


def ask_with_library(url: str, bundle: Path) -> str:
    """docker-py with a bundle: the server's version. Raises requests' exceptions, as docker-py does."""
    pair = (str(bundle / "cert.pem"), str(bundle / "key.pem"))
    tls = docker.tls.TLSConfig(
        client_cert=pair if Path(pair[0]).exists() else None, ca_cert=str(bundle / "ca.pem"), verify=True
    )
    client = docker.APIClient(base_url=url, tls=tls, version="1.41", timeout=20)
    client.trust_env = False  # REQUESTS_CA_BUNDLE would override the bundle's CA
    try:
        return str(client.version()["Version"])
    finally:
        client.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((ADDRESSES[0], 0))
        return int(probe.getsockname()[1])
