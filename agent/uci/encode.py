# SPDX-License-Identifier: GPL-2.0-or-later
"""Desired resources as UCI sections: the inverse of `agent.uci.decode`. Pure.

Only what is set, and is not the default, becomes an option. What UCI has no words for (an empty option, a `:` in a
path) comes out as text that decodes to something else or not at all: who encodes what a user did not write checks
it by decoding (`agent.runtime.adopt`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import TypeVar

from agent.model.resources import (
    Container,
    ContainerPolicy,
    ContainerSpec,
    Dependency,
    DependsOn,
    Device,
    Endpoint,
    Mount,
    Network,
    Port,
    RestartPolicy,
    Tmpfs,
    Ulimit,
    Volume,
    WaitFor,
)
from agent.uci.decode_network import BRIDGE_NAME, INTERFACE_NAME_MAX
from agent.uci.syntax import Option, Section

Value = str | tuple[str, ...]
T = TypeVar("T")

_NO_NAMES: Mapping[str, str] = {}

_UNITS = (("g", 1 << 30), ("m", 1 << 20), ("k", 1 << 10))
_TIMES = (("h", 3600 * 10**9), ("m", 60 * 10**9), ("s", 10**9), ("ms", 10**6), ("us", 1000), ("ns", 1))


def encode_container(
    container: Container,
    *,
    networks: Mapping[str, str] | None = None,
    volumes: Mapping[str, str] | None = None,
) -> Section:
    """`networks`, `volumes`: Docker name -> section, for those whose section has another name."""
    options: dict[str, Value] = _name(container.section, container.name)
    options |= _scalars(container.spec)
    options |= _lists(container.spec, networks or {}, volumes or {})
    options |= _policy(container.policy)
    return _section("container", container.section, options)


def encode_network(network: Network) -> Section:
    """A `network` section."""
    spec = network.spec
    own = {BRIDGE_NAME: f"br-{network.section}"[:INTERFACE_NAME_MAX]} if spec.driver == "bridge" else {}
    entries = [pair for pair in spec.options if pair not in own.items()]
    pools = spec.pools
    options: dict[str, Value] = _name(network.section, network.name)
    options |= _unless("driver", spec.driver, "bridge")
    options |= _unless("zone", network.zone, "docker")
    options |= _flags({"internal": spec.internal, "attachable": spec.attachable, "adopt": network.adopt})
    if spec.ipv6 is not any(":" in pool.subnet for pool in pools):
        options["ipv6"] = _flag(spec.ipv6)
    lists = {
        "subnet": [pool.subnet for pool in pools],
        "gateway": [pool.gateway for pool in pools if pool.gateway],
        "ip_range": [pool.ip_range for pool in pools if pool.ip_range],
        "aux_address": _pairs(pair for pool in pools for pair in pool.aux_addresses),
        "opt": _pairs(entries),
        "label": _pairs(spec.labels),
    }
    return _section("network", network.section, options | _filled(lists))


def encode_volume(volume: Volume) -> Section:
    """A `volume` section."""
    options: dict[str, Value] = _name(volume.section, volume.name)
    options |= _unless("driver", volume.spec.driver, "local")
    options |= _flags({"adopt": volume.adopt})
    options |= _filled({"opt": _pairs(volume.spec.options), "label": _pairs(volume.spec.labels)})
    return _section("volume", volume.section, options)


def _section(kind: str, name: str, options: Mapping[str, Value]) -> Section:
    made = tuple(Option(name=option, value=value) for option, value in options.items())
    return Section(type=kind, name=name, options=made)


def _name(section: str, name: str) -> dict[str, Value]:
    return _unless("name", name, section)


def _unless(option: str, value: str, default: str) -> dict[str, Value]:
    return {} if value == default else {option: value}


def _flag(value: bool) -> str:  # noqa: FBT001 - a value, not a switch
    return "1" if value else "0"


def _flags(values: Mapping[str, bool]) -> dict[str, Value]:
    """Those that are on; off is the default of all of them."""
    return {option: "1" for option, value in values.items() if value}


def _filled(lists: Mapping[str, Iterable[str]]) -> dict[str, Value]:
    return {option: items for option, values in lists.items() if (items := tuple(values))}


def _pairs(pairs: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{key}={value}" for key, value in pairs]


# containers


def _scalars(spec: ContainerSpec) -> dict[str, Value]:
    health = spec.health
    values: dict[str, str | None] = {
        "image": spec.image,
        "hostname": spec.hostname,
        "domainname": spec.domainname,
        "user": spec.user,
        "workdir": spec.workdir,
        "privileged": _maybe(spec.privileged, _flag),
        "restart": restart(spec.restart) if spec.restart else None,
        "memory": _maybe(spec.memory, size),
        "memory_swap": _maybe(spec.memory_swap, size),
        "memory_reservation": _maybe(spec.memory_reservation, size),
        "cpus": _maybe(spec.nano_cpus, cpus),
        "cpu_shares": _maybe(spec.cpu_shares),
        "cpuset": spec.cpuset,
        "pids_limit": _maybe(spec.pids_limit),
        "shm_size": _maybe(spec.shm_size, size),
        "blkio_weight": _maybe(spec.blkio_weight),
        "oom_kill_disable": _maybe(spec.oom_kill_disable, _flag),
        "init": _maybe(spec.init, _flag),
        "read_only": _maybe(spec.read_only, _flag),
        "tty": _maybe(spec.tty, _flag),
        "stdin": _maybe(spec.stdin, _flag),
        "stop_signal": spec.stop_signal,
        "stop_timeout": _maybe(spec.stop_timeout_s),
        "runtime": spec.runtime,
        "network_mode": spec.network_mode,
        "ipc": spec.ipc,
        "pid": spec.pid,
        "userns": spec.userns,
        "log_driver": spec.log_driver,
        "publish_all": _maybe(spec.publish_all, _flag),
        "health_cmd": health.cmd if health else None,
        "health_interval": _maybe(health.interval_ns, duration) if health else None,
        "health_timeout": _maybe(health.timeout_ns, duration) if health else None,
        "health_retries": _maybe(health.retries) if health else None,
        "health_start_period": _maybe(health.start_period_ns, duration) if health else None,
        "mac_address": (spec.endpoints[0].mac_address or None) if spec.endpoints else None,
    }
    return {option: value for option, value in values.items() if value is not None}


def _lists(spec: ContainerSpec, networks: Mapping[str, str], volumes: Mapping[str, str]) -> dict[str, Value]:
    lists: dict[str, Iterable[str]] = {
        "command": spec.command or (),
        "entrypoint": spec.entrypoint or (),
        "env": _pairs(spec.env),
        "port": ports(spec.ports),
        "volume": [mount(item, volumes) for item in spec.mounts],
        "tmpfs": [tmpfs(item) for item in spec.tmpfs],
        "network": [endpoint(item, networks) for item in spec.endpoints],
        "device": [*(device(item) for item in spec.devices), *spec.cdi_devices],
        "device_cgroup_rule": spec.device_cgroup_rules,
        "cap_add": [name.removeprefix("CAP_") for name in spec.cap_add],
        "cap_drop": [name.removeprefix("CAP_") for name in spec.cap_drop],
        "sysctl": _pairs(spec.sysctls),
        "ulimit": [ulimit(item) for item in spec.ulimits],
        "dns": spec.dns,
        "dns_search": spec.dns_search,
        "dns_opt": spec.dns_opt,
        "extra_host": spec.extra_hosts,
        "label": _pairs(spec.labels),
        "log_opt": _pairs(spec.log_opts),
        "group_add": spec.group_add,
        "security_opt": [*spec.security_opt, *([f"seccomp={spec.seccomp}"] if spec.seccomp else [])],
    }
    return _filled(lists)


def _policy(policy: ContainerPolicy) -> dict[str, Value]:
    base = ContainerPolicy()
    options: dict[str, Value] = {}
    for option in ("enabled", "adopt", "rollback", "remove_volumes"):
        if getattr(policy, option) is not getattr(base, option):
            options[option] = _flag(getattr(policy, option))
    for option in ("state", "pull", "on_drift"):
        options |= _unless(option, str(getattr(policy, option)), str(getattr(base, option)))
    options |= _unless("gate", _seconds(policy.gate_s), _seconds(base.gate_s))
    options |= _unless("grace", _seconds(policy.grace_s), _seconds(base.grace_s))
    lists = {
        "wait_for": [_wait(wanted) for wanted in policy.wait_for],
        "depends_on": [_dependency(wanted) for wanted in policy.depends_on],
    }
    return options | _filled(lists)


# values


def _maybe(value: T | None, text: Callable[[T], str] = str) -> str | None:
    return None if value is None else text(value)


def size(value: int) -> str:
    """Bytes in the largest unit that fits without a rest."""
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


def _seconds(value: float) -> str:
    return _plain(Decimal(repr(value)))


def _plain(value: Decimal) -> str:
    """Without exponent and without zeros at the end."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def restart(policy: RestartPolicy) -> str:
    """A restart policy."""
    return f"{policy.name}:{policy.max_retries}" if policy.max_retries else policy.name


