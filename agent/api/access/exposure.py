# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the controller must not listen: a right to start containers is the router, so it stays on the LAN. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from agent.api.access.subnets import Net
from agent.model.listen import IpAddress


def exposure(ip: IpAddress, *, containers: Iterable[Net], wan: Collection[IpAddress]) -> str:
    """Who else could call that address; "" when it is one for the LAN."""
    if ip.is_unspecified:
        return "this is every address, those of WAN and of the containers too"
    if any(ip in net for net in containers):
        return "this is an address for containers"
    if ip in wan:
        return "this is an address of a zone that refuses input, such as wan"
    if not ip.is_private or ip.is_multicast:
        return "this is no private address"
    return ""
