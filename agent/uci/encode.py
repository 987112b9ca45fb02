# SPDX-License-Identifier: GPL-2.0-or-later
"""Encodes desired resources as UCI sections: the inverse of `agent.uci.decode`. Pure.

Only values that are set and differ from the default become options. Values that UCI cannot express (an empty option,
a `:` in a path) are encoded to text that decodes to something else or not at all. Code that encodes values that no
user wrote must check the result by decoding it (`agent.runtime.requests.adopt`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from agent.model.container_table import TABLE, ContainerOption, Shape
from agent.model.entry_text import age, dependency, duration, endpoint, ports, seconds, wait
from agent.model.resources import (
    Container,
    ContainerPolicy,
    ContainerSpec,
    Healthcheck,
    Network,
    Volume,
)
from agent.uci.decode_container import SHELL
from agent.uci.decode_network import BRIDGE_NAME, bridge_name
from agent.uci.syntax import Option, Section

Value = str | tuple[str, ...]
T = TypeVar("T")


def by_section(spec: ContainerSpec, networks: Mapping[str, str], volumes: Mapping[str, str]) -> ContainerSpec:
    """The spec with section names instead of Docker names, as decoding a single section returns it.

    `networks`, `volumes`: Docker name -> section.
    """
    endpoints = tuple(replace(e, network=networks.get(e.network, e.network)) for e in spec.endpoints)
    mounts = [m if m.is_bind else replace(m, source=volumes.get(m.source, m.source)) for m in spec.mounts]
    ordered = tuple(sorted(mounts, key=lambda mount: (mount.target, mount.source)))
    return replace(spec, endpoints=endpoints, mounts=ordered)


def encode_container(
    container: Container,
    *,
    networks: Mapping[str, str] | None = None,
    volumes: Mapping[str, str] | None = None,
) -> Section:
    """Encodes a container. `networks`, `volumes`: Docker name -> section, where they differ."""
    options: dict[str, Value] = _name(container.section, container.name)
    options |= _spec(by_section(container.spec, networks or {}, volumes or {}))
    options |= _policy(container.policy)
    return _section("container", container.section, options)


def encode_network(network: Network) -> Section:
    """A `network` section."""
    if network.external:
        return _section("network", network.section, {**_name(network.section, network.name), "external": "1"})
    spec = network.spec
    # decoding gives this name to every bridge that sets none
    own = {BRIDGE_NAME: bridge_name(network.section)} if spec.driver == "bridge" else {}
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
    """The flags that are on; off is the default of all of them."""
    return {option: "1" for option, value in values.items() if value}


def _stated(options: Mapping[str, Value | None]) -> dict[str, Value]:
    return {name: value for name, value in options.items() if value is not None and value != ()}


def _filled(lists: Mapping[str, Iterable[str]]) -> dict[str, Value]:
    return {option: items for option, values in lists.items() if (items := tuple(values))}


def _pairs(pairs: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{key}={value}" for key, value in pairs]


# containers


def _spec(spec: ContainerSpec) -> dict[str, Value]:
    health, first = spec.health or Healthcheck(), spec.endpoints[0] if spec.endpoints else None
    apart: dict[str, Value | None] = {
        "health_cmd": health.argv or health.cmd,
        "health_interval": _maybe(health.interval_ns, duration),
        "health_timeout": _maybe(health.timeout_ns, duration),
        "health_retries": _maybe(health.retries),
        "health_start_period": _maybe(health.start_period_ns, duration),
        "health_start_interval": _maybe(health.start_interval_ns, duration),
        "mac_address": first.mac_address or None if first else None,
        "env": tuple(_pairs(spec.env)),
        "port": tuple(ports(spec.ports)),
        "network": tuple(endpoint(item, mac=item is not first) for item in spec.endpoints),
    }
    options: dict[str, Value | None] = {}
    for row in TABLE:
        value: Value
        if row.field == "seccomp":
            value = (f"seccomp={spec.seccomp}",) if spec.seccomp else ()
        elif row.uci in apart or row.field == "health":
            continue
        else:
            value = _value(row, getattr(spec, row.field)) or ()
        before = options.get(row.uci)  # two fields may be entries of the same list
        options[row.uci] = (*before, *value) if isinstance(before, tuple) else value
    return _stated(options | apart)


def _value(row: ContainerOption, value: Any) -> Value | None:
    if value is None:
        return None
    if row.shape is Shape.PAIRS:
        return tuple(_pairs(value))
    return tuple(map(row.codec.text, value)) if isinstance(value, tuple) else row.codec.text(value)


def _policy(policy: ContainerPolicy) -> dict[str, Value]:
    # defaults are left out, as a person would write the section
    base = ContainerPolicy()
    options: dict[str, Value] = {}
    for option in ("enabled", "adopt", "rollback", "remove_volumes"):
        if getattr(policy, option) is not getattr(base, option):
            options[option] = _flag(getattr(policy, option))
    for option in ("state", "pull", "on_drift", "on_unhealthy"):
        options |= _unless(option, str(getattr(policy, option)), str(getattr(base, option)))
    options |= _unless("gate", seconds(policy.gate_s), seconds(base.gate_s))
    options |= _unless("grace", seconds(policy.grace_s), seconds(base.grace_s))
    stated: dict[str, Value | None] = {
        "update": _maybe(policy.update),
        "update_window": _maybe(policy.update_window),
        "update_age": _maybe(policy.update_age_s, age),
        "webui": policy.webui,
        "backup_before_update": _maybe(policy.backup_before_update, _flag),
        "strategy": _maybe(policy.strategy),
        "hold_limit": _maybe(policy.hold_limit_s, age),
        "hold_cmd": _command(policy.hold_cmd),
        "pre_stop": _command(policy.pre_stop),
        "post_start": _command(policy.post_start),
        "pre_stop_timeout": _maybe(policy.pre_stop_timeout_s, seconds),
        "post_start_timeout": _maybe(policy.post_start_timeout_s, seconds),
        "wait_for": tuple(map(wait, policy.wait_for)),
        "depends_on": tuple(map(dependency, policy.depends_on)),
    }
    return options | _stated(stated)


def _command(words: tuple[str, ...]) -> Value:
    # a shell line is an option, a program with arguments is a list: decoding distinguishes them this way
    return words[2] if words[:2] == SHELL and len(words) == 3 else words


# values


def _maybe(value: T | None, text: Callable[[T], str] = str) -> str | None:
    return None if value is None else text(value)
