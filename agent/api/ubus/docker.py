# SPDX-License-Identifier: GPL-2.0-or-later
"""The objects `docker` and `docker.*` on ubus: the Engine API in the envelope that luci-app-dockerman's views expect.

 {"code": <the engine's HTTP status>, "headers": {lower-case name: value}, "body": <JSON value, list of them, or text>}

Our own errors have the same envelope with `body.message`. A wrong type or an unknown argument gives INVALID_ARGUMENT, and a
session without the right PERMISSION_DENIED. Each call runs as a task with a deadline, and the size of its reply is limited.

`docker.container ttyd_start` opens a terminal in a container with ttyd, if that is installed. ttyd asks for no password:
the first client that connects gets a shell in the container. Therefore it listens on loopback only, for one client. Each
container gets at most one ttyd of ours, and ttyd processes of others are left alone. Our own console needs none of this
(stream objects, or a WebSocket).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import logging
import re
import shlex
import shutil
from asyncio.subprocess import DEVNULL, Process
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from agent.api.engine_calls import BUS_CALLS, EngineCall, Pairs, ReplyKind
from agent.api.engine_requests import EngineVersions, carry_out, checked_query, manual_action, masked_value
from agent.api.port import AgentPort, Sessions
from agent.api.problems import RequestError, checked_id, checked_image, status_of
from agent.api.rules import WRITER
from agent.api.streams import engine_streams
from agent.api.ubus.agent import guarded
from agent.engine.stream import DockerStream, EngineResponse
from agent.errors import BusError, EngineError, UcidockdError
from agent.ubus.client import INTEGER, SESSION, STRING, TABLE, TOO_LARGE, Arguments, BusObject, Method, Reply
from agent.wire.blobmsg import Type
from agent.wire.bodies import FrameDecoder, decoded, is_plain_tar
from agent.wire.ubus_message import MESSAGE_LIMIT

logger = logging.getLogger(__name__)

# Turns the arguments of a `docker*` method on ubus into its Engine API call: path, query, headers and body.
#
# Names, arguments and their order are those of luci-app-dockerman, whose views run on them unmodified. All text that
# goes into a request is checked: ids, names and headers here, the query like that of `/docker/`.


READ_S = 30.0  # for a call that only reads
CHANGE_S = 600.0  # long, because a change is awaited to its end: otherwise its outcome would be unknown
_EXEC = re.compile(r"[0-9a-f]{64}")
# that a caller may set: the login of a registry
_HEADERS = {"x-registry-auth": re.compile(r"[A-Za-z0-9+/=_-]{0,16384}")}
_PLACEHOLDER = re.compile(r"\{\w+\}")  # a path with one needs an id or a name
_BODIES = ("body", "opts", "spec")  # arguments that become the request's JSON body

TTYD_ARGS = {"id": STRING, "cmd": STRING, "port": INTEGER, "uid": STRING}


def deadline_s(call: EngineCall) -> float:
    """How long a caller may wait for the answer, in seconds."""
    return READ_S if call.verb in ("GET", "HEAD") else CHANGE_S


def signature(call: EngineCall) -> dict[str, Type]:
    """The method's arguments with their types."""
    # JSON cannot carry bytes, so an archive is base64 text; the options of an exec are JSON text, as dockerman's
    # views send them
    all_text = call.takes_tar or call.output is ReplyKind.EXEC
    return {
        name: STRING if name in ("id", "name") or (all_text and name != "query") else TABLE
        for name in (call.args or "").split()
    }


def call_target(call: EngineCall, args: Mapping[str, Any]) -> str:
    """The checked id or name; "" if the call has none. Raises RequestError."""
    if not _PLACEHOLDER.search(call.path):
        return ""
    text = args.get("id", args.get("name"))
    if not text:
        raise RequestError("expected an id or a name")
    if call.object == "docker.exec":
        if not _EXEC.fullmatch(text):
            raise RequestError("the id of an exec is 64 hexadecimal digits")
        return str(text)
    return checked_image(text) if "{image}" in call.path else checked_id(text)


def path_of(call: EngineCall, name: str) -> str:
    """The path of the request for a checked `name`."""
    return _PLACEHOLDER.sub(lambda _: name, call.path)


