# SPDX-License-Identifier: GPL-2.0-or-later
"""A UCI interface as netifd shows it: what lies between names in `/etc/config` and devices of the kernel."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """`l3_device` carries the addresses (pppoe-wan), `device` lies below it (eth1); "" while netifd has none."""

    name: str
    up: bool = False
    device: str = ""
    l3_device: str = ""
    addresses: frozenset[str] = frozenset()
