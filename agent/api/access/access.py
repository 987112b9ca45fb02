# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may do what. On the control socket: root, everything. On TCP: a session, by the grant of the route.

`Access` decides; `guard` asks it for each request and carries the answer out. Order matters: what a browser or a
container must not do is refused before anybody is asked about the session.
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

logger = logging.getLogger(__name__)

# Failed logins: ten a minute from one address, then it has to wait; the log hears of it once a minute.


FAILURES_WINDOW_S = 60.0
FAILURES_LIMIT = 10
_SOURCES_LIMIT = 256


@dataclass(slots=True)
class _Source:
    since: float
    count: int = 0


class Failures:
    """`clock` is monotonic, in seconds. Knows 256 sources; the oldest gives way to a new one."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._sources: dict[str, _Source] = {}
        self._logged_at = float("-inf")

    def wait_s(self, client: str) -> float:
        """How long that address has to wait; 0 when it may try."""
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
            # an attacker with an IPv6 /64 has as many addresses as he likes
            if len(self._sources) >= _SOURCES_LIMIT:
                del self._sources[next(iter(self._sources))]
            found = self._sources[client] = _Source(since=now)
        found.count += 1
        if found.count >= FAILURES_LIMIT and self._logged_at + FAILURES_WINDOW_S <= now:
            self._logged_at = now
            logger.warning("%s failed to log in %d times in a minute, and has to wait", client, found.count)


# Single-use tickets: what a browser shows for a WebSocket, where it cannot set `Authorization`.
#
# Issued to a session that holds the route's right, and good once, for 30 s, on that route and from that address only.


TICKET_LIFE_S = 30.0
_TICKETS_LIMIT = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ticket:
    session: str
    path: str
    client: str
    ends_at: float


class Tickets:
    """`clock` is monotonic, in seconds. With 256 open ones, the oldest gives way."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._open: dict[str, _Ticket] = {}

    def issue(self, *, session: str, path: str, client: str) -> str:
        """A new ticket: 128 bits as 32 hexadecimal digits."""
        now = self._clock()
        for over in [secret for secret, ticket in self._open.items() if ticket.ends_at <= now]:
            del self._open[over]
        while len(self._open) >= _TICKETS_LIMIT:
            del self._open[next(iter(self._open))]
        secret = secrets.token_hex(16)
        ends_at = now + TICKET_LIFE_S
        self._open[secret] = _Ticket(session=session, path=path, client=client, ends_at=ends_at)
        return secret

    def redeem(self, secret: str, *, path: str, client: str) -> str | None:
        """The session behind a ticket. A ticket that is shown in the wrong place is used up too: it has leaked."""
        # taken out before anything is compared
        ticket = self._open.pop(secret, None)
        if ticket is None or ticket.ends_at <= self._clock():
            return None
        return ticket.session if (ticket.path, ticket.client) == (path, client) else None


# What a browser says about where a request comes from (`Origin`) and goes to (`Host`): exact comparison, nothing else.
#
# WHATWG Fetch (CORS protocol), RFC 6454 section 6.2, RFC 9110 sections 7.2 and 15.5.20, Private Network Access.


