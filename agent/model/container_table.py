# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of container options: UCI name, field, Engine API key, level of a change, text form and JSON form.

Decoding, encoding, the bodies to and from the engine, levels, drift and the description of changes all use it. To add
an option, add its field to `ContainerSpec`, a row here, and its property to `schemas/container.schema.json`.

A row without a `key` needs more than one field for its JSON: `agent.plan.container.bodies` writes and reads it. A row
with the shape APART needs more than its own option in UCI: `agent.uci` reads and writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Any

from agent.model import engine_json, entry_text
from agent.model.entries import (
    is_cdi,
    parse_device,
    parse_device_bytes,
    parse_device_operations,
    parse_device_weight,
    parse_exposed,
    parse_extra_host,
    parse_gpus,
    parse_image,
    parse_platform,
    parse_restart,
    parse_server,
    parse_tmpfs,
    parse_ulimit,
    parse_volume,
    parse_volumes_from,
)
from agent.model.kernel_names import parse_capability, parse_security_option, parse_signal, sysctl_namespace
from agent.model.quantities import (
    QuantityError,
    parse_assignment,
    parse_bool,
    parse_cpus,
    parse_int,
    parse_pair,
    parse_seconds,
    parse_size,
    parse_swap,
)
from agent.model.resources import (
    ContainerSpec,
    Device,
    DeviceLimit,
    Endpoint,
    Mount,
    Port,
    RestartPolicy,
    Tmpfs,
    Ulimit,
)

Version = tuple[int, int]
# the Docker version that introduced an API version
_DOCKER: dict[Version, str] = {(1, 43): "24.0", (1, 44): "25.0", (1, 48): "28.0"}


class ChangeLevel(StrEnum):
    """How a changed option can be applied, from cheap to expensive."""

    UPDATE = "update"  # POST /containers/{id}/update; the process keeps running
    # disconnect and connect again: a container's networks can change while it runs, an endpoint cannot
    RECONNECT = "reconnect"
    RECREATE = "recreate"


class Shape(Enum):
    """How many values an option has, and whether their order matters."""

    ONE = auto()
    LIST = auto()  # in the user's order
    SET = auto()  # sorted, without duplicates
    PAIRS = auto()  # key=value, sorted; of equal keys the last one counts
    WORDS = auto()  # a command line
    APART = auto()  # reading it needs more than its own option


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """The forms of a value: UCI text and Engine API JSON. `made` builds the value from the JSON object in a record."""

    parse: Callable[[str], Any] = str
    text: Callable[[Any], str] = str
    to_engine: Callable[[Any], Any] = _same
    # inspect shows "" or 0 for an unset option
    from_engine: Callable[[Any], Any] = lambda value: value or None
    made: Callable[..., Any] | None = None
    order: Callable[[Any], Any] = _same


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerOption:
    """One row. `key` is the place in the body of POST /containers/create, "" if it has none of its own.

    `since`: the API version that introduced the option; older engines silently ignore it. `needs`: (words, version)
    if this particular value needs a newer engine than the option itself.
    """

    uci: str
    field: str
    key: str = ""
    codec: Codec = Codec()
    shape: Shape = Shape.ONE
    level: ChangeLevel = ChangeLevel.RECREATE
    since: Version = (1, 41)
    needs: Callable[[Any], tuple[str, Version] | None] = lambda value: None


def _whole_seconds(text: str) -> int:
    seconds = parse_seconds(text)
    if not seconds.is_integer():
        raise QuantityError(f"{text!r} is not a whole number of seconds", "whole seconds such as 10")
    return int(seconds)


def parse_sysctl(text: str) -> tuple[str, str]:
    """Parses `name=value` of a sysctl that belongs to a container's namespaces."""
    name, value = parse_assignment(text)
    sysctl_namespace(name)
    return name, value


