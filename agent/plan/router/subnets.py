# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a network can have its subnets and its bridge.

The engine refuses a subnet that overlaps another network's, and only says that. It takes one that overlaps the
router's own, which is then cut off, and a bridge that is the router's own, whose address it takes away. So all of these
are looked at before anything is taken down, and whose it is can be said.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from agent.errors import Reason
from agent.model.interfaces import Route
from agent.model.resources import Network
from agent.plan.draft import Draft
from agent.uci.decode_network import BRIDGE_NAME

_Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network
_ON_THE_LAN = frozenset({"macvlan", "ipvlan"})  # their subnets are those of the device that they lie on


def obstacle(draft: Draft, network: Network, object_id: str = "") -> tuple[Reason, str] | None:
    """Reason and words of why a declared network cannot be made. `object_id`: the one that it replaces."""
    bridge = dict(network.spec.options).get(BRIDGE_NAME)
    if bridge in draft.context.router_devices:
        return (
            "BridgeTaken",
            f"its bridge {bridge} is the router's own; `list opt {BRIDGE_NAME}=...` names another",
        )
    found = _overlaps(draft, network, object_id)
    return ("SubnetOverlaps", found) if found else None


def _overlaps(draft: Draft, network: Network, object_id: str) -> str:
    others = [n for n in draft.observed.networks if n.inspect.get("Scope", "local") == "local"]
    known = {subnet for other in others for subnet in _subnets(other.inspect)}
    for pool in network.spec.pools:
        mine = ipaddress.ip_network(pool.subnet)
        for other in others:
            met = next(
                (s for s in _subnets(other.inspect) if other.id != object_id and _overlap(mine, s)), None
            )
            if met is not None:
                return f"subnet {mine} overlaps {met} of the network {other.name}"
        for route in _routes(draft, network):
            subnet = ipaddress.ip_network(route.subnet)
            # what lies behind a router or a tunnel may well be a part of a larger route: the smaller one wins
            hides = route.direct or subnet.prefixlen >= mine.prefixlen
            if subnet not in known and hides and _overlap(mine, subnet):
                return f"subnet {mine} overlaps {subnet}, which the router itself reaches by {route.device}"
    return ""


def _routes(draft: Draft, network: Network) -> list[Route]:
    """Those that are none of its own: a bridge outlives an engine that was killed or lost its data."""
    if network.spec.driver in _ON_THE_LAN:
        return []
    bridge = dict(network.spec.options).get(BRIDGE_NAME)
    return [route for route in draft.context.routes if route.device != bridge]


def _overlap(one: _Subnet, other: _Subnet) -> bool:
    return one.version == other.version and one.overlaps(other)


def _subnets(inspect: dict[str, object]) -> Iterator[_Subnet]:
    ipam = inspect.get("IPAM")
    pools = ipam.get("Config") if isinstance(ipam, dict) else None
    for pool in pools or ():
        try:
            yield ipaddress.ip_network(str(pool.get("Subnet")), strict=False)
        except ValueError:  # of a driver that gives no addresses
            continue
