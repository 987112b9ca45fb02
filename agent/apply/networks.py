# SPDX-License-Identifier: GPL-2.0-or-later
"""Networks under containers that run: changed endpoints, changed networks, and the way back when the engine refuses.

An endpoint cannot be edited and a network cannot either, so both have to go before the new one can come. What was
there is read first, and put back when the new one is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from agent.apply.addresses import pinned_first, with_addresses
from agent.apply.ports import Engine
from agent.apply.records import Records
from agent.errors import ConflictError, EngineError
from agent.model.observed import Record
from agent.model.resources import Container, ContainerSpec
from agent.plan.container.endpoints import PREDEFINED, compare, network_ids, wanted_endpoints
from agent.plan.container.payload import endpoint_body

logger = logging.getLogger(__name__)


def reconnect(
    engine: Engine,
    records: Records,
    object_id: str,
    spec: ContainerSpec,
    *,
    ignored: Collection[str] = (),
) -> None:
    """Makes a container's networks those of its spec; a network that is as declared is not touched.

    When one is refused, those from before are back; raises EngineError.
    """
    _end_restarts(engine, object_id)
    seen = engine.inspect_container(object_id)
    body = (seen and seen.inspect) or {}
    before = _endpoints_of(body)
    wanted = {endpoint.network: endpoint for endpoint in wanted_endpoints(spec)}
    listed = engine.list_networks()
    known = network_ids(listed, records.records())
    found = compare(spec, body, known, ignored=ignored)
    # by id, because two networks can share a name; the entry of a network that is gone has only the name left
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
        for name in found.extra:  # last: until here the container had a network all the time
            touched.append(name)
            engine.disconnect(source[name], object_id)
    except EngineError:
        # the one that was refused too: that may leave an entry without an endpoint
        _quietly(lambda name: engine.disconnect(target[name], object_id), touched)
        back = [name for name in touched if name in before]
        _quietly(lambda name: engine.connect(source[name], object_id, _same_again(before[name])), back)
        raise


def disconnect_from_gone(engine: Engine, object_id: str) -> bool:
    """Takes the endpoints of networks that are not there any more off a container; False when it has none."""
    held = {name: item.get("NetworkID") or name for name, item in _endpoints(engine, object_id).items()}
    mine = {name: network for name, network in held.items() if name not in PREDEFINED}
    gone = sorted(name for name, network in mine.items() if engine.inspect_network(network) is None)
    for name in gone:
        logger.warning("container %s: network %s is gone, disconnected", object_id[:12], name)
        engine.disconnect(name, object_id)
    return bool(gone)


def _end_restarts(engine: Engine, object_id: str) -> None:
    """One between two restarts is neither connected nor disconnected properly; that it runs again is for any pass."""
    seen = engine.inspect_container(object_id)
    if seen is not None and seen.state == "restarting":
        engine.stop(object_id, 0)


def _quietly(call: Any, names: Iterable[str]) -> None:
    """The error that led here is the one to be raised; what is still missing is drift, seen by the next look."""
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
    """What was asked for: addresses that the engine chose are for it to choose again."""
    kept = {
        name: endpoint.get(name) for name in ("IPAMConfig", "Aliases", "Links", "DriverOpts", "GwPriority")
    }
    return {name: value for name, value in kept.items() if value}


@dataclass(slots=True, kw_only=True)
class NetworkExchange:
    """Replaces a network under its members; holds what is needed to put the old one back."""

    engine: Engine
    records: Records
    _seen: dict[str, Any] = field(default_factory=dict)
    _members: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)  # id -> section, endpoint

    def take_down(self, old: Record) -> None:
        """Disconnects our containers and removes the network. Raises ConflictError when others use it."""
        seen = self.engine.inspect_network(old.object_id)
        self._seen = seen.inspect if seen is not None else {}
        self._members = self._find_members(old.object_id)
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

    def _find_members(self, network_id: str) -> dict[str, tuple[str, dict[str, Any]]]:
        """Our containers on it, stopped ones too: the network's own list leaves them out."""
        found = {}
        for record in self.records.records():
            if record.kind == "container" and record.object_id:
                for endpoint in _endpoints(self.engine, record.object_id).values():
                    if endpoint.get("NetworkID") == network_id:
                        found[record.object_id] = (record.section, endpoint)
        return found

    def connect_members(self, new: Record, declared: Mapping[str, Container]) -> None:
        """Connects those that the configuration wants on the new one."""
        found = [
            (endpoint, object_id)
            for object_id, (section, _) in self._members.items()
            for endpoint in (declared[section].spec.endpoints if section in declared else ())
            if endpoint.network == new.name
        ]
        for endpoint, object_id in sorted(found, key=lambda item: pinned_first(item[0])):
            self.engine.connect(new.object_id, object_id, endpoint_body(endpoint))

    def put_back(self, old: Record) -> Record:
        """Makes the old network again from what it looked like, with its members; returns its new record."""
        names = ("Name", "Driver", "Internal", "Attachable", "EnableIPv6", "Options", "Labels", "IPAM")
        body = {name: self._seen[name] for name in names if name in self._seen}
        object_id = self.engine.create_network({**body, "CheckDuplicate": True})
        record = replace(old, object_id=object_id)
        self.records.put(record)
        members = sorted(self._members.items(), key=lambda item: not item[1][1].get("IPAMConfig"))
        for member, (_, endpoint) in members:
            self.engine.connect(object_id, member, _same_again(endpoint))
        return record
