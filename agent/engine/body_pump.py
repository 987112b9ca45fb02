# SPDX-License-Identifier: GPL-2.0-or-later
"""Moves a large body from one socket to another in a thread, with three system calls per piece and no copy in Python.
If the length of the body is known, the bytes do not even enter the process.

An event loop would move each piece through four buffers. The loop keeps both connections: their heads, their end, and what
follows the body. The thread borrows copies of the sockets, and the loop does not touch the side that the thread works on. A
`Framing` parses what the thread reads, so that it stops at the body's last byte; the body is framed again for the sink.

The engine alternates between writes of 4 and 28 KiB. Waking up for each would cost more than copying it, so the
kernel collects a larger piece first (`_blocking`).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, runtime_checkable

from agent.wire.http_head import BodyError, Counted, Framing

LEAST = 512 * 1024  # bytes; a smaller body is not worth a thread
THREADS = 8  # bodies moved at once; further ones go through the loop
_BUFFER = 256 * 1024
_SPLICED = 256 * 1024  # bytes in a pipe between the two sockets
# a piece is taken when it has this size; if we waited for more, the source's buffer would be full
_LOW_WATER = 128 * 1024
_SINK_BUFFER = 512 * 1024  # bytes: several pieces, so that the sink is busy while the next one is fetched
_FILL_MS = 20  # how long a piece may take to fill up
_NEWS_S = 0.25  # between two progress reports
_SO_RCVTIMEO_NEW = 66  # asm-generic/socket.h
_SO_SNDBUFFORCE = 32  # the same beyond net.core.wmem_max, if the process is allowed to
_PARTS = 512  # buffers per system call: half of the kernel's limit (IOV_MAX is 1024)

Note = Callable[[int], None]  # gets the bytes moved since the last call; called now and then, and at the end

_pool: ThreadPoolExecutor | None = None
_pumps = 0  # threads that move a body; only the event loop changes it


class BrokenSourceError(Exception):
    """The source ended before the body did, or sent a malformed body. Errors of the sink are OSErrors."""


class EndedSourceError(BrokenSourceError):
    """The source ended."""


class StoppedError(Exception):
    """`stop` was called."""


@runtime_checkable
class Passing(Protocol):
    """A request body that can move itself into a socket; iteration then yields the rest."""

    async def pass_into(self, sink: socket.socket, note: Note | None = None) -> None:
        """Moves as much as possible past the loop, perhaps nothing. Raises OSError if the sink breaks."""


class Pump:
    """Moves one body. `first` was read from the source already. With `chunked` each piece becomes a chunk for the sink.

    `source_stall_s` and `sink_stall_s` limit how long one side may make no progress; None is no limit. The caller
    closes both sockets after `run`.
    """

    def __init__(
        self,
        source: socket.socket,
        sink: socket.socket,
        framing: Framing,
        *,
        first: bytes = b"",
        chunked: bool = False,
        source_stall_s: float | None = None,
        sink_stall_s: float | None = None,
    ) -> None:
        self.taken = 0  # bytes read from the source
        self.moved = 0  # bytes of the body that the sink has received
        self._source, self._sink, self._framing = source, sink, framing
        self._first = first
        self._chunked = chunked
        self._stalls_ms = (_milliseconds(source_stall_s), _milliseconds(sink_stall_s))
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)  # wakes the thread

    def stop(self) -> None:
        """Ends `run` within 20 ms; may be called from any thread, before `close`."""
        os.eventfd_write(self._stop, 1)

    def close(self) -> None:
        """Frees the descriptor; `stop` must not be called any more."""
        os.close(self._stop)

    def run(self) -> None:
        """Runs until the body is complete. Blocks.

        Raises BrokenSourceError, StoppedError, OSError for the sink, TimeoutError if the sink accepts nothing.
        """
        # both polls also watch `stop`, because a thread cannot be cancelled, only woken
        readable, writable = self._poll(self._source, select.POLLIN), self._poll(self._sink, select.POLLOUT)
        try:
            self._send(self._framing.split(self._first, len(self._first)), writable)
            with _blocking(self._source, socket.SO_RCVTIMEO), _blocking(self._sink, socket.SO_SNDTIMEO):
                if isinstance(self._framing, Counted) and not self._chunked:
                    self._splice(self._framing, readable, writable)
                else:
                    self._copy(readable, writable)
        except BodyError as exc:
            raise BrokenSourceError(str(exc)) from exc

    def _copy(self, readable: select.poll, writable: select.poll) -> None:
        """Moves the body through memory, if its end has to be found by parsing."""
        # one buffer for the whole body: each piece is sent before the next one is read
        buffer = bytearray(_BUFFER)

        def receive() -> int:
            return self._source.recv_into(buffer, self._framing.room(_BUFFER), socket.MSG_WAITALL)

        while not self._framing.done and (size := self._take(receive, readable)):
            self._send(self._framing.split(buffer, size), writable)

    def _splice(self, body: Counted, readable: select.poll, writable: select.poll) -> None:
        """Moves the body through a pipe with splice(2): the kernel passes most pages on without copying."""
        with _room(self._sink), _pipe() as (end, start, capacity):

            def receive() -> int:
                wanted = body.room(capacity)
                # splice returns what has arrived: without the low-water mark each small write of the engine would be
                # a piece
                _set_low_water(self._source, min(wanted, _LOW_WATER))
                return os.splice(self._source.fileno(), start, wanted)

            while not body.done and (size := self._take(receive, readable)):
                body.pass_by(size)
                self._drain(end, size, writable)

    def _drain(self, pipe: int, size: int, writable: select.poll) -> None:
        # Send a whole piece before taking the next one: bytes left in the pipe would be lost if the sink breaks.
        while size:
            try:
                sent = os.splice(pipe, self._sink.fileno(), size)
            except BlockingIOError:
                self._wait_for_room(writable)
                continue
            size -= sent
            self.moved += sent

    def _poll(self, end: socket.socket, what: int) -> select.poll:
        made = select.poll()
        made.register(end, what)
        made.register(self._stop, select.POLLIN)
        return made

    def _take(self, receive: Callable[[], int], readable: select.poll) -> int:
        """The size of the next piece, 0 at a valid end."""
        while self._wait(readable, self._stalls_ms[0]):
            try:
                size = receive()
            except BlockingIOError:  # woken without data
                continue
            except OSError as exc:
                raise BrokenSourceError(exc.strerror or str(exc)) from exc
            # the source of a body with a known length ended early: the receiver could not tell it from a complete one
            if size == 0 and (missing := self._framing.missing()):
                raise EndedSourceError(missing)
            self.taken += size
            return size
        seconds = (self._stalls_ms[0] or 0) / 1000
        raise BrokenSourceError(f"no byte of the body came in {seconds:g} s")

    def _send(self, parts: Sequence[memoryview], writable: select.poll) -> None:
        size = sum(map(len, parts))
        if size == 0:
            return
        # many tiny chunks: joining them costs less than the system calls
        if len(parts) > _PARTS:
            parts = [memoryview(b"".join(parts))]
        left = [memoryview(b"%x\r\n" % size), *parts, memoryview(b"\r\n")] if self._chunked else list(parts)
        while left:
            try:
                sent = self._sink.sendmsg(left)
            except BlockingIOError:
                self._wait_for_room(writable)
                continue
            left = _after(left, sent)
        self.moved += size

    def _wait_for_room(self, writable: select.poll) -> None:
        if not self._wait(writable, self._stalls_ms[1]):
            raise TimeoutError("the receiver takes nothing")

    def _wait(self, poll: select.poll, limit_ms: int | None) -> bool:
        """Waits until the socket is ready; False after `limit_ms`."""
        events = poll.poll(limit_ms)
        if any(number == self._stop for number, _ in events):
            raise StoppedError
        return bool(events)


@contextlib.contextmanager
def _blocking(end: socket.socket, limit: int) -> Iterator[None]:
    """Lets one system call do the work of `_FILL_MS`: fill a whole buffer (MSG_WAITALL), or wait until there is room
    for all.

    `limit` is SO_RCVTIMEO or SO_SNDTIMEO. The loop does not know of this mode and may use the socket's other
    direction: its reads return what has arrived, and a write without room blocks it for one tick of the kernel.
    """
    limits = (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO)
    # both, because without O_NONBLOCK the other direction would block for ever: it gets the shortest possible time
    for option in limits:
        end.setsockopt(socket.SOL_SOCKET, option, _time(_FILL_MS * 1000 if option == limit else 1))
    end.settimeout(None)
    try:
        yield
    finally:
        end.settimeout(0)
        for option in limits:
            end.setsockopt(socket.SOL_SOCKET, option, _time(0))
        _set_low_water(end, 1)


def _time(microseconds: int) -> bytes:
    """A struct timeval. If `long` has 32 bits, the options with 64-bit times have other numbers."""
    return struct.pack("qq" if socket.SO_RCVTIMEO == _SO_RCVTIMEO_NEW else "ll", 0, microseconds)


def _set_low_water(source: socket.socket, size: int) -> None:
    """The counterpart of MSG_WAITALL for splice(2). Not for TCP, which applies it to poll(2) too, where it would look
    like a stall.
    """
    if source.family == socket.AF_UNIX and source.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) != size:
        source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)


@contextlib.contextmanager
def _room(sink: socket.socket) -> Iterator[None]:
    """Enlarges the sink's buffer for the transfer. Not for TCP, which tunes its buffer itself unless a size is set."""
    if sink.family != socket.AF_UNIX:
        yield
        return
    # the kernel doubles the value that is set
    before = sink.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2
    try:
        with contextlib.suppress(PermissionError):
            sink.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SINK_BUFFER)
        yield
    finally:
        sink.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, before)


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int, int]]:
    """The read end, the write end, and how many bytes to put into the pipe at most."""
    end, start = os.pipe2(os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # fs.pipe-max-size may be lower
            fcntl.fcntl(start, fcntl.F_SETPIPE_SZ, 2 * _SPLICED)
        # half of it, because pages may be partly empty
        yield end, start, min(_SPLICED, fcntl.fcntl(start, fcntl.F_GETPIPE_SZ) // 2)
    finally:
        os.close(end)
        os.close(start)


def has_room() -> bool:
    """Whether a thread may move another body."""
    return _pumps < THREADS


async def run_in_thread(pump: Pump, note: Note | None = None) -> None:
    """Runs `Pump.run`, then `close`. If cancelled, it returns only when the thread no longer uses the sockets."""
    global _pool, _pumps
    _pool = _pool or ThreadPoolExecutor(THREADS, thread_name_prefix="body")
    _pumps += 1
    try:
        work = asyncio.get_running_loop().run_in_executor(_pool, pump.run)
        try:
            # only the thread writes `moved`, an int, so it can be read without a lock
            told = 0
            while not work.done():
                await asyncio.wait({work}, timeout=_NEWS_S if note else None)
                if note and (moved := pump.moved) > told:
                    note(moved - told)
                    told = moved
            work.result()
        except asyncio.CancelledError:
            # the caller closes the sockets right after this, so the thread must no longer use them
            pump.stop()
            await asyncio.wait({work})
            with contextlib.suppress(Exception):  # nothing waits for this error any more
                work.result()
            raise
    finally:
        _pumps -= 1
        pump.close()


def _after(parts: list[memoryview], sent: int) -> list[memoryview]:
    """The parts that remain after `sent` bytes."""
    for number, part in enumerate(parts):
        if sent < len(part):
            return [part[sent:], *parts[number + 1 :]]
        sent -= len(part)
    return []


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1000)
