# SPDX-License-Identifier: GPL-2.0-or-later
"""Decides who may do what. On the control socket the caller is root and may do everything; on TCP the session
decides, by the grant of the route.

`Access` decides; `guard` asks it for each request and acts on the answer. The order matters: what a browser or a
container must not do is refused before rpcd is asked about the session.

Containers must not reach the API over TCP. `Subnets` tells from the engine's networks which addresses belong to
containers. In the subnet of a bridge all addresses are containers'. A macvlan or ipvlan shares the LAN's subnet, so there
only the containers' own addresses and the range set aside for them count. A link-local address is judged by its
interface.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.requests import HTTPConnection

from agent.api.port import Sessions
from agent.api.problems import RequestError
from agent.api.rules import READER, WRITER, Grant, Need
from agent.engine.stream import DockerStream, any_answer
from agent.errors import BusError, EngineError
from agent.model.resources import AgentSettings
from agent.ubus.rpcd import is_login

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


logger = logging.getLogger(__name__)

# Failed logins: after ten in a minute an address has to wait. The log gets at most one line a minute about it.


FAILURES_WINDOW_S = 60.0
FAILURES_LIMIT = 10  # of one address in the window; from then on it has to wait
_SOURCES_LIMIT = 256  # addresses that are remembered


@dataclass(slots=True)
class _Source:
    since: float
    count: int = 0


class Failures:
    """Counts failed logins by address. `clock` is monotonic, in seconds. It remembers 256 addresses and then drops
    the oldest.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._sources: dict[str, _Source] = {}  # by address, the oldest first
        self._logged_at = float("-inf")

    def wait_s(self, client: str) -> float:
        """Seconds that this address has to wait; 0 if it may try now."""
        found = self._sources.get(client)
        if found is None or found.count < FAILURES_LIMIT:
            return 0.0
        return max(0.0, found.since + FAILURES_WINDOW_S - self._clock())

    def count(self, client: str) -> None:
        """Counts a failed login."""
        now = self._clock()
        found = self._sources.get(client)
        if found is None or found.since + FAILURES_WINDOW_S <= now:
            self._sources.pop(client, None)
            # bounded, because an attacker with an IPv6 /64 has any number of addresses
            if len(self._sources) >= _SOURCES_LIMIT:
                del self._sources[next(iter(self._sources))]
            found = self._sources[client] = _Source(since=now)
        found.count += 1
        if found.count >= FAILURES_LIMIT and self._logged_at + FAILURES_WINDOW_S <= now:
            self._logged_at = now
            logger.warning("%s failed to log in %d times in a minute, and has to wait", client, found.count)


# Single-use tickets: a browser cannot set `Authorization` on a WebSocket, so it sends a ticket instead.
#
# A ticket is issued to a session that has the route's right. It is valid once, for 30 s, on that route and from that
# address only.


TICKET_LIFE_S = 30.0  # the page opens its WebSocket at once; a leaked ticket must not live longer
_TICKETS_LIMIT = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ticket:
    session: str
    path: str
    client: str
    ends_at: float


class Tickets:
    """`clock` is monotonic, in seconds. At most 256 tickets are open; the oldest is dropped for a new one."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._open: dict[str, _Ticket] = {}  # secret -> ticket, the oldest first

    def issue(self, *, session: str, path: str, client: str) -> str:
        """A new ticket: 128 bits as 32 hexadecimal digits."""
        now = self._clock()
        for over in [secret for secret, ticket in self._open.items() if ticket.ends_at <= now]:
            del self._open[over]
        # a session that asks for tickets without end takes those of others, but no memory
        while len(self._open) >= _TICKETS_LIMIT:
            del self._open[next(iter(self._open))]
        secret = secrets.token_hex(16)
        ends_at = now + TICKET_LIFE_S
        self._open[secret] = _Ticket(session=session, path=path, client=client, ends_at=ends_at)
        return secret

    def redeem(self, secret: str, *, path: str, client: str) -> str | None:
        """The session that a ticket stands for. A ticket used on the wrong route or from the wrong address is
        invalidated too, because it has leaked.
        """
        # removed before anything is compared, so that it can be tried only once
        ticket = self._open.pop(secret, None)
        if ticket is None or ticket.ends_at <= self._clock():
            return None
        return ticket.session if (ticket.path, ticket.client) == (path, client) else None


# Checks what a browser says about where a request comes from (`Origin`) and goes to (`Host`), by exact comparison only.
#
# WHATWG Fetch (CORS protocol), RFC 6454 section 6.2, RFC 9110 sections 7.2 and 15.5.20, Private Network Access.


# a host name or an address in brackets, in small letters, with or without a port
_HOST = re.compile(r"(?P<name>[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}  # browsers leave these out of `Origin` and `Host`

_ALLOW_METHODS = "GET, HEAD, POST, PUT, DELETE"
_ALLOW_HEADERS = "authorization, content-type, last-event-id, x-registry-auth, x-registry-config"
_EXPOSE_HEADERS = "content-disposition, x-docker-container-path-stat, retry-after"
_MAX_AGE_S = 600  # seconds that a browser may remember a preflight answer


def normal_origins(configured: Iterable[str]) -> frozenset[str]:
    """The configured origins as browsers write them: lower case, without the scheme's default port."""
    parts = (origin.lower().partition("://") for origin in configured)
    return frozenset(
        f"{scheme}://{rest.removesuffix(':' + _DEFAULT_PORTS.get(scheme, ''))}" for scheme, _, rest in parts
    )


