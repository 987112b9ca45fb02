# SPDX-License-Identifier: GPL-2.0-or-later
"""A dockerd that looks like another machine's to the agent: over TLS, at an address that is not loopback."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from agent.tls.certificates import Certificates, ServerIdentity
from tests.support.tls_dockerd import TlsDockerd

NOW = time.time()


NAMES = ("localhost", "127.0.0.1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """Creates certificates under `folder`; the server's certificate is for `names`."""

    folder: Path
    certificates: Certificates
    server: ServerIdentity

    @classmethod
    def make(cls, folder: Path, *, names: tuple[str, ...] = NAMES, now: float = NOW) -> Authority:
        made = Certificates(folder / "tls")
        server, _ = made.ensure_server(sans=names, days=120, renew_days=10, now=now)
        return cls(folder=folder, certificates=made, server=server)

    def client(self, name: str, *, days: int = 30, now: float = NOW) -> Path:
        """The directory of a client's certificate."""
        return self.certificates.make_client(name, self.folder / name, days=days, now=now).directory


class RemoteDockerd(TlsDockerd):
    """Also listens on the address of its bridge, which is not a loopback address."""

    def __init__(self, server: ServerIdentity, *, subnet: int) -> None:
        super().__init__(server, subnet=subnet)
        self.arguments = (f"--host={self.url(self.ip)}",)

    @property
    def ip(self) -> str:
        """The address of its bridge."""
        return self.address.partition("/")[0]
