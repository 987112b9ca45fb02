# SPDX-License-Identifier: GPL-2.0-or-later
"""A client's call of the Engine API on its way: its query, version, manual action, and its masked answer."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

from agent.api.names import checked_value
from agent.api.port import AgentPort
from agent.api.problems import RequestError
from agent.engine.stream import DockerStream, EngineResponse, SourceError
from agent.errors import EngineError, EngineInvalidError, UcidockdError
from agent.model.secrets import hidden

logger = logging.getLogger(__name__)

Pairs = list[tuple[str, str]]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_SOURCE = re.compile(r"https?://[A-Za-z0-9\[][^\s]*|git://[A-Za-z0-9\[][^\s]*|git@[A-Za-z0-9][^\s]*")
_SECONDS = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,9})?")  # as the engine takes it (Engine API, GET /events)
_READERS_PS = frozenset(
    {"", "-e", "-ef", "-eF", "-A", "-f", "-l", "-w", "-ww", "ax", "aux", "axuww", "auxww"}
)


# Where a value makes the engine call another host, or run a program on this one, it is looked at more closely.
def checked_query(path: str, pairs: Iterable[tuple[str, str]], *, writer: bool) -> list[tuple[str, str]]:
    """The same pairs. `path` is the table's. Raises RequestError."""
    checked = []
    for name, value in pairs:
        if not _NAME.fullmatch(name):
            raise RequestError("the query has a name that is none of the engine's")
        checked.append((name, checked_value(name, value)))
        _look(path, name, value, writer=writer)
    return checked


def _look(path: str, name: str, value: str, *, writer: bool) -> None:
    if path == "/build" and name == "remote" and value:
        _check_source(name, value)
    if path == "/images/create" and name == "fromSrc" and value != "-":
        _check_source(name, value)
    if path == "/containers/{id}/top" and name == "ps_args" and not writer and value not in _READERS_PS:
        # the engine runs `ps` on the host with it, and `ps e` shows the environment of every process
        raise RequestError(
            f"query ps_args: readers may use {', '.join(sorted(_READERS_PS - {''}))}", status=403
        )


def _check_source(name: str, value: str) -> None:
    if not _SOURCE.fullmatch(value):
        raise RequestError(f"query {name}: expected http://, https://, git:// or git@ and a host")


# a call on ubus is answered once: it can neither follow nor send a build context


def up_to_now(pairs: Pairs) -> Pairs:
    """Events up to now: a call that waits for more would hold its caller, and a place. Raises RequestError."""
    now = time.time()
    until = next((value for name, value in pairs if name == "until" and value), f"{now:.9f}")
    if not _SECONDS.fullmatch(until):
        raise RequestError("query until: expected seconds since 1970")
    kept = [pair for pair in pairs if pair[0] != "until"]
    return [*kept, ("until", until if float(until) < now else f"{now:.9f}")]


def without_follow(pairs: Pairs) -> Pairs:
    """A call cannot follow; where no stream is chosen, both are."""
    kept = [(name, value) for name, value in pairs if name != "follow"]
    chosen = any(name in ("stdout", "stderr") for name, _ in kept)
    return kept if chosen else [*kept, ("stdout", "true"), ("stderr", "true")]


def once(pairs: Pairs) -> Pairs:
    """One value instead of one each second."""
    return [*(pair for pair in pairs if pair[0] != "stream"), ("stream", "false")]


def from_remote(pairs: Pairs) -> Pairs:
    """A call carries no build context; the engine fetches it."""
    if not any(name == "remote" and value for name, value in pairs):
        raise RequestError("query remote: expected the URL of the build's context")
    return pairs


# Which versions of its API the engine speaks, for whoever wants a certain one in the path (Engine API, "Versioning").


_VERSION = re.compile(r"1\.[0-9]{1,3}")


class EngineVersions:
    """The range of API versions that the engine speaks; asked again when a client's is not in it."""

    def __init__(self, engine: DockerStream) -> None:
        self._engine = engine
        self._range = ((0, 0), (0, 0))
        self._told: set[str] = set()

    async def prefix(self, text: str) -> str:
        """`/v1.NN` for `1.NN`. Raises RequestError for one that the engine does not speak."""
        if not _VERSION.fullmatch(text):
            raise RequestError("the version in the path: expected v1.NN")
        if not self._speaks(_numbers(text)):
            self._range = await self._engine.call("GET", "/version", read=_spoken)
        if not self._speaks(_numbers(text)):
            low, high = (".".join(map(str, limit)) for limit in self._range)
            raise RequestError(f"the engine does not speak API version {text}: expected {low} to {high}")
        return f"/v{text}"

    async def wanted(self, text: str) -> str:
        """As `prefix`, for a version that is only wished for: "" (the newest) where the engine does not speak it."""
        try:
            return await self.prefix(text.removeprefix("v")) if text else ""
        except RequestError as exc:
            if text not in self._told:
                self._told.add(text)
                logger.warning("dockerd.globals.api_version: %s; its newest is spoken", exc)
            return ""

    def _speaks(self, version: tuple[int, int]) -> bool:
        return self._range[0] <= version <= self._range[1]


def _spoken(version: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    return _numbers(version["MinAPIVersion"]), _numbers(version["ApiVersion"])


def _numbers(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    return int(major), int(minor)


# How a call to the engine is carried out for a client, over HTTP and over ubus alike: manual actions are announced.
#
# The reconciler leaves a managed container as a manual action left it, until its section changes or a reconcile is
# asked for.


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


# What a reader gets of the engine's answers: `agent.model.secrets` applied to whole answers, off the event loop.
#
# A writer, and root, get what the engine says.


READER_LIMIT = 4 * 1024 * 1024  # bytes of an answer that is looked through for a reader


def for_readers(value: Any) -> Any:
    """A copy of decoded JSON without secrets. Raises EngineError for what is nested too deeply to be looked through."""
    try:
        return hidden(value)
    except RecursionError as exc:
        raise EngineError("the engine's answer is nested too deeply") from exc


async def masked_value(value: Any) -> Any:
    """The same in a thread: a large answer holds nobody else up."""
    return await asyncio.get_running_loop().run_in_executor(_worker(), for_readers, value)


async def masked_json(body: bytes) -> bytes:
    """The same of a body, as JSON text. Raises EngineError where it is none."""
    return await asyncio.get_running_loop().run_in_executor(_worker(), _masked, body)


def _masked(body: bytes) -> bytes:
    try:
        value = json.loads(body) if body.strip() else None
        return json.dumps(hidden(value), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    except RecursionError as exc:
        raise EngineInvalidError("the engine's answer is nested too deeply") from exc
    except ValueError as exc:
        raise EngineInvalidError("the engine's answer is no JSON") from exc


@cache
def _worker() -> ThreadPoolExecutor:
    """One thread: that many large answers are in memory at a time."""
    return ThreadPoolExecutor(1, "masking")
