# SPDX-License-Identifier: GPL-2.0-or-later
"""Option values with several parts: ports, volumes, tmpfs, devices, ulimits, networks, dependencies, waits.

The syntax is that of `docker run`. Every parser is pure and raises `QuantityError`; `agent.model.quantities` has the
simple values. Names are only split here; whether a network or section exists is checked later.
"""

from __future__ import annotations

import csv
import ipaddress
import re
from collections.abc import Callable

from agent.model.kernel_names import ULIMITS, near
from agent.model.quantities import QuantityError, parse_assignment, parse_int, parse_pair, parse_size
from agent.model.resources import (
    Dependency,
    DependsOn,
    Device,
    DeviceLimit,
    Endpoint,
    Gpus,
    Mount,
    Port,
    RestartPolicy,
    Tmpfs,
    Ulimit,
    WaitFor,
    WaitKind,
)

VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_PORT_FORM = "[ip:]host[-range]:container[-range][/tcp|udp|sctp] such as 8080:80 or 127.0.0.1:53:53/udp"
_VOLUME_FORM = (
    "source:/target[:ro,...] where source is an absolute path or a volume name (two or more of: letters, digits,"
    " _ . -)"
)
_DEVICE_FORM = "/dev/host[:/dev/container[:rwm]], usb:VID:PID[:serial] or vendor.com/class=name"
_NETWORK_FORM = (
    "name[,alias=a][,ip=address][,ip6=address][,mac=address][,link_local=address][,driver_opt=NAME=value]"
    "[,gw_priority=n]"
)
# spellings of `docker run --network name=...,`
_SETTINGS = {
    "mac_address": "mac",
    "mac-address": "mac",
    "link-local-ip": "link_local",
    "link_local_ip": "link_local",
    "driver-opt": "driver_opt",
    "gw-priority": "gw_priority",
}
_GPUS_FORM = "all, a number, or driver=, count=, device=, capabilities= and options= such as device=0,1"
_MAC = re.compile(
    r"([0-9a-f]{2}:){5}[0-9a-f]{2}|([0-9a-f]{2}-){5}[0-9a-f]{2}|([0-9a-f]{4}\.){2}[0-9a-f]{4}",
    re.IGNORECASE | re.ASCII,
)
_PLATFORM_PART = re.compile(r"[a-z0-9_-]+", re.ASCII)
# see mount_namespaces(7)
_PROPAGATION = frozenset({"shared", "rshared", "slave", "rslave", "private", "rprivate"})
# options of SELinux and Docker Desktop, without effect here
_WITHOUT_EFFECT = frozenset({"z", "Z", "cached", "delegated", "consistent"})
_IMAGE_PART = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_HOST_PART = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
# the first part is a host only if it looks like one; otherwise it belongs to the path
_IMAGE_HOST = (
    rf"(?=[^/]*[.:A-Z]|localhost/)(?:{_HOST_PART}(?:\.{_HOST_PART})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?/"
)
_DIGEST = r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}"
_IMAGE = re.compile(
    rf"(?:{_IMAGE_HOST})?({_IMAGE_PART}(?:/{_IMAGE_PART})*)(?::\w[\w.-]{{0,127}})?(?:@(?:{_DIGEST}))?",
    re.ASCII,
)
_IMAGE_PATH_MAX = 255  # characters; distribution/reference, RepositoryNameTotalLengthMax
_IMAGE_MAX = 512  # characters
_CDI = re.compile(
    r"[A-Za-z](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?/[A-Za-z](?:[A-Za-z0-9_-]*[A-Za-z0-9])?=[A-Za-z0-9](?:[A-Za-z0-9_.:-]*[A-Za-z0-9])?",
    re.ASCII,
)
_USB = re.compile(r"(usb:[0-9a-fA-F]{4}:[0-9a-fA-F]{4}(?::[^:/]+)?)(?::(/[^:]*)(?::([rwm]+))?)?")


