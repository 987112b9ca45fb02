# SPDX-License-Identifier: GPL-2.0-or-later
"""One connection: pieces in and out with back-pressure, or its socket lent to a thread (`body_pump`).

It is used for connections to the engine, whose content `engine.stream` parses, and for a client's connection that has
become a raw stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import ssl
from collections import deque
from collections.abc import Callable

UNSENT_LIMIT = 256 * 1024  # bytes that the other side has not taken; then the writer waits
_FAREWELL_S = 5.0  # for the other side to close its direction
_REST_LIMIT = 256 * 1024  # of an answer that is read from a broken connection


def can_lend(transport: asyncio.BaseTransport | None) -> bool:
    """Whether a thread can take over the connection's socket: not if it is encrypted or closing."""
    return (
        transport is not None
        and not transport.is_closing()
        and transport.get_extra_info("sslcontext") is None
    )


def socket_of(transport: asyncio.BaseTransport | None) -> socket.socket | None:
    """A copy of a connection's socket, which the caller closes. None if it cannot be lent."""
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
    """One connection. It keeps pieces as the kernel delivered them, and pauses reading when a buffer's worth is unread.

    The kernel writes into `buffer`. All connections of an event loop may share it, since each piece is copied out
    before the loop continues. (The transport of a plain Protocol allocates 256 KiB for each piece, however small.)
    """

    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer
        self._transport: asyncio.Transport | None = None
        self._pieces: deque[bytes] = deque()  # received and not read yet
        self._unread = 0
        self._paused = False  # the reader is behind: nothing is read from the socket
        self._ended = False  # the other side has ended its direction
        self._error: Exception | None = None
        self._news = asyncio.Event()
        self._writable = asyncio.Event()  # set while the buffer has room
        self._writable.set()
        self.lost = asyncio.Event()
        self.on_lost: Callable[[Exception | None], None] | None = None  # the previous owner of the connection

    # called by asyncio

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
        # unread bytes stay in the kernel: the other side slows down instead of filling our memory
        if self._unread >= len(self._buffer) and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._news.set()

    def eof_received(self) -> bool:
        self._ended = True
        self._news.set()
        return True  # keep our side open: a console may end its output before it reads the last input

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and self._error is None:
            self._take_the_rest()
        self._ended = True
        self._error = self._error or exc
        # wake all waiters, so that they find the error
        self._news.set()
        self._writable.set()
        self.lost.set()
        if self.on_lost is not None:
            self.on_lost(exc)

    def _take_the_rest(self) -> None:
        """Reads what the other side sent before it closed, which asyncio drops when a write fails. An engine may
        refuse a body by its head, answer and close while the body is still being written. The kernel has the answer
        until the socket is closed.
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

    # called by us

    async def read(self) -> bytes:
        """The next piece, b"" at the end. Raises the error that broke the connection."""
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self._ended:
                return b""
            self._news.clear()
            await self._news.wait()
        piece = self._pieces.popleft()
        self._unread -= len(piece)
        # resume only when less than a buffer's worth is unread, not after each piece
        if self._paused and self._unread < len(self._buffer) and self._transport is not None:
            self._paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()
        return piece

    async def write(self, data: bytes) -> None:
        """Sends bytes; returns when there is room for more. Raises OSError if the connection is closed."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the connection is closed")
        self._transport.write(data)
        await self._writable.wait()

    def lend_source(self) -> tuple[socket.socket, bytes] | None:
        """Stops reading; returns a copy of the socket, and what was read already. None if the socket cannot be lent."""
        copy = None if self._error is not None else socket_of(self._transport)
        if copy is None or self._transport is None:
            return None
        self._paused = True
        self._transport.pause_reading()
        # what the loop has already read precedes what the thread will read
        first = b"".join(self._pieces)
        self._pieces.clear()
        return copy, first

    async def lend_sink(self) -> socket.socket | None:
        """A copy of the socket to write to, once everything written so far was sent; None if it cannot be lent."""
        if self._transport is None or not can_lend(self._transport):
            return None  # checked before waiting: an encrypted transport never reports an empty buffer
        self._transport.set_write_buffer_limits(high=0)
        await self._writable.wait()
        self._transport.set_write_buffer_limits(high=UNSENT_LIMIT)
        return socket_of(self._transport)

    def unread(self, data: bytes) -> None:
        """Puts bytes back: the next read starts with them."""
        if data:
            self._pieces.appendleft(data)
            self._unread += len(data)

    def write_eof(self) -> None:
        """Closes our direction; the other one stays open."""
        if self._transport is not None and self._transport.can_write_eof():
            self._transport.write_eof()

    def has_gone(self) -> bool:
        """Whether the other side has closed the connection after it ended its input, which asyncio does not notice."""
        if self._transport is None or self._transport.is_closing():
            return True
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket"), 0)  # POLLHUP and POLLERR are always reported
        return bool(poll.poll(0))

    async def finish(self, limit_s: float) -> None:
        """Closes our direction, then the connection: when the other side has closed its own (within 5 s) and has
        received everything written (within `limit_s`).
        """
        self.write_eof()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_FAREWELL_S):
                while (
                    await self.read()
                ):  # closing with unread bytes would reset the connection and lose what is in transit
                    pass
        if self._transport is not None:
            self._transport.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self.lost.wait()
        await self.drop()

    async def drop(self) -> None:
        """Closes the connection at once."""
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


