# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the router's packages `network` and `firewall`, as far as they matter to containers. Pure.

`agent.uci.syntax` parses the packages; `agent.plan.router.firewall`, `bridges` and `reach` use the result. Mistakes
in these packages concern netifd and fw4 and are not reported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from agent.uci.syntax import Package, Section

_FALSE = frozenset({"0", "no", "off", "false", "disabled"})
# the device of these protocols is the configured one
_NO_TUNNEL = frozenset({"", "none", "static", "dhcp", "dhcpv6"})
# options by which a zone can match instead of by networks
_SELECTORS = ("device", "subnet", "extra", "extra_src", "extra_dest")
_DEVICE = re.compile(r"[^\s/@][^\s/]{0,14}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """A firewall zone. Policies are upper case; `forward` applies to packets between members of the zone.

    A device may end in `+`, and any device or subnet may begin with `!`.
    """

    name: str
    networks: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    subnets: tuple[str, ...] = ()
    family: str = ""
    implied: bool = False  # names no members: fw3 takes the interface with the zone's name, fw4 takes none
    input: str = "DROP"
    forward: str = "DROP"
    masq: bool = False

    @property
    def is_wan(self) -> bool:
        """Whether the zone leads to the internet: it does not accept input, and it masquerades or is called wan."""
        return self.input != "ACCEPT" and (self.masq or self.name.startswith("wan"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """A rule that accepts. `dest`: "" is the router itself, "*" any zone; empty `ports` mean all ports."""

    src: str
    dest: str
    protocols: frozenset[str] = frozenset()
    ports: tuple[range, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwarding:
    """A forwarding. `src` and `dest` may be "*". `family`: "4", "6", or "" for both."""

    src: str
    dest: str
    family: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Firewall:
    """The firewall. `redirected`: zones from which all redirected packets pass, whoever redirected them (firewall4,
    ruleset.uc).

    `forward`: policy for packets about which no zone decides. `has_includes`: there are rules for forwarded packets
    in a file that UCI only names.
    """

    zones: tuple[Zone, ...] = ()
    forwardings: frozenset[Forwarding] = frozenset()
    permits: tuple[Permit, ...] = ()
    redirected: frozenset[str] = frozenset()
    forward: str = "DROP"
    has_includes: bool = False


def words(section: Section, option: str) -> tuple[str, ...]:
    """The items of a list, or the words of an option."""
    found = section.get(option)
    if found is None:
        return ()
    # like fw4 and netifd: older configurations, and OpenWrt's default, write lists as one option
    return tuple(found.value.split()) if isinstance(found.value, str) else found.value


def text(section: Section, option: str, default: str = "") -> str:
    """The first word of an option."""
    return next(iter(words(section, option)), default)


def is_on(section: Section, option: str = "enabled") -> bool:
    """A boolean that is on unless set to off."""
    return text(section, option, "1") not in _FALSE


def devices_of(network: Package, interface: str) -> frozenset[str] | None:
    """The devices that an interface may have, up or down; None if there is no such interface.

    netifd names the device of a tunnel protocol after the interface: `pppoe-wan`, `wg0`.
    """
    interfaces = {section.name: section for section in network.sections if section.type == "interface"}
    if interface not in interfaces:
        return None
    # a zone may name an interface that is not declared yet, or was removed
    found: set[str] = set()
    left, seen = [interface], {interface}
    while left:
        name = left.pop()
        section = interfaces.get(name)
        if section is None:
            continue
        named = (*words(section, "device"), *words(section, "ifname"))
        found |= {word for word in named if _DEVICE.match(word)}
        # `@wan` means the device of that interface
        aliases = {word[1:] for word in named if word[:1] == "@"} - seen
        left += sorted(aliases)
        seen |= aliases
        # Collect both names: protocol and release decide which one the device has. An unused name is harmless,
        # because it has no address.
        proto = text(section, "proto")
        if proto not in _NO_TUNNEL:
            found |= {word for word in (name, f"{proto}-{name}") if _DEVICE.match(word)}
    return frozenset(found)


def read_firewall(package: Package) -> Firewall:
    """What the `firewall` package says about zones."""
    # fw4 ignores sections that are switched off
    on = [section for section in package.sections if is_on(section)]
    defaults = next((section for section in on if section.type == "defaults"), None)
    # fw4's default is to drop, also without a `defaults` section
    policies = {
        name: text(defaults, name, "DROP").upper() if defaults is not None else "DROP"
        for name in ("input", "forward")
    }
    zones = tuple(_zone(section, policies) for section in on if section.type == "zone")
    return Firewall(
        zones=zones,
        forwardings=frozenset(
            Forwarding(src=text(section, "src"), dest=text(section, "dest"), family=_family(section))
            for section in on
            if section.type == "forwarding"
        ),
        permits=tuple(
            _permit(section)
            for section in on
            if section.type == "rule" and text(section, "target").upper() == "ACCEPT"
        ),
        redirected=frozenset(
            name
            for section in on
            if section.type == "redirect"
            for name in _lets_redirected_pass(section, zones)
        ),
        forward=policies["forward"],
        # a snippet in a chain for forwarded packets may accept or reject anything, so nothing is certain
        has_includes=any(
            section.type == "include"
            and text(section, "type") == "nftables"
            and text(section, "position").startswith("chain")
            and text(section, "chain").startswith("forward")
            for section in on
        ),
    )


def _lets_redirected_pass(redirect: Section, zones: tuple[Zone, ...]) -> Iterator[str]:
    """The zones of a port forward: its source and, so that hosts behind the router can use it, its destination.

    Without `dest` firewall4 looks for the zone that contains the address; here it may be any zone but wan.
    """
    if text(redirect, "target", "DNAT").upper() != "DNAT":
        return
    # reflection sends internal hosts through the same rule; it requires a masquerading source zone
    src, dest = text(redirect, "src"), text(redirect, "dest")
    yield src
    if is_on(redirect, "reflection") and any(zone.name == src and zone.masq for zone in zones):
        yield from (zone.name for zone in zones if zone.name == dest or (not dest and not zone.is_wan))


def _family(section: Section) -> str:
    given = text(section, "family")
    return next((digit for digit in "46" if digit in given), "")


def _zone(section: Section, policies: dict[str, str]) -> Zone:
    return Zone(
        name=text(section, "name"),
        networks=networks_of(section),
        # fw3 and fw4 differ in the meaning of a zone without members: `Zone.implied` leaves the decision to later
        # code
        implied=not any(section.get(option) for option in ("network", *_SELECTORS)),
        devices=words(section, "device"),
        subnets=words(section, "subnet"),
        family=_family(section),
        input=text(section, "input", policies["input"]).upper(),
        forward=text(section, "forward", policies["forward"]).upper(),
        # unlike other booleans, masquerading is off by default
        masq=is_on(section, "masq") and section.get("masq") is not None,
    )


def networks_of(zone: Section) -> tuple[str, ...]:
    """The interfaces of a zone section; without any option about members it has the interface with its own name."""
    networks = words(zone, "network")
    # a zone defined by devices or subnets does not include the interface with its name
    if networks or any(zone.get(option) for option in _SELECTORS):
        return networks
    return words(zone, "name")


def _permit(section: Section) -> Permit:
    # firewall4 assumes TCP and UDP if a rule names no protocol
    protocols = {word.lower() for word in words(section, "proto")} or {"tcp", "udp"}
    # in a `Permit`, no protocols means all protocols
    if protocols & {"all", "any", "*"}:
        protocols = set()
    return Permit(
        src=text(section, "src"),
        dest=text(section, "dest"),
        protocols=frozenset(protocols),
        # named ports are left out: they would need the router's /etc/services, and leaving them out only makes the
        # permit look narrower
        ports=tuple(filter(None, (_range(word) for word in words(section, "dest_port")))),
    )


def _range(word: str) -> range | None:
    first, _, last = word.replace(":", "-").partition("-")
    if not first.isdecimal() or not (last or first).isdecimal():
        # `!80` and service names are not ranges that can be compared
        return None
    return range(int(first), int(last or first) + 1)


# The devices of firewall zones that refuse input, according to the packages `firewall` and `network`. Pure.
#
# Device names that `agent.uci.router` only guessed are harmless, because they have no address.


_REFUSES = frozenset({"REJECT", "DROP"})  # policies of a zone that let nothing in


def wan_devices(firewall: Package, network: Package) -> frozenset[str]:
    """Device names, and names of interfaces that may be devices."""
    found: set[str] = set()
    for zone in read_firewall(firewall).zones:
        # by policy, not by name: people rename `wan`, and add zones for a second uplink
        if zone.input in _REFUSES:
            found.update(zone.devices, zone.networks)
            found.update(*(devices_of(network, name) or () for name in zone.networks))
    return frozenset(found)
