# SPDX-License-Identifier: GPL-2.0-or-later
"""Routes of work that takes a while: jobs, their streams, uploads that become jobs; image updates and roll back.

`api.jobs` defines what a job is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from starlette.requests import Request
from starlette.responses import Response

from agent.api.http import replies
from agent.api.http.replies import EventReply, Inbox, JsonReply, read_json
from agent.api.jobs.job_specs import JobSpec, build_upload, load_spec, parse_job
from agent.api.jobs.jobs import Job, Jobs
from agent.api.port import AgentPort, rollback_of, update_names_of
from agent.api.problems import RequestError, flag, picked
from agent.api.rules import EVENT_STREAM, Rule, delete, get, post, put, read, write
from agent.api.streams.engine_streams import mapped
from agent.model.resources import RegistryAuth

_BUILD_TEXTS = ("dockerfile", "target", "platform", "networkmode")
_BUILD_FLAGS = ("nocache", "pull")


class JobRoutes:
    """`auths` returns UCI's registry logins."""

    def __init__(self, jobs: Jobs, auths: Callable[[], Sequence[RegistryAuth]]) -> None:
        self._jobs = jobs
        self._auths = auths

    def rules(self) -> list[Rule]:
        return [
            post(
                "/v1/jobs",
                write("ucidockd", "job_start"),
                self.start,
                "Starts a pull, push, prune, or a build of a remote context",
                body="json",
                status=202,
            ),
            get("/v1/jobs", read("ucidockd", "job_list"), self.list_all, "The last 100 jobs, newest first"),
            get(
                "/v1/jobs/{id}",
                read("ucidockd", "job_status"),
                self.show,
                "A job: state, progress, result or error",
            ),
            get(
                "/v1/jobs/{id}/stream",
                read("ucidockd", "job_status"),
                self.stream,
                "A job's progress and messages as server-sent events, resumable",
                answer=(
                    "`job`: the whole job in its newest state; `message`: a line of output, each once; "
                    "`gap`: earlier ones are no longer kept."
                    f" {EVENT_STREAM}"
                ),
            ),
            delete("/v1/jobs/{id}", write("ucidockd", "job_cancel"), self.cancel, "Cancels a job"),
            put(
                "/v1/images/load",
                write("docker.image", "load"),
                self.load,
                "Loads images from an archive of `docker save`; answers with a job",
                status=202,
                answer=(
                    "The engine has the whole body, or needs no more of it; the job may still run, or have failed"
                ),
            ),
            put(
                "/v1/builds",
                write("docker.image", "build"),
                self.build,
                "Builds an image from a context sent as tar; answers with a job",
                query={
                    "t": "name:tag; may be repeated",
                    "dockerfile": "Path of the Dockerfile in the context",
                    "target": "The stage to build",
                    "platform": "os/architecture",
                    "networkmode": "Network of the build steps",
                    "nocache": "1: use no cache",
                    "pull": "1: pull the base images again",
                    "buildargs": "JSON object of texts",
                },
                status=202,
                answer=(
                    "The engine has the whole context, or needs no more of it; the job may still run, or "
                    "have failed"
                ),
            ),
        ]

    async def start(self, request: Request) -> Response:
        spec = parse_job(await read_json(request), self._auths())
        return _answer(self._jobs.start(spec), status=202)

    async def list_all(self, request: Request) -> Response:
        del request
        return JsonReply({"jobs": [job.as_json() for job in self._jobs.all()]})

    async def show(self, request: Request) -> Response:
        return _answer(self._job(request))

    async def stream(self, request: Request) -> Response:
        changes = self._job(request).changes(replies.resume_id(request.headers))
        return EventReply(mapped(changes, lambda change: replies.sse_event(*change)))

    async def cancel(self, request: Request) -> Response:
        return _answer(await self._jobs.cancel(self._job(request).id))

    async def load(self, request: Request) -> Response:
        picked(request, ())
        return await self._upload(request, load_spec())

    async def build(self, request: Request) -> Response:
        # turn the query of a build into the form of `job_specs`: repeated `t` are tags, build arguments are JSON
        pairs = picked(request, ("t", "buildargs", *_BUILD_TEXTS, *_BUILD_FLAGS))
        options: dict[str, object] = {name: value for name, value in pairs if name in _BUILD_TEXTS}
        options["tags"] = [value for name, value in pairs if name == "t"]
        options |= {name: flag(request.query_params, name) for name in _BUILD_FLAGS}
        if arguments := request.query_params.get("buildargs"):
            try:
                options["buildargs"] = json.loads(arguments)
            except (ValueError, RecursionError) as exc:
                raise RequestError("query buildargs: expected JSON") from exc
        return await self._upload(request, build_upload(options, self._auths()))

    async def _upload(self, request: Request, spec: JobSpec) -> Response:
        """Answers once the engine has the whole body, or needs no more of it; the job may continue."""
        inbox = Inbox(request)
        job = self._jobs.start(spec, body=inbox, length=inbox.length or None)
        await job.body_taken.wait()
        return _answer(job, status=202)

    def _job(self, request: Request) -> Job:
        return self._jobs.get(str(request.path_params["id"]))


def _answer(job: Job, *, status: int = 200) -> Response:
    return JsonReply({"job": job.as_json()}, status_code=status)


class UpdateRoutes:
    """A check pulls nothing; an update does."""

    def __init__(self, agent: AgentPort) -> None:
        self._agent = agent

    def rules(self) -> list[Rule]:
        return [
            get(
                "/v1/updates",
                read("ucidockd", "updates"),
                self.updates,
                "What the last update check of each container's image found",
            ),
            post(
                "/v1/updates/check",
                write("ucidockd", "updates_check"),  # WRITE, because it contacts registries
                self.check,
                "Asks the registries now for newer images, and answers when all have been asked",
                body="json",
            ),
            post(
                "/v1/update",
                write("ucidockd", "update"),
                self.update,
                "Updates containers to the newest images; answers when that is done, or has to wait",
                body="json",
            ),
            post(
                "/v1/rollback",
                write("ucidockd", "rollback"),
                self.rollback,
                "Takes a container back to its previous image, and answers when that is done",
                body="json",
            ),
        ]

    async def updates(self, request: Request) -> Response:
        del request
        return JsonReply(await self._agent.updates())

    async def check(self, request: Request) -> Response:
        return JsonReply(await self._agent.check_updates(update_names_of(await read_json(request))))

    async def update(self, request: Request) -> Response:
        return JsonReply(await self._agent.update(update_names_of(await read_json(request))))

    async def rollback(self, request: Request) -> Response:
        name, with_data = rollback_of(await read_json(request))
        return JsonReply(await self._agent.rollback(name, with_data=with_data))
