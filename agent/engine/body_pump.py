# SPDX-License-Identifier: GPL-2.0-or-later
"""A large body moved from one socket to another by a thread: three system calls for a piece, and no copy in Python.
Where its end is known by its length, the bytes do not even come into the process.

An event loop would take each piece through four buffers. The loop keeps both connections (their heads, their end, what
follows the body); the thread borrows copies of the sockets while the loop does not touch the side that it works on. What
it reads is looked through by a `Framing`, so that it stops at the body's last byte, and is framed again.

An engine writes 4 and 28 KiB in turns. Were each of them a piece, waking up for it would cost more than copying it:
the kernel fills a piece meanwhile (`_blocking`).
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

LEAST = 512 * 1024  # bytes: less is not worth a thread
THREADS = 8  # bodies that are moved at once; more than that go through the loop
_BUFFER = 256 * 1024
_SPLICED = 256 * 1024
_LOW_WATER = 128 * 1024  # a piece is taken from here on: with more, the source would find its buffer full
_SINK_BUFFER = 512 * 1024  # bytes: some pieces, so that the sink has work while the next one is fetched
_FILL_MS = 20  # how long a piece may take to get full
_NEWS_S = 0.25  # between two words about how far a body is
_SO_RCVTIMEO_NEW = 66  # asm-generic/socket.h
_SO_SNDBUFFORCE = 32  # the same; past net.core.wmem_max, for who may
_PARTS = 512  # that the kernel takes at once, and some to spare (IOV_MAX is 1024)

Note = Callable[
    [int], None
]  # gets the bytes that were moved since it was called last, now and then and at the end

_pool: ThreadPoolExecutor | None = None
_pumps = 0


class BrokenSourceError(Exception):
    """The source ended before the body did, or sent a malformed body. Errors of the sink are OSErrors."""


class EndedSourceError(BrokenSourceError):
    """It ended."""


class StoppedError(Exception):
    """`stop` was called."""


@runtime_checkable
class Passing(Protocol):
    """The body of a request that can move itself into a socket; what is left then comes by iteration."""

    async def pass_into(self, sink: socket.socket, note: Note | None = None) -> None:
        """As much as can be moved past the loop, perhaps nothing. Raises OSError where the sink breaks."""


class Pump:
    """`first` was read from the source already. `chunked`: the sink gets chunks, one for each piece.

    `source_stall_s`, `sink_stall_s`: how long one side may do nothing, None for ever. Both sockets are the caller's to
    close, after `run`.
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
        self.moved = 0  # of the body, that the sink has got
        self._source, self._sink, self._framing = source, sink, framing
        self._first = first
        self._chunked = chunked
        self._stalls_ms = (_milliseconds(source_stall_s), _milliseconds(sink_stall_s))
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def stop(self) -> None:
        """Ends `run`, in 20 ms at the latest; from any thread, before `close`."""
        os.eventfd_write(self._stop, 1)

    def close(self) -> None:
        """`stop` will not be called any more."""
        os.close(self._stop)

    def run(self) -> None:
        """Until the body is complete. Blocks.

        Raises BrokenSourceError, StoppedError, OSError for the sink, TimeoutError where that takes nothing.
        """
        # one poll for each side, each with `stop`: a thread cannot be cancelled, it has to be woken
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
        """Through memory, where the end of the body must be looked for."""
        # one for the whole body: each piece is gone before the next one comes
        buffer = bytearray(_BUFFER)

        def receive() -> int:
            return self._source.recv_into(buffer, self._framing.room(_BUFFER), socket.MSG_WAITALL)

        while not self._framing.done and (size := self._take(receive, readable)):
            self._send(self._framing.split(buffer, size), writable)

    def _splice(self, body: Counted, readable: select.poll, writable: select.poll) -> None:
        """Through a pipe, by splice(2): the kernel hands on most pages as they are."""
        with _room(self._sink), _pipe() as (end, start, capacity):

            def receive() -> int:
                wanted = body.room(capacity)
                # splice returns what is there: without it each of the engine's small writes would be a piece
                _set_low_water(self._source, min(wanted, _LOW_WATER))
                return os.splice(self._source.fileno(), start, wanted)

            while not body.done and (size := self._take(receive, readable)):
                body.pass_by(size)
                self._drain(end, size, writable)

    def _drain(self, pipe: int, size: int, writable: select.poll) -> None:
        # All of a piece goes before the next one is taken: what stays in the pipe would be lost with a sink that
        # breaks.
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
        """The size of the next piece, 0 at an end that may be one."""
        while self._wait(readable, self._stalls_ms[0]):
            try:
                size = receive()
            except BlockingIOError:  # it was woken for nothing
                continue
            except OSError as exc:
                raise BrokenSourceError(exc.strerror or str(exc)) from exc
            # A body of known length that ends early is an error here: its reader could not tell it from a whole one.
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
        # chunks of a few bytes each: joining costs less than a system call for every thousand
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
            raise TimeoutError("nothing is taken")

    def _wait(self, poll: select.poll, limit_ms: int | None) -> bool:
        """Whether the socket can continue; False when it was not in time."""
        events = poll.poll(limit_ms)
        if any(number == self._stop for number, _ in events):
            raise StoppedError
        return bool(events)


