# SPDX-License-Identifier: GPL-2.0-or-later
"""The routes of the control socket: health, status and its stream, plan and reconcile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from agent.controller.port import AgentPort
from agent.errors import EngineError, UcidockdError
from agent.status.board import StatusBoard

HEARTBEAT_S = 15.0


def make_app(agent: AgentPort) -> Starlette:
    """The application over a running agent."""

    async def healthz(request: Request) -> Response:
        del request
        return PlainTextResponse("ok\n")

    async def status(request: Request) -> Response:
        del request
        return JSONResponse(agent.board.snapshot())

    async def stream(request: Request) -> Response:
        last = request.headers.get("last-event-id", "")
        resume = int(last) if last.isascii() and last.isdigit() else None
        headers = {"Cache-Control": "no-store"}
        return StreamingResponse(
            status_events(agent.board, resume), media_type="text/event-stream", headers=headers
        )

    async def plan(request: Request) -> Response:
        del request
        return JSONResponse(await agent.plan())

    async def reconcile(request: Request) -> Response:
        del request
        return JSONResponse(await agent.reconcile())

    routes = [
        Route("/healthz", healthz),
        Route("/v1/status", status),
        Route("/v1/status/stream", stream),
        Route("/v1/plan", plan),
        Route("/v1/reconcile", reconcile, methods=["POST"]),
    ]
    return Starlette(
        routes=routes, exception_handlers={UcidockdError: _on_error, HTTPException: _on_http_error}
    )


async def _on_error(request: Request, exc: Exception) -> Response:
    del request
    code = exc.code if isinstance(exc, UcidockdError) else "internal"
    return _error(502 if isinstance(exc, EngineError) else 409, code, str(exc))


async def _on_http_error(request: Request, exc: Exception) -> Response:
    status = exc.status_code if isinstance(exc, HTTPException) else 500
    return _error(
        status, f"http-{status}", f"{request.method} {request.url.path}: {getattr(exc, 'detail', exc)}"
    )


def _error(status: int, code: str, message: str) -> Response:
    return JSONResponse({"error": {"code": code, "message": message}}, status_code=status)


async def status_events(board: StatusBoard, resume: int | None) -> AsyncIterator[str]:
    """Server-sent events: a snapshot, then changes. Resumes after id `resume` where the ring still reaches.

    A reader that falls behind the ring gets a new snapshot instead of what it missed: it slows nobody down.
    """
    loop = asyncio.get_running_loop()
    wake = asyncio.Event()

    def changed() -> None:
        loop.call_soon_threadsafe(wake.set)

    unsubscribe = board.subscribe(changed)
    try:
        sent = resume
        while True:
            wake.clear()
            events = board.events_after(sent) if sent is not None else None
            if sent is None or events is None:
                snapshot = board.snapshot()
                sent = int(snapshot["version"])
                yield _sse("status", sent, snapshot)
                continue
            for event in events:
                sent = int(event["id"])
                yield _sse("change", sent, event)
            try:
                await asyncio.wait_for(wake.wait(), HEARTBEAT_S)
            except TimeoutError:
                yield ": still here\n\n"
    finally:
        unsubscribe()


def _sse(name: str, number: int, body: dict[str, Any]) -> str:
    return f"id: {number}\nevent: {name}\ndata: {json.dumps(body)}\n\n"
