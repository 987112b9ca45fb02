# SPDX-License-Identifier: GPL-2.0-or-later
"""Bridges of Docker networks: whether a network can use its subnets and bridge, and the firewall zones of managed
bridges. Pure.

The engine refuses a subnet that overlaps another Docker network, without saying which. It accepts a subnet that
overlaps one of the router's own networks, which is then cut off, and a bridge that belongs to the router, whose
address it removes. So all of these are checked before anything is taken down, and the message says whose subnet or
bridge it is.

A managed bridge gets the same entries in the UCI packages `network` and `firewall` that the stock init script makes
for docker0: an interface without a protocol for the device, and this interface in the network list of a zone. There
is no `device` section: netifd would manage the bridge itself and take it down on a network restart, as it does with
docker0. Our sections are recognized by their name, `ucidockd_<section>`; no other section is ever removed.
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
from agent.uci.router import networks_of, text, words
from agent.uci.syntax import Option, Package, Section

PREFIX = "ucidockd_"
_Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network
_ON_THE_LAN = frozenset({"macvlan", "ipvlan"})  # their subnets are those of their parent device


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeInUci:
    """The bridge of a network section. `interface` is the name of the UCI interface that we make for it."""

    section: str
    device: str
    zone: str

    @property
    def interface(self) -> str:
        return PREFIX + self.section


def bridges_of(networks: Iterable[Network]) -> tuple[BridgeInUci, ...]:
    """The bridges of the networks that have one, sorted by section."""
    found = (
        BridgeInUci(section=n.section, device=dict(n.spec.options).get(BRIDGE_NAME, ""), zone=n.zone)
        for n in networks
        if n.spec.driver == "bridge"
    )
    return tuple(sorted((b for b in found if b.device), key=lambda bridge: bridge.section))


def our_interfaces(network: Package) -> frozenset[str]:
    """Names of the interfaces that ucidockd made."""
    return frozenset(section.name for section in network.sections if _is_ours(section, "interface"))


def with_interfaces(network: Package, bridges: Iterable[BridgeInUci], *, broken: Collection[str]) -> Package:
    """The `network` package with an interface for each bridge for which the user made none.

    `broken`: names of invalid network sections; their interfaces stay as they are.
    """
    # an interface that the user made for the bridge is theirs: a second one would take the device from it
    wanted = {b.interface: b for b in bridges if not bool(interface_of(network, b.device, ours=False))}
    # an invalid section keeps what was applied: its containers still run on that bridge
    kept = {PREFIX + name for name in broken}
    left = [s for s in network.sections if not _is_ours(s, "interface") or s.name in wanted.keys() | kept]
    # updated in place, so that the order of the file stays the same and netifd sees no other change
    sections = [
        _interface(wanted[s.name], s) if s.name in wanted and s.type == "interface" else s for s in left
    ]
    there = {section.name for section in network.sections}
    sections += [_interface(bridge, None) for name, bridge in wanted.items() if name not in there]
    return replace(network, sections=tuple(sections))


def with_zones(
    firewall: Package, network: Package, bridges: Iterable[BridgeInUci], *, broken: Collection[str]
) -> Package:
    """The `firewall` package with each of our interfaces in the zone of its network and in no other zone."""
    ours = our_interfaces(network)
    places: dict[str, list[str]] = {}
    for bridge in bridges:
        if bridge.interface in ours:
            places.setdefault(bridge.zone, []).append(bridge.interface)
    kept = {PREFIX + name for name in broken} & ours
    sections: list[Section] = []
    for section in firewall.sections:
        if section.type != "zone":
            sections.append(section)
            continue
        wanted = places.pop(text(section, "name"), [])
        # adding an interface would restrict a zone of subnets to traffic that matches both the interface and the
        # subnet
        by_address = any(section.get(option) for option in ("subnet", "extra", "extra_src", "extra_dest"))
        if by_address and not any(section.get(option) for option in ("network", "device")):
            wanted = []
        before = networks_of(section)
        after = [name for name in before if not name.startswith(PREFIX) or name in wanted or name in kept]
        after += [name for name in wanted if name not in before]
        changed = section if after == list(before) else _set(section, "network", tuple(after))
        # without networks, a zone of ours would match the interface of the same name, so remove the zone too
        if not _is_ours(section, "zone") or networks_of(changed) != words(changed, "name"):
            sections.append(changed)
    for name, interfaces in sorted(places.items()):
        zone = Section(type="zone", name=PREFIX + re.sub(r"[^A-Za-z0-9_]", "_", name))
        for option, value in (
            ("name", name),
            *dict.fromkeys(("input", "output", "forward"), "ACCEPT").items(),
        ):
            zone = _set(zone, option, value)
        sections.append(_set(zone, "network", tuple(interfaces)))
    return replace(firewall, sections=tuple(sections))


def _is_ours(section: Section, kind: str) -> bool:
    return section.type == kind and not section.anonymous and section.name.startswith(PREFIX)


def interface_of(network: Package, device: str, *, ours: bool = True) -> str:
    """The UCI interface on a device, "" if there is none. Without `ours`, interfaces that we made do not count."""
    found = (
        section.name
        for section in network.sections
        if section.type == "interface" and device in (*words(section, "device"), *words(section, "ifname"))
        if ours or not _is_ours(section, "interface")
    )
    return next(found, "")


def _interface(bridge: BridgeInUci, there: Section | None) -> Section:
    """Our interface section, keeping options that the user added to it."""
    section = there or Section(type="interface", name=bridge.interface)
    for name, value in (("device", bridge.device), ("proto", "none"), ("auto", "0")):
        section = _set(section, name, value)
    return section


def _set(section: Section, name: str, value: str | tuple[str, ...]) -> Section:
    """Sets an option at its present place or at the end; an empty list removes it."""
    old = section.get(name)
    if old is not None and old.value == value:
        return section
    if not value:
        return replace(section, options=tuple(o for o in section.options if o.name != name))
    fresh = Option(name=name, value=value)
    if old is None:
        return replace(section, options=(*section.options, fresh))
    return replace(section, options=tuple(fresh if o is old else o for o in section.options))


def obstacle(draft: Draft, network: Network, object_id: str = "") -> tuple[Reason, str] | None:
    """The reason and message why a declared network cannot be created, None if it can. `object_id`: the network that it
    replaces."""
    bridge = dict(network.spec.options).get(BRIDGE_NAME)
    # checked by name before anything is created: the engine would take over the device and remove its address
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
    # its own bridge may already exist: it outlives an engine that was killed or lost its data
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
            # a larger route to a router or tunnel may contain the subnet: the more specific route wins
            hides = route.direct or subnet.prefixlen >= mine.prefixlen
            if subnet not in known and hides and _overlap(mine, subnet):
                return (
                    f"subnet {mine} overlaps {subnet}, which the router itself reaches through {route.device}"
                )
    return ""


def _overlap(one: _Subnet, other: _Subnet) -> bool:
    return one.version == other.version and one.overlaps(other)


def _subnets(inspect: dict[str, object]) -> Iterator[_Subnet]:
    ipam = inspect.get("IPAM")
    pools = ipam.get("Config") if isinstance(ipam, dict) else None
    for pool in pools or ():
        try:
            yield ipaddress.ip_network(str(pool.get("Subnet")), strict=False)
        except ValueError:  # a driver that assigns no addresses
            continue


# Whether docker0 and the address pools can have their subnets next to the networks that the router itself reaches.
# Pure.
#
# dockerd accepts any `bip`, even the LAN's own subnet, which cuts the router off. As for networks of sections (see
# `obstacle`), a larger route to a router or tunnel may contain the subnet, because the more specific route wins. From
# a pool dockerd only takes parts that overlap no route (moby libnetwork, FindAvailableNetwork), so a pool is invalid
# only if no part of it is left.


_DOCKERS_OWN = re.compile(r"docker0|docker_gwbridge|br-[0-9a-f]{12}", re.ASCII)
_POOLS = "default-address-pools"
# the bridge's own address decides; the partial subnet only counts if there is no address
_BRIDGE = (("bip", "fixed-cidr"), ("bip6", "fixed-cidr-v6"))
SUBNET_KEYS = frozenset({_POOLS, *(key for keys in _BRIDGE for key in keys)})


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedSettings:
    """The settings without pools that have no part left. `refused`: key -> why its value cannot be used."""

    settings: DaemonSettings
    refused: Document
    left_out: tuple[LeftOut, ...] = ()
    warnings: tuple[str, ...] = ()


def fit(settings: DaemonSettings, routes: Iterable[Route], bridges: Collection[str]) -> FittedSettings:
    """The settings that are possible on this router. `bridges`: devices of the networks that sections declare."""
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
        # dockerd only takes parts that overlap no route, and this pool has no such part
        if other.prefixlen <= base.prefixlen and base.network_address in other:
            left_out.append(LeftOut("default_address_pools", f"is not applied: {words}"))
        else:
            kept.append(pool)
            warnings.append(f"default_address_pools: {words}; dockerd skips that part of the pool")
    values = {**settings.values, _POOLS: kept} if left_out else settings.values
    if not kept and left_out:
        values = {key: value for key, value in values.items() if key != _POOLS}
    return FittedSettings(
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
    return f"{subnet} overlaps {route.subnet}, which the router itself reaches through {route.device}"
