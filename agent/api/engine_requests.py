# SPDX-License-Identifier: GPL-2.0-or-later
"""Carries a client's Engine API call out: checks its query and version, announces a manual action, masks the answer."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import cache
from typing import Any
from urllib.parse import quote

from agent.api.engine_calls import ENGINE_CALLS, EngineCall, Pairs, signal_name
from agent.api.jobs.job_specs import split_reference
from agent.api.port import AgentPort
from agent.api.problems import RequestError, checked_value
from agent.engine.stream import DockerStream, EngineResponse, SourceError
from agent.errors import (
    EngineError,
    EngineInvalidError,
    EngineUnreachableError,
    StorageLostError,
    UcidockdError,
)
from agent.model.dockerd.settings import DAEMON_KEY
from agent.model.secrets import hidden
from agent.status.board import StatusBoard
from agent.status.conditions import ConditionType

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_LINES = re.compile(r"[\t\r\n]")  # these are percent-encoded again before they reach the engine
_SOURCE = re.compile(r"https?://[A-Za-z0-9\[][^\s]*|git://[A-Za-z0-9\[][^\s]*|git@[A-Za-z0-9][^\s]*")
_READERS_PS = frozenset(
    {"", "-e", "-ef", "-eF", "-A", "-f", "-l", "-w", "-ww", "ax", "aux", "axuww", "auxww"}
)


# Values that make the engine contact another host, or run a program on this one, get a stricter check.
def checked_query(path: str, pairs: Iterable[tuple[str, str]], *, writer: bool) -> list[tuple[str, str]]:
    """Checks and returns the pairs. `path` is the path of the call's row in the table. Raises RequestError."""
    checked = []
    for name, value in pairs:
        if not _NAME.fullmatch(name):
            raise RequestError("the engine does not have this query parameter")
        # a commit's comment may have several lines, and so has the Dockerfile that docker-py sends along
        checked_value(name, _LINES.sub(" ", value))
        checked.append((name, value))
        _look(path, name, value, writer=writer)
    return checked


def _look(path: str, name: str, value: str, *, writer: bool) -> None:
    if path == "/build" and name == "remote" and value:
        _check_source(name, value)
    if path == "/images/create" and name == "fromSrc" and value != "-":
        _check_source(name, value)
    if path == "/containers/{id}/top" and name == "ps_args" and not writer and value not in _READERS_PS:
        # the engine passes it to `ps` on the host, and `ps e` shows the environment of every process
        raise RequestError(
            f"query ps_args: readers may use {', '.join(sorted(_READERS_PS - {''}))}", status=403
        )


def _check_source(name: str, value: str) -> None:
    if not _SOURCE.fullmatch(value):
        raise RequestError(f"query {name}: expected http://, https://, git:// or git@ and a host")


# Clients may put an API version into the path (Engine API, "Versioning"): the versions that the engine supports.


_VERSION = re.compile(r"1\.[0-9]{1,3}")


class EngineVersions:
    """The range of API versions that the engine supports. It is read again when a client asks for a version outside it."""

    def __init__(self, engine: DockerStream) -> None:
        self._engine = engine
        self._range = ((0, 0), (0, 0))
        self._told: set[str] = set()  # versions that the log already has a warning about

    async def prefix(self, text: str) -> str:
        """`/v1.NN` for `1.NN`. Raises RequestError for a version that the engine does not support."""
        if not _VERSION.fullmatch(text):
            raise RequestError("the version in the path: expected v1.NN")
        # not known yet, or another engine answers by now: an upgrade changes the range
        if not self._speaks(_numbers(text)):
            self._range = await self._engine.call("GET", "/version", read=_spoken)
        if not self._speaks(_numbers(text)):
            low, high = (".".join(map(str, limit)) for limit in self._range)
            raise RequestError(f"the engine does not speak API version {text}: expected {low} to {high}")
        return f"/v{text}"

    async def wanted(self, text: str) -> str:
        """Like `prefix`, but falls back to "" (the newest version) if the engine does not support this one."""
        try:
            return await self.prefix(text.removeprefix("v")) if text else ""
        except RequestError as exc:
            if text not in self._told:
                self._told.add(text)
                logger.warning("dockerd.globals.api_version: %s; its newest version is used", exc)
            return ""

    def _speaks(self, version: tuple[int, int]) -> bool:
        return self._range[0] <= version <= self._range[1]


