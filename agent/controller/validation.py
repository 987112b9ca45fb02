# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks UCI text that is not committed, for every door."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.controller.port import AgentPort
from agent.controller.problems import RequestError


async def validated(agent: AgentPort, texts: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to UCI text by package. Raises RequestError, ConfigError for a package that is not ours."""
    for name, uci in texts.items():
        if not isinstance(uci, str):
            raise RequestError(f"{name[:64]!r}: expected the text of a UCI file")
    issues = await agent.validate(texts)
    return {"valid": not any(issue["severity"] == "error" for issue in issues), "issues": issues}
