# SPDX-License-Identifier: GPL-2.0-or-later
"""The objects `docker` and `docker.*` on ubus: the Engine API in the envelope that luci-app-dockerman's views expect.

    {"code": <the engine's HTTP status>, "headers": {lower-case name: value}, "body": <JSON value, list of them, or text>}

What goes wrong here has the same envelope with `body.message`. A wrong type or an unknown argument is INVALID_ARGUMENT,
and a session without the right PERMISSION_DENIED. Each call is a task of its own with a deadline; its reply is capped.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import aclosing
from typing import Any

from agent.clients.docker_stream import DockerStream, EngineResponse
from agent.clients.ubus_objects import SESSION, TOO_LARGE, Arguments, BusObject, Method, Reply
from agent.controller.engine_query import checked_query
from agent.controller.engine_versions import EngineVersions
from agent.controller.manual_actions import manual_action
from agent.controller.masking import masked_value
from agent.controller.port import AgentPort, Sessions
from agent.controller.problems import RequestError, status_of
from agent.controller.rules import WRITER
from agent.controller.streams import engine_streams
from agent.controller.ubus.agent import guarded
from agent.controller.ubus.calls import CALLS, TTYD_ARGS, EngineCall, Output, archive_body, exec_body
from agent.controller.ubus.shares import Shares
from agent.controller.ubus.ttyd import Ttyd
from agent.errors import BusError, EngineError, UcidockdError
from agent.wire.docker_frames import FrameDecoder
from agent.wire.media_types import decoded
from agent.wire.ubus_message import MESSAGE_LIMIT

logger = logging.getLogger(__name__)

UNDER_WAY = 32  # of ubus_client.CALLS; the rest is for the agent's own object
UNDER_WAY_OF_READERS = 20  # of UNDER_WAY
UNDER_WAY_OF_A_READER = 8
_BODY_LIMIT = 2 * MESSAGE_LIMIT  # JSON text may be longer than the same as a blob, not by more


def failure(code: int, message: str) -> dict[str, Any]:
    """The envelope of what went wrong on this side."""
    return {"code": code, "headers": {}, "body": {"message": message}}


_OVERSIZE = failure(500, f"{TOO_LARGE}; ask for less, or use the HTTP interface")
_TAR_REFUSED = "a tar archive does not go through ubus; use the HTTP interface"


class DockerObjects:
    """`objects` are to be published; each call asks `engine`."""

    def __init__(self, agent: AgentPort, engine: DockerStream, sessions: Sessions, *, ttyd: Ttyd) -> None:
        self._agent = agent
        self._engine = engine
        self._sessions = sessions
        self._ttyd = ttyd
        self._versions = EngineVersions(engine)
        self._shares = Shares(
            what="calls to the engine are under way",
            room=UNDER_WAY,
            readers=UNDER_WAY_OF_READERS,
            each=UNDER_WAY_OF_A_READER,
            status=503,
        )

    def objects(self) -> list[BusObject]:
        """One per table of `ubus.calls`."""
        made = [
            BusObject(name=name, methods={m: self._method(name, m, call) for m, call in calls.items()})
            for name, calls in CALLS.items()
        ]
        for owned in made:
            if owned.name == "docker.container":
                start = Method(
                    handler=guarded(self._sessions, owned.name, "ttyd_start", self._ttyd.start),
                    args=TTYD_ARGS,
                )
                owned.methods = {**owned.methods, "ttyd_start": start}
        return made

    def _method(self, name: str, method: str, call: EngineCall) -> Method:
        async def handle(args: Arguments) -> Reply:
            return await self._answer(name, method, call, args)

        return Method(
            handler=guarded(self._sessions, name, method, handle), args=call.args, oversize=_OVERSIZE
        )

    async def _answer(self, name: str, method: str, call: EngineCall, args: Arguments) -> Reply:
        # who came without a session is root
        session = args.get(SESSION, "")
        writer = SESSION not in args or await self._may_write(session)
        try:
            self._shares.take(session, writer=writer)
        except RequestError as exc:
            return failure(exc.status, str(exc))
        try:
            async with asyncio.timeout(call.deadline_s):
                return await self._envelope(name, method, call, args, writer=writer)
        except TimeoutError:
            return failure(504, f"the engine did not answer in {call.deadline_s:g} s")
        except UcidockdError as exc:
            if isinstance(exc, BusError):
                raise
            return failure(500 if status_of(exc) == 503 else status_of(exc), str(exc))
        finally:
            self._shares.give_back(session, writer=writer)

    async def _envelope(
        self, name: str, method: str, call: EngineCall, args: Arguments, *, writer: bool
    ) -> dict[str, Any]:
        target = call.target(args)
        path = call.path.replace("{id}", target)
        version = await self._versions.wanted(self._agent.api_version())
        # a reader gets no secrets
        query, headers = checked_query(call.path, call.pairs(args), writer=writer), call.headers(args)
        if call.output is Output.LOGS:
            return await self._logs(target, query)
        body, content_type = _request_body(call, args)
        if body is not None:
            headers = [*headers, ("content-type", content_type)]
        if action := manual_action(name, method, query):
            await self._agent.manual(target, action)
        try:
            response = await self._engine.open(
                call.verb,
                f"{version}{path}",
                query=query,
                headers=headers,
                body=body,
                head_timeout_s=call.deadline_s,
            )
        except UcidockdError:
            if action:
                await self._agent.manual_failed(target)
            raise
        async with response:
            if action and response.status >= 400:
                await self._agent.manual_failed(target)
            made = await _read(call, args, response)
        return made if writer else {**made, "body": await masked_value(made["body"])}

    async def _may_write(self, session: str) -> bool:
        return await self._sessions.allowed(session, WRITER.object, WRITER.method)

    async def _logs(self, container: str, query: list[tuple[str, str]]) -> dict[str, Any]:
        parts, size = [], 0
        async with aclosing(engine_streams.logs(self._engine, container, query)) as output:
            async for _, piece in output:
                parts.append(piece)
                size += len(piece)
                if size > MESSAGE_LIMIT:
                    return _OVERSIZE
        text = b"".join(parts).decode("utf-8", "replace")
        return {"code": 200, "headers": {"content-type": "text/plain; charset=utf-8"}, "body": text}


def _request_body(call: EngineCall, args: Arguments) -> tuple[bytes | None, str]:
    """The body and its type. Raises RequestError."""
    if call.body:
        return json.dumps(args.get(call.body, {})).encode(), "application/json"
    if call.output is Output.EXEC:
        return json.dumps(exec_body(args.get("body", ""))).encode(), "application/json"
    if call.verb == "PUT":
        return archive_body(args.get("body", "")), "application/x-tar"
    return None, ""


async def _read(call: EngineCall, args: Arguments, response: EngineResponse) -> dict[str, Any]:
    """The envelope of an answer. Raises EngineError."""
    made: dict[str, Any] = {"code": response.status, "headers": dict(response.headers)}
    if response.status < 400 and call.output is Output.TAR:
        raise RequestError(_TAR_REFUSED, status=501)
    try:
        data = await response.read(_BODY_LIMIT)
    except EngineError as exc:
        if exc.retryable:
            raise
        return _OVERSIZE
    if response.status < 400 and call.output is Output.EXEC:
        made["body"] = _output(data, tty=bool(exec_body(args.get("body", "")).get("Tty")))
    else:
        made["body"] = decoded(response.headers.get("content-type", ""), data)
    return made


def _output(data: bytes, *, tty: bool) -> str:
    if not tty:
        data = b"".join(piece for _, piece in engine_streams.decoded(FrameDecoder(), data))
    return data.decode("utf-8", "replace")
