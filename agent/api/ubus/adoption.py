# SPDX-License-Identifier: GPL-2.0-or-later
"""Adopting on ubus: the methods `adopt` and `diff` of the object `ucidockd`, with the answers of the routes of that name."""

from __future__ import annotations

from agent.api.names import checked_id, text
from agent.api.port import AgentPort
from agent.ubus.objects import BOOLEAN, STRING, Arguments, Method, Reply


class AdoptionMethods:
    """The same answers as on HTTP."""

    def __init__(self, agent: AgentPort) -> None:
        self._agent = agent

    def methods(self) -> dict[str, Method]:
        """To be published."""
        return {
            "adopt": Method(
                handler=self._adopt,
                args={"container": STRING, "section": STRING, "commit": BOOLEAN, "show_secrets": BOOLEAN},
            ),
            "diff": Method(handler=self._diff, args={"name": STRING}),
        }

    async def _adopt(self, args: Arguments) -> Reply:
        return await self._agent.adopt(
            checked_id(text(args, "container")),
            section=text(args, "section"),
            commit=args.get("commit", False),
            show_secrets=args.get("show_secrets", False),
        )

    async def _diff(self, args: Arguments) -> Reply:
        return await self._agent.diff(checked_id(text(args, "name")))
