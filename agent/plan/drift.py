# SPDX-License-Identifier: GPL-2.0-or-later
"""What changed on a container behind our back.

The engine lets only three things of an existing container change: what `POST /containers/{id}/update` takes, its
networks, and its name (compared elsewhere). Everything else is fixed for the life of the id that state.json names.
Only fields that the user set are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.model.identity import canonical
from agent.model.resources import Container, Endpoint, Network, Volume
from agent.plan.changes import FieldChange, Level, level_of
from agent.plan.payload import update_body
from agent.plan.words import words
from agent.uci.decode_network import BRIDGE_NAME

FIELDS = (  # ContainerSpec field, HostConfig key
    ("blkio_weight", "BlkioWeight"),
    ("cpu_shares", "CpuShares"),
    ("cpuset", "CpusetCpus"),
    ("memory", "Memory"),
    ("memory_reservation", "MemoryReservation"),
    ("memory_swap", "MemorySwap"),
    ("nano_cpus", "NanoCpus"),
    ("pids_limit", "PidsLimit"),
)


def container_drift(
    container: Container, inspect: dict[str, Any], networks: Mapping[str, str]
) -> tuple[FieldChange, ...]:
    """The differences between a container's spec and the body of GET /containers/{id}/json.

    `networks`: name -> id of the engine's networks; a container may hold on to one that was removed.
    """
    changes = _resources(container, inspect.get("HostConfig") or {})
    endpoints = _endpoints(container, inspect, networks)
    return (*changes, endpoints) if endpoints else changes


def _resources(container: Container, host: dict[str, Any]) -> tuple[FieldChange, ...]:
    changes = []
    for field, key in FIELDS:
        wanted, seen = getattr(container.spec, field), host.get(key)
        if wanted is not None and not _is_same_limit(field, wanted, seen):
            level = level_of(field, seen, wanted)
            old, new = words(field, seen, wanted)
            changes.append(FieldChange(field=field, old=old, new=new, level=level))
    if container.spec.restart is not None:
        wanted = update_body(container.spec, ["restart"])["RestartPolicy"]
        seen = host.get("RestartPolicy") or {}
        if (wanted["Name"], wanted["MaximumRetryCount"]) != (
            seen.get("Name"),
            seen.get("MaximumRetryCount", 0),
        ):
            was = {"name": seen.get("Name") or "no", "max_retries": seen.get("MaximumRetryCount", 0)}
            old, new = words("restart", was, canonical(container.spec.restart))
            changes.append(FieldChange(field="restart", old=old, new=new, level=Level.UPDATE))
    return tuple(changes)


def _is_same_limit(field: str, wanted: Any, seen: Any) -> bool:
    """A limit of 0 is none, and the engine shows none as 0, as -1 or not at all; of swap it is the engine's default."""
    if not wanted and field == "memory_swap":
        return True
    return bool(wanted == seen) or (
        wanted in (0, -1) and seen in (None, 0, -1) and (field != "memory_swap" or not seen)
    )


def _endpoints(container: Container, inspect: dict[str, Any], known: Mapping[str, str]) -> FieldChange | None:
    if not container.spec.endpoints:
        return None
    seen = (inspect.get("NetworkSettings") or {}).get("Networks") or {}
    networks = {n: item for n, item in seen.items() if not _is_of_old_network(item, known.get(n))}
    state = inspect.get("State") or {}
    # between two restarts it counts as running and has no endpoints
    running = state.get("Running", False) and not state.get("Restarting", False)
    wrong = [
        e.network
        for e in container.spec.endpoints
        if not _connected(e, networks.get(e.network), running=running)
    ]
    extra = sorted(networks.keys() - {e.network for e in container.spec.endpoints})
    if not wrong and not extra:
        return None
    names = (f"{name} (other address or aliases)" if name in wrong else name for name in sorted(networks))
    old = "[" + ", ".join(names) + "]"
    new = "[" + ", ".join(str(canonical(e)["network"]) for e in container.spec.endpoints) + "]"
    return FieldChange(field="endpoints", old=old, new=new, level=Level.RECONNECT)


def _connected(wanted: Endpoint, seen: dict[str, Any] | None, *, running: bool) -> bool:
    """A failed connect leaves an entry without an endpoint id: that is not connected."""
    if seen is None or (running and not seen.get("EndpointID")):
        return False
    if not set(wanted.aliases) <= set(seen.get("Aliases") or ()):
        return False
    ipam = seen.get("IPAMConfig") or {}
    addresses = ((wanted.ip, ipam.get("IPv4Address")), (wanted.ip6, ipam.get("IPv6Address")))
    return all(not address or address == found for address, found in addresses)


def _is_of_old_network(endpoint: dict[str, Any], network_id: str | None) -> bool:
    held = endpoint.get("NetworkID")  # "" before the first start
    return bool(held and network_id and held != network_id)


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
