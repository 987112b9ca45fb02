# SPDX-License-Identifier: GPL-2.0-or-later
"""What was said last, by number, for readers that lose their connection and come back: each resumes after the last number
that it saw, or learns that something in between is gone.

The status board, jobs, consoles and the packets of a stream object keep theirs in it. How much is kept its owner decides.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from itertools import islice
from operator import itemgetter
from typing import Generic, TypeVar

T = TypeVar("T")


class Ring(Generic[T]):
    """Items with ascending numbers, that begin after `first`."""

    def __init__(self, first: int = 0) -> None:
        self._items: deque[tuple[int, T]] = deque()
        self.lost = first  # the newest number that is no longer here
        self.last = first

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: T, number: int | None = None) -> int:
        """Its number: the next one, or a given one that is greater than all before."""
        self.last = self.last + 1 if number is None else number
        self._items.append((self.last, item))
        return self.last

    def after(self, number: int) -> list[tuple[int, T]]:
        """What is here of the items after that number."""
        return list(islice(self._items, bisect_right(self._items, number, key=itemgetter(0)), None))

    def next(self, number: int) -> T | None:
        """The first item after that number."""
        at = bisect_right(self._items, number, key=itemgetter(0))
        return self._items[at][1] if at < len(self._items) else None

    def forget(self) -> T:
        """Lets the oldest go, and gives it. Raises IndexError when there is none."""
        self.lost, item = self._items.popleft()
        return item

    def keep(self, most: int) -> None:
        """Forgets all but the newest `most`."""
        while len(self._items) > most:
            self.forget()
