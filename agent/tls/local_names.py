# SPDX-License-Identifier: GPL-2.0-or-later
"""What this host is called on its LAN: host name, and the private addresses of the kernel's interfaces (rtnetlink(7)).

Bridges of Docker networks are left out, or each new network would renew the certificate and restart dockerd. Users may
name them as they like, so they are known by their ports: none, or only those that Docker makes.
/proc and ioctl would give less: no IPv6, or sizes that differ by machine.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import struct
import sys
from collections.abc import Iterable, Iterator

from agent.errors import CertificateError
from agent.model.addresses import server_names

_PRIVATE = tuple(
    map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"))
)  # RFC 1918, RFC 4193
_DOCKER_PORT = re.compile(r"veth[0-9a-f]{7}")  # moby: libnetwork/drivers/bridge

# linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_RTM_GETLINK, _RTM_GETADDR = 18, 22
_REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_IFLA_IFNAME, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_INFO_KIND = 3, 10, 18, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_TYPE_MASK = 0x3FFF  # NLA_TYPE_MASK: without the flag of nested attributes
_UNSTEADY = 0x01 | 0x08 | 0x20 | 0x40  # IPv6: temporary, DAD failed, deprecated, tentative
_MESSAGE, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=HH")
_LINK, _ADDRESS = struct.Struct("=BBHiII"), struct.Struct("=BBBBI")

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def local_server_names(san: Iterable[str] = ()) -> tuple[str, ...]:
    """`server_names` of this host. Raises ConfigError for a wrong `san`, CertificateError without an answer."""
    try:
        hostname, addresses = socket.gethostname(), lan_addresses()
    except OSError as exc:
        raise CertificateError(f"the names of this host cannot be read: {exc}") from exc
    return server_names(hostname=hostname, addresses=addresses, san=san)


def lan_addresses() -> tuple[str, ...]:
    """Private addresses of this network namespace that last, Docker's bridges left out. Raises OSError."""
    # indexes of bridges that no port leads out of
    bridges: set[int] = set()
    lead_out: set[int] = set()
    for message in _dump(_RTM_GETLINK, _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0, 0)):
        attributes = dict(_attributes(message[_LINK.size :]))
        kind = dict(_attributes(attributes.get(_IFLA_LINKINFO, b""))).get(_IFLA_INFO_KIND, b"")
        if _text(kind) == "bridge":
            bridges.add(_LINK.unpack_from(message)[3])
        if _IFLA_MASTER in attributes and not _DOCKER_PORT.fullmatch(_text(attributes[_IFLA_IFNAME])):
            lead_out.add(_number(attributes[_IFLA_MASTER]))
    left_out = bridges - lead_out
    found = {
        str(address)
        for link, address in _addresses()
        if link not in left_out and any(address in network for network in _PRIVATE)
    }
    return tuple(sorted(found))


def _addresses() -> Iterator[tuple[int, _Address]]:
    for message in _dump(_RTM_GETADDR, _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
        family, _, flags, _, link = _ADDRESS.unpack_from(message)
        attributes = dict(_attributes(message[_ADDRESS.size :]))
        if _IFA_FLAGS in attributes:
            flags = _number(attributes[_IFA_FLAGS])
        # on a point-to-point link IFA_ADDRESS is the peer; IPv6 has no IFA_LOCAL elsewhere
        raw = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
        if raw is not None and not (family == socket.AF_INET6 and flags & _UNSTEADY):
            yield link, ipaddress.ip_address(raw)


def _dump(request: int, body: bytes) -> Iterator[bytes]:
    """The bodies of all messages that the kernel answers with."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.settimeout(5)
        kernel.send(_MESSAGE.pack(_MESSAGE.size + len(body), request, _REQUEST_DUMP, 1, 0) + body)
        while True:
            for kind, message in _messages(kernel.recv(65536)):
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    raise OSError("the kernel does not list its interfaces and addresses")
                yield message


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _MESSAGE.size:
        length, kind, *_ = _MESSAGE.unpack_from(data)
        yield kind, data[_MESSAGE.size : length]
        data = data[_aligned(length) :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        yield kind & _TYPE_MASK, data[_ATTRIBUTE.size : length]
        data = data[_aligned(length) :]


def _aligned(length: int) -> int:
    # never 0: a length of 0 would be read for ever
    return max((length + 3) & ~3, 4)


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("utf-8", "replace")


def _number(raw: bytes) -> int:
    return int.from_bytes(raw[:4], sys.byteorder)
