# SPDX-License-Identifier: GPL-2.0-or-later
"""What is asked of dockerd by hand, for every door: the answer to a wish, and a client's bundle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.api.names import number, text
from agent.api.port import AgentPort

STARTED = {"started": True}
CLIENT_DAYS = 730
_DAYS_MAX = 3650


async def client_bundle(agent: AgentPort, body: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to `{name, days}`. Raises RequestError, and what `AgentPort.tls_client` raises."""
    days = number(body, "days", low=1, high=_DAYS_MAX, default=CLIENT_DAYS)
    return await agent.tls_client(text(body, "name"), days=days)
