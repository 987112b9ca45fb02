# SPDX-License-Identifier: GPL-2.0-or-later
"""HTTP/1.1 chunked coding (RFC 9112 section 7.1), for bodies of gigabytes: h11 makes an event of each chunk, and an
engine sends chunks of 32 KiB at most; here all the chunks of one read are found at once, where they lie.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from agent.wire.http_body import BodyError

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?\r\n")
_LINE_LIMIT = 4096
_TRAILER_LIMIT = 16 * 1024

LAST = b"0\r\n\r\n"


class ChunkError(BodyError):
    """These bytes are no chunk."""


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
