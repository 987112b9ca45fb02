# SPDX-License-Identifier: GPL-2.0-or-later
"""Routes of the agent itself: health, status and its stream, plan, reconcile, adoption, dockerd, tickets and metrics."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from agent.api.access.access import TICKET_LIFE_S, Access, AccessError, caller_of
from agent.api.http import replies
from agent.api.http.replies import EventReply, JsonReply, StreamReply, read_json
from agent.api.http.routing import matching_socket
from agent.api.jobs.jobs import Jobs, JobState
from agent.api.jobs.transfers import Transfers
from agent.api.port import (
    LOAD_HOURS,
    STARTED,
    AgentPort,
    client_bundle,
    given_of,
    import_request_of,
    load_of,
    move_target_of,
    prune_request_of,
    revert_of,
    start_move,
    validated,
)
from agent.api.problems import RequestError, checked_id, container_id, picked, refuse_unknown, text
from agent.api.rules import EVENT_STREAM, PUBLIC, READER, Rule, get, post, read, write
from agent.api.streams.stream_sources import board_feed
from agent.data.backups import Backups
from agent.errors import UcidockdError
from agent.model.dockerd.settings import DaemonAction
from agent.status.board import StatusBoard
from agent.status.metrics import MEDIA_TYPE, Labels, Metric, board_metrics, format_metrics, many, one

_SETTLE_MAX_S = 60


class SlowReaderError(UcidockdError):
    """A reader of a stream did not keep up."""

    code = "slow-reader"


class StatusRoutes:
    """The agent's status, and what it can be asked to do."""

    def __init__(self, agent: AgentPort) -> None:
        self._agent = agent

    def rules(self) -> list[Rule]:
        return [
            get("/healthz", PUBLIC, healthz, "The agent is alive"),
            get(
                "/v1/status",
                read("ucidockd", "status"),
                self.status,
                "Conditions of every resource and facts about the agent, in pages if that is long",
                query={
                    "after": ("Starts the page after this key: the `next` of the previous page"),
                    "limit": "Maximum number of resources on the page",
                },
                answer=("A page of at most 256 KiB, sorted by key; it has `next` if there are more"),
            ),
            get(
                "/v1/status/stream",
                read("ucidockd", "status"),
                self.stream,
                "The status and each change as server-sent events, resumable",
                answer=(
                    "`status` first (in pages like those of `GET /v1/status`; only the last has an "
                    "id and no `next`), then a `change` for each change."
                    f" {EVENT_STREAM}"
                ),
            ),
            get(
                "/v1/load",
                read("ucidockd", "load"),
                self.load,
                "The load of each container: processor, memory and its limit, network, restarts; takes a second",
            ),
            get(
                "/v1/load/{id}",
                read("ucidockd", "load"),
                self.load_of_one,
                "The load of a section's container, one value per minute (null if it is not known)",
                query={"hours": "How far back, at most 24"},
            ),
            get(
                "/v1/reach",
                read("ucidockd", "reach"),
                self.reach,
                "The firewall zones that reach the published ports of each running container, managed or not",
            ),
            get(
                "/v1/plan",
                read("ucidockd", "plan"),
                self.plan,
                "The operations that a pass would start now, and why",
            ),
            post(
                "/v1/plan",
                write("ucidockd", "preview"),  # WRITE, because it reads files that the text names
                self.preview,
                "The plan if staged changes or a given text were committed; nothing is written",
                body="json",
            ),
            post(
                "/v1/reconcile",
                write("ucidockd", "reconcile"),
                self.reconcile,
                "Applies the configuration now; answers when the pass and all operations have ended",
                query={
                    "settle": f"Seconds that a started container has to run to count as started; 0 to {_SETTLE_MAX_S}"
                },
            ),
            post(
                "/v1/prune",
                write("ucidockd", "prune"),
                self.prune,
                "Removes images that nothing needs, and parts of the build cache; `dry_run` only shows them",
                body="json",
                answer="What is removed, with names and bytes, and what is kept and why; volumes are never touched",
            ),
            post(
                "/v1/notify/test",
                write("ucidockd", "notify_test"),
                self.notify_test,
                "Sends a test notice through one notify section, and says whether it was delivered",
                body="json",
            ),
            post(
                "/v1/validate",
                write("ucidockd", "validate"),  # WRITE, because it reads env files that the text names
                self.validate,
                "Checks UCI text as `ucidockd check` would; nothing is written",
                body="json",
            ),
        ]

    async def status(self, request: Request) -> Response:
        asked = dict(picked(request, ("after", "limit")))
        limit = asked.get("limit", "1")
        if not (limit.isascii() and limit.isdigit() and 0 < int(limit) < 10**6):
            raise RequestError("limit: expected a number of resources, at least 1")
        return JsonReply(self._agent.board.page(asked.get("after", ""), int(asked.get("limit", 0))))

    async def stream(self, request: Request) -> Response:
        return EventReply(status_events(self._agent.board, replies.resume_id(request.headers)))

    async def load(self, request: Request) -> Response:
        picked(request, ())
        return JsonReply(await self._agent.load())

    async def load_of_one(self, request: Request) -> Response:
        asked = dict(picked(request, ("hours",)))
        return JsonReply(await load_of(self._agent, container_id(request), asked.get("hours", LOAD_HOURS)))

    async def reach(self, request: Request) -> Response:
        picked(request, ())
        return JsonReply(await self._agent.reach())

    async def plan(self, request: Request) -> Response:
        del request
        return JsonReply(await self._agent.plan())

    async def preview(self, request: Request) -> Response:
        return JsonReply(await self._agent.plan(given_of(await read_json(request))))

    async def reconcile(self, request: Request) -> Response:
        settle = dict(picked(request, ("settle",))).get("settle", "0")
        if not re.fullmatch(r"[0-9]{1,2}", settle) or int(settle) > _SETTLE_MAX_S:
            raise RequestError(
                f"query settle: {settle[:64]!r} is not a number of seconds from 0 to {_SETTLE_MAX_S}"
            )
        return JsonReply(await self._agent.reconcile(settle_s=int(settle)))

    async def prune(self, request: Request) -> Response:
        return JsonReply(await self._agent.prune(prune_request_of(await read_json(request))))

    async def notify_test(self, request: Request) -> Response:
        body = await read_json(request)
        refuse_unknown(body, ("name",))
        return JsonReply(await self._agent.notify_test(text(body, "name")))

    async def validate(self, request: Request) -> Response:
        """`{package: text}`; for a package that is missing, the committed text counts."""
        return JsonReply(await validated(self._agent, await read_json(request)))


