# SPDX-License-Identifier: GPL-2.0-or-later
"""Passes requests for a pass on to the loop.

It is created before the loop and before everything that requests passes, so that all of them can be given it when
they are created. Without a loop, as in the single passes of the command line, requests are ignored: the command
decides when a pass runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(slots=True)
class PassRequest:
    """What was requested since the last pass."""

    config: bool = False
    deep: bool = False
    ids: set[str] = field(default_factory=set)


class PassScheduler(Protocol):
    """The loop; both methods may be called from any thread."""

    def trigger_threadsafe(
        self, *, config: bool = False, deep: bool = False, object_id: str = ""
    ) -> None: ...
    def trigger_after(self, seconds: float) -> None: ...


class Triggers:
    """Methods may be called from any thread."""

    def __init__(self) -> None:
        self._follower: PassScheduler | None = None  # None until the loop exists

    def follow(self, follower: PassScheduler) -> None:
        """Sends triggers to this loop from now on; there is only one loop at a time."""
        self._follower = follower

    def now(self) -> None:
        """Requests a pass soon."""
        if self._follower is not None:
            self._follower.trigger_threadsafe()

    def config(self) -> None:
        """Requests a pass soon that reads the configuration again."""
        if self._follower is not None:
            self._follower.trigger_threadsafe(config=True)

    def after(self, seconds: float) -> None:
        """Requests a pass after some seconds."""
        if self._follower is not None:
            self._follower.trigger_after(seconds)
