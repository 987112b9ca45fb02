# SPDX-License-Identifier: GPL-2.0-or-later
"""Networks of the engine in memory: address ranges, endpoints, and the containers on each network."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import Any

from agent.errors import EngineError
from tests.support.virtual.objects import FakeContainer, FakeNetwork

PREDEFINED = ("bridge", "host", "none")
_POOLS = [f"10.214.{n}.0/24" for n in range(256)]


class Networks:
    """All networks by id. `new_id` returns 64 hex digits."""

    def __init__(self, new_id: Callable[[], str]) -> None:
        self._new_id = new_id
        self.by_id: dict[str, FakeNetwork] = {}
        for name in PREDEFINED:
            pools = [{"Subnet": "10.213.0.0/24", "Gateway": "10.213.0.1"}] if name == "bridge" else []
            driver = "null" if name == "none" else name
            self._add(FakeNetwork(id=new_id(), name=name, sent={"Driver": driver}, pools=pools))

    def _add(self, network: FakeNetwork) -> None:
        self.by_id[network.id] = network

    def find(self, ref: str) -> FakeNetwork | None:
        """Looks a network up by full id, by name, or by the start of an id, in that order."""
        if ref in self.by_id:
            return self.by_id[ref]
        named = [n for n in self.by_id.values() if n.name == ref]
        started = [n for n in self.by_id.values() if ref and n.id.startswith(ref)]
        return next(iter(named or started), None)

    def get(self, ref: str) -> FakeNetwork:
        found = self.find(ref)
        if found is None:
            raise EngineError(f"network {ref} not found", status=404)
        return found

    def create(self, body: dict[str, Any]) -> FakeNetwork:
        name = body["Name"]
        if name in PREDEFINED:
            raise EngineError(f"operation is not permitted on predefined {name} network", status=403)
        if any(n.name == name for n in self.by_id.values()):
            raise EngineError(f"network with name {name} already exists", status=409)
        pools = [dict(item) for item in (body.get("IPAM") or {}).get("Config") or ()]
        taken = [_subnet(pool) for n in self.by_id.values() for pool in n.pools]
        for pool in pools:
            _check_pool(pool, taken)
        if not pools and (body.get("Driver") or "bridge") == "bridge":
            free = next(p for p in map(ipaddress.ip_network, _POOLS) if not any(p.overlaps(t) for t in taken))
            pools = [{"Subnet": str(free)}]
        for pool in pools:
            pool.setdefault("Gateway", str(_subnet(pool)[1]))
        self._check_bridge(body)
        network = FakeNetwork(id=self._new_id(), name=name, sent=dict(body), pools=pools)
        self._add(network)
        return network

    def _check_bridge(self, body: dict[str, Any]) -> None:
        wanted = (body.get("Options") or {}).get("com.docker.network.bridge.name")
        for other in self.by_id.values():
            if wanted and (other.sent.get("Options") or {}).get("com.docker.network.bridge.name") == wanted:
                text = f"cannot create network: conflicts with {other.id}: networks have same bridge name"
                raise EngineError(text, status=403)

    def remove(self, ref: str) -> FakeNetwork:
        network = self.get(ref)
        if network.name in PREDEFINED:
            raise EngineError(f"{network.name} is a pre-defined network and cannot be removed", status=403)
        if network.members:
            text = (
                f"error while removing network: network {network.name} id {network.id} has active endpoints"
            )
            raise EngineError(text, status=403)
        return self.by_id.pop(network.id)

    # endpoints

    def attach(self, container: FakeContainer, name: str) -> None:
        """Gives a container that starts or runs its endpoint on the network `name`. Raises EngineError."""
        endpoint = container.networks[name]
        # the endpoint keeps the network id of its first connection, even if another network has the name now
        known = endpoint["NetworkID"] if name not in PREDEFINED else ""
        network = self.by_id.get(known) if known else self.find(name)
        if network is None:
            raise EngineError(f"network {name} not found", status=404)
        endpoint["NetworkID"] = network.id
        if network.name in {"host", "none"}:
            endpoint["EndpointID"] = self._new_id()
            return
        endpoint["IPAddress"] = self._address(network, (endpoint.get("IPAMConfig") or {}).get("IPv4Address"))
        endpoint["EndpointID"] = self._new_id()
        # before API 1.44, a container's own MAC address applies only to the network that the container was created in
        own = container.config.get("MacAddress") if container.host["NetworkMode"] == network.name else ""
        own = endpoint["_mac"] or own
        endpoint["MacAddress"] = own or "02:42:" + ":".join(re.findall("..", endpoint["EndpointID"][:8]))
        endpoint["Gateway"] = network.pools[0]["Gateway"] if network.pools else ""
        endpoint["_name"] = container.name
        network.members[container.id] = endpoint

    def _address(self, network: FakeNetwork, wanted: str | None) -> str:
        used = {endpoint["IPAddress"] for endpoint in network.members.values()}
        used |= {pool["Gateway"] for pool in network.pools}
        if wanted:
            if wanted in used:
                raise EngineError("Address already in use", status=403)
            return wanted
        free = (str(a) for pool in network.pools for a in _hosts(pool) if str(a) not in used)
        address = next(free, None)
        if address is None:
            raise EngineError("no available IPv4 addresses on this network's address pools", status=403)
        return address

    def detach(self, container: FakeContainer, names: Iterable[str]) -> None:
        """Removes the endpoints of a container that stops; the container keeps their configuration."""
        for name in names:
            endpoint = container.networks[name]
            network = self.by_id.get(endpoint.get("NetworkID") or "")
            if network is not None:
                network.members.pop(container.id, None)
            endpoint |= {"EndpointID": "", "IPAddress": "", "Gateway": "", "MacAddress": ""}


def check_address(network: FakeNetwork, endpoint: dict[str, Any]) -> None:
    """Makes the checks of a static address that the engine makes first. Raises EngineError."""
    wanted = (endpoint.get("IPAMConfig") or {}).get("IPv4Address")
    if not wanted:
        return
    if not network.sent.get("IPAM"):
        text = "user specified IP address is supported only when connecting to networks with user configured subnets"
        raise EngineError(text, status=400)
    if not any(ipaddress.ip_address(wanted) in _subnet(pool) for pool in network.pools):
        text = f"invalid address {wanted}: It does not belong to any of this network's subnets"
        raise EngineError(text, status=400)


def _subnet(pool: dict[str, Any]) -> ipaddress.IPv4Network:
    return ipaddress.IPv4Network(pool["Subnet"])


def _hosts(pool: dict[str, Any]) -> Iterable[ipaddress.IPv4Address]:
    return ipaddress.IPv4Network(pool.get("IPRange") or pool["Subnet"]).hosts()


def _check_pool(pool: dict[str, Any], taken: list[ipaddress.IPv4Network]) -> None:
    try:
        subnet = _subnet(pool)
    except (ValueError, KeyError) as exc:
        raise EngineError(f"invalid subnet {pool.get('Subnet')}", status=400) from exc
    if any(subnet.overlaps(other) for other in taken):
        raise EngineError("Pool overlaps with other one on this address space", status=403)
