# SPDX-License-Identifier: GPL-2.0-or-later
"""Routes: logs, stats and events."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from agent.api.access.access import may_write
from agent.api.http import replies
from agent.api.http.replies import EventReply, StreamReply
from agent.api.problems import RequestError, container_id, flag, picked
from agent.api.rules import EVENT_STREAM, Rule, get, read
from agent.api.streams import engine_streams
from agent.api.streams.engine_streams import mapped, primed, texts
from agent.engine.stream import DockerStream
from agent.status.board import StatusBoard
from agent.threads import tell
from agent.wire.http_head import natural

_LOG_QUERY = ("follow", "since", "until", "tail", "timestamps", "stdout", "stderr", "format")
_TIME = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?|[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9:.]+(Z|[+-][0-9:]+)?)?")
_LOG_FORMS = {"since": _TIME, "until": _TIME, "tail": re.compile(r"all|[0-9]{1,9}")}
_LOG_EXPECTED = {"tail": "a number nor all"} | dict.fromkeys(
    ("since", "until"), "seconds nor an RFC 3339 time"
)
_FORMATS = ("text", "ndjson", "sse")


class StreamRoutes:
    """Live output of the engine."""

    def __init__(self, engine: DockerStream, board: StatusBoard) -> None:
        self._engine = engine
        self._board = board

    def rules(self) -> list[Rule]:
        container = "docker.container"
        return [
            get(
                "/v1/containers/{id}/logs",
                read(container, "logs"),
                self.logs,
                "A container's output, without the engine's frames: text, ndjson or server-sent events",
                query={
                    "follow": "1: continue while the container runs",
                    "since": "Seconds since 1970, or RFC 3339",
                    "until": "Seconds since 1970, or RFC 3339",
                    "tail": "Last lines, or all",
                    "timestamps": "1: a time before each line",
                    "stdout": "1: only standard output",
                    "stderr": "1: only standard error",
                    "format": "text, ndjson or sse",
                },
            ),
            get(
                "/v1/containers/{id}/stats",
                read(container, "stats"),
                self.stats,
                "A container's use of resources, each second",
                query={
                    "stream": "0: once",
                    "one-shot": "1: do not wait for a second value",
                    "format": "ndjson or sse",
                },
            ),
            get(
                "/v1/events",
                read("docker", "events"),
                self.events,
                "The engine's events and our own operations in one stream, resumable",
                query={"since": "Seconds", "until": "Seconds", "filters": "The engine's filters, JSON"},
                answer=(
                    "`engine`: the engine's; `change`: our status; `gap`: some of these are gone."
                    f" {EVENT_STREAM}"
                ),
            ),
        ]

    async def logs(self, request: Request) -> Response:
        pairs = picked(request, _LOG_QUERY)
        for name, value in pairs:
            if name in _LOG_FORMS and not _LOG_FORMS[name].fullmatch(value):
                raise RequestError(f"query {name}: {value[:64]!r} is neither {_LOG_EXPECTED[name]}")
        asked = request.query_params
        kind = _format(request)
        query = [(name, value) for name, value in pairs if name in ("since", "until", "tail")]
        query += [(n, str(int(flag(asked, n)))) for n in ("follow", "timestamps")]
        both = "stdout" not in asked and "stderr" not in asked
        query += [(n, str(int(flag(asked, n, default=both)))) for n in ("stdout", "stderr")]
        output = await primed(engine_streams.logs(self._engine, container_id(request), query))
        if kind == "sse":
            return EventReply(mapped(texts(output), lambda item: replies.sse_event(*item)))
        if kind == "ndjson":
            lines = mapped(texts(output), lambda item: _line({"stream": item[0], "text": item[1]}))
            return StreamReply(lines, headers={"content-type": "application/x-ndjson"})
        pieces = mapped(output, lambda item: item[1])
        return StreamReply(pieces, headers={"content-type": "text/plain; charset=utf-8"})

    async def stats(self, request: Request) -> Response:
        pairs = picked(request, ("stream", "one-shot", "format"))
        query = [(name, value) for name, value in pairs if name != "format"]
        values = await primed(engine_streams.stats(self._engine, container_id(request), query))
        if _format(request, default="ndjson") == "sse":
            return EventReply(mapped(values, lambda value: replies.sse_event("stats", value)))
        return StreamReply(mapped(values, _line), headers={"content-type": "application/x-ndjson"})

    async def events(self, request: Request) -> Response:
        pairs = picked(request, ("since", "until", "filters"))
        seen_ns, version = _cursors(request.headers.get("last-event-id", ""))
        if seen_ns:
            pairs = [(name, value) for name, value in pairs if name != "since"]
            pairs.append(("since", f"{seen_ns // 10**9}.{seen_ns % 10**9:09d}"))
        source = engine_streams.events(self._engine, pairs, writer=await may_write(request))
        # counted from here: a change between the answer's head and its first event belongs to the reader too
        sent = self._board.version if version is None else version
        return EventReply(_merged(source, self._board, seen_ns, sent))


def _format(request: Request, default: str = "text") -> str:
    kind = request.query_params.get("format", "")
    if not kind and replies.SSE_MEDIA_TYPE in request.headers.get("accept", ""):
        return "sse"
    if kind and kind not in _FORMATS:
        raise RequestError(f"query format: expected one of {', '.join(_FORMATS)}")
    return kind or default


def _line(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _cursors(last: str) -> tuple[int, int | None]:
    """The two cursors of an event id `<engine's nanoseconds>-<board's version>`."""
    engine, _, board = last.partition("-")
    seen_ns, version = natural(engine), natural(board)
    return (0, None) if seen_ns is None or version is None else (seen_ns, version)


async def _merged(
    source: AsyncGenerator[dict[str, Any], None], board: StatusBoard, seen_ns: int, sent: int
) -> AsyncGenerator[bytes, None]:
    """Engine events and board changes as they come; each id carries both cursors, so that either can resume."""
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()

    def on_change() -> None:
        tell(loop, changed.set)

    unsubscribe = board.subscribe(on_change)
    engine_step = asyncio.ensure_future(anext(source))
    board_step = asyncio.ensure_future(changed.wait())
    changed.set()
    try:
        while True:
            await asyncio.wait({engine_step, board_step}, return_when=asyncio.FIRST_COMPLETED)
            if board_step.done():
                changed.clear()
                board_step = asyncio.ensure_future(changed.wait())
                missed = board.events_after(sent)
                if missed is None:
                    sent = board.version
                    yield replies.sse_event("gap", {"version": sent}, f"{seen_ns}-{sent}")
                for change in missed or ():
                    sent = int(change["id"])
                    yield replies.sse_event("change", change, f"{seen_ns}-{sent}")
            if engine_step.done():
                try:
                    item = engine_step.result()
                except StopAsyncIteration:
                    return
                engine_step = asyncio.ensure_future(anext(source))
                stamp = item.get("timeNano", 0)
                if not isinstance(stamp, int) or (seen_ns and stamp <= seen_ns):
                    continue
                seen_ns = stamp
                yield replies.sse_event("engine", item, f"{seen_ns}-{sent}")
    finally:
        unsubscribe()
        for step in (engine_step, board_step):
            step.cancel()
        await asyncio.wait({engine_step, board_step})
        await source.aclose()
