# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the router's own packages, `network` and `firewall`, as far as containers are concerned. Pure.

Comes after agent.uci.syntax; `agent.plan.router.firewall`, `bridges` and `reach` decide with it. What is not understood in
here is netifd's and fw4's business: nothing is reported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from agent.uci.syntax import Package, Section

_FALSE = frozenset({"0", "no", "off", "false", "disabled"})
_NO_TUNNEL = frozenset({"", "none", "static", "dhcp", "dhcpv6"})  # their device is the one that they name
_SELECTORS = ("device", "subnet", "extra", "extra_src", "extra_dest")  # what a zone can match by instead
_DEVICE = re.compile(r"[^\s/@][^\s/]{0,14}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """A firewall zone. Policies are upper case; `forward` is about packets between the zone's own members.

    A device may end in `+`, any device or subnet may begin with `!`.
    """

    name: str
    networks: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    subnets: tuple[str, ...] = ()
    family: str = ""
    implied: bool = False  # says nothing of its members: fw3 takes the interface of its name, fw4 none
    input: str = "DROP"
    forward: str = "DROP"
    masq: bool = False

    @property
    def is_wan(self) -> bool:
        """Whether the internet is behind it: it accepts no input, and masquerades or is called wan."""
        return self.input != "ACCEPT" and (self.masq or self.name.startswith("wan"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """A rule that accepts. `dest` "" is the router itself, "*" any zone; no `ports` are all ports."""

    src: str
    dest: str
    protocols: frozenset[str] = frozenset()
    ports: tuple[range, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwarding:
    """`src` may be "*", `dest` as well. `family`: "4", "6", or "" for both."""

    src: str
    dest: str
    family: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Firewall:
    """`redirected`: zones from which all redirected packets pass, whoever redirected them (firewall4, ruleset.uc).

    `forward`: what happens to a packet that no zone decides about. `has_includes`: there are rules for forwarded packets
    that UCI only names the file of.
    """

    zones: tuple[Zone, ...] = ()
    forwardings: frozenset[Forwarding] = frozenset()
    permits: tuple[Permit, ...] = ()
    redirected: frozenset[str] = frozenset()
    forward: str = "DROP"
    has_includes: bool = False


def words(section: Section, option: str) -> tuple[str, ...]:
    """A list, or an option whose words are the items."""
    found = section.get(option)
    if found is None:
        return ()
    # As fw4 and netifd read lists: older configurations, and the default one of OpenWrt, write them as one
    # option.
    return tuple(found.value.split()) if isinstance(found.value, str) else found.value


def text(section: Section, option: str, default: str = "") -> str:
    """The first word of an option."""
    return next(iter(words(section, option)), default)


def is_on(section: Section, option: str = "enabled") -> bool:
    """A boolean that is on unless it says otherwise."""
    return text(section, option, "1") not in _FALSE


def devices_of(network: Package, interface: str) -> frozenset[str] | None:
    """The devices that an interface may have, up or not; None when there is no such interface.

    netifd names the device of a tunnelling protocol after the interface: `pppoe-wan`, `wg0`.
    """
    interfaces = {section.name: section for section in network.sections if section.type == "interface"}
    if interface not in interfaces:
        return None
    # A network that is only just being declared, or was removed under the zone that names it.
    found: set[str] = set()
    left, seen = [interface], {interface}
    while left:
        name = left.pop()
        section = interfaces.get(name)
        if section is None:
            continue
        named = (*words(section, "device"), *words(section, "ifname"))
        found |= {word for word in named if _DEVICE.match(word)}
        # `@wan` is on whatever device that interface has
        aliases = {word[1:] for word in named if word[:1] == "@"} - seen
        left += sorted(aliases)
        seen |= aliases
        # Both names are collected, as it depends on the protocol and the release which of them the device has. A
        # name too many has no address, and does no harm.
        proto = text(section, "proto")
        if proto not in _NO_TUNNEL:
            found |= {word for word in (name, f"{proto}-{name}") if _DEVICE.match(word)}
    return frozenset(found)


def read_firewall(package: Package) -> Firewall:
    """What the `firewall` package says of zones."""
    # The firewall does not load a section that is switched off: it protects and opens nothing.
    on = [section for section in package.sections if is_on(section)]
    defaults = next((section for section in on if section.type == "defaults"), None)
    # fw4's own default is to drop, also for a firewall without any `defaults` section.
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
        # a snippet in the chain of forwarded packets may let pass or refuse anything: nothing can be told for sure then
        has_includes=any(
            section.type == "include"
            and text(section, "type") == "nftables"
            and text(section, "position").startswith("chain")
            and text(section, "chain").startswith("forward")
            for section in on
        ),
    )


def _lets_redirected_pass(redirect: Section, zones: tuple[Zone, ...]) -> Iterator[str]:
    """The zones of a port forward: where it comes from and, so that the router's own hosts can use it, where it goes to.

    Without `dest` firewall4 looks for the zone that has the address; here it may be any of the router's own.
    """
    if text(redirect, "target", "DNAT").upper() != "DNAT":
        return
    # Reflection sends the router's own hosts through the same rule, and needs a masquerading source to be set up.
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
        # The two firewalls differ in what a zone without members is; `Zone.implied` keeps the question open for
        # those who decide.
        implied=not any(section.get(option) for option in ("network", *_SELECTORS)),
        devices=words(section, "device"),
        subnets=words(section, "subnet"),
        family=_family(section),
        input=text(section, "input", policies["input"]).upper(),
        forward=text(section, "forward", policies["forward"]).upper(),
        # Unlike other booleans masquerading is off unless it is written.
        masq=is_on(section, "masq") and section.get("masq") is not None,
    )


def networks_of(zone: Section) -> tuple[str, ...]:
    """The interfaces of a zone section; one that says nothing has the interface of its own name."""
    networks = words(zone, "network")
    # A zone that is described by devices or subnets has no interface of its own name by accident.
    if networks or any(zone.get(option) for option in _SELECTORS):
        return networks
    return words(zone, "name")


def _permit(section: Section) -> Permit:
    # firewall4 takes TCP and UDP where a rule names no protocol.
    protocols = {word.lower() for word in words(section, "proto")} or {"tcp", "udp"}
    # No protocols here means all of them, as `Permit` says.
    if protocols & {"all", "any", "*"}:
        protocols = set()
    return Permit(
        src=text(section, "src"),
        dest=text(section, "dest"),
        protocols=frozenset(protocols),
        # A port by name is left out: it would need /etc/services of the router, and only makes a permit look
        # narrower.
        ports=tuple(filter(None, (_range(word) for word in words(section, "dest_port")))),
    )


def _range(word: str) -> range | None:
    first, _, last = word.replace(":", "-").partition("-")
    if not first.isdecimal() or not (last or first).isdecimal():
        # `!80` and names of services: not a range that can be compared.
        return None
    return range(int(first), int(last or first) + 1)


# Which devices belong to a firewall zone that refuses input, by the packages `firewall` and `network`. Pure.
#
# An interface that `agent.uci.router` guesses too many has no address.


_REFUSES = frozenset({"REJECT", "DROP"})


def wan_devices(firewall: Package, network: Package) -> frozenset[str]:
    """Device names, and names of interfaces that may be devices."""
    found: set[str] = set()
    for zone in read_firewall(firewall).zones:
        # By policy and not by name: people rename `wan`, and add zones for a second line.
        if zone.input in _REFUSES:
            found.update(zone.devices, zone.networks)
            found.update(*(devices_of(network, name) or () for name in zone.networks))
    return frozenset(found)
