# SPDX-License-Identifier: GPL-2.0-or-later
"""Says which containers publish a port at an address that the router does not have (any more).

The engine keeps such a port while the container runs, and nobody reaches it; after a restart it refuses to start the
container. Looked at in each pass, so the condition is gone when the address is back.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable

from agent.model.dockerd.settings import Document
from agent.model.listen import IpAddress
from agent.model.resources import Container, Desired
from agent.plan.draft import key_of
from agent.status.board import StatusBoard
from agent.status.conditions import ConditionType

_OF_CONTAINERS = re.compile(r"docker0|docker_gwbridge|br-[0-9a-f]{12}|veth.*", re.ASCII)


def show_missing_addresses(
    desired: Desired,
    values: Document,
    board: StatusBoard,
    *,
    now: float,
    has_address: Callable[[str], bool],
    addresses: Callable[[], Iterable[tuple[str, IpAddress]]],
) -> None:
    """The condition `AddressMissing` of each container, for an engine on this machine.

    `values`: dockerd's settings; its `ip` is where ports without an address are published.
    """
    for container in desired.containers:
        key = key_of("container", container.section)
        wanted = _published_at(container, str(values.get("ip") or "")) if container.policy.enabled else ()
        missing = [address for address in wanted if not has_address(address)]
        if not missing:
            board.clear(key, ConditionType.ADDRESS_MISSING, now=now)
            continue
        there = ", ".join(f"{address} ({device})" for device, address in addresses() if _counts(device))
        text = (
            f"a port is published at {', '.join(missing)}, which this router does not have; it has {there or 'none'};"
            " expected one of these, or no address, in `port`"
        )
        board.ensure(key, kind="container", section=container.section, name=container.name, now=now)
        board.set(key, ConditionType.ADDRESS_MISSING, status=True, reason="NotHere", message=text, now=now)


def _published_at(container: Container, default: str) -> tuple[str, ...]:
    """Each address once; loopback and all addresses together are always there."""
    found = dict.fromkeys(port.host_ip or default for port in container.spec.ports)
    return tuple(address for address in found if address and _is_own(address))


def _is_own(text: str) -> bool:
    address = ipaddress.ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    plain = mapped or address
    return not plain.is_unspecified and not plain.is_loopback


def _counts(device: str) -> bool:
    return not _OF_CONTAINERS.fullmatch(device)
