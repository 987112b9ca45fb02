# SPDX-License-Identifier: GPL-2.0-or-later
"""While the file system of dockerd's data is away, no client of ours may change anything on the engine.

It would work on the bare mount point: what is made there is on the router's flash, and what is removed is believed
gone. The agent's own deeds are held in `runtime/daemon`; this stands before each request of `/docker/`, ubus and jobs.
"""

from __future__ import annotations

import re

from agent.errors import StorageLostError
from agent.model.dockerd.settings import DAEMON_KEY
from agent.status.board import StatusBoard
from agent.status.conditions import ConditionType

_LOOKS = frozenset({"GET", "HEAD"})
# to stop what runs is always right, and consoles may help
_HARMLESS = re.compile(r"/containers/[^/]+/(stop|kill|wait|resize|exec|attach)|/exec/[^/]+/(start|resize)")
_VERSION = re.compile(r"^/v[0-9.]+(?=/)")


class StorageGuard:
    """Called with method and path of a request before it goes to the engine."""

    def __init__(self, board: StatusBoard) -> None:
        self._board = board

    def __call__(self, method: str, path: str) -> None:
        """Raises StorageLostError."""
        why = self._board.message(DAEMON_KEY, ConditionType.ENGINE_STORAGE_LOST)
        if why and method not in _LOOKS and not _HARMLESS.fullmatch(_VERSION.sub("", path)):
            raise StorageLostError(f"{why}: nothing is created, changed or removed until it is back")
