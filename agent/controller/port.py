# SPDX-License-Identifier: GPL-2.0-or-later
"""Port: what the controller asks of the running agent."""

from __future__ import annotations

from typing import Any, Protocol

from agent.status.board import StatusBoard


class AgentPort(Protocol):
    """`plan` and `reconcile` raise EngineError when the engine is away."""

    board: StatusBoard

    async def plan(self) -> dict[str, Any]: ...

    async def reconcile(self) -> dict[str, Any]: ...