def parse_image(text: str) -> str:
    """The name or id of an image (distribution/reference grammar); the engine refuses anything else."""
    found = _IMAGE.fullmatch(text) if len(text) <= _IMAGE_MAX else None
    if found is None or len(found[1]) > _IMAGE_PATH_MAX:
        digest = "@" in text and found is None and _IMAGE.fullmatch(text.partition("@")[0])
        wish = "a digest of sha256: and 64 hex digits" if digest else "lower-case letters"
        raise QuantityError(
            f"{text!r} is not an image reference", f"one such as nginx:1.27 or registry.lan:5000/app ({wish})"
        )
    return text


def parse_address(text: str, *, version: int = 0, zone: bool = False) -> str:
    """A canonical IP address; `version` 4 or 6 requires that family, `zone` allows a zone (fe80::1%eth0)."""
    expected = f"an IPv{version} address" if version else "an IP address"
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise QuantityError(f"{text!r} is not an IP address", expected) from None
    # a zone is an interface of this machine; it has no meaning in a container or on the network
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id and not zone:
        raise QuantityError(
            f"{text!r} has a zone, which means nothing here", f"{text.partition('%')[0]} without the zone"
        )
    if version and address.version != version:
        raise QuantityError(f"{text!r} is an IPv{address.version} address", expected)
    # canonical, so that two spellings of an address have the same hash
    return str(address)


def same_address(one: str, other: str) -> bool:
    """Whether two texts are the same IP address; False if one is not an address."""
    try:
        return ipaddress.ip_address(one) == ipaddress.ip_address(other)
    except ValueError:
        return False


def parse_server(text: str) -> str:
    """The address of a name server; it may be link-local, with a zone."""
    return parse_address(text, zone=True)


def addresses_meet(one: str, other: str) -> bool:
    """Whether the same port cannot be published on both host addresses at once; "" means every address."""
    if not one or not other or one == other:
        return True
    a, b = ipaddress.ip_address(one), ipaddress.ip_address(other)
    return a.version == b.version and (a.is_unspecified or b.is_unspecified)


def parse_subnet(text: str) -> str:
    """A canonical CIDR network without host bits."""
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise QuantityError(f"{text!r} is not a subnet", "address/bits such as 172.20.0.0/24") from None
    # Python takes an address alone for a subnet of one address
    if "/" not in text:
        raise QuantityError(f"{text!r} has no prefix length", "address/bits such as 172.20.0.0/24")
    if str(network.network_address) != str(ipaddress.ip_address(text.partition("/")[0])):
        raise QuantityError(f"{text!r} is an address inside a subnet", str(network))
    return str(network)


def parse_ports(text: str) -> tuple[Port, ...]:
    """The ports of one entry, with ranges expanded. Without a host port (0) the engine chooses one."""
    if re.search(r"[\s,;]", text.strip()):
        raise QuantityError(f"{text!r} holds more than one port", "one `list port` line for each")
    body, slash, protocol = text.partition("/")
    protocol = protocol.lower()
    if slash and protocol not in {"tcp", "udp", "sctp"}:
        raise QuantityError(f"{protocol!r} is not a protocol", "tcp, udp or sctp")
    protocol = protocol or "tcp"
    host_ip, host, container = _split_port(body)
    inner = _port_range(container, text)
    outer = _port_range(host, text) if host.strip("0") else (0,) * len(inner)  # 0 or nothing: any free port
    if len(inner) == 1 < len(outer):
        return (
            Port(
                container_port=inner[0],
                host_port=outer[0],
                host_port_end=outer[-1],
                host_ip=host_ip,
                protocol=protocol,
            ),
        )
    if len(inner) != len(outer):
        raise QuantityError(
            f"{len(outer)} host ports for {len(inner)} container ports in {text!r}",
            "ranges of one length, or a range of host ports for one container port",
        )
    return tuple(
        Port(container_port=c, host_port=h, host_ip=host_ip, protocol=protocol)
        for h, c in zip(outer, inner, strict=True)
    )


