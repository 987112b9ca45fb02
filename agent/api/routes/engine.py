# SPDX-License-Identifier: GPL-2.0-or-later
"""Routes: the Engine API for browsers, `/docker/...` and `/docker/v1.NN/...`, from the table in `engine_calls`.

Nothing of the client's request line reaches the engine: the path is rebuilt from the table's pattern and checked parts.
Headers pass by an allow-list in both directions. Bodies are streamed in constant memory. The engine's status and message
are passed on. If the engine turns a connection into a raw stream (attach, exec), so do we: `routes.consoles`.
"""

from __future__ import annotations

import asyncio
import functools
import json
import re
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import ExitStack
from typing import Any

from starlette.convertors import Convertor, register_url_convertor
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from agent.api.access.access import may_write
from agent.api.archives import HEAD_TIMEOUT_S, safe_archive
from agent.api.engine_calls import BUILDKIT_CALLS, ENGINE_CALLS, EngineCall
from agent.api.engine_requests import (
    READER_LIMIT,
    EngineVersions,
    carry_out,
    checked_query,
    for_readers,
    manual_action,
    masked_json,
)
from agent.api.http.replies import ClientGoneError, EngineReply, Inbox, StreamReply
from agent.api.http.routing import refuse
from agent.api.port import AgentPort
from agent.api.problems import RequestError, checked_container, checked_id, checked_image, checked_network
from agent.api.routes.consoles import RawReply, attach, starts_terminal, wanted_raw
from agent.api.rules import WEBSOCKET, Need, Rule
from agent.api.streams.consoles import Consoles
from agent.api.streams.engine_streams import has_terminal, json_lines
from agent.engine.stream import LIVE_PIECE_LIMIT, Body, DockerStream, EngineResponse
from agent.errors import EngineError, UcidockdError
from agent.wire.bodies import JSON_LINES
from agent.wire.http_head import natural

PREFIX = "/docker"
VERSION = "{version:engine_version}"  # in a rule's path: `/v1.NN`, or nothing
_CHECKS = {"image": checked_image, "network": checked_network}
# places in a path that may hold slashes: names of images, networks and linked containers
_WITH_SLASHES = re.compile(r"\{(image|network)\}|(?<=^/containers/)\{(id)\}")
# the engine's own messages for an object that does not exist (moby, errdefs): clients look for some of them
_NOT_THERE = {
    "containers": "No such container: {}",
    "images": "No such image: {}: invalid reference format",
    "distribution": "No such image: {}: invalid reference format",
    "networks": "network {} not found",
    "volumes": "get {}: no such volume",
    "exec": "No such exec instance: {}",
}
_SHOWN_LIMIT = 256  # characters of a name that an error message quotes
_PART = re.compile(r"\{(\w+)\}")
# passed on to the engine; cookies, origins and our own authorization are not
_REQUEST_HEADERS = ("content-type", "x-registry-auth", "x-registry-config")
_RESPONSE_HEADERS = (
    "api-version",
    "content-length",
    "docker-experimental",
    "ostype",
    "swarm",
    "x-docker-container-path-stat",
)
# old engines guess the content type of logs from the output: HTML must not be shown as a page of our origin
_TYPES = re.compile(
    r"(application/(json|x-tar|x-json-stream|vnd\.docker\.[a-z-]+)|text/plain|"
    + "|".join(JSON_LINES)
    + r")(;.*)?"
)


class _VersionPart(Convertor[str]):
    """Matches `/v` and a digit only, because `/volumes` is a part of the path itself."""

    regex = r"(?:/v[0-9][^/]*)?"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("engine_version", _VersionPart())


