# SPDX-License-Identifier: GPL-2.0-or-later
"""One client connection: who is on the other end, how long it may take, what is refused before any parsing.

uvicorn's h11 protocol with the checks that it has no place for. The request's handlers find it as
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

# A client's connection whose socket can be lent to a thread for a large body (`agent.engine.body_pump`).
#
# uvicorn and h11 keep the heads, the end of the body and what follows it, so that keep-alive, pipelining and every check of
# a head stay theirs. Of a body that comes in, h11 gets the last byte: in its place stands, meanwhile, one that has read the
# same head with a length of 1.


_KEPT = 1  # bytes at the end of a request's body that go through h11


class LendingProtocol(uvicorn_compat.QuietProtocol):
    """uvicorn's protocol, with bodies that pass it by. They end with the connection."""

    _pump: Pump | None = None
    _unwanted = 0  # bytes of an unwanted request body, still to come

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
        self, sink: socket.socket, *, first: bytes, left: int, stall_s: float, note: Note | None = None
    ) -> int:
        """Moves `first` and the rest of a request's body into `sink`, but for its last byte; the bytes moved, 0 for none.

        `left`: bytes of the body that have not been received from this protocol. Raises SourceError when the client goes
        or stalls, OSError when the sink breaks: what is still to come of the body is dropped then.
        """
        if not has_room() or not uvicorn_compat.fits(self):
            return 0
        # what uvicorn has read ahead comes to `first` below
        left -= uvicorn_compat.held(self)
        if left < LEAST or not uvicorn_compat.may_lend(self):
            return 0
        source = socket_of(self.transport)
        if source is None:
            return 0
        # from here on only the thread reads: two readers of a socket would tear the body apart
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
            # an engine may refuse a body half-way and keep the connection: the rest is dropped as it comes, or h11
            # would take it for the next request
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


HEAD_TIMEOUT_S = 10.0
UNREAD_TIMEOUT_S = 10.0  # for the rest of a body that was answered without being read
_QUIET_S = 30  # of a raw stream
_UCRED = struct.Struct("3i")


@dataclass(slots=True, kw_only=True)
class Door:
    """A listener: how many connections it takes. `control` is the unix socket of root.

    `per_client` counts an address, `per_prefix` all addresses of an IPv6 /64: a host has as many of those as it likes.
    """

    control: bool
    connections: int
    per_client: int
    per_prefix: int
    open: Counter[str] = field(default_factory=Counter)

    @property
    def taken(self) -> int:
        """How many connections it has."""
        return self.open[_ALL]

    def enter(self, client: str) -> bool:
        """Whether there is room for one more of that client."""
        prefix = _prefix(client)
        if (
            self.taken >= self.connections
            or self.open[client] >= self.per_client
            or (prefix and self.open[prefix] >= self.per_prefix)
        ):
            return False
        self.open.update(_counted(client, prefix))
        return True

    def leave(self, client: str) -> None:
        """Makes room."""
        self.open.subtract(_counted(client, _prefix(client)))
        self.open = +self.open


_ALL = "*"


def _counted(client: str, prefix: str) -> list[str]:
    return [_ALL, client, prefix] if prefix else [_ALL, client]


def _prefix(client: str) -> str:
    """An IPv6 client's /64, with the interface where that is part of the address; "" for others."""
    text, _, interface = client.partition("%")
    try:
        address = ipaddress.ip_address(text)
    except ValueError:  # the control socket's clients have none
        return ""
    if address.version == 4 or address.ipv4_mapped is not None:
        return ""
    return f"{ipaddress.ip_network((address, 64), strict=False)}%{interface}"