def _networks_need(endpoints: tuple[Endpoint, ...]) -> tuple[str, Version] | None:
    if any(endpoint.gw_priority is not None for endpoint in endpoints):
        return "`network` with gw_priority", (1, 48)
    if any(endpoint.mac_address for endpoint in endpoints[1:]):
        return "a MAC address on a network that is not the first", (1, 44)
    return None


_TEXT = Codec()
_FLAG = Codec(parse=parse_bool, text=lambda value: "1" if value else "0", from_engine=bool)
_MAYBE_FLAG = Codec(parse=parse_bool, text=lambda value: "1" if value else "0", from_engine=_same)
_SIZE = Codec(parse=parse_size, text=entry_text.size)
_SWAP = Codec(parse=parse_swap, text=entry_text.size)
_CPUS = Codec(parse=parse_cpus, text=entry_text.cpus)
_SHARES = Codec(parse=lambda text: 0 if text == "0" else parse_int(text, minimum=2, maximum=262144))
_PERCENT = Codec(
    parse=lambda text: parse_int(text, maximum=100),
    from_engine=lambda value: None if value == -1 else value,
)
_SCORE = Codec(
    parse=lambda text: parse_int(text, minimum=-1000, maximum=1000),
    from_engine=lambda value: value or 0,
)
# moby daemon/daemon_unix.go, verifyPlatformContainerResources: the period is 1 ms to 1 s, or 0 for the kernel's
# default; the quota is at least 1 ms, or 0 or -1 for no limit
_PERIOD = Codec(parse=lambda text: 0 if text == "0" else parse_int(text, minimum=1000, maximum=1_000_000))
_QUOTA = Codec(
    parse=lambda text: int(text) if text in {"0", "-1"} else parse_int(text, minimum=1000, maximum=10**9)
)
_MICROSECONDS = Codec(parse=parse_int)
_PIDS = Codec(parse=lambda text: parse_int(text, minimum=-1))
_WEIGHT = Codec(parse=lambda text: parse_int(text, minimum=10, maximum=1000) if text != "0" else 0)
_SECONDS = Codec(parse=_whole_seconds, from_engine=_same)
_RESTART = Codec(
    parse=parse_restart,
    text=entry_text.restart,
    to_engine=engine_json.restart,
    from_engine=engine_json.read_restart,
    made=RestartPolicy,
)
_PORTS = Codec(to_engine=engine_json.port_bindings, from_engine=engine_json.read_ports, made=Port)
_MOUNT = Codec(parse=parse_volume, text=entry_text.mount, to_engine=engine_json.mount, made=Mount)
_TMPFS = Codec(parse=parse_tmpfs, text=entry_text.tmpfs, made=Tmpfs, order=lambda entry: entry.target)
# `list device` holds two kinds of devices. The engine looks up CDI names, which have their own field and their own
# place in the body
_CDI_DEVICE = Codec(parse=lambda text: text if is_cdi(text) else None)
_DEVICE = Codec(
    parse=lambda text: None if is_cdi(text) else parse_device(text),
    text=entry_text.device,
    to_engine=engine_json.device,
    from_engine=engine_json.read_device,
    made=Device,
    order=lambda device: (device.container, device.host),
)
_WEIGHTS = Codec(
    parse=parse_device_weight,
    text=entry_text.device_count,
    to_engine=engine_json.weight,
    from_engine=engine_json.read_limit,
    made=DeviceLimit,
    order=lambda limit: limit.path,
)
_RATES = Codec(
    parse=parse_device_bytes,
    text=entry_text.device_rate,
    to_engine=engine_json.rate,
    from_engine=engine_json.read_limit,
    made=DeviceLimit,
    order=lambda limit: limit.path,
)
_OPERATIONS = Codec(
    parse=parse_device_operations,
    text=entry_text.device_count,
    to_engine=engine_json.rate,
    from_engine=engine_json.read_limit,
    made=DeviceLimit,
    order=lambda limit: limit.path,
)
_GPUS = Codec(parse=parse_gpus, text=entry_text.gpus, made=engine_json.made_gpus)
_EXPOSED = Codec(parse=parse_exposed, to_engine=engine_json.exposed, from_engine=engine_json.read_exposed)
_PLATFORM = Codec(parse=parse_platform)
_ULIMIT = Codec(
    parse=parse_ulimit,
    text=entry_text.ulimit,
    to_engine=engine_json.ulimit,
    from_engine=engine_json.read_ulimit,
    made=Ulimit,
    order=lambda limit: limit.name,
)
_CAPABILITY = Codec(
    parse=parse_capability,
    text=lambda name: name.removeprefix("CAP_"),
    from_engine=engine_json.read_capability,
)
_SERVER = Codec(parse=parse_server)
_HOST = Codec(parse=parse_extra_host)
_PAIR = Codec(parse=parse_pair)
_SYSCTL = Codec(parse=parse_sysctl)
_SIGNAL = Codec(parse=parse_signal)
_HEALTH = Codec(to_engine=engine_json.health, from_engine=engine_json.read_health)
_ENV = Codec(to_engine=engine_json.env, from_engine=engine_json.read_env)


