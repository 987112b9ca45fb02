# SPDX-License-Identifier: GPL-2.0-or-later
"""One connection: pieces in and out with back-pressure, or its socket lent to a thread (`body_pump`).

To the engine, where `engine.stream` knows what the pieces mean; and a client's, once it has become a raw stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import ssl
from collections import deque
from collections.abc import Callable

UNSENT_LIMIT = 256 * 1024
_FAREWELL_S = 5.0
_REST_LIMIT = 256 * 1024  # of an answer whose connection is broken


def can_lend(transport: asyncio.BaseTransport | None) -> bool:
    """Whether a thread can take over the connection's socket: not if it is encrypted or closing."""
    return (
        transport is not None
        and not transport.is_closing()
        and transport.get_extra_info("sslcontext") is None
    )


def socket_of(transport: asyncio.BaseTransport | None) -> socket.socket | None:
    """A copy of a connection's socket, to be closed. None where it cannot be lent."""
    if transport is None or not can_lend(transport):
        return None
    return _copy(transport)


def _copy(transport: asyncio.BaseTransport) -> socket.socket | None:
    try:
        copy: socket.socket = transport.get_extra_info("socket").dup()
    except OSError:
        return None
    return copy


class Wire(asyncio.BufferedProtocol):
    """One connection. Keeps the pieces as the kernel gave them, and stops reading while a buffer full of them waits.

    `buffer` is where the kernel puts them; all connections of an event loop may share one, since a piece is taken out
    before the loop continues. (A plain Protocol's transport allocates 256 KiB for each piece, however small.)
    """

    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer
        self._transport: asyncio.Transport | None = None
        self._pieces: deque[bytes] = deque()
        self._unread = 0
        self._paused = False
        self._ended = False
        self._error: Exception | None = None
        self._news = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self.lost = asyncio.Event()
        self.on_lost: Callable[[Exception | None], None] | None = None  # who had the connection before

    # what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=UNSENT_LIMIT)

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._pieces.append(bytes(self._buffer[:nbytes]))
        self._unread += nbytes
        # what is not read stays in the kernel: the other side slows down, memory does not grow
        if self._unread >= len(self._buffer) and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._news.set()

    def eof_received(self) -> bool:
        self._ended = True
        self._news.set()
        return True  # our side stays open: a console may end its output before it takes the last input

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and self._error is None:
            self._take_the_rest()
        self._ended = True
        self._error = self._error or exc
        # Whoever waits for either is woken, to find the error.
        self._news.set()
        self._writable.set()
        self.lost.set()
        if self.on_lost is not None:
            self.on_lost(exc)

    def _take_the_rest(self) -> None:
        """What the other side said before it closed: asyncio drops it when a write fails (an engine refuses a body by its
        head, answers and closes, while the body is still being written). The kernel has it until the socket is closed.
        """
        copy = None if self._transport is None else _copy(self._transport)
        if copy is None:
            return
        with copy, contextlib.suppress(OSError):  # nothing there, or reset
            copy.settimeout(0)
            while self._unread < _REST_LIMIT and (size := copy.recv_into(self._buffer)):
                self._pieces.append(bytes(self._buffer[:size]))
                self._unread += size

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # what we call

    async def read(self) -> bytes:
        """The next piece, b"" at the end. Raises what broke the connection."""
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self._ended:
                return b""
            self._news.clear()
            await self._news.wait()
        piece = self._pieces.popleft()
        self._unread -= len(piece)
        # The socket is read again once less than a piece waits here, not with each byte that was taken.
        if self._paused and self._unread < len(self._buffer) and self._transport is not None:
            self._paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()
        return piece

    async def write(self, data: bytes) -> None:
        """Returns when there is room for more. Raises OSError when the connection is gone."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the connection is closed")
        self._transport.write(data)
        await self._writable.wait()

    def lend_source(self) -> tuple[socket.socket, bytes] | None:
        """Stops reading: a copy of the socket to continue with, and what was read already. None where that cannot be."""
        copy = None if self._error is not None else socket_of(self._transport)
        if copy is None or self._transport is None:
            return None
        self._paused = True
        self._transport.pause_reading()
        # what the loop has read already comes before what the thread will read
        first = b"".join(self._pieces)
        self._pieces.clear()
        return copy, first

    async def lend_sink(self) -> socket.socket | None:
        """A copy of the socket to write to, once all that was written has left; None where that cannot be."""
        if self._transport is None or not can_lend(self._transport):
            return None  # asked first: an encrypted transport that has to be empty never says that it is
        self._transport.set_write_buffer_limits(high=0)
        await self._writable.wait()
        self._transport.set_write_buffer_limits(high=UNSENT_LIMIT)
        return socket_of(self._transport)

    def unread(self, data: bytes) -> None:
        """Bytes that were read before, to come first."""
        if data:
            self._pieces.appendleft(data)
            self._unread += len(data)

    def write_eof(self) -> None:
        """The end of our side; the other one continues."""
        if self._transport is not None and self._transport.can_write_eof():
            self._transport.write_eof()

    def has_gone(self) -> bool:
        """Whether the other side has closed after it ended its input: asyncio no longer looks then."""
        if self._transport is None or self._transport.is_closing():
            return True
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket"), 0)  # POLLHUP and POLLERR are always told
        return bool(poll.poll(0))

    async def finish(self, limit_s: float) -> None:
        """Ends our side, and the connection once the other one has ended its own, or had 5 s for it, and has taken all
        that was written, or had `limit_s` for it.
        """
        self.write_eof()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_FAREWELL_S):
                while (
                    await self.read()
                ):  # closed with bytes unread it would be reset, with what is on its way
                    pass
        if self._transport is not None:
            self._transport.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self.lost.wait()
        await self.drop()

    async def drop(self) -> None:
        """Ends the connection as it is."""
        self.abort()
        await self.lost.wait()

    def fail(self, exc: Exception) -> None:
        """Breaks the connection; the reader gets `exc`."""
        self._error = self._error or exc
        self._pieces.clear()
        self.abort()
        self._news.set()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


# A connection to the engine by TLS: `engine.wire.Wire` with the records of TLS inside.
#
# asyncio's own TLS knows no end of one side alone, which is how a console's input ends (RFC 8446 section 6.1), and drops
# what a slow reader has not taken when the other side closes. Nothing is moved by threads here: their pieces would be
# records.


_RECORD = 16 * 1024  # the most that one carries


class TlsWire(Wire):
    """`tls` reads from `incoming` and writes to `outgoing`. `handshake` comes before anything else, unless it is over."""

    def __init__(
        self, buffer: memoryview, tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO
    ) -> None:
        super().__init__(buffer)
        self._tls, self._incoming, self._outgoing = tls, incoming, outgoing
        self._opened: deque[bytes] = deque()  # read from the records already

    @classmethod
    def to(cls, buffer: memoryview, context: ssl.SSLContext, host: str) -> TlsWire:
        """For a connection that we make. `host`: who the other side must be."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        return cls(buffer, context.wrap_bio(incoming, outgoing, server_hostname=host), incoming, outgoing)

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

    def unread(self, data: bytes) -> None:
        """As it was before it became records."""
        if data:
            self._opened.appendleft(data)

    def write_eof(self) -> None:
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
