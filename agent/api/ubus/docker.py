# SPDX-License-Identifier: GPL-2.0-or-later
"""The objects `docker` and `docker.*` on ubus: the Engine API in the envelope that luci-app-dockerman's views expect.

    {"code": <the engine's HTTP status>, "headers": {lower-case name: value}, "body": <JSON value, list of them, or text>}

What goes wrong here has the same envelope with `body.message`. A wrong type or an unknown argument is INVALID_ARGUMENT,
and a session without the right PERMISSION_DENIED. Each call is a task of its own with a deadline; its reply is capped.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import Any

from agent.api.engine_calls import BUS_CALLS, EngineCall, Output
from agent.api.engine_query import checked_query
from agent.api.engine_versions import EngineVersions
from agent.api.manual_actions import carry_out
from agent.api.masking import masked_value
from agent.api.port import AgentPort, Sessions
from agent.api.problems import RequestError, status_of
from agent.api.rules import WRITER
from agent.api.streams import engine_streams
from agent.api.ubus import calls
from agent.api.ubus.agent import guarded
from agent.api.ubus.shares import Shares
from agent.api.ubus.ttyd import Ttyd
from agent.engine.stream import DockerStream, EngineResponse
from agent.errors import BusError, EngineError, UcidockdError
from agent.ubus.objects import SESSION, TOO_LARGE, Arguments, BusObject, Method, Reply
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
        """One per object of the table in `engine_calls`."""
        made = [
            BusObject(name=name, methods={call.method: self._method(call) for call in rows.values()})
            for name, rows in BUS_CALLS.items()
        ]
        for owned in made:
            if owned.name == "docker.container":
                start = Method(
                    handler=guarded(self._sessions, owned.name, "ttyd_start", self._ttyd.start),
                    args=calls.TTYD_ARGS,
                )
                owned.methods = {**owned.methods, "ttyd_start": start}
        return made

    def _method(self, call: EngineCall) -> Method:
        async def handle(args: Arguments) -> Reply:
            return await self._answer(call, args)

        return Method(
            handler=guarded(self._sessions, call.object, call.method, handle),
            args=calls.signature(call),
            oversize=_OVERSIZE,
        )

    async def _answer(self, call: EngineCall, args: Arguments) -> Reply:
        # who came without a session is root
        session = args.get(SESSION, "")
        writer = SESSION not in args or await self._may_write(session)
        try:
            self._shares.take(session, writer=writer)
        except RequestError as exc:
            return failure(exc.status, str(exc))
        try:
            async with asyncio.timeout(calls.deadline_s(call)):
                return await self._envelope(call, args, writer=writer)
        except TimeoutError:
            return failure(504, f"the engine did not answer in {calls.deadline_s(call):g} s")
        except UcidockdError as exc:
            if isinstance(exc, BusError):
                raise
            return failure(500 if status_of(exc) == 503 else status_of(exc), str(exc))
        finally:
            self._shares.give_back(session, writer=writer)

    async def _envelope(self, call: EngineCall, args: Arguments, *, writer: bool) -> dict[str, Any]:
        target = calls.target(call, args)
        version = await self._versions.wanted(self._agent.api_version())
        # a reader gets no secrets
        query = checked_query(call.path, calls.query(call, args), writer=writer)
        headers = calls.headers(args)
        if call.output is Output.LOGS:
            return await self._logs(target, query)
        body, content_type = calls.body(call, args)
        if body is not None:
            headers = [*headers, ("content-type", content_type)]
        opening = self._engine.open(
            call.verb,
            f"{version}{calls.path_of(call, target)}",
            query=query,
            headers=headers,
            body=body,
            head_timeout_s=calls.deadline_s(call),
        )
        async with await carry_out(self._agent, call.action(query), target, opening) as response:
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
        made["body"] = _output(data, tty=bool(calls.exec_body(args.get("body", "")).get("Tty")))
    else:
        made["body"] = decoded(response.headers.get("content-type", ""), data)
    return made


def _output(data: bytes, *, tty: bool) -> str:
    if not tty:
        data = b"".join(piece for _, piece in engine_streams.decoded(FrameDecoder(), data))
    return data.decode("utf-8", "replace")
