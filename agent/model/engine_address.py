# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the Docker Engine listens. Read by `agent.uci` and the command line, used by the clients of the engine."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from agent.model.quantities import QuantityError

_FORM = "unix:///path, tcp://address:port or tcp://[address]:port"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineAddress:
    """A unix socket's path, or host and port."""

    path: str = ""
    host: str = ""
    port: int = 0

    @property
    def is_local(self) -> bool:
        """Whether the engine runs on this machine: its devices, paths and firewall are ours to look at."""
        return bool(self.path) or self.host == "localhost" or _is_loopback(self.host)

    @property
    def netloc(self) -> str:
        """`host:port`, as a URL has it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"unix://{self.path}" if self.path else f"tcp://{self.netloc}"


def parse_engine_address(text: str) -> EngineAddress:
    """A Docker host URL. Raises QuantityError."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise QuantityError(f"{text!r}: {exc}", _FORM) from exc
    if parts.scheme == "unix" and not parts.netloc and parts.path.startswith("/"):
        return EngineAddress(path=parts.path)
    bare = not (parts.path or parts.query or parts.fragment or "@" in parts.netloc)
    if parts.scheme == "tcp" and host and port and bare:
        return EngineAddress(host=host, port=port)
    raise QuantityError(f"{text!r} is not an address of an engine", _FORM)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
