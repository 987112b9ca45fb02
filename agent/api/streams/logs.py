# SPDX-License-Identifier: GPL-2.0-or-later
"""Logs of containers for HTTP and ubus: a time range, a search, several containers merged by time, and following a
container across its restart and its replacement.

Every function returns an async generator; closing it ends the engine's request.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from agent.api.problems import RequestError, checked_id, checked_value
from agent.api.streams import engine_streams
from agent.engine.stream import DockerStream
from agent.errors import EngineError
from agent.model.identity import Key
from agent.model.quantities import QuantityError, parse_moment
from agent.status.board import StatusBoard

SEARCH_BYTES = 64 * 1024 * 1024
"""The most output that a search without `follow` reads, in bytes. With `follow` a search starts SEARCH_LINES before
the end.
"""
SEARCH_LINES = "100000"
CONTAINERS_MAX = 32  # merged into one stream; each takes a request to the engine
_GREP_MAX = 256  # characters
_LINE_BYTES = 64 * 1024  # a longer line is split
_AHEAD = 200  # lines of a container that are read ahead of the others
_QUIET_S = 0.2  # a container that prints nothing for this long is not waited for
_POLL_S = 0.25
_PATIENCE_S = 2.0  # wait for an ended container to come back
_COMES_BACK = frozenset(
    {"Pending", "BackOff"}
)  # reasons of Synced while the agent is still working on a section
_TAIL = re.compile(r"all|[0-9]{1,9}", re.ASCII)
_FLAGS = ("follow", "timestamps", "stdout", "stderr")
OPTIONS = (*_FLAGS, "since", "until", "tail", "grep")


class SearchLimitError(RequestError):
    """A search, or an answer, would take more than the router should spend on it."""

    code = "search-limit"

    def __init__(self, message: str) -> None:
        super().__init__(message, status=413)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """`since` and `until` are in the engine's form, "" for none. `grep` is text that a line contains, ignoring case."""

    follow: bool = False
    timestamps: bool = False
    stdout: bool = True
    stderr: bool = True
    since: str = ""
    until: str = ""
    tail: str = "all"
    grep: str = ""

    def query(self) -> list[tuple[str, str]]:
        """The query for GET /containers/{id}/logs."""
        pairs = [(name, str(int(getattr(self, name)))) for name in _FLAGS]
        given = [(name, getattr(self, name)) for name in ("since", "until", "tail")]
        return pairs + [(name, value) for name, value in given if value]


def log_options(asked: Mapping[str, Any], *, follow: bool = False) -> LogOptions:
    """Parses a request: OPTIONS as text, numbers or booleans; other keys are ignored. `follow` is the default.

    Naming only one of stdout and stderr leaves the other out. Raises RequestError.
    """
    flags = {name: _flag(name, asked[name]) for name in _FLAGS if name in asked}
    # the engine sends nothing if neither is given; here that means both
    if "stdout" in flags or "stderr" in flags:
        flags = {"stdout": False, "stderr": False} | flags
    texts = {name: _text(name, asked[name]) for name in ("since", "until", "tail", "grep") if name in asked}
    for name in ("since", "until"):
        if texts.get(name):
            try:
                texts[name] = parse_moment(texts[name], time.time())
            except QuantityError as exc:
                raise RequestError(f"{name}: {exc}") from exc
    if not _TAIL.fullmatch(texts.get("tail", "all")):
        raise RequestError(f"tail: {texts['tail'][:64]!r} is neither a number of lines nor `all`")
    if len(texts.get("grep", "")) > _GREP_MAX:
        raise RequestError(f"grep: expected a text of at most {_GREP_MAX} characters")
    given: dict[str, Any] = {"follow": follow} | flags | texts
    return LogOptions(**given)


def checked_containers(names: Sequence[Any]) -> list[str]:
    """Checked ids or names without duplicates. Raises RequestError."""
    found = list(dict.fromkeys(checked_id(name if isinstance(name, str) else "") for name in names))
    if not 0 < len(found) <= CONTAINERS_MAX:
        raise RequestError(f"containers: expected from 1 to {CONTAINERS_MAX} names")
    return found


def _flag(name: str, value: Any) -> bool:
    found = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}.get(
        str(value).lower()
    )
    if found is None:
        raise RequestError(f"{name}: expected 1 or 0")
    return found


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RequestError(f"{name}: expected text or a number")
    return checked_value(name, str(value))


