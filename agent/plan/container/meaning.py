# SPDX-License-Identifier: GPL-2.0-or-later
"""What a recorded or desired spec means: two specs with the same meaning ask for the same object, however they are
written.

Spec hashes are built from the literal text of a section and stored on routers (`agent.model.identity`). So hashes can
never learn that `TERM` is `SIGTERM`, or that stating a default changes nothing. If two hashes differ, planning
compares the meanings from this module. Specs are canonical and masked, in the form that records store. They may come
from another version of ucidockd: a value in an unknown form means itself.

Defaults come from moby (daemon/create.go, daemon/config, runconfig), from dockerd's settings if UCI has them, and
from the image if it was inspected. Without the image, for example, an unset user is not known to be root.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.model.dockerd.settings import DaemonSettings
from agent.model.identity import spec_hash
from agent.model.kernel_names import sysctl_name
from agent.model.quantities import parse_size
from agent.model.updates import parse_image

_NS_PER_S = 1_000_000_000
_EVERYWHERE = "0.0.0.0"
# what an unset field means if dockerd itself has default settings
_ENGINE: Mapping[str, Any] = {
    "privileged": False,
    "memory": 0,
    "memory_swap": 0,
    "memory_reservation": 0,
    "pids_limit": 0,
    "shm_size": 64 << 20,
    "blkio_weight": 0,
    "cpu_shares": 0,
    "oom_kill_disable": False,
    "init": False,
    "read_only": False,
    "tty": False,
    "stdin": False,
    "stop_timeout_s": 10,
    "stdin_once": False,
    "oom_score_adj": 0,
    "cpu_period": 0,
    "cpu_quota": 0,
    "cpu_rt_period": 0,
    "cpu_rt_runtime": 0,
    "volume_driver": "local",
    "runtime": "runc",
    "network_mode": "bridge",
    "ipc": "private",
    "log_driver": "json-file",
    "publish_all": False,
}
# The defaults of these fields are settings of dockerd, which may come from outside UCI: only the container itself
# shows the value in use.
SET_BY_ENGINE = ("init", "ipc", "log_driver", "runtime", "shm_size")
_HEALTH = {"interval_ns": 30 * _NS_PER_S, "timeout_ns": 30 * _NS_PER_S, "retries": 3, "start_period_ns": 0}
_HEALTH["start_interval_ns"] = 5 * _NS_PER_S
# keys of the image's Config that replace unset fields
_IMAGE_KEYS = ("User", "StopSignal", "WorkingDir", "Healthcheck", "Cmd", "Entrypoint")
# moby oci/caps/defaults.go
_CAPABILITIES = frozenset(
    {
        "CAP_AUDIT_WRITE",
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_FSETID",
        "CAP_KILL",
        "CAP_MKNOD",
        "CAP_NET_BIND_SERVICE",
        "CAP_NET_RAW",
        "CAP_SETFCAP",
        "CAP_SETGID",
        "CAP_SETPCAP",
        "CAP_SETUID",
        "CAP_SYS_CHROOT",
    }
)
# signals with the same number on all Linux architectures
_SIGNALS = {
    "1": "HUP", "2": "INT", "3": "QUIT", "4": "ILL", "6": "ABRT", "8": "FPE", "9": "KILL", "11": "SEGV",
    "13": "PIPE", "14": "ALRM", "15": "TERM",
}  # fmt: skip
_TMPFS_DEFAULTS = ("rw", "noexec", "nosuid", "nodev", "exec=0", "suid=0", "dev=0")
_TMPFS_FLAGS = {
    "ro": "rw", "noexec": "exec", "nosuid": "suid", "nodev": "dev", "noatime": "atime",
    "nodiratime": "diratime", "async": "sync",
}  # fmt: skip
_NETWORK_TRUE = ("com.docker.network.bridge.enable_icc", "com.docker.network.bridge.enable_ip_masquerade")
_TRUE_WORDS = ("1", "t", "T", "true", "TRUE", "True")  # Go: strconv.ParseBool
_NETWORK_OPTIONS = {"macvlan_mode": "bridge", "ipvlan_mode": "l2"} | dict.fromkeys(_NETWORK_TRUE, "true")


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """The values that unset fields of a container stand for.

    `address`: the host address of ports without one. `image`: see `image_defaults`; None if unknown.
    """

    engine: Mapping[str, Any] = field(default_factory=lambda: _ENGINE)
    address: str = _EVERYWHERE
    image: Mapping[str, Any] | None = None


PLAIN = Defaults()


def defaults_of(settings: DaemonSettings | None, image: Mapping[str, Any] | None = None) -> Defaults:
    """The defaults according to dockerd's settings in UCI (`agent.model.dockerd.table`)."""
    # a value that a section leaves out must compare equal to the default that dockerd fills in
    values = settings.values if settings is not None else {}
    engine = dict(_ENGINE)
    engine["log_driver"] = values.get("log-driver") or engine["log_driver"]
    engine["init"] = bool(values.get("init", engine["init"]))
    engine["runtime"] = values.get("default-runtime") or engine["runtime"]
    engine["ipc"] = values.get("default-ipc-mode") or engine["ipc"]
    engine["shm_size"] = int(str(values.get("default-shm-size") or engine["shm_size"]))
    return Defaults(engine=engine, address=str(values.get("ip") or _EVERYWHERE), image=image)


