# SPDX-License-Identifier: GPL-2.0-or-later
"""What stands before each request of a client to the engine: storage that is away, and image names a prune must spare."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

from agent.api.jobs.job_specs import split_reference
from agent.engine.stream import DockerStream, Pairs
from agent.errors import EngineError, StorageLostError
from agent.model.dockerd.settings import DAEMON_KEY
from agent.status.board import StatusBoard
from agent.status.conditions import ConditionType

logger = logging.getLogger(__name__)

_LOOKS = frozenset({"GET", "HEAD"})
# to stop what runs is always right, and consoles may help
_HARMLESS = re.compile(r"/containers/[^/]+/(stop|kill|wait|resize|exec|attach)|/exec/[^/]+/(start|resize)")
_VERSION = re.compile(r"^/v[0-9.]+(?=/)")


class StorageGuard:
    """While the file system of dockerd's data is away, no client of ours may change anything on the engine.

    It would work on the bare mount point: what is made there is on the router's flash, and what is removed is believed
    gone. The agent's own operations are held in `dockerd/stage`. Called with method and path of a request.
    """

    def __init__(self, board: StatusBoard) -> None:
        self._board = board

    def __call__(self, method: str, path: str) -> None:
        """Raises StorageLostError."""
        why = self._board.message(DAEMON_KEY, ConditionType.ENGINE_STORAGE_LOST)
        if why and method not in _LOOKS and not _HARMLESS.fullmatch(_VERSION.sub("", path)):
            raise StorageLostError(f"{why}: nothing is created, changed or removed until it is back")


# Keeps the image names that sections use through a prune of images, whichever door it comes through.
#
# A prune of all unused images (`dangling=false`) takes what no container was made of, so the image of a section that has no
# container yet; and 20.10 takes all names but one off an image that is in use. A router that is offline cannot pull either
# again. The engine has no filter for names, so unused images get a container for as long as the prune takes, and names
# that are lost all the same are given back.


_PRUNE = re.compile(r"(/v[0-9.]+)?/images/prune")
_LABEL = "ucidockd.keeps-image"


class KeptNames:
    """For `DockerStream.around`. `declared`: the images that sections name."""

    def __init__(self, engine: DockerStream, declared: Callable[[], Collection[str]]) -> None:
        self._engine = engine
        self._declared = declared

    @asynccontextmanager
    async def __call__(self, method: str, path: str, query: Pairs) -> AsyncIterator[None]:
        """Around a request to the engine. Raises EngineError where the images cannot be looked at."""
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
        """Image reference -> id of those that are here."""
        found = {image: await self._id_of(image) for image in sorted(self._declared())}
        return {image: object_id for image, object_id in found.items() if object_id}

    async def _id_of(self, image: str) -> str:
        response = await self._engine.open("GET", f"/images/{quote(image, safe='/:@')}/json")
        if response.status in (400, 404):
            await response.close()
            return ""
        async with await response.checked():
            return str((await response.json())["Id"])

    async def _hold(self, ids: set[str]) -> list[str]:
        """Makes a container of each image that has none; returns their ids. One that cannot be made is logged."""
        containers = await self._containers({})
        await self._remove(
            [c["Id"] for c in containers if _LABEL in (c.get("Labels") or {})]
        )  # of a killed agent
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
            except EngineError as exc:  # a full disk is what one prunes for
                logger.warning("image %s cannot be kept through the prune: %s", image_id, exc)
        return made

    async def _containers(self, filters: Mapping[str, Any]) -> list[dict[str, Any]]:
        query = (("all", "1"), ("filters", json.dumps(filters)))
        response = await self._engine.open("GET", "/containers/json", query=query)
        async with await response.checked():
            return list(await response.json())

    async def _put_back(self, ids: Mapping[str, str], holders: list[str]) -> None:
        try:
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
            except EngineError as exc:  # the next prune removes it
                logger.warning("container %s is left: %s", container[:12], exc)

    async def _post(self, path: str, query: Pairs, body: object) -> Any:
        data = b"" if body is None else json.dumps(body).encode()
        headers = (("content-type", "application/json"),) if data else ()
        response = await self._engine.open("POST", path, query=query, headers=headers, body=data)
        async with await response.checked():
            return await response.json()
