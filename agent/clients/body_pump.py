# SPDX-License-Identifier: GPL-2.0-or-later
"""A large body moved from one socket to another by a thread: two system calls for a piece, and no copy in Python.

An event loop would take each piece through four buffers. The loop keeps both connections (their heads, their end, what
follows the body); the thread borrows copies of the sockets while the loop does not touch the side that it works on. What
it reads is looked through by a `Framing`, so that it stops at the body's last byte, and is framed anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, runtime_checkable

from agent.wire.http_body import BodyError, Framing

LEAST = 512 * 1024  # bytes: less is not worth a thread
THREADS = 8  # bodies that are moved at once; more than that go through the loop
_BUFFER = 256 * 1024
_PARTS = 512  # that the kernel takes at once, and some to spare (IOV_MAX is 1024)

_pool: ThreadPoolExecutor | None = None
_pumps = 0


class BrokenSourceError(Exception):
    """The source ended before the body did, or sent what is no such body. What is wrong with the sink is an OSError."""


class StoppedError(Exception):
    """`stop` was called."""


@runtime_checkable
class Passing(Protocol):
    """The body of a request that can move itself into a socket; what is left then comes by iteration."""

    async def pass_into(self, sink: socket.socket) -> None:
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
        self._stopped = False
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def stop(self) -> None:
        """Ends `run` at once; from any thread, before `close`."""
        self._stopped = True  # for a pump that never has to wait
        os.eventfd_write(self._stop, 1)

    def close(self) -> None:
        """Nobody will call `stop` any more."""
        os.close(self._stop)

    def run(self) -> None:
        """Until the body is complete. Blocks.

        Raises BrokenSourceError, StoppedError, OSError for the sink, TimeoutError where that takes nothing.
        """
        readable, writable = self._poll(self._source, select.POLLIN), self._poll(self._sink, select.POLLOUT)
        try:
            self._send(self._framing.split(self._first, len(self._first)), writable)
            buffer = bytearray(_BUFFER)
            while not self._framing.done:
                size = self._receive(buffer, readable)
                if size == 0:
                    if missing := self._framing.missing():
                        raise BrokenSourceError(missing)
                    return
                self.taken += size
                self._send(self._framing.split(buffer, size), writable)
        except BodyError as exc:
            raise BrokenSourceError(str(exc)) from exc

    def _poll(self, end: socket.socket, what: int) -> select.poll:
        made = select.poll()
        made.register(end, what)
        made.register(self._stop, select.POLLIN)
        return made

    def _receive(self, buffer: bytearray, readable: select.poll) -> int:
        room = self._framing.room(len(buffer))
        while True:
            try:
                return self._source.recv_into(buffer, room)
            except BlockingIOError:
                if not self._wait(readable, self._stalls_ms[0]):
                    seconds = (self._stalls_ms[0] or 0) / 1000
                    raise BrokenSourceError(f"no byte of the body came in {seconds:g} s") from None
            except OSError as exc:
                raise BrokenSourceError(exc.strerror or str(exc)) from exc

    def _send(self, parts: Sequence[memoryview], writable: select.poll) -> None:
        if self._stopped:
            raise StoppedError
        size = sum(map(len, parts))
        if size == 0:
            return
        if len(parts) > _PARTS:
            parts = [memoryview(b"".join(parts))]
        left = [memoryview(b"%x\r\n" % size), *parts, memoryview(b"\r\n")] if self._chunked else list(parts)
        while left:
            try:
                sent = self._sink.sendmsg(left)
            except BlockingIOError:
                if not self._wait(writable, self._stalls_ms[1]):
                    raise TimeoutError("nothing is taken") from None
                continue
            left = _after(left, sent)
        self.moved += size

    def _wait(self, poll: select.poll, limit_ms: int | None) -> bool:
        """Whether the socket can go on; False when it was not in time."""
        events = poll.poll(limit_ms)
        if any(number == self._stop for number, _ in events):
            raise StoppedError
        return bool(events)


def has_room() -> bool:
    """Whether one more body may be moved by a thread."""
    return _pumps < THREADS


async def run_in_thread(pump: Pump) -> None:
    """`Pump.run`, and `close`. When cancelled, it returns once the thread has let go of both sockets."""
    global _pool, _pumps
    _pool = _pool or ThreadPoolExecutor(THREADS, thread_name_prefix="body")
    _pumps += 1
    try:
        work = asyncio.get_running_loop().run_in_executor(_pool, pump.run)
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            pump.stop()
            await asyncio.wait({work})
            with contextlib.suppress(Exception):  # whatever it was: nobody waits for it any more
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