def _split_port(body: str) -> tuple[str, str, str]:
    # brackets delimit an IPv6 address, which contains colons, as in docker
    if body.startswith("["):
        address, bracket, rest = body[1:].partition("]")
        parts = rest.split(":")
        if not bracket or len(parts) != 3 or parts[0]:
            raise QuantityError(f"{body!r} is not a port", f"{_PORT_FORM}, [::1]:8080:80 for IPv6")
        return parse_address(address, version=6), parts[1], parts[2]
    parts = body.split(":")
    if len(parts) > 3:
        raise QuantityError(
            f"{body!r} is not a port", f"{_PORT_FORM}, an IPv6 address in brackets: [::1]:8080:80"
        )
    if len(parts) == 3 and parts[0].isdigit():
        raise QuantityError(
            f"{body!r} has too many parts", "8080:80, or an address first: 192.168.1.1:8080:80"
        )
    if len(parts) == 3:
        return (parse_address(parts[0], version=4) if parts[0] else ""), parts[1], parts[2]
    if len(parts) == 2 and not parts[0]:
        raise QuantityError(f"{body!r} is not a port", _PORT_FORM)
    return "", parts[0] if len(parts) == 2 else "", parts[-1]


def _port_range(text: str, whole: str) -> tuple[int, ...]:
    match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", text, re.ASCII)
    if match is None:
        raise QuantityError(f"{whole!r} is not a port", _PORT_FORM)
    first = int(match[1])
    last = int(match[2]) if match[2] else first
    if not 1 <= first <= last <= 65535:
        raise QuantityError(f"port {text} is out of range", "ports from 1 to 65535, the lower one first")
    return tuple(range(first, last + 1))


def parse_volume(text: str) -> Mount:
    """One `volume` entry."""
    parts = text.split(":")
    if len(parts) == 1:
        # a container path alone is an anonymous volume, as in docker
        return Mount(source="", target=_target(parts[0], text))
    if len(parts) > 3:
        raise QuantityError(f"{text!r} has too many parts", _VOLUME_FORM)
    source, target = parts[0], _target(parts[1], text)
    if source.startswith("/"):
        source = _tidy(source)
    elif not VOLUME_NAME.fullmatch(source):
        # docker resolves relative paths against its working directory; a section has none
        relative = "/" in source or source.startswith((".", "~"))
        wrong = f"{source!r} is a relative path" if relative else f"{source!r} is not a volume name"
        raise QuantityError(wrong, _VOLUME_FORM)
    return _mount(source, target, parts[2].split(",") if len(parts) == 3 else [])


def _mount(source: str, target: str, options: list[str]) -> Mount:
    read_only, no_copy, propagation = False, False, ""
    # contradicting options: the last one wins, as in docker
    for option in options:
        if option in {"ro", "rw"}:
            read_only = option == "ro"
        elif option == "nocopy" and not source.startswith("/"):
            no_copy = True
        # propagation concerns mounts below the source, which a volume does not have
        elif option in _PROPAGATION and source.startswith("/"):
            propagation = option
        elif option not in _WITHOUT_EFFECT:
            raise QuantityError(
                f"{option!r} is not an option of this volume",
                "ro, rw, z, Z, cached, with a volume nocopy, with a path (r)shared, (r)slave or (r)private",
            )
    return Mount(source=source, target=target, read_only=read_only, propagation=propagation, no_copy=no_copy)


def _tidy(path: str) -> str:
    """An absolute path without doubled or trailing slashes."""
    return "/" + "/".join(part for part in path.split("/") if part)


def _target(path: str, whole: str) -> str:
    if not path.startswith("/"):
        raise QuantityError(f"{whole!r} has no absolute target", _VOLUME_FORM)
    if _tidy(path) == "/":
        raise QuantityError("the target is the root directory", "a directory such as /data")
    return _tidy(path)


def parse_tmpfs(text: str) -> Tmpfs:
    """`/target[:options]`."""
    target, _, options = text.partition(":")
    if not target.startswith("/") or _tidy(target) == "/":
        raise QuantityError(
            f"{text!r} has no absolute target", "/target[:options] such as /run:size=64m,mode=755"
        )
    for option in options.split(",") if options else ():
        # the engine has a fixed set of options, and all of them have this form
        if not re.fullmatch(r"[a-z_]+(=.*)?", option):
            meant = f"; did you mean `size={option}`?" if re.fullmatch(r"\d+[kKmMgG%]?", option) else ""
            raise QuantityError(
                f"{option[:64]!r} is not an option of a tmpfs", f"options such as size=64m,mode=1777{meant}"
            )
    return Tmpfs(target=_tidy(target), options=options)