def host_name(header: str) -> str:
    """The host in a `Host` header, an IPv6 address without its brackets; "" if the header is malformed."""
    found = _HOST.fullmatch(header.lower())
    return found["name"].strip("[]") if found else ""


def host_allowed(header: str, *, local: str, names: Collection[str]) -> bool:
    """Whether a request with this `Host` is meant for us: it names the address that it arrived at, or one of our names.

    This stops DNS rebinding: a page that points its own name at our address still sends its own name.
    """
    name = host_name(header)
    if not name:
        return False
    try:
        # compared as addresses, because ::1 has many spellings
        return ipaddress.ip_address(name) == ipaddress.ip_address(local)
    except ValueError:
        return name in names


def own_names(hostname: str, configured: Iterable[str]) -> frozenset[str]:
    """The names that a `Host` header may contain."""
    short = hostname.lower()
    return frozenset({"localhost", short, f"{short}.lan", *(name.lower() for name in configured)})


def same_origin(origin: str, host: str) -> bool:
    """Whether a page of `origin` calls its own server. A reverse proxy in between passes that server's name as `Host`."""
    return bool(host_name(host)) and origin in (f"http://{host.lower()}", f"https://{host.lower()}")


def is_preflight(method: str, headers: Collection[str]) -> bool:
    """Whether this is a CORS preflight. `headers` are the names of the request's headers."""
    return method == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers


def preflight_headers(*, private_network: bool) -> dict[str, str]:
    """What a page of an allowed origin may send, in addition to `cors_headers`."""
    headers = {
        "access-control-allow-methods": _ALLOW_METHODS,
        "access-control-allow-headers": _ALLOW_HEADERS,
        "access-control-max-age": str(_MAX_AGE_S),
    }
    return headers | ({"access-control-allow-private-network": "true"} if private_network else {})


def cors_headers(origin: str) -> dict[str, str]:
    """Headers of each answer to an allowed origin. No credentials: the API does not use cookies."""
    return {"access-control-allow-origin": origin, "access-control-expose-headers": _EXPOSE_HEADERS}


_BEARER = re.compile(r"[Bb]earer ([0-9a-f]{32})")
_GOOD_LIMIT = 64  # sessions that are exempt from the lock of their address


