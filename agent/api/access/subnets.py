# SPDX-License-Identifier: GPL-2.0-or-later
"""Which addresses are containers', asked of the engine: a container must not reach the controller by TCP.

A subnet of a bridge is all containers. One of macvlan or ipvlan is the LAN's own, where only the containers' own
addresses, or the range that was set apart for them, count. A link-local address is judged by the interface it came by.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from agent.engine.stream import DockerStream, as_it_is
from agent.errors import EngineError

logger = logging.getLogger(__name__)

FRESH_S = 5.0
_TIMEOUT_S = 2.0
_PATIENCE_S = 0.1  # for a fresher answer than the one that is known
_SHARED_DRIVERS = frozenset({"macvlan", "ipvlan"})

Net = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The subnets, addresses in shared ones, and interfaces with containers behind them, at a moment of the monotonic
    clock. `told`: the engine has answered once."""

    at: float
    nets: tuple[Net, ...] = ()
    interfaces: frozenset[str] = frozenset()
    told: bool = False


class Subnets:
    """`clock` is monotonic, in seconds. While the engine is away the last answer holds."""

    def __init__(self, engine: DockerStream, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._known = Known(at=float("-inf"))
        self._refreshing: asyncio.Task[None] | None = None

    async def holds(self, address: str) -> bool | None:
        """Whether the address is a container's, by an answer of the engine that is at most 5 s old.

        None when the engine has not said since the start: then only the router itself is known not to be a container.
        """
        text, _, interface = address.partition("%")
        try:
            wanted = ipaddress.ip_address(text)
        except ValueError:
            return False
        # a dual-stack socket shows an IPv4 client as ::ffff:a.b.c.d, which is in no IPv4 net
        mapped = wanted.ipv4_mapped if wanted.version == 6 else None
        wanted = mapped or wanted
        known = await self._current()
        if not known.told:
            return False if wanted.is_loopback else None
        if wanted.version == 6 and wanted.is_link_local:
            # fe80::/64 is on every interface: only the interface tells a container from the LAN
            return interface in known.interfaces
        return any(wanted in net for net in known.nets)

    async def nets(self) -> tuple[Net, ...]:
        """All of them, none while the engine has not answered."""
        return (await self._current()).nets

    async def _current(self) -> Known:
        """A slow engine does not delay requests for long: the last answer is used meanwhile."""
        if self._clock() - self._known.at > FRESH_S and self._refreshing is None:
            # one for all that ask at once
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
            # asked again in a while only: an engine that is away would be asked for each request
            self._known = replace(self._known, at=self._clock())
            return
        finally:
            self._refreshing = None
        nets = tuple(container_nets(networks, containers))
        interfaces = frozenset(container_interfaces(networks))
        self._known = Known(at=self._clock(), nets=nets, interfaces=interfaces, told=True)

    async def _ask(self) -> tuple[Any, Any]:
        networks = await self._engine.call("GET", "/networks", timeout_s=_TIMEOUT_S, read=as_it_is)
        shared = any(_driver(network) in _SHARED_DRIVERS for network in _dicts(networks))
        containers: Any = ()
        # the list of containers is large, and most engines have no network that shares its subnet with others
        if shared:
            containers = await self._engine.call(
                "GET", "/containers/json", timeout_s=_TIMEOUT_S, read=as_it_is
            )
        return networks, containers


def container_nets(networks: Any, containers: Any) -> Iterator[Net]:
    """The nets in the engine's GET /networks and GET /containers/json."""
    shared: set[str] = set()
    for network in _dicts(networks):
        if _driver(network) in _SHARED_DRIVERS:
            shared.add(str(network.get("Id", "")))
        # a macvlan has the subnet of the LAN: the whole of it would lock the LAN out, so only what is set aside for
        # containers counts, and each container by its own address
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
    """The router's interfaces that containers are behind, in the engine's GET /networks.

    The parent of a macvlan or ipvlan is among them: a link-local address does not tell its containers from the LAN.
    """
    for network in _dicts(networks):
        options = network.get("Options")
        named = options if isinstance(options, dict) else {}
        if _driver(network) in _SHARED_DRIVERS:
            yield str(named.get("parent", ""))
        else:
            yield str(named.get("com.docker.network.bridge.name") or f"br-{str(network.get('Id', ''))[:12]}")


def _driver(network: dict[str, Any]) -> str:
    return str(network.get("Driver", ""))


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | dict):
        yield from (item for item in value if isinstance(item, dict))


def _net(text: Any) -> Iterator[Net]:
    """Nothing for text that is not a net: a broken entry must not let the containers of the others in."""
    if isinstance(text, str) and text:
        try:
            yield ipaddress.ip_network(text, strict=False)
        except ValueError:
            logger.debug("the engine gives %r as a network", text[:64])
