# SPDX-License-Identifier: GPL-2.0-or-later
"""Route: metrics for Prometheus."""

from __future__ import annotations

import os
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from agent.api.http.replies import StreamReply
from agent.api.jobs.jobs import Jobs, JobState
from agent.api.jobs.transfers import Transfers
from agent.api.port import AgentPort
from agent.api.rules import Rule, get, read
from agent.status.metrics import MEDIA_TYPE, Labels, Metric, board_metrics, format_metrics, many, one


class MetricsRoutes:
    """What can be counted."""

    def __init__(self, agent: AgentPort, jobs: Jobs, transfers: Transfers) -> None:
        self._agent = agent
        self._jobs = jobs
        self._transfers = transfers

    def rules(self) -> list[Rule]:
        return [
            get("/metrics", read("ucidockd", "status"), self.metrics, "Metrics in Prometheus' text format")
        ]

    async def metrics(self, request: Request) -> Response:
        del request
        metrics = board_metrics(self._agent.board.snapshot(), self._agent.passes)
        text = format_metrics([*metrics, *self._controller(), *_process()])
        return Response(text, headers={"content-type": MEDIA_TYPE})

    def _controller(self) -> list[Metric]:
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
                "Transfers in parts that are not over.",
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