def _one(
    uci: str,
    key: str = "",
    codec: Codec = _TEXT,
    *,
    field: str = "",
    level: ChangeLevel = ChangeLevel.RECREATE,
) -> ContainerOption:
    return ContainerOption(uci=uci, field=field or uci, key=key, codec=codec, level=level)


def _many(
    shape: Shape,
    uci: str,
    key: str = "",
    codec: Codec = _TEXT,
    *,
    field: str = "",
    level: ChangeLevel = ChangeLevel.RECREATE,
    since: Version = (1, 41),
    needs: Callable[[Any], tuple[str, Version] | None] = lambda value: None,
) -> ContainerOption:
    return ContainerOption(
        uci=uci, field=field or uci, key=key, codec=codec, shape=shape, level=level, since=since, needs=needs
    )


TABLE = (
    _one("image", codec=Codec(parse=parse_image)),
    _one("hostname", "Config.Hostname"),
    _one("domainname", "Config.Domainname"),
    _one("user", "Config.User"),
    _one("workdir", "Config.WorkingDir"),
    _one("privileged", "HostConfig.Privileged", _FLAG),
    _one("restart", "HostConfig.RestartPolicy", _RESTART, level=ChangeLevel.UPDATE),
    _one("memory", "HostConfig.Memory", _SIZE, level=ChangeLevel.UPDATE),
    _one("memory_swap", "HostConfig.MemorySwap", _SWAP, level=ChangeLevel.UPDATE),
    _one("memory_reservation", "HostConfig.MemoryReservation", _SIZE, level=ChangeLevel.UPDATE),
    _one("cpus", "HostConfig.NanoCpus", _CPUS, field="nano_cpus", level=ChangeLevel.UPDATE),
    _one("cpu_shares", "HostConfig.CpuShares", _SHARES, level=ChangeLevel.UPDATE),
    _one("cpuset", "HostConfig.CpusetCpus", level=ChangeLevel.UPDATE),
    _one("pids_limit", "HostConfig.PidsLimit", _PIDS, level=ChangeLevel.UPDATE),
    _one("shm_size", "HostConfig.ShmSize", _SIZE),
    _one("blkio_weight", "HostConfig.BlkioWeight", _WEIGHT, level=ChangeLevel.UPDATE),
    _one("oom_kill_disable", "HostConfig.OomKillDisable", _FLAG),
    _one("init", "HostConfig.Init", _MAYBE_FLAG),
    _one("read_only", "HostConfig.ReadonlyRootfs", _FLAG),
    _one("tty", "Config.Tty", _FLAG),
    _one("stdin", "Config.OpenStdin", _FLAG),
    _one("stop_signal", "Config.StopSignal", _SIGNAL),
    _one("stop_timeout", "Config.StopTimeout", _SECONDS, field="stop_timeout_s"),
    _one("runtime", "HostConfig.Runtime"),
    _one("network_mode"),
    _one("ipc", "HostConfig.IpcMode"),
    _one("pid", "HostConfig.PidMode"),
    _one("userns", "HostConfig.UsernsMode"),
    _one("log_driver"),
    _one("publish_all", "HostConfig.PublishAllPorts", _FLAG),
    _many(
        Shape.APART,
        "health_*",
        "Config.Healthcheck",
        _HEALTH,
        field="health",
        needs=lambda check: ("health_start_interval", (1, 44)) if check.start_interval_ns else None,
    ),
    _many(Shape.WORDS, "command", "Config.Cmd"),
    _many(Shape.WORDS, "entrypoint", "Config.Entrypoint"),
    _many(Shape.APART, "env", "Config.Env", _ENV),
    _many(Shape.APART, "port", "HostConfig.PortBindings", _PORTS, field="ports"),
    _many(Shape.APART, "volume", codec=_MOUNT, field="mounts"),
    _many(Shape.APART, "tmpfs", codec=_TMPFS),
    _many(Shape.APART, "network", field="endpoints", level=ChangeLevel.RECONNECT, needs=_networks_need),
    _many(Shape.SET, "device", "HostConfig.Devices", _DEVICE, field="devices"),
    _many(Shape.SET, "device", codec=_CDI_DEVICE, field="cdi_devices"),
    _many(Shape.SET, "device_cgroup_rule", "HostConfig.DeviceCgroupRules", field="device_cgroup_rules"),
    _many(Shape.SET, "cap_add", "HostConfig.CapAdd", _CAPABILITY),
    _many(Shape.SET, "cap_drop", "HostConfig.CapDrop", _CAPABILITY),
    _many(Shape.PAIRS, "sysctl", "HostConfig.Sysctls", _SYSCTL, field="sysctls"),
    _many(Shape.SET, "ulimit", "HostConfig.Ulimits", _ULIMIT, field="ulimits"),
    _many(Shape.LIST, "dns", "HostConfig.Dns", _SERVER),
    _many(Shape.LIST, "dns_search", "HostConfig.DnsSearch"),
    _many(Shape.LIST, "dns_opt", "HostConfig.DnsOptions"),
    _many(Shape.LIST, "extra_host", "HostConfig.ExtraHosts", _HOST, field="extra_hosts"),
    _many(Shape.PAIRS, "label", codec=_PAIR, field="labels"),
    _many(Shape.PAIRS, "log_opt", codec=_PAIR, field="log_opts"),
    _many(Shape.SET, "group_add", "HostConfig.GroupAdd"),
    _many(Shape.SET, "security_opt", codec=Codec(parse=parse_security_option)),
    _many(Shape.APART, "security_opt", field="seccomp"),
    _one("cpu_period", "HostConfig.CpuPeriod", _PERIOD, level=ChangeLevel.UPDATE),
    _one("cpu_quota", "HostConfig.CpuQuota", _QUOTA, level=ChangeLevel.UPDATE),
    _one("cpu_rt_period", "HostConfig.CpuRealtimePeriod", _MICROSECONDS, level=ChangeLevel.UPDATE),
    _one("cpu_rt_runtime", "HostConfig.CpuRealtimeRuntime", _MICROSECONDS, level=ChangeLevel.UPDATE),
    _one("cpuset_mems", "HostConfig.CpusetMems", level=ChangeLevel.UPDATE),
    _one("memory_swappiness", "HostConfig.MemorySwappiness", _PERCENT),
    _one("oom_score_adj", "HostConfig.OomScoreAdj", _SCORE),
    _one("stdin_once", "Config.StdinOnce", _FLAG),
    _one("uts", "HostConfig.UTSMode"),
    _one("cgroupns", "HostConfig.CgroupnsMode"),
    _one("cgroup_parent", "HostConfig.CgroupParent"),
    _one("platform", codec=_PLATFORM),
    _one("volume_driver", "HostConfig.VolumeDriver"),
    _many(
        Shape.SET,
        "blkio_weight_device",
        "HostConfig.BlkioWeightDevice",
        _WEIGHTS,
        field="blkio_weight_devices",
    ),
    _many(Shape.SET, "device_read_bps", "HostConfig.BlkioDeviceReadBps", _RATES),
    _many(Shape.SET, "device_read_iops", "HostConfig.BlkioDeviceReadIOps", _OPERATIONS),
    _many(Shape.SET, "device_write_bps", "HostConfig.BlkioDeviceWriteBps", _RATES),
    _many(Shape.SET, "device_write_iops", "HostConfig.BlkioDeviceWriteIOps", _OPERATIONS),
    _many(Shape.LIST, "gpus", codec=_GPUS),
    _many(Shape.APART, "expose", "Config.ExposedPorts", _EXPOSED),
    _many(Shape.LIST, "volumes_from", "HostConfig.VolumesFrom", Codec(parse=parse_volumes_from)),
    _many(Shape.PAIRS, "storage_opt", "HostConfig.StorageOpt", _PAIR, field="storage_opts"),
    _many(Shape.PAIRS, "annotation", "HostConfig.Annotations", _PAIR, field="annotations", since=(1, 43)),
)
# a field has one row, an option may have two (`device`, `security_opt`)
BY_FIELD = {row.field: row for row in TABLE}


