# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a network can have its subnets and its bridge.

The engine refuses a subnet that overlaps another network's, and only says that. It takes one that overlaps the
router's own, which is then cut off, and a bridge that is the router's own, whose address it takes away. So all of these
are checked before anything is taken down, and the message can say whose subnet or bridge it is.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace

from agent.errors import Reason
from agent.model.addresses import Route
from agent.model.dockerd.settings import DaemonSettings, Document, Json
from agent.model.resources import Network
from agent.plan.daemon import LeftOut
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
    bridge = dict(network.spec.options).get(BRIDGE_NAME)
    # its own bridge may be there before it: it outlives an engine that was killed or lost its data
    routes = [route for route in draft.context.routes if route.device != bridge]
    if network.spec.driver in _ON_THE_LAN:
        routes = []
    for pool in network.spec.pools:
        mine = ipaddress.ip_network(pool.subnet)
        for other in others:
            met = next(
                (s for s in _subnets(other.inspect) if other.id != object_id and _overlap(mine, s)), None
            )
            if met is not None:
                return f"subnet {mine} overlaps {met} of the network {other.name}"
        for route in routes:
            subnet = ipaddress.ip_network(route.subnet)
            # what lies behind a router or a tunnel may well be a part of a larger route: the smaller one wins
            hides = route.direct or subnet.prefixlen >= mine.prefixlen
            if subnet not in known and hides and _overlap(mine, subnet):
                return f"subnet {mine} overlaps {subnet}, which the router itself reaches by {route.device}"
    return ""


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


# Whether docker0 and the pools of networks can have their subnets beside the networks that the router itself reaches.
#
# dockerd takes any `bip`, also the LAN's own, and the router is cut off then. As for networks of sections (see
# `agent.plan.router.subnets`), what lies behind a router or a tunnel may be a larger route: the smaller one wins. From
# a pool dockerd takes only pieces that overlap no route (moby libnetwork, FindAvailableNetwork), so one is wrong when
# nothing of it is left. Pure.


_DOCKERS_OWN = re.compile(r"docker0|docker_gwbridge|br-[0-9a-f]{12}", re.ASCII)
_POOLS = "default-address-pools"
# the bridge's own address decides; a part of its subnet does only where there is none
_BRIDGE = (("bip", "fixed-cidr"), ("bip6", "fixed-cidr-v6"))
SUBNET_KEYS = frozenset({_POOLS, *(key for keys in _BRIDGE for key in keys)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """The settings without pools that have nothing left. `refused`: key -> why its value cannot be used."""

    settings: DaemonSettings
    refused: Document
    left_out: tuple[LeftOut, ...] = ()
    warnings: tuple[str, ...] = ()


def fit(settings: DaemonSettings, routes: Iterable[Route], bridges: Collection[str]) -> Fitted:
    """The settings as they can be on this router. `bridges`: devices of the networks that sections declare."""
    theirs = [r for r in routes if r.device not in bridges and not _DOCKERS_OWN.fullmatch(r.device)]
    refused: dict[str, Json] = {}
    for keys in _BRIDGE:
        key = next((key for key in keys if settings.values.get(key)), "")
        if key:
            subnet = ipaddress.ip_interface(str(settings.values[key])).network
            met = next(_meeting(subnet, theirs), None)
            if met is not None:
                refused[key] = _overlap_words(str(subnet), met)
    pools = settings.values.get(_POOLS)
    kept: list[Json] = []
    left_out: list[LeftOut] = []
    warnings: list[str] = []
    for pool in pools if isinstance(pools, list) else ():
        base = ipaddress.ip_network(str(pool["base"])) if isinstance(pool, dict) else None
        met = next(_meeting(base, theirs), None) if base is not None else None
        if base is None or met is None:
            kept.append(pool)
            continue
        words, other = _overlap_words(str(base), met), ipaddress.ip_network(met.subnet)
        # dockerd takes only pieces that overlap no route, and of this pool none is left
        if other.prefixlen <= base.prefixlen and base.network_address in other:
            left_out.append(LeftOut("default_address_pools", f"is not applied: {words}"))
        else:
            kept.append(pool)
            warnings.append(f"default_address_pools: {words}; dockerd passes over that part of the pool")
    values = {**settings.values, _POOLS: kept} if left_out else settings.values
    if not kept and left_out:
        values = {key: value for key, value in values.items() if key != _POOLS}
    return Fitted(
        settings=replace(settings, values=values),
        refused=refused,
        left_out=tuple(left_out),
        warnings=tuple(warnings),
    )


def _meeting(subnet: _Subnet, routes: Iterable[Route]) -> Iterator[Route]:
    for route in routes:
        other = ipaddress.ip_network(route.subnet)
        hides = route.direct or other.prefixlen >= subnet.prefixlen
        if hides and other.version == subnet.version and other.overlaps(subnet):
            yield route


def _overlap_words(subnet: str, route: Route) -> str:
    return f"{subnet} overlaps {route.subnet}, which the router itself reaches by {route.device}"
