# SPDX-License-Identifier: GPL-2.0-or-later
"""Streams to and from a client: request bodies as they arrive, and responses that end with their source.

If the client disconnects, the source ends at once. If the source breaks, the client's connection is cut before the
last chunk, so a broken stream never looks complete.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from socket import socket
from types import TracebackType
from typing import Any, ClassVar, Protocol
from urllib.parse import quote

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from agent.api.problems import RequestError, body_of
from agent.engine.body_pump import Note
from agent.engine.stream import EngineResponse, SourceError
from agent.errors import EngineError, UcidockdError
from agent.wire.http_head import natural

logger = logging.getLogger(__name__)

# Server-sent events (WHATWG HTML, 9.2): format, heartbeats, and resuming.


HEARTBEAT_S = 15.0  # well below the timeouts of proxies (nginx: 60 s)
HEARTBEAT = b": still here\n\n"
SSE_MEDIA_TYPE = "text/event-stream"


def sse_event(name: str, data: Any, number: int | str | None = None) -> bytes:
    """One event with JSON data."""
    head = "" if number is None else f"id: {number}\n"
    return f"{head}event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode("utf-8", "replace")


def resume_id(headers: Mapping[str, str]) -> int | None:
    """The Last-Event-ID of a client that reconnects; None for a new client, or an id that is not ours."""
    last = headers.get("last-event-id", "")
    return natural(last)


async def with_heartbeat(
    source: AsyncIterator[bytes], every_s: float = HEARTBEAT_S
) -> AsyncGenerator[bytes, None]:
    """Adds a comment whenever `source` is quiet for `every_s` seconds, so that the client and proxies see that we are
    alive.
    """
    step: asyncio.Future[bytes] | None = None
    try:
        while True:
            # keep waiting for the same step after a heartbeat: cancelling it would close the generator
            step = step or asyncio.ensure_future(anext(source))
            done, _ = await asyncio.wait({step}, timeout=every_s)
            if not done:
                yield HEARTBEAT
                continue
            finished, step = step, None
            try:
                yield finished.result()
            except StopAsyncIteration:
                return
    finally:
        if step is not None:
            step.cancel()
            await asyncio.wait({step})
        if isinstance(source, AsyncGenerator):
            await source.aclose()


STALL_S = 60.0  # seconds without progress after which the other side counts as gone
JSON_LIMIT = 1024 * 1024
JSON_DEPTH = 64  # levels; what reads the body later recurses
JSON_TIMEOUT_S = 30.0  # for the whole body, however many pieces it comes in
_CUT_S = 5.0  # for uvicorn to notice a connection that was cut


class Connection(Protocol):
    """What a handler needs of the connection that a request came on (`connection.GuardedProtocol`)."""

    def cut(self) -> None:
        """Drops the connection, so that the client sees that the answer is incomplete."""

    async def pass_in(
        self, sink: socket, *, first: bytes, left: int, stall_s: float, note: Note | None
    ) -> int:
        """Moves most of a request's body past the event loop; returns the bytes moved."""

    async def pass_out(self, response: EngineResponse, *, chunked: bool, stall_s: float) -> bool:
        """Moves the body of an answer past the event loop; returns False if that is not possible."""


class ClientGoneError(SourceError):
    """The client disconnected before the end of its request body."""