@contextlib.contextmanager
def _blocking(end: socket.socket, limit: int) -> Iterator[None]:
    """What the kernel does within _FILL_MS, it does in one call: fills a buffer (MSG_WAITALL), or makes room for all.

    `limit`: SO_RCVTIMEO or SO_SNDTIMEO. The loop, which knows nothing of it, may use the other way of that socket: it
    reads what is there, and an answer that finds no room holds it up for a tick of the kernel.
    """
    limits = (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO)
    # both: without an O_NONBLOCK the other direction would block for ever, so it gets the shortest time there is
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
    """A struct timeval. Where `long` has 32 bits, the options that take 64 have numbers of their own."""
    return struct.pack("qq" if socket.SO_RCVTIMEO == _SO_RCVTIMEO_NEW else "ll", 0, microseconds)


def _set_low_water(source: socket.socket, size: int) -> None:
    """What MSG_WAITALL is to recv(2), for splice(2). TCP takes it for poll(2) too, where it would look like a stall."""
    if source.family == socket.AF_UNIX and source.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) != size:
        source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)


@contextlib.contextmanager
def _room(sink: socket.socket) -> Iterator[None]:
    """A larger buffer. TCP tunes its buffer itself unless one is set."""
    if sink.family != socket.AF_UNIX:
        yield
        return
    before = sink.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2  # the kernel doubles what it is given
    try:
        with contextlib.suppress(PermissionError):
            sink.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SINK_BUFFER)
        yield
    finally:
        sink.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, before)


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int, int]]:
    """Where to read from, where to write to, and how many bytes to put into it at most."""
    end, start = os.pipe2(os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # fs.pipe-max-size may be less
            fcntl.fcntl(start, fcntl.F_SETPIPE_SZ, 2 * _SPLICED)
        # a page may be half empty
        yield end, start, min(_SPLICED, fcntl.fcntl(start, fcntl.F_GETPIPE_SZ) // 2)
    finally:
        os.close(end)
        os.close(start)


def has_room() -> bool:
    """Whether one more body may be moved by a thread."""
    return _pumps < THREADS


async def run_in_thread(pump: Pump, note: Note | None = None) -> None:
    """`Pump.run`, and `close`. When cancelled, it returns once the thread has let go of both sockets."""
    global _pool, _pumps
    _pool = _pool or ThreadPoolExecutor(THREADS, thread_name_prefix="body")
    _pumps += 1
    try:
        work = asyncio.get_running_loop().run_in_executor(_pool, pump.run)
        try:
            # `moved` is an int that the thread alone writes: reading it needs no lock
            told = 0
            while not work.done():
                await asyncio.wait({work}, timeout=_NEWS_S if note else None)
                if note and (moved := pump.moved) > told:
                    note(moved - told)
                    told = moved
            work.result()
        except asyncio.CancelledError:
            # its sockets are closed by the caller right after this: the thread must have let go of them
            pump.stop()
            await asyncio.wait({work})
            with contextlib.suppress(Exception):  # whatever it was: nothing waits for it any more
                work.result()
            raise
    finally:
        _pumps -= 1
        pump.close()


def _after(parts: list[memoryview], sent: int) -> list[memoryview]:
    """What is left of them."""
    for number, part in enumerate(parts):
        if sent < len(part):
            return [part[sent:], *parts[number + 1 :]]
        sent -= len(part)
    return []


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1000)