async def logs(
    engine: DockerStream, board: StatusBoard, container: str, options: LogOptions
) -> AsyncGenerator[tuple[str, bytes], None]:
    """A container's output as ("stdout" | "stderr", bytes); with a terminal it is all "stdout".

    `container` is an id, a name, or the name of a section. With `follow` it ends when the container has ended for good.
    """
    # a search with `follow` has no end and so no limit on what it reads: start it near the end of the log instead
    if options.grep and options.follow and options.tail == "all":
        options = replace(options, tail=SEARCH_LINES)
    # without `follow` there is no successor to wait for
    if options.follow:
        source = _followed(engine, board, container, options)
    else:
        source = _output(engine, await _find(engine, board, container), options)
    if options.grep:
        source = _searched(source, options)
    async with aclosing(source):
        async for piece in source:
            yield piece


@dataclass(frozen=True, slots=True)
class _Seen:
    """A container as GET /containers/{id}/json shows it."""

    id: str
    name: str
    tty: bool
    started: str
    finished: str
    running: bool
    restarting: bool

    @classmethod
    def of(cls, inspect: Mapping[str, Any]) -> _Seen:
        state = inspect["State"]
        return cls(
            str(inspect["Id"]),
            str(inspect["Name"]).removeprefix("/"),
            bool(inspect["Config"]["Tty"]),
            str(state.get("StartedAt", "")),
            str(state.get("FinishedAt", "")),
            bool(state.get("Running")),
            bool(state.get("Restarting")),
        )


async def _look(engine: DockerStream, container: str) -> _Seen:
    return await engine.call("GET", f"/containers/{container}/json", read=_Seen.of)


async def _look_if_there(engine: DockerStream, container: str) -> _Seen | None:
    try:
        return await _look(engine, container)
    except EngineError as exc:
        if exc.status == 404:
            return None
        raise


async def _find(engine: DockerStream, board: StatusBoard, container: str) -> _Seen:
    """Looks up by the engine's names first. Raises EngineError, 404 if neither the engine nor a section has this name."""
    try:
        return await _look(engine, container)
    except EngineError as exc:
        # people know their sections' names, and the container may have another name in Docker
        owner = board.resource(Key("container", container))
        if exc.status != 404 or owner is None or not owner["object_id"]:
            raise
        return await _look(engine, owner["object_id"])


def _output(
    engine: DockerStream, seen: _Seen, options: LogOptions
) -> AsyncGenerator[tuple[str, bytes], None]:
    return engine_streams.logs(engine, seen.id, options.query(), tty=seen.tty)


# The engine ends a container's output with its process, even if the container is about to be restarted, or a swap
# replaces it. These functions follow it further.


async def _followed(
    engine: DockerStream, board: StatusBoard, container: str, options: LogOptions
) -> AsyncGenerator[tuple[str, bytes], None]:
    seen: _Seen | None = await _find(engine, board, container)
    while seen is not None:
        async with aclosing(_output(engine, seen, options)) as output:
            async for piece in output:
                yield piece
        # everything before `until` was read: a successor cannot add to it
        if options.until:
            return
        before, seen_up_to = seen, await _end_of(engine, seen)
        seen = await _successor(engine, board, before)
        if seen is not None:
            since = (seen_up_to or parse_moment(seen.finished, 0)) if seen.id == before.id else ""
            # continue with the very next line: `tail` was only for the beginning
            options = replace(options, since=since, tail="all")


async def _end_of(engine: DockerStream, seen: _Seen) -> str:
    """The time just after the last line of an ended container; "" if it runs again, or has printed nothing."""
    last = b""
    try:
        async with aclosing(_output(engine, seen, LogOptions(timestamps=True, tail="1"))) as output:
            async for _, piece in output:
                last = (last + piece)[:_LINE_BYTES]
        now = await _look_if_there(engine, seen.id)
        # The start time of the next run would be too late, since its first lines may be older. The end time of the
        # old run would be too early for its last lines.
        second, _, fraction = parse_moment(last.partition(b" ")[0].decode("ascii", "replace"), 0).partition(
            "."
        )
    except (EngineError, QuantityError):
        return ""
    if now is None or now.started != seen.started:
        return ""
    stamp_ns = int(second) * 10**9 + int(fraction.ljust(9, "0")) + 1
    return f"{stamp_ns // 10**9}.{stamp_ns % 10**9:09d}"