_HOST = re.compile(r"(?P<name>[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}

_ALLOW_METHODS = "GET, HEAD, POST, PUT, DELETE"
_ALLOW_HEADERS = "authorization, content-type, last-event-id, x-registry-auth, x-registry-config"
_EXPOSE_HEADERS = "content-disposition, x-docker-container-path-stat, retry-after"
_MAX_AGE_S = 600


def normal_origins(configured: Iterable[str]) -> frozenset[str]:
    """The configured origins as browsers write them: lower case, without the scheme's own port."""
    parts = (origin.lower().partition("://") for origin in configured)
    return frozenset(
        f"{scheme}://{rest.removesuffix(':' + _DEFAULT_PORTS.get(scheme, ''))}" for scheme, _, rest in parts
    )


def host_name(header: str) -> str:
    """The host of a `Host` header, an IPv6 address without its brackets; "" when the header is not well formed."""
    found = _HOST.fullmatch(header.lower())
    return found["name"].strip("[]") if found else ""


def host_allowed(header: str, *, local: str, names: Collection[str]) -> bool:
    """Whether a request with that `Host` is for us: the address it came in at, or one of our names.

    A page that rebinds its own name to our address still sends its own name.
    """
    name = host_name(header)
    if not name:
        return False
    try:
        # as addresses, not as text: ::1 has many spellings
        return ipaddress.ip_address(name) == ipaddress.ip_address(local)
    except ValueError:
        return name in names


def own_names(hostname: str, configured: Iterable[str]) -> frozenset[str]:
    """The names that a `Host` may carry."""
    short = hostname.lower()
    return frozenset({"localhost", short, f"{short}.lan", *(name.lower() for name in configured)})


def same_origin(origin: str, host: str) -> bool:
    """Whether a page of `origin` asked its own server, which a reverse proxy in between says by `Host`."""
    return bool(host_name(host)) and origin in (f"http://{host.lower()}", f"https://{host.lower()}")


def is_preflight(method: str, headers: Collection[str]) -> bool:
    """Whether a browser asks for leave. `headers` are the names of the request's."""
    return method == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers


def preflight_headers(*, private_network: bool) -> dict[str, str]:
    """What a page of a listed origin may send, beside `cors_headers`."""
    headers = {
        "access-control-allow-methods": _ALLOW_METHODS,
        "access-control-allow-headers": _ALLOW_HEADERS,
        "access-control-max-age": str(_MAX_AGE_S),
    }
    return headers | ({"access-control-allow-private-network": "true"} if private_network else {})


def cors_headers(origin: str) -> dict[str, str]:
    """For each answer to a listed origin. No credentials: there are no cookies here."""
    return {"access-control-allow-origin": origin, "access-control-expose-headers": _EXPOSE_HEADERS}


NOBODY = "0" * 32  # rpcd's default session, which everybody has
_BEARER = re.compile(r"[Bb]earer ([0-9a-f]{32})")
_GOOD_LIMIT = 64


class AccessError(RequestError):
    """The request is not let in."""

    code = "access"


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """What is known of a request before it is read. `local` and `client` are addresses, "" on the control socket."""

    control: bool
    local: str
    client: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who makes a request: root on the control socket, or a session; on a public route the session may be ""."""

    client: str
    sessions: Sessions = field(repr=False)
    session: str = field(default="", repr=False)
    is_root: bool = False

    async def may(self, grant: Grant) -> bool:
        """Whether the caller has that right now. Raises BusError."""
        if self.is_root or grant.need is Need.PUBLIC:
            return True
        return bool(self.session) and await self.sessions.allowed(self.session, grant.object, grant.method)


def caller_of(request: HTTPConnection) -> Caller:
    """The caller of a request that the guard let in."""
    caller: Caller = request.scope["state"]["caller"]
    return caller


async def may_write(request: HTTPConnection) -> bool:
    """Whether a writer asks. A reader gets no secrets: see `masking`. Raises BusError."""
    return await caller_of(request).may(WRITER)


class NoSessions:
    """No sessions: only the control socket is open."""

    async def allowed(self, session: str, object: str, method: str) -> bool:  # noqa: A002 - ubus's word
        del session, object, method
        return False


class Access:
    """The decisions. `settings` follows UCI; `clock` is monotonic, in seconds."""

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
        self._good: dict[str, None] = {}  # sessions that were let in lately, oldest first
        self.settings = settings or AgentSettings()

    @property
    def settings(self) -> AgentSettings:
        """The agent section in force."""
        return self._settings

    @settings.setter
    def settings(self, settings: AgentSettings) -> None:
        self._settings = settings
        self._origins = normal_origins(settings.cors_origin)

    def lists(self, origin: str) -> bool:
        """Whether `cors_origin` names that origin."""
        return origin in self._origins

    async def check_way(self, incoming: Incoming) -> None:
        """What a request must be before any session counts. Raises AccessError 421, 403 or 503."""
        # the order is that of docs/security.md: what a page or a container must not do is refused before rpcd is asked
        # anything, so that neither can use us to try sessions
        if not incoming.control:
            names = own_names(self._hostname(), self._settings.allowed_host)
            if not host_allowed(incoming.headers.get("host", ""), local=incoming.local, names=names):
                raise AccessError(
                    "this Host is not ours; expected the address, the host name, or one of `allowed_host`",
                    status=421,
                )
            if not self._settings.allow_container_clients:
                # a container reaches the router by its gateway, whatever session it has stolen or been given
                is_container = await self.subnets.holds(incoming.client)
                if is_container is None:
                    raise AccessError(
                        "the engine has not answered since the agent's start, so containers cannot be told apart; try again",
                        status=503,
                        headers={"retry-after": "5"},
                    )
                if is_container:
                    raise AccessError(
                        "containers are not let in (option allow_container_clients)", status=403
                    )
        origin = incoming.headers.get("origin")
        if origin is None or self.lists(origin):
            return
        # before the control socket stands a proxy, if anything: its own pages may come through it
        if incoming.control and same_origin(origin, incoming.headers.get("host", "")):
            return
        raise AccessError("pages of this Origin are not let in; expected one of `cors_origin`", status=403)

    def bearer(self, incoming: Incoming) -> str:
        """The session that the request names. Raises AccessError 401 and 429."""
        text = incoming.headers.get("authorization")
        if text is None:
            raise no_session()
        found = _BEARER.fullmatch(text)
        if found is None or found[1] == NOBODY:
            raise self.failed(incoming.client)
        return found[1]

    async def check(self, caller: Caller, grant: Grant) -> None:
        """Lets the caller in who has that right. Raises AccessError 401, 403, 429, and 503 when rpcd does not answer."""
        # failed logins lock out an address, which many may share (NAT): who was let in lately is not locked out with
        # the others
        known = caller.session in self._good
        if not known and (wait_s := self._failures.wait_s(caller.client)):
            raise too_many(wait_s)
        if await _answered(caller.may(grant)):
            self._good.pop(caller.session, None)
            if len(self._good) >= _GOOD_LIMIT:
                del self._good[next(iter(self._good))]
            self._good[caller.session] = None
            return
        # a caller who may read is logged in: a refused write does not count as a failed login
        if await _answered(caller.may(READER)):
            raise AccessError("this session may not do that", status=403)
        self._good.pop(caller.session, None)
        raise self.failed(caller.client)

    def failed(self, client: str) -> AccessError:
        """Counts a failed login; gives what to answer."""
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
    """401."""
    return AccessError(
        message or "a session is needed: `Authorization: Bearer` and 32 hexadecimal digits",
        status=401,
        headers={"www-authenticate": "Bearer"},
    )


def too_many(wait_s: float) -> AccessError:
    """429."""
    return AccessError(
        "too many failed logins from this address", status=429, headers={"retry-after": str(int(wait_s) + 1)}
    )
