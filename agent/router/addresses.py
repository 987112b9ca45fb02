# SPDX-License-Identifier: GPL-2.0-or-later
"""The addresses of this machine's devices: ioctl SIOCGIFADDR (netdevice(7)) and /proc/net/if_inet6."""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

from agent.model.listen import IpAddress

_SIOCGIFADDR = 0x8915
_NAME_LIMIT = 15


def device_addresses(devices: Iterable[str]) -> frozenset[IpAddress]:
    """Each device's main IPv4 address and its IPv6 addresses; a device that is not there has none."""
    names = frozenset(devices)
    return _ipv4(names) | _ipv6(names)


def _ipv4(names: frozenset[str]) -> frozenset[IpAddress]:
    found: set[IpAddress] = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        for name in names:
            request = struct.pack("256s", name.encode()[:_NAME_LIMIT])
            try:
                answer = fcntl.ioctl(asker.fileno(), _SIOCGIFADDR, request)
            except OSError:  # no such device, or no address
                continue
            found.add(ipaddress.IPv4Address(answer[20:24]))
    return frozenset(found)


def _ipv6(names: frozenset[str]) -> frozenset[IpAddress]:
    try:
        rows = [line.split() for line in Path("/proc/net/if_inet6").read_text().splitlines()]
    except FileNotFoundError:  # a kernel without IPv6
        return frozenset()
    return frozenset(ipaddress.IPv6Address(int(row[0], 16)) for row in rows if row[-1] in names)


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