async def healthz(request: Request) -> Response:
    """A constant answer, which needs no session."""
    del request
    return PlainTextResponse("ok\n")


async def status_events(board: StatusBoard, resume: int | None) -> AsyncGenerator[bytes, None]:
    """The status in pages, then changes, as server-sent events. Resumes after id `resume` if the ring still has it.

    A reader that falls behind the ring is dropped with an error that says so; when it reconnects, it gets the whole
    status. Raises SlowReaderError.
    """
    feed = board_feed(board, resume)
    follows = False
    try:
        async for name, data, number in feed:
            # a second whole status means that the ring moved on before this reader read it
            if name == "status" and follows and "after" not in data:
                raise SlowReaderError("this reader is too slow: changes that it has not read are gone")
            follows = True
            yield replies.sse_event(name, data, number)
    finally:
        await feed.aclose()


_SWITCHES = ("commit", "show_secrets")  # only a real boolean may commit or show secrets


class AdoptionRoutes:
    """Turns running containers, run lines and compose files into UCI sections, and back."""

    def __init__(self, agent: AgentPort) -> None:
        self._agent = agent

    def rules(self) -> list[Rule]:
        return [
            post(
                "/v1/adopt",
                write("ucidockd", "adopt"),
                self.adopt,
                "A running container as UCI sections: a preview, or committed",
                body="json",
            ),
            post(
                "/v1/import",
                write("ucidockd", "import"),
                self.import_text,
                "A docker run line or a compose file as UCI sections with a report: a preview, or committed",
                body="json",
            ),
            get(
                "/v1/export",
                write("ucidockd", "export"),  # WRITE, because the answer contains secrets
                self.export_text,
                "Container sections as docker run lines or as a compose file",
                query={
                    "format": "run (the default) or compose",
                    "names": "Sections or Docker names, separated by commas; all if it is missing",
                },
            ),
            get(
                "/v1/containers/{id}/diff",
                read("ucidockd", "diff"),
                self.diff,
                "Compares a container section (by its own or its Docker name) with the engine",
            ),
            get(
                "/v1/containers/{id}/describe",
                read("ucidockd", "describe"),
                self.describe,
                "Everything about a container section: options and their origin, conditions, networks, ports",
            ),
            get(
                "/v1/containers/{id}/history",
                write("ucidockd", "history"),  # WRITE, because the answer contains secrets
                self.history,
                "The settings that a container section has had, newest first",
            ),
            post(
                "/v1/containers/{id}/revert",
                write("ucidockd", "revert"),
                self.revert,
                "Restores earlier settings of a section: a preview, or committed",
                body="json",
            ),
        ]

    async def adopt(self, request: Request) -> Response:
        body = await read_json(request)
        refuse_unknown(body, ("container", "section", *_SWITCHES))
        # only real booleans may commit: in Python the text "false" is true
        for name in _SWITCHES:
            if not isinstance(body.get(name, False), bool):
                raise RequestError(f"{name}: expected true or false")
        answer = await self._agent.adopt(
            checked_id(text(body, "container")),
            section=text(body, "section"),
            commit=body.get("commit", False),
            show_secrets=body.get("show_secrets", False),
        )
        return JsonReply(answer)

    async def import_text(self, request: Request) -> Response:
        return JsonReply(await self._agent.import_text(import_request_of(await read_json(request))))

    async def export_text(self, request: Request) -> Response:
        asked = dict(picked(request, ("format", "names")))
        names = [name for name in asked.get("names", "").split(",") if name]
        return JsonReply({"text": self._agent.export_text(asked.get("format", "run"), names)})

    async def diff(self, request: Request) -> Response:
        return JsonReply(await self._agent.diff(container_id(request)))

    async def describe(self, request: Request) -> Response:
        return JsonReply(await self._agent.describe(container_id(request)))

    async def history(self, request: Request) -> Response:
        return JsonReply(await self._agent.history(container_id(request)))

    async def revert(self, request: Request) -> Response:
        number, commit = revert_of(await read_json(request))
        return JsonReply(await self._agent.revert(container_id(request), number, commit=commit))


