# SPDX-License-Identifier: GPL-2.0-or-later
"""Routes: health, status and its stream, plan, reconcile."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from agent.api.http import replies
from agent.api.http.replies import EventReply, JsonReply, read_json
from agent.api.names import picked
from agent.api.port import AgentPort
from agent.api.problems import RequestError
from agent.api.rules import EVENT_STREAM, PUBLIC, Rule, get, post, read, write
from agent.api.streams.board_feed import board_feed
from agent.api.validation import given_of, validated
from agent.errors import UcidockdError
from agent.status.board import StatusBoard


class SlowReaderError(UcidockdError):
    """A reader of a stream did not keep up."""

    code = "slow-reader"


class StatusRoutes:
    """What the agent says about itself."""

    def __init__(self, agent: AgentPort) -> None:
        self._agent = agent

    def rules(self) -> list[Rule]:
        return [
            get("/healthz", PUBLIC, healthz, "The agent is alive"),
            get(
                "/v1/status",
                read("ucidockd", "status"),
                self.status,
                "Conditions of every resource, facts about the agent; in pages where it is long",
                query={
                    "after": (
                        "The page from the first key past this one on: what `next` of the page before says"
                    ),
                    "limit": "Resources of this page at most",
                },
                answer=("A page of 256 KiB at most, in the order of keys; there is more where it has `next`"),
            ),
            get(
                "/v1/status/stream",
                read("ucidockd", "status"),
                self.stream,
                "The status and each change of it as server-sent events, resumable",
                answer=(
                    "`status` first (in pages as `GET /v1/status` gives them; only the last has an "
                    "id, and no `next`), then a `change` each."
                    f" {EVENT_STREAM}"
                ),
            ),
            get("/v1/plan", read("ucidockd", "plan"), self.plan, "What would be done, and why"),
            post(
                "/v1/plan",
                write("ucidockd", "preview"),  # files that the text names are read
                self.preview,
                "What would be done, were staged changes or a given text committed; nothing is written",
                body="json",
            ),
            post(
                "/v1/reconcile",
                write("ucidockd", "reconcile"),
                self.reconcile,
                "Do it now; answers when it and what was under way are ended",
            ),
            post(
                "/v1/validate",
                write("ucidockd", "validate"),  # env files that the text names are read
                self.validate,
                "Checks UCI text as `ucidockd check` would; nothing is written",
                body="json",
            ),
        ]

    async def status(self, request: Request) -> Response:
        asked = dict(picked(request, ("after", "limit")))
        limit = asked.get("limit", "1")
        if not (limit.isascii() and limit.isdigit() and 0 < int(limit) < 10**6):
            raise RequestError(f"query limit: {limit[:64]!r} is not a number of resources, 1 at least")
        return JsonReply(self._agent.board.page(asked.get("after", ""), int(asked.get("limit", 0))))

    async def stream(self, request: Request) -> Response:
        return EventReply(status_events(self._agent.board, replies.resume_id(request.headers)))

    async def plan(self, request: Request) -> Response:
        del request
        return JsonReply(await self._agent.plan())

    async def preview(self, request: Request) -> Response:
        return JsonReply(await self._agent.plan(given_of(await read_json(request))))

    async def reconcile(self, request: Request) -> Response:
        del request
        return JsonReply(await self._agent.reconcile())

    async def validate(self, request: Request) -> Response:
        """`{package: text}`; a package that is not given counts as it is committed."""
        return JsonReply(await validated(self._agent, await read_json(request)))


async def healthz(request: Request) -> Response:
    """A constant: it needs no session."""
    del request
    return PlainTextResponse("ok\n")


async def status_events(board: StatusBoard, resume: int | None) -> AsyncGenerator[bytes, None]:
    """The status in pages, then changes, as server-sent events. Resumes after id `resume` where the ring still reaches.

    A reader that falls behind the ring while it is here is dropped and told why; when it comes back, it gets the
    whole status. Raises SlowReaderError.
    """
    feed = board_feed(board, resume)
    follows = False
    try:
        async for name, data, number in feed:
            if name == "status" and follows and "after" not in data:
                raise SlowReaderError("this reader is too slow: changes that it has not read are gone")
            follows = True
            yield replies.sse_event(name, data, number)
    finally:
        await feed.aclose()
