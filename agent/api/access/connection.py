# SPDX-License-Identifier: GPL-2.0-or-later
"""One client connection: who is on the other end, its time limits, and what is refused before the request is parsed.

Adds to uvicorn's h11 protocol the checks that it offers no hook for. Handlers find the connection as
`scope["state"]["connection"]`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import os
import socket
import struct
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.server import ServerState

from agent.api.access import uvicorn_compat
from agent.api.access.uvicorn_compat import unread
from agent.api.problems import http_body
from agent.engine.body_pump import (
    LEAST,
    BrokenSourceError,
    EndedSourceError,
    Note,
    Pump,
    StoppedError,
    has_room,
    run_in_thread,
)
from agent.engine.stream import EngineResponse, SourceError
from agent.engine.wire import Wire, can_lend, socket_of
from agent.wire.http_head import TOO_LARGE, Counted, head_problem

logger = logging.getLogger(__name__)

# Lends a client's socket to a thread that moves a large body (`agent.engine.body_pump`).
#
# uvicorn and h11 keep the heads, the end of each body and what follows it, so keep-alive, pipelining and all checks
# of a head remain theirs. Of an incoming body h11 sees only the last byte: it is replaced by a fresh h11 that has
# read the same head with a length of 1.


_KEPT = 1  # bytes at the end of a request's body that still go through h11


class HandoffProtocol(uvicorn_compat.QuietProtocol):
    """uvicorn's protocol, plus bodies that bypass it. A running transfer ends with the connection."""

    _pump: Pump | None = None
    _unwanted = 0  # bytes of a request body that still arrive and are dropped

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
        """Moves an answer's body to the client past the event loop; the head has been sent. Returns False, with
        nothing sent, if the body has to go through the loop.

        Raises EngineUnreachableError if the engine breaks it off, OSError if the client disconnects, TimeoutError if
        the client does not read.
        """
        # checked before waiting for an empty buffer: an encrypted transport never reports that
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
                raise ConnectionResetError("the client disconnected") from exc
        if not chunked:
            uvicorn_compat.count_sent(self, pump.moved)
        return True

    async def pass_in(
        self, sink: socket.socket, *, first: bytes, left: int, stall_s: float, note: Note | None = None
    ) -> int:
        """Moves `first` and the rest of a request's body into `sink`, except for its last byte; returns the bytes
        moved, 0 if the body has to go through the event loop.

        `left` is the number of body bytes that this protocol has not delivered yet. Raises SourceError if the client
        disconnects or stalls, and OSError if the sink breaks: the rest of the body is then dropped.
        """
        if not has_room() or not uvicorn_compat.fits(self):
            return 0
        # what uvicorn has already read ahead is added to `first` below
        left -= uvicorn_compat.held(self)
        if left < LEAST or not uvicorn_compat.may_lend(self):
            return 0
        source = socket_of(self.transport)
        if source is None:
            return 0
        # from here on only the thread may read: with two readers the body would be split between them
        first += uvicorn_compat.stop_reading(self, kept=_KEPT)
        body = Counted(len(first) + left - _KEPT)
        pump = Pump(source, sink, body, first=first, source_stall_s=stall_s)
        try:
            with source:
                await self._move(pump, note)
        except (EndedSourceError, StoppedError) as exc:
            self.transport.abort()
            raise SourceError("the client disconnected before the end of the body") from exc
        except BrokenSourceError as exc:
            self.transport.abort()
            raise SourceError(str(exc)) from exc
        finally:
            # the engine may refuse a body half-way and keep the connection: the rest is dropped as it arrives,
            # because h11 would take it for the next request
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


HEAD_TIMEOUT_S = 10.0  # for a request's head: a client must not hold a slot with half a head
UNREAD_TIMEOUT_S = 10.0  # for the rest of a body that was answered without reading it
_QUIET_S = 30  # a raw stream is probed by the kernel after this silence
_UCRED = struct.Struct("3i")


@dataclass(slots=True, kw_only=True)
class ConnectionLimits:
    """The connection limits of a listener, and its open connections. `control` is root's unix socket.

    `per_client` limits an address, `per_prefix` all addresses of an IPv6 /64, since one host can use any number of those.
    """

    control: bool
    connections: int
    per_client: int
    per_prefix: int
    open: Counter[str] = field(default_factory=Counter)

    @property
    def taken(self) -> int:
        """The number of open connections."""
        return self.open[_ALL]

    def acquire(self, client: str) -> bool:
        """Counts a new connection of that client, if there is room; returns whether there was."""
        prefix = _prefix(client)
        if (
            self.taken >= self.connections
            or self.open[client] >= self.per_client
            or (prefix and self.open[prefix] >= self.per_prefix)
        ):
            return False
        self.open.update(_counted(client, prefix))
        return True

    def release(self, client: str) -> None:
        """Counts a connection as closed."""
        self.open.subtract(_counted(client, _prefix(client)))
        self.open = +self.open


_ALL = "*"


def _counted(client: str, prefix: str) -> list[str]:
    return [_ALL, client, prefix] if prefix else [_ALL, client]


def _prefix(client: str) -> str:
    """The /64 of an IPv6 client, with the interface if the address has one; "" for other clients."""
    text, _, interface = client.partition("%")
    try:
        address = ipaddress.ip_address(text)
    except ValueError:  # clients of the control socket have no address
        return ""
    if address.version == 4 or address.ipv4_mapped is not None:
        return ""
    return f"{ipaddress.ip_network((address, 64), strict=False)}%{interface}"


