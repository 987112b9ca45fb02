# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes Starlette's routes from rules. Each route keeps its rule, so the rule that is checked belongs to the route
that runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Match, Route, Router, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from agent.api.http.replies import STALL_S, JsonReply
from agent.api.problems import RequestError, body_of, http_body, http_body_of, status_of
from agent.api.rules import WEBSOCKET, Rule
from agent.errors import UcidockdError

logger = logging.getLogger(__name__)

# key in the request's scope: the route that `matching_rule` found, and what it matched
_FOUND = "ucidockd.route"


class RuledRoute(Route):
    """Allows HEAD only if a rule says so; Starlette would add it to every GET."""

    def __init__(self, rule: Rule) -> None:
        # named, although the name is not used: on Python 3.14 old versions of Starlette cannot derive one from a partial
        super().__init__(rule.path, rule.handler, methods=[rule.method], name=rule.path)
        self.methods = {rule.method}
        self.rule = rule


class RuledSocket(WebSocketRoute):
    """The route of a WebSocket."""

    def __init__(self, rule: Rule) -> None:
        super().__init__(rule.path, rule.handler, name=rule.path)
        self.rule = rule


def make_routes(rules: Sequence[Rule]) -> list[BaseRoute]:
    """One route for each rule."""
    return [RuledSocket(rule) if rule.method == WEBSOCKET else RuledRoute(rule) for rule in rules]


def matching_rule(scope: Scope) -> Rule | None:
    """The rule of the route that Starlette will run for this request; None if no route matches."""
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


def run_found(router: Router) -> None:
    """Makes `router` run the route that `matching_rule` found, without a second search (a regex for each route)."""

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        # the guard found no route: the path does not exist, or does not have this method
        if _FOUND not in scope:
            of_path = [
                route.rule.method
                for route in router.routes
                if isinstance(route, RuledRoute) and route.matches(scope)[0] is not Match.NONE
            ]
            if scope["type"] == "http" and of_path:  # RFC 9110 section 15.5.6
                raise HTTPException(405, headers={"allow": ", ".join(sorted(set(of_path)))})
            await router.app(scope, receive, send)
            return
        route, child = scope[_FOUND]
        scope["router"] = router
        scope.update(child)
        await route.handle(scope, receive, send)

    router.middleware_stack = run


# Starlette's error handlers: they answer in the form that `problems` defines. Only the log gets the trace of a defect.


async def on_error(request: Request, exc: Exception) -> Response:
    """Starlette's handler for our own errors."""
    del request
    status = status_of(exc)
    if status == 304:  # the engine's "already in that state" has no body
        return Response(status_code=304)
    headers = dict(exc.headers or {}) if isinstance(exc, RequestError) else {}
    return JsonReply(http_body_of(exc), status_code=status, headers=headers)


async def on_http_error(request: Request, exc: Exception) -> Response:
    """Starlette's handler for its own errors: unknown route, wrong method."""
    del request
    status = exc.status_code if isinstance(exc, HTTPException) else 500
    detail = str(exc.detail) if isinstance(exc, HTTPException) else "internal error"
    headers = dict(exc.headers or {}) if isinstance(exc, HTTPException) else {}
    return JsonReply(http_body(f"http-{status}", detail), status_code=status, headers=headers)


async def on_defect(request: Request, exc: Exception) -> Response:
    """Our own defect: the log gets the trace, the client only learns that there was an error."""
    logger.error("%s %s failed", request.method, request.url.path, exc_info=exc)
    return JsonReply(http_body("internal", "internal error"), status_code=500)


# Helpers for WebSocket routes: refuse before the upgrade, and run two directions of which either ends both.


NORMAL, UNEXPECTED = 1000, 1011  # RFC 6455 section 7.4.1
_REASON_LIMIT = 123  # bytes: RFC 6455 section 5.5


async def refuse(socket: WebSocket, exc: UcidockdError) -> None:
    """Answers the handshake with the error's status instead of 101."""
    await socket.send_denial_response(JSONResponse(http_body_of(exc), status_code=status_of(exc)))


async def run_both(
    socket: WebSocket, inward: Coroutine[Any, Any, None], outward: Coroutine[Any, Any, None]
) -> None:
    """Runs both until one ends, then closes the socket. One of our own errors is sent in a last text frame."""
    # neither side of a console has a defined end: whichever ends first ends the other
    tasks = {asyncio.create_task(inward, name="ws-in"), asyncio.create_task(outward, name="ws-out")}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        # wait for them too, or asyncio would log an exception of the cancelled task later
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    errors = [error for task in done if not task.cancelled() and (error := task.exception()) is not None]
    await _close(socket, errors[0] if errors else None)


async def _close(socket: WebSocket, error: BaseException | None) -> None:
    # the client closed it itself
    if isinstance(error, WebSocketDisconnect):
        return
    if isinstance(error, TimeoutError):  # the client does not read, so it would not read a close frame either
        socket.scope["state"]["connection"].cut()
        return
    if error is not None and not isinstance(error, UcidockdError):
        # raise it, so that the log gets its trace
        raise error
    try:
        async with asyncio.timeout(STALL_S):
            if error is not None:
                await socket.send_json({"type": "error", **body_of(error)["error"]})
                reason = str(error).encode()[:_REASON_LIMIT].decode(errors="ignore")
                await socket.close(UNEXPECTED, reason)
            else:
                await socket.close(NORMAL)
    except (WebSocketDisconnect, RuntimeError):
        logger.debug("the client disconnected before the end")
    except TimeoutError:
        socket.scope["state"]["connection"].cut()


async def send_bytes(socket: WebSocket, data: bytes) -> None:
    """Sends a binary frame. Raises TimeoutError if the client has not read for STALL_S."""
    async with asyncio.timeout(STALL_S):
        await socket.send_bytes(data)


async def send_json(socket: WebSocket, body: dict[str, Any]) -> None:
    """Sends a text frame. Raises TimeoutError like `send_bytes`."""
    async with asyncio.timeout(STALL_S):
        await socket.send_json(body)


async def each_message(
    socket: WebSocket,
    on_bytes: Callable[[bytes], Awaitable[None]],
    on_text: Callable[[str], Awaitable[None]],
) -> None:
    """Calls back for every message until the client closes."""
    # one message at a time: TCP then slows down a client that sends faster than the engine reads, and nothing piles up here
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        if message.get("bytes") is not None:
            await on_bytes(message["bytes"])
        elif message.get("text") is not None:
            await on_text(message["text"])
