# SPDX-License-Identifier: GPL-2.0-or-later
"""Numbered items for readers that lose their connection and come back: a reader resumes after the last number that it saw,
or learns that items in between were dropped.

The status board, jobs, consoles and stream objects each use a `Ring`, and decide how much it keeps. A console's output is
limited twice: `window` limits what its reader has not taken yet (then the console stops reading from the engine), and
`keep` limits what was taken but is kept for a reader that comes back.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from typing import Generic, TypeVar

T = TypeVar("T")
# for a console's output, in bytes
WINDOW = 64 * 1024
KEEP = 256 * 1024
PIECE = 32 * 1024
_OVERHEAD = 200  # bytes that each piece takes in addition to its data


class Ring(Generic[T]):
    """Items with ascending numbers, which begin after `first`."""

    def __init__(self, first: int = 0) -> None:
        self._items: deque[tuple[int, T]] = deque()  # (number, item), ascending
        self.lost = first  # the newest number that was dropped
        self.last = first

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: T, number: int | None = None) -> int:
        """Adds an item and returns its number: the next one, or a given one that is greater than all earlier numbers."""
        self.last = self.last + 1 if number is None else number
        self._items.append((self.last, item))
        return self.last

    def after(self, number: int) -> list[tuple[int, T]]:
        """The available items after that number."""
        return list(islice(self._items, bisect_right(self._items, number, key=itemgetter(0)), None))

    def next(self, number: int) -> T | None:
        """The first item after that number."""
        at = bisect_right(self._items, number, key=itemgetter(0))
        return self._items[at][1] if at < len(self._items) else None

    def forget(self) -> T:
        """Drops the oldest item and returns it. Raises IndexError if there is none."""
        self.lost, item = self._items.popleft()
        return item

    def keep(self, most: int) -> None:
        """Drops all but the newest `most` items."""
        while len(self._items) > most:
            self.forget()


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputPiece:
    """A piece of `stdout` or `stderr`; with a terminal there is only `stdout`."""

    number: int
    stream: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputEnd:
    """The last item. `code` None: unknown. `reason` "": the process ended by itself."""

    number: int
    code: int | None
    reason: str = ""


Item = OutputPiece | OutputEnd


class OutputBuffer:
    """The output of a console. Items have consecutive numbers from 1. `window` and `keep` are bytes."""

    def __init__(self, *, window: int = WINDOW, keep: int = KEEP) -> None:
        self._window = window
        self._keep = keep
        self._items: Ring[Item] = Ring()
        self._taken = 0  # number of the last item that the reader took
        self._unread_cost = 0  # bytes that the reader has still to take
        self._kept_cost = 0  # bytes that it has taken, kept for one that comes back

    @property
    def first(self) -> int:
        """The oldest available number, or the next number if the buffer is empty."""
        return self._items.lost + 1

    @property
    def last(self) -> int:
        """The number of the newest item."""
        return self._items.last

    @property
    def has_room(self) -> bool:
        """Whether more may be read from the engine."""
        return self._unread_cost < self._window

    def add(self, pieces: Iterable[tuple[str, bytes]]) -> None:
        """Adds output as (stream, data); long data becomes several items."""
        for stream, data in pieces:
            for start in range(0, len(data), PIECE):
                self._append(
                    OutputPiece(number=self.last + 1, stream=stream, data=data[start : start + PIECE]),
                )

    def end(self, code: int | None, reason: str = "") -> None:
        """Adds the last item."""
        self._append(OutputEnd(number=self.last + 1, code=code, reason=reason))

    def next(self) -> Item | None:
        """The item after the last one taken."""
        return self._items.next(self._taken)

    def take(self, item: Item) -> None:
        """The reader has received the item. Drops the oldest taken items beyond `keep`."""
        self._taken = item.number
        self._unread_cost -= _cost(item)
        self._kept_cost += _cost(item)
        while self._kept_cost > self._keep and self.first < self._taken:
            self._kept_cost -= _cost(self._items.forget())

    def rewind(self, after: int) -> bool:
        """Makes the next reader begin after number `after`. False: some of that was dropped, so it begins at `first`."""
        self._taken = min(max(after, self.first - 1), self.last)
        self._unread_cost = sum(_cost(item) for _, item in self._items.after(self._taken))
        self._kept_cost = sum(_cost(item) for _, item in self._items.after(0)) - self._unread_cost
        return after >= self.first - 1

    def _append(self, item: Item) -> None:
        self._items.add(item)
        self._unread_cost += _cost(item)


def _cost(item: Item) -> int:
    return _OVERHEAD + (len(item.data) if isinstance(item, OutputPiece) else 0)
