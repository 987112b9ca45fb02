# SPDX-License-Identifier: GPL-2.0-or-later
"""Streams to and from the Docker Engine: asyncio, h11 for heads, constant memory, back-pressure in both directions.

docker-py (`engine.client`) makes the unary calls; this module makes those that are long or large: export, archives,
image load and save, build, pull, logs, stats, events, attach and exec. Each request has its own connection, which is
not used again, so a hijacked connection can never carry another client's request. Paths carry no version: the engine
then uses its newest API (Engine API, "Versioning").

Every EngineResponse must be closed (`async with`), which ends the engine's work at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import urlencode

import h11

from agent.engine.body_pump import BrokenSourceError, Passing, Pump
from agent.engine.transport import EngineTls, is_trust_failure
from agent.engine.wire import Wire
from agent.errors import (
    NO_SPACE,
    EngineError,
    EngineInvalidError,
    EngineTlsError,
    EngineUnreachableError,
    NoSpaceError,
    plain_words,
)
from agent.model.addresses import EngineAddress, parse_engine_address
from agent.wire.bodies import error_message
from agent.wire.http_head import (
    LAST,
    BodyError,
    ChunkDecoder,
    Counted,
    Framing,
    UntilClosed,
    encode_chunk,
    natural,
    payload,
)

CONNECT_TIMEOUT_S = 10.0  # to the engine
HEAD_TIMEOUT_S = 60.0  # from the end of a request to the head of its answer
JSON_LIMIT = 16 * 1024 * 1024  # bytes of an answer that is read as a whole
PIECE_LIMIT = 128 * 1024  # bytes that are read from the socket at once
LIVE_PIECE_LIMIT = 16 * 1024  # for streams of which many stay open for long
_HEAD_LIMIT = 64 * 1024
_INTERIM_LIMIT = 8  # 1xx responses before the final one

Body = bytes | AsyncIterable[bytes] | None
Pairs = Iterable[tuple[str, str]]
_T = TypeVar("_T")


class SourceError(Exception):
    """The source of a request body failed, for example because its client disconnected."""


class EngineResponse:
    """A response whose body is still unread."""

    def __init__(
        self,
        wire: Wire,
        *,
        method: str,
        status: int,
        headers: Mapping[str, str],
        rest: bytes,
        sender: asyncio.Task[None] | None,
        address: EngineAddress,
    ) -> None:
        self.status = status
        self.headers = headers  # names in lower case
        self._wire = wire
        self._rest = rest
        self._sender = sender
        self._address = address
        self._on_close: Callable[[], Awaitable[None]] | None = None
        # whatever the head says (RFC 9112 section 6.3)
        self._bodiless = method == "HEAD" or status in (204, 304)

    async def __aenter__(self) -> EngineResponse:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def ends_with(self, action: Callable[[], Awaitable[None]]) -> None:
        """Sets an action to run once when the response is closed."""
        self._on_close = action

    async def close(self) -> None:
        """Ends the request and drops what is still in transit."""
        self._wire.abort()
        if self._sender is not None:
            await _stop(self._sender)
            self._sender = None
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            await on_close()

    @property
    def length(self) -> int | None:
        """The Content-Length in bytes, None if it is missing."""
        text = self.headers.get("content-length", "")
        return natural(text)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body in pieces of up to 128 KiB.

        Raises EngineUnreachableError if the body ends early, SourceError if the source of the request's body failed.
        """
        framing = self._framing()
        rest, self._rest = self._rest, b""
        try:
            while not framing.done:
                piece = rest or await self._wire.read()
                rest = b""
                if not piece:
                    # a connection that ends early must not look like a complete answer
                    if missing := framing.missing():
                        raise self._broken(missing)
                    return
                if found := payload(framing, piece):
                    yield found
        except (OSError, BodyError) as exc:
            raise self._broken(str(exc)) from exc

    def _framing(self) -> Framing:
        """How the end of the body is found (RFC 9112 section 6.3)."""
        if self._bodiless:
            return Counted(0)
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            return ChunkDecoder()
        return UntilClosed() if self.length is None else Counted(self.length)

    @contextlib.contextmanager
    def pump_into(self, sink: socket.socket, *, chunked: bool, stall_s: float) -> Iterator[Pump | None]:
        """A pump that moves the whole body into `sink`; None, with nothing done, if the body has to be read through
        the loop.

        Raises the same errors as `chunks` if the body breaks off.
        """
        lent = self._wire.lend_source()
        if lent is None:
            yield None
            return
        source, first = lent
        # what the loop has already read is sent first, and only once
        first, self._rest = self._rest + first, b""
        with source:
            try:
                yield Pump(source, sink, self._framing(), first=first, chunked=chunked, sink_stall_s=stall_s)
            except BrokenSourceError as exc:
                raise self._broken(str(exc)) from exc

    def _broken(self, why: str) -> EngineUnreachableError:
        return EngineUnreachableError(f"the answer of the engine at {self._address} broke off: {why}")

    async def read(self, limit: int = JSON_LIMIT) -> bytes:
        """The whole body. Raises EngineError if it is longer than `limit` bytes."""
        parts: list[bytes] = []
        size = 0
        async for piece in self.chunks():
            # counted while reading: the stated length may be missing or wrong
            size += len(piece)
            if size > limit:
                raise EngineError(f"the engine's answer is longer than {limit} bytes")
            parts.append(piece)
        return b"".join(parts)

    async def json(self) -> Any:
        """The decoded body. Raises EngineError if it is not JSON, or nested too deeply."""
        body = await self.read()
        try:
            return json.loads(body) if body else None
        except (ValueError, RecursionError) as exc:
            raise EngineInvalidError(f"the engine's answer is not JSON: {exc}") from exc

    async def error(self) -> EngineError:
        """The engine's message, for a status of 400 or more."""
        try:
            body = await self.read(64 * 1024)
        except EngineError:
            body = b""
        message = error_message(body, self.status)
        # the engine calls a full disk a failure of its own, but a user can mend it
        if NO_SPACE in message:
            return NoSpaceError(message)
        return EngineError(message, status=self.status, retryable=self.status >= 500)

    def pipe(self) -> EnginePipe:
        """The connection after an upgrade; closing it is then up to the pipe."""
        rest, self._rest = self._rest, b""
        return EnginePipe(self._wire, rest)

    async def checked(self) -> EngineResponse:
        """Returns itself; closes and raises EngineError if the status is an error."""
        if self.status < 400:
            return self
        try:
            raise await self.error()
        finally:
            await self.close()


