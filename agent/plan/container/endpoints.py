# SPDX-License-Identifier: GPL-2.0-or-later
"""The networks of a container: which networks it should be on, and which endpoints differ on the engine.

Planning (is there drift?) and applying (what to reconnect?) both use this module, so that a reconnect touches exactly
the endpoints that were found to differ.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from agent.model import entry_text
from agent.model.container_table import ChangeLevel
from agent.model.identity import canonical
from agent.model.observed import ObservedNetwork, Record
from agent.model.resources import DEFAULT_NETWORKS, Container, ContainerSpec, Endpoint
from agent.plan.container.bodies import ENDPOINT_MAC_SINCE, ENDPOINT_SYSCTLS, driver_opts
from agent.plan.container.changes import FieldChange, OptionChange

# compared by name: each start of the engine gives these networks new ids
PREDEFINED = frozenset({"bridge", "host", "none"})
# from API 1.44 until this version, POST /networks/{id}/connect ignores MacAddress
CONNECT_MAC_SINCE = (1, 54)
# value in Record.ignored: the engine chose another address even for a new container
MAC_FIELD = "mac_address"
_OURS = ".ucidockd-"  # part of the temporary names during a swap


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointChanges:
    """Names of networks. `wrong`: networks to connect, after a disconnect if there is an endpoint; `extra`: networks to
    disconnect."""

    wrong: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    other_mac: frozenset[str] = frozenset()  # those of `wrong` that differ only in the MAC address

    def __bool__(self) -> bool:
        return bool(self.wrong or self.extra)


def wanted_endpoints(spec: ContainerSpec) -> tuple[Endpoint, ...]:
    """The networks that a container should be on; empty if its network mode rules out networks (host, none, shared)."""
    if spec.endpoints:
        return spec.endpoints
    return (Endpoint(network="bridge"),) if (spec.network_mode or "") in DEFAULT_NETWORKS else ()


def network_ids(networks: Iterable[ObservedNetwork], records: Iterable[Record]) -> dict[str, str]:
    """Name -> id of the networks that the engine lists, including the predefined ones.

    Before 25.0 several networks can have the same name. Then the name stands for the one that is ours. Unless
    exactly one of them is ours, the name is left out, because it is unknown which network is meant.
    """
    ours = {record.object_id for record in records if record.kind == "network" and not record.swap}
    named: dict[str, list[str]] = {}
    for network in networks:
        named.setdefault(network.name, []).append(network.id)
    known = {}
    # leave out an ambiguous name: a wrong guess would move a container into another network
    for name, ids in named.items():
        meant = ids if len(ids) == 1 else [each for each in ids if each in ours]
        if len(meant) == 1:
            known[name] = meant[0]
    return known


def compare(
    spec: ContainerSpec,
    inspect: Mapping[str, Any],
    known: Mapping[str, str],
    *,
    ignored: Collection[str] = (),
) -> EndpointChanges:
    """The differences between the spec and the body of GET /containers/{id}/json.

    `known`: see `network_ids`; a container may still refer to a network that was removed. `ignored`: see
    `Record.ignored`.
    """
    wanted = wanted_endpoints(spec)
    seen = (inspect.get("NetworkSettings") or {}).get("Networks") or {}
    if not wanted or (not spec.endpoints and seen.keys() == {"none"}):  # an engine without a default bridge
        return EndpointChanges()
    state = inspect.get("State") or {}
    # between two restarts the engine reports Running although the container has no endpoints
    running = bool(state.get("Running")) and not state.get("Restarting")
    current = {name: item for name, item in seen.items() if not _is_of_old_network(name, item, known)}
    wrong, other_mac = [], set()
    for endpoint in wanted:
        item = current.get(endpoint.network)
        if not _is_connected(endpoint, item, inspect, running=running):
            wrong.append(endpoint.network)
        elif MAC_FIELD not in ignored and not has_mac(endpoint, item):
            wrong.append(endpoint.network)
            other_mac.add(endpoint.network)
    extra = sorted(seen.keys() - {endpoint.network for endpoint in wanted})
    return EndpointChanges(wrong=tuple(wrong), extra=tuple(extra), other_mac=frozenset(other_mac))


def endpoint_drift(
    container: Container,
    inspect: Mapping[str, Any],
    known: Mapping[str, str],
    *,
    api: tuple[int, int],
    ignored: Collection[str] = (),
) -> FieldChange | None:
    """The differences that `compare` finds, in words; None if there are none."""
    found = compare(container.spec, inspect, known, ignored=ignored)
    if not found:
        return None
    seen = (inspect.get("NetworkSettings") or {}).get("Networks") or {}
    # A network that was recreated has a new id. The engine still shows the container's old network under the same
    # name, but the container is not on the new one.
    shown = sorted(n for n, item in seen.items() if not _is_of_old_network(n, item, known))
    wanted = wanted_endpoints(container.spec)
    old = ", ".join(f"{name}{_how_wrong(name, found)}" for name in shown)
    new = ", ".join(endpoint.network for endpoint in wanted)
    touched = [endpoint for endpoint in wanted if endpoint.network in found.wrong]
    level = level_of_reconnect(touched, api)
    option = OptionChange(
        option="network",
        before=tuple(f"{name}{_how_wrong(name, found)}" for name in shown) or None,
        after=tuple(map(entry_text.endpoint, wanted)) or None,
        level=level,
    )
    return FieldChange(field="endpoints", old=f"[{old}]", new=f"[{new}]", level=level, options=(option,))


def with_mac_level(
    changes: Iterable[FieldChange], before: Mapping[str, Any], container: Container, api: tuple[int, int]
) -> tuple[FieldChange, ...]:
    """The changes, but at level RECREATE if the engine cannot reconnect the changed endpoints.

    `before`: the canonical spec that was applied.
    """
    # compare by network name, not by position: another order of the networks is not a change
    old = {str(item.get("network")): item for item in before.get("endpoints", ())}
    touched = [e for e in container.spec.endpoints if old.get(e.network) != canonical(e)]
    dear = level_of_reconnect(touched, api) is ChangeLevel.RECREATE
    # only the level of reconnects is raised; all other levels stay as in the table
    return tuple(
        replace(change, level=ChangeLevel.RECREATE)
        if dear and change.level is ChangeLevel.RECONNECT
        else change
        for change in changes
    )


def level_of_reconnect(touched: Iterable[Endpoint], api: tuple[int, int]) -> ChangeLevel:
    """The level for reconnecting these endpoints: RECREATE if one has a MAC address and this engine ignores it in a
    connect."""
    forgets = ENDPOINT_MAC_SINCE <= api < CONNECT_MAC_SINCE
    return ChangeLevel.RECREATE if forgets and any(e.mac_address for e in touched) else ChangeLevel.RECONNECT


def has_mac(wanted: Endpoint, seen: Mapping[str, Any] | None) -> bool:
    """Whether an endpoint has the MAC address that it should have. True also for an endpoint that is not connected and
    so has none."""
    shown = str((seen or {}).get("MacAddress") or "").lower()
    return not wanted.mac_address or not shown or shown == wanted.mac_address


def shows_macs(spec: ContainerSpec, inspect: Mapping[str, Any]) -> bool:
    """Whether a container has all MAC addresses of its spec."""
    seen = (inspect.get("NetworkSettings") or {}).get("Networks") or {}
    return all(has_mac(endpoint, seen.get(endpoint.network)) for endpoint in spec.endpoints)


def _how_wrong(name: str, found: EndpointChanges) -> str:
    if name in found.other_mac:
        return " (other MAC address)"
    return " (other address or aliases)" if name in found.wrong else ""


def _is_connected(
    wanted: Endpoint, seen: Mapping[str, Any] | None, inspect: Mapping[str, Any], *, running: bool
) -> bool:
    """Whether an endpoint is exactly as declared. An additional alias or address counts as a difference: it could belong
    to another container.

    A failed connect leaves an entry without an EndpointID, which means not connected.
    """
    if seen is None or (running and not seen.get("EndpointID")):
        return False
    aliases = set(seen.get("Aliases") or ())
    # Engines before API 1.45 add the short id; later ones add the container's name, which may be its temporary name
    # from a swap.
    own = {str(inspect.get("Id") or "")[:12], str(inspect.get("Name") or "").removeprefix("/")}
    more = {alias for alias in aliases - own - set(wanted.aliases) if _OURS not in alias}
    if more or not set(wanted.aliases) <= aliases:
        return False
    ipam = seen.get("IPAMConfig") or {}
    addresses = ((wanted.ip, ipam.get("IPv4Address")), (wanted.ip6, ipam.get("IPv6Address")))
    if any(address != (found or "") for address, found in addresses):
        return False
    if sorted(ipam.get("LinkLocalIPs") or ()) != list(wanted.link_local) or seen.get("Links"):
        return False
    stated = tuple(pair for pair in wanted.driver_opts if pair[0] != ENDPOINT_SYSCTLS)
    return stated == driver_opts(seen) and (wanted.gw_priority or 0) == (seen.get("GwPriority") or 0)


def _is_of_old_network(name: str, endpoint: Mapping[str, Any], known: Mapping[str, str]) -> bool:
    held, now = endpoint.get("NetworkID"), known.get(name)  # the NetworkID is "" before the first start
    return bool(name not in PREDEFINED and held and now and held != now)