class Inbox:
    """A request's body as it arrives; afterwards it reports when the client disconnects.

    As the body of a request to the engine it can move itself (`engine.stream.Passing`) if its length is known.
    """

    def __init__(self, request: Request, *, stall_s: float = STALL_S) -> None:
        self._receive = request.receive
        self._stall_s = stall_s
        self._complete = asyncio.Event()
        # the Content-Length, 0 if there is none
        text = request.headers.get("content-length", "")
        self.length = natural(text) or 0
        self._connection = _connection(request.scope)
        self._held = b""  # received, but not delivered yet
        self.size = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Raises ClientGoneError if the client disconnects or stalls."""
        if self._held:
            held, self._held = self._held, b""
            yield held
        while not self._complete.is_set():
            if piece := await self._next():
                yield piece

    async def _next(self) -> bytes:
        try:
            # a limit per piece, not for the whole body: an upload over a slow line may take an hour as long as bytes arrive
            async with asyncio.timeout(self._stall_s):
                message = await self._receive()
        except TimeoutError as exc:
            raise ClientGoneError(f"no byte of the body came in {self._stall_s:g} s") from exc
        if message["type"] == "http.disconnect":
            raise ClientGoneError("the client disconnected before the end of the body")
        if not message.get("more_body", False):
            self._complete.set()
        piece: bytes = message.get("body", b"")
        # counted here, where every byte passes, because the stated length may be wrong
        self.size += len(piece)
        return piece

    async def pass_into(self, sink: socket, note: Note | None = None) -> None:
        """Moves most of a large body in a thread; `__aiter__` delivers the rest. Raises ClientGoneError, OSError of
        the sink.
        """
        if self._connection is None or self._complete.is_set():
            return
        # reading makes uvicorn send 100 Continue, which the client may wait for
        first = self._held or await self._next()
        self._held = first
        left = self.length - self.size
        moved = await self._connection.pass_in(sink, first=first, left=left, stall_s=self._stall_s, note=note)
        if moved:
            self.size += moved - len(first)
            self._held = b""

    def give_back(self, data: bytes) -> None:
        """Puts the first bytes back: the next read starts with them."""
        self._held = data

    async def gone(self) -> None:
        """Returns when the client has disconnected. If a handler reads the body, waits for the end of the body first."""
        await self._complete.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass


def _connection(scope: Scope) -> Connection | None:
    found: Connection | None = scope.get("state", {}).get("connection")
    return found


async def read_body(request: Request, limit: int = JSON_LIMIT) -> bytes:
    """Reads a small body. Raises RequestError 413 and 408."""
    parts: list[bytes] = []
    inbox = Inbox(request)
    try:
        async with asyncio.timeout(JSON_TIMEOUT_S):
            async for piece in inbox:
                # checked as the body arrives: Content-Length may be missing or wrong
                if inbox.size > limit:
                    raise RequestError(
                        f"the body is longer than {limit} bytes", status=413, headers={"connection": "close"}
                    )
                parts.append(piece)
    except TimeoutError as exc:
        raise RequestError("the body came too slowly", status=408, headers={"connection": "close"}) from exc
    except ClientGoneError as exc:
        raise RequestError(str(exc)) from exc
    return b"".join(parts)


async def read_json(request: Request) -> dict[str, Any]:
    """Reads a JSON object, `{}` from an empty body. Raises RequestError that says what is wrong."""
    body = await read_body(request)
    if not body:
        return {}
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise RequestError(f"the body is not JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise RequestError("the body is not a JSON object")
    # the code that reads it later recurses
    if _depth(value) > JSON_DEPTH:
        raise RequestError(f"the body is nested deeper than {JSON_DEPTH} levels")
    return value


def _depth(value: Any) -> int:
    # iterative: recursion is what a deep value would break
    deepest, todo = 0, [(value, 1)]
    while todo:
        item, level = todo.pop()
        deepest = max(deepest, level)
        inner = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        todo += [(child, level + 1) for child in inner]
    return deepest


class StepDeadline:
    """A time limit for each of many steps, with a single timer; `asyncio.timeout` would need one per step.

    Use it with `async with`. The block raises TimeoutError if a step takes longer than `limit_s` (by up to an eighth).
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._loop = asyncio.get_running_loop()
        self._scope = asyncio.timeout(None)  # what is cancelled when a step takes too long
        self._begun: float | None = None  # of the step in progress
        # looks now and then, instead of a timer for each step
        self._timer = self._loop.call_later(limit_s, self._look)

    def begin(self) -> None:
        """Marks the begin of a step."""
        self._begun = self._loop.time()

    def end(self) -> None:
        """Marks the end of the step."""
        self._begun = None

    def _look(self) -> None:
        now = self._loop.time()
        if self._begun is not None and now - self._begun >= self._limit_s:
            self._scope.reschedule(now)
        else:
            self._timer = self._loop.call_later(self._limit_s / 8, self._look)

    async def __aenter__(self) -> StepDeadline:
        await self._scope.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        await self._scope.__aexit__(kind, exc, trace)  # raises TimeoutError if a step took too long


