# SPDX-License-Identifier: GPL-2.0-or-later
"""Says which published ports can be reached from a wan zone, as far as UCI tells. Pure.

dockerd turns a published port into destination NAT: such a packet is forwarded, so a zone's input policy does not stop it.
fw3 is asked after dockerd's own rules, which accept; fw4 has a table of its own and refuses what it has no forwarding
for, unless the zone has any port forward: then it lets pass all that was redirected. Rules that the user made
outside UCI are not seen. Comes after agent.plan.router.reach; `agent.runtime.router_integration` shows the outcome.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from agent.errors import ConfigError
from agent.model.dockerd.settings import FirewallRule
from agent.model.resources import Container, Port
from agent.plan.router.firewall import parse_extra
from agent.plan.router.reach import Bridge, Surroundings, is_named, networks_of, passes, permitted, zones_with
from agent.uci.router import Zone

_OF_CONNECTIONS = frozenset({"-m", "--match", "--ctstate", "--state", "!"})


def public_ports(container: Container, around: Surroundings) -> tuple[str, ...]:
    """The ports that can be reached, as `8080/tcp from wan`."""
    wans = dict.fromkeys(zone.name for zone in around.firewall.zones if zone.is_wan)
    reach = zones_reaching(container, around)
    return tuple(f"{port} from {zone}" for zone in wans for port in reach if zone in reach[port])


def zones_reaching(container: Container, around: Surroundings) -> dict[str, list[str]]:
    """The zones of the firewall that reach each published port, without those of its own networks: {"8080/tcp": ["lan"]}."""
    bridges = _bridges(container, around)
    own = {zone for each in bridges if each.device for zone in zones_with(each.device, each.subnets, around)}
    return {
        f"{port.host_text}/{port.protocol}": [
            zone.name
            for zone in around.firewall.zones
            if bridges
            and zone not in own
            and _listens(port, zone, around)
            and _passes(port, zone, bridges, around)
        ]
        for port in container.spec.ports
    }


def _bridges(container: Container, around: Surroundings) -> tuple[Bridge, ...]:
    """The bridges that it is on; one without a device for a network that is not ours to know."""
    unknown = Bridge(device="")
    names = [name for name in networks_of(container) if name not in around.without_bridge]
    found = [around.bridges.get(name, unknown) for name in names]
    return tuple(bridge for bridge in found if not bridge.internal and not bridge.routed)


def _listens(port: Port, zone: Zone, around: Surroundings) -> bool:
    """Whether the port is on an address that the zone can send to."""
    if not port.host_ip:
        return True
    address = ipaddress.ip_address(port.host_ip)
    if address.is_unspecified:
        return True
    known = [around.interfaces[name] for name in zone.networks if name in around.interfaces]
    return port.host_ip in frozenset().union(*(each.addresses for each in known)) or address.is_global


def _passes(port: Port, zone: Zone, bridges: Iterable[Bridge], around: Surroundings) -> bool:
    """Whether nothing on the way stops it, to any of the bridges."""
    if not around.forwards:
        return any(
            permitted(around.firewall, zone.name, {""}, port.protocol, number) for number in port.host_ports
        )
    return any(
        not _blocked(zone, bridge.device, around)
        and (around.docker_first or _forwarded(port, zone, bridge, around))
        for bridge in bridges
    )


def _blocked(zone: Zone, bridge: str, around: Surroundings) -> bool:
    """Whether `blocked_interfaces` has every device of the zone for that bridge, for all new connections."""
    closed: set[str] = set()
    for rule in around.rules:
        if is_named(bridge, rule.device) and _is_whole(rule):
            closed = closed.union(*(around.devices(name) for name in rule.blocked_interfaces))
    comes_by = frozenset(zone.devices).union(*(around.devices(name) for name in zone.networks))
    return bool(comes_by) and comes_by <= closed


def _is_whole(rule: FirewallRule) -> bool:
    """With other matches than for the state of a connection, it refuses only some of the packets."""
    try:
        extra = parse_extra(rule.extra_iptables_args)
    except ConfigError:
        return False
    states = [word.split(",") for word in extra if word not in _OF_CONNECTIONS | {"conntrack", "state"}]
    if not states:
        return not extra
    only_of_connections = {word for word in extra if word.startswith("-")} <= _OF_CONNECTIONS
    return only_of_connections and len(states) == 1 and ("NEW" in states[0]) is not ("!" in extra)


def _forwarded(port: Port, zone: Zone, bridge: Bridge, around: Surroundings) -> bool:
    """Whether fw4 lets what dockerd redirected go from the zone to the bridge."""
    targets = zones_with(bridge.device, bridge.subnets, around) if bridge.device else ()
    return passes(
        [zone],
        targets,
        around.firewall,
        protocol=port.protocol,
        port=port.container_port,
        redirected=True,
    )
