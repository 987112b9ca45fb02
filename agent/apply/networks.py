# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes networks under running containers: changed endpoints, changed networks, and the way back if the engine
refuses.

Docker cannot edit an endpoint or a network, so the old one must be removed before the new one is created. The old
state is read first, and restored if the engine refuses the new one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from agent.apply.ports import Engine, Records
from agent.errors import ConflictError, EngineError
from agent.model.entries import same_address
from agent.model.identity import Key
from agent.model.observed import ObservedNetwork, Record
from agent.model.resources import Container, ContainerSpec, Endpoint, Network
from agent.plan.container.bodies import endpoint_body
from agent.plan.container.difference import PREDEFINED, compare, network_ids, wanted_endpoints

logger = logging.getLogger(__name__)

# moby, drivers/macvlan and drivers/ipvlan: the parent of a network, or the device that it is a VLAN of, does not exist
_NO_PARENT = (
    "invalid subinterface vlan name",
    "failed to find master interface",
    "parent interface was not found",
)


def without_parent(exc: EngineError, network: Network, interfaces: Collection[str]) -> EngineError:
    """The error, in our words if the network's parent does not exist. `interfaces`: those of the engine's machine, none
    if they are not known."""
    parent = dict(network.spec.options).get("parent", "")
    if not parent or not any(text in str(exc) for text in _NO_PARENT):
        return exc
    # `eth0.10` is created by the engine, if there is eth0
    device = parent.partition(".")[0]
    there = ", ".join(sorted(name for name in interfaces if name != "lo" and not name.startswith("veth")))
    text = f"the parent interface {device} does not exist on this machine" + (
        f" (there are: {there})" if there else ""
    )
    return EngineError(f"{text}: correct `option parent`", status=exc.status, retryable=exc.retryable)


# Frees a fixed address that another container holds: if it is one of ours without a fixed address, it gets another
# address.
#
# The engine assigns addresses first come, first served, also after a reboot when it starts containers by itself. If
# an address is taken, the error names the container that holds it.


_USED = "address already in use"  # libnetwork/ipamapi, ErrIPAlreadyAllocated


@dataclass(frozen=True, slots=True, kw_only=True)
class _Holder:
    """The holder of an address: a container or, with an empty `id`, the network itself."""

    network: str
    network_id: str
    address: str
    id: str
    name: str


def with_addresses(
    engine: Engine, records: Records, spec: ContainerSpec, object_id: str, act: Callable[[], object]
) -> None:
    """Calls `act`, which gives a container its addresses; calls it again after containers that hold them have been
    moved.

    Raises EngineError naming the holder of an address.
    """
    try:
        act()
    except EngineError as exc:
        # only the text of the engine's error says that an address is taken: many errors share its status
        if _USED not in str(exc).lower():
            raise
        holders = list(_holders(engine, records, spec, object_id))
        # an address that another section declares stays there: moving it would only exchange the two errors
        kept = [holder for holder in holders if _dynamic(records, holder) is None]
        if not holders:
            raise
        if kept:
            raise _named(exc, records, kept) from exc
        _move(engine, records, holders, act)


def pinned_first(endpoint: Endpoint) -> bool:
    """Sort key: connects endpoints with fixed addresses before the engine assigns other addresses."""
    return not (endpoint.ip or endpoint.ip6)