def ports(published: Iterable[Port]) -> Iterator[str]:
    """`port` entries. Runs of neighbours become a range: a media server publishes hundreds."""
    run: list[Port] = []
    for port in sorted(published, key=lambda p: (p.protocol, p.host_ip, p.container_port, p.host_port)):
        if run and not _is_next(run[-1], port):
            yield _range(run)
            run = []
        run.append(port)
    if run:
        yield _range(run)


def _is_next(before: Port, port: Port) -> bool:
    same = (before.protocol, before.host_ip) == (port.protocol, port.host_ip)
    same = same and not before.host_port_end and not port.host_port_end
    host_step = 1 if before.host_port else 0  # 0: the engine chooses
    steps = (port.container_port - before.container_port, port.host_port - before.host_port)
    return same and steps == (1, host_step)


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


def mount(item: Mount, volumes: Mapping[str, str] = _NO_NAMES) -> str:
    """A `volume` entry; `volumes`: Docker name -> section."""
    options = ["ro"] if item.read_only else []
    options += ["nocopy"] if item.no_copy else []
    options += [item.propagation] if item.propagation else []
    source = item.source if item.is_bind else volumes.get(item.source, item.source)
    return ":".join(part for part in (source, item.target, ",".join(options)) if part)


def tmpfs(entry: Tmpfs) -> str:
    """A `tmpfs` entry."""
    return f"{entry.target}:{entry.options}" if entry.options else entry.target


def endpoint(item: Endpoint, networks: Mapping[str, str] = _NO_NAMES) -> str:
    """A `network` entry; `networks`: Docker name -> section. The MAC address is an option of its own."""
    parts = [networks.get(item.network, item.network)]
    parts += [f"alias={alias}" for alias in item.aliases]
    parts += [f"ip={item.ip}"] if item.ip else []
    parts += [f"ip6={item.ip6}"] if item.ip6 else []
    return ",".join(parts)


def device(item: Device) -> str:
    """A `device` entry."""
    permissions = "" if item.permissions == "rwm" else item.permissions
    same = item.container in ("", item.host)
    container = "" if same and not permissions else item.container
    return ":".join(part for part in (item.host, container, permissions) if part)


def ulimit(limit: Ulimit) -> str:
    """A `ulimit` entry."""
    soft = f"{limit.name}={limit.soft}"
    return soft if limit.soft == limit.hard else f"{soft}:{limit.hard}"


def _wait(wanted: WaitFor) -> str:
    return f"{wanted.kind}:{wanted.target}" if wanted.target else str(wanted.kind)


def _dependency(wanted: Dependency) -> str:
    return wanted.section if wanted.condition is DependsOn.STARTED else f"{wanted.section}:{wanted.condition}"
