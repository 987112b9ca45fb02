# SPDX-License-Identifier: GPL-2.0-or-later
"""The way of a forwarded packet through the router's firewall zones, as firewall4 builds its rules (ruleset.uc), and what
follows from it: ports that the internet reaches, and networks that the firewall cuts off. Pure.

Each zone that has the packet's source device is asked in turn: its rules and forwardings, then its own `forward` policy
if the target device is in it too. If no zone decides, the `forward` of `config defaults` does. Rules that refuse are not
considered: they are there on purpose. Comes after `agent.uci.router`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from agent.errors import ConfigError, Reason
from agent.model.addresses import Interface
from agent.model.dockerd.settings import Document, FirewallRule
from agent.model.resources import DEFAULT_NETWORKS, Container, Port
from agent.plan.router.firewall import parse_extra
from agent.uci.router import Firewall, Zone

IPv4 = ipaddress.IPv4Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Bridge:
    """Where the containers of a Docker network are. `subnets`: IPv4; none are known when it is empty.

    `internal`: the engine itself lets nothing in or out. `routed`: it publishes no port.
    """

    device: str
    subnets: tuple[IPv4, ...] = ()
    internal: bool = False
    routed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What decides. `devices`: a UCI interface -> its devices. `bridges`: Docker network -> its bridge, if we know it.
    `without_bridge`: networks whose containers are on a link of their own.

    `rules`: those in force. `values`: what dockerd was told. `docker_first`: its rules come before the zones' (fw3).
    """

    firewall: Firewall
    rules: Sequence[FirewallRule] = ()
    devices: Callable[[str], frozenset[str]]
    bridges: Mapping[str, Bridge]
    without_bridge: frozenset[str] = frozenset()
    interfaces: Mapping[str, Interface] = field(default_factory=dict)
    values: Document = field(default_factory=dict)
    docker_first: bool

    @property
    def forwards(self) -> bool:
        """Whether dockerd redirects packets to containers; else a program of it listens on the router."""
        return self.values.get("iptables") is not False


def networks_of(container: Container) -> tuple[str, ...]:
    """The Docker networks it is on by itself: none on the host's, or on another container's."""
    spec = container.spec
    if spec.endpoints:
        return tuple(endpoint.network for endpoint in spec.endpoints)
    return ("bridge",) if (spec.network_mode or "") in DEFAULT_NETWORKS else ()


def zones_with(device: str, subnets: Collection[IPv4], around: Surroundings) -> tuple[Zone, ...]:
    """The zones that a device is in, in order."""
    return tuple(zone for zone in around.firewall.zones if _has(zone, device, subnets, around))


def _has(zone: Zone, device: str, subnets: Collection[IPv4], around: Surroundings) -> bool:
    if zone.family == "6" or (zone.implied and not around.docker_first):
        return False
    named = members(zone, around)
    if not named and not zone.subnets:
        return False
    # all that begin with `!` have to be others; of the rest one has to fit
    refused = [name[1:].strip() for name in named if name.startswith("!")]
    taken = [name for name in named if not name.startswith("!")]
    if any(is_named(device, name) for name in refused):
        return False
    by_device = not taken or any(is_named(device, name) for name in taken)
    return by_device and (not zone.subnets or _inside(subnets, zone.subnets))


def members(zone: Zone, around: Surroundings) -> frozenset[str]:
    """The names of its devices; each may end in `+` or begin with `!`."""
    return frozenset(zone.devices).union(*(around.devices(name) for name in zone.networks))


def is_named(device: str, name: str) -> bool:
    """Whether a name of the firewall's means the device: `*` is any, `br-+` any that begins so."""
    return name == "*" or name == device or (name.endswith("+") and device.startswith(name[:-1]))


def _inside(subnets: Collection[IPv4], given: Collection[str]) -> bool:
    """Whether a zone of the `given` subnets may mean these. Subnets that are not known yet may be any."""
    taken: list[IPv4] = []
    refused: list[IPv4] = []
    for text in given:
        try:
            found = ipaddress.ip_network(text.removeprefix("!").strip(), strict=False)
        except ValueError:  # a mask of an odd form
            return True
        if isinstance(found, IPv4):
            (refused if text.startswith("!") else taken).append(found)
    if not taken and not refused:
        return False
    return not subnets or any(
        (not taken or any(subnet.overlaps(one) for one in taken))
        and not any(subnet.subnet_of(one) for one in refused)
        for subnet in subnets
    )


