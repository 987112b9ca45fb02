# SPDX-License-Identifier: GPL-2.0-or-later
"""The small languages of dockerd's options, each parsed into what daemon.json holds. Pure; raises QuantityError.

`dockerd --validate` accepts wrong addresses, subnets, ports and drivers (tried on 28.5.2), hence these checks are ours.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

from agent.model.daemon import Host, Json
from agent.model.entries import parse_address, parse_subnet, parse_ulimit
from agent.model.quantities import QuantityError, parse_int, parse_size

HOST_FORM = "unix:///path, tcp://address:port or tcp://[IPv6 address]:port"
SOCKET_PATH_MAX = 107  # sockaddr_un.sun_path without its final NUL
_WRONG_SCHEMES = ("tcp6://", "inet6://", "inet://", "http://", "https://")
_TCP = re.compile(r"tcp://(?:\[(?P<six>[^\]]*)\]|(?P<four>[^:\[\]/]*)):(?P<port>\d{1,5})/?", re.ASCII)
_REGISTRY = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9a-fA-F:]+\])(?::(\d{1,5}))?", re.ASCII)


def parse_host(text: str) -> Host:
    """One of `hosts`. Schemes that other programs know are refused by the name of ours."""
    for scheme in _WRONG_SCHEMES:
        if text.startswith(scheme):
            form = "tcp://[address]:port" if "6" in scheme else "tcp://address:port"
            raise QuantityError(f"dockerd does not know {scheme}", form)
    if text.startswith("fd://"):
        raise QuantityError("fd:// needs systemd's socket activation", "unix:///var/run/docker.sock")
    if text.startswith("unix://"):
        return _unix(text)
    match = _TCP.fullmatch(text)
    if match is None:
        raise QuantityError(f"{text!r} is no address to listen on", HOST_FORM)
    port = parse_int(match["port"], minimum=1, maximum=65535)
    if match["six"] is not None:
        address = _listening(match["six"], 6)
        return Host(text=f"tcp://[{address}]:{port}", address=address, port=port)
    address = "127.0.0.1" if match["four"] == "localhost" else _listening(match["four"], 4)
    return Host(text=f"tcp://{address}:{port}", address=address, port=port)


def _unix(text: str) -> Host:
    path = text.removeprefix("unix://")
    if not path.startswith("/") or path.endswith("/"):
        raise QuantityError(f"{text!r} has no absolute path", "unix:///var/run/docker.sock")
    if len(path.encode()) > SOCKET_PATH_MAX:
        raise QuantityError("the path of the socket is too long", f"{SOCKET_PATH_MAX} bytes at most")
    return Host(text=text, address=path)


def _listening(text: str, version: int) -> str:
    if "%" in text:
        raise QuantityError(f"{text!r} names an interface", "an address that is not link-local")
    if not text:
        raise QuantityError("the address is missing", "tcp://0.0.0.0:port for all of them, or one address")
    return parse_address(text, version=version)


def is_loopback(host: Host) -> bool:
    """Whether only the router itself can come to this host."""
    return host.is_unix or ipaddress.ip_address(host.address).is_loopback


def parse_data_root(text: str) -> str:
    """An absolute directory, without doubled or trailing slashes (stock: /opt/docker/)."""
    parts = [part for part in text.split("/") if part]
    if not text.startswith("/") or not parts or ".." in parts or "." in parts:
        raise QuantityError(f"{text!r} is no directory of its own", "an absolute path such as /opt/docker")
    return "/" + "/".join(parts)


def parse_bip(text: str) -> str:
    """Address and prefix of the bridge itself: an address that a device can have."""
    expected = "an IPv4 address with prefix such as 172.18.0.1/24"
    try:
        interface = ipaddress.IPv4Interface(text)
    except ValueError:
        raise QuantityError(f"{text!r} is no address with a prefix", expected) from None
    network = interface.network
    if network.prefixlen > 30:
        raise QuantityError(f"{text!r} leaves no address for a container", expected)
    if interface.ip in {network.network_address, network.broadcast_address}:
        raise QuantityError(
            f"{text!r} is the subnet, not an address in it", str(network[1]) + f"/{network.prefixlen}"
        )
    return str(interface)


def parse_fixed_cidr(text: str) -> str:
    return _subnet(text, 4, "172.18.0.128/25")


def parse_fixed_cidr_v6(text: str) -> str:
    return _subnet(text, 6, "fd00:17::/64")


def _subnet(text: str, version: int, example: str) -> str:
    subnet = parse_subnet(text)
    if ipaddress.ip_network(subnet).version != version:
        raise QuantityError(f"{text!r} is not IPv{version}", f"an IPv{version} subnet such as {example}")
    return subnet


def parse_pool(text: str) -> Json:
    """`10.10.0.0/16,24`: networks get /24 pieces of that subnet."""
    base, comma, prefix = text.partition(",")
    if not comma:
        raise QuantityError(
            f"{text!r} does not say how large a network is", "subnet,prefix such as 10.10.0.0/16,24"
        )
    network = ipaddress.ip_network(parse_subnet(base))
    size = parse_int(prefix, minimum=network.prefixlen, maximum=network.max_prefixlen - 2)
    return {"base": str(network), "size": size}


def parse_mirror(text: str) -> str:
    """A registry mirror without user, path and query (moby registry/config.go, ValidateMirror)."""
    parts = _url(text)
    if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname:
        raise QuantityError("the mirror is no URL of a host", "http(s)://host[:port]")
    if parts.username is not None or parts.query or parts.fragment or parts.path not in {"", "/"}:
        raise QuantityError("the mirror has more than a host and a port", "http(s)://host[:port]")
    return f"{parts.scheme}://{parts.netloc}/"


def _url(text: str) -> SplitResult | None:
    """Its parts, None for what is no URL."""
    try:
        parts = urlsplit(text)
        return parts if parts.port != 0 else None
    except ValueError:
        return None


def parse_registry(text: str) -> str:
    """host[:port], or a subnet."""
    if "/" in text:
        return parse_subnet(text)
    match = _REGISTRY.fullmatch(text)
    if match is None:
        raise QuantityError(f"{text!r} is no registry", "host[:port] or a subnet, without http://")
    if match[1]:
        parse_int(match[1], minimum=1, maximum=65535)
    return text


def parse_proxy(text: str) -> str:
    """A proxy's URL. Never echoed: it may hold a password."""
    parts = _url(text)
    if parts is None or not parts.scheme or not parts.hostname:
        raise QuantityError("the proxy is no URL", "a URL such as http://proxy.lan:3128")
    return text


def parse_mtu(text: str) -> int:
    return parse_int(text, minimum=68, maximum=65535)


def parse_timeout(text: str) -> int:
    return parse_int(text, minimum=1, maximum=3600)


def parse_count(text: str) -> int:
    return parse_int(text, minimum=1, maximum=999)


def parse_shm_size(text: str) -> str:
    """daemon.json wants the size as text (moby opts.MemBytes)."""
    size = parse_size(text)
    if not size:
        raise QuantityError("there has to be some", "a size such as 64m")
    return str(size)


def parse_default_ulimit(text: str) -> tuple[str, Json]:
    limit = parse_ulimit(text)
    return limit.name, {"Name": limit.name, "Soft": limit.soft, "Hard": limit.hard}
