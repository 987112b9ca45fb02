# SPDX-License-Identifier: GPL-2.0-or-later
"""UCI interfaces as netifd shows them, between names in `/etc/config` and devices of the kernel; the kernel's routes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """`l3_device` carries the addresses (pppoe-wan), `device` lies below it (eth1); "" while netifd has none.

    `is_uplink`: it has a default route.
    """

    name: str
    up: bool = False
    device: str = ""
    l3_device: str = ""
    addresses: frozenset[str] = frozenset()
    is_uplink: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Route:
    """A subnet that this machine reaches by a device; `direct`: on the link, without a router or a tunnel between."""

    device: str
    subnet: str
    direct: bool
