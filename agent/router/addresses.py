# SPDX-License-Identifier: GPL-2.0-or-later
"""This machine's place in its networks: its routes, its addresses, its names on the LAN, and which interfaces are
up.

Routes come from /proc/net/route and /proc/net/ipv6_route (proc(5)). The names, for dockerd's certificate, are the
host name and the private addresses of the kernel's interfaces (rtnetlink(7)). Bridges of Docker networks are left
out: otherwise each new network would renew the certificate and restart dockerd. Users may name bridges as they like,
so they are recognized by their ports: none, or only those that Docker creates. /proc and ioctl would not be
sufficient: no IPv6, or sizes that differ between machines.

`Netifd` is the port to the router's network service. `BusNetifd` uses the agent's ubus connection; `UbusNetifd` uses
the `ubus` program while there is no connection. Without that program (not OpenWrt), names are devices of the kernel.
Devices are queried by ioctl(2) (netdevice(7)), because /sys shows the network namespace in which it was mounted.
"""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import json
import logging
import re
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from agent.errors import BusError, CertificateError
from agent.model.addresses import Interface, IpAddress, Route, server_names

_UP, _GATEWAY, _REJECT = 0x0001, 0x0002, 0x0200  # linux/route.h
_POINT_TO_POINT = 0x0010  # linux/if.h
_GET_FLAGS, _GET_ADDRESS = 0x8913, 0x8915  # SIOCGIFFLAGS and SIOCGIFADDR, netdevice(7)
_NAME_LIMIT = 15  # IFNAMSIZ - 1
_LOOPBACK = "lo"
_PROC = Path("/proc/net")

# RFC 1918, RFC 4193
_PRIVATE = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")))
_DOCKER_PORT = re.compile(r"veth[0-9a-f]{7}")  # moby: libnetwork/drivers/bridge

# linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_RTM_GETLINK, _RTM_GETADDR = 18, 22
_REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_IFLA_IFNAME, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_INFO_KIND = 3, 10, 18, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_TYPE_MASK = 0x3FFF  # NLA_TYPE_MASK: removes the flag of nested attributes
_UNSTEADY = 0x01 | 0x08 | 0x20 | 0x40  # IPv6: temporary, DAD failed, deprecated, tentative
_MESSAGE, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=HH")
_LINK, _ADDRESS = struct.Struct("=BBHiII"), struct.Struct("=BBBBI")


def host_routes(proc: Path = _PROC) -> tuple[Route, ...]:
    """All routes except default routes and the machine's own addresses, sorted."""
    found = {*_ipv4(_rows(proc / "route")[1:]), *_ipv6(_rows(proc / "ipv6_route"))}
    return tuple(_without_tunnels(sorted(route for route in found if not route.subnet.endswith("/0"))))


def _without_tunnels(routes: list[Route]) -> Iterator[Route]:
    """Marks routes into tunnels (WireGuard, PPP) as not direct, whatever their flags say."""
    tunnels = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for device in {route.device for route in routes}:
            try:
                answer = fcntl.ioctl(asked, _GET_FLAGS, struct.pack("16sh14x", device.encode(), 0))
            except OSError:  # the device was removed just now
                continue
            (flags,) = struct.unpack_from("16xH", answer)
            if flags & _POINT_TO_POINT:
                tunnels.add(device)
    for route in routes:
        yield replace(route, direct=False) if route.device in tunnels else route


def _rows(path: Path) -> list[list[str]]:
    try:
        return [line.split() for line in path.read_text().splitlines()]
    except FileNotFoundError:  # a kernel without this protocol
        return []


def _ipv4(rows: list[list[str]]) -> list[Route]:
    """Columns: device, destination, gateway, flags, ..., mask (the eighth); numbers are in the machine's byte order."""
    found = []
    for row in rows:
        flags = int(row[3], 16)
        address, mask = (ipaddress.IPv4Address(int(row[n], 16).to_bytes(4, sys.byteorder)) for n in (1, 7))
        if flags & _UP and not flags & _REJECT:
            subnet = str(ipaddress.IPv4Network(f"{address}/{mask}", strict=False))
            found.append(Route(device=row[0], subnet=subnet, direct=not flags & _GATEWAY))
    return found


