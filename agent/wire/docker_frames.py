# SPDX-License-Identifier: GPL-2.0-or-later
"""The engine's multiplexed output of containers without a terminal (Engine API, "Attach to a container", stream format).

A frame is `type, 0, 0, 0, length (4 bytes, big endian)` and then that many bytes of one stream. The length comes from
outside: payload is handed on as it arrives and never collected.
"""

from __future__ import annotations

import struct

STREAMS = ("stdin", "stdout", "stderr")
HEADER = 8


class FrameError(ValueError):
    """These bytes are not a frame."""


class FrameDecoder:
    """Feed it pieces of any size. Holds at most an incomplete header."""

    def __init__(self) -> None:
        self._head = b""
        self._stream = ""
        self._left = 0

    def feed(self, data: bytes) -> list[tuple[str, bytes]]:
        """What arrived, in order, as (stream, bytes). Raises FrameError."""
        pieces: list[tuple[str, bytes]] = []
        position = 0
        while position < len(data):
            if self._left == 0:
                wanted = HEADER - len(self._head)
                self._head += data[position : position + wanted]
                position += wanted
                if len(self._head) < HEADER:
                    break
                self._open(self._head)
                self._head = b""
                continue
            piece = data[position : position + self._left]
            position += len(piece)
            self._left -= len(piece)
            pieces.append((self._stream, piece))
        return pieces

    def end(self) -> None:
        """Call it at the end of input. Raises FrameError when a frame is not complete."""
        if self._head or self._left:
            raise FrameError(f"the output ended inside a frame ({self._left} bytes are missing)")

    def _open(self, head: bytes) -> None:
        kind, padding, length = struct.unpack(">B3sI", head)
        if kind >= len(STREAMS) or padding != b"\0\0\0":
            raise FrameError(f"no frame header: {head.hex()}")
        self._stream, self._left = STREAMS[kind], length


def encode_frame(stream: str, data: bytes) -> bytes:
    """One frame."""
    return struct.pack(">B3xI", STREAMS.index(stream), len(data)) + data
