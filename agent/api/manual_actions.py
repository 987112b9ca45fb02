# SPDX-License-Identifier: GPL-2.0-or-later
"""How a call to the engine is carried out for a client, over HTTP and over ubus alike: manual actions are announced.

The reconciler leaves a managed container as a manual action left it, until its section changes or a reconcile is asked for.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from agent.api.port import AgentPort
from agent.engine.stream import EngineResponse, SourceError
from agent.errors import UcidockdError


async def carry_out(
    agent: AgentPort, action: str, container: str, opening: Coroutine[Any, Any, EngineResponse]
) -> EngineResponse:
    """Makes the request `opening`. If `action` names a manual action, the agent hears of it first, and again if it fails.

    Raises what `opening` raises.
    """
    if not action:
        return await opening
    try:
        await agent.manual(container, action)
        response = await opening
    except (UcidockdError, SourceError):
        await agent.manual_failed(container)
        raise
    finally:
        opening.close()  # never begun if `manual` raised
    if response.status >= 400:
        await agent.manual_failed(container)
    return response
