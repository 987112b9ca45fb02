# SPDX-License-Identifier: GPL-2.0-or-later
"""A fixed address that another container has: one of ours whose address is any that was free moves out of the way.

The engine hands out addresses first come, first served, also after a reboot, when it starts containers itself. Where
another container has the address, the error names it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from agent.apply.ports import Engine
from agent.apply.records import Records
from agent.errors import EngineError
from agent.model.entries import same_address
from agent.model.observed import ObservedNetwork, Record
from agent.model.resources import ContainerSpec, Endpoint
from agent.plan.endpoints import network_ids
from agent.plan.payload import endpoint_body

logger = logging.getLogger(__name__)

_USED = "address already in use"  # libnetwork/ipamapi, ErrIPAlreadyAllocated


@dataclass(frozen=True, slots=True, kw_only=True)
class _Holder:
    """Who has an address: a container, or with an empty `id` the network itself."""

    network: str
    network_id: str
    address: str
    id: str
    name: str


def with_addresses(
    engine: Engine, records: Records, spec: ContainerSpec, object_id: str, act: Callable[[], object]
) -> None:
    """Does what gives a container its addresses; a second time once those that are in the way have moved.

    Raises EngineError, which names who keeps an address.
    """
    try:
        act()
    except EngineError as exc:
        if _USED not in str(exc).lower():
            raise
        holders = list(_holders(engine, records, spec, object_id))
        kept = [holder for holder in holders if _dynamic(records, holder) is None]
        if not holders:
            raise
        if kept:
            raise _named(exc, records, kept) from exc
        _move(engine, records, holders, act)


def pinned_first(endpoint: Endpoint) -> bool:
    """For sorting: fixed addresses are taken before the engine hands out others."""
    return not (endpoint.ip or endpoint.ip6)


def _move(engine: Engine, records: Records, holders: list[_Holder], act: Callable[[], object]) -> None:
    back: list[tuple[_Holder, Endpoint]] = []
    try:
        for holder in holders:
            logger.info(
                "%s moves: %s of network %s is another's", holder.name, holder.address, holder.network
            )
            endpoint = _dynamic(records, holder)
            engine.disconnect(holder.network_id, holder.id)
            if endpoint is not None and endpoint.network:
                back.append((holder, endpoint))
        act()
    finally:
        for holder, endpoint in back:
            try:
                engine.connect(holder.network_id, holder.id, endpoint_body(endpoint))
            except EngineError as exc:  # drift, which the next look at it repairs
                logger.warning("%s is not back on network %s: %s", holder.name, holder.network, exc)


def _holders(engine: Engine, records: Records, spec: ContainerSpec, object_id: str) -> Iterator[_Holder]:
    known = network_ids(engine.list_networks(), records.records())
    for endpoint in spec.endpoints:
        wanted = [address for address in (endpoint.ip, endpoint.ip6) if address]
        seen = engine.inspect_network(known.get(endpoint.network, endpoint.network)) if wanted else None
        if seen is not None:
            for address in wanted:
                yield from _who(seen, address, object_id)


def _who(network: ObservedNetwork, address: str, object_id: str) -> Iterator[_Holder]:
    holder = partial(_Holder, network=network.name, network_id=network.id, address=address)
    for member, item in (network.inspect.get("Containers") or {}).items():
        shown = (str(item.get(key) or "").partition("/")[0] for key in ("IPv4Address", "IPv6Address"))
        if member != object_id and any(same_address(address, each) for each in shown):
            yield holder(id=member, name=str(item.get("Name") or member[:12]))
    for pool in (network.inspect.get("IPAM") or {}).get("Config") or ():
        if same_address(address, str(pool.get("Gateway") or "").partition("/")[0]):
            yield holder(id="", name="the gateway of the network")
        for name, reserved in (pool.get("AuxiliaryAddresses") or {}).items():
            if same_address(address, str(reserved)):
                yield holder(id="", name=f"`aux_address {name}` of the network")


def _dynamic(records: Records, holder: _Holder) -> Endpoint | None:
    """The endpoint that one of ours is to have there, where no fixed address is meant; one without a network where its
    section does not want it on that network at all. None: it has to stay."""
    record = _record(records, holder)
    if record is None:
        return None
    for item in record.spec.get("endpoints", ()):
        if item.get("network") == holder.network:
            fixed = any(same_address(holder.address, str(item.get(key) or "")) for key in ("ip", "ip6"))
            return None if fixed else Endpoint(**{**item, "aliases": tuple(item.get("aliases", ()))})
    return Endpoint(network="")


def _record(records: Records, holder: _Holder) -> Record | None:
    mine = (r for r in records.records() if r.kind == "container" and not r.swap)
    return next((r for r in mine if holder.id and r.object_id == holder.id), None)


def _named(exc: EngineError, records: Records, kept: list[_Holder]) -> EngineError:
    words = []
    for holder in kept:
        record = _record(records, holder)
        who = holder.name
        if holder.id:
            ours = f"container:{record.section}" if record is not None else "which is not managed by ucidockd"
            who = f"the container {holder.name} ({ours})"
        words.append(f"{holder.address} of network {holder.network} is used by {who}")
    return EngineError(f"{exc}: {'; '.join(words)}", status=exc.status, retryable=exc.retryable)