def passes(
    sources: Iterable[Zone],
    targets: Sequence[Zone],
    firewall: Firewall,
    *,
    protocol: str = "",
    port: int = 0,
    redirected: bool = False,
) -> bool:
    """Whether a new connection may go from devices in `sources` to one in `targets`; without `protocol`: one of any kind.

    `redirected`: its target address was changed on the way in.
    """
    asked = tuple(sources)
    inward = {"*", *(zone.name for zone in targets)}
    # fw4 writes rules of any source before the chains of the zones
    if _may("*", inward, firewall, protocol, port):
        return True
    for zone in asked:
        if _may(zone.name, inward, firewall, protocol, port):
            return True
        if redirected and zone.name in firewall.redirected:
            return True
        # the policy ends the zone's chain, so a later zone of the same device is not asked any more
        if zone in targets:
            return zone.forward == "ACCEPT"
    return firewall.forward == "ACCEPT"


def _may(src: str, inward: Collection[str], firewall: Firewall, protocol: str, port: int) -> bool:
    forwarded = any(
        each.src == src and each.dest in inward and each.family != "6" for each in firewall.forwardings
    )
    return forwarded or permitted(firewall, src, inward, protocol, port)


def permitted(firewall: Firewall, src: str, dests: Collection[str], protocol: str, port: int) -> bool:
    """Whether a rule lets it pass. `dests` of "" is the router itself."""
    return any(
        rule.src in {src, "*"}
        and rule.dest in dests
        and (not protocol or not rule.protocols or protocol in rule.protocols)
        and (not protocol or not rule.ports or any(port in ports for ports in rule.ports))
        for rule in firewall.permits
    )


# Says which published ports can be reached from a wan zone, as far as UCI tells. Pure.
#
# dockerd turns a published port into destination NAT: such a packet is forwarded, so a zone's input policy does not stop it.
# fw3 is asked after dockerd's own rules, which accept; fw4 has its own table and refuses what it has no forwarding
# for, unless the zone has any port forward: then it lets pass all that was redirected. Rules that the user made
# outside UCI are not seen. Comes after agent.plan.router.reach; `agent.runtime.router_integration` shows the outcome.


_OF_CONNECTIONS = frozenset({"-m", "--match", "--ctstate", "--state", "!"})


def public_ports(container: Container, around: Surroundings) -> tuple[str, ...]:
    """The ports that can be reached, as `8080/tcp from wan`."""
    wans = dict.fromkeys(zone.name for zone in around.firewall.zones if zone.is_wan)
    reach = zones_reaching(container, around)
    return tuple(f"{port} from {zone}" for zone in wans for port in reach if zone in reach[port])


def zones_reaching(container: Container, around: Surroundings) -> dict[str, list[str]]:
    """The zones of the firewall that reach each published port, without those of its own networks: {"8080/tcp": ["lan"]}."""
    # a network that is not ours to know has a bridge without a device: it is in no zone that we could tell
    names = [name for name in networks_of(container) if name not in around.without_bridge]
    found = [around.bridges.get(name, Bridge(device="")) for name in names]
    bridges = [bridge for bridge in found if not bridge.internal and not bridge.routed]
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
    # without iptables a program of dockerd's listens on the router: nothing is forwarded, a rule for input decides
    if not around.forwards:
        return any(
            permitted(around.firewall, zone.name, {""}, port.protocol, number) for number in port.host_ports
        )
    for bridge in bridges:
        if _blocked(zone, bridge.device, around):
            continue
        # fw3 is asked after dockerd's own rules, which accept; fw4 decides about what dockerd redirected
        if around.docker_first:
            return True
        targets = zones_with(bridge.device, bridge.subnets, around) if bridge.device else ()
        inner, protocol = port.container_port, port.protocol
        if passes([zone], targets, around.firewall, protocol=protocol, port=inner, redirected=True):
            return True
    return False


def _blocked(zone: Zone, bridge: str, around: Surroundings) -> bool:
    """Whether `blocked_interfaces` has every device of the zone for that bridge, for all new connections."""
    closed: set[str] = set()
    for rule in around.rules:
        if is_named(bridge, rule.device) and _is_whole(rule):
            closed = closed.union(*(around.devices(name) for name in rule.blocked_interfaces))
    comes_by = members(zone, around)
    return bool(comes_by) and comes_by <= closed


