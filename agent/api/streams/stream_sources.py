# SPDX-License-Identifier: GPL-2.0-or-later
"""What a stream object can carry: the registry of kinds, and our own kinds: status, events, logs, stats.

Other modules add their kinds (job progress, consoles): a `StreamKind` with the right that it needs and a function that
opens a `Source`.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

from agent.api.problems import RequestError, checked_id, checked_value, refuse_unknown
from agent.api.rules import Grant, read, write
from agent.api.streams import engine_streams
from agent.api.streams.consoles import Console, Consoles, ExecSpec, exec_spec
from agent.api.streams.engine_streams import mapped, texts
from agent.api.streams.logs import OPTIONS, checked_containers, log_options, logs, merged
from agent.engine.stream import DockerStream
from agent.errors import ConflictError
from agent.status.board import StatusBoard
from agent.status.ring import OutputEnd
from agent.threads import tell

# The status board as a stream: a snapshot, then each change; a reader can resume. HTTP and ubus format it for clients.


async def board_feed(
    board: StatusBoard, resume: int | None = None
) -> AsyncGenerator[tuple[str, dict[str, Any], int | None], None]:
    """Yields ("status", page, version) for each page of the board, then ("change", event, version). Resumes after
    `resume` if the ring still has it. The last page has no `next`; earlier pages have the version None, because a
    reader cannot resume after them.

    A reader that falls behind the ring gets the whole status again, so it does not slow other readers down.
    """
    loop = asyncio.get_running_loop()
    wake = asyncio.Event()

    def changed() -> None:
        tell(loop, wake.set)

    unsubscribe = board.subscribe(changed)
    try:
        sent = resume
        while True:
            wake.clear()
            events = board.events_after(sent) if sent is not None else None
            if sent is None or events is None:
                sent = board.version  # changes while the pages are sent follow after them
                for page in board.pages():
                    yield "status", page, None if "next" in page else sent
                continue
            for event in events:
                sent = int(event["id"])
                yield "change", event, sent
            await wake.wait()
    finally:
        unsubscribe()


Args = Mapping[str, Any]
Item = dict[str, Any]  # {"name": ..., and one of "json", "text", "bytes" (base64)}

_TEXT_LIMIT = 4096  # characters of an item: at most 16 KiB, far below the limit of a message
_BYTES_LIMIT = 8192


def json_item(name: str, value: Any) -> Item:
    """An item with JSON data."""
    return {"name": name, "json": value}


def text_items(name: str, text: str) -> list[Item]:
    """Items with text, in pieces."""
    starts = range(0, len(text), _TEXT_LIMIT)
    return [{"name": name, "text": text[start : start + _TEXT_LIMIT]} for start in starts]


def bytes_items(name: str, data: bytes) -> list[Item]:
    """Items with bytes, in pieces; base64, because JSON cannot carry bytes."""
    starts = range(0, len(data), _BYTES_LIMIT)
    pieces = (data[start : start + _BYTES_LIMIT] for start in starts)
    return [{"name": name, "bytes": base64.b64encode(piece).decode()} for piece in pieces]


class Source(Protocol):
    """One stream of a tab. Closing the generator ends it; one of our errors raised in it ends the stream
    with that error.
    """

    def items(self) -> AsyncGenerator[Item, None]:
        """The items, produced only as fast as they are taken."""

    async def input(self, data: bytes) -> None:
        """Takes what the reader types. Raises RequestError if the stream takes no input."""

    async def resize(self, rows: int, columns: int) -> None:
        """Sets the size of the reader's window. Raises RequestError for a source without a terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamKind:
    """`grant` is the right needed to open one; `open` gets the arguments and raises RequestError.

    `open_for_reader` opens it without secrets, if readers get it in another form.
    """

    grant: Grant
    open: Callable[[Args], Source]
    open_for_reader: Callable[[Args], Source] | None = None


@dataclass(frozen=True, slots=True)
class OutputOnly:
    """A source that takes no input."""

    make: Callable[[], AsyncGenerator[Item, None]]

    def items(self) -> AsyncGenerator[Item, None]:
        """The items."""
        return self.make()

    async def input(self, data: bytes) -> None:
        """Raises RequestError: nothing can be typed here."""
        del data
        raise RequestError("this stream takes no input")

    async def resize(self, rows: int, columns: int) -> None:
        """Raises RequestError, because this stream has no terminal."""
        del rows, columns
        raise RequestError("this stream has no window")


def our_kinds(board: StatusBoard, engine: DockerStream) -> dict[str, StreamKind]:
    """The kinds that need only the board and the engine."""

    def stats(args: Args) -> Source:
        container = _container(args)
        _query(args, ())
        return OutputOnly(
            lambda: _json_items("stats", engine_streams.stats(engine, container, [("stream", "1")]))
        )

    # a single table for WebSocket and ubus, so that neither can lack a kind that the other has
    return {
        "status": StreamKind(grant=read("ucidockd", "status"), open=lambda args: _status(board, args)),
        "events": StreamKind(
            grant=read("docker", "events"),
            open=lambda args: _events(engine, args, writer=True),
            open_for_reader=lambda args: _events(engine, args, writer=False),
        ),
        "logs": StreamKind(
            grant=read("docker.container", "logs"), open=lambda args: _logs(engine, board, args)
        ),
        "stats": StreamKind(grant=read("docker.container", "stats"), open=stats),
    }


