# SPDX-License-Identifier: GPL-2.0-or-later
"""Which devices belong to a firewall zone that refuses input, by the packages `firewall` and `network`. Pure.

netifd names the device of a tunnelling protocol after its interface (`pppoe-wan`, `wg0`); both are guessed here, and
an interface that is a guess too many has no address.
"""

from __future__ import annotations

from agent.uci.syntax import Package, Section

_REFUSES = frozenset({"REJECT", "DROP"})


def wan_devices(firewall: Package, network: Package) -> frozenset[str]:
    """Device names, and names of interfaces that may be devices."""
    interfaces = {section.name: section for section in network.sections if section.type == "interface"}
    found: set[str] = set()
    for zone in firewall.sections:
        if zone.type == "zone" and set(_words(zone, "input")) & _REFUSES:
            found.update(_words(zone, "device"))
            for name in _words(zone, "network"):
                found |= _devices(name, interfaces)
    return frozenset(found)


def _devices(name: str, interfaces: dict[str, Section]) -> set[str]:
    found = {name}
    section = interfaces.get(name)
    if section is not None:
        found |= {f"{proto}-{name}" for proto in _words(section, "proto")}
        found |= {
            word for option in ("device", "ifname") for word in _words(section, option) if word[:1] != "@"
        }
    return found


def _words(section: Section, option: str) -> list[str]:
    found = section.get(option)
    if found is None:
        return []
    return found.value.split() if isinstance(found.value, str) else list(found.value)
