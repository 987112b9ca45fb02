# SPDX-License-Identifier: GPL-2.0-or-later
"""Gives each managed bridge its place in the router's packages `network` and `firewall`. Pure.

As the stock init script does it for docker0: an interface without a protocol for the device, which is in the network list of
a zone. There is no `device` section: netifd would make the bridge its own, and take it down with a network restart, as it
does with docker0. What we made is known by its name, `ucidockd_<section>`; nothing else is ever taken away.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from agent.model.resources import Network
from agent.uci.decode_network import BRIDGE_NAME
from agent.uci.router import networks_of, text, words
from agent.uci.syntax import Option, Package, Section

PREFIX = "ucidockd_"


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeInUci:
    """The bridge of a network section. `interface` is our name for it in UCI."""

    section: str
    device: str
    zone: str

    @property
    def interface(self) -> str:
        return PREFIX + self.section


def bridges_of(networks: Iterable[Network]) -> tuple[BridgeInUci, ...]:
    """Of the networks that have a bridge, sorted by section."""
    found = (
        BridgeInUci(section=n.section, device=dict(n.spec.options).get(BRIDGE_NAME, ""), zone=n.zone)
        for n in networks
        if n.spec.driver == "bridge"
    )
    return tuple(sorted((b for b in found if b.device), key=lambda bridge: bridge.section))


def our_interfaces(network: Package) -> frozenset[str]:
    """Names of the interfaces that we made."""
    return frozenset(section.name for section in network.sections if _is_ours(section, "interface"))


def with_interfaces(network: Package, bridges: Iterable[BridgeInUci], *, broken: Collection[str]) -> Package:
    """The `network` package with an interface for each bridge that has none of the user's.

    `broken`: names of network sections that have a mistake; what is there for them stays.
    """
    wanted = {b.interface: b for b in bridges if not bool(interface_of(network, b.device, ours=False))}
    kept = {PREFIX + name for name in broken}
    left = [s for s in network.sections if not _is_ours(s, "interface") or s.name in wanted.keys() | kept]
    sections = [
        _interface(wanted[s.name], s) if s.name in wanted and s.type == "interface" else s for s in left
    ]
    there = {section.name for section in network.sections}
    sections += [_interface(bridge, None) for name, bridge in wanted.items() if name not in there]
    return replace(network, sections=tuple(sections))


def with_zones(
    firewall: Package, network: Package, bridges: Iterable[BridgeInUci], *, broken: Collection[str]
) -> Package:
    """The `firewall` package where each of our interfaces is in the zone of its network, and in no other."""
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
        # an interface would narrow a zone of subnets to what comes from there and from the subnet
        by_address = any(section.get(option) for option in ("subnet", "extra", "extra_src", "extra_dest"))
        if by_address and not any(section.get(option) for option in ("network", "device")):
            wanted = []
        before = networks_of(section)
        after = [name for name in before if not name.startswith(PREFIX) or name in wanted or name in kept]
        after += [name for name in wanted if name not in before]
        changed = section if after == list(before) else _set(section, "network", tuple(after))
        # a zone of ours whose last network goes would take the interface of its own name: it goes too
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
    """The UCI interface on a device, "" for none. Without `ours` those that we made do not count."""
    found = (
        section.name
        for section in network.sections
        if section.type == "interface" and device in (*words(section, "device"), *words(section, "ifname"))
        if ours or not _is_ours(section, "interface")
    )
    return next(found, "")


def _interface(bridge: BridgeInUci, there: Section | None) -> Section:
    """Ours, with what the user may have added to it."""
    section = there or Section(type="interface", name=bridge.interface)
    for name, value in (("device", bridge.device), ("proto", "none"), ("auto", "0")):
        section = _set(section, name, value)
    return section


def _set(section: Section, name: str, value: str | tuple[str, ...]) -> Section:
    """An option in its place, or at the end; an empty list takes it away."""
    old = section.get(name)
    if old is not None and old.value == value:
        return section
    if not value:
        return replace(section, options=tuple(o for o in section.options if o.name != name))
    fresh = Option(name=name, value=value)
    if old is None:
        return replace(section, options=(*section.options, fresh))
    return replace(section, options=tuple(fresh if o is old else o for o in section.options))
