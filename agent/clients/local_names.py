# SPDX-License-Identifier: GPL-2.0-or-later
"""What this host is called on its LAN: host name, and the private addresses of the kernel's interfaces (rtnetlink(7)).

Interfaces of Docker networks are left out. /proc and ioctl give less: no IPv6, or sizes that differ by machine.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import struct
from collections.abc import Iterable, Iterator

from agent.model.server_names import server_names

_PRIVATE = tuple(
    map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"))
)  # RFC 1918, RFC 4193
_DOCKER_BRIDGE = re.compile(r"docker0|docker_gwbridge|br-[0-9a-f]{12}")

# linux/netlink.h, linux/rtnetlink.h, linux/if_addr.h
_NLMSG_ERROR, _NLMSG_DONE, _RTM_NEWADDR, _RTM_GETADDR = 2, 3, 20, 22
_REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_UNSTEADY = 0x01 | 0x08 | 0x20 | 0x40  # IPv6: temporary, DAD failed, deprecated, tentative
_MESSAGE, _ADDRESS, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=BBBBI"), struct.Struct("=HH")


def local_server_names(san: Iterable[str] = (), *, bridges: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """`server_names` of this host. `bridges`: further interfaces of Docker networks, by name.

    Raises ConfigError for a wrong `san`, OSError when the kernel does not answer.
    """
    return server_names(hostname=socket.gethostname(), addresses=lan_addresses(bridges=bridges), san=san)


def lan_addresses(*, bridges: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """Private addresses of this network namespace that last, Docker's bridges left out. Raises OSError."""
    found = {
        str(address)
        for interface, address in _addresses()
        if interface not in bridges
        and not _DOCKER_BRIDGE.fullmatch(interface)
        and any(address in network for network in _PRIVATE)
    }
    return tuple(sorted(found))


def _addresses() -> Iterator[tuple[str, ipaddress.IPv4Address | ipaddress.IPv6Address]]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.settimeout(5)
        body = _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        kernel.send(_MESSAGE.pack(_MESSAGE.size + len(body), _RTM_GETADDR, _REQUEST_DUMP, 1, 0) + body)
        while True:
            for kind, message in _messages(kernel.recv(65536)):
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    raise OSError("the kernel does not list its addresses")
                if kind == _RTM_NEWADDR:
                    yield from _address(message)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _MESSAGE.size:
        length, kind, *_ = _MESSAGE.unpack_from(data)
        yield kind, data[_MESSAGE.size : length]
        data = data[_aligned(length) :]


def _address(message: bytes) -> Iterator[tuple[str, ipaddress.IPv4Address | ipaddress.IPv6Address]]:
    family, _, flags, _, index = _ADDRESS.unpack_from(message)
    attributes = dict(_attributes(message[_ADDRESS.size :]))
    # on a point-to-point link IFA_ADDRESS is the peer; IPv6 has no IFA_LOCAL elsewhere
    raw = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
    if _IFA_FLAGS in attributes:
        (flags,) = struct.unpack("=I", attributes[_IFA_FLAGS])
    if raw is None or (family == socket.AF_INET6 and flags & _UNSTEADY):
        return
    try:
        interface = socket.if_indextoname(index)
    except OSError:
        return  # it went away while we were reading
    yield interface, ipaddress.ip_address(raw)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        yield kind, data[_ATTRIBUTE.size : length]
        data = data[_aligned(length) :]


def _aligned(length: int) -> int:
    # never 0: a length of 0 would be read for ever
    return max((length + 3) & ~3, 4)
