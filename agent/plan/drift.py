# SPDX-License-Identifier: GPL-2.0-or-later
"""What changed on a container behind our back.

The engine lets only three things of an existing container change: what `POST /containers/{id}/update` takes, its
networks, and its name (compared elsewhere). Everything else is fixed for the life of the id that state.json names.
Only fields that the user set are compared.
"""

from __future__ import annotations

from typing import Any

from agent.model.identity import canonical
from agent.model.resources import Container, Endpoint
from agent.plan.changes import FieldChange, Level, level_of
from agent.plan.payload import update_body

_FIELDS = (
    ("blkio_weight", "BlkioWeight"),
    ("cpu_shares", "CpuShares"),
    ("cpuset", "CpusetCpus"),
    ("memory", "Memory"),
    ("memory_reservation", "MemoryReservation"),
    ("memory_swap", "MemorySwap"),
    ("nano_cpus", "NanoCpus"),
    ("pids_limit", "PidsLimit"),
)


def container_drift(container: Container, inspect: dict[str, Any]) -> tuple[FieldChange, ...]:
    """The differences between a container's spec and the body of GET /containers/{id}/json."""
    changes = _resources(container, inspect.get("HostConfig") or {})
    endpoints = _endpoints(container, inspect)
    return (*changes, endpoints) if endpoints else changes


def _resources(container: Container, host: dict[str, Any]) -> tuple[FieldChange, ...]:
    changes = []
    for field, key in _FIELDS:
        wanted, seen = getattr(container.spec, field), host.get(key)
        if wanted is not None and wanted != seen:
            level = level_of(field, seen, wanted)
            changes.append(FieldChange(field=field, old=str(seen), new=str(wanted), level=level))
    if container.spec.restart is not None:
        wanted = update_body(container.spec, ["restart"])["RestartPolicy"]
        seen = host.get("RestartPolicy") or {}
        if (wanted["Name"], wanted["MaximumRetryCount"]) != (
            seen.get("Name"),
            seen.get("MaximumRetryCount", 0),
        ):
            old, new = str(seen.get("Name")), str(wanted["Name"])
            changes.append(FieldChange(field="restart", old=old, new=new, level=Level.UPDATE))
    return tuple(changes)


def _endpoints(container: Container, inspect: dict[str, Any]) -> FieldChange | None:
    if not container.spec.endpoints:
        return None
    networks = (inspect.get("NetworkSettings") or {}).get("Networks") or {}
    running = (inspect.get("State") or {}).get("Running", False)
    wrong = [
        e.network
        for e in container.spec.endpoints
        if not _connected(e, networks.get(e.network), running=running)
    ]
    extra = sorted(networks.keys() - {e.network for e in container.spec.endpoints})
    if not wrong and not extra:
        return None
    old = "[" + ", ".join(sorted(networks)) + "]"
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