def _ipv6(rows: list[list[str]]) -> list[Route]:
    """Columns: destination, prefix length, ..., flags (the ninth), device."""
    found = []
    for row in rows:
        flags, prefix = int(row[8], 16), int(row[1], 16)
        network = ipaddress.IPv6Network((int(row[0], 16), prefix))
        # the kernel also lists its own addresses and what every interface has; none of these is a subnet in use
        own = prefix == 128 or row[9] == _LOOPBACK or network.is_link_local or network.is_multicast
        if flags & _UP and not flags & _REJECT and not own:
            found.append(Route(device=row[9], subnet=str(network), direct=not flags & _GATEWAY))
    return found


# The addresses of this machine's devices: ioctl SIOCGIFADDR (netdevice(7)) and /proc/net/if_inet6.


def device_addresses(devices: Iterable[str]) -> frozenset[IpAddress]:
    """Each device's primary IPv4 address and its IPv6 addresses; a missing device has none."""
    names = frozenset(devices)
    found: set[IpAddress] = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        for name in names:
            request = struct.pack("256s", name.encode()[:_NAME_LIMIT])
            try:
                answer = fcntl.ioctl(asker.fileno(), _GET_ADDRESS, request)
            except OSError:  # no such device, or it has no address
                continue
            found.add(ipaddress.IPv4Address(answer[20:24]))
    # the ioctl only supports IPv4
    rows = _rows(_PROC / "if_inet6")
    return frozenset(found) | {ipaddress.IPv6Address(int(row[0], 16)) for row in rows if row[-1] in names}


def has_address(text: str) -> bool:
    """Whether a program could listen on that address here, according to bind(2), which dockerd uses too."""
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            tried.bind((text, 0))
    except OSError as exc:
        return exc.errno != errno.EADDRNOTAVAIL
    return True


def machine_addresses() -> tuple[tuple[str, IpAddress], ...]:
    """(device, address) for all addresses of this machine, without loopback and link-local ones, sorted by device."""
    names = sorted(name for _, name in socket.if_nameindex())
    return tuple(
        (name, address)
        for name in names
        for address in sorted(device_addresses([name]), key=str)
        if not address.is_loopback and not address.is_link_local
    )


def local_server_names(san: Iterable[str] = ()) -> tuple[str, ...]:
    """`server_names` of this host. Raises ConfigError for an invalid `san`, CertificateError if the kernel does not
    answer."""
    try:
        hostname, addresses = socket.gethostname(), lan_addresses()
    except OSError as exc:
        raise CertificateError(f"the names of this host cannot be read: {exc}") from exc
    return server_names(hostname=hostname, addresses=addresses, san=san)


def lan_addresses() -> tuple[str, ...]:
    """Permanent private addresses of this network namespace, except those of Docker's bridges. Raises OSError."""
    # indexes of bridges without a port to the outside
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


