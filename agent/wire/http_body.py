# SPDX-License-Identifier: GPL-2.0-or-later
"""How a body of HTTP/1.1 ends: after so many bytes, or with its connection (RFC 9112 section 6.3). `http_chunks` has the
third way. All of them find the payload in what came, and know what is missing when nothing more comes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class BodyError(ValueError):
    """These bytes are not the body that was announced."""


class Framing(Protocol):
    """`done`: the body is complete."""

    @property
    def done(self) -> bool: ...

    def room(self, limit: int) -> int:
        """How many bytes may be read at once, `limit` at most: what follows may be somebody else's."""

    def split(self, buffer: bytes | bytearray, size: int) -> Sequence[memoryview]:
        """The payload in the first `size` bytes of `buffer`, in place. Raises BodyError."""

    def missing(self) -> str:
        """What is missing if nothing more comes, "" for nothing."""


def payload(framing: Framing, data: bytes) -> bytes:
    """The payload in `data`; the same object where all of it is. Raises BodyError."""
    parts = framing.split(data, len(data))
    if len(parts) == 1 and len(parts[0]) == len(data):
        return data
    return b"".join(parts)


class Counted:
    """A body of `length` bytes."""

    def __init__(self, length: int) -> None:
        self.left = length

    @property
    def done(self) -> bool:
        return self.left == 0

    def room(self, limit: int) -> int:
        return min(limit, self.left)

    def split(self, buffer: bytes | bytearray, size: int) -> Sequence[memoryview]:
        self.pass_by(size)
        return (memoryview(buffer)[:size],)

    def pass_by(self, size: int) -> None:
        """So many bytes of it went another way. Raises BodyError."""
        if size > self.left:
            raise BodyError("it is longer than it says")
        self.left -= size

    def missing(self) -> str:
        return f"{self.left} bytes are missing" if self.left else ""


class UntilClosed:
    """A body that ends with its connection."""

    done = False

    def room(self, limit: int) -> int:
        return limit

    def split(self, buffer: bytes | bytearray, size: int) -> Sequence[memoryview]:
        return (memoryview(buffer)[:size],)

    def missing(self) -> str:
        return ""