class EngineRoutes:
    """Reports manual actions to `agent`. Raw streams use the slots of `consoles`."""

    def __init__(self, agent: AgentPort, engine: DockerStream, consoles: Consoles) -> None:
        self._agent = agent
        self._engine = engine
        self._consoles = consoles
        self._versions = EngineVersions(engine)

    def rules(self) -> list[Rule]:
        return [self._rule(call) for call in ENGINE_CALLS]

    def refusals(self) -> list[Rule]:
        """Routes that only answer what to use instead."""
        return [self._rule(call) for call in BUILDKIT_CALLS]

    def _rule(self, call: EngineCall) -> Rule:
        # one row of the table makes one route, so HTTP, ubus and the access list cannot grant different rights
        handler = self._attach if call.verb == WEBSOCKET else functools.partial(self._pass, call)
        return Rule(
            method=call.verb,
            path=PREFIX
            + VERSION
            + _WITH_SLASHES.sub(lambda found: f"{{{found[1] or found[2]}:path}}", call.path),
            grant=call.grant,
            handler=handler,
            summary=call.summary,
            body="raw" if call.verb in ("POST", "PUT") else "none",
            answer="The engine's answer; its API reference has the details",
        )

    async def _pass(self, call: EngineCall, request: Request) -> Response:
        if call in BUILDKIT_CALLS:
            raise RequestError(
                "BuildKit's sessions are not supported: build with DOCKER_BUILDKIT=0, by POST /v1/builds, or on the "
                "router's own Docker socket",
                status=501,
                headers={"connection": "close"},
            )
        if "upgrade" in request.headers:
            return await self._raw(call, request)
        path = await self._path(call.path, request)
        # check for a writer only if it makes a difference
        writer = call.need is Need.WRITE or await may_write(request)
        query = checked_query(call.path, request.query_params.multi_items(), writer=writer)
        container = str(request.path_params.get("id", ""))
        action = await manual_action(self._engine, call, query, container)
        # without a body from the client send none to the engine: it refuses a start with a chunked body
        has_body = "transfer-encoding" in request.headers or bool(_length(request.headers))
        inbox = Inbox(request) if has_body and request.method in ("POST", "PUT") else None
        body: Body = inbox
        if call.takes_tar and inbox is not None:
            body = await safe_archive(self._engine, inbox)
        # this sends nothing yet: `carry_out` and `_while_there` wrap the sending
        opening = self._engine.open(
            call.verb,
            path,
            query=query,
            headers=_passed_on(request),
            body=b"" if body is None else body,
            length=_length(request.headers),
            head_timeout_s=None if call.endless or call.manual else HEAD_TIMEOUT_S,
        )
        if not action:  # a manual action is carried out even if its client disconnects
            opening = _while_there(request, inbox, opening)
        response = await carry_out(self._agent, action, container, opening)
        if call.masked and not writer:
            return await _masked(response, lines=call.endless)
        return EngineReply(
            response,
            status=response.status,
            headers=_shown(response),
            inbox=inbox,
            large=call.large,
        )

    async def _raw(self, call: EngineCall, request: Request) -> Response:
        """Turns the connection into a raw stream to and from the engine, or passes on another answer of the engine."""
        body = await wanted_raw(call, request)
        path = await self._path(call.path, request)
        query = checked_query(call.path, request.query_params.multi_items(), writer=True)
        with ExitStack() as stack:
            # before the engine is asked, because its 101 cannot be undone
            stack.enter_context(self._consoles.place())
            response = await self._engine.open(
                call.verb,
                path,
                query=query,
                headers=_passed_on(request),
                body=body,
                piece_limit=LIVE_PIECE_LIMIT,
                upgrade=True,
            )
            if response.status != 101:
                return EngineReply(response, status=response.status, headers=_shown(response))
            # a client cannot reconnect to a shell whose terminal is lost, and the engine would let it run for ever
            hang_up = functools.partial(self._consoles.hang_up, str(request.path_params["id"]))
            return RawReply(response, stack.pop_all(), hang_up if starts_terminal(call, body) else None)

    async def _path(self, pattern: str, connection: HTTPConnection) -> str:
        parts = connection.path_params
        asked = str(parts["version"]).removeprefix("/v")
        version = await self._versions.prefix(asked) if asked else ""

        # the engine also knows a linked container as `web/db`; ids of other objects contain no slash
        check = checked_container if pattern.startswith("/containers/") else checked_id

        def checked(found: re.Match[str]) -> str:
            text = str(parts[found[1]])
            try:
                return check(text) if found[1] == "id" else _CHECKS[found[1]](text)
            except RequestError as exc:  # text that cannot be a name is not the name of anything
                kind = pattern.split("/")[1]
                message = _NOT_THERE.get(kind, f"no such object in {kind}: {{}}").format(text[:_SHOWN_LIMIT])
                raise RequestError(message, status=404) from exc

        return version + _PART.sub(checked, pattern)

    async def _attach(self, socket: WebSocket) -> None:
        try:
            path = await self._path("/containers/{id}/attach", socket)
            query = checked_query(path, socket.query_params.multi_items(), writer=True)
            # before the socket is accepted, while an error can still be an HTTP status
            tty = await has_terminal(self._engine, checked_container(str(socket.path_params["id"])))
            pipe = await self._engine.hijack(path, query=query)
        except UcidockdError as exc:
            await refuse(socket, exc)
            return
        await attach(socket, pipe, tty=tty)