class EnginePipe:
    """A hijacked connection: bytes in both directions (Engine API, "Attach to a container", hijacking)."""

    def __init__(self, wire: Wire, rest: bytes) -> None:
        self._wire = wire
        self._rest = rest

    async def read(self) -> bytes:
        """The next bytes, b"" at the end. Raises EngineUnreachableError."""
        if self._rest:
            rest, self._rest = self._rest, b""
            return rest
        try:
            return await self._wire.read()
        except OSError as exc:
            raise EngineUnreachableError(f"the console's connection broke: {plain_words(exc)}") from exc

    async def write(self, data: bytes) -> None:
        """Sends bytes; returns when there is room for more. Raises EngineUnreachableError."""
        try:
            await self._wire.write(data)
        except OSError as exc:
            raise EngineUnreachableError(f"the console's connection broke: {plain_words(exc)}") from exc

    def write_eof(self) -> None:
        """Closes the input; output still comes."""
        self._wire.write_eof()

    def close(self) -> None:
        """Closes both directions."""
        self._wire.abort()


Permit = Callable[[str, str], None]  # called with method and path; raises if the request is not allowed
Around = Callable[[str, str, Pairs], AbstractAsyncContextManager[None]]  # called with method, path and query


class DockerStream:
    """`address` is the engine's, or a Docker host URL; a tcp one is encrypted with `tls`.

    `permit` is called before each request. `around` gets this client and returns a context manager that wraps each
    request until the head of its response has arrived.
    """

    def __init__(
        self,
        address: EngineAddress | str,
        *,
        tls: EngineTls | None = None,
        permit: Permit = lambda _method, _path: None,
        around: Callable[[DockerStream], Around] = lambda _: lambda _method, _path, _query: nullcontext(),
    ) -> None:
        self.address = parse_engine_address(address) if isinstance(address, str) else address
        self.permit = permit
        self._around = around(self)
        self._tls = tls
        # all connections share one buffer: a piece is copied out before the next one is read
        self._buffer = memoryview(bytearray(PIECE_LIMIT))

    def docker_arguments(self) -> list[str]:
        """The arguments that the command `docker` needs to reach this engine."""
        return ["-H", str(self.address), *(self._tls.words() if self._tls is not None else ())]

    async def open(
        self,
        method: str,
        path: str,
        *,
        query: Pairs = (),
        headers: Pairs = (),
        body: Body = None,
        length: int | None = None,
        head_timeout_s: float | None = HEAD_TIMEOUT_S,
        piece_limit: int = PIECE_LIMIT,
        upgrade: bool = False,
    ) -> EngineResponse:
        """Sends a request; returns when the head of the response has arrived, whatever its status.

        A body of unknown `length` is sent in chunks; the response may come before it is sent completely.
        `head_timeout_s` starts at the end of the body. `piece_limit` is the size of a piece in bytes, and of what
        waits for the reader. `upgrade` asks for a raw stream, which `EngineResponse.pipe` returns if the status is
        101. Raises EngineUnreachableError, SourceError if the body's source failed, and what `permit` raises.
        """
        self.permit(method, path)
        # before a prune starts, `around` protects the images that it must not delete
        async with self._around(method, path, query):
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    wire = await self._connected(self._buffer[:piece_limit])
            except (OSError, TimeoutError) as exc:
                raise self._lost(exc, "does not answer") from exc
            try:
                return await self._exchange(
                    wire, method, path, query, headers, body, length, head_timeout_s, upgrade=upgrade
                )
            # on any failure close the connection: no one else refers to it yet
            except OSError as exc:
                wire.abort()
                raise self._lost(exc, "went away") from exc
            except BaseException:
                wire.abort()
                raise

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Pairs = (),
        headers: Pairs = (),
        body: Any = None,
        timeout_s: float = 30.0,
        read: Callable[[Any], _T],
    ) -> _T:
        """A unary call with JSON in both directions; `read` picks the result out of the answer.

        Raises EngineError with the engine's message and status, and also if `read` finds an unexpected answer, which
        is the engine's fault and not a defect of ours.
        """
        data = None if body is None else json.dumps(body).encode()
        if data is not None:
            headers = (*headers, ("content-type", "application/json"))
        try:
            # the limit covers the whole answer: an engine that sends a byte now and then cannot prolong it
            async with asyncio.timeout(timeout_s):
                response = await self.open(method, path, query=query, headers=headers, body=data)
                async with await response.checked():
                    answer = await response.json()
        except TimeoutError as exc:
            raise EngineUnreachableError(
                f"the engine at {self.address} did not answer {method} {path} in {timeout_s:g} s"
            ) from exc
        try:
            return read(answer)
        except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as exc:
            raise EngineInvalidError(f"the engine's answer to {method} {path} is invalid") from exc

    async def hijack(self, path: str, *, query: Pairs = (), body: Any = None) -> EnginePipe:
        """A POST that turns the connection into a pipe. Raises EngineError with the engine's message."""
        response = await self.open(
            "POST",
            path,
            query=query,
            headers=[("content-type", "application/json")],
            body=json.dumps(body or {}).encode(),
            piece_limit=LIVE_PIECE_LIMIT,
            upgrade=True,
        )
        # an error comes as an ordinary answer, with a message for the user
        await response.checked()
        # an engine may ignore the upgrade, answer 200, and stream anyway (Engine API, attach)
        if response.status not in (101, 200):
            await response.close()
            raise EngineError(f"the engine answered {response.status} instead of opening a stream")
        return response.pipe()

    async def _connected(self, buffer: memoryview) -> Wire:
        loop, where = asyncio.get_running_loop(), self.address
        if where.path:
            return (await loop.create_unix_connection(lambda: Wire(buffer), where.path))[1]
        if self._tls is None:
            return (await loop.create_connection(lambda: Wire(buffer), where.host, where.port))[1]
        from agent.engine.wire import TlsWire

        # in a thread, because its files may be on a slow mount
        context = await asyncio.to_thread(self._tls.context)
        made = TlsWire.to(buffer, context, where.host)
        await loop.create_connection(lambda: made, where.host, where.port)
        try:
            await made.handshake()
        except BaseException:
            made.abort()
            raise
        return made

    def _lost(self, exc: Exception, what: str) -> EngineUnreachableError:
        if is_trust_failure(exc):
            return EngineTlsError(f"no TLS with the engine at {self.address}: {exc}")
        if isinstance(exc, TimeoutError):
            return EngineUnreachableError(f"the engine at {self.address} {what}: timed out")
        if isinstance(exc, (FileNotFoundError, ConnectionRefusedError)):
            return EngineUnreachableError(f"no Docker engine at {self.address}; is dockerd running?")
        return EngineUnreachableError(f"the engine at {self.address} {what}: {plain_words(exc)}")

    async def _exchange(
        self,
        wire: Wire,
        method: str,
        path: str,
        query: Pairs,
        headers: Pairs,
        body: Body,
        length: int | None,
        head_timeout_s: float | None,
        *,
        upgrade: bool,
    ) -> EngineResponse:
        http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_LIMIT)
        target = f"{path}?{text}" if (text := urlencode(list(query))) else path
        connection = [("connection", "Upgrade"), ("upgrade", "tcp")] if upgrade else [("connection", "close")]
        # one connection per request: a stream that is given up can only be ended by closing it
        head = [("host", "docker"), ("user-agent", "ucidockd"), *connection, *headers]
        if isinstance(body, bytes):
            head.append(("content-length", str(len(body))))
        elif body is not None:
            head.append(
                ("transfer-encoding", "chunked") if length is None else ("content-length", str(length))
            )
        try:
            start = http.send(h11.Request(method=method, target=target, headers=head))
        except h11.LocalProtocolError as exc:  # for example a header value with a line break
            raise EngineError(f"this cannot be sent to the engine: {exc}", status=400) from exc
        sender: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(
                None if body is not None and not isinstance(body, bytes) else head_timeout_s
            ) as limit:
                with contextlib.suppress(ConnectionError):
                    # the answer may have come before the break: the reader finds out
                    await wire.write(start + body if isinstance(body, bytes) else start)
                if body is not None and not isinstance(body, bytes):
                    sender = asyncio.create_task(_send(wire, body, chunked=length is None))
                    if head_timeout_s is not None:

                        def start_clock(_: asyncio.Task[None]) -> None:
                            with contextlib.suppress(RuntimeError):  # the head has arrived already
                                limit.reschedule(asyncio.get_running_loop().time() + head_timeout_s)

                        # an upload may take hours: the engine's time to answer starts when it has the whole body
                        sender.add_done_callback(start_clock)
                event = await _read_head(wire, http)
        except TimeoutError as exc:
            await _stop(sender)
            raise EngineUnreachableError(
                f"the engine at {self.address} did not answer {method} {path} in {head_timeout_s:g} s"
            ) from exc
        except BaseException:
            await _stop(sender)
            raise
        found = {name.decode("ascii").lower(): value.decode("latin-1") for name, value in event.headers}
        return EngineResponse(
            wire,
            method=method,
            status=event.status_code,
            headers=found,
            rest=http.trailing_data[0],
            sender=sender,
            address=self.address,
        )


