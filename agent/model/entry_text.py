# SPDX-License-Identifier: GPL-2.0-or-later
"""Formats values as the text of an option: the inverse of `quantities` and `entries`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal

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
)

_UNITS = (("g", 1 << 30), ("m", 1 << 20), ("k", 1 << 10))  # largest first: the first that divides is used
_TIMES = (("h", 3600 * 10**9), ("m", 60 * 10**9), ("s", 10**9), ("ms", 10**6), ("us", 1000), ("ns", 1))


def size(value: int) -> str:
    """Bytes in the largest unit that divides them evenly."""
    unit, factor = next(((u, f) for u, f in _UNITS if value > 0 and value % f == 0), ("", 1))
    return f"{value // factor}{unit}"


def cpus(nano: int) -> str:
    """Nano-CPUs as a number of CPUs."""
    return _plain(Decimal(nano).scaleb(-9))


def duration(value: int) -> str:
    """Nanoseconds as `1m30s`."""
    parts = []
    for unit, factor in _TIMES:
        count, value = divmod(value, factor)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0"


def age(value: float) -> str:
    """Seconds as `3d`, in whole minutes."""
    whole = round(value)
    units = {"w": 7 * 86400, "d": 86400, "h": 3600, "m": 60}
    unit = next((unit for unit, length in units.items() if whole % length == 0), "m")
    return f"{whole // units[unit]}{unit}" if whole else "0"


def seconds(value: float) -> str:
    return _plain(Decimal(repr(value)))


def _plain(value: Decimal) -> str:
    """The number without exponent and trailing zeros."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def restart(policy: RestartPolicy) -> str:
    """A restart policy."""
    return f"{policy.name}:{policy.max_retries}" if policy.max_retries else policy.name


def ports(published: Iterable[Port], *, shortest_range: int = 2) -> Iterator[str]:
    """`port` entries. At least `shortest_range` consecutive ports become a range: a media server publishes hundreds."""

    def is_next(before: Port, port: Port) -> bool:
        same = (before.protocol, before.host_ip) == (port.protocol, port.host_ip)
        same = same and not before.host_port_end and not port.host_port_end
        host_step = 1 if before.host_port else 0  # 0 if the engine chooses the host port
        steps = (port.container_port - before.container_port, port.host_port - before.host_port)
        return same and steps == (1, host_step)

    run: list[Port] = []
    for port in sorted(published, key=lambda p: (p.protocol, p.host_ip, p.container_port, p.host_port)):
        if run and not is_next(run[-1], port):
            yield from _ranges(run, shortest_range)
            run = []
        run.append(port)
    yield from _ranges(run, shortest_range)


def _ranges(run: list[Port], shortest: int) -> Iterator[str]:
    if len(run) >= shortest:
        yield _range(run)
    else:
        yield from (_range([port]) for port in run)


def _range(run: list[Port]) -> str:
    first, last = run[0], run[-1]
    inner = _span(first.container_port, last.container_port)
    outer = _span(first.host_port, first.host_port_end or last.host_port) if first.host_port else ""
    protocol = "" if first.protocol == "tcp" else f"/{first.protocol}"
    if not first.host_ip:
        return f"{outer}:{inner}{protocol}" if outer else f"{inner}{protocol}"
    address = f"[{first.host_ip}]" if ":" in first.host_ip else first.host_ip
    return f"{address}:{outer}:{inner}{protocol}"


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def mount(item: Mount) -> str:
    """A `volume` entry."""
    options = ["ro"] if item.read_only else []
    options += ["nocopy"] if item.no_copy else []
    options += [item.propagation] if item.propagation else []
    return ":".join(part for part in (item.source, item.target, ",".join(options)) if part)


def tmpfs(entry: Tmpfs) -> str:
    """A `tmpfs` entry."""
    return f"{entry.target}:{entry.options}" if entry.options else entry.target


def endpoint(item: Endpoint, *, mac: bool = False) -> str:
    """A `network` entry. `mac`: include the MAC address; the first network's MAC address is an option of its own."""
    parts = [item.network]
    parts += [f"alias={alias}" for alias in item.aliases]
    parts += [f"ip={item.ip}"] if item.ip else []
    parts += [f"ip6={item.ip6}"] if item.ip6 else []
    parts += [f"mac={item.mac_address}"] if mac and item.mac_address else []
    parts += [f"link_local={address}" for address in item.link_local]
    parts += [_quoted(f"driver_opt={key}={value}") for key, value in item.driver_opts]
    parts += [f"gw_priority={item.gw_priority}"] if item.gw_priority is not None else []
    return ",".join(parts)


def _quoted(field: str) -> str:
    """A field in the CSV form of docker's command line."""
    return '"' + field.replace('"', '""') + '"' if "," in field or field.startswith('"') else field


def device(item: Device) -> str:
    """A `device` entry."""
    permissions = "" if item.permissions == "rwm" else item.permissions
    same = item.container in ("", item.host)
    container = "" if same and not permissions else item.container
    return ":".join(part for part in (item.host, container, permissions) if part)


def device_count(item: DeviceLimit) -> str:
    """A `device_*_iops` or `blkio_weight_device` entry."""
    return f"{item.path}:{item.limit}"


def device_rate(item: DeviceLimit) -> str:
    """A `device_*_bps` entry."""
    return f"{item.path}:{size(item.limit)}"


def gpus(item: Gpus) -> str:
    """A `gpus` entry."""
    # a plain count is written short, as in `--gpus 2`
    if item == Gpus(count=item.count):
        return "all" if item.count == -1 else str(item.count or 0)
    parts = [f"driver={item.driver}"] if item.driver else []
    parts += [f"count={'all' if item.count == -1 else item.count}"] if item.count is not None else []
    parts += [f"device={','.join(item.devices)}"] if item.devices else []
    parts += [f"capabilities={','.join(item.capabilities)}"] if item.capabilities else []
    parts += [f"options={','.join(f'{key}={value}' for key, value in item.options)}"] if item.options else []
    return ",".join(parts)


def ulimit(limit: Ulimit) -> str:
    """A `ulimit` entry."""
    soft = f"{limit.name}={limit.soft}"
    return soft if limit.soft == limit.hard else f"{soft}:{limit.hard}"


def wait(wanted: WaitFor) -> str:
    """A `wait_for` entry."""
    return f"{wanted.kind}:{wanted.target}" if wanted.target else str(wanted.kind)


def dependency(wanted: Dependency) -> str:
    """A `depends_on` entry."""
    return wanted.section if wanted.condition is DependsOn.STARTED else f"{wanted.section}:{wanted.condition}"
