# SPDX-License-Identifier: GPL-2.0-or-later
"""dockerd by hand on ubus: start, stop, restart, and certificates for its clients, with the answers of the routes."""

from __future__ import annotations

from agent.api.daemon_requests import STARTED, client_bundle
from agent.api.port import AgentPort
from agent.model.dockerd.settings import Wish
from agent.ubus.objects import INTEGER, STRING, Arguments, Handler, Method, Reply


class DaemonMethods:
    """`dockerd_*` answer at once: what became of it is in the status, under `daemon:dockerd`."""

    def __init__(self, agent: AgentPort) -> None:
        self._agent = agent

    def methods(self) -> dict[str, Method]:
        """To be published."""
        return {
            **{f"dockerd_{wish}": Method(handler=self._wished(wish)) for wish in Wish},
            "tls_client": Method(handler=self._client, args={"name": STRING, "days": INTEGER}),
        }

    def _wished(self, wish: Wish) -> Handler:
        async def handle(args: Arguments) -> Reply:
            del args
            await self._agent.dockerd(wish)
            return STARTED

        return handle

    async def _client(self, args: Arguments) -> Reply:
        return await client_bundle(self._agent, args)
