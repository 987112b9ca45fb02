# SPDX-License-Identifier: GPL-2.0-or-later
"""Route: tickets for WebSockets. The caller must hold the right of the route that the ticket is for."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agent.api.access.access import TICKET_LIFE_S, Access, AccessError, caller_of
from agent.api.http.replies import read_json
from agent.api.http.routing import matching_socket
from agent.api.names import text
from agent.api.problems import RequestError
from agent.api.rules import READER, Rule, post


class TicketRoutes:
    """Issues what `guard` redeems."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def rules(self) -> list[Rule]:
        return [
            post(
                "/v1/tickets",
                READER,
                self.issue,
                "A single-use ticket for one WebSocket: {path} gives {ticket, expires_s}",
                body="json",
            )
        ]

    async def issue(self, request: Request) -> Response:
        caller = caller_of(request)
        if caller.is_root:
            raise RequestError("the control socket needs no ticket")
        path = text(await read_json(request), "path")
        rule = matching_socket(request.scope, path)
        if rule is None:
            raise RequestError("path: expected that of a WebSocket, such as /v1/exec/<id>/ws", status=404)
        if not await caller.may(rule.grant):
            raise AccessError("this session may not do that", status=403)
        ticket = self._access.tickets.issue(session=caller.session, path=path, client=caller.client)
        return JSONResponse({"ticket": ticket, "expires_s": TICKET_LIFE_S})