# A TLS connection to the engine: a `Wire` that carries TLS records.
#
# asyncio's own TLS cannot close one direction alone, which is how a console's input ends (RFC 8446 section 6.1), and
# it drops what a slow reader has not read when the other side closes. Threads cannot move these bodies: their pieces
# would be records.


_RECORD = 16 * 1024  # bytes that a record carries at most


class TlsWire(Wire):
    """`tls` reads from `incoming` and writes to `outgoing`. Call `handshake` first, unless it is done already."""

    def __init__(
        self, buffer: memoryview, tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO
    ) -> None:
        super().__init__(buffer)
        self._tls, self._incoming, self._outgoing = tls, incoming, outgoing
        self._opened: deque[bytes] = deque()  # decrypted already

    @classmethod
    def to(cls, buffer: memoryview, context: ssl.SSLContext, host: str) -> TlsWire:
        """For a connection that we open. `host` is the name that the other side's certificate must have."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        return cls(buffer, context.wrap_bio(incoming, outgoing, server_hostname=host), incoming, outgoing)

    async def handshake(self) -> None:
        """Returns when both sides trust each other. Raises ssl.SSLError, OSError."""
        while True:
            try:
                self._tls.do_handshake()
                return
            except ssl.SSLWantReadError:
                await self._flush()
                await self._take()
            finally:
                await self._flush()  # also sends the alert that tells the other side of a failure

    async def read(self) -> bytes:
        """The next piece, b"" at the end. Raises OSError, also if the connection ends without a TLS close."""
        while not self._opened:
            try:
                return self._tls.read(_RECORD)
            except ssl.SSLZeroReturnError:  # both sides have closed
                return b""
            except ssl.SSLWantReadError:
                await self._flush()
                await self._take()
        return self._opened.popleft()

    async def write(self, data: bytes) -> None:
        """Sends bytes; returns when there is room for more. Raises OSError if the connection is closed."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._tls.write(rest) :]
        await super().write(self._outgoing.read())

    def unread(self, data: bytes) -> None:
        """Puts decrypted bytes back."""
        if data:
            self._opened.appendleft(data)

    def write_eof(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        with contextlib.suppress(ssl.SSLError):
            while piece := self._tls.read(_RECORD):
                self._opened.append(piece)  # `unwrap` would discard these bytes
        with contextlib.suppress(ssl.SSLError):  # it would rather wait for the other side's close
            self._tls.unwrap()
        self._transport.write(self._outgoing.read())

    def lend_source(self) -> tuple[socket.socket, bytes] | None:
        """None: an encrypted socket is never lent."""
        return None

    async def lend_sink(self) -> socket.socket | None:
        """None: an encrypted socket is never lent."""
        return None

    async def _take(self) -> None:
        """Reads more records."""
        piece = await super().read()
        if piece:
            self._incoming.write(piece)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        """Sends what TLS itself has to send."""
        if self._outgoing.pending:
            await super().write(self._outgoing.read())