async def _successor(engine: DockerStream, board: StatusBoard, before: _Seen) -> _Seen | None:
    """The same container once it runs again, or the one that replaces it; None if neither is expected."""
    on_board = ((key, board.resource(key)) for key in board.keys())  # noqa: SIM118 - the board is not a dict
    containers = [
        (key, found) for key, found in on_board if found is not None and found["kind"] == "container"
    ]
    # by id, or by name: a swap may have given the name to another container already
    of_this = (
        key for key, found in containers if found["object_id"] == before.id or found["name"] == before.name
    )
    owner = next(of_this, "")
    left_s = _PATIENCE_S
    while left_s > 0:
        resource = board.resource(owner)
        candidate = resource["object_id"] if resource is not None else before.name
        now = await _look_if_there(engine, before.id)
        if now is not None and now.running and now.started != before.started:
            return now
        other = await _look_if_there(engine, candidate) if candidate and candidate != before.id else None
        if other is not None and other.id != before.id:
            return other
        conditions = () if resource is None else resource["conditions"]
        synced = next((one for one in conditions if one["type"] == "Synced"), None)
        in_progress = synced is not None and not synced["status"] and synced["reason"] in _COMES_BACK
        busy = in_progress or (now is not None and now.restarting)
        # while work is in progress the wait starts over: a pull during a replacement may take minutes
        left_s = _PATIENCE_S if busy else left_s - _POLL_S
        await asyncio.sleep(_POLL_S)
    return None


# Searching and merging work on lines.


async def _lines(source: AsyncGenerator[tuple[str, bytes], None]) -> AsyncGenerator[tuple[str, bytes], None]:
    """(stream, line with its line end). An unfinished line comes at the end of the output."""
    rests = {"stdout": b"", "stderr": b""}
    async with aclosing(source):
        async for name, piece in source:
            *whole, rest = (rests[name] + piece).split(b"\n")
            for line in whole:
                yield name, line + b"\n"
            # a program that never prints a line end must not fill the memory: split its line
            if len(rest) > _LINE_BYTES:
                yield name, rest + b"\n"
                rest = b""
            rests[name] = rest
        for name, rest in rests.items():
            if rest:
                yield name, rest


async def _searched(
    source: AsyncGenerator[tuple[str, bytes], None], options: LogOptions
) -> AsyncGenerator[tuple[str, bytes], None]:
    wanted, read = options.grep.casefold(), 0
    async with aclosing(_lines(source)) as lines:
        async for name, line in lines:
            read += len(line)
            if read > SEARCH_BYTES and not options.follow:
                raise SearchLimitError(
                    f"the search ended after {SEARCH_BYTES >> 20} MiB of output; narrow it with since, until or tail"
                )
            # the time stamp is not the program's text: `grep 12` must not match noon
            text = line.partition(b" ")[2] if options.timestamps else line
            if wanted in text.decode("utf-8", "replace").casefold():
                yield name, line


@dataclass(frozen=True, slots=True)
class LogLine:
    """`time` is RFC 3339 with nanoseconds, as the engine writes it."""

    container: str
    time: str
    stream: str
    text: str

    def as_json(self) -> dict[str, str]:
        return {"container": self.container, "time": self.time, "stream": self.stream, "text": self.text}


async def merged(
    engine: DockerStream, board: StatusBoard, containers: Sequence[str], options: LogOptions
) -> AsyncGenerator[LogLine, None]:
    """The lines of all containers, oldest first. While following, a silent container does not delay the others."""
    changed = asyncio.Event()
    asked = replace(options, timestamps=True)
    readers = [_Reader(name, logs(engine, board, name, asked), changed) for name in containers]
    try:
        # a wrong name becomes the answer's error, not an end in the middle
        await _begun(readers)
        while True:
            await _let_come(readers, changed, quiet_s=_QUIET_S if options.follow else None)
            ready = [reader for reader in readers if reader.lines]
            if not ready and all(reader.task.done() for reader in readers):
                break
            if not ready:
                changed.clear()
                await changed.wait()
                continue
            # RFC 3339 in UTC with nanoseconds sorts as text
            oldest = min(ready, key=lambda reader: reader.lines[0].time)
            line = oldest.lines.popleft()
            oldest.room.set()
            yield line
        for reader in readers:
            reader.task.result()
    finally:
        for reader in readers:
            reader.task.cancel()
        await asyncio.wait([reader.task for reader in readers])