def parse_device(text: str) -> Device:
    """One `device` entry; a USB device keeps its `usb:` name until the runtime resolves it."""
    if text.startswith("usb:"):
        match = _USB.fullmatch(text)
        if match is None:
            raise QuantityError(
                f"{text!r} is not a USB device", f"{_DEVICE_FORM}, VID and PID of 4 hex digits"
            )
        return _device(_usb_name(match[1]), match[2] or "", match[3] or "rwm")
    parts = text.split(":")
    if len(parts) > 3 or not parts[0].startswith("/"):
        raise QuantityError(f"{text!r} is not a device", _DEVICE_FORM)
    if len(parts) == 2 and re.fullmatch("[rwm]+", parts[1]):
        parts = [parts[0], parts[0], parts[1]]
    # an empty container path would mean that the device is still to be found
    container = (parts[1] if len(parts) > 1 else "") or parts[0]
    return _device(parts[0], container, parts[2] if len(parts) == 3 else "rwm")


def parse_device_limit(text: str, *, number: Callable[[str], int], form: str) -> DeviceLimit:
    """Parses `/dev/sda:LIMIT`; `number` parses the limit."""
    path, colon, limit = text.rpartition(":")
    if not colon or not path.startswith("/dev/"):
        raise QuantityError(f"{text!r} does not name a device and its limit", form)
    return DeviceLimit(path=_tidy(path), limit=number(limit))


def parse_device_weight(text: str) -> DeviceLimit:
    """One `blkio_weight_device` entry."""
    form = "/dev/sda:500, the weight from 10 to 1000"
    return parse_device_limit(text, number=lambda part: parse_int(part, minimum=10, maximum=1000), form=form)


def parse_device_bytes(text: str) -> DeviceLimit:
    """One `device_read_bps` or `device_write_bps` entry."""
    return parse_device_limit(text, number=_some_bytes, form="/dev/sda:1m, bytes per second")


def _some_bytes(text: str) -> int:
    size = parse_size(text)
    if not size:
        raise QuantityError("a limit of 0 lets nothing through", "a rate such as 1m, or no entry")
    return size


def parse_device_operations(text: str) -> DeviceLimit:
    """One `device_read_iops` or `device_write_iops` entry."""
    form = "/dev/sda:1000, operations per second"
    return parse_device_limit(text, number=lambda part: parse_int(part, minimum=1, maximum=2**32), form=form)


def parse_gpus(text: str) -> Gpus:
    """One `gpus` entry (docker/cli opts/gpus.go). Unlike in docker, several values of `device`, `capabilities` or
    `options` need no quotes."""
    found: dict[str, list[str]] = {}
    key = ""
    # docker reads CSV, in which several values of a key need quotes; here a part without a key continues the previous
    # key
    for part in _fields(text, _GPUS_FORM):
        name, equals, value = part.partition("=")
        if equals and name in {"driver", "count", "device", "capabilities", "options"} and name not in found:
            key = name
            found[key] = value.split(",") if name not in {"driver", "count"} else [value]
        elif key in {"device", "capabilities", "options"}:
            found[key].append(part)
        elif not found and not equals:
            found["count"] = [part]
        else:
            raise QuantityError(f"{part!r} is not a setting of GPUs", _GPUS_FORM)
    count, devices = found.get("count", [""])[0], tuple(found.get("device", ()))
    if count and devices:
        raise QuantityError("a count and devices exclude each other", "one of the two")
    if any(not value for values in found.values() for value in values):
        raise QuantityError(f"{text!r} has an empty setting", _GPUS_FORM)
    number = None if devices else 1
    if count:
        number = -1 if count == "all" else parse_int(count, minimum=-1, maximum=2**31 - 1)
    return Gpus(
        count=number or None,
        driver=found.get("driver", [None])[0],
        devices=devices,
        capabilities=tuple(sorted(set(found.get("capabilities", ())) - {"gpu"})),
        options=tuple(sorted(dict(map(parse_assignment, found.get("options", ()))).items())),
    )


def _fields(text: str, form: str) -> list[str]:
    """The fields of one line of CSV, which docker's command line uses for such values."""
    try:
        return next(csv.reader([text], strict=True), [])
    except csv.Error:
        raise QuantityError(f"{text!r} has a quote that is not closed", form) from None


