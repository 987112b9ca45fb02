# SPDX-License-Identifier: GPL-2.0-or-later
"""Where this machine sends packets by itself, /proc/net/route and /proc/net/ipv6_route (proc(5)), and its addresses."""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from agent.model.addresses import IpAddress, Route

_UP, _GATEWAY, _REJECT = 0x0001, 0x0002, 0x0200  # linux/route.h
_POINT_TO_POINT = 0x0010  # linux/if.h
_GET_FLAGS = 0x8913  # SIOCGIFFLAGS, netdevice(7)
_LOOPBACK = "lo"
_PROC = Path("/proc/net")


def host_routes(proc: Path = _PROC) -> tuple[Route, ...]:
    """All but default routes and the machine's own addresses, sorted."""
    found = {*_ipv4(_rows(proc / "route")[1:]), *_ipv6(_rows(proc / "ipv6_route"))}
    return tuple(_without_tunnels(sorted(route for route in found if not route.subnet.endswith("/0"))))


def _without_tunnels(routes: list[Route]) -> Iterator[Route]:
    """What is sent into a tunnel (WireGuard, PPP) is on no link, whatever the route's flags say."""
    tunnels = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for device in {route.device for route in routes}:
            try:
                answer = fcntl.ioctl(asked, _GET_FLAGS, struct.pack("16sh14x", device.encode(), 0))
            except OSError:  # it went in this moment
                continue
            (flags,) = struct.unpack_from("16xH", answer)
            if flags & _POINT_TO_POINT:
                tunnels.add(device)
    for route in routes:
        yield replace(route, direct=False) if route.device in tunnels else route


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


# The addresses of this machine's devices: ioctl SIOCGIFADDR (netdevice(7)) and /proc/net/if_inet6.


_SIOCGIFADDR = 0x8915
_NAME_LIMIT = 15


def device_addresses(devices: Iterable[str]) -> frozenset[IpAddress]:
    """Each device's main IPv4 address and its IPv6 addresses; a device that is not there has none."""
    names = frozenset(devices)
    found: set[IpAddress] = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        for name in names:
            request = struct.pack("256s", name.encode()[:_NAME_LIMIT])
            try:
                answer = fcntl.ioctl(asker.fileno(), _SIOCGIFADDR, request)
            except OSError:  # no such device, or no address
                continue
            found.add(ipaddress.IPv4Address(answer[20:24]))
    # the ioctl knows IPv4 alone
    rows = _rows(_PROC / "if_inet6")
    return frozenset(found) | {ipaddress.IPv6Address(int(row[0], 16)) for row in rows if row[-1] in names}


def has_address(text: str) -> bool:
    """Whether something can listen on that address here; decided by bind(2), as for dockerd."""
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            tried.bind((text, 0))
    except OSError as exc:
        return exc.errno != errno.EADDRNOTAVAIL
    return True


def machine_addresses() -> tuple[tuple[str, IpAddress], ...]:
    """Device and address of all that this machine has, without loopback and link-local ones, sorted by device."""
    names = sorted(name for _, name in socket.if_nameindex())
    return tuple(
        (name, address)
        for name in names
        for address in sorted(device_addresses([name]), key=str)
        if not address.is_loopback and not address.is_link_local
    )
