# SPDX-License-Identifier: GPL-2.0-or-later
"""Decides who may do what. On the control socket the caller is root and may do everything; on TCP the session
decides, by the grant of the route.

`Access` decides; `guard` asks it for each request and acts on the answer. The order matters: what a browser or a
container must not do is refused before rpcd is asked about the session.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from starlette.requests import HTTPConnection

from agent.api.access.subnets import Subnets
from agent.api.port import Sessions
from agent.api.problems import RequestError
from agent.api.rules import READER, WRITER, Grant, Need
from agent.errors import BusError
from agent.model.resources import AgentSettings
from agent.ubus.rpcd import is_login

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

    def note(self, client: str) -> None:
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
        self._failures.note(client)
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