def _move(engine: Engine, records: Records, holders: list[_Holder], act: Callable[[], object]) -> None:
    # Docker cannot change the address of an endpoint, so disconnect the holders. Reconnect them only after `act` has
    # taken the address; otherwise one of them could get it again.
    back: list[tuple[_Holder, Endpoint]] = []
    try:
        for holder in holders:
            logger.info(
                "%s moves: another container owns %s of network %s",
                holder.name,
                holder.address,
                holder.network,
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
            except EngineError as exc:  # this is drift, which the next pass repairs
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
    # these are reserved without a container, so the network's list of containers does not show them
    for pool in (network.inspect.get("IPAM") or {}).get("Config") or ():
        if same_address(address, str(pool.get("Gateway") or "").partition("/")[0]):
            yield holder(id="", name="the gateway of the network")
        for name, reserved in (pool.get("AuxiliaryAddresses") or {}).items():
            if same_address(address, str(reserved)):
                yield holder(id="", name=f"`aux_address {name}` of the network")


def _dynamic(records: Records, holder: _Holder) -> Endpoint | None:
    """The endpoint to which one of our containers may be moved, if its section sets no fixed address. It has an empty
    network if the section does not want the container on this network at all. None: the holder has to stay."""
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
            ours = (
                Key("container", record.section) if record is not None else "which is not managed by ucidockd"
            )
            who = f"the container {holder.name} ({ours})"
        words.append(f"{holder.address} of network {holder.network} is used by {who}")
    return EngineError(f"{exc}: {'; '.join(words)}", status=exc.status, retryable=exc.retryable)


def reconnect(
    engine: Engine,
    records: Records,
    object_id: str,
    spec: ContainerSpec,
    *,
    ignored: Collection[str] = (),
) -> None:
    """Makes the networks of a container match its spec; networks that are already as declared are not touched.

    If the engine refuses one, the earlier networks are restored; raises EngineError.
    """
    _end_restarts(engine, object_id)
    seen = engine.inspect_container(object_id)
    body = (seen and seen.inspect) or {}
    before = _endpoints_of(body)
    wanted = {endpoint.network: endpoint for endpoint in wanted_endpoints(spec)}
    listed = engine.list_networks()
    known = network_ids(listed, records.records())
    found = compare(spec, body, known, ignored=ignored)
    # by id, because two networks can share a name; of a network that was removed only the name is left
    target = {name: known.get(name, name) for name in (*before, *wanted)}
    there = {network.id for network in listed}
    held = {name: item.get("NetworkID") for name, item in before.items()}
    source = {name: network if network in there else target[name] for name, network in held.items()}
    touched: list[str] = []
    try:
        for name in found.wrong:
            touched.append(name)
            if name in before:
                engine.disconnect(source[name], object_id)
            connect = partial(engine.connect, target[name], object_id, endpoint_body(wanted[name]))
            with_addresses(engine, records, replace(spec, endpoints=(wanted[name],)), object_id, connect)
        for name in found.extra:  # last, so that the container always has a network
            touched.append(name)
            engine.disconnect(source[name], object_id)
    except EngineError:
        # include the refused network: its failed connect may leave an entry without an endpoint
        _quietly(lambda name: engine.disconnect(target[name], object_id), touched)
        back = [name for name in touched if name in before]
        _quietly(lambda name: engine.connect(source[name], object_id, _same_again(before[name])), back)
        raise


def disconnect_from_gone(engine: Engine, object_id: str) -> bool:
    """Disconnects a container from networks that no longer exist; False if there were none."""
    held = {name: item.get("NetworkID") or name for name, item in _endpoints(engine, object_id).items()}
    mine = {name: network for name, network in held.items() if name not in PREDEFINED}
    gone = sorted(name for name, network in mine.items() if engine.inspect_network(network) is None)
    for name in gone:
        logger.warning("container %s: network %s was removed, disconnected", object_id[:12], name)
        engine.disconnect(name, object_id)
    return bool(gone)


def _end_restarts(engine: Engine, object_id: str) -> None:
    """Stops a container that is between two restarts, because connects and disconnects do not work then. The next pass
    starts it again."""
    seen = engine.inspect_container(object_id)
    if seen is not None and seen.state == "restarting":
        engine.stop(object_id, 0)


def _quietly(call: Any, names: Iterable[str]) -> None:
    """Calls `call` for each name and only logs errors: the original error is raised later, and the next pass repairs the
    rest as drift."""
    for name in names:
        try:
            call(name)
        except EngineError as exc:
            logger.info("putting network %s back: %s", name, exc)


def _endpoints(engine: Engine, object_id: str) -> dict[str, dict[str, Any]]:
    seen = engine.inspect_container(object_id)
    return _endpoints_of((seen and seen.inspect) or {})


def _endpoints_of(body: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return (body.get("NetworkSettings") or {}).get("Networks") or {}


def _same_again(endpoint: dict[str, Any]) -> dict[str, Any]:
    """The endpoint settings that were requested. Addresses that the engine chose are left out, so it chooses again."""
    kept = {
        name: endpoint.get(name) for name in ("IPAMConfig", "Aliases", "Links", "DriverOpts", "GwPriority")
    }
    return {name: value for name, value in kept.items() if value}


@dataclass(slots=True, kw_only=True)
class NetworkExchange:
    """Replaces a network under its members; holds what is needed to restore the old network."""

    engine: Engine
    records: Records
    _seen: dict[str, Any] = field(default_factory=dict)  # the old network, from which it can be made again
    _members: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)  # id -> section, endpoint

    def take_down(self, old: Record) -> None:
        """Disconnects our containers and removes the network. Raises ConflictError if other containers use it."""
        seen = self.engine.inspect_network(old.object_id)
        self._seen = seen.inspect if seen is not None else {}
        # our containers on it, also stopped ones, which the network's own list omits
        found = {}
        for record in self.records.records():
            if record.kind == "container" and record.object_id:
                for endpoint in _endpoints(self.engine, record.object_id).values():
                    if endpoint.get("NetworkID") == old.object_id:
                        found[record.object_id] = (record.section, endpoint)
        self._members = found
        strangers = self._seen.get("Containers") or {}
        foreign = sorted(item["Name"] for key, item in strangers.items() if key not in self._members)
        if foreign:
            raise ConflictError(
                f"network {old.name} is used by containers that are not ours: {', '.join(foreign)}"
            )
        for object_id in self._members:
            _end_restarts(self.engine, object_id)
            self.engine.disconnect(old.object_id, object_id)
        self.engine.remove_network(old.object_id)

    def connect_members(self, new: Record, declared: Mapping[str, Container]) -> None:
        """Connects the containers to the new network as the configuration says."""
        found = [
            (endpoint, object_id)
            for object_id, (section, _) in self._members.items()
            for endpoint in (declared[section].spec.endpoints if section in declared else ())
            if endpoint.network == new.name
        ]
        # fixed addresses first: the engine could give one of them to an endpoint without a wish
        for endpoint, object_id in sorted(found, key=lambda item: pinned_first(item[0])):
            self.engine.connect(new.object_id, object_id, endpoint_body(endpoint))

    def put_back(self, old: Record) -> Record:
        """Recreates the old network from its inspect body and reconnects its members; returns its new record."""
        names = ("Name", "Driver", "Internal", "Attachable", "EnableIPv6", "Options", "Labels", "IPAM")
        body = {name: self._seen[name] for name in names if name in self._seen}
        # the labels hold this record's nonce: if the engine does not answer, the nonce will show whether it exists
        self.records.put(replace(old, object_id=""))
        object_id = self.engine.create_network({**body, "CheckDuplicate": True})
        record = replace(old, object_id=object_id)
        self.records.put(record)
        members = sorted(self._members.items(), key=lambda item: not item[1][1].get("IPAMConfig"))
        for member, (_, endpoint) in members:
            self.engine.connect(object_id, member, _same_again(endpoint))
        return record