class AccessError(RequestError):
    """The request is not allowed."""

    code = "access"


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """What is known of a request before its body is read. `local` and `client` are addresses, "" on the control socket."""

    control: bool
    local: str
    client: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The caller of a request: root on the control socket, or a session, which may be "" on a public route."""

    client: str
    sessions: Sessions = field(repr=False)
    session: str = field(default="", repr=False)
    is_root: bool = False

    async def may(self, grant: Grant) -> bool:
        """Whether the caller has this right now. Raises BusError."""
        if self.is_root or grant.need is Need.PUBLIC:
            return True
        return bool(self.session) and await self.sessions.allowed(self.session, grant.object, grant.method)


def caller_of(request: HTTPConnection) -> Caller:
    """The caller of a request that passed the guard."""
    caller: Caller = request.scope["state"]["caller"]
    return caller


async def may_write(request: HTTPConnection) -> bool:
    """Whether the caller is a writer; readers get answers without secrets. Raises BusError."""
    return await caller_of(request).may(WRITER)


class NoSessions:
    """Knows no session: only the control socket gives access."""

    async def allowed(self, session: str, object: str, method: str) -> bool:  # noqa: A002 - ubus's word
        del session, object, method
        return False


class Access:
    """Takes the access decisions. `settings` follows UCI; `clock` is monotonic, in seconds."""

    def __init__(
        self,
        sessions: Sessions,
        subnets: Subnets,
        *,
        settings: AgentSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
        hostname: Callable[[], str] = socket.gethostname,
    ) -> None:
        self.sessions = sessions
        self.subnets = subnets
        self.tickets = Tickets(clock)
        self._failures = Failures(clock)
        self._hostname = hostname
        self._good: dict[str, None] = {}  # sessions that were accepted lately, oldest first
        self.settings = settings or AgentSettings()

    @property
    def settings(self) -> AgentSettings:
        """The agent section that is in effect."""
        return self._settings

    @settings.setter
    def settings(self, settings: AgentSettings) -> None:
        self._settings = settings
        self._origins = normal_origins(settings.cors_origin)

    def lists(self, origin: str) -> bool:
        """Whether `cors_origin` lists this origin."""
        return origin in self._origins

    async def check_way(self, incoming: Incoming) -> None:
        """Checks everything that does not depend on the session. Raises AccessError 421, 403 or 503."""
        # The order is that of docs/security.md: what a page or a container must not do is refused before rpcd is
        # asked, so neither can use us to guess sessions.
        if not incoming.control:
            names = own_names(self._hostname(), self._settings.allowed_host)
            if not host_allowed(incoming.headers.get("host", ""), local=incoming.local, names=names):
                raise AccessError(
                    "this Host is not allowed: use the router's address or host name, or add it to `allowed_host`",
                    status=421,
                )
            if not self._settings.allow_container_clients:
                # a container reaches the router through its gateway, even with a session that it stole or was given
                is_container = await self.subnets.holds(incoming.client)
                if is_container is None:
                    raise AccessError(
                        "the engine has not answered since the agent's start, so containers cannot be told apart; try again",
                        status=503,
                        headers={"retry-after": "5"},
                    )
                if is_container:
                    raise AccessError(
                        "containers have no access (option allow_container_clients)", status=403
                    )
        origin = incoming.headers.get("origin")
        if origin is None or self.lists(origin):
            return
        # a reverse proxy may sit in front of the control socket, and its own pages may call through it
        if incoming.control and same_origin(origin, incoming.headers.get("host", "")):
            return
        raise AccessError("pages of this origin have no access: add it to `cors_origin`", status=403)

    def bearer(self, incoming: Incoming) -> str:
        """The session that the request carries. Raises AccessError 401 and 429."""
        text = incoming.headers.get("authorization")
        if text is None:
            raise no_session()
        found = _BEARER.fullmatch(text)
        if found is None or not is_login(found[1]):
            raise self.failed(incoming.client)
        return found[1]

    async def check(self, caller: Caller, grant: Grant) -> None:
        """Returns if the caller has this right. Raises AccessError 401, 403, 429, and 503 if rpcd does not answer."""
        # Failed logins lock out an address, which many clients may share (NAT). A session that was accepted lately is
        # not locked out with it.
        known = caller.session in self._good
        if not known and (wait_s := self._failures.wait_s(caller.client)):
            raise too_many(wait_s)
        if await _answered(caller.may(grant)):
            self._good.pop(caller.session, None)
            if len(self._good) >= _GOOD_LIMIT:
                del self._good[next(iter(self._good))]
            self._good[caller.session] = None
            return
        # a session that may read is a valid login: a refused write does not count as a failed one
        if await _answered(caller.may(READER)):
            raise AccessError("this session may not do that", status=403)
        self._good.pop(caller.session, None)
        raise self.failed(caller.client)

    def failed(self, client: str) -> AccessError:
        """Counts a failed login; returns the error to answer with."""
        if wait_s := self._failures.wait_s(client):
            return too_many(wait_s)
        self._failures.count(client)
        return no_session()

    def redeem(self, secret: str, path: str, client: str) -> str:
        """The session behind a WebSocket's ticket. Raises AccessError 401 and 429."""
        if not secret:
            raise no_session("a WebSocket needs a ticket of POST /v1/tickets as ?ticket=")
        session = self.tickets.redeem(secret, path=path, client=client)
        if session is None:
            raise self.failed(client)
        return session


async def _answered(question: Awaitable[bool]) -> bool:
    try:
        return await question
    except BusError as exc:
        raise AccessError(f"cannot check the session: {exc}", status=503) from exc


def no_session(message: str = "") -> AccessError:
    """The error for a missing or unknown session (401)."""
    return AccessError(
        message or "a session is needed: `Authorization: Bearer` and 32 hexadecimal digits",
        status=401,
        headers={"www-authenticate": "Bearer"},
    )


def too_many(wait_s: float) -> AccessError:
    """The error after too many failed logins (429)."""
    return AccessError(
        "too many failed logins from this address", status=429, headers={"retry-after": str(int(wait_s) + 1)}
    )