def any_answer(answer: Any) -> Any:
    """For callers that accept any answer."""
    return answer


async def _send(wire: Wire, body: AsyncIterable[bytes], *, chunked: bool) -> None:
    """Sends the body. A broken connection is reported by the reader, because an answer may have arrived
    before the break.
    """
    try:
        # a thread moves a large body unchanged: it cannot write chunks
        if isinstance(body, Passing) and not chunked and (sink := await wire.lend_sink()) is not None:
            with sink:
                await body.pass_into(sink)
        async for piece in body:
            if piece:
                await wire.write(encode_chunk(piece) if chunked else piece)
        if chunked:
            await wire.write(LAST)
    except OSError:
        return
    except Exception as exc:  # noqa: BLE001 - whatever the source raises fails this request
        error = exc if isinstance(exc, SourceError | EngineError) else SourceError(str(exc))
        wire.fail(error)


async def _stop(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.wait({task})


async def _read_head(wire: Wire, http: h11.Connection) -> h11.Response | h11.InformationalResponse:
    """The head of the final response, or of a 101."""
    interim = 0
    try:
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                data = await wire.read()
                # for h11 the end is an error of the protocol, but it is dockerd that has ended
                if not data:
                    raise EngineUnreachableError("the engine closed the connection without an answer")
                http.receive_data(data)
            elif isinstance(event, h11.InformationalResponse) and event.status_code != 101:
                interim += 1
                # each interim response would prolong the wait for the final one
                if interim > _INTERIM_LIMIT:
                    raise EngineInvalidError("the engine sends interim responses without end")
            elif isinstance(event, h11.Response | h11.InformationalResponse):
                return event
            else:
                raise EngineInvalidError("the engine's answer has no head")
    except h11.RemoteProtocolError as exc:
        raise EngineInvalidError(f"the engine's answer is not HTTP: {exc}") from exc
