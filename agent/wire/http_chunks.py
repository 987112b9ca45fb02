# SPDX-License-Identifier: GPL-2.0-or-later
"""HTTP/1.1 chunked coding (RFC 9112 section 7.1), for bodies of gigabytes: h11 makes an event of each chunk, and an
engine sends chunks of 32 KiB at most; here all the chunks of one read leave as one piece.
"""

from __future__ import annotations

import re

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?\r\n")
_LINE_LIMIT = 4096
_TRAILER_LIMIT = 16 * 1024

LAST = b"0\r\n\r\n"


class ChunkError(ValueError):
    """These bytes are no chunk."""


class ChunkDecoder:
    """Feed it pieces of any size. Holds at most an incomplete size line or trailer."""

    def __init__(self) -> None:
        self._line = b""
        self._left = 0  # bytes of the open chunk
        self._at = "size"  # size | data | end of data | trailer | done
        self._trailer = 0

    @property
    def done(self) -> bool:
        """Whether the last chunk was seen."""
        return self._at == "done"

    def feed(self, data: bytes) -> bytes:
        """The payload in `data`. Raises ChunkError. Bytes after the end are an error too."""
        view = memoryview(data)
        pieces: list[memoryview] = []
        position = 0
        while position < len(data):
            if self._at == "data":
                piece = view[position : position + self._left]
                pieces.append(piece)
                position += len(piece)
                self._left -= len(piece)
                if self._left == 0:
                    self._at = "end of data"
                continue
            if self._at == "done":
                raise ChunkError("bytes after the last chunk")
            end = data.find(b"\n", position)
            stop = len(data) if end < 0 else end + 1
            self._line += data[position:stop]
            position = stop
            if len(self._line) > _LINE_LIMIT:
                raise ChunkError("a size line or trailer is too long")
            if end >= 0:
                line, self._line = self._line, b""
                self._take(line)
        return b"".join(pieces)

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
