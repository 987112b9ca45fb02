# SPDX-License-Identifier: GPL-2.0-or-later
"""ASGI middleware in front of the routes: asks `access` about each request and answers those that are refused.

No request passes without a rule of the route table. The right behind a long request is checked repeatedly, so a
stream ends when its session ends. Handlers get the caller from `access.caller_of`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from urllib.parse import parse_qsl, urlencode

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent.api.access.access import (
    Access,
    AccessError,
    Caller,
    Incoming,
    cors_headers,
    is_preflight,
    preflight_headers,
)
from agent.api.access.connection import GuardedProtocol
from agent.api.http.routing import matching_rule
from agent.api.problems import http_body_of
from agent.api.rules import WRITER, Grant, Need
from agent.errors import BusError

logger = logging.getLogger(__name__)

RECHECK_S = 4.0  # plus the 5 s for which a revoked right may still be reported: 9 s at most
_FAREWELL_S = 0.5
_VIOLATION = 1008  # RFC 6455 section 7.4.1

HEADERS = (
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "SAMEORIGIN"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-store"),
    ("cross-origin-resource-policy", "same-origin"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'self'; sandbox"),
)
"""Headers of every answer; the server adds them (uvicorn's `headers`)."""


class Guard:
    """One instance for the whole application and all its listeners."""

    def __init__(self, app: ASGIApp, *, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection: GuardedProtocol = scope["state"]["connection"]
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        incoming = Incoming(
            control=connection.limits.control,
            local=str(scope["server"][0]) if scope["server"] else "",
            client=connection.client_address,
            headers=headers,
        )
        # removed before anything can log the URL
        ticket = take_ticket(scope)
        if not incoming.control or "origin" in headers:
            # refusals get the CORS headers too: without them a page cannot read the reason
            send = self._marked(incoming, send)
        try:
            await self._access.check_way(incoming)
            if scope["type"] == "http" and is_preflight(scope["method"], headers):
                await preflight_response(incoming)(scope, receive, send)
                return
            # Starlette runs the route that is found here, so the right that is checked is that of the route that runs
            rule = matching_rule(scope)
            grant = WRITER if rule is None else rule.grant  # only writers learn that a path does not exist
            caller = await self._let_in(scope, incoming, ticket, grant)
        except AccessError as exc:
            await refuse(exc, scope, receive, send)
            return
        scope["state"]["caller"] = caller
        if caller.is_root:
            await self._app(scope, receive, send)
        else:
            await self._watched(scope, receive, send, caller, grant)

    async def _let_in(self, scope: Scope, incoming: Incoming, ticket: str, grant: Grant) -> Caller:
        # the peer on the control socket was checked when it connected
        access = self._access
        if incoming.control:
            return Caller(client=incoming.client, sessions=access.sessions, is_root=True)
        if grant.need is Need.PUBLIC:
            return Caller(client=incoming.client, sessions=access.sessions)
        if scope["type"] == "websocket":
            session = access.redeem(ticket, str(scope["path"]), incoming.client)
        else:
            session = access.bearer(incoming)
        caller = Caller(client=incoming.client, session=session, sessions=access.sessions)
        await access.check(caller, grant)
        return caller

    def _marked(self, incoming: Incoming, send: Send) -> Send:
        origin = incoming.headers.get("origin", "")
        # a shared cache must not give the answer for one origin to a page of another (Fetch, "CORS protocol and HTTP
        # caches")
        extra = [("vary", "Origin")]
        if self._access.lists(origin):
            extra += cors_headers(origin).items()
        added = [(name.encode(), value.encode()) for name, value in extra]

        # Added when the answer begins, so that errors have them too: a page of another origin could otherwise not
        # read why it was refused.
        async def marked(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        return marked

    async def _watched(
        self, scope: Scope, receive: Receive, send: Send, caller: Caller, grant: Grant
    ) -> None:
        # a stream may last for days, but must not outlive its session
        watcher = asyncio.create_task(self._watch(scope, send, caller, grant), name="session-watch")
        try:
            await self._app(scope, receive, send)
        finally:
            watcher.cancel()
            await asyncio.wait({watcher})

    async def _watch(self, scope: Scope, send: Send, caller: Caller, grant: Grant) -> None:
        """Cuts the connection when the session loses the right. If rpcd does not answer, the connection is cut too."""
        try:
            while True:
                await asyncio.sleep(RECHECK_S)
                if not await caller.may(grant):
                    break
        except BusError as exc:
            logger.info("%s %s is cut: %s", scope["type"], scope["path"], exc)
        except Exception:
            # after any failure: a stream that nothing checks must not continue
            logger.exception("%s %s is cut", scope["type"], scope["path"])
        connection: GuardedProtocol = scope["state"]["connection"]
        if scope["type"] != "websocket":
            connection.cut()
            return
        # a browser shows the reason in a close frame; a client that does not read the frame is cut soon after
        asyncio.get_running_loop().call_later(_FAREWELL_S, connection.cut)
        with contextlib.suppress(OSError, RuntimeError):  # it may be closing already, or not be accepted yet
            await send({"type": "websocket.close", "code": _VIOLATION, "reason": "the session has ended"})


def take_ticket(scope: Scope) -> str:
    """Removes `ticket` from a WebSocket's query, so that neither a log nor a handler sees it; returns it."""
    query: bytes = scope["query_string"]
    if scope["type"] != "websocket" or b"ticket" not in query:
        return ""
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    scope["query_string"] = urlencode([pair for pair in pairs if pair[0] != "ticket"]).encode()
    # of two tickets, different parts of the system could use different ones: accept neither
    tickets = [value for name, value in pairs if name == "ticket"]
    return tickets[0] if len(tickets) == 1 else ""


def preflight_response(incoming: Incoming) -> Response:
    """The answer to a CORS preflight of an allowed origin."""
    private = "access-control-request-private-network" in incoming.headers
    return Response(status_code=204, headers=preflight_headers(private_network=private))


async def refuse(exc: AccessError, scope: Scope, receive: Receive, send: Send) -> None:
    """Sends the refusal; a WebSocket gets it before the upgrade (101)."""
    headers = dict(exc.headers or {})
    if scope["type"] == "websocket":
        headers |= dict(HEADERS)
    await JSONResponse(http_body_of(exc), status_code=exc.status, headers=headers)(scope, receive, send)
