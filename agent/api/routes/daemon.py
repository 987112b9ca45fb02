# SPDX-License-Identifier: GPL-2.0-or-later
"""Routes: dockerd started, stopped or restarted by hand, and certificates for its clients."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from agent.api.daemon_requests import STARTED, client_bundle
from agent.api.http.replies import JsonReply, read_json
from agent.api.port import AgentPort
from agent.api.problems import RequestError
from agent.api.rules import Rule, post, write
from agent.model.dockerd.settings import Wish

_SUMMARIES = {
    Wish.START: "Starts dockerd that was stopped by hand",
    Wish.STOP: "Stops dockerd; it stays down until it is started, or a reconcile is asked for",
    Wish.RESTART: "Restarts dockerd; containers go on where live-restore can keep them",
}


class DaemonRoutes:
    """What is asked of dockerd by hand."""

    def __init__(self, agent: AgentPort) -> None:
        self._agent = agent

    def rules(self) -> list[Rule]:
        return [
            *(
                post(
                    f"/v1/dockerd/{wish}",
                    write("ucidockd", f"dockerd_{wish}"),
                    self._wished(wish),
                    _SUMMARIES[wish],
                )
                for wish in Wish
            ),
            post(
                "/v1/tls/clients",
                write("ucidockd", "tls_client"),
                self.client,
                "A new client's certificates for dockerd's TLS: whoever has them is root",
                body="json",
            ),
        ]

    def _wished(self, wish: Wish) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            del request
            await self._agent.dockerd(wish)
            return JsonReply(STARTED)

        return handle

    async def client(self, request: Request) -> Response:
        body = await read_json(request)
        unknown = sorted(body.keys() - {"name", "days"})
        if unknown:
            raise RequestError(f"{unknown[0][:64]!r} is not known; known: name, days")
        return JsonReply(await client_bundle(self._agent, body))
