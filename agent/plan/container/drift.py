# SPDX-License-Identifier: GPL-2.0-or-later
"""What changed on a container behind our back.

The engine lets only three things of an existing container change: what `POST /containers/{id}/update` takes, its
networks, and its name (compared elsewhere). Everything else is fixed for the life of the id that state.json names.
Only fields that the user set are compared.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from agent.model.container_table import BY_FIELD, Level
from agent.model.identity import canonical
from agent.model.resources import Container, Network, Volume
from agent.plan.container.changes import LIMITS, FieldChange, is_same_limit, level_of
from agent.plan.container.describe import words
from agent.plan.container.endpoints import endpoint_drift
from agent.plan.container.payload import update_body
from agent.plan.written import option_changes
from agent.uci.decode_network import BRIDGE_NAME

FIELDS = tuple(  # ContainerSpec field, HostConfig key
    (field, BY_FIELD[field].key.partition(".")[2]) for field in sorted(LIMITS)
)


def container_drift(
    container: Container,
    inspect: dict[str, Any],
    networks: Mapping[str, str],
    *,
    api: tuple[int, int],
    ignored: Collection[str] = (),
) -> tuple[FieldChange, ...]:
    """The differences between a container's spec and the body of GET /containers/{id}/json.

    `networks`: see `endpoints.network_ids`; a container may hold on to a network that was removed. `api`: the version
    that the engine speaks. `ignored`: see `Record.ignored`.
    """
    changes = _resources(container, inspect.get("HostConfig") or {})
    endpoints = endpoint_drift(container, inspect, networks, api=api, ignored=ignored)
    found = (*changes, endpoints) if endpoints else changes
    return tuple(change for change in found if change.field not in ignored)


def _resources(container: Container, host: dict[str, Any]) -> tuple[FieldChange, ...]:
    changes = []
    for field, key in FIELDS:
        wanted, seen = getattr(container.spec, field), host.get(key)
        if wanted is not None and not is_same_limit(field, wanted, seen, host.get("Memory")):
            level = level_of(field, seen, wanted)
            old, new = words(field, seen, wanted)
            options = option_changes(field, seen, wanted, level)
            changes.append(FieldChange(field=field, old=old, new=new, level=level, options=options))
    if container.spec.restart is not None:
        wanted = update_body(container.spec, ["restart"])["RestartPolicy"]
        seen = host.get("RestartPolicy") or {}
        if (wanted["Name"], wanted["MaximumRetryCount"]) != (
            seen.get("Name"),
            seen.get("MaximumRetryCount", 0),
        ):
            was = {"name": seen.get("Name") or "no", "max_retries": seen.get("MaximumRetryCount", 0)}
            now = canonical(container.spec.restart)
            old, new = words("restart", was, now)
            options = option_changes("restart", was, now, Level.UPDATE)
            changes.append(
                FieldChange(field="restart", old=old, new=new, level=Level.UPDATE, options=options)
            )
    return tuple(changes)


def network_difference(network: Network, inspect: dict[str, Any]) -> tuple[str, ...]:
    """Names of what a foreign network (body of GET /networks/{id}) has otherwise than declared."""
    spec = network.spec
    pairs = {
        "driver": (spec.driver, inspect.get("Driver")),
        "internal": (spec.internal, inspect.get("Internal")),
        "attachable": (spec.attachable, inspect.get("Attachable")),
        "ipv6": (spec.ipv6, inspect.get("EnableIPv6")),
    }
    differing = [name for name, (wanted, seen) in pairs.items() if wanted != seen]
    if not set(spec.options) <= set(network_options(inspect).items()):
        differing.append("options")
    if not set(spec.labels) <= set((inspect.get("Labels") or {}).items()):
        differing.append("labels")
    pools = {p.get("Subnet"): p for p in ((inspect.get("IPAM") or {}).get("Config") or ())}
    for pool in spec.pools:
        seen = pools.get(pool.subnet)
        wanted = {"Gateway": pool.gateway, "IPRange": pool.ip_range}
        if seen is None or any(value and seen.get(name) != value for name, value in wanted.items()):
            differing.append("pools")
            break
    return tuple(differing)


def network_options(inspect: Mapping[str, Any]) -> dict[str, str]:
    """The options of a network, with the name that the engine gave its bridge where nobody else did.

    `libnetwork/drivers/bridge`: `br-` and the first 12 digits of the network's id.
    """
    options = dict(inspect.get("Options") or {})
    if inspect.get("Driver") == "bridge":
        options.setdefault(BRIDGE_NAME, f"br-{str(inspect.get('Id') or '')[:12]}")
    return options


def volume_difference(volume: Volume, inspect: dict[str, Any]) -> tuple[str, ...]:
    """Names of what a foreign volume (body of GET /volumes/{name}) has otherwise than declared; labels do no harm."""
    differing = ["driver"] if volume.spec.driver != inspect.get("Driver") else []
    if set(volume.spec.options) != set((inspect.get("Options") or {}).items()):
        differing.append("options")
    return tuple(differing)