def call_query(call: EngineCall, args: Mapping[str, Any]) -> Pairs:
    """The query before `checked_query`. Raises RequestError."""
    pairs = [pair for name, value in args.get("query", {}).items() for pair in _pairs(name, value)]
    return pairs if call.bus_query is None else call.bus_query(pairs)


def call_headers(args: Mapping[str, Any]) -> Pairs:
    """The request's headers. Raises RequestError, without the value, which is a secret."""
    found: Pairs = []
    for name, value in args.get("headers", {}).items():
        form = _HEADERS.get(name.lower())
        if form is None:
            raise RequestError(f"header {name[:64]!r}: expected one of {', '.join(_HEADERS)}")
        if not isinstance(value, str) or not form.fullmatch(value):
            raise RequestError(f"header {name[:64]}: expected base64")
        found.append((name.lower(), value))
    return found


def call_body(call: EngineCall, args: Mapping[str, Any]) -> tuple[bytes | None, str]:
    """The request's body and its content type; None for no body. Raises RequestError."""
    if call.takes_tar:
        try:
            data = base64.b64decode(args.get("body", ""), validate=True)
        except (binascii.Error, ValueError) as exc:
            raise RequestError("body: expected a tar archive in base64") from exc
        # a compressed archive of a few KiB may unpack to gigabytes, on the router's flash
        if not is_plain_tar(data):
            raise RequestError(
                "body: expected a plain tar archive; compressed archives are not accepted", status=415
            )
        return data, "application/x-tar"
    if call.output is ReplyKind.EXEC:
        return json.dumps(exec_body(args.get("body", ""))).encode(), "application/json"
    for name in _BODIES:
        if name in signature(call):
            return json.dumps(args.get(name, {})).encode(), "application/json"
    return None, ""


def _pairs(name: str, value: Any) -> Pairs:
    items = value if isinstance(value, list) else [value]
    return [(name, _text(item)) for item in items if item is not None]


