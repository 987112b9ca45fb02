# SPDX-License-Identifier: GPL-2.0-or-later
"""Starlette's routes made from rules. Each keeps its rule, so that what is checked is what runs."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route, Router, WebSocketRoute
from starlette.types import Receive, Scope, Send

from agent.api.http.replies import JsonReply
from agent.api.problems import RequestError, http_body, http_body_of, status_of
from agent.api.rules import WEBSOCKET, Rule

logger = logging.getLogger(__name__)

_FOUND = "ucidockd.route"  # in a request's scope: the route that `matching_rule` found, and what it matched


class RuledRoute(Route):
    """HEAD is nobody's but who asks for it: Starlette would add it to every GET."""

    def __init__(self, rule: Rule) -> None:
        super().__init__(rule.path, rule.handler, methods=[rule.method])
        self.methods = {rule.method}
        self.rule = rule


class RuledSocket(WebSocketRoute):
    """A WebSocket."""

    def __init__(self, rule: Rule) -> None:
        super().__init__(rule.path, rule.handler)
        self.rule = rule


def make_routes(rules: Sequence[Rule]) -> list[BaseRoute]:
    """A route for each rule."""
    return [RuledSocket(rule) if rule.method == WEBSOCKET else RuledRoute(rule) for rule in rules]


def matching_rule(scope: Scope) -> Rule | None:
    """The rule of the route that Starlette will run for that request; None when there is no such route."""
    method = scope.get("method", WEBSOCKET)
    for route in scope["app"].routes:
        if not isinstance(route, RuledRoute | RuledSocket) or route.rule.method != method:
            continue
        match, child = route.matches(scope)
        if match is Match.FULL:
            scope[_FOUND] = (route, child)
            return route.rule
    return None


def matching_socket(scope: Scope, path: str) -> Rule | None:
    """The rule of the WebSocket at `path`, in the application of `scope`."""
    return matching_rule({"type": "websocket", "path": path, "root_path": "", "app": scope["app"]})


def _other_methods(router: Router, scope: Scope) -> list[str]:
    """The methods that routes of that path have (RFC 9110 section 15.5.6)."""
    return sorted(
        {
            route.rule.method
            for route in router.routes
            if isinstance(route, RuledRoute) and route.matches(scope)[0] is not Match.NONE
        }
    )


def run_found(router: Router) -> None:
    """Lets `router` run the route that `matching_rule` found, without a second search (a regex for each route)."""

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        if _FOUND not in scope:
            if scope["type"] == "http" and (allowed := _other_methods(router, scope)):
                raise HTTPException(405, headers={"allow": ", ".join(allowed)})
            await router.app(scope, receive, send)
            return
        route, child = scope[_FOUND]
        scope["router"] = router
        scope.update(child)
        await route.handle(scope, receive, send)

    router.middleware_stack = run


# Starlette's error handlers: what became of a request, as `problems` says it. The log has the trace of a defect.


async def on_error(request: Request, exc: Exception) -> Response:
    """Starlette's handler for our own errors."""
    del request
    status = status_of(exc)
    if status == 304:  # the engine's "it is so already" has no body
        return Response(status_code=304)
    headers = dict(exc.headers or {}) if isinstance(exc, RequestError) else {}
    return JsonReply(http_body_of(exc), status_code=status, headers=headers)


async def on_http_error(request: Request, exc: Exception) -> Response:
    """Starlette's handler for its own errors: no such route, wrong method."""
    del request
    status = exc.status_code if isinstance(exc, HTTPException) else 500
    detail = str(exc.detail) if isinstance(exc, HTTPException) else "internal error"
    headers = dict(exc.headers or {}) if isinstance(exc, HTTPException) else {}
    return JsonReply(http_body(f"http-{status}", detail), status_code=status, headers=headers)


async def on_defect(request: Request, exc: Exception) -> Response:
    """Our own defect: the log has the trace, the client learns nothing of it."""
    logger.error("%s %s failed", request.method, request.url.path, exc_info=exc)
    return JsonReply(http_body("internal", "internal error"), status_code=500)
