# SPDX-License-Identifier: GPL-2.0-or-later
"""What HTTP and ubus ask of the agent alike: UCI text checked or planned, and certificates for dockerd's clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.api.names import number, text
from agent.api.port import AgentPort
from agent.api.problems import RequestError
from agent.model.given import Given


def given_of(body: Mapping[str, Any]) -> Given:
    """What is to be planned: `packages` (package -> UCI text), `paths` (package -> where that is from), `staged`.

    Raises RequestError.
    """
    if unknown := sorted(body.keys() - {"packages", "paths", "staged"}):
        raise RequestError(f"{unknown[0][:64]!r} is not known; use `packages`, `paths` and `staged`")
    staged = body.get("staged", False)
    if not isinstance(staged, bool):
        raise RequestError("`staged`: expected true or false")
    return Given(texts=_texts(body, "packages"), paths=_texts(body, "paths"), staged=staged)


def _texts(body: Mapping[str, Any], name: str) -> dict[str, str]:
    found = body.get(name, {})
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise RequestError(f"`{name}`: expected an object of texts by package")
    return found


async def validated(agent: AgentPort, texts: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to UCI text by package. Raises RequestError, ConfigError for a package that is not ours."""
    for name, uci in texts.items():
        if not isinstance(uci, str):
            raise RequestError(f"{name[:64]!r}: expected the text of a UCI file")
    issues = await agent.validate(texts)
    return {"valid": not any(issue["severity"] == "error" for issue in issues), "issues": issues}


# What is asked of dockerd by hand, for every door: the answer to a wish, and a client's bundle.


STARTED = {"started": True}
CLIENT_DAYS = 730
_DAYS_MAX = 3650


async def client_bundle(agent: AgentPort, body: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to `{name, days}`. Raises RequestError, and what `AgentPort.tls_client` raises."""
    days = number(body, "days", low=1, high=_DAYS_MAX, default=CLIENT_DAYS)
    return await agent.tls_client(text(body, "name"), days=days)
