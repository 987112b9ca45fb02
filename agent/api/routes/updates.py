# SPDX-License-Identifier: GPL-2.0-or-later
"""Routes about newer images: what the last check found, a check now, updates, and the way back."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from agent.api.http.replies import JsonReply, read_json
from agent.api.port import AgentPort, rollback_of, update_names_of
from agent.api.rules import Rule, get, post, read, write


class UpdateRoutes:
    """A check pulls nothing, an update does."""

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
                write("ucidockd", "updates_check"),  # it makes requests to others
                self.check,
                "Asks the registries now whether tags name newer images, and answers when they have been asked",
                body="json",
            ),
            post(
                "/v1/update",
                write("ucidockd", "update"),
                self.update,
                "Replaces containers by ones of the newest images; answers when that is done, or waits for something",
                body="json",
            ),
            post(
                "/v1/rollback",
                write("ucidockd", "rollback"),
                self.rollback,
                "Takes a container back to the image before, and answers when that is done",
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