def merged_text(
    lines: AsyncGenerator[LogLine, None], containers: Sequence[str], options: LogOptions
) -> AsyncGenerator[bytes, None]:
    """One `web | line` per line, with its time if requested."""
    # padded to one width, so that the texts of all containers begin in the same column
    width = max(len(name) for name in containers)

    def written(line: LogLine) -> bytes:
        stamp = f"{line.time} " if options.timestamps else ""
        return f"{line.container.ljust(width)} | {stamp}{line.text}\n".encode()

    return engine_streams.mapped(lines, written)


# Lines in a single answer, for callers on ubus, which cannot follow.


_ANSWER_BYTES = 256 * 1024  # ubus carries 1 MiB, and JSON in blobmsg takes more than its text
_ANSWER_LINES = 5000  # more than anyone reads in one answer
_ANSWER_S = 15.0  # callers on ubus give up after 20
_ANSWER_TAIL = "200"


async def last_lines(engine: DockerStream, board: StatusBoard, asked: Mapping[str, Any]) -> dict[str, Any]:
    """`{lines: [{container, time, stream, text}], left_out}`: the newest lines that fit into an answer; without any
    option the last 200 of each container. Raises RequestError, SearchLimitError.
    """
    given = {name: asked[name] for name in ("since", "until", "tail", "grep") if name in asked}
    options = log_options(given or {"tail": _ANSWER_TAIL})
    # a search has its own limit
    if not options.grep and (options.tail == "all" or int(options.tail) > _ANSWER_LINES):
        options = replace(options, tail=str(_ANSWER_LINES))
    source = merged(engine, board, checked_containers(asked.get("containers", [])), options)
    found: deque[tuple[int, dict[str, str]]] = deque()
    size, left_out = 0, 0
    try:
        async with asyncio.timeout(_ANSWER_S), aclosing(source) as lines:
            async for line in lines:
                shown = line.as_json()
                found.append((len(json.dumps(shown)), shown))
                size += found[-1][0]
                # keep the newest: ubus carries 1 MiB at most
                while size > _ANSWER_BYTES or len(found) > _ANSWER_LINES:
                    size -= found.popleft()[0]
                    left_out += 1
    except TimeoutError as exc:
        raise SearchLimitError(
            f"the log could not be read within {_ANSWER_S:g} s; narrow it with since, until or tail"
        ) from exc
    return {"lines": [shown for _, shown in found], "left_out": left_out}


class _Reader:
    """Reads one container's lines, some ahead."""

    def __init__(
        self, name: str, source: AsyncGenerator[tuple[str, bytes], None], changed: asyncio.Event
    ) -> None:
        self.lines: deque[LogLine] = deque()  # that the merge has not taken yet
        self.room = asyncio.Event()
        self.quiet = False  # silent for so long that the merge does not wait for it
        self._name, self._source, self._changed = name, source, changed
        self.task = asyncio.create_task(self._read(), name=f"log-{name}")
        self.task.add_done_callback(lambda _: changed.set())

    async def _read(self) -> None:
        async with aclosing(_lines(self._source)) as lines:
            async for stream, line in lines:
                stamp, _, text = line.decode("utf-8", "replace").rstrip("\r\n").partition(" ")
                self.lines.append(LogLine(self._name, stamp, stream, text))
                self.quiet = False
                self._changed.set()
                # the source is not read meanwhile, so the engine's end of the connection slows down too
                while len(self.lines) >= _AHEAD:
                    self.room.clear()
                    await self.room.wait()


async def _begun(readers: Sequence[_Reader]) -> None:
    """Raises the engine's error if it refuses one of the containers at once."""
    done, _ = await asyncio.wait([reader.task for reader in readers], timeout=engine_streams.FIRST_WAIT_S)
    for task in done:
        task.result()


async def _let_come(readers: Sequence[_Reader], changed: asyncio.Event, *, quiet_s: float | None) -> None:
    """Waits for a line of each open container; those that are silent are waited for at most `quiet_s` seconds."""
    try:
        async with asyncio.timeout(quiet_s):
            while any(not (reader.lines or reader.task.done() or reader.quiet) for reader in readers):
                changed.clear()
                await changed.wait()
    except TimeoutError:
        for reader in readers:
            reader.quiet = not (reader.lines or reader.task.done())
