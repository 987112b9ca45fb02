# SPDX-License-Identifier: GPL-2.0-or-later
"""Tells from the engine's networks which addresses belong to containers, which must not reach the API over TCP.

In the subnet of a bridge all addresses are containers'. A macvlan or ipvlan shares the LAN's subnet, so there only
the containers' own addresses and the range set aside for them count. A link-local address is judged by its interface.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from agent.engine.stream import DockerStream, any_answer
from agent.errors import EngineError

logger = logging.getLogger(__name__)

FRESH_S = 5.0  # networks change rarely, and each request to the API needs them
_TIMEOUT_S = 2.0  # for one call to the engine
_PATIENCE_S = 0.1  # how long a request waits for a fresher answer than the known one
_SHARED_DRIVERS = frozenset({"macvlan", "ipvlan"})

Net = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerAddresses:
    """What the engine said at the time `at` (monotonic, seconds): container subnets, container addresses in shared
    subnets, and interfaces with containers behind them. `told` is False until the engine has answered once.
    """

    at: float
    nets: tuple[Net, ...] = ()
    interfaces: frozenset[str] = frozenset()
    told: bool = False


class Subnets:
    """`clock` is monotonic, in seconds. While the engine is not reachable, the last answer is used."""

    def __init__(self, engine: DockerStream, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._known = ContainerAddresses(at=float("-inf"))
        self._refreshing: asyncio.Task[None] | None = None

    async def holds(self, address: str) -> bool | None:
        """Whether the address is a container's, according to an answer of the engine that is at most 5 s old.

        None if the engine has not answered since the agent's start: until then only loopback is known not to be a
        container.
        """
        text, _, interface = address.partition("%")
        try:
            wanted = ipaddress.ip_address(text)
        except ValueError:
            return False
        # a dual-stack socket shows an IPv4 client as ::ffff:a.b.c.d, which matches no IPv4 network
        mapped = wanted.ipv4_mapped if wanted.version == 6 else None
        wanted = mapped or wanted
        known = await self._current()
        if not known.told:
            return False if wanted.is_loopback else None
        if wanted.version == 6 and wanted.is_link_local:
            # fe80::/64 is on every interface: only the interface distinguishes a container from the LAN
            return interface in known.interfaces
        return any(wanted in net for net in known.nets)

    async def nets(self) -> tuple[Net, ...]:
        """All container networks; empty until the engine has answered."""
        return (await self._current()).nets

    async def _current(self) -> ContainerAddresses:
        """The known subnets, refreshed if they are old. A slow engine delays a request only briefly, then the old
        ones are used.
        """
        if self._clock() - self._known.at > FRESH_S and self._refreshing is None:
            # one refresh serves all requests that wait for it
            self._refreshing = asyncio.create_task(self._refresh(), name="docker-subnets")
        if self._refreshing is not None:
            first = self._known.at == float("-inf")
            await asyncio.wait({self._refreshing}, timeout=_TIMEOUT_S if first else _PATIENCE_S)
        return self._known

    async def _refresh(self) -> None:
        try:
            networks, containers = await self._ask()
        except EngineError as exc:
            logger.debug("the networks of the engine are not known: %s", exc)
            # stamp the old answer as fresh, or an unreachable engine would be asked for each request
            self._known = replace(self._known, at=self._clock())
            return
        finally:
            self._refreshing = None
        nets = tuple(container_nets(networks, containers))
        interfaces = frozenset(container_interfaces(networks))
        self._known = ContainerAddresses(at=self._clock(), nets=nets, interfaces=interfaces, told=True)

    async def _ask(self) -> tuple[Any, Any]:
        networks = await self._engine.call("GET", "/networks", timeout_s=_TIMEOUT_S, read=any_answer)
        shared = any(_driver(network) in _SHARED_DRIVERS for network in _dicts(networks))
        containers: Any = ()
        # only with a shared subnet: the list of containers is large, and most engines have no such network
        if shared:
            containers = await self._engine.call(
                "GET", "/containers/json", timeout_s=_TIMEOUT_S, read=any_answer
            )
        return networks, containers


def container_nets(networks: Any, containers: Any) -> Iterator[Net]:
    """The container networks in the engine's GET /networks and GET /containers/json."""
    shared: set[str] = set()
    for network in _dicts(networks):
        if _driver(network) in _SHARED_DRIVERS:
            shared.add(str(network.get("Id", "")))
        # A macvlan has the subnet of the LAN, and taking all of it would lock the LAN out. Only the range set aside
        # for containers counts, and each container's own address.
        field = "IPRange" if _driver(network) in _SHARED_DRIVERS else "Subnet"
        ipam = network.get("IPAM")
        for config in _dicts(ipam.get("Config") if isinstance(ipam, dict) else None):
            yield from _net(config.get(field))
    for container in _dicts(containers):
        settings = container.get("NetworkSettings")
        endpoints = settings.get("Networks") if isinstance(settings, dict) else None
        for endpoint in _dicts(endpoints.values() if isinstance(endpoints, dict) else None):
            if endpoint.get("NetworkID") in shared:
                yield from _net(endpoint.get("IPAddress"))
                yield from _net(endpoint.get("GlobalIPv6Address"))


def container_interfaces(networks: Any) -> Iterator[str]:
    """The router's interfaces with containers behind them, from the engine's GET /networks.

    The parent of a macvlan or ipvlan is included, because a link-local address does not tell its containers from the LAN.
    """
    for network in _dicts(networks):
        options = network.get("Options")
        named = options if isinstance(options, dict) else {}
        if _driver(network) in _SHARED_DRIVERS:
            yield str(named.get("parent", ""))
        else:
            # a bridge without a name of its own is named after the network's id (moby libnetwork/drivers/bridge)
            yield str(named.get("com.docker.network.bridge.name") or f"br-{str(network.get('Id', ''))[:12]}")


def _driver(network: dict[str, Any]) -> str:
    return str(network.get("Driver", ""))


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | dict):
        yield from (item for item in value if isinstance(item, dict))


def _net(text: Any) -> Iterator[Net]:
    """Yields nothing for text that is not a network: one broken entry must not hide the other networks."""
    if isinstance(text, str) and text:
        try:
            yield ipaddress.ip_network(text, strict=False)
        except ValueError:
            logger.debug("the engine gives %r as a network", text[:64])
