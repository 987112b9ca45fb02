# SPDX-License-Identifier: GPL-2.0-or-later
"""Jobs on ubus: the methods `job_*` and `validate` of the object `ucidockd`, and the stream that follows a job."""

from __future__ import annotations

from agent.api.jobs.job_specs import parse_job
from agent.api.jobs.jobs import Jobs
from agent.api.names import text
from agent.api.port import AgentPort
from agent.api.problems import RequestError
from agent.api.rules import read
from agent.api.streams.stream_sources import Args, Kind, OutputOnly, Source, json_item
from agent.api.streams.wrappers import mapped
from agent.api.validation import validated
from agent.ubus.objects import ARRAY, BOOLEAN, SESSION, STRING, TABLE, Arguments, Method, Reply

_TEXTS = (
    "kind", "image", "platform", "source", "remote", "dockerfile", "target", "networkmode", "what", "until",
)  # fmt: skip
_START = {
    **dict.fromkeys(_TEXTS, STRING),
    **dict.fromkeys(("nocache", "pull", "all"), BOOLEAN),
    **dict.fromkeys(("auth", "buildargs"), TABLE),
    "tags": ARRAY,
}


class JobMethods:
    """The same jobs as on HTTP, with the same arguments and answers."""

    def __init__(self, agent: AgentPort, jobs: Jobs) -> None:
        self._agent = agent
        self._jobs = jobs

    def methods(self) -> dict[str, Method]:
        """To be published."""
        return {
            "job_start": Method(handler=self._start, args=_START),
            "job_status": Method(handler=self._status, args={"id": STRING}),
            "job_list": Method(handler=self._list),
            "job_cancel": Method(handler=self._cancel, args={"id": STRING}),
            "validate": Method(handler=self._validate, args={"packages": TABLE}),
        }

    async def _start(self, args: Arguments) -> Reply:
        asked = {name: value for name, value in args.items() if name != SESSION}
        return {"job": self._jobs.start(parse_job(asked, self._agent.auths())).as_json()}

    async def _status(self, args: Arguments) -> Reply:
        return {"job": self._jobs.get(text(args, "id")).as_json()}

    async def _list(self, args: Arguments) -> Reply:
        del args
        return {"jobs": [job.as_json() for job in self._jobs.all()]}

    async def _cancel(self, args: Arguments) -> Reply:
        return {"job": (await self._jobs.cancel(text(args, "id"))).as_json()}

    async def _validate(self, args: Arguments) -> Reply:
        return await validated(self._agent, args.get("packages", {}))


def job_kinds(jobs: Jobs) -> dict[str, Kind]:
    """The stream of one job, of the argument `id`: `message`, `gap`, and `job`, the newest state only."""
    return {"job": Kind(grant=read("ucidockd", "job_status"), open=lambda args: _follow(jobs, args))}


def _follow(jobs: Jobs, args: Args) -> Source:
    if args.keys() != {"id"}:
        raise RequestError("expected the argument id, of a job")
    job = jobs.get(text(args, "id"))
    return OutputOnly(lambda: mapped(job.changes(), lambda change: json_item(change[0], change[1])))
