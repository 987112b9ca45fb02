# SPDX-License-Identifier: GPL-2.0-or-later
"""The last bytes of a stream, by their offset: what a reader whose connection broke can ask for again."""

from __future__ import annotations

from collections import deque


class WindowError(ValueError):
    """These bytes are no longer there, or not yet."""


class Window:
    """Keeps at least the last `limit` bytes that were added, in the pieces that they came in."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pieces: deque[bytes] = deque()
        self.start = 0
        self.end = 0

    def add(self, piece: bytes) -> None:
        """Appends, and drops from the front what is not needed for `limit` bytes."""
        if not piece:
            return
        self._pieces.append(piece)
        self.end += len(piece)
        while self.end - self.start - len(self._pieces[0]) >= self._limit:
            self.start += len(self._pieces.popleft())

    def clear(self) -> None:
        """Drops all; what was at the end stays the end."""
        self._pieces.clear()
        self.start = self.end

    def get(self, offset: int, limit: int) -> bytes:
        """Up to `limit` bytes from `offset`; b"" at the end. Raises WindowError."""
        if not self.start <= offset <= self.end:
            raise WindowError(f"offset {offset} is not in {self.start} to {self.end}")
        # readers are mostly at the end: looked for from there
        begin = self.end
        for piece in reversed(self._pieces):
            begin -= len(piece)
            if begin <= offset:
                return piece[offset - begin : offset - begin + limit]
        return b""
