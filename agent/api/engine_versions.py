# SPDX-License-Identifier: GPL-2.0-or-later
"""Which versions of its API the engine speaks, for whoever wants a certain one in the path (Engine API, "Versioning")."""

from __future__ import annotations

import logging
import re
from typing import Any

from agent.api.problems import RequestError
from agent.engine.stream import DockerStream

logger = logging.getLogger(__name__)

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
