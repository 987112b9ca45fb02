# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything that touches private parts of uvicorn, h11 and asyncio. Other modules only override methods of uvicorn's
protocol.

uvicorn serves every request, but has no public way to do five things that a router needs:
- Large bodies (image exports, loads, archives) bypass the event loop. Moved by a thread from socket to socket they cost
  half the CPU and are about twice as fast (`make bench`). uvicorn's request cycle and h11's counters then have to agree
  on what was moved.
- A connection can become a raw stream, as the command `docker exec` needs. asyncio's TLS cannot close one direction
  alone, so its TLS object is taken over.
- The server leaves signals to the agent, and ends streams as if their clients had disconnected.
- The log does not repeat what strangers send.
- A TLS connection does not keep asyncio's buffer of 256 KiB.

If an update of uvicorn lacks one of the names in NEEDED, `fits` returns False and bodies go through the event loop:
slower, never wrong. A test names what is missing, so such an update fails there first.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import logging
import operator
import socket
from asyncio import sslproto
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import h11
import uvicorn.server
from uvicorn.protocols.http.h11_impl import H11Protocol

from agent.engine.wire import TlsWire, Wire
from agent.wire.http_head import HEAD_LIMIT

logger = logging.getLogger(__name__)

STOP_S = 3  # for requests to finish; procd waits 5 s in all
_CUT_S = 2.0  # after the order to stop, and before STOP_S
_TLS_BUFFER = 64 * 1024
_RAW_PIECE = 16 * 1024

# what `fits` looks for: private parts of uvicorn and h11 that this module uses
NEEDED = (
    "transport.pause_reading",
    "flow.drain",
    "flow.resume_reading",
    "scope",
    "headers",
    "cycle.conn",
    "cycle.body",
    "cycle.message_event.clear",
    "cycle.response_started",
    "conn.trailing_data",
    "conn.receive_data",
    "conn.send_with_data_passthrough",
)
# the same of asyncio's TLS transport
_NEEDED_OF_TLS = (
    "transport._ssl_protocol._sslobj",
    "transport._ssl_protocol._incoming",
    "transport._ssl_protocol._outgoing",
    "transport._ssl_protocol._transport",
    "transport._ssl_protocol._state",
)


@dataclass(frozen=True, slots=True)
class _Sent:
    """Takes the place of bytes that bypassed h11, where h11 counts them."""

    size: int

    def __len__(self) -> int:
        return self.size


def fits(protocol: H11Protocol) -> bool:
    """Whether this uvicorn has all that is needed. Call it while a request is being answered."""
    found = missing(protocol)
    if found:
        _warn(found)
    return not found


def missing(protocol: H11Protocol) -> tuple[str, ...]:
    """The names in NEEDED that this version of uvicorn lacks."""
    return tuple(path for path in NEEDED if not _has(protocol, path))


def _has(protocol: H11Protocol, path: str) -> bool:
    try:
        operator.attrgetter(path)(protocol)
    except AttributeError:
        return False
    return True


@functools.cache
def _warn(found: tuple[str, ...]) -> None:
    """Warns; the cache makes it warn only once."""
    logger.warning("this uvicorn has no %s: large bodies go through the event loop, slower", ", ".join(found))


async def drained(protocol: H11Protocol) -> None:
    """Returns when everything written so far has reached the socket."""
    # `drain` waits only above the high-water mark: with a mark of 0 it waits until the buffer is empty
    protocol.transport.set_write_buffer_limits(high=0)
    await protocol.flow.drain()
    protocol.transport.set_write_buffer_limits()


def count_sent(protocol: H11Protocol, size: int) -> None:
    """Tells h11 that `size` bytes of an answer with a Content-Length have been sent."""
    protocol.conn.send_with_data_passthrough(h11.Data(data=_Sent(size)))  # type: ignore[arg-type]


def held(protocol: H11Protocol) -> int:
    """Bytes of the request's body that were received but not read yet."""
    return len(protocol.cycle.body)


def may_lend(protocol: H11Protocol) -> bool:
    """Whether only more of the request's body can follow: it is not answered yet, and no other request is behind it."""
    return not protocol.cycle.response_started and not protocol.conn.trailing_data[0]


def stop_reading(protocol: H11Protocol, *, kept: int) -> bytes:
    """Pauses reading until the transport resumes; returns the part of the body read so far. h11 then expects `kept`
    more bytes.
    """
    protocol.flow.resume_reading()  # clears uvicorn's own pause, or uvicorn would resume reading by itself
    protocol.transport.pause_reading()
    cycle = protocol.cycle
    waiting = bytes(cycle.body)
    cycle.body = bytearray()
    cycle.message_event.clear()
    # a new h11 that has just read this request's head, as if the body had `kept` bytes
    lines = [f"POST / HTTP/{protocol.scope['http_version']}".encode(), b"host: x"]
    lines += [b"connection: " + value for name, value in protocol.headers if name == b"connection"]
    lines += [b"content-length: %d" % kept, b"", b""]
    made = h11.Connection(h11.SERVER, HEAD_LIMIT)
    made.receive_data(b"\r\n".join(lines))
    made.next_event()
    protocol.conn = cycle.conn = made
    return waiting