def _spoken(version: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    return _numbers(version["MinAPIVersion"]), _numbers(version["ApiVersion"])


def _numbers(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    return int(major), int(minor)


# Carries out a call for a client, over HTTP and ubus alike, and announces manual actions to the agent.
#
# A manual action holds a managed container: the reconciler leaves it as it is until its section changes or someone
# asks for a reconcile.


async def manual_action(engine: DockerStream, call: EngineCall, query: Pairs, container: str) -> str:
    """The manual action to hold a managed container for, "" for none. Raises EngineError.

    A signal that does not stop programs is not a manual action, unless the container uses that signal as its stop
    signal: httpd's image declares WINCH. Only the engine knows what an image declares.
    """
    action, quiet = call.action(query), call.quiet_signal(query)
    # only quiet signals need the question: for every other call it would be a wasted inspect
    if action or not quiet:
        return action
    response = await engine.open("GET", f"/containers/{quote(container)}/json")
    if response.status == 404:
        await response.close()
        return ""
    async with await response.checked():
        stops_with = str(((await response.json()).get("Config") or {}).get("StopSignal") or "")
    return call.method if signal_name(stops_with) == quiet else ""


async def carry_out(
    agent: AgentPort, action: str, container: str, opening: Coroutine[Any, Any, EngineResponse]
) -> EngineResponse:
    """Sends the request `opening`. A manual action is announced to the agent first, and withdrawn if the request fails.

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
        opening.close()  # a coroutine that was never awaited, if `manual` raised
    if response.status >= 400:
        await agent.manual_failed(container)
    return response


# Masks the engine's answers for readers: `agent.model.secrets` applied to whole answers, off the event loop.
#
# Writers and root get the engine's answer unchanged.


READER_LIMIT = 4 * 1024 * 1024  # the largest answer in bytes that is masked for a reader


def for_readers(value: Any) -> Any:
    """A copy of decoded JSON without secrets. Raises EngineError if it is nested too deeply."""
    try:
        return hidden(value)
    except RecursionError as exc:
        raise EngineError("the engine's answer is nested too deeply") from exc


async def masked_value(value: Any) -> Any:
    """Like `for_readers`, in a thread, so a large answer does not delay other requests."""
    return await asyncio.get_running_loop().run_in_executor(_worker(), for_readers, value)


async def masked_json(body: bytes) -> bytes:
    """Like `masked_value`, from JSON text to JSON text. Raises EngineError if the body is not JSON."""
    return await asyncio.get_running_loop().run_in_executor(_worker(), _masked, body)


def _masked(body: bytes) -> bytes:
    try:
        value = json.loads(body) if body.strip() else None
        return json.dumps(hidden(value), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    except RecursionError as exc:
        raise EngineInvalidError("the engine's answer is nested too deeply") from exc
    except ValueError as exc:
        raise EngineInvalidError("the engine's answer is not JSON") from exc


@cache
def _worker() -> ThreadPoolExecutor:
    """A single thread, so at most one large answer is in memory at a time."""
    return ThreadPoolExecutor(1, "masking")


# Checks before each client request to the engine: dockerd's storage is there, and a prune spares declared images.


_LOOKS = frozenset({"GET", "HEAD"})  # methods that change nothing
_HARMLESS = re.compile("|".join(call.pattern for call in ENGINE_CALLS if call.harmless))
_PREFIX = re.compile(r"^/v[0-9.]+(?=/)")  # the version of a path, which a client may leave out


class StorageGuard:
    """While the file system of dockerd's data is not mounted, our clients may change nothing on the engine.

    The engine would work on the bare mount point: new objects would land on the router's flash, and removed ones would
    reappear with the disk. `dockerd/stage` holds the agent's own operations. Call with a request's method and path.
    """

    def __init__(self, board: StatusBoard) -> None:
        self._board = board

    def __call__(self, method: str, path: str) -> None:
        """Raises StorageLostError."""
        why = self._board.message(DAEMON_KEY, ConditionType.ENGINE_STORAGE_LOST)
        if why and method not in _LOOKS and not _HARMLESS.fullmatch(_PREFIX.sub("", path)):
            raise StorageLostError(f"{why}: nothing is created, changed or removed until it is back")


# Protects the images that sections name when a client prunes images, over HTTP or ubus.
#
# A prune of all unused images (`dangling=false`) would delete the image of a section whose container does not exist
# yet, and engine 20.10 also removes all names but one of an image in use. An offline router cannot pull them again.
# The engine cannot filter by name, so each unused image gets a container for the duration of the prune, and names
# that are lost anyway are tagged again.


_PRUNE = re.compile(r"(/v[0-9.]+)?/images/prune")
_LABEL = "ucidockd.keeps-image"


class DeclaredImageGuard:
    """For `DockerStream.around`. `declared` returns the images that sections name."""

    def __init__(self, engine: DockerStream, declared: Callable[[], Collection[str]]) -> None:
        self._engine = engine
        self._declared = declared

    @asynccontextmanager
    async def __call__(self, method: str, path: str, query: Iterable[tuple[str, str]]) -> AsyncIterator[None]:
        """Wraps a request to the engine. Raises EngineError if the images cannot be inspected."""
        named = any(name == "filters" and "dangling" in value for name, value in query)
        if method != "POST" or not named or not _PRUNE.fullmatch(path):
            yield
            return
        ids = await self._ids()
        holders = await self._hold(set(ids.values()))
        try:
            yield
        finally:
            await asyncio.shield(self._put_back(ids, holders))

    async def _ids(self) -> dict[str, str]:
        """The declared images that the engine has: reference -> id."""
        found = {image: await self._id_of(image) for image in sorted(self._declared())}
        return {image: object_id for image, object_id in found.items() if object_id}

    async def _id_of(self, image: str) -> str:
        response = await self._engine.open("GET", f"/images/{quote(image, safe='/:@')}/json")
        if response.status in (400, 404):
            await response.close()
            return ""
        try:
            async with await response.checked():
                return str((await response.json())["Id"])
        except EngineUnreachableError:
            raise
        except EngineError as exc:
            # without its id the image could not be protected, so the whole prune is refused
            raise EngineError(
                f"nothing is removed: the engine cannot show image {image}, so it could not be protected ({exc});"
                " `ucidockd prune` skips it",
                status=exc.status,
            ) from exc

    async def _hold(self, ids: set[str]) -> list[str]:
        """Creates a container for each image that has none; returns the ids. Logs an image for which this fails."""
        containers = await self._containers({})
        await self._remove(
            [c["Id"] for c in containers if _LABEL in (c.get("Labels") or {})]
        )  # left over from an agent that was killed
        used = {c.get("ImageID") for c in containers if _LABEL not in (c.get("Labels") or {})}
        made = []
        for image_id in sorted(ids - used):
            body = {
                "Image": image_id,
                "Cmd": ["-"],
                "Labels": {_LABEL: "1"},
                "HostConfig": {"NetworkMode": "none"},
            }
            name = f"ucidockd-keeps-{secrets.token_hex(4)}"
            try:
                answer = await self._post("/containers/create", (("name", name),), body)
                made.append(str(answer["Id"]))
            except EngineError as exc:  # a full disk is a reason to prune: go on
                logger.warning("image %s cannot be kept through the prune: %s", image_id, exc)
        return made

    async def _containers(self, filters: Mapping[str, Any]) -> list[dict[str, Any]]:
        query = (("all", "1"), ("filters", json.dumps(filters)))
        response = await self._engine.open("GET", "/containers/json", query=query)
        async with await response.checked():
            return list(await response.json())

    async def _put_back(self, ids: Mapping[str, str], holders: list[str]) -> None:
        try:
            # with `@` it is a digest, which no tag gives back; an image that is gone altogether cannot be named again
            for image, object_id in ids.items():
                if "@" not in image and not await self._id_of(image) and await self._id_of(object_id):
                    name, tag = split_reference(image)
                    await self._post(f"/images/{object_id}/tag", (("repo", name), ("tag", tag)), None)
                    logger.info("%s has its name again, a section uses it", image)
        except EngineError as exc:
            logger.warning("a name of an image that a section uses is lost: %s", exc)
        finally:
            await self._remove(holders)

    async def _remove(self, containers: list[str]) -> None:
        for container in containers:
            try:
                response = await self._engine.open(
                    "DELETE", f"/containers/{container}", query=(("force", "1"), ("v", "1"))
                )
                await response.close()
            except EngineError as exc:  # the next prune removes the leftover
                logger.warning("container %s is left: %s", container[:12], exc)

    async def _post(self, path: str, query: Iterable[tuple[str, str]], body: object) -> Any:
        data = b"" if body is None else json.dumps(body).encode()
        headers = (("content-type", "application/json"),) if data else ()
        response = await self._engine.open("POST", path, query=query, headers=headers, body=data)
        async with await response.checked():
            return await response.json()