class Place:
    """One connection's place in a door, given back once."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._client: str | None = None

    def take(self, client: str) -> bool:
        """Whether there is room, or a place was taken before."""
        if self._client is None and self._door.enter(client):
            self._client = client
        return self._client is not None

    def give_back(self) -> None:
        """Makes room for another connection."""
        if self._client is not None:
            self._door.leave(self._client)
            self._client = None


class GuardedProtocol(LendingProtocol):
    """`door` counts it; its `client_address` is "" on the control socket.

    A TCP listener counts a connection when it accepts it, before TLS, and gives its place along.
    """

    def __init__(
        self,
        door: Door,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, {**app_state, "connection": self}, _loop)
        self.door = door
        self.client_address = ""
        self.place = Place(door)
        self._head_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.client_address = "" if self.door.control else address_of(transport.get_extra_info("peername"))
        # the mode of the socket keeps other users out, not a container that has it by a bind mount
        if self.door.control and not from_our_root(transport.get_extra_info("socket")):
            logger.warning("control socket: a peer that is not root, or runs in a container, was turned away")
            transport.abort()
            return
        if not self.place.take(self.client_address):
            transport.abort()
            return
        # a connection that sends no head holds a place in the door: ten seconds, then it is cut
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        if self._unread_timer is not None:
            self._unread_timer.cancel()
        self.release()
        super().connection_lost(exc)

    def release(self) -> None:
        """Gives the place in the door back; a WebSocket does it when it ends."""
        self.place.give_back()

    def may_switch(self) -> bool:
        """Whether the client asked for a raw stream and can get one."""
        return uvicorn_compat.may_switch(self)

    def switch(self, headers: Iterable[tuple[str, str]]) -> tuple[Wire, bytes]:
        """The connection as a raw stream, and the head that goes first. It keeps its place, and can be cut as before."""
        link: socket.socket = self.transport.get_extra_info("socket")
        if link.family != socket.AF_UNIX:
            # a raw stream may be silent for hours: the kernel asks whether the client is still there (tcp(7))
            link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _QUIET_S)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _QUIET_S)
        return uvicorn_compat.switch(self, headers)

    def cut(self) -> None:
        """Drops the connection: the client sees that its answer is not complete."""
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # the clock runs while a head is incomplete, also that of the second request on a connection; not while it is
        # idle between two
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._arm()
        elif self.conn.their_state is not h11.IDLE:
            self._disarm()

    def handle_events(self) -> None:
        if self.conn.their_state is h11.IDLE:
            # before h11 sees it: it accepts heads that a proxy in front of us may read in another way (request
            # smuggling)
            problem = head_problem(self.conn.trailing_data[0])
            if problem is not None:
                self.send_400_response(problem)
                return
        super().handle_events()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # a client that was answered early (413, say) may send its body for ever: it is read for a while, so that it
        # sees the answer, then cut
        if self.conn.their_state is h11.SEND_BODY and self._unread_timer is None:
            self._unread_timer = self.loop.call_later(UNREAD_TIMEOUT_S, self._check_unread)

    def _check_unread(self) -> None:
        self._unread_timer = None
        if unread(self):
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """As uvicorn's, with our headers and in the form of our errors, 431 for a head that is too large. What cannot be
        answered any more is cut.
        """
        status, reason = (
            (431, b"Request Header Fields Too Large") if msg in TOO_LARGE else (400, b"Bad Request")
        )
        # uvicorn says it in plain text and without the headers that forbid framing and sniffing
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
        except h11.LocalProtocolError:  # an answer is under way already
            self.transport.abort()
            return
        self.transport.close()

    def shutdown(self) -> None:
        try:
            super().shutdown()
        except h11.LocalProtocolError:  # it is broken, and about to be closed
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
    """A TCP peer's address, a link-local one with its interface: `fe80::1%br-lan`. Python leaves that to `scope_id`."""
    if peer is None:
        return ""
    scope = peer[3] if len(peer) == 4 else 0
    if not scope or "%" in peer[0]:
        return peer[0]
    try:
        return f"{peer[0]}%{socket.if_indextoname(scope)}"
    except OSError:  # the interface has gone meanwhile
        return f"{peer[0]}%{scope}"


def from_our_root(peer: socket.socket) -> bool:
    """Whether root, or we ourselves, sit on the other end (SO_PEERCRED), and not in a container.

    A container that got the socket by a bind mount is root too, but in a mount namespace of its own.
    """
    pid, uid, _ = _UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    if uid not in (0, os.geteuid()):
        return False
    try:
        return os.stat(f"/proc/{pid}/ns/mnt").st_ino == os.stat("/proc/self/ns/mnt").st_ino
    except OSError:
        return False