async def _while_there(
    request: Request, inbox: Inbox | None, opening: Coroutine[Any, Any, EngineResponse]
) -> EngineResponse:
    """The response, unless the client disconnects first, which ends the engine's work. Raises ClientGoneError then."""
    # the engine has no deadline for builds or long polls, so only this ends them when their client has left
    opened = asyncio.create_task(opening, name="engine-request")
    gone = asyncio.create_task(inbox.gone() if inbox is not None else _left(request), name="client-gone")
    try:
        await asyncio.wait({opened, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not opened.done():
            raise ClientGoneError("the client disconnected before the engine answered")
        return opened.result()
    finally:
        for task in (opened, gone):
            task.cancel()
        # wait for both: `gone` must not take a message that another reader waits for
        await asyncio.wait({opened, gone})


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _passed_on(request: Request) -> list[tuple[str, str]]:
    return [(name, request.headers[name]) for name in _REQUEST_HEADERS if name in request.headers]


def _length(headers: Headers) -> int | None:
    return natural(headers.get("content-length", ""))


def _shown(response: EngineResponse) -> Mapping[str, str]:
    headers = {name: response.headers[name] for name in _RESPONSE_HEADERS if name in response.headers}
    kind = response.headers.get("content-type", "")
    if "builder-version" in response.headers:
        headers["builder-version"] = (
            "1"  # BuildKit would need /session: with 1 the command `docker build` uses the classic builder
        )
    # HTML shown in our origin could act with the user's session
    if kind or response.status not in (204, 304):
        headers["content-type"] = kind if _TYPES.fullmatch(kind) else "application/octet-stream"
    return headers


async def _masked(response: EngineResponse, *, lines: bool) -> Response:
    """The answer without secrets, for a reader. `lines` means an endless answer, one JSON object per line."""
    # an error is a single JSON object, even if the answer would have been a stream
    if lines and response.status < 400:
        headers = {name: value for name, value in _shown(response).items() if name != "content-length"}
        return StreamReply(_masked_lines(response), headers=headers)
    # the whole answer is needed in memory: only a complete object shows what is secret
    async with response:
        try:
            body = await response.read(READER_LIMIT)
        except EngineError as exc:
            # retryable: the engine disconnected; otherwise the answer is larger than the limit
            if exc.retryable:
                raise
            raise RequestError(
                f"the answer is larger than {READER_LIMIT // 1024**2} MiB: only a session that may change things gets it",
                status=502,
            ) from exc
    return Response(await masked_json(body), status_code=response.status, media_type="application/json")


async def _masked_lines(response: EngineResponse) -> AsyncGenerator[bytes, None]:
    async with response:
        async for item in json_lines(response.chunks()):
            yield json.dumps(for_readers(item)).encode() + b"\n"