def _text(value: Any) -> str:
    """The form that the engine expects in a query: filters are JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"))


def exec_body(text: str) -> dict[str, Any]:
    """The options for the start of an exec. Raises RequestError."""
    try:
        value = json.loads(text) if text else {}
    except (ValueError, RecursionError) as exc:
        raise RequestError(f"body: expected JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise RequestError("body: expected a JSON object")
    return value


# Slots that writers and readers share. Readers can never take all of them, however many sessions they open.


@dataclass(slots=True, kw_only=True)
class SlotPool:
    """`room` slots for `what`. A reader's session may take `each` of them, all readers together `readers`; writers
    may take any free slot.
    """

    what: str
    room: int
    readers: int
    each: int
    status: int = 429
    _open: Counter[str] = field(default_factory=Counter)  # slots of readers, by session
    _taken: int = 0

    def take(self, session: str, *, writer: bool) -> None:
        """Takes a slot; return it with `give_back`. Raises RequestError."""
        if self._taken >= self.room:
            raise RequestError(f"{self.room} {self.what}; try again", status=self.status)
        # writers have no limit of their own, since they can stop everything anyway; readers must not block a writer
        if not writer:
            if self._open[session] >= self.each:
                raise RequestError(f"{self.each} {self.what} for this session; try again", status=self.status)
            if self._open.total() >= self.readers:
                raise RequestError(
                    f"{self.readers} {self.what} for sessions that may only read; try again",
                    status=self.status,
                )
            self._open[session] += 1
        self._taken += 1

    def give_back(self, session: str, *, writer: bool) -> None:
        """Returns the slot that `take` took."""
        self._taken -= 1
        if not writer:
            self._open[session] -= 1
            self._open = +self._open


UNDER_WAY = 32  # out of ubus_client.CALLS; the rest is for the agent's own object
UNDER_WAY_OF_READERS = 20  # out of UNDER_WAY
UNDER_WAY_OF_A_READER = 8
# JSON text may be longer than the same value as a blob, but not twice as long
_BODY_LIMIT = 2 * MESSAGE_LIMIT


def failure(code: int, message: str) -> dict[str, Any]:
    """The envelope of an error on our side."""
    return {"code": code, "headers": {}, "body": {"message": message}}


_OVERSIZE = failure(500, f"{TOO_LARGE}; ask for less, or use the HTTP interface")
_TAR_REFUSED = "ubus cannot carry a tar archive; use the HTTP interface"


class DockerObjects:
    """`objects` are to be published on ubus; each call becomes a request to `engine`."""

    def __init__(self, agent: AgentPort, engine: DockerStream, sessions: Sessions, *, ttyd: Ttyd) -> None:
        self._agent = agent
        self._engine = engine
        self._sessions = sessions
        self._ttyd = ttyd
        self._versions = EngineVersions(engine)
        self._shares = SlotPool(
            what="calls to the engine are in progress",
            room=UNDER_WAY,
            readers=UNDER_WAY_OF_READERS,
            each=UNDER_WAY_OF_A_READER,
            status=503,
        )

    def objects(self) -> list[BusObject]:
        """One bus object for each object in the table `engine_calls`."""
        # not in the table, because it starts a program instead of calling the Engine API; only dockerman uses it
        start = guarded(self._sessions, "docker.container", "ttyd_start", self._ttyd.start)
        more = {"docker.container": {"ttyd_start": Method(handler=start, args=TTYD_ARGS)}}
        return [
            BusObject(
                name=name,
                methods={call.method: self._method(call) for call in rows.values()} | more.get(name, {}),
            )
            for name, rows in BUS_CALLS.items()
        ]

    def _method(self, call: EngineCall) -> Method:
        async def handle(args: Arguments) -> Reply:
            return await self._answer(call, args)

        return Method(
            handler=guarded(self._sessions, call.object, call.method, handle),
            args=signature(call),
            oversize=_OVERSIZE,
        )

    async def _answer(self, call: EngineCall, args: Arguments) -> Reply:
        # a caller without a session is root
        session = args.get(SESSION, "")
        writer = SESSION not in args or await self._may_write(session)
        try:
            # take the slot first: a refused call must cost the engine nothing
            self._shares.take(session, writer=writer)
        except RequestError as exc:
            return failure(exc.status, str(exc))
        try:
            # with a deadline, because a call on ubus occupies its slot until it is answered
            async with asyncio.timeout(deadline_s(call)):
                target = call_target(call, args)
                version = await self._versions.wanted(self._agent.api_version())
                # the query of a reader is limited, and its answer masked below
                query = checked_query(call.path, call_query(call, args), writer=writer)
                headers = call_headers(args)
                if call.output is ReplyKind.LOGS:
                    return await self._logs(target, query)
                body, content_type = call_body(call, args)
                if body is not None:
                    headers = [*headers, ("content-type", content_type)]
                action = await manual_action(self._engine, call, query, target)
                opening = self._engine.open(
                    call.verb,
                    f"{version}{path_of(call, target)}",
                    query=query,
                    headers=headers,
                    body=body,
                    head_timeout_s=deadline_s(call),
                )
                async with await carry_out(self._agent, action, target, opening) as response:
                    made = await _read(call, args, response)
                return made if writer else {**made, "body": await masked_value(made["body"])}
        except TimeoutError:
            return failure(504, f"the engine did not answer in {deadline_s(call):g} s")
        except UcidockdError as exc:
            if isinstance(exc, BusError):
                raise
            return failure(500 if status_of(exc) == 503 else status_of(exc), str(exc))
        finally:
            self._shares.give_back(session, writer=writer)

    async def _may_write(self, session: str) -> bool:
        return await self._sessions.allowed(session, WRITER.object, WRITER.method)

    async def _logs(self, container: str, query: list[tuple[str, str]]) -> dict[str, Any]:
        parts, size = [], 0
        async with aclosing(engine_streams.logs(self._engine, container, query)) as output:
            async for _, piece in output:
                parts.append(piece)
                size += len(piece)
                # checked while reading: a log may be gigabytes
                if size > MESSAGE_LIMIT:
                    return _OVERSIZE
        text = b"".join(parts).decode("utf-8", "replace")
        return {"code": 200, "headers": {"content-type": "text/plain; charset=utf-8"}, "body": text}


async def _read(call: EngineCall, args: Arguments, response: EngineResponse) -> dict[str, Any]:
    """The envelope of an answer. Raises EngineError."""
    made: dict[str, Any] = {"code": response.status, "headers": dict(response.headers)}
    # JSON cannot carry bytes, and an archive in base64 would not fit
    if response.status < 400 and call.output is ReplyKind.TAR:
        raise RequestError(_TAR_REFUSED, status=501)
    try:
        data = await response.read(_BODY_LIMIT)
    except EngineError as exc:
        if exc.retryable:
            raise
        return _OVERSIZE
    if response.status < 400 and call.output is ReplyKind.EXEC:
        made["body"] = _output(data, tty=bool(exec_body(args.get("body", "")).get("Tty")))
    else:
        made["body"] = decoded(response.headers.get("content-type", ""), data)
    return made


def _output(data: bytes, *, tty: bool) -> str:
    if not tty:
        data = b"".join(piece for _, piece in engine_streams.decoded(FrameDecoder(), data))
    return data.decode("utf-8", "replace")


PORT = 7682  # as in luci-app-dockerman
_DEVICE = "lo"
_LIMIT = 8  # terminals at a time: each is a process on the router
_START_S = 0.5  # by then ttyd has either failed or listens
_STOP_S = 1.0
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,63}")  # a name, or uid:gid; never an option of docker


class Ttyd:
    """Starts ttyd; `close` ends what it started. `engine` holds the arguments that point `docker` at the engine."""

    def __init__(self, engine: Sequence[str]) -> None:
        self._engine = engine
        self._running: dict[str, Process] = {}  # container -> its ttyd

    async def start(self, args: Arguments) -> Reply:
        """The ubus method: {"status": "ttyd started"} or {"error": reason}."""
        program, docker = shutil.which("ttyd"), shutil.which("docker")
        if program is None or docker is None:
            return {"error": f"{'docker' if program else 'ttyd'} is not installed"}
        try:
            container = checked_id(args.get("id", ""))
        except RequestError:
            return {"error": "Invalid container ID"}
        port = args.get("port", PORT)
        if not 1 <= port <= 65535:
            return {"error": "Invalid port number"}
        try:
            words = _exec_words(container, args)
        except RequestError as exc:
            return {"error": str(exc)}
        # `--once`: ttyd ends with its client and frees the port
        listen = [program, "-q", "--once", "--writable", "-i", _DEVICE, "-p", str(port)]
        return await self._start(container, [*listen, docker, *self._engine, "exec", "-it", *words])

    async def _start(self, container: str, argv: list[str]) -> Reply:
        self._running = {c: p for c, p in self._running.items() if p.returncode is None}
        # if the user lost the page, the old shell would still occupy the port
        if container in self._running:
            await _end(self._running.pop(container))
        if len(self._running) >= _LIMIT:
            return {"error": f"{_LIMIT} terminals are open"}
        try:
            process = await asyncio.create_subprocess_exec(
                *argv, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL
            )
        except OSError as exc:
            return {"error": f"ttyd does not start: {exc.strerror}"}
        self._running[container] = process
        try:
            # ttyd does not report that it is ready, but exits at once if it cannot listen
            async with asyncio.timeout(_START_S):
                code = await process.wait()
        except TimeoutError:
            logger.info("a terminal for container %s on the loopback device", container)
            return {"status": "ttyd started"}
        return {"error": f"ttyd ended at once with code {code}; is the port in use?"}

    async def close(self) -> None:
        """Ends the processes that still run."""
        await asyncio.gather(*map(_end, self._running.values()))
        self._running.clear()


def _exec_words(container: str, args: Arguments) -> list[str]:
    """The arguments after `docker exec -it`; no shell interprets them. Raises RequestError."""
    user, text = args.get("uid", ""), args.get("cmd") or "/bin/sh"
    if user and not _USER.fullmatch(user):
        raise RequestError("Invalid user")
    try:
        words = shlex.split(text)
    except ValueError as exc:
        raise RequestError(f"Invalid command: {exc}") from exc
    if not words or "\0" in text:
        raise RequestError("Invalid command")
    return [*([f"--user={user}"] if user else []), container, *words]


async def _end(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):  # the process may end by itself meanwhile
        process.terminate()
        try:
            async with asyncio.timeout(_STOP_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
