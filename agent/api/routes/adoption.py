# SPDX-License-Identifier: GPL-2.0-or-later
"""Routes: a running container -> UCI sections, and one container's desired state against what the engine shows."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from agent.api.http.replies import JsonReply, read_json
from agent.api.names import checked_id, container_id, text
from agent.api.port import AgentPort
from agent.api.problems import RequestError
from agent.api.rules import Rule, get, post, read, write

_SWITCHES = ("commit", "show_secrets")


class AdoptionRoutes:
    """What runs, into the configuration."""

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
            get(
                "/v1/containers/{id}/diff",
                read("ucidockd", "plan"),
                self.diff,
                "A container section (by its or by the Docker name) against what the engine shows",
            ),
        ]

    async def adopt(self, request: Request) -> Response:
        body = await read_json(request)
        unknown = sorted(body.keys() - {"container", "section", *_SWITCHES})
        if unknown:
            raise RequestError(
                f"{unknown[0][:64]!r} is not known; known: container, section, commit, show_secrets"
            )
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

    async def diff(self, request: Request) -> Response:
        return JsonReply(await self._agent.diff(container_id(request)))
