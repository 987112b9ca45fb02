# SPDX-License-Identifier: GPL-2.0-or-later
"""What a stream object can carry: a registry of kinds, and those that are ours: status, events, logs, stats.

Another part adds its own (job progress, consoles): a `Kind` with the right that it takes and what opens a `Source`.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

from agent.api.problems import RequestError, checked_id, checked_value
from agent.api.rules import Grant, read, write
from agent.api.streams import engine_streams
from agent.api.streams.consoles import Console, Consoles, ExecSpec, exec_spec
from agent.api.streams.engine_streams import mapped, texts
from agent.api.streams.logs import OPTIONS, checked_containers, log_options, logs, merged
from agent.engine.stream import DockerStream
from agent.errors import ConflictError
from agent.status.board import StatusBoard
from agent.status.ring import Ended
from agent.threads import tell

# The status board as a stream: a snapshot, then each change, resumable. Doors make of it what their readers take.


async def board_feed(
    board: StatusBoard, resume: int | None = None
) -> AsyncGenerator[tuple[str, dict[str, Any], int | None], None]:
    """("status", page, version) for each page of it, then ("change", event, version). Resumes after `resume` where the
    ring reaches. The last page has no `next`; the version of those before it is None, as no reader can resume after them.

    A reader that falls behind the ring gets the whole status instead of what it missed: it slows no other reader down.
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
                sent = board.version  # what changes while the pages go out comes after them
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

_TEXT_LIMIT = 4096  # characters of an item: at most 16 KiB, far below what one message may have
_BYTES_LIMIT = 8192


def json_item(name: str, value: Any) -> Item:
    """Data."""
    return {"name": name, "json": value}


def text_items(name: str, text: str) -> list[Item]:
    """Text, in pieces."""
    starts = range(0, len(text), _TEXT_LIMIT)
    return [{"name": name, "text": text[start : start + _TEXT_LIMIT]} for start in starts]


def bytes_items(name: str, data: bytes) -> list[Item]:
    """Bytes as they are (JSON carries none: base64), in pieces."""
    starts = range(0, len(data), _BYTES_LIMIT)
    pieces = (data[start : start + _BYTES_LIMIT] for start in starts)
    return [{"name": name, "bytes": base64.b64encode(piece).decode()} for piece in pieces]