class StreamReply(Response):
    """Sends pieces as they come. Closing the generator must end the source."""

    open: ClassVar[int] = 0  # answers being sent in this process, for the metrics

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        inbox: Inbox | None = None,
        stall_s: float = STALL_S,
    ) -> None:
        # sets the attributes itself: Response's own constructor would measure a body, and there is none
        self.status_code = status
        self.background: BackgroundTask | None = None
        self.body = b""
        self.init_headers(dict(headers or {}))
        self._pieces = pieces
        self._inbox = inbox
        self._stall_s = stall_s

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        self.raw_headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in (headers or {}).items()
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        StreamReply.open += 1
        try:
            await self._stream(scope, receive, send)
        finally:
            StreamReply.open -= 1

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Starlette would keep sending until the source ends, but the engine's request must end when its client disconnects
        gone = asyncio.create_task(self._gone(receive))
        pump = asyncio.create_task(self._pump(scope, send))
        try:
            await asyncio.wait({pump, gone}, return_when=asyncio.FIRST_COMPLETED)
            error = await _finish(pump)
            # status 200 was sent long ago: only a broken connection tells the client that the answer is incomplete
            if error is not None and not gone.done():
                logger.info("%s %s: %s", scope["method"], scope["path"], error)
                connection = _connection(scope)
                if connection is None:
                    raise EngineError("the stream broke, and the server gives no way to say so")
                connection.cut()
                # returning before uvicorn notices the cut would be logged as a defect
                await asyncio.wait({gone}, timeout=_CUT_S)
        finally:
            for task in (pump, gone):
                task.cancel()
            await asyncio.wait({pump, gone})
            await self._close()

    async def _close(self) -> None:
        await self._pieces.aclose()

    async def _gone(self, receive: Receive) -> None:
        if self._inbox is not None:
            await self._inbox.gone()
        else:
            while (await receive())["type"] != "http.disconnect":
                pass

    async def _pump(self, scope: Scope, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with StepDeadline(self._stall_s) as deadline:
            # a large body is moved by a thread (`engine.body_pump`)
            if not await self._passed(scope):
                async for piece in self._pieces:
                    deadline.begin()
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                    deadline.end()
            await self._close()  # frees what the source holds before the client sees the end
            deadline.begin()
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _passed(self, scope: Scope) -> bool:
        """Sends the body past the event loop; returns whether it did."""
        del scope
        return False


class EngineReply(StreamReply):
    """Streams the engine's answer. A `large` one bypasses the event loop if possible."""

    def __init__(
        self,
        response: EngineResponse,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        inbox: Inbox | None = None,
        large: bool = False,
        stall_s: float = STALL_S,
    ) -> None:
        pieces = _body_of(response)
        super().__init__(pieces, status=status, headers=headers, inbox=inbox, stall_s=stall_s)
        self._response = response
        self._large = large

    async def _passed(self, scope: Scope) -> bool:
        connection = _connection(scope)
        if connection is None or not self._large or scope["method"] == "HEAD" or self.status_code != 200:
            return False
        counted = any(name == b"content-length" for name, _ in self.raw_headers)
        chunked = not counted and scope["http_version"] == "1.1"  # as h11 frames it
        return await connection.pass_out(self._response, chunked=chunked, stall_s=self._stall_s)

    async def _close(self) -> None:
        await super()._close()
        await self._response.close()  # closing a generator that never started would not close the response


async def _body_of(response: EngineResponse) -> AsyncGenerator[bytes, None]:
    async with response:
        async for piece in response.chunks():
            yield piece


async def _finish(pump: asyncio.Task[None]) -> Exception | None:
    """The error that ended the pump. If the pump still runs, its client has disconnected: it is cancelled."""
    if not pump.done():
        pump.cancel()
        await asyncio.wait({pump})
        return None
    if pump.cancelled():
        return None
    error = pump.exception()
    if error is None:
        return None
    if isinstance(error, TimeoutError):
        return RequestError("the client does not read")
    if isinstance(error, UcidockdError | SourceError | OSError):
        return error
    # anything else is our own defect: the server logs it with its trace
    raise error


class EventReply(StreamReply):
    """Server-sent events with heartbeats. An error of the source becomes an `error` event, its end an `end` event."""

    def __init__(self, source: AsyncGenerator[bytes, None], *, ends: bool = True) -> None:
        super().__init__(
            with_heartbeat(_closing(source, ends=ends)),
            headers={"content-type": SSE_MEDIA_TYPE, "x-accel-buffering": "no"},
        )


async def _closing(source: AsyncGenerator[bytes, None], *, ends: bool) -> AsyncGenerator[bytes, None]:
    try:
        async for piece in source:
            yield piece
        if ends:
            # a browser opens a stream again that just closes; `end` tells it that this one is complete
            yield sse_event("end", {})
    except UcidockdError as exc:
        yield sse_event("error", body_of(exc)["error"])
    finally:
        # at once, not when the garbage collector comes: the source may hold a request to the engine
        await source.aclose()


def attachment(name: str) -> dict[str, str]:
    """Headers of a download, which make the browser save it whatever its content is. A non-ASCII name is added in
    encoded form (RFC 6266).
    """
    # a quote, a slash or a line break in a name must not reach the header
    safe = (
        "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name).lstrip(".")
        or "download"
    )
    whole = "" if safe == name else f"; filename*=UTF-8''{quote(name.replace('/', '_')[:128], safe='')}"
    return {
        "content-type": "application/octet-stream",
        "content-disposition": f'attachment; filename="{safe[:128]}"{whole}',
    }


# Encodes JSON for a client, whatever text it contains.


class JsonReply(JSONResponse):
    """Replaces bytes that are not UTF-8 (a UCI file may contain any) by `?`."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
