# SPDX-License-Identifier: GPL-2.0-or-later
"""Addresses of a machine: where to listen, where the engine is, interfaces and routes, and names in a server
certificate."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from agent.errors import ConfigError
from agent.model.quantities import QuantityError

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
_FORM = "address:port or [address]:port, such as 192.168.1.1:2380"


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """One entry of `listen`. With port 0 the kernel chooses the port."""

    ip: IpAddress
    port: int

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if self.ip.version == 6 else f"{self.ip}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A port of this machine that is in use, with a sentence that says by what. `ip` "" means every address."""

    port: int
    protocol: str
    ip: str = ""
    said: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What is known of the machine that the engine runs on. `listeners`: the programs that use its ports. `lacks`: whether
    it does not have an address at the moment."""

    listeners: tuple[Listener, ...] = ()
    lacks: Callable[[str], bool] = lambda _: False


UNKNOWN_MACHINE = Machine()


def parse_listen(text: str) -> ListenAddress:
    """Parses an address (in brackets if it is IPv6) and a port. Raises QuantityError."""
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    # brackets are required, not guessed: `::1:80` is itself a valid IPv6 address
    try:
        ip = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        raise QuantityError(f"{host!r} is not an IP address", _FORM) from None
    if bracketed is not (ip.version == 6):
        raise QuantityError(f"{text!r}: an IPv6 address stands in brackets, an IPv4 address does not", _FORM)
    if not (re.fullmatch(r"[0-9]{1,5}", port) and int(port) <= 65535):
        raise QuantityError(f"{port!r} is not a port", "a port from 1 to 65535")
    return ListenAddress(ip, int(port))


# Where the Docker Engine listens. Read by `agent.uci` and the command line, used by the clients of the engine.


_ENGINE_FORM = "unix:///path, tcp://address:port or tcp://[address]:port"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineAddress:
    """The path of a unix socket, or a host and port."""

    path: str = ""
    host: str = ""
    port: int = 0

    @property
    def is_local(self) -> bool:
        """Whether the engine runs on this machine. Only then can its devices, paths and firewall be checked here."""
        if self.path or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:  # a host name: without a lookup its address is unknown
            return False

    @property
    def netloc(self) -> str:
        """`host:port`, in the form of a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"unix://{self.path}" if self.path else f"tcp://{self.netloc}"


def parse_engine_address(text: str) -> EngineAddress:
    """A Docker host URL. Raises QuantityError."""
    try:
        parts = urlsplit(text)
        # `port` raises for numbers out of range, `hostname` for unclosed brackets
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise QuantityError(f"{text!r}: {exc}", _ENGINE_FORM) from exc
    if parts.scheme == "unix" and not parts.netloc and parts.path.startswith("/"):
        return EngineAddress(path=parts.path)
    # reject everything else, as Docker's form does not have it: a user name or path would be ignored silently
    bare = not (parts.path or parts.query or parts.fragment or "@" in parts.netloc)
    if parts.scheme == "tcp" and host and port and bare:
        return EngineAddress(host=host, port=port)
    raise QuantityError(f"{text!r} is not an address of an engine", _ENGINE_FORM)


# UCI interfaces as netifd reports them, which connect names in `/etc/config` with devices of the kernel; and the
# kernel's routes.


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """`l3_device` carries the addresses (pppoe-wan), `device` is the device below it (eth1); "" if netifd has none.

    `is_uplink`: the interface has a default route.
    """

    name: str
    up: bool = False
    device: str = ""
    l3_device: str = ""
    addresses: frozenset[str] = frozenset()
    is_uplink: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Route:
    """A subnet that this machine reaches through a device; `direct`: on the link, not through a router or tunnel."""

    device: str
    subnet: str
    direct: bool


# The names and addresses that dockerd's certificate is valid for (subject alternative names, RFC 5280 4.2.1.6).
#
# Pure: the caller provides the host name and the addresses of the LAN.


_ALWAYS = ("localhost", "127.0.0.1", "::1")  # names under which the machine reaches itself
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


def server_names(*, hostname: str, addresses: Iterable[str] = (), san: Iterable[str] = ()) -> tuple[str, ...]:
    """The names, then the addresses, each sorted and without duplicates. Raises ConfigError listing every `san` that is
    neither.

    A host name that cannot be in a certificate is left out, because the kernel accepts any bytes as a host name.
    """
    found = {normal_name(text) for text in (*_ALWAYS, *addresses)}
    with contextlib.suppress(ConfigError):
        found.add(normal_name(hostname))
    return tuple(sorted(found | set(normal_names(san)), key=lambda name: (is_address(name), name)))


def normal_names(names: Iterable[str]) -> tuple[str, ...]:
    """`normal_name` of each, in order. Raises ConfigError listing all invalid ones."""
    good, wrong = [], []
    for name in names:
        try:
            good.append(normal_name(name))
        except ConfigError as exc:
            wrong.append(str(exc))
    if wrong:
        raise ConfigError("; ".join(wrong))
    return tuple(good)


def normal_name(text: str) -> str:
    """The canonical spelling of a DNS name or IP address. Raises ConfigError."""
    if is_address(text):
        return str(ipaddress.ip_address(text))
    name = text.lower().removesuffix(".")
    labels = name.removeprefix("*.").split(".")
    # a last label of digits is a mistyped address, which no resolver would look up
    if len(name) > 253 or labels[-1].isdigit() or not all(map(_LABEL.fullmatch, labels)):
        raise ConfigError(
            f"{text[:80]!r} is not a name for a certificate, expected a DNS name or an IP address"
        )
    return name


def is_address(text: str) -> bool:
    """Whether it is an IPv4 or IPv6 address without a zone: a zone has no meaning on another host."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


# The link to a container's web page, such as `https://[host]:[port:8443]/path`.


_PLACE = re.compile(r"\[([^\]]*)\]")  # a placeholder of `webui`, or an IPv6 address
_PORT_PLACE = re.compile(r"port:([0-9]{1,5})", re.ASCII)


def parse_webui(text: str) -> str:
    """The text unchanged. Raises QuantityError if brackets contain anything but `[host]`, `[port:N]` or an IPv6 address.

    The schema checks scheme and characters.
    """
    for match in _PLACE.finditer(text):
        port = _PORT_PLACE.fullmatch(match[1])
        if match[1] == "host" or (port and 0 < int(port[1]) <= 65535):
            continue
        try:
            ipaddress.IPv6Address(match[1])
        except ValueError:
            raise QuantityError(
                f"{match[0]!r} is not a place", "[host], or [port:8443] with a port of the container"
            ) from None
    return text


def webui_ports(text: str) -> frozenset[int]:
    """The container ports in a link."""
    return frozenset(
        int(port[1]) for match in _PLACE.finditer(text) if (port := _PORT_PLACE.fullmatch(match[1]))
    )


def with_ports(text: str, published: Mapping[int, int]) -> str:
    """The link with `[port:N]` replaced by host ports, as far as they are known. `published`: container port -> host
    port."""

    def port_of(match: re.Match[str]) -> str:
        port = _PORT_PLACE.fullmatch(match[1])
        return str(published.get(int(port[1]), match[0])) if port else match[0]

    return _PLACE.sub(port_of, text)
