# SPDX-License-Identifier: GPL-2.0-or-later
"""A body that a thread moves from socket to socket: what arrives, where it stops, and how it ends early."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from agent.engine.body_pump import BrokenSourceError, Pump, StoppedError, run_in_thread
from agent.wire.http_head import LAST, ChunkDecoder, Counted, Framing, UntilClosed, encode_chunk, payload

BODY = bytes(range(256)) * 8192  # 2 MiB
CHUNKED = b"".join(encode_chunk(BODY[start : start + 32768]) for start in range(0, len(BODY), 32768)) + LAST
LIMIT_S = 20


class Ends:
    """A pump between two pairs of sockets: `source` and `sink` are the far ends, which block."""

    def __init__(self) -> None:
        self.source, self._near_source = socket.socketpair()
        self._near_sink, self.sink = socket.socketpair()
        for near in (self._near_source, self._near_sink):
            near.setblocking(False)
        for far in (self.source, self.sink):
            far.settimeout(LIMIT_S)

    def pump(self, framing: Framing, **more: Any) -> Pump:
        return Pump(self._near_source, self._near_sink, framing, **more)

    def run(self, pump: Pump) -> None:
        """Afterwards the reader of `sink` sees the end."""
        try:
            pump.run()
        finally:
            pump.close()
            self._near_sink.shutdown(socket.SHUT_WR)

    def send(self, data: bytes) -> None:
        """All of it, and then the end."""
        self.source.sendall(data)
        self.source.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        for end in (self.source, self._near_source, self._near_sink, self.sink):
            end.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    made.close()


@contextmanager
def beside(work: Callable[..., None], *args: Any) -> Iterator[None]:
    """Runs it in a thread, which has ended with the block."""
    thread = threading.Thread(target=work, args=args)
    thread.start()
    yield
    thread.join(LIMIT_S)
    assert not thread.is_alive()


def read_into(found: bytearray, end: socket.socket) -> None:
    while piece := end.recv(65536):
        found.extend(piece)


FRAMINGS: dict[str, tuple[Callable[[], Framing], bytes]] = {
    "chunks": (ChunkDecoder, CHUNKED),
    "so many bytes": (lambda: Counted(len(BODY)), BODY),
    "the end of the connection": (UntilClosed, BODY),
}


@pytest.mark.parametrize("chunked", [False, True], ids=["plain", "in chunks"])
@pytest.mark.parametrize("name", FRAMINGS)
def test_a_body_arrives_as_it_was(ends: Ends, name: str, chunked: bool) -> None:
    make, sent = FRAMINGS[name]
    pump, got = ends.pump(make(), first=sent[:1000], chunked=chunked), bytearray()
    with beside(read_into, got, ends.sink), beside(ends.send, sent[1000:]):
        ends.run(pump)
    data = payload(ChunkDecoder(), bytes(got) + LAST) if chunked else bytes(got)
    assert data == BODY
    assert (pump.moved, pump.taken) == (len(BODY), len(sent) - 1000)


def test_a_body_of_many_small_chunks_arrives_too(ends: Ends) -> None:
    pump, got = ends.pump(ChunkDecoder()), bytearray()
    with beside(read_into, got, ends.sink), beside(ends.send, encode_chunk(b"x") * 20_000 + LAST):
        ends.run(pump)
    assert got == b"x" * 20_000


def test_one_that_comes_in_very_small_pieces_arrives_too(ends: Ends) -> None:
    def drip() -> None:
        for number in range(5000):
            ends.source.sendall(b"%c" % (number % 256))

    pump, got = ends.pump(Counted(5000)), bytearray()
    with beside(read_into, got, ends.sink), beside(drip):
        ends.run(pump)
    assert got == bytes(number % 256 for number in range(5000))


@pytest.mark.parametrize("chunked", [False, True], ids=["plain", "in chunks"])
def test_what_came_is_passed_on_though_more_may_follow(ends: Ends, chunked: bool) -> None:
    pump = ends.pump(Counted(6), chunked=chunked)
    with beside(ends.run, pump):
        ends.source.sendall(b"abc")
        got = bytearray(ends.sink.recv(100))
        ends.source.sendall(b"def")
        read_into(got, ends.sink)
    assert (payload(ChunkDecoder(), bytes(got) + LAST) if chunked else got) == b"abcdef"


@pytest.mark.parametrize("chunked", [False, True], ids=["plain", "in chunks"])
def test_both_sockets_are_as_they_were_afterwards(ends: Ends, chunked: bool) -> None:
    options = (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO, socket.SO_RCVLOWAT, socket.SO_SNDBUF)
    near = (ends._near_source, ends._near_sink)

    def state() -> list[object]:
        return [
            *(os.get_blocking(end.fileno()) for end in near),
            *(end.getsockopt(socket.SOL_SOCKET, option, 16) for end in near for option in options),
        ]

    before = state()
    for sent in (b"abc", b"broken"):
        ends.source.sendall(sent)
        with contextlib.suppress(TimeoutError, BrokenSourceError):
            ends.pump(Counted(3 if sent == b"abc" else 9), chunked=chunked, source_stall_s=0.05).run()
        assert state() == before


def test_one_that_never_has_to_wait_ends_too(ends: Ends) -> None:
    ends.source.sendall(b"abc")
    pump = ends.pump(Counted(3))
    pump.stop()
    with pytest.raises(StoppedError):
        ends.run(pump)
    assert ends.sink.recv(100) == b""


def test_nothing_is_read_past_the_end_of_a_counted_body(ends: Ends) -> None:
    ends.send(b"body" + b"GET /next")
    pump = ends.pump(Counted(4))
    ends.run(pump)
    assert ends._near_source.recv(100) == b"GET /next"
    assert ends.sink.recv(100) == b"body"


BROKEN: dict[str, tuple[Framing, bytes, str]] = {
    "bytes are missing": (Counted(10), b"abc", "7 bytes are missing"),
    "no last chunk": (ChunkDecoder(), encode_chunk(b"abc"), "it ended without its last chunk"),
    "no chunk": (ChunkDecoder(), b"nonsense\r\n", "no chunk size"),
    "more than the last chunk": (ChunkDecoder(), LAST + b"more", "bytes after the last chunk"),
}


@pytest.mark.parametrize(("framing", "sent", "why"), BROKEN.values(), ids=BROKEN.keys())
def test_a_body_that_breaks_off_is_told_from_one_that_ends(
    ends: Ends, framing: Framing, sent: bytes, why: str
) -> None:
    ends.send(sent)
    with pytest.raises(BrokenSourceError, match=why):
        ends.run(ends.pump(framing))


def test_a_source_that_stalls_and_a_sink_that_takes_nothing_are_given_up(ends: Ends) -> None:
    with pytest.raises(BrokenSourceError, match=r"no byte of the body came in 0\.05 s"):
        ends.pump(Counted(10), source_stall_s=0.05).run()
    with pytest.raises(TimeoutError):
        ends.pump(Counted(len(BODY)), first=BODY, sink_stall_s=0.05).run()


def test_a_sink_that_goes_is_an_error_of_its_own(ends: Ends) -> None:
    ends.sink.close()
    with pytest.raises(BrokenPipeError):
        ends.pump(Counted(3), first=b"abc").run()


@pytest.mark.parametrize("first", [b"", BODY], ids=["it waits for the source", "it waits for the sink"])
async def test_who_waits_for_it_can_end_it_at_once(ends: Ends, first: bytes) -> None:
    cancelled = asyncio.create_task(run_in_thread(ends.pump(Counted(2 * len(BODY)), first=first)))
    await asyncio.sleep(0)
    cancelled.cancel()
    async with asyncio.timeout(LIMIT_S):
        with pytest.raises(asyncio.CancelledError):
            await cancelled
    stopped = ends.pump(Counted(2 * len(BODY)), first=first)
    running = asyncio.create_task(run_in_thread(stopped))
    await asyncio.sleep(0)
    stopped.stop()
    async with asyncio.timeout(LIMIT_S):
        with pytest.raises(StoppedError):
            await running