def image_defaults(inspect: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values that an image (body of GET /images/{name}/json) provides for options that a section does not set."""
    config = inspect.get("Config") or {}
    return {key: config[key] for key in _IMAGE_KEYS if config.get(key)}


def changed_fields(
    kind: str, before: Mapping[str, Any], after: Mapping[str, Any], defaults: Defaults = PLAIN
) -> tuple[str, ...]:
    """The fields that are written differently and differ in meaning, sorted."""
    written = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    if not written:
        return ()
    old, new = meaning(kind, before, defaults), meaning(kind, after, defaults)
    return tuple(sorted(name for name in written if old.get(name) != new.get(name)))


def meaning_hash(kind: str, spec: Mapping[str, Any]) -> str:
    """A hash that is equal for specs that ask for the same on every engine and with every image."""
    return spec_hash(meaning(kind, spec))


def newly_stated(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    """The fields that a section sets now and did not set before, and whose defaults are settings of dockerd."""
    return tuple(name for name in SET_BY_ENGINE if name in after and name not in before)


def meaning(kind: str, spec: Mapping[str, Any], defaults: Defaults = PLAIN) -> dict[str, Any]:
    """Field -> meaning, without fields that only state a default. Use it only to compare with another meaning."""
    if kind == "network":
        return _network(spec)
    if kind != "container":
        return dict(spec)

    def drop_address(spec: dict[str, Any]) -> None:
        """The address at which dockerd publishes ports without one says nothing."""
        if "ports" in spec:
            ports = [
                {**port, "host_ip": "" if port["host_ip"] == defaults.address else port["host_ip"]}
                for port in spec["ports"]
            ]
            spec["ports"] = sorted(
                ports, key=lambda port: sorted((name, str(item)) for name, item in port.items())
            )

    found = {name: _means(name, value) for name, value in spec.items()}
    # normalize single fields first: the steps below combine several fields and expect normalized values
    for name, default in defaults.engine.items():
        if found.get(name) == default:
            del found[name]
    _safely(found, drop_address)
    _safely(found, _join_ports)
    _safely(found, _join_memory)
    _safely(found, _join_networks)
    _safely(found, _join_capabilities)
    _safely(found, lambda spec: _add_image(spec, defaults.image))
    return {name: value for name, value in found.items() if value not in (None, [])}


def _safely(found: dict[str, Any], change: Callable[[dict[str, Any]], None]) -> None:
    """Applies `change`, or leaves the spec as it is if the change fails: another version of ucidockd may have written
    it."""
    # a copy: a change that fails half-way must leave nothing behind
    copy = dict(found)
    try:
        change(copy)
    except (TypeError, ValueError, KeyError, AttributeError):
        return
    found.clear()
    found.update(copy)


def _means(name: str, value: Any) -> Any:
    try:
        return _FIELDS[name](value) if name in _FIELDS else value
    except (TypeError, ValueError, KeyError, AttributeError):
        return value


# one field


def image_reference(text: str) -> str:
    """The full name of an image: docker.io/library/nginx:latest (distribution/reference, normalize.go).

    With a digest the tag is dropped, because it has no effect. An image id stays an id.
    """
    # the engine accepts an id with and without its prefix
    if re.fullmatch(r"(sha256:)?[0-9a-f]{64}", text):
        return text.removeprefix("sha256:")
    name = parse_image(text)
    repository = f"{name.registry}/{name.repository}"
    return f"{repository}@{name.digest.lower()}" if name.digest else f"{repository}:{name.tag}"


def is_same_image(one: object, other: object) -> bool:
    """Whether two references name the same image."""
    # the literal comparison comes first because every pass asks this for every container
    return one == other or bool(_means("image", one) == _means("image", other))


def signal_name(text: str) -> str:
    """`TERM` for `SIGTERM`, `sigterm` and 15. Numbers that differ between architectures are kept."""
    name = text.upper().removeprefix("SIG")
    number = name.lstrip("0")
    return _SIGNALS.get(number, number) if name.isdigit() else name


def _user(text: str) -> str:
    """`0` for `root`. A group is not dropped, even root's: with an explicit group the engine does not look up the user's
    other groups."""
    parts = [
        "0" if part == "root" else str(int(part)) if part.isdigit() else part for part in text.split(":")
    ]
    return ":".join(parts)


def _cpuset(text: str) -> list[int]:
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        end = int(last if dash else first)
        if end > 65535:
            raise ValueError(text)
        found.update(range(int(first), end + 1))
    return sorted(found)


def _path(text: str) -> str:
    return posixpath.normpath("/" + text.lstrip("/") if text.startswith("/") else text)


def _process_limit(value: int) -> int:
    return max(value, 0)  # -1 and 0 mean no limit


def _health(value: Mapping[str, Any]) -> dict[str, Any] | None:
    """A health check without zero values: zero means the image's value, like an unset field."""
    if value.get("cmd") == "none":
        return {"cmd": "none"}
    return {name: item for name, item in value.items() if item} or None


def _mounts(value: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted((_mount(item) for item in value), key=lambda mount: str(mount["target"]))


def _mount(item: dict[str, Any]) -> dict[str, Any]:
    source = item["source"]
    return {
        **item,
        "source": _path(source) if source.startswith("/") else source,
        "target": _path(item["target"]),
        "propagation": "" if item.get("propagation") == "rprivate" else item.get("propagation", ""),
    }


def _tmpfs(value: list[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    return sorted((_path(item["target"]), _tmpfs_options(item.get("options", ""))) for item in value)


def _tmpfs_options(text: str) -> list[str]:
    """The effective options: if two options set the same thing, the last one wins (moby pkg/mount, MergeTmpfsOptions)."""
    found: dict[str, str] = {}
    for option in filter(None, text.split(",")):
        name, equals, value = option.partition("=")
        if equals:
            found[name] = str(parse_size(value)) if name == "size" and not value.endswith("%") else value
            # to the kernel `mode=0755` and `mode=755` are the same
            found[name] = value.lstrip("0") if name == "mode" else found[name]
        else:
            found[_TMPFS_FLAGS.get(name, name)] = "0" if name in _TMPFS_FLAGS else "1"
    words = (name if value == "1" else f"{name}={value}" for name, value in found.items())
    return sorted(word for word in words if word not in _TMPFS_DEFAULTS)


def _endpoints(value: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Endpoints with sorted aliases. The order of the networks is kept, because it decides the interface names."""
    return [
        {
            **item,
            "aliases": sorted(item.get("aliases", ())),
            "mac_address": item.get("mac_address", "").lower(),
            "gw_priority": item.get("gw_priority") or None,
        }
        for item in value
    ]


def _devices(value: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = [{**item, "container": item["container"] and _path(item["container"])} for item in value]
    return sorted(found, key=lambda device: (device["container"], device["host"]))


def _rules(value: list[str]) -> list[str]:
    return sorted({" ".join([*rule.split()[:-1], "".join(sorted(rule.split()[-1]))]) for rule in value})


def _security(value: list[str]) -> list[str]:
    found = (security_option(entry) for entry in value)
    return sorted({option for option in found if option != "no-new-privileges=false"})


def security_option(entry: str) -> str:
    """Normalizes `name:value` to `name=value` (moby daemon/daemon_unix.go, parseSecurityOpt)."""
    if entry == "no-new-privileges":
        return "no-new-privileges=true"
    name, separator, value = entry.partition("=")
    if not separator:
        name, separator, value = entry.partition(":")
    if name == "no-new-privileges":
        value = "true" if value in _TRUE_WORDS else "false"
    return f"{name}={value}" if separator else entry


_FIELDS: Mapping[str, Callable[[Any], Any]] = {
    "image": image_reference,
    "user": _user,
    "workdir": _path,
    "cpuset": _cpuset,
    "cpuset_mems": _cpuset,
    "cpu_quota": _process_limit,
    "pids_limit": _process_limit,
    "shm_size": lambda size: size or 64 << 20,
    "stop_signal": signal_name,
    "network_mode": lambda mode: "bridge" if mode == "default" else mode,
    "health": _health,
    "mounts": _mounts,
    "tmpfs": _tmpfs,
    "endpoints": _endpoints,
    "devices": _devices,
    "device_cgroup_rules": _rules,
    "dns": lambda servers: list(dict.fromkeys(servers)),
    "dns_search": lambda domains: list(dict.fromkeys(domains)),
    "sysctls": lambda pairs: sorted([sysctl_name(name), setting] for name, setting in pairs),
    "dns_opt": sorted,
    # only the order of the addresses of the same name matters
    "extra_hosts": lambda entries: sorted(entries, key=lambda entry: entry.partition(":")[0]),
    "group_add": sorted,
    "security_opt": _security,
}


# combinations of fields


def _join_ports(spec: dict[str, Any]) -> None:
    """Drops exposed ports that are also published: publishing exposes them anyway."""
    published = {f"{port['container_port']}/{port['protocol']}" for port in spec.get("ports", ())}
    if "expose" in spec:
        spec["expose"] = sorted(set(spec["expose"]) - published)


def _join_memory(spec: dict[str, Any]) -> None:
    """Drops a swap limit that equals the engine's default: twice the memory limit, or none without a memory limit (moby
    daemon/daemon_unix.go, adaptContainerSettings)."""
    memory, swap = spec.get("memory"), spec.get("memory_swap")
    if (memory and swap == 2 * memory) or (not memory and swap == -1):
        del spec["memory_swap"]


def _join_networks(spec: dict[str, Any]) -> None:
    """Drops a network list that holds only the default bridge, which every container gets anyway."""
    endpoints = spec.get("endpoints")
    if endpoints and len(endpoints) == 1 and not spec.get("network_mode"):
        rest = {name: value for name, value in endpoints[0].items() if value}
        if rest == {"network": "bridge"}:
            del spec["endpoints"]


def _join_capabilities(spec: dict[str, Any]) -> None:
    """Replaces added and dropped capabilities with the resulting set (moby oci/caps/utils.go, TweakCapabilities)."""
    add, drop = spec.pop("cap_add", None) or (), spec.pop("cap_drop", None) or ()
    have: set[str] = (set(_CAPABILITIES) - set(drop)) | set(add)
    # with "ALL" keep the set symbolic: what "all" contains depends on the kernel
    if "ALL" in add:
        have = {"ALL"} | {f"not {name}" for name in drop if name != "ALL"}
    elif "ALL" in drop:
        have = {"none", *add}
    if have != _CAPABILITIES:
        spec["cap_add"] = spec["cap_drop"] = sorted(have)


def _add_image(spec: dict[str, Any], image: Mapping[str, Any] | None) -> None:
    if image is None:
        return
    for name, default in (
        ("user", _user(image.get("User") or "root")),
        ("stop_signal", signal_name(image.get("StopSignal") or "TERM")),
        ("workdir", _path(image.get("WorkingDir") or "/")),
    ):
        if spec.get(name) == default:
            del spec[name]
    _add_health(spec, image.get("Healthcheck") or {})
    # a container that overrides the entrypoint does not get the image's command (moby daemon/commit.go, merge)
    entrypoint, command = spec.pop("entrypoint", None), spec.pop("command", None)
    if entrypoint is None:
        entrypoint, theirs = image.get("Entrypoint") or [], image.get("Cmd") or []
        command = theirs if command is None else command
    started = [[] if entrypoint == [""] else entrypoint, command or []]
    spec["entrypoint"] = spec["command"] = started


def _add_health(spec: dict[str, Any], theirs: Mapping[str, Any]) -> None:
    own = spec.pop("health", None) or {}
    # the engine merges part by part: a custom test keeps the image's interval (moby daemon/commit.go, merge)
    kind, *words = theirs.get("Test") or ("",)
    test = [own["cmd"]] if own.get("cmd") else {"": [], "NONE": ["none"]}.get(kind, [kind, *words])
    test = ["CMD", *own["argv"]] if own.get("argv") else test
    if test in ([], ["none"]):  # no check runs, so the intervals do not matter
        checked: dict[str, Any] = {"cmd": "none"} if test and theirs.get("Test") else {}
    else:
        checked = {"cmd": test[1:] if test[0] == "CMD-SHELL" else test}
        for name, key in (
            ("interval_ns", "Interval"),
            ("timeout_ns", "Timeout"),
            ("retries", "Retries"),
            ("start_period_ns", "StartPeriod"),
            ("start_interval_ns", "StartInterval"),
        ):
            checked[name] = own.get(name) or theirs.get(key) or _HEALTH[name]
    if checked:
        spec["health"] = checked


# networks


def _network(spec: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(spec)
    _safely(found, _network_options)
    _safely(found, _pools)
    return found


def _network_options(spec: dict[str, Any]) -> None:
    options = dict(spec.get("options") or ())
    for name in _NETWORK_TRUE:
        if options.get(name) in _TRUE_WORDS:
            options[name] = "true"
    spec["options"] = sorted(item for item in options.items() if item not in _NETWORK_OPTIONS.items())


def _pools(spec: dict[str, Any]) -> None:
    """Normalizes pools: the order of IPv4 and IPv6 pools does not matter, and the first address of a subnet is the
    default gateway."""
    pools = [_pool(pool) for pool in spec.get("pools") or ()]
    spec["pools"] = sorted(pools, key=lambda pool: ":" in pool["subnet"])


def _pool(pool: dict[str, Any]) -> dict[str, Any]:
    subnet, gateway = ipaddress.ip_network(pool["subnet"]), pool.get("gateway")
    if not gateway or pool.get("ip_range") or subnet.num_addresses < 4:
        return {**pool, "gateway": gateway or ""}
    first = str(subnet.network_address + 1)
    taken = first in dict(pool.get("aux_addresses") or ()).values()
    return {**pool, "gateway": ""} if gateway == first and not taken else pool