def parse_exposed(text: str) -> tuple[str, ...]:
    """`port[-range][/tcp|udp|sctp]` as `port/protocol`."""
    form = "a port of the container such as 80, 53/udp or 8000-8010"
    ports, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in {"tcp", "udp", "sctp"} or not re.fullmatch(r"\d{1,5}(-\d{1,5})?", ports, re.ASCII):
        raise QuantityError(f"{text!r} is not a port of the container", form)
    return tuple(f"{port}/{protocol}" for port in _port_range(ports, text))


def parse_volumes_from(text: str) -> str:
    """Parses `[service:|container:]name[:ro|rw]`; `rw` is the default and left out."""
    found = re.fullmatch(r"((?:service:|container:)?[a-zA-Z0-9][a-zA-Z0-9_.-]*)(?::(ro|rw|z|Z))?", text)
    if found is None:
        raise QuantityError(f"{text!r} does not name a container", "a container section, or section:ro")
    return f"{found[1]}:ro" if found[2] == "ro" else found[1]


def parse_platform(text: str) -> str:
    """`os/architecture[/variant]` in lower case."""
    parts = text.split("/")
    if len(parts) not in {2, 3} or parts[0] != "linux" or not all(map(_PLATFORM_PART.fullmatch, parts)):
        raise QuantityError(
            f"{text!r} is not a platform of Linux", "linux/amd64, linux/arm64, linux/arm/v7 or the like"
        )
    return "/".join(parts)


def is_cdi(text: str) -> bool:
    """Whether a `device` entry is a CDI name, `vendor.com/class=name` (container-device-interface)."""
    return _CDI.fullmatch(text) is not None


def _usb_name(text: str) -> str:
    """The name with its hex numbers in lower case, as in sysfs; a serial number is kept as it is."""
    numbers, serial = text[: len("usb:0000:0000")], text[len("usb:0000:0000") :]
    return numbers.lower() + serial


def _device(host: str, container: str, permissions: str) -> Device:
    if container and not container.startswith("/"):
        raise QuantityError(f"{container!r} is not an absolute path", _DEVICE_FORM)
    if not permissions or set(permissions) - set("rwm") or len(set(permissions)) != len(permissions):
        raise QuantityError(f"{permissions!r} are not device permissions", "some of r, w and m")
    return Device(host=host, container=container, permissions="".join(p for p in "rwm" if p in permissions))


def parse_ulimit(text: str) -> Ulimit:
    """`name=soft[:hard]`, -1 for unlimited."""
    expected = "name=soft[:hard] such as nofile=1024:2048"
    match = re.fullmatch(r"([a-z]+)=(-1|\d{1,18})(?::(-1|\d{1,18}))?", text, re.ASCII)
    if match is None:
        raise QuantityError(f"{text!r} is not an ulimit", expected)
    if match[1] not in ULIMITS:
        raise QuantityError(
            f"{match[1]!r} is not a limit{near(match[1], ULIMITS)}", ", ".join(sorted(ULIMITS))
        )
    soft, hard = int(match[2]), int(match[3] or match[2])
    # -1 means unlimited, which is above every number
    if hard != -1 and (soft == -1 or soft > hard):
        raise QuantityError(f"the soft limit in {text!r} is above the hard one", expected)
    return Ulimit(name=match[1], soft=soft, hard=hard)


def parse_restart(text: str) -> RestartPolicy:
    """`no`, `always`, `unless-stopped`, `on-failure[:n]`."""
    name, colon, retries = text.partition(":")
    if name not in {"no", "always", "unless-stopped", "on-failure"} or (colon and name != "on-failure"):
        raise QuantityError(
            f"{text!r} is not a restart policy", "no, always, unless-stopped or on-failure[:n]"
        )
    return RestartPolicy(name=name, max_retries=parse_int(retries, maximum=1_000_000) if colon else 0)