def _query(args: Args, allowed: tuple[str, ...]) -> list[tuple[str, str]]:
    """The arguments as a query for the engine. Raises RequestError."""
    refuse_unknown(args, ("container", *allowed))
    query = []
    for name in (name for name in allowed if name in args):
        value = args[name]
        if not isinstance(value, str | int):
            raise RequestError(f"{name}: expected text, a number or a boolean")
        query.append((name, checked_value(name, str(int(value) if isinstance(value, bool) else value))))
    return query


def _container(args: Args) -> str:
    name = args.get("container")
    if not isinstance(name, str):
        raise RequestError("container: expected a name or an id")
    return checked_id(name)


def _status(board: StatusBoard, args: Args) -> Source:
    _query(args, ())
    return OutputOnly(lambda: _status_items(board))


async def _status_items(board: StatusBoard) -> AsyncGenerator[Item, None]:
    """`status` (facts about the agent), a `resource` each, `synced`; then a `change` each."""
    feed = board_feed(board)
    try:
        async for name, data, version in feed:
            if name != "status":
                yield json_item(name, data)
                continue
            # only the first page has the agent's own facts
            if "after" not in data:
                yield json_item("status", {"version": data["version"], "agent": data["agent"]})
            for resource in data["resources"]:
                yield json_item("resource", resource)
            # after the last page a reader can resume
            if version is not None:
                yield json_item("synced", {"version": version})
    finally:
        await feed.aclose()


def _events(engine: DockerStream, args: Args, *, writer: bool) -> Source:
    query = _query(args, ("since", "filters"))
    return OutputOnly(lambda: _json_items("event", engine_streams.events(engine, query, writer=writer)))


def _json_items(name: str, source: AsyncGenerator[dict[str, Any], None]) -> AsyncGenerator[Item, None]:
    return mapped(source, lambda value: json_item(name, value))


def _logs(engine: DockerStream, board: StatusBoard, args: Args) -> Source:
    """For one `container` its output in pieces; for several `containers` a `line` each, merged by time."""
    refuse_unknown(args, ("container", "containers", *OPTIONS))
    options = log_options(args, follow=True)
    if "containers" not in args:
        # the output of a single container comes in pieces, not lines: a prompt has no line end
        container = _container(args)
        return OutputOnly(lambda: _log_items(logs(engine, board, container, options)))
    if not isinstance(args["containers"], list):
        raise RequestError("containers: expected a list of names or ids")
    containers = checked_containers(args["containers"])
    return OutputOnly(
        lambda: mapped(
            merged(engine, board, containers, options), lambda line: json_item("line", line.as_json())
        )
    )


async def _log_items(source: AsyncGenerator[tuple[str, bytes], None]) -> AsyncGenerator[Item, None]:
    async with aclosing(texts(source)) as output:
        async for name, text in output:
            for item in text_items(name, text):
                yield item


# A console as a stream of a tab (kind `console`): its output is items, `stream_input` types, `stream_resize` resizes.
#
# It lives as long as its stream: when that ends, with its tab or its session, the process is killed.


_OPEN_S = 10.0  # until input for a console that is still being opened is refused


def console_kind(consoles: Consoles) -> StreamKind:
    """Arguments: `container`, and those of `POST /v1/containers/{id}/exec`."""
    return StreamKind(grant=write("docker.container", "exec"), open=lambda args: _open(consoles, args))


def _open(consoles: Consoles, args: Args) -> ConsoleSource:
    name = args.get("container")
    if not isinstance(name, str):
        raise RequestError("container: expected a name or an id")
    spec = exec_spec({name: value for name, value in args.items() if name != "container"})
    return ConsoleSource(consoles, checked_id(name), spec)


class ConsoleSource:
    """A console as a `Source`."""

    def __init__(self, consoles: Consoles, container: str, spec: ExecSpec) -> None:
        self._consoles = consoles
        self._container = container
        self._spec = spec
        self._console: Console | None = None
        self._opened = asyncio.Event()

    async def items(self) -> AsyncGenerator[Item, None]:
        """`open` {tty}, `stdout` and `stderr` as bytes, `exit` {code, reason}."""
        try:
            console = self._console = await self._consoles.open(self._container, self._spec)
        finally:
            # also on failure, because `input` and `resize` wait for it
            self._opened.set()
        try:
            yield json_item("open", {"tty": console.tty})
            async with aclosing(console.output()) as output:
                async for piece in output:
                    if piece is None:
                        continue  # only a reader that reconnects can have missed something
                    if isinstance(piece, OutputEnd):
                        yield json_item("exit", {"code": piece.code, "reason": piece.reason})
                        return
                    for item in bytes_items(piece.stream, piece.data):
                        yield item
        finally:
            await self._consoles.end(console)

    async def input(self, data: bytes) -> None:
        """Sends what the reader types. Raises ConflictError after the end, EngineError."""
        await (await self._running()).input(data)

    async def resize(self, rows: int, columns: int) -> None:
        """Sets the terminal's size. Raises ConflictError, EngineError."""
        await (await self._running()).resize(rows=rows, columns=columns)

    async def _running(self) -> Console:
        try:
            async with asyncio.timeout(_OPEN_S):
                await self._opened.wait()
        except TimeoutError as exc:
            raise ConflictError("the console is not open yet") from exc
        if self._console is None:
            raise ConflictError("the console could not be opened")
        return self._console
