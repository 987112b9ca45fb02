# SPDX-License-Identifier: GPL-2.0-or-later
"""Parses dockerd's options, with their mirrors, registries and proxies, into values of daemon.json. Pure; raises
QuantityError.

Accepted is what the stock init script, dockerd's own parsers (20.10 to 29) and Go accept. If another form is
preferable, the result is `Discouraged`. `dockerd --validate` accepts invalid addresses, subnets, ports and drivers (tested
with 28.5.2), so we check these ourselves.
"""

from __future__ import annotations

import contextlib
import ipaddress
import posixpath
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from agent.model.dockerd.settings import Host, Json
from agent.model.entries import parse_address, parse_subnet, parse_ulimit
from agent.model.quantities import QuantityError, few_bytes, parse_bool, parse_int, parse_pair, parse_size

HOST_FORM = "unix:///path, tcp://address:port or tcp://[IPv6 address]:port"
SOCKET_PATH_MAX = 107  # sockaddr_un.sun_path without its final NUL
DOCKER_SOCKET = "unix:///var/run/docker.sock"
DOCKER_PORT = 2375  # dockerd's port if a TCP host has none (moby opts/hosts.go)
_WRONG_SCHEMES = ("tcp6://", "inet6://", "inet://", "http://", "https://")
_TCP = re.compile(r"(?:\[(?P<six>[^\]]*)\]|(?P<four>[^:\[\]/]*))(?::(?P<port>\d{0,5}))?/?", re.ASCII)
_FEATURE = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
# as on dockerd's command line, with and without the names
_POOL = re.compile(r"(?:base=)?(?P<base>[0-9A-Fa-f:.]+/\d+),(?:size=)?/?(?P<size>\d+)", re.ASCII)
# the same in the other order
_POOL_BACKWARDS = re.compile(r"size=/?(?P<size>\d+),base=(?P<base>[0-9A-Fa-f:.]+/\d+)", re.ASCII)
# between pools that people wrote into one entry
_NEXT_POOL = re.compile(r"[\s,;]+(?=(?:base=)?[0-9A-Fa-f]*[:.][0-9A-Fa-f:.]*/\d)")
# a firewall mark, with or without a mask
_MARK = re.compile(r"(0[xX][0-9a-fA-F]{1,8}|\d{1,10})(?:/(0[xX][0-9a-fA-F]{1,8}|\d{1,10}))?", re.ASCII)
_DOMAIN_PART = "[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_DOMAIN = re.compile(rf"(?=.*[A-Za-z]){_DOMAIN_PART}(?:\.{_DOMAIN_PART})*\.?")
_LINK_LOCAL = ipaddress.IPv6Network("fe80::/64")
# prefixes that Docker keeps for itself
_RESERVED_LABELS = ("com.docker.", "io.docker.", "org.dockerproject.")
_INT_MAX = 2**31 - 1  # of a Go `int` on a 32-bit router
_TIMEOUT_MAX = 3600  # seconds
# names of setrlimit(2) limits in the engine (docker/go-units ulimit.go)
_ULIMITS = frozenset({
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice",
    "nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Discouraged:
    """A value that is accepted but should be written differently: `value` is used, the rest is for the user."""

    value: Json | Host | tuple[str, Json]
    wrong: str
    better: str


def split_pools(text: str) -> tuple[str, ...]:
    """Splits an entry that holds several address pools, and removes spaces. Also accepts the JSON form of daemon.json,
    `{"base": "10.10.0.0/16", "size": 24}`."""
    plain = re.sub(r"[{}\"']", "", text)
    plain = re.sub(r"(base|size)\s*[:=]\s*", r"\1=", plain).strip(" ,;")
    parts = (plain,) if plain.startswith("size=") else _NEXT_POOL.split(plain)
    return tuple(filter(None, (re.sub(r"[\s,;]+", ",", part.strip(" ,;")) for part in parts)))


def parse_host(text: str) -> Host | Discouraged:
    """One entry of `hosts`. If the scheme belongs to another program, the error names the right one."""
    for scheme in _WRONG_SCHEMES:
        if text.startswith(scheme):
            form = "tcp://[address]:port" if "6" in scheme else "tcp://address:port"
            raise QuantityError(f"dockerd does not know {scheme}", form)
    if text.startswith("fd://"):
        raise QuantityError("fd:// needs systemd's socket activation", DOCKER_SOCKET)
    if text.startswith("unix://"):
        return _unix(text)
    bare = "://" not in text
    match = _TCP.fullmatch(text.removeprefix("tcp://"))
    address_alone = re.fullmatch(r"\[.*\]|\d+(\.\d+){3}", text) is not None
    if (
        match is None
        or (bare and not match["port"] and not address_alone)
        or not (bare or text.startswith("tcp://"))
    ):
        raise QuantityError(f"{text!r} is not an address to listen on", HOST_FORM)
    port = parse_int(match["port"] or str(DOCKER_PORT), minimum=1, maximum=65535)
    if match["six"] is not None:
        address = _listening(match["six"], 6)
        host = Host(text=f"tcp://[{address}]:{port}", address=address, port=port)
    else:
        # dockerd's default for a host without an address
        address = "127.0.0.1" if match["four"] in {"localhost", ""} else _listening(match["four"], 4)
        host = Host(text=f"tcp://{address}:{port}", address=address, port=port)
    if match["six"] is None and not match["four"]:
        every = f"tcp://0.0.0.0:{port} to listen on all addresses"
        return Discouraged(
            host, f"without an address dockerd listens on {address} only", f"{host.text}, or {every}"
        )
    if bare or not match["port"]:
        return Discouraged(host, f"{text!r} is not a complete address", host.text)
    return host


def _unix(text: str) -> Host | Discouraged:
    path = text.removeprefix("unix://") or "/var/run/docker.sock"
    if path.endswith("/") or "://" in path:
        raise QuantityError(f"{text!r} has no absolute path", DOCKER_SOCKET)
    absolute = path if path.startswith("/") else f"/{path}"  # procd starts dockerd in /
    if len(absolute.encode()) > SOCKET_PATH_MAX:
        raise QuantityError("the path of the socket is too long", f"{SOCKET_PATH_MAX} bytes at most")
    host = Host(text=f"unix://{absolute}", address=absolute)
    return host if text == host.text else Discouraged(host, f"{text!r} has no absolute path", host.text)


def _listening(text: str, version: int) -> str:
    if "%" in text:
        raise QuantityError(f"{text!r} names an interface", "an address that is not link-local")
    if not text:
        raise QuantityError("the address is missing", "tcp://[::]:port for all of them, or one address")
    return parse_address(text, version=version)


def is_loopback(host: Host) -> bool:
    """Whether only the router itself can connect to this host."""
    return host.is_unix or ipaddress.ip_address(host.address).is_loopback


def parse_data_root(text: str) -> Json | Discouraged:
    """An absolute directory, without doubled or trailing slashes (stock: /opt/docker/)."""
    path = posixpath.normpath(f"/{text}").replace("//", "/")  # under procd, dockerd's working directory is /
    if path == "/":
        raise QuantityError(f"{text!r} is not a separate directory", "an absolute path such as /opt/docker")
    if text.startswith("~") or "$" in text:
        return Discouraged(
            path,
            "`~` and variables are not expanded here: the folder would have that name",
            "the absolute path",
        )
    if not text.startswith("/") or {".", ".."} & set(text.split("/")):
        return Discouraged(path, f"{text!r} is not an absolute path", path)
    return path


def parse_bip(text: str) -> Json:
    """Address and prefix of the bridge itself: an address that a device can have."""
    return _bridge_address(text, 4, "172.18.0.1/24")


def parse_bip6(text: str) -> Json | Discouraged:
    """Like `parse_bip`, but dockerd also accepts a subnet (tested with 29), whose first address the bridge then gets."""
    # try it as a network first; an address with host bits, the usual form, is handled below
    try:
        network = ipaddress.IPv6Network(text)
    except ValueError:
        return _bridge_address(text, 6, "fd00:17::1/64")
    if "/" not in text or network.prefixlen > network.max_prefixlen - 2:
        return _bridge_address(text, 6, "fd00:17::1/64")
    address = f"{network[1]}/{network.prefixlen}"
    return Discouraged(address, f"{text!r} is the subnet, not an address in it", address)


def _bridge_address(text: str, version: int, example: str) -> str:
    expected = f"an IPv{version} address with prefix such as {example}"
    try:
        interface = ipaddress.ip_interface(text)
    except ValueError:
        raise QuantityError(f"{text!r} is not an address with a prefix", expected) from None
    network = interface.network
    if network.version != version or "/" not in text:
        raise QuantityError(f"{text!r} is not an IPv{version} address with a prefix", expected)
    # dockerd accepts it, but then the first container finds no free address
    if network.prefixlen > network.max_prefixlen - 2:
        raise QuantityError(f"{text!r} leaves no address for a container", expected)
    if interface.ip == network.network_address or (
        version == 4 and interface.ip == network.broadcast_address
    ):
        raise QuantityError(
            f"{text!r} is the subnet, not an address in it", str(network[1]) + f"/{network.prefixlen}"
        )
    return str(interface)


def parse_fixed_cidr(text: str) -> Json | Discouraged:
    return _subnet(text, 4, "172.18.0.128/25")


def parse_fixed_cidr_v6(text: str) -> Json | Discouraged:
    """moby libnetwork, ValidateFixedCIDRV6: must not be part of the link-local prefix or larger than it, and must not be
    IPv4."""
    found = _subnet(text, 6, "fd00:17::/64")
    network = ipaddress.IPv6Network(str(found.value if isinstance(found, Discouraged) else found))
    if (network.overlaps(_LINK_LOCAL) and network != _LINK_LOCAL) or network.network_address.ipv4_mapped:
        raise QuantityError(f"{text!r} cannot be docker0's subnet", "an IPv6 subnet such as fd00:17::/64")
    return found


def parse_any_subnet(text: str) -> Json | Discouraged:
    """A subnet of either version."""
    return _subnet(text, 0, "10.0.0.0/8")


def _subnet(text: str, version: int, example: str) -> Json | Discouraged:
    """A subnet; an address inside a subnet stands for that subnet, as in Go's net.ParseCIDR."""
    subnet = str(ipaddress.ip_network(text, strict=False)) if _has_host_bits(text) else parse_subnet(text)
    if version and ipaddress.ip_network(subnet).version != version:
        raise QuantityError(f"{text!r} is not IPv{version}", f"an IPv{version} subnet such as {example}")
    return (
        subnet
        if not _has_host_bits(text)
        else Discouraged(subnet, f"{text!r} is an address inside a subnet", subnet)
    )


def _has_host_bits(text: str) -> bool:
    try:
        interface = ipaddress.ip_interface(text)
    except ValueError:
        return False
    return "/" in text and interface.ip != interface.network.network_address


def parse_pool(text: str) -> Json | Discouraged:
    """`10.10.0.0/16,24`: networks get /24 parts of that subnet. Also accepts dockerd's `base=...,size=...`, and other
    spellings."""
    match = _POOL.fullmatch(text) or _POOL_BACKWARDS.fullmatch(text)
    if match is None:
        if _has_host_bits(text) or re.fullmatch(r"[0-9A-Fa-f:.]+/\d{1,3}", text, re.ASCII):
            raise QuantityError(
                f"{text!r} does not say how large a network is",
                f"subnet,prefix such as {text},{'64' if ':' in text else '24'}",
            )
        raise QuantityError(f"{text!r} is not a pool of addresses", "subnet,prefix such as 10.10.0.0/16,24")
    found = _subnet(match["base"], 0, "10.10.0.0/16")
    network = ipaddress.ip_network(str(found.value if isinstance(found, Discouraged) else found))
    # two bits for hosts: network, broadcast and gateway address need three of four
    size = parse_int(match["size"], minimum=network.prefixlen, maximum=network.max_prefixlen - 2)
    pool: Json = {"base": str(network), "size": size}
    if isinstance(found, Discouraged):
        return Discouraged(pool, found.wrong, f"{network},{size}")
    if text != f"{match['base']},{match['size']}":
        return Discouraged(pool, "this is a non-standard form of a pool", f"{network},{size}")
    return pool


def parse_mtu(text: str) -> Json | Discouraged:
    if text == "0":
        return Discouraged(None, "0 is dockerd's default", "no mtu, or 68 to 65535")
    return parse_int(text, minimum=68, maximum=65535)


def parse_timeout(text: str) -> Json | Discouraged:
    """Seconds. To dockerd 0 means its default, and a negative number means to wait for ever."""
    seconds = parse_int(text, minimum=-_INT_MAX, maximum=_INT_MAX)
    if seconds == 0:
        return Discouraged(15, "0 is dockerd's default", "15, or another number of seconds")
    if seconds < 0 or seconds > _TIMEOUT_MAX:
        wrong = "dockerd would wait forever" if seconds < 0 else "a shutdown does not wait that long"
        return Discouraged(_TIMEOUT_MAX, wrong, str(_TIMEOUT_MAX))
    return seconds


def parse_downloads(text: str) -> Json | Discouraged:
    return _count(text, 3)


def parse_uploads(text: str) -> Json | Discouraged:
    return _count(text, 5)


def parse_attempts(text: str) -> Json | Discouraged:
    return _count(text, 5)


def _count(text: str, default: int) -> Json | Discouraged:
    """A count; to dockerd 0 means its default."""
    count = parse_int(text, minimum=0, maximum=_INT_MAX)
    return count or Discouraged(default, "0 is dockerd's default", f"{default}, or another number")


def parse_shm_size(text: str) -> Json | Discouraged:
    """The size as text, as daemon.json requires it (moby opts.MemBytes)."""
    size = parse_size(text)
    if not size:
        raise QuantityError("must be greater than 0", "a size such as 64m")
    return Discouraged(str(size), wrong, f"{text}m") if (wrong := few_bytes(text)) else str(size)


def parse_default_ulimit(text: str) -> tuple[str, Json]:
    limit = parse_ulimit(text)
    if limit.name not in _ULIMITS:
        raise QuantityError(f"{limit.name!r} is not a limit", "one of " + ", ".join(sorted(_ULIMITS)))
    return limit.name, {"Name": limit.name, "Soft": limit.soft, "Hard": limit.hard}


def parse_label(text: str) -> str:
    """`key=value`; some namespaces are reserved for Docker (moby opts.ValidateLabel)."""
    if text.lower().startswith(_RESERVED_LABELS):
        raise QuantityError(f"{text.partition('=')[0]!r} is reserved for Docker", "a key of your own")
    return text


def parse_feature(text: str) -> tuple[str, Json]:
    """`name=true`, `name=0`, or `name` for true, as for dockerd's `--feature`."""
    name, equals, value = text.partition("=")
    parse_pair(text)
    if not _FEATURE.fullmatch(name):
        raise QuantityError(
            f"{name!r} is not the name of a feature", "name=true such as containerd-snapshotter=true"
        )
    return name, parse_bool(value.lower()) if equals else True


def parse_exec_opt(text: str) -> Json:
    """The only option that dockerd knows on Linux (moby daemon/config, parseExecOptions)."""
    key, _, value = text.partition("=")
    if key.strip().lower() != "native.cgroupdriver" or value.strip() not in {"cgroupfs", "systemd"}:
        raise QuantityError(f"{text!r} is not an option that dockerd knows", "native.cgroupdriver=cgroupfs")
    return f"native.cgroupdriver={value.strip()}"


def parse_remap(text: str) -> Json:
    """`default`, or a user (and group) by name or number (moby daemon, parseRemappedRoot)."""
    part = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
    if not re.fullmatch(rf"{part}(?::{part})?", text, re.ASCII):
        raise QuantityError(f"{text!r} is not a user", "default, or user[:group]")
    return text


def parse_seccomp(text: str) -> Json:
    if text not in {"builtin", "unconfined"} and not text.startswith("/"):
        raise QuantityError(f"{text!r} is not a profile", "builtin, unconfined, or the absolute path of one")
    return text


def seccomp_needs(profile: Json) -> tuple[int, int]:
    """The first version that accepts the profile: before 23.0 dockerd takes every value for a path."""
    return (0, 0) if str(profile).startswith("/") else (23, 0)


def parse_cgroup(text: str) -> Json:
    if not re.fullmatch(r"/?[A-Za-z0-9_.:@-]+(?:/[A-Za-z0-9_.:@-]+)*", text) or ".." in text.split("/"):
        raise QuantityError(
            f"{text!r} is not a cgroup", "a name such as docker, or a path such as /services/docker"
        )
    return text


def parse_mark(text: str) -> Json:
    """A 32-bit firewall mark, optionally with a mask (moby daemon/config, validateFwMarkMask)."""
    match = _MARK.fullmatch(text)
    if match is None or any(int(part, 0) >= 2**32 for part in match.groups() if part and _is_number(part)):
        raise QuantityError(f"{text!r} is not a firewall mark", "mark[/mask] such as 0x1/0x3")
    return text


def _is_number(text: str) -> bool:
    try:
        int(text, 0)
    except ValueError:  # to Go, a decimal number with a leading zero is a number
        return False
    return True


def parse_domain(text: str) -> Json:
    """A search domain, or `.` for none (moby opts.ValidateDNSSearch)."""
    if text != "." and (not _DOMAIN.fullmatch(text) or len(text) > 254):
        raise QuantityError(f"{text!r} is not a domain", "a domain such as lan, or . for none")
    return text


_REGISTRY = re.compile(r"(?!-)(?:[A-Za-z0-9._-]+(?<!-)|\[[0-9a-fA-F:]+\])(?::(\d{1,5}))?", re.ASCII)
_PROXY_SCHEMES = frozenset({"http", "https", "socks5", "socks5h"})  # the schemes of Go's net/http
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_AROUND_URLS = " ,;|，；、\"'"
# between URLs that people wrote into one entry
_SEVERAL_URLS = re.compile(r"[\s,;|，；、\"']+(?=https?://)", re.IGNORECASE)
_URL_HOST = re.compile(r"[^\s\\^`{|}]+")  # the characters that Go's net/url accepts


def split_urls(text: str) -> tuple[str, ...]:
    """Splits an entry that holds several URLs, as people write `a,b` or, like in daemon.json, `["a", "b"]`."""
    inner = text[1:].removesuffix("]") if text.startswith("[") else text
    return tuple(filter(None, (part.strip(_AROUND_URLS) for part in _SEVERAL_URLS.split(inner))))


def parse_mirror(text: str) -> Json | Discouraged:
    """A registry mirror without user and query (moby registry/config.go, ValidateMirror)."""
    form = "http(s)://host[:port][/path]"
    parts = _url(text)
    if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname:
        host = re.sub(r"^https?:?/*", "", text, flags=re.IGNORECASE)
        # the suggestion must itself be valid, and must not show a login
        fixed = _url(f"https://{host}") if "://" not in host else None
        is_right = fixed is not None and bool(fixed.hostname) and fixed.username is None
        wish = f"https://{host}" if is_right else form
        raise QuantityError("the mirror does not start with http:// or https://", wish)
    if parts.username is not None or parts.query or parts.fragment:
        raise QuantityError("the mirror has more than a host, a port and a path", form)
    if not _URL_HOST.fullmatch(parts.netloc):
        raise QuantityError(f"{parts.netloc!r} is not a host", form)
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}/"


def mirror_needs(mirror: Json) -> tuple[int, int]:
    """The first version of dockerd that accepts the mirror: with a path it needs 24.0 (tested; 23.0 refuses to start)."""
    return (24, 0) if urlsplit(str(mirror)).path not in {"", "/"} else (0, 0)


def _url(text: str) -> SplitResult | None:
    """The parts of a URL, None if it is not one."""
    try:
        parts = urlsplit(text)
        return parts if parts.port != 0 and not re.search(r"\s", text) else None
    except ValueError:
        return None


def parse_registry(text: str) -> Json | Discouraged:
    """host[:port], or a subnet. dockerd ignores a scheme (moby registry/config.go, loadInsecureRegistries)."""
    name = re.sub(r"^https?://", "", text, flags=re.IGNORECASE).removesuffix("/")
    # drop a path, for example of the API or of an image; after an address it is the prefix of a subnet
    host, slash, _ = name.partition("/")
    if slash and not re.fullmatch(r"[0-9.]+|[0-9a-fA-F:]*:[0-9a-fA-F:]*", host):
        name = host
    if "/" in name:
        found = parse_any_subnet(name)
    else:
        with contextlib.suppress(ValueError):
            # as host:port its last part would be taken for a port
            if ipaddress.ip_address(name).version == 6:
                return Discouraged(
                    f"{name}/128", f"{text!r} is an IPv6 address without brackets", f"{name}/128"
                )
        match = _REGISTRY.fullmatch(name)
        if match is None:
            raise QuantityError(f"{text!r} is not a registry", "host[:port] or a subnet, without http://")
        if match[1]:
            parse_int(match[1], minimum=1, maximum=65535)
        found = name
    if name != text:
        value = found.value if isinstance(found, Discouraged) else found
        return Discouraged(value, f"{text!r} is more than a registry's name", str(value))
    return found


def parse_proxy(text: str) -> Json | Discouraged:
    """The URL of a proxy; without a scheme it is http://, as in Go. Errors never quote it, because it may contain a
    password."""
    form = "a URL such as http://proxy.lan:3128 or socks5://proxy.lan:1080"
    # Go's rule (golang.org/x/net/http/httpproxy): without a scheme it is http
    complete = text if _SCHEME.match(text) else f"http://{text}"
    parts = _url(complete)
    if parts is None or not parts.hostname:
        raise QuantityError("the proxy is not a URL", form)
    if parts.scheme not in _PROXY_SCHEMES:
        raise QuantityError(f"dockerd has no proxies of the kind {parts.scheme}://", form)
    if complete != text:
        return Discouraged(
            complete, "the proxy has no scheme and is used as http://", "http:// before its address"
        )
    return text


def parse_no_proxy(text: str) -> Json | Discouraged:
    """Names and subnets separated by commas; Go ignores spaces around them."""
    names = ",".join(part for part in re.split(r"[\s,;]+", text) if part)
    if not names:
        raise QuantityError("it holds no name", "names and subnets separated by commas")
    return (
        names if names == text else Discouraged(names, "the names are not separated by commas alone", names)
    )
