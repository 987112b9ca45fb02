# SPDX-License-Identifier: GPL-2.0-or-later
"""A client's connection whose socket can be lent to a thread for a large body (`agent.clients.body_pump`).

uvicorn and h11 keep the heads, the end of the body and what follows it, so that keep-alive, pipelining and every check of
a head stay theirs. Of a body that comes in, h11 gets the last byte: in its place stands, meanwhile, one that has read the
same head with a length of 1.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from socket import socket

from agent.clients.body_pump import (
    LEAST,
    BrokenSourceError,
    EndedSourceError,
    Note,
    Pump,
    StoppedError,
    has_room,
    run_in_thread,
)
from agent.clients.docker_stream import EngineResponse, SourceError
from agent.clients.engine_wire import can_lend, socket_of
from agent.controller.doors import uvicorn_compat
from agent.wire.http_body import Counted

_KEPT = 1  # bytes at the end of a request's body that go through h11


class LendingProtocol(uvicorn_compat.QuietProtocol):
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
        # asked before the buffer has to be empty: an encrypted transport never says that it is
        if not has_room() or not uvicorn_compat.fits(self) or not can_lend(self.transport):
            return False
        async with asyncio.timeout(stall_s):
            await uvicorn_compat.drained(self)
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
            uvicorn_compat.count_sent(self, pump.moved)
        return True

    async def pass_in(
        self, sink: socket, *, first: bytes, left: int, stall_s: float, note: Note | None = None
    ) -> int:
        """Moves `first` and the rest of a request's body into `sink`, but for its last byte; the bytes moved, 0 for none.

        `left`: bytes of the body that have not been received from this protocol. Raises SourceError when the client goes
        or stalls, OSError when the sink breaks: what is still to come of the body is dropped then.
        """
        if not has_room() or not uvicorn_compat.fits(self):
            return 0
        left -= uvicorn_compat.held(self)
        if left < LEAST or not uvicorn_compat.may_lend(self):
            return 0
        source = socket_of(self.transport)
        if source is None:
            return 0
        first += uvicorn_compat.stop_reading(self, kept=_KEPT)
        body = Counted(len(first) + left - _KEPT)
        pump = Pump(source, sink, body, first=first, source_stall_s=stall_s)
        try:
            with source:
                await self._move(pump, note)
        except (EndedSourceError, StoppedError) as exc:
            self.transport.abort()
            raise SourceError("the client went away before the end of the body") from exc
        except BrokenSourceError as exc:
            self.transport.abort()
            raise SourceError(str(exc)) from exc
        finally:
            self._unwanted = left - _KEPT - pump.taken
            if not self.transport.is_closing():
                self.transport.resume_reading()
        return pump.moved

    async def _move(self, pump: Pump, note: Note | None = None) -> None:
        self._pump = pump
        try:
            await run_in_thread(pump, note)
        finally:
            self._pump = None
