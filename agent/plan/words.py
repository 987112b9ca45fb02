# SPDX-License-Identifier: GPL-2.0-or-later
"""Fields and their values in the words of a section, as plans, conflicts and diffs show them, without what may be secret.

Values are canonical and masked (`agent.model.identity`): what records hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from agent.model.resources import Device, Endpoint, Mount, Port, RestartPolicy, Tmpfs, Ulimit
from agent.model.secrets import hidden_pair, hidden_text, hidden_words
from agent.uci import encode

_OPTIONS = {
    "nano_cpus": "cpus",
    "stop_timeout_s": "stop_timeout",
    "health": "health_*",
    "ports": "port",
    "mounts": "volume",
    "endpoints": "network",
    "devices": "device",
    "cdi_devices": "device",
    "seccomp": "security_opt",
    "device_cgroup_rules": "device_cgroup_rule",
    "sysctls": "sysctl",
    "ulimits": "ulimit",
    "extra_hosts": "extra_host",
    "labels": "label",
    "log_opts": "log_opt",
}
_PAIRS = frozenset({"labels", "log_opts", "sysctls"})
_FORMATS: Mapping[str, Callable[[Any], object]] = {
    "memory": encode.size,
    "memory_swap": encode.size,
    "memory_reservation": encode.size,
    "shm_size": encode.size,
    "nano_cpus": encode.cpus,
    "restart": lambda value: encode.restart(RestartPolicy(**value)),
    "health": lambda value: _health(value),
    "ports": lambda value: list(encode.ports(Port(**item) for item in value)),
    "mounts": lambda value: [encode.mount(Mount(**item)) for item in value],
    "tmpfs": lambda value: [encode.tmpfs(Tmpfs(**item)) for item in value],
    "endpoints": lambda value: [_endpoint(item) for item in value],
    "devices": lambda value: [encode.device(Device(**item)) for item in value],
    "ulimits": lambda value: [encode.ulimit(Ulimit(**item)) for item in value],
}


def option_of(field: str) -> str:
    """The option that a ContainerSpec field is read from."""
    return _OPTIONS.get(field, field)


def words(field: str, old: Any, new: Any) -> tuple[str, str]:
    """Two values of a field. Of environment variables the names say enough, and only of those that differ."""
    if field != "env":
        return _words(field, old), _words(field, new)
    mine, other = dict(map(tuple, old or [])), dict(map(tuple, new or []))
    names = sorted(name for name in mine.keys() | other.keys() if mine.get(name) != other.get(name))
    return _names(names, mine), _names(names, other)


def _names(names: list[str], present: Mapping[str, Any]) -> str:
    return "[" + ", ".join(f"{name}=***" if name in present else f"no {name}" for name in names) + "]"


def _words(field: str, value: Any) -> str:
    if value is None:
        return "unset"
    if field in _PAIRS:
        return "[" + ", ".join(hidden_pair(key, item) for key, item in value) + "]"
    if field in _FORMATS:
        try:
            return _text(_FORMATS[field](value))
        except (TypeError, ValueError, KeyError):
            return _text(value)  # of a version that knew the field in another form
    return _text(value)


def _text(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={_text(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        if value and all(isinstance(item, str) for item in value):
            return "[" + ", ".join(hidden_words(value)) + "]"
        return "[" + ", ".join(_text(item) for item in value) + "]"
    return hidden_text(value) if isinstance(value, str) else str(value)


def _endpoint(item: Mapping[str, Any]) -> str:
    endpoint = Endpoint(**{**item, "aliases": tuple(item.get("aliases", ()))})
    mac = f",mac={endpoint.mac_address}" if endpoint.mac_address else ""
    return encode.endpoint(endpoint) + mac


def _health(value: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name.removesuffix("_ns"): encode.duration(item) if name.endswith("_ns") else item
        for name, item in value.items()
    }
