# SPDX-License-Identifier: GPL-2.0-or-later
"""Places that writers and readers share: readers, however many sessions they open, never take all of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from agent.api.problems import RequestError


@dataclass(slots=True, kw_only=True)
class Shares:
    """`room` places of `what`. A reader's session takes `each` of them at most, all readers `readers`; writers take what is
    free.
    """

    what: str
    room: int
    readers: int
    each: int
    status: int = 429
    _open: Counter[str] = field(default_factory=Counter)  # by session, those of readers
    _taken: int = 0

    def take(self, session: str, *, writer: bool) -> None:
        """Give it back with `give_back`. Raises RequestError."""
        if self._taken >= self.room:
            raise RequestError(f"{self.room} {self.what}; try again", status=self.status)
        if not writer:
            if self._open[session] >= self.each:
                raise RequestError(f"{self.each} {self.what} for this session; try again", status=self.status)
            if self._open.total() >= self.readers:
                raise RequestError(
                    f"{self.readers} {self.what} for sessions that may only read; try again",
                    status=self.status,
                )
            self._open[session] += 1
        self._taken += 1

    def give_back(self, session: str, *, writer: bool) -> None:
        """The place that `take` took."""
        self._taken -= 1
        if not writer:
            self._open[session] -= 1
            self._open = +self._open