def parse_endpoint(text: str) -> Endpoint:
    """One `network` entry."""
    name, *settings = _fields(text, _NETWORK_FORM) or [""]
    if not name or "=" in name:
        raise QuantityError(f"{text!r} does not begin with a network", _NETWORK_FORM)
    many: dict[str, list[str]] = {"alias": [], "link_local": [], "driver_opt": []}
    once: dict[str, str] = {}
    for setting in settings:
        written, _, value = setting.partition("=")
        key = _SETTINGS.get(written, written)
        if key in many and value:
            many[key].append(value)
        # A repeated setting is an error: if the last one won, the other address would be ignored silently.
        elif key in {"ip", "ip6", "mac", "gw_priority"} and key not in once:
            once[key] = value
        else:
            raise QuantityError(f"{setting!r} is not a setting of a network", _NETWORK_FORM)
    return Endpoint(
        network=name,
        aliases=tuple(dict.fromkeys(many["alias"])),
        ip=parse_address(once["ip"], version=4) if "ip" in once else "",
        ip6=parse_address(once["ip6"], version=6) if "ip6" in once else "",
        mac_address=parse_mac(once["mac"]) if "mac" in once else "",
        link_local=tuple(sorted({parse_link_local(address) for address in many["link_local"]})),
        driver_opts=tuple(sorted(dict(map(parse_pair, many["driver_opt"])).items())),
        gw_priority=parse_int(once["gw_priority"], minimum=-(2**31), maximum=2**31 - 1)
        if "gw_priority" in once
        else None,
    )


def parse_link_local(text: str) -> str:
    """An address of 169.254.0.0/16 or fe80::/10."""
    address = parse_address(text)
    if not ipaddress.ip_address(address).is_link_local:
        raise QuantityError(f"{text!r} is not a link-local address", "one of 169.254.0.0/16 or fe80::/10")
    return address


def parse_mac(text: str) -> str:
    """A MAC address in lower case with colons, from any form that docker accepts (Go: net.ParseMAC)."""
    digits = re.sub("[:.-]", "", text).lower()
    if _MAC.fullmatch(text) is None:
        raise QuantityError(
            f"{text!r} is not a MAC address", "six pairs of hex digits such as 02:42:ac:11:00:02"
        )
    return ":".join(digits[at : at + 2] for at in range(0, 12, 2))


def parse_dependency(text: str) -> Dependency:
    """`section[:started|healthy|completed]`."""
    section, colon, condition = text.partition(":")
    if not section or (colon and condition not in set(DependsOn)):
        raise QuantityError(f"{text!r} is not a dependency", "section[:started|healthy|completed]")
    return Dependency(section=section, condition=DependsOn(condition) if colon else DependsOn.STARTED)


def parse_wait(text: str) -> WaitFor:
    """`mount:/path`, `file:/path`, `device:/dev/x`, `interface:name`, `clock`."""
    expected = "mount:/mnt/sda1, file:/mnt/sda1/.here, device:/dev/ttyUSB0, interface:wan or clock"
    kind, colon, target = text.partition(":")
    # `clock` has no target, all others need one
    if (
        kind not in set(WaitKind)
        or (kind == WaitKind.CLOCK) is bool(colon)
        or bool(colon) is not bool(target)
    ):
        raise QuantityError(f"{text!r} cannot be waited for", expected)
    if kind in (WaitKind.MOUNT, WaitKind.FILE) and not target.startswith("/"):
        raise QuantityError(f"{target!r} is not an absolute path", expected)
    if kind == WaitKind.DEVICE and not target.startswith(("/", "usb:")):
        raise QuantityError(f"{target!r} is not a device", expected)
    if target.startswith("usb:"):
        match = _USB.fullmatch(target)
        if match is None or match[2]:
            raise QuantityError(
                f"{target!r} is not a USB device", "usb:VID:PID[:serial], VID and PID of 4 hex digits"
            )
        target = _usb_name(target)
    return WaitFor(kind=WaitKind(kind), target=target)


def parse_extra_host(text: str) -> str:
    """`name:address`, from `name:address` or `name=address`; the address may be `host-gateway`."""
    name, _, address = text.partition("=" if "=" in text else ":")
    expected = "name:address such as nas:192.168.1.5, or name:host-gateway"
    if not name or ":" in name or not address:
        raise QuantityError(f"{text!r} is not an extra host", expected)
    if address == "host-gateway":
        return f"{name}:{address}"
    return f"{name}:{parse_address(address.removeprefix('[').removesuffix(']'))}"
