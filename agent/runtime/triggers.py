# SPDX-License-Identifier: GPL-2.0-or-later
"""What asks for a pass, carried to the loop that runs passes.

It is there before the loop and all who ask, so that each of them can be given it when it is built. As long as no loop
follows, as in the single passes of the command line, it is asked in vain: who runs passes by hand looks by himself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(slots=True)
class Dirty:
    """What was asked for since the last pass."""

    config: bool = False
    deep: bool = False
    ids: set[str] = field(default_factory=set)


class Follower(Protocol):
    """The loop; both are called from any thread."""

    def trigger_threadsafe(
        self, *, config: bool = False, deep: bool = False, object_id: str = ""
    ) -> None: ...
    def trigger_after(self, seconds: float) -> None: ...


class Triggers:
    """May be called from any thread."""

    def __init__(self) -> None:
        self._follower: Follower | None = None

    def follow(self, follower: Follower) -> None:
        """From now on triggers go there; there is one loop at a time."""
        self._follower = follower

    def now(self) -> None:
        """Asks for a pass soon."""
        if self._follower is not None:
            self._follower.trigger_threadsafe()

    def config(self) -> None:
        """Asks for a pass soon that reads the configuration again."""
        if self._follower is not None:
            self._follower.trigger_threadsafe(config=True)

    def after(self, seconds: float) -> None:
        """Asks for a pass in a while."""
        if self._follower is not None:
            self._follower.trigger_after(seconds)
