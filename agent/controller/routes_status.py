# SPDX-License-Identifier: GPL-2.0-or-later
"""Routes: health, status and its stream, plan, reconcile."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from agent.controller import sse
from agent.controller.board_feed import board_feed
from agent.controller.port import AgentPort
from agent.controller.replies import EventReply
from agent.controller.rules import PUBLIC, Rule, read, write
from agent.status.board import StatusBoard


class StatusRoutes:
    """What the agent says about itself."""

    def __init__(self, agent: AgentPort) -> None:
        self._agent = agent

    def rules(self) -> list[Rule]:
        return [
            Rule(method="GET", path="/healthz", grant=PUBLIC, handler=healthz, summary="The agent is alive"),
            Rule(
                method="GET",
                path="/v1/status",
                grant=read("ucidockd", "status"),
                handler=self.status,
                summary="Conditions of every resource, facts about the agent",
            ),
            Rule(
                method="GET",
                path="/v1/status/stream",
                grant=read("ucidockd", "status"),
                handler=self.stream,
                summary="The status and each change of it as server-sent events, resumable",
            ),
            Rule(
                method="GET",
                path="/v1/plan",
                grant=read("ucidockd", "plan"),
                handler=self.plan,
                summary="What would be done, and why",
            ),
            Rule(
                method="POST",
                path="/v1/reconcile",
                grant=write("ucidockd", "reconcile"),
                handler=self.reconcile,
                summary="Do it now",
            ),
        ]

    async def status(self, request: Request) -> Response:
        del request
        return JSONResponse(self._agent.board.snapshot())

    async def stream(self, request: Request) -> Response:
        last = request.headers.get("last-event-id", "")
        resume = int(last) if last.isascii() and last.isdigit() else None
        return EventReply(status_events(self._agent.board, resume))

    async def plan(self, request: Request) -> Response:
        del request
        return JSONResponse(await self._agent.plan())

    async def reconcile(self, request: Request) -> Response:
        del request
        return JSONResponse(await self._agent.reconcile())


async def healthz(request: Request) -> Response:
    """A constant: it needs no session."""
    del request
    return PlainTextResponse("ok\n")


async def status_events(board: StatusBoard, resume: int | None) -> AsyncGenerator[bytes, None]:
    """A snapshot, then changes, as server-sent events."""
    feed = board_feed(board, resume)
    try:
        async for name, data, number in feed:
            yield sse.event(name, data, number)
    finally:
        await feed.aclose()
