# SPDX-License-Identifier: GPL-2.0-or-later
"""Where this machine sends packets by itself: /proc/net/route and /proc/net/ipv6_route (proc(5))."""

from __future__ import annotations

import ipaddress
import sys
from pathlib import Path

from agent.model.interfaces import Route

_UP, _GATEWAY, _REJECT = 0x0001, 0x0002, 0x0200  # linux/route.h
_LOOPBACK = "lo"
_PROC = Path("/proc/net")


def host_routes(proc: Path = _PROC) -> tuple[Route, ...]:
    """All but default routes and the machine's own addresses, sorted."""
    found = {*_ipv4(_rows(proc / "route")[1:]), *_ipv6(_rows(proc / "ipv6_route"))}
    return tuple(sorted(route for route in found if not route.subnet.endswith("/0")))


def _rows(path: Path) -> list[list[str]]:
    try:
        return [line.split() for line in path.read_text().splitlines()]
    except FileNotFoundError:  # a kernel without it
        return []


def _ipv4(rows: list[list[str]]) -> list[Route]:
    """Columns: device, destination, gateway, flags, ..., mask (the eighth); numbers in the machine's byte order."""
    found = []
    for row in rows:
        flags = int(row[3], 16)
        address, mask = (ipaddress.IPv4Address(int(row[n], 16).to_bytes(4, sys.byteorder)) for n in (1, 7))
        if flags & _UP and not flags & _REJECT:
            subnet = str(ipaddress.IPv4Network(f"{address}/{mask}", strict=False))
            found.append(Route(device=row[0], subnet=subnet, direct=not flags & _GATEWAY))
    return found


def _ipv6(rows: list[list[str]]) -> list[Route]:
    """Columns: destination, its prefix, ..., flags (the ninth), device."""
    found = []
    for row in rows:
        flags, prefix = int(row[8], 16), int(row[1], 16)
        network = ipaddress.IPv6Network((int(row[0], 16), prefix))
        own = prefix == 128 or row[9] == _LOOPBACK or network.is_link_local or network.is_multicast
        if flags & _UP and not flags & _REJECT and not own:
            found.append(Route(device=row[9], subnet=str(network), direct=not flags & _GATEWAY))
    return found
