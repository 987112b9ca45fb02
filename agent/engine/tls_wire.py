# SPDX-License-Identifier: GPL-2.0-or-later
"""A connection to the engine by TLS: `engine.wire.Wire` with the records of TLS inside.

asyncio's own TLS knows no end of one side alone, which is how a console's input ends (RFC 8446 section 6.1), and drops what
a slow reader has not taken when the other side closes. Nothing is moved by threads here: their pieces would be records.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections import deque

from agent.engine.wire import Wire

_RECORD = 16 * 1024  # the most that one carries


class TlsWire(Wire):
    """`host`: who the other side has to be. `handshake` comes before anything else."""

    def __init__(self, buffer: memoryview, context: ssl.SSLContext, host: str) -> None:
        super().__init__(buffer)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._opened: deque[bytes] = deque()  # read from the records already

    async def handshake(self) -> None:
        """Until both sides trust each other. Raises ssl.SSLError, OSError."""
        while True:
            try:
                self._tls.do_handshake()
                return
            except ssl.SSLWantReadError:
                await self._flush()
                await self._take()
            finally:
                await self._flush()  # the alert too, with which the other side is told

    async def read(self) -> bytes:
        """The next piece, b"" at the end. Raises OSError, as when the connection ends without the end of TLS."""
        while not self._opened:
            try:
                return self._tls.read(_RECORD)
            except ssl.SSLZeroReturnError:  # both sides have ended
                return b""
            except ssl.SSLWantReadError:
                await self._flush()
                await self._take()
        return self._opened.popleft()

    async def write(self, data: bytes) -> None:
        """Returns when there is room for more. Raises OSError when the connection is gone."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._tls.write(rest) :]
        await super().write(self._outgoing.read())

    def write_eof(self) -> None:
        """The end of our side; the other one goes on."""
        if self._transport is None or self._transport.is_closing():
            return
        with contextlib.suppress(ssl.SSLError):
            while piece := self._tls.read(_RECORD):
                self._opened.append(piece)  # `unwrap` would throw it away
        with contextlib.suppress(ssl.SSLError):  # it would like to have the other side's end at once
            self._tls.unwrap()
        self._transport.write(self._outgoing.read())

    def lend_source(self) -> tuple[socket.socket, bytes] | None:
        """Never."""
        return None

    async def lend_sink(self) -> socket.socket | None:
        """Never."""
        return None

    async def _take(self) -> None:
        """More records."""
        piece = await super().read()
        if piece:
            self._incoming.write(piece)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        """What TLS itself has to say."""
        if self._outgoing.pending:
            await super().write(self._outgoing.read())