_SUMMARIES = {
    DaemonAction.START: "Starts a dockerd that was stopped manually",
    DaemonAction.STOP: "Stops dockerd until it is started again or a reconcile is requested",
    DaemonAction.RESTART: "Restarts dockerd; containers keep running if live-restore allows it",
}


class DaemonRoutes:
    """Manual control of dockerd, and of the place of its data."""

    def __init__(self, agent: AgentPort, jobs: Jobs) -> None:
        self._agent, self._jobs = agent, jobs

    def rules(self) -> list[Rule]:
        return [
            *(
                post(
                    f"/v1/dockerd/{wish}",
                    write("ucidockd", f"dockerd_{wish}"),
                    self._wished(wish),
                    _SUMMARIES[wish],
                )
                for wish in DaemonAction
            ),
            post(
                "/v1/move-data/check",
                # WRITE, because it looks at paths that the caller names
                write("ucidockd", "move_data_check"),
                self.look_at_move,
                "Previews a move of Docker's data to the folder `target`: sizes, what stops and for how long",
                body="json",
            ),
            post(
                "/v1/move-data",
                write("ucidockd", "move_data"),
                self.move,
                "Moves Docker's data to the folder `target`, as a job; the same engine runs there afterwards",
                body="json",
                status=202,
            ),
            post(
                "/v1/tls/clients",
                write("ucidockd", "tls_client"),
                self.client,
                "Certificates for a new client of dockerd's TLS: anyone who has them controls the router",
                body="json",
            ),
        ]

    def _wished(self, wish: DaemonAction) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            del request
            await self._agent.dockerd(wish)
            return JsonReply(STARTED)

        return handle

    async def look_at_move(self, request: Request) -> Response:
        return JsonReply(await self._agent.look_at_move(move_target_of(await read_json(request))))

    async def move(self, request: Request) -> Response:
        return JsonReply(start_move(self._agent, self._jobs, await read_json(request)), status_code=202)

    async def client(self, request: Request) -> Response:
        body = await read_json(request)
        refuse_unknown(body, ("name", "days"))
        return JsonReply(await client_bundle(self._agent, body))


