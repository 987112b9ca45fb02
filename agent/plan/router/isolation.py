# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds the containers that the firewall's zones cut off: ports that no zone may reach, and no way to the internet. Pure.

Reported only where UCI is sure: not for networks of others, nor where UCI only names a file with rules for forwarded
packets, nor with fw3, whose zones come after dockerd's own rules. Comes after `agent.plan.router.reach`;
`agent.runtime.router_integration` shows the outcome.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from agent.errors import Reason
from agent.model.resources import Container, Port
from agent.plan.router.reach import Bridge, Surroundings, members, networks_of, passes, permitted, zones_with
from agent.uci.router import Zone


@dataclass(frozen=True, slots=True, kw_only=True)
class CutOff:
    """`src` and `dest`: the zones of a forwarding that would help, "" where none would."""

    reason: Reason
    message: str
    src: str = ""
    dest: str = ""


def unreachable_ports(container: Container, around: Surroundings) -> CutOff | None:
    """The published ports that no zone may reach, in words; None when there are none, or nobody can tell."""
    bridges = _bridges(container, around)
    published = [port for port in container.spec.ports if not _is_local(port)]
    open_to = [bridge for bridge in bridges or () if not bridge.internal and not bridge.routed]
    if not published or not open_to or not _is_sure(around):
        return None
    zones = [zone for zone in around.firewall.zones if _has_others(zone, around)]
    if not zones:
        return None
    if not around.forwards:
        return _unheard(published, zones, around)
    closed = [port for port in published if not _is_reached(port, zones, open_to, around)]
    if not closed:
        return None
    ports = ", ".join(
        dict.fromkeys(f"{port.host_port or port.container_port}/{port.protocol}" for port in closed)
    )
    home = _zone_name(open_to, around)
    local = _local_zone(zones)
    if not home:
        text = f"{open_to[0].device} is in no firewall zone, so no zone may reach {ports}: add it to one"
        return CutOff(reason="NoZone", message=text)
    text = f"no firewall zone may reach {ports}"
    if local:
        return CutOff(
            reason="NoForwarding",
            message=f"{text}: allow forwarding from zone {local} to zone {home}",
            src=local,
            dest=home,
        )
    return CutOff(reason="NoForwarding", message=f"{text}: allow forwarding to zone {home}")


def no_internet(container: Container, around: Surroundings) -> CutOff | None:
    """That the container has no way out, in words; None when it has one, wants none, or nobody can tell."""
    bridges = _bridges(container, around)
    outward = [bridge for bridge in bridges or () if not bridge.internal]
    ways = _uplinks(around)
    if not outward or not ways or not _is_sure(around):
        return None
    for bridge in outward:
        sources = zones_with(bridge.device, bridge.subnets, around)
        if any(passes(sources, targets, around.firewall) for targets in ways):
            return None
    home = _zone_name(outward, around)
    out = next((zone.name for targets in ways for zone in targets), "")
    if not home:
        text = (
            f"{outward[0].device} is in no firewall zone, so its containers have no internet: add it to one"
        )
        return CutOff(reason="NoZone", message=text)
    if not out:
        return CutOff(reason="NoUplinkZone", message="the interface to the internet is in no firewall zone")
    text = f"no internet: allow forwarding from zone {home} to zone {out}"
    return CutOff(reason="NoForwarding", message=text, src=home, dest=out)


def _is_sure(around: Surroundings) -> bool:
    return not around.docker_first and not around.firewall.has_includes


def _bridges(container: Container, around: Surroundings) -> tuple[Bridge, ...] | None:
    """Those it is on; None when it is on a network that is not ours to know, or on a link of its own."""
    names = networks_of(container)
    if not names or any(name not in around.bridges for name in names):
        return None
    return tuple(around.bridges[name] for name in names)


def _is_local(port: Port) -> bool:
    return bool(port.host_ip) and ipaddress.ip_address(port.host_ip).is_loopback


def _has_others(zone: Zone, around: Surroundings) -> bool:
    """Whether anything but containers is in the zone."""
    if zone.implied and not around.docker_first:
        return False
    ours = {bridge.device for bridge in around.bridges.values()}
    named = members(zone, around)
    if named:
        return any(name not in ours for name in named)
    return bool(zone.subnets) and not any(
        zone in zones_with(bridge.device, bridge.subnets, around) for bridge in around.bridges.values()
    )


def _is_reached(port: Port, zones: Iterable[Zone], bridges: Iterable[Bridge], around: Surroundings) -> bool:
    targets = [zones_with(bridge.device, bridge.subnets, around) for bridge in bridges]
    return any(
        passes(
            [zone], each, around.firewall, protocol=port.protocol, port=port.container_port, redirected=True
        )
        for zone in zones
        for each in targets
    )


def _unheard(published: Iterable[Port], zones: Iterable[Zone], around: Surroundings) -> CutOff | None:
    """With `iptables 0` a program of dockerd's listens on the router, and a zone's input decides."""
    if around.values.get("userland-proxy") is False:  # then nobody of dockerd's does: somebody else forwards
        return None
    closed = [
        port
        for port in published
        if not any(
            zone.input == "ACCEPT"
            or permitted(around.firewall, zone.name, {""}, port.protocol, port.host_port)
            for zone in zones
        )
    ]
    if not closed:
        return None
    ports = ", ".join(dict.fromkeys(f"{port.host_port or 'a port'}/{port.protocol}" for port in closed))
    text = f"no firewall zone may reach {ports} on the router: add a rule that accepts it"
    return CutOff(reason="NoRule", message=text)


def _uplinks(around: Surroundings) -> tuple[tuple[Zone, ...], ...]:
    """The zones of each interface with a default route; the wan zones while there is none."""
    ours = {bridge.device for bridge in around.bridges.values()}
    found = [
        zones_with(each.l3_device or each.device, (), around)
        for each in around.interfaces.values()
        if each.is_uplink and (each.l3_device or each.device) not in ours
    ]
    return tuple(found) or tuple((zone,) for zone in around.firewall.zones if zone.is_wan)


def _zone_name(bridges: Iterable[Bridge], around: Surroundings) -> str:
    found = (zone.name for bridge in bridges for zone in zones_with(bridge.device, bridge.subnets, around))
    return next(found, "")


def _local_zone(zones: Iterable[Zone]) -> str:
    """The zone of the router's own network."""
    trusted = [zone.name for zone in zones if zone.input == "ACCEPT" and not zone.is_wan]
    return "lan" if "lan" in trusted else next(iter(trusted), "")