class Source(Protocol):
    """One stream of a tab. Closing the generator ends it; an error of our tree in it ends it with that error."""

    def items(self) -> AsyncGenerator[Item, None]:
        """What it gives. Only as fast as it is taken."""

    async def input(self, data: bytes) -> None:
        """What the reader types. Raises RequestError where nothing can be typed."""

    async def resize(self, rows: int, columns: int) -> None:
        """The size of the reader's window. Raises RequestError for a source without a terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """`grant` is the right that it takes to open one; `open` gets the arguments and raises RequestError.

    `open_for_reader`: where a reader gets it without secrets.
    """

    grant: Grant
    open: Callable[[Args], Source]
    open_for_reader: Callable[[Args], Source] | None = None


@dataclass(frozen=True, slots=True)
class OutputOnly:
    """A source that takes no input."""

    make: Callable[[], AsyncGenerator[Item, None]]

    def items(self) -> AsyncGenerator[Item, None]:
        """What it gives."""
        return self.make()

    async def input(self, data: bytes) -> None:
        """Nothing can be typed here."""
        del data
        raise RequestError("this stream takes no input")

    async def resize(self, rows: int, columns: int) -> None:
        """No terminal."""
        del rows, columns
        raise RequestError("this stream has no window")


def our_kinds(board: StatusBoard, engine: DockerStream) -> dict[str, Kind]:
    """The kinds that need nothing but these two."""
    # One table for WebSocket and ubus: a kind of stream that one of them has and the other lacks would be found out by
    # a user.
    return {
        "status": Kind(grant=read("ucidockd", "status"), open=lambda args: _status(board, args)),
        "events": Kind(
            grant=read("docker", "events"),
            open=lambda args: _events(engine, args, writer=True),
            open_for_reader=lambda args: _events(engine, args, writer=False),
        ),
        "logs": Kind(grant=read("docker.container", "logs"), open=lambda args: _logs(engine, board, args)),
        "stats": Kind(grant=read("docker.container", "stats"), open=lambda args: _stats(engine, args)),
    }


def _query(args: Args, allowed: tuple[str, ...]) -> list[tuple[str, str]]:
    """Engine query of arguments. Raises RequestError."""
    for name in args:
        if name not in allowed and name != "container":
            raise RequestError(f"{name[:64]!r} is not known; known: {', '.join(allowed)}")
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
            # the agent's own facts come with the first page only
            if "after" not in data:
                yield json_item("status", {"version": data["version"], "agent": data["agent"]})
            for resource in data["resources"]:
                yield json_item("resource", resource)
            # the last page: from here on a reader can resume
            if version is not None:
                yield json_item("synced", {"version": version})
    finally:
        await feed.aclose()


def _events(engine: DockerStream, args: Args, *, writer: bool) -> Source:
    query = _query(args, ("since", "filters"))
    return OutputOnly(lambda: _json_items("event", engine_streams.events(engine, query, writer=writer)))


def _stats(engine: DockerStream, args: Args) -> Source:
    container = _container(args)
    _query(args, ())
    return OutputOnly(
        lambda: _json_items("stats", engine_streams.stats(engine, container, [("stream", "1")]))
    )


def _json_items(name: str, source: AsyncGenerator[dict[str, Any], None]) -> AsyncGenerator[Item, None]:
    return mapped(source, lambda value: json_item(name, value))


def _logs(engine: DockerStream, board: StatusBoard, args: Args) -> Source:
    """Of one `container`: its output in pieces. Of several `containers`: a `line` each, merged by time."""
    if unknown := sorted(args.keys() - {"container", "containers", *OPTIONS}):
        raise RequestError(
            f"{unknown[0][:64]!r} is not known; known: container, containers, {', '.join(OPTIONS)}"
        )
    options = log_options(args, follow=True)
    if "containers" not in args:
        # One container's output goes on in pieces as it comes: nothing waits for the end of a line, as a prompt has
        # none.
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


_OPEN_S = 10.0


def console_kind(consoles: Consoles) -> Kind:
    """Arguments: `container`, and those of `POST /v1/containers/{id}/exec`."""
    return Kind(grant=write("docker.container", "exec"), open=lambda args: _open(consoles, args))


def _open(consoles: Consoles, args: Args) -> ConsoleSource:
    name = args.get("container")
    if not isinstance(name, str):
        raise RequestError("container: expected a name or an id")
    spec = exec_spec({name: value for name, value in args.items() if name != "container"})
    return ConsoleSource(consoles, checked_id(name), spec)


class ConsoleSource:
    """Implements `Source`."""

    def __init__(self, consoles: Consoles, container: str, spec: ExecSpec) -> None:
        self._consoles = consoles
        self._container = container
        self._spec = spec
        self._console: Console | None = None
        self._opened = asyncio.Event()

    async def items(self) -> AsyncGenerator[Item, None]:
        """`open` {tty}, `stdout` and `stderr` in bytes, `exit` {code, reason}."""
        try:
            console = self._console = await self._consoles.open(self._container, self._spec)
        finally:
            # also where it could not be opened: who types waits for this
            self._opened.set()
        try:
            yield json_item("open", {"tty": console.tty})
            async with aclosing(console.output()) as output:
                async for piece in output:
                    if piece is None:
                        continue  # only a reader that comes again can have missed something
                    if isinstance(piece, Ended):
                        yield json_item("exit", {"code": piece.code, "reason": piece.reason})
                        return
                    for item in bytes_items(piece.stream, piece.data):
                        yield item
        finally:
            await self._consoles.end(console)

    async def input(self, data: bytes) -> None:
        """What is typed. Raises ConflictError after the end, EngineError."""
        await (await self._running()).input(data)

    async def resize(self, rows: int, columns: int) -> None:
        """The terminal's size. Raises ConflictError, EngineError."""
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
