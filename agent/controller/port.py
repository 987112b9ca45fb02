# SPDX-License-Identifier: GPL-2.0-or-later
"""Port: what the controller asks of the running agent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from agent.model.resources import RegistryAuth
from agent.status.board import StatusBoard
from agent.status.counters import PassCounters


class AgentPort(Protocol):
    """`plan` and `reconcile` raise EngineError when the engine is away."""

    board: StatusBoard
    passes: PassCounters

    async def plan(self) -> dict[str, Any]: ...

    async def reconcile(self) -> dict[str, Any]: ...

    async def validate(self, texts: Mapping[str, str]) -> list[dict[str, Any]]:
        """The mistakes of the configuration, were these the files of the packages named. Writes nothing."""

    def auths(self) -> Sequence[RegistryAuth]:
        """The registry logins that UCI has now."""