def _addresses() -> Iterator[tuple[int, IpAddress]]:
    for message in _dump(_RTM_GETADDR, _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
        family, _, flags, _, link = _ADDRESS.unpack_from(message)
        attributes = dict(_attributes(message[_ADDRESS.size :]))
        if _IFA_FLAGS in attributes:
            flags = _number(attributes[_IFA_FLAGS])
        # on a point-to-point link IFA_ADDRESS is the peer; otherwise IPv6 has no IFA_LOCAL
        raw = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
        if raw is not None and not (family == socket.AF_INET6 and flags & _UNSTEADY):
            yield link, ipaddress.ip_address(raw)


def _dump(request: int, body: bytes) -> Iterator[bytes]:
    """The bodies of all messages in the kernel's answer."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        # it answers at once; an answer that is lost must not hang a pass
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
    # never 0: a length of 0 would loop for ever
    return max((length + 3) & ~3, 4)


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("utf-8", "replace")


def _number(raw: bytes) -> int:
    return int.from_bytes(raw[:4], sys.byteorder)


logger = logging.getLogger(__name__)

_LIMIT_S = 10.0  # for one program
_UNEXPECTED = "network.interface dump: unexpected answer"
_SIOCGIFFLAGS = 0x8913  # linux/sockios.h
_INTERFACE_UP, _RUNNING = 0x1, 0x40  # linux/if.h
_REQUEST = struct.Struct("16sH14x")
# IFNAMSIZ - 1; a longer name would be cut and ask about another interface
_NAME_MAX = 15
_EVERYWHERE = frozenset({"0.0.0.0", "::"})  # the target of a default route


class Netifd(Protocol):
    """Port: UCI interfaces, and the reloads that changes of UCI require."""

    def interfaces(self) -> Mapping[str, Interface] | None:
        """All interfaces by name; None without netifd. Raises BusError."""

    def reload_network(self) -> None:
        """Reloads the network. Raises BusError."""

    def reload_firewall(self) -> None:
        """Reloads the firewall. Raises BusError."""


class UbusNetifd:
    """Netifd through OpenWrt's programs."""

    def __init__(self, *, ubus: str = "ubus", firewall: str = "/etc/init.d/firewall") -> None:
        self._ubus = ubus
        self._firewall = firewall

    def interfaces(self) -> Mapping[str, Interface] | None:
        if shutil.which(self._ubus) is None:
            return None
        return parse_dump(_run([self._ubus, "-t", "5", "call", "network.interface", "dump"]))

    def reload_network(self) -> None:
        _run([self._ubus, "-t", "5", "call", "network", "reload"])

    def reload_firewall(self) -> None:
        _run([self._firewall, "reload"])


class BusNetifd:
    """Netifd through the agent's ubus connection, which saves starting a process in each pass.

    `call(object, method)` blocks and returns the answer, or None without a connection; then `programs` are used.
    """

    def __init__(self, call: Callable[[str, str], Mapping[str, Any] | None], programs: Netifd) -> None:
        self._call = call
        self._programs = programs

    def interfaces(self) -> Mapping[str, Interface] | None:
        answer = self._call("network.interface", "dump")
        return self._programs.interfaces() if answer is None else _interfaces(answer)

    def reload_network(self) -> None:
        if self._call("network", "reload") is None:
            self._programs.reload_network()

    def reload_firewall(self) -> None:
        self._programs.reload_firewall()


def parse_dump(printed: str) -> dict[str, Interface]:
    """Parses the output of `network.interface dump` (netifd: ubus.c). Raises BusError."""
    try:
        return _interfaces(json.loads(printed))
    except ValueError as exc:
        raise BusError(_UNEXPECTED) from exc


def _interfaces(answer: Mapping[str, Any]) -> dict[str, Interface]:
    try:
        return {str(item["interface"]): _interface(item) for item in answer["interface"]}
    except (KeyError, TypeError, AttributeError) as exc:
        raise BusError(_UNEXPECTED) from exc


def _interface(item: Mapping[str, Any]) -> Interface:
    addresses = [*item.get("ipv4-address", ()), *item.get("ipv6-address", ())]
    return Interface(
        name=str(item["interface"]),
        up=bool(item.get("up")),
        device=str(item.get("device") or ""),
        l3_device=str(item.get("l3_device") or ""),
        addresses=frozenset(str(address["address"]) for address in addresses),
        is_uplink=any(
            route.get("target") in _EVERYWHERE and not route.get("mask") for route in item.get("route", ())
        ),
    )


def is_up(name: str, interfaces: Mapping[str, Interface] | None) -> bool:
    """Whether a UCI interface, or else a device of that name, is up."""
    if interfaces is not None and name in interfaces:
        return interfaces[name].up
    flags = _flags(name)
    return flags is not None and flags & (_INTERFACE_UP | _RUNNING) == _UP | _RUNNING


def has_device(name: str) -> bool:
    """Whether the kernel has a network device of that name."""
    return _flags(name) is not None


def _flags(name: str) -> int | None:
    raw = name.encode("utf-8", "surrogateescape")
    if not 0 < len(raw) <= _NAME_MAX or b"\0" in raw:
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asked:
        try:
            answer = fcntl.ioctl(asked, _SIOCGIFFLAGS, _REQUEST.pack(raw, 0))
        except OSError:
            return None
    return int(_REQUEST.unpack(answer[: _REQUEST.size])[1])


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise BusError(f"{command[0]} failed: {type(exc).__name__}") from exc
    if done.returncode:
        said = " ".join(done.stderr.split())[:256]
        raise BusError(f"{' '.join(command)} failed ({done.returncode}): {said}")
    return done.stdout
