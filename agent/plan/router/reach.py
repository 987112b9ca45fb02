# SPDX-License-Identifier: GPL-2.0-or-later
"""The way of a forwarded packet through the router's firewall zones, as firewall4 builds its rules (ruleset.uc). Pure.

Each zone that has the packet's source device is asked in turn: its rules and forwardings, then its own `forward` policy
if the target device is in it too. If no zone decides, the `forward` of `config defaults` does. Rules that refuse are not
considered: they are there on purpose. Comes after `agent.uci.router`; `exposure` and `isolation` ask it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from agent.model.dockerd.settings import Document, FirewallRule
from agent.model.interfaces import Interface
from agent.model.resources import Container
from agent.uci.router import Firewall, Zone

DEFAULT_NETWORKS = frozenset({"bridge", "default"})
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
    return ("bridge",) if spec.network_mode is None or spec.network_mode in DEFAULT_NETWORKS else ()


def zones_with(device: str, subnets: Collection[IPv4], around: Surroundings) -> tuple[Zone, ...]:
    """The zones that a device is in, in order."""
    return tuple(zone for zone in around.firewall.zones if _has(zone, device, subnets, around))


def _has(zone: Zone, device: str, subnets: Collection[IPv4], around: Surroundings) -> bool:
    if zone.family == "6" or (zone.implied and not around.docker_first):
        return False
    named = members(zone, around)
    if not named and not zone.subnets:
        return False
    by_device = not named or _among(device, named)
    return by_device and (not zone.subnets or _inside(subnets, zone.subnets))


def members(zone: Zone, around: Surroundings) -> frozenset[str]:
    """What stands for its devices; each may end in `+` or begin with `!`."""
    return frozenset(zone.devices).union(*(around.devices(name) for name in zone.networks))


def _among(device: str, named: Collection[str]) -> bool:
    """All that begin with `!` have to be others; of the rest one has to fit."""
    refused = [name[1:].strip() for name in named if name.startswith("!")]
    if any(is_named(device, name) for name in refused):
        return False
    taken = [name for name in named if not name.startswith("!")]
    return not taken or any(is_named(device, name) for name in taken)


def is_named(device: str, name: str) -> bool:
    """Whether a name of the firewall's means the device: `*` is any, `br-+` any that begins so."""
    return name == "*" or name == device or (name.endswith("+") and device.startswith(name[:-1]))


def _inside(subnets: Collection[IPv4], given: Collection[str]) -> bool:
    """Whether they may be meant. Subnets that nobody knows yet may be any."""
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
    if _may("*", inward, firewall, protocol, port):
        return True
    for zone in asked:
        if _may(zone.name, inward, firewall, protocol, port):
            return True
        if redirected and zone.name in firewall.redirected:
            return True
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
