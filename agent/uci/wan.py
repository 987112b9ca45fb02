# SPDX-License-Identifier: GPL-2.0-or-later
"""Which devices belong to a firewall zone that refuses input, by the packages `firewall` and `network`. Pure.

An interface that `agent.uci.router` guesses too many has no address.
"""

from __future__ import annotations

from agent.uci.router import devices_of, read_firewall
from agent.uci.syntax import Package

_REFUSES = frozenset({"REJECT", "DROP"})


def wan_devices(firewall: Package, network: Package) -> frozenset[str]:
    """Device names, and names of interfaces that may be devices."""
    found: set[str] = set()
    for zone in read_firewall(firewall).zones:
        if zone.input in _REFUSES:
            found.update(zone.devices, zone.networks)
            found.update(*(devices_of(network, name) or () for name in zone.networks))
    return frozenset(found)