class TicketRoutes:
    """Issues the tickets that `guard` redeems."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def rules(self) -> list[Rule]:
        return [
            post(
                "/v1/tickets",
                READER,
                self.issue,
                "A single-use ticket for one WebSocket: {path} gives {ticket, expires_s}",
                body="json",
            )
        ]

    async def issue(self, request: Request) -> Response:
        caller = caller_of(request)
        if caller.is_root:
            raise RequestError("the control socket needs no ticket")
        path = text(await read_json(request), "path")
        # tickets are for WebSockets only: everywhere else a client can set the `Authorization` header
        rule = matching_socket(request.scope, path)
        if rule is None:
            raise RequestError("path: expected the path of a WebSocket, such as /v1/exec/<id>/ws", status=404)
        # check the right of the WebSocket's route, not of this one: a ticket must not give a reader a console
        if not await caller.may(rule.grant):
            raise AccessError("this session may not do that", status=403)
        ticket = self._access.tickets.issue(session=caller.session, path=path, client=caller.client)
        return JSONResponse({"ticket": ticket, "expires_s": TICKET_LIFE_S})


class MetricsRoutes:
    """The metrics in Prometheus' text format."""

    def __init__(self, agent: AgentPort, jobs: Jobs, transfers: Transfers, backups: Backups) -> None:
        self._agent = agent
        self._jobs = jobs
        self._transfers = transfers
        self._backups = backups

    def rules(self) -> list[Rule]:
        return [
            get("/metrics", read("ucidockd", "status"), self.metrics, "Metrics in Prometheus' text format")
        ]

    async def metrics(self, request: Request) -> Response:
        del request
        metrics = board_metrics(self._agent.board.snapshot(), self._agent.passes)
        groups = (metrics, self._agent.load_metrics(), self._controller(), self._saved(), _process())
        text = format_metrics([metric for group in groups for metric in group])
        return Response(text, headers={"content-type": MEDIA_TYPE})

    def _saved(self) -> list[Metric]:
        known = self._backups.metrics()
        # without backups no metric at all: one that is always 0 would raise alarms for a feature that is off
        if not known:
            return []
        last: dict[Labels, float] = {(("backup", name),): found.succeeded for name, found in known.items()}
        failed: dict[Labels, float] = {
            (("backup", name),): float(bool(found.message)) for name, found in known.items()
        }
        return [
            many(
                "ucidockd_backup_last_success_timestamp_seconds",
                "gauge",
                "Time of the last successful backup, 0 for never.",
                last,
            ),
            many("ucidockd_backup_failed", "gauge", "1 if the last backup failed.", failed),
        ]

    def _controller(self) -> list[Metric]:
        # counters of this process: they restart at 0 with it, as Prometheus expects of a counter
        running = sum(job.state is JobState.RUNNING for job in self._jobs.all())
        ended: dict[Labels, float] = {
            (("kind", kind), ("state", state)): count for (kind, state), count in self._jobs.ended.items()
        }
        return [
            one("ucidockd_jobs_running", "gauge", "Jobs that are running.", running),
            many("ucidockd_jobs_ended_total", "counter", "Jobs that ended, by kind and state.", ended),
            one("ucidockd_streams_open", "gauge", "Answers that are being streamed.", StreamReply.open),
            one(
                "ucidockd_transfers_open",
                "gauge",
                "Transfers in parts that have not ended.",
                self._transfers.open,
            ),
        ]


def _process() -> list[Metric]:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return [
        one(
            "process_resident_memory_bytes",
            "gauge",
            "Resident memory.",
            pages * os.sysconf("SC_PAGE_SIZE"),
        ),
        one("process_open_fds", "gauge", "Open file descriptors.", len(os.listdir("/proc/self/fd"))),
    ]
