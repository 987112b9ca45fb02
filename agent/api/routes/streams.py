# SPDX-License-Identifier: GPL-2.0-or-later
"""Routes: logs, stats and events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from agent.api.access.access import may_write
from agent.api.http import replies
from agent.api.http.replies import EventReply, StreamReply, attachment
from agent.api.problems import RequestError, container_id, flag, picked
from agent.api.rules import EVENT_STREAM, Rule, get, read
from agent.api.streams import engine_streams
from agent.api.streams.engine_streams import mapped, primed, texts
from agent.api.streams.logs import (
    CONTAINERS_MAX,
    OPTIONS,
    checked_containers,
    log_options,
    logs,
    merged,
    merged_text,
)
from agent.engine.stream import DockerStream
from agent.status.board import StatusBoard
from agent.threads import tell
from agent.wire.bodies import encode_frame
from agent.wire.http_head import natural

_LOG_QUERY = (*OPTIONS, "format", "download")
_FORMATS = ("text", "ndjson", "sse")
_LOG_FORMATS = (*_FORMATS, "frames")
_FRAMES = "application/vnd.docker.multiplexed-stream"
_NDJSON, _TEXT = "application/x-ndjson", "text/plain; charset=utf-8"
_LOG_WORDS = {
    "follow": "1: follow the output, also that of a container that replaces it",
    "since": "Seconds since 1970, RFC 3339, or a duration back from now such as 10m",
    "until": "The same",
    "tail": "Last lines, or all",
    "timestamps": "1: the time before each line, RFC 3339 with nanoseconds",
    "stdout": "1: only standard output",
    "stderr": "1: only standard error",
    "grep": "Only lines that contain this text, in upper or lower case; reads at most 64 MiB of output",
    "download": "1: as a file to save",
}


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
                "A container's output by its name, its id or its section: text, ndjson, server-sent events or frames",
                query={
                    **_LOG_WORDS,
                    "format": "text, ndjson, sse, or frames (the engine's, with the stream of each piece)",
                },
            ),
            get(
                "/v1/logs",
                read("ucidockd", "logs"),
                self.merged_logs,
                "The output of several containers, merged by time: text, ndjson or server-sent events",
                query={
                    "containers": f"Names, ids or sections, separated by commas; at most {CONTAINERS_MAX}",
                    **_LOG_WORDS,
                    "format": "text, ndjson or sse; the latter two give container, time, stream and text",
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
                    "`engine`: the engine's; `change`: our status; `gap`: some of these are no longer kept."
                    f" {EVENT_STREAM}"
                ),
            ),
        ]

    async def logs(self, request: Request) -> Response:
        pairs = picked(request, _LOG_QUERY)
        kind = _format(request, _LOG_FORMATS)
        container = container_id(request)
        # wait a moment for the first piece: a wrong name becomes an HTTP status, not a broken stream
        output = await primed(logs(self._engine, self._board, container, log_options(dict(pairs))))
        headers = _saved_as(request, f"{container[:64]}.log")
        if kind == "sse":
            return EventReply(mapped(texts(output), lambda item: replies.sse_event(*item)))
        if kind == "ndjson":
            lines = mapped(texts(output), lambda item: _line({"stream": item[0], "text": item[1]}))
            return StreamReply(lines, headers={"content-type": _NDJSON, **headers})
        if kind == "frames":
            frames = mapped(output, lambda item: encode_frame(*item))
            return StreamReply(frames, headers={"content-type": _FRAMES, **headers})
        pieces = mapped(output, lambda item: item[1])
        return StreamReply(pieces, headers={"content-type": _TEXT, **headers})

    async def merged_logs(self, request: Request) -> Response:
        pairs = picked(request, (*_LOG_QUERY, "containers"))
        kind = _format(request)
        asked = request.query_params
        containers = checked_containers(asked.get("containers", "").split(","))
        options = log_options(dict(pairs))
        # wait for the first line, while an error of the engine can still be an HTTP status
        lines = await primed(merged(self._engine, self._board, containers, options))
        headers = _saved_as(request, "containers.log")
        if kind == "sse":
            return EventReply(mapped(lines, lambda line: replies.sse_event("line", line.as_json())))
        if kind == "ndjson":
            found = mapped(lines, lambda line: _line(line.as_json()))
            return StreamReply(found, headers={"content-type": _NDJSON, **headers})
        pieces = merged_text(lines, containers, options)
        return StreamReply(pieces, headers={"content-type": _TEXT, **headers})

    async def stats(self, request: Request) -> Response:
        pairs = picked(request, ("stream", "one-shot", "format"))
        query = [(name, value) for name, value in pairs if name != "format"]
        values = await primed(engine_streams.stats(self._engine, container_id(request), query))
        if _format(request, default="ndjson") == "sse":
            return EventReply(mapped(values, lambda value: replies.sse_event("stats", value)))
        return StreamReply(mapped(values, _line), headers={"content-type": _NDJSON})

    async def events(self, request: Request) -> Response:
        pairs = picked(request, ("since", "until", "filters"))
        # the id has two cursors, `<engine's nanoseconds>-<board's version>`; an id with only one is not ours
        engine, _, changes = request.headers.get("last-event-id", "").partition("-")
        seen_ns, version = natural(engine), natural(changes)
        if seen_ns is None or version is None:
            seen_ns, version = 0, None
        if seen_ns:
            pairs = [(name, value) for name, value in pairs if name != "since"]
            pairs.append(("since", f"{seen_ns // 10**9}.{seen_ns % 10**9:09d}"))
        source = engine_streams.events(self._engine, pairs, writer=await may_write(request))
        # from here on, so that changes before the first event are not lost
        sent = self._board.version if version is None else version
        return EventReply(_merged(source, self._board, seen_ns, sent))


def _saved_as(request: Request, title: str) -> dict[str, str]:
    return attachment(title) if flag(request.query_params, "download") else {}


def _format(request: Request, known: Sequence[str] = _FORMATS, default: str = "text") -> str:
    kind = request.query_params.get("format", "")
    if not kind and replies.SSE_MEDIA_TYPE in request.headers.get("accept", ""):
        return "sse"
    if kind and kind not in known:
        raise RequestError(f"query format: expected one of {', '.join(known)}")
    return kind or default


def _line(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


async def _merged(
    source: AsyncGenerator[dict[str, Any], None], board: StatusBoard, seen_ns: int, sent: int
) -> AsyncGenerator[bytes, None]:
    """Engine events and board changes as they come. Each id carries both cursors, so that both resume."""
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()

    def on_change() -> None:
        tell(loop, changed.set)

    unsubscribe = board.subscribe(on_change)
    engine_step = asyncio.ensure_future(anext(source))
    # a step that is not done is kept for the next round: cancelling an `anext` would close the engine's generator
    board_step = asyncio.ensure_future(changed.wait())
    changed.set()
    try:
        while True:
            await asyncio.wait({engine_step, board_step}, return_when=asyncio.FIRST_COMPLETED)
            if board_step.done():
                changed.clear()
                board_step = asyncio.ensure_future(changed.wait())
                missed = board.events_after(sent)
                # the reader was away longer than the ring reaches: it has to read the status again
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
                # `since` is inclusive, so the engine sends the last event again
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
