# SPDX-License-Identifier: GPL-2.0-or-later
"""What HTTP and ubus ask of the agent alike: UCI text checked or planned, and certificates for dockerd's clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agent.api.names import number, text
from agent.api.port import AgentPort
from agent.api.problems import RequestError
from agent.model.given import Given, GivenSection

if TYPE_CHECKING:
    from agent.convert.requests import ImportRequest


def given_of(body: Mapping[str, Any]) -> Given:
    """What is to be planned: `packages` (package -> UCI text), `paths` (package -> where that is from), `sections`
    (package -> section -> option -> value or list, null deletes the section), `staged`. Raises RequestError.
    """
    if unknown := sorted(body.keys() - {"packages", "paths", "sections", "staged"}):
        raise RequestError(
            f"{unknown[0][:64]!r} is not known; use `packages`, `paths`, `sections` and `staged`"
        )
    staged = body.get("staged", False)
    if not isinstance(staged, bool):
        raise RequestError("`staged`: expected true or false")
    return Given(
        texts=_texts(body, "packages"), paths=_texts(body, "paths"), sections=_sections(body), staged=staged
    )


def _sections(body: Mapping[str, Any]) -> dict[str, dict[str, GivenSection | None]]:
    found = body.get("sections", {})
    packages = found.values() if isinstance(found, dict) else [None]
    if not all(isinstance(package, dict) and all(map(_is_section, package.values())) for package in packages):
        raise RequestError(
            "`sections`: expected an object of sections by package, each an object of texts and lists of texts, or null"
        )
    return dict(found)


def _is_section(said: object) -> bool:
    return said is None or (isinstance(said, dict) and all(_is_value(n, v) for n, v in said.items()))


def _is_value(name: str, value: object) -> bool:
    if name.startswith(".") and name != ".type":
        return True  # rpcd's `.anonymous` and `.index` are not texts
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(v, str) for v in value))


def _texts(body: Mapping[str, Any], name: str) -> dict[str, str]:
    found = body.get(name, {})
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise RequestError(f"`{name}`: expected an object of texts by package")
    return found


def import_request_of(body: Mapping[str, Any]) -> ImportRequest:
    """The body of `POST /v1/import`. Raises RequestError."""
    from agent.convert.requests import TEXT_MAX, ImportRequest  # few need it

    texts = ("run", "compose", "project", "folder", "env")
    if unknown := sorted(body.keys() - {*texts, "profiles", "commit"}):
        raise RequestError(
            f"{unknown[0][:64]!r} is not known; use {', '.join(f'`{name}`' for name in texts)}, `profiles` and `commit`"
        )
    profiles, commit = body.get("profiles", []), body.get("commit", False)
    if not isinstance(commit, bool):
        raise RequestError("`commit`: expected true or false")
    if not isinstance(profiles, list) or not all(isinstance(profile, str) for profile in profiles):
        raise RequestError("`profiles`: expected a list of names")
    for name in texts:
        if not isinstance(body.get(name, ""), str) or len(body.get(name, "")) > TEXT_MAX:
            raise RequestError(f"`{name}`: expected a text of at most {TEXT_MAX} characters")
    given = {name: body[name] for name in texts if name in body}
    return ImportRequest(**given, profiles=tuple(profiles), commit=commit)


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