class ConnectionSlot:
    """The slot of one connection in `ConnectionLimits`; it is released only once."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self._limits = limits
        self._client: str | None = None

    def acquire(self, client: str) -> bool:
        """Takes a slot unless one is taken already; returns whether there is one."""
        if self._client is None and self._limits.acquire(client):
            self._client = client
        return self._client is not None

    def release(self) -> None:
        """Frees the slot for another connection."""
        if self._client is not None:
            self._limits.release(self._client)
            self._client = None


class GuardedProtocol(HandoffProtocol):
    """The protocol of every connection. `limits`: those of its listener; `client_address` is "" on the control socket.

    A TCP listener takes the slot when it accepts the connection, before TLS, and hands it over.
    """

    def __init__(
        self,
        limits: ConnectionLimits,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, {**app_state, "connection": self}, _loop)
        self.limits = limits
        self.client_address = ""
        self.slot = ConnectionSlot(limits)
        self._head_timer: asyncio.TimerHandle | None = None  # runs while a request's head is awaited
        # runs while the rest of a body comes that was answered already
        self._unread_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.client_address = "" if self.limits.control else address_of(transport.get_extra_info("peername"))
        # the socket's mode keeps other users out, but not a container that bind-mounts the socket
        if self.limits.control and not from_our_root(transport.get_extra_info("socket")):
            logger.warning("control socket: a peer that is not root, or runs in a container, was turned away")
            transport.abort()
            return
        if not self.slot.acquire(self.client_address):
            transport.abort()
            return
        # a connection that sends no request head occupies a slot, so it is cut after ten seconds
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        if self._unread_timer is not None:
            self._unread_timer.cancel()
        self.release()
        super().connection_lost(exc)

    def release(self) -> None:
        """Gives the slot back; a WebSocket calls this when it ends."""
        self.slot.release()

    def may_switch(self) -> bool:
        """Whether the client asked for a raw stream and can have one."""
        return uvicorn_compat.may_switch(self)

    def switch(self, headers: Iterable[tuple[str, str]]) -> tuple[Wire, bytes]:
        """Turns the connection into a raw stream; also returns the head to send first. It keeps its slot and can
        still be cut.
        """
        link: socket.socket = self.transport.get_extra_info("socket")
        if link.family != socket.AF_UNIX:
            # a raw stream may be silent for hours: keep-alive detects a client that is gone (tcp(7))
            link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _QUIET_S)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _QUIET_S)
        return uvicorn_compat.switch(self, headers)

    def cut(self) -> None:
        """Drops the connection, so that the client sees that its answer is incomplete."""
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # the timer runs while a head is incomplete, also that of a later request on the same connection, but not
        # while the connection is idle between requests
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._arm()
        elif self.conn.their_state is not h11.IDLE:
            self._disarm()

    def handle_events(self) -> None:
        if self.conn.their_state is h11.IDLE:
            # checked before h11 parses it: h11 accepts heads that a proxy in front of us may parse differently
            # (request smuggling)
            problem = head_problem(self.conn.trailing_data[0])
            if problem is not None:
                self.send_400_response(problem)
                return
        super().handle_events()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # A client that was answered early (413, say) may send its body for ever. Read it for a while, so that the
        # client sees the answer, then cut the connection.
        if self.conn.their_state is h11.SEND_BODY and self._unread_timer is None:
            self._unread_timer = self.loop.call_later(UNREAD_TIMEOUT_S, self._check_unread)

    def _check_unread(self) -> None:
        self._unread_timer = None
        if unread(self):
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Like uvicorn's, with our headers and in our error format; 431 if the head is too large. If an answer has
        already begun, the connection is cut.
        """
        status, reason = (
            (431, b"Request Header Fields Too Large") if msg in TOO_LARGE else (400, b"Bad Request")
        )
        # uvicorn would answer in plain text, without the headers that forbid framing and sniffing
        body = json.dumps(http_body(f"http-{status}", msg)).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            *self.config.encoded_headers,
        ]
        answer = (
            h11.Response(status_code=status, headers=headers, reason=reason),
            h11.Data(data=body),
            h11.EndOfMessage(),
        )
        try:
            self.transport.write(b"".join(self.conn.send(part) or b"" for part in answer))
        except h11.LocalProtocolError:  # an answer has already begun
            self.transport.abort()
            return
        self.transport.close()

    def shutdown(self) -> None:
        try:
            super().shutdown()
        except h11.LocalProtocolError:  # the connection is broken and is being closed
            self.transport.abort()

    def _arm(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._too_slow)

    def _disarm(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        self._head_timer = None
        self.transport.abort()


def address_of(peer: tuple[str, int] | tuple[str, int, int, int] | None) -> str:
    """A TCP peer's address. A link-local one gets its interface appended, `fe80::1%br-lan`, which Python keeps in
    `scope_id`.
    """
    if peer is None:
        return ""
    scope = peer[3] if len(peer) == 4 else 0
    if not scope or "%" in peer[0]:
        return peer[0]
    try:
        return f"{peer[0]}%{socket.if_indextoname(scope)}"
    except OSError:  # the interface was removed meanwhile
        return f"{peer[0]}%{scope}"


def from_our_root(peer: socket.socket) -> bool:
    """Whether the peer is root or our own user (SO_PEERCRED), and not in a container.

    A container that bind-mounts the socket is root too, but has another mount namespace.
    """
    pid, uid, _ = _UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    if uid not in (0, os.geteuid()):
        return False
    try:
        return os.stat(f"/proc/{pid}/ns/mnt").st_ino == os.stat("/proc/self/ns/mnt").st_ino
    except OSError:
        return False
