# SPDX-License-Identifier: GPL-2.0-or-later
"""A client's connection whose socket can be lent to a thread for a large body (`agent.clients.body_pump`).

uvicorn and h11 keep the heads, the end of the body and what follows it, so that keep-alive, pipelining and every check of
a head stay theirs. Of a body that comes in, h11 gets the last byte: in its place stands, meanwhile, one that has read the
same head with a length of 1.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass
from socket import socket

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from agent.clients.body_pump import LEAST, BrokenSourceError, Pump, StoppedError, has_room, run_in_thread
from agent.clients.docker_stream import EngineResponse, SourceError
from agent.clients.engine_wire import socket_of
from agent.wire.http_body import Counted
from agent.wire.http_head import HEAD_LIMIT

_KEPT = 1  # bytes at the end of a request's body that go through h11


@dataclass(frozen=True, slots=True)
class _Sent:
    """Stands for bytes that went by another way, where h11 counts them."""

    size: int

    def __len__(self) -> int:
        return self.size


class LendingProtocol(H11Protocol):
    """uvicorn's protocol, with bodies that pass it by. They end with the connection."""

    _pump: Pump | None = None
    _unwanted = 0  # bytes of a request's body that nobody wants, still to come

    def connection_lost(self, exc: Exception | None) -> None:
        if self._pump is not None:
            self._pump.stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._unwanted:
            dropped = min(self._unwanted, len(data))
            self._unwanted -= dropped
            data = data[dropped:]
        if data:
            super().data_received(data)

    async def pass_out(self, response: EngineResponse, *, chunked: bool, stall_s: float) -> bool:
        """Moves an answer's body to the client, whose head it has got already. False where it has to go through the loop:
        nothing has happened then.

        Raises EngineUnreachableError when it breaks off, OSError when the client goes, TimeoutError when it does not read.
        """
        if not has_room():
            return False
        self.transport.set_write_buffer_limits(high=0)
        async with asyncio.timeout(stall_s):
            await self.flow.drain()
        self.transport.set_write_buffer_limits()
        with ExitStack() as stack:
            sink = socket_of(self.transport)
            if sink is None:
                return False
            stack.enter_context(sink)
            pump = stack.enter_context(response.pump_into(sink, chunked=chunked, stall_s=stall_s))
            if pump is None:
                return False
            try:
                await self._move(pump)
            except StoppedError as exc:
                raise ConnectionResetError("the client went away") from exc
        if not chunked:
            self.conn.send_with_data_passthrough(h11.Data(data=_Sent(pump.moved)))  # type: ignore[arg-type]
        return True

    async def pass_in(self, sink: socket, *, first: bytes, left: int, stall_s: float) -> int:
        """Moves `first` and the rest of a request's body into `sink`, but for its last byte; the bytes moved, 0 for none.

        `left`: bytes of the body that have not been received from this protocol. Raises SourceError when the client goes
        or stalls, OSError when the sink breaks: what is still to come of the body is dropped then.
        """
        left -= len(self.cycle.body)
        if left < LEAST or not has_room() or self.cycle.response_started or self.conn.trailing_data[0]:
            return 0
        source = socket_of(self.transport)
        if source is None:
            return 0
        first += self._stop_reading()
        body = Counted(len(first) + left - _KEPT)
        pump = Pump(source, sink, body, first=first, source_stall_s=stall_s)
        try:
            with source:
                await self._move(pump)
        except BrokenSourceError as exc:
            self.transport.abort()
            raise SourceError(str(exc)) from exc
        except StoppedError as exc:
            raise SourceError("the client went away before the end of the body") from exc
        finally:
            self._unwanted = left - _KEPT - pump.taken
            if not self.transport.is_closing():
                self.transport.resume_reading()
        return pump.moved

    async def _move(self, pump: Pump) -> None:
        self._pump = pump
        try:
            await run_in_thread(pump)
        finally:
            self._pump = None

    def _stop_reading(self) -> bytes:
        """Until `resume_reading`; what was read of the body already."""
        self.flow.resume_reading()  # else it would do so by itself
        self.transport.pause_reading()
        waiting = bytes(self.cycle.body)
        self.cycle.body = bytearray()
        self.cycle.message_event.clear()
        self.conn = self.cycle.conn = self._conn_before_the_end()
        return waiting

    def _conn_before_the_end(self) -> h11.Connection:
        """h11 after the head of this request, were its body `_KEPT` bytes long."""
        lines = [f"POST / HTTP/{self.scope['http_version']}".encode(), b"host: x"]
        lines += [b"connection: " + value for name, value in self.headers if name == b"connection"]
        lines += [b"content-length: %d" % _KEPT, b"", b""]
        made = h11.Connection(h11.SERVER, HEAD_LIMIT)
        made.receive_data(b"\r\n".join(lines))
        made.next_event()
        return made