def too_new(spec: ContainerSpec, api: Version) -> tuple[str, ...]:
    """The options in use that an engine of this API version does not know, in words."""
    found = []
    for row in TABLE:
        value = getattr(spec, row.field)
        if value not in (None, ()):
            needed = (f"`{row.uci}`", row.since) if row.since > api else row.needs(value)
            if needed is not None and needed[1] > api:
                what, (major, minor) = needed
                found.append(f"{what} needs Docker {_DOCKER[needed[1]]} (API {major}.{minor})")
    return tuple(found)


def keys_of(part: str) -> frozenset[str]:
    """The keys of `Config` or `HostConfig` that the table reads."""
    return frozenset(key for row in TABLE for where, _, key in [row.key.partition(".")] if where == part)


def body_of(spec: ContainerSpec) -> dict[str, dict[str, Any]]:
    """The parts of POST /containers/create that come from rows with a key, for fields that the user set."""
    made: dict[str, dict[str, Any]] = {"Config": {}, "HostConfig": {}}
    for row in TABLE:
        value = getattr(spec, row.field)
        # an empty command is a value; for all other lists empty means unset
        unset = value is None if row.shape is Shape.WORDS else value in (None, ())
        if not row.key or unset:
            continue
        part, _, key = row.key.partition(".")
        match row.shape:
            case Shape.LIST | Shape.SET | Shape.WORDS:
                made[part][key] = [row.codec.to_engine(item) for item in value]
            case Shape.PAIRS:
                made[part][key] = dict(value)
            case _:
                made[part][key] = row.codec.to_engine(value)
    return made


def fields_of(inspect: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of rows with a key, read from the body of GET /containers/{id}/json."""
    found: dict[str, Any] = {}
    for row in TABLE:
        if not row.key:
            continue
        part, _, key = row.key.partition(".")
        value, codec = (inspect.get(part) or {}).get(key), row.codec
        match row.shape:
            case Shape.LIST:
                found[row.field] = tuple(value or ())
            case Shape.WORDS:
                words = (value,) if isinstance(value, str) else tuple(value or ())
                found[row.field] = words if value else None
            case Shape.PAIRS:
                found[row.field] = tuple(sorted((value or {}).items()))
            case Shape.SET:
                # sorted like decoded values: the engine keeps the order in which a client sent them
                items = {codec.from_engine(item) for item in value or ()}
                found[row.field] = tuple(sorted(items, key=codec.order))
            case _:
                found[row.field] = codec.from_engine(value)
    return found