def may_switch(protocol: H11Protocol) -> bool:
    """Whether the connection can become a raw stream: the client asked for it, and its request is complete."""
    encrypted = protocol.transport.get_extra_info("sslcontext") is not None
    return (
        fits(protocol)
        and protocol.conn.their_state is h11.MIGHT_SWITCH_PROTOCOL  # type: ignore[attr-defined]
        and protocol.scope["http_version"] == "1.1"
        and (not encrypted or all(_has(protocol, path) for path in _NEEDED_OF_TLS))
    )


def switch(protocol: H11Protocol, headers: Iterable[tuple[str, str]]) -> tuple[Wire, bytes]:
    """Turns the connection into a raw stream; also returns the answer to send first (RFC 9110 section 15.2.2).

    Call only if `may_switch` is true. From then on the protocol only hears that the connection was lost.
    """
    head = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    answer = protocol.conn.send(h11.InformationalResponse(status_code=101, headers=head, reason=b"UPGRADED"))
    # otherwise uvicorn would answer 500 when the handler returns without an answer
    protocol.cycle.response_started = True
    buffer = memoryview(bytearray(_RAW_PIECE))
    wire, transport = Wire(buffer), protocol.transport
    if transport.get_extra_info("sslcontext") is not None:
        # asyncio decrypts for its own protocol. Take over the TLS object below it and its two buffers as they are,
        # with what they have already read.
        tls: Any = operator.attrgetter("_ssl_protocol")(transport)
        wire = TlsWire(buffer, tls._sslobj, tls._incoming, tls._outgoing)  # noqa: SLF001
        transport = tls._transport  # noqa: SLF001
        tls._state = type(tls._state).UNWRAPPED  # noqa: SLF001 - keeps asyncio from sending a TLS close at the end
    wire.on_lost = protocol.connection_lost
    # a client may send its first keystrokes together with the request
    wire.unread(bytes(protocol.conn.trailing_data[0]))
    transport.set_protocol(wire)
    wire.connection_made(transport)
    transport.resume_reading()  # h11 had paused reading behind the request
    return wire, answer or b""


def unread(protocol: H11Protocol) -> bool:
    """Whether the client is still sending the body of a request that has already been answered."""
    return protocol.conn.their_state is h11.SEND_BODY and protocol.cycle.response_complete


class QuietProtocol(H11Protocol):
    """uvicorn's protocol without its warning about unsupported upgrades: our routes answer those."""

    def _unsupported_upgrade_warning(self) -> None:
        """Logs nothing."""


class Server(uvicorn.server.Server):
    """uvicorn's server, for an agent that handles signals itself and stops within STOP_S."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Does nothing, because the runtime handles signals."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Like uvicorn's, but a stream that does not end by itself ends as if its client had disconnected. uvicorn
        would cancel its task and log that as a defect.
        """
        cut = asyncio.get_running_loop().call_later(_CUT_S, self._cut)
        try:
            await super().shutdown(sockets)
        finally:
            cut.cancel()

    def _cut(self) -> None:
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()


def has_websockets() -> bool:
    """Whether the Python package is installed. Without it, a WebSocket request is answered like one without a route."""
    if importlib.util.find_spec("websockets") is not None:
        return True
    logger.info("no WebSockets (consoles by HTTP and ubus work): they need the Python package websockets")
    return False


def make_web_socket(*args: Any, **named: Any) -> asyncio.Protocol:
    """Called by uvicorn at an upgrade. The package `websockets` is loaded with the first one."""
    return _web_socket_protocol()(*args, **named)


@functools.cache
def _web_socket_protocol() -> type[asyncio.Protocol]:
    """uvicorn's WebSocket protocol, which gives its connection slot back at the end."""
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
    from websockets.http11 import Response
    from websockets.server import ServerProtocol

    class Connection(ServerProtocol):
        def reject(self, status: int, text: str) -> Response:
            # uvicorn gives a number, and websockets from 12 on wants an HTTPStatus
            return super().reject(HTTPStatus(status), text)

    class Protocol(WebSocketsSansIOProtocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            self.conn.__class__ = Connection
            super().connection_made(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            self.app_state["connection"].release()
            super().connection_lost(exc)

    return Protocol


def quieten_logs() -> None:
    """Silences uvicorn below ERROR, where it repeats what strangers send: URLs, and the headers of WebSockets."""
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    logging.getLogger("uvicorn.error").addFilter(_is_ours)


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether to log the record. Drops broken handshakes and frames, which any client can send, and requests that the
    agent cancels when it stops.
    """
    error = record.exc_info[1] if record.exc_info else None
    return record.msg.startswith("Exception in ASGI application") and not isinstance(
        error, asyncio.CancelledError
    )


def limit_tls_buffers() -> None:
    """Limits the buffer of a TLS connection: 64 idle connections would hold 16 MiB with asyncio's default of 256 KiB."""
    sslproto.SSLProtocol.max_size = _TLS_BUFFER
