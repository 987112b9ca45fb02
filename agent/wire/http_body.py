# SPDX-License-Identifier: GPL-2.0-or-later
"""How a body of HTTP/1.1 ends: after so many bytes, or with its connection (RFC 9112 section 6.3). `http_chunks` has the
third way. All of them find the payload in what came, and know what is missing when nothing more comes.
"""

from __future__ import annotations

import re
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


# HTTP/1.1 chunked coding (RFC 9112 section 7.1), for bodies of gigabytes: h11 makes an event of each chunk, and an
# engine sends chunks of 32 KiB at most; here all the chunks of one read are found at once, where they lie.


_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?\r\n")
_LINE_LIMIT = 4096
_TRAILER_LIMIT = 16 * 1024

LAST = b"0\r\n\r\n"


class ChunkError(BodyError):
    """These bytes are not a chunk."""


class ChunkDecoder:
    """A `Framing`. Takes pieces of any size; holds at most an incomplete size line or trailer."""

    def __init__(self) -> None:
        self._line = b""
        self._left = 0  # bytes of the open chunk
        self._at = "size"  # size | data | end of data | trailer | done
        self._trailer = 0

    @property
    def done(self) -> bool:
        """Whether the last chunk was seen."""
        return self._at == "done"

    def room(self, limit: int) -> int:
        return limit

    def missing(self) -> str:
        return "" if self.done else "it ended without its last chunk"

    def split(self, buffer: bytes | bytearray, size: int) -> Sequence[memoryview]:
        """The payload in the first `size` bytes, in place. Raises ChunkError. Bytes after the end are an error too."""
        view = memoryview(buffer)
        pieces: list[memoryview] = []
        position = 0
        while position < size:
            if self._at == "data":
                piece = view[position : min(position + self._left, size)]
                pieces.append(piece)
                position += len(piece)
                self._left -= len(piece)
                if self._left == 0:
                    self._at = "end of data"
                continue
            if self._at == "done":
                raise ChunkError("bytes after the last chunk")
            end = buffer.find(b"\n", position, size)
            stop = size if end < 0 else end + 1
            self._line += buffer[position:stop]
            position = stop
            if len(self._line) > _LINE_LIMIT:
                raise ChunkError("a size line or trailer is too long")
            if end >= 0:
                line, self._line = self._line, b""
                self._take(line)
        return pieces

    def _take(self, line: bytes) -> None:
        if self._at == "end of data":
            if line != b"\r\n":
                raise ChunkError("a chunk is longer than it says")
            self._at = "size"
        elif self._at == "size":
            match = _SIZE.fullmatch(line)
            if match is None:
                raise ChunkError(f"no chunk size: {line[:32]!r}")
            self._left = int(match[1], 16)
            self._at = "data" if self._left else "trailer"
        else:
            self._trailer += len(line)
            if self._trailer > _TRAILER_LIMIT:
                raise ChunkError("the trailer is too long")
            if line == b"\r\n":
                self._at = "done"


def encode_chunk(data: bytes) -> bytes:
    """One chunk; b"" would be the last one and is refused."""
    if not data:
        raise ChunkError("an empty chunk ends the body")
    return b"%x\r\n%b\r\n" % (len(data), data)