def _is_whole(rule: FirewallRule) -> bool:
    """With other matches than for the state of a connection, it refuses only some of the packets."""
    try:
        # What cannot be read was told where the rules are made; here it only means that nothing is certain.
        extra = parse_extra(rule.extra_iptables_args)
    except ConfigError:
        return False
    states = [word.split(",") for word in extra if word not in _OF_CONNECTIONS | {"conntrack", "state"}]
    if not states:
        return not extra
    only_of_connections = {word for word in extra if word.startswith("-")} <= _OF_CONNECTIONS
    # Of connections that are new, or of all that are not "established": both refuse whatever begins outside.
    return only_of_connections and len(states) == 1 and ("NEW" in states[0]) is not ("!" in extra)


# Finds the containers that the firewall's zones cut off: ports that no zone may reach, and no way to the internet. Pure.
#
# Reported only where UCI is sure: not for networks of others, nor where UCI only names a file with rules for forwarded
# packets, nor with fw3, whose zones come after dockerd's own rules. Comes after `agent.plan.router.reach`;
# `agent.runtime.router_integration` shows the outcome.


@dataclass(frozen=True, slots=True, kw_only=True)
class CutOff:
    """`src` and `dest`: the zones of a forwarding that would help, "" where none would."""

    reason: Reason
    message: str
    src: str = ""
    dest: str = ""


def unreachable_ports(container: Container, around: Surroundings) -> CutOff | None:
    """The published ports that no zone may reach, in words; None if there are none, or if UCI cannot tell."""
    bridges = _blocked_bridges(container, around)
    published = [port for port in container.spec.ports if not port.is_local]
    open_to = [bridge for bridge in bridges or () if not bridge.internal and not bridge.routed]
    if not published or not open_to or not _is_sure(around):
        return None
    zones = [zone for zone in around.firewall.zones if _has_others(zone, around)]
    if not zones:
        return None
    if not around.forwards:
        return _unheard(published, zones, around)
    targets = [zones_with(bridge.device, bridge.subnets, around) for bridge in open_to]
    closed = [
        f"{port.host_port or port.container_port}/{port.protocol}"
        for port in published
        for inner, protocol in [(port.container_port, port.protocol)]
        if not any(
            passes([zone], each, around.firewall, protocol=protocol, port=inner, redirected=True)
            for zone in zones
            for each in targets
        )
    ]
    if not closed:
        return None
    ports = ", ".join(dict.fromkeys(closed))
    home = _zone_name(open_to, around)
    # the zone to propose is that of the router's own network: opening it to strangers is never what we suggest
    trusted = [zone.name for zone in zones if zone.input == "ACCEPT" and not zone.is_wan]
    local = "lan" if "lan" in trusted else next(iter(trusted), "")
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
    """That the container has no internet, in words; None if it has, wants none, or if UCI cannot tell."""
    bridges = _blocked_bridges(container, around)
    outward = [bridge for bridge in bridges or () if not bridge.internal]
    # the zones of each interface with a default route; the wan zones while there is none
    ours = {bridge.device for bridge in around.bridges.values()}
    ways = [
        zones_with(each.l3_device or each.device, (), around)
        for each in around.interfaces.values()
        if each.is_uplink and (each.l3_device or each.device) not in ours
    ] or [(zone,) for zone in around.firewall.zones if zone.is_wan]
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


def _blocked_bridges(container: Container, around: Surroundings) -> tuple[Bridge, ...] | None:
    """Those it is on; None when it is on a network that is not ours to know, or on its own link."""
    names = networks_of(container)
    if not names or any(name not in around.bridges for name in names):
        return None
    return tuple(around.bridges[name] for name in names)


def _has_others(zone: Zone, around: Surroundings) -> bool:
    """Whether anything but containers is in the zone."""
    # fw3 takes the interface of the zone's own name, and there is nothing to see of it here.
    if zone.implied and not around.docker_first:
        return False
    ours = {bridge.device for bridge in around.bridges.values()}
    named = members(zone, around)
    if named:
        return any(name not in ours for name in named)
    return bool(zone.subnets) and not any(
        zone in zones_with(bridge.device, bridge.subnets, around) for bridge in around.bridges.values()
    )


def _unheard(published: Iterable[Port], zones: Iterable[Zone], around: Surroundings) -> CutOff | None:
    """With `iptables 0` a program of dockerd's listens on the router, and a zone's input decides."""
    if around.values.get("userland-proxy") is False:  # then dockerd does not forward: something else listens
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


def _zone_name(bridges: Iterable[Bridge], around: Surroundings) -> str:
    found = (zone.name for bridge in bridges for zone in zones_with(bridge.device, bridge.subnets, around))
    return next(found, "")
