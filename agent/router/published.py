# SPDX-License-Identifier: GPL-2.0-or-later
"""Says which containers publish a port at an address the router has lost, and which write to a read-only file system."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable

from agent.errors import PathError
from agent.files.user_paths import PATHS, View, is_read_only
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


# Says which containers write to a directory whose file system takes no writing: a disk with errors is remounted so.
#
# They are left running: to stop them would help nobody, and some only read what they could write.


def show_read_only(desired: Desired, board: StatusBoard, *, now: float) -> None:
    """The condition `StorageReadOnly` of each container. For an engine on this machine."""
    sources = {
        container.section: tuple(m.source for m in container.spec.mounts if m.is_bind and not m.read_only)
        for container in desired.containers
        if container.policy.enabled
    }
    look = PATHS.view((is_read_only, path) for paths in sources.values() for path in paths)
    for container in desired.containers:
        key = key_of("container", container.section)
        found = [path for path in sources.get(container.section, ()) if _is_read_only(look, path)]
        if not found:
            board.clear(key, ConditionType.STORAGE_READ_ONLY, now=now)
            continue
        board.ensure(key, kind="container", section=container.section, name=container.name, now=now)
        text = (
            f"{', '.join(found)}: the file system is mounted read-only; `:ro` in `volume` says that it may be"
        )
        board.set(key, ConditionType.STORAGE_READ_ONLY, status=True, reason="ReadOnly", message=text, now=now)


def _is_read_only(look: View, path: str) -> bool:
    try:
        return look(is_read_only, path)
    except PathError:
        return False  # that nobody knows, `Waiting` says
