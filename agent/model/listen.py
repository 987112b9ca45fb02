# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the controller listens on TCP: an address and a port. Read by `agent.uci`, used by `agent.api`."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from agent.model.quantities import QuantityError

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
_FORM = "address:port or [address]:port, such as 192.168.1.1:2380"


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """One entry of `listen`. Port 0 lets the kernel choose."""

    ip: IpAddress
    port: int

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if self.ip.version == 6 else f"{self.ip}:{self.port}"


def parse_listen(text: str) -> ListenAddress:
    """An address, in brackets when it is IPv6, and a port. Raises QuantityError."""
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        ip = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        raise QuantityError(f"{host!r} is not an IP address", _FORM) from None
    if bracketed is not (ip.version == 6):
        raise QuantityError(f"{text!r}: an IPv6 address stands in brackets, an IPv4 address does not", _FORM)
    if not (re.fullmatch(r"[0-9]{1,5}", port) and int(port) <= 65535):
        raise QuantityError(f"{port!r} is not a port", "a port from 1 to 65535")
    return ListenAddress(ip, int(port))
