# SPDX-License-Identifier: GPL-2.0-or-later
"""All that we do to the private parts of uvicorn, h11 and asyncio; elsewhere we only override methods of uvicorn's protocol.

uvicorn serves every request, but offers no public way to do five things that a router needs. Large bodies (image exports,
loads, archives) have to bypass the event loop: moved by a thread from socket to socket they cost half the CPU and are
about twice as fast (`make bench`), and that needs uvicorn's request cycle and h11's counters to agree on
what was moved. A connection has to become a raw stream, as the command `docker exec` wants it; since asyncio's TLS cannot
end one side alone, its records are taken over. The server must leave signals to the agent and must end streams as if their
clients had gone. The log must not repeat what strangers send. And each TLS connection must not keep asyncio's 256 KiB.
Where an update of uvicorn lacks one of the names in NEEDED, `fits` says so and bodies go through the event loop: slower,
never wrong. A test names what is missing, so that an update shows here first.
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
from typing import Any

import h11
import uvicorn.server
from uvicorn.protocols.http.h11_impl import H11Protocol

from agent.engine.wire import TlsWire, Wire
from agent.wire.http_head import HEAD_LIMIT

logger = logging.getLogger(__name__)

STOP_S = 3
_CUT_S = 2.0  # after the order to end, and before STOP_S
_TLS_BUFFER = 64 * 1024
_RAW_PIECE = 16 * 1024

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
_NEEDED_OF_TLS = (
    "transport._ssl_protocol._sslobj",
    "transport._ssl_protocol._incoming",
    "transport._ssl_protocol._outgoing",
    "transport._ssl_protocol._transport",
    "transport._ssl_protocol._state",
)


@dataclass(frozen=True, slots=True)
class _Sent:
    """Stands for bytes that went by another way, where h11 counts them."""

    size: int

    def __len__(self) -> int:
        return self.size


def fits(protocol: H11Protocol) -> bool:
    """Whether this uvicorn has all that is needed, while a request is being answered."""
    found = missing(protocol)
    if found:
        _warn(found)
    return not found


def missing(protocol: H11Protocol) -> tuple[str, ...]:
    """Those of NEEDED that this version does not have."""
    return tuple(path for path in NEEDED if not _has(protocol, path))


def _has(protocol: H11Protocol, path: str) -> bool:
    try:
        operator.attrgetter(path)(protocol)
    except AttributeError:
        return False
    return True


@functools.cache
def _warn(found: tuple[str, ...]) -> None:
    """Once."""
    logger.warning("this uvicorn has no %s: large bodies go through the event loop, slower", ", ".join(found))


async def drained(protocol: H11Protocol) -> None:
    """Returns once everything that was written has reached the socket."""
    # `drain` waits only above the high-water mark: with 0 it waits until the buffer is empty
    protocol.transport.set_write_buffer_limits(high=0)
    await protocol.flow.drain()
    protocol.transport.set_write_buffer_limits()


def count_sent(protocol: H11Protocol, size: int) -> None:
    """`size` bytes of an answer with a Content-Length have been sent."""
    protocol.conn.send_with_data_passthrough(h11.Data(data=_Sent(size)))  # type: ignore[arg-type]


def held(protocol: H11Protocol) -> int:
    """Bytes of the request's body that were not asked for yet."""
    return len(protocol.cycle.body)


def may_lend(protocol: H11Protocol) -> bool:
    """Whether nothing but more of the request's body is to be expected: no answer to it, no other request behind it."""
    return not protocol.cycle.response_started and not protocol.conn.trailing_data[0]


def stop_reading(protocol: H11Protocol, *, kept: int) -> bytes:
    """Until the transport resumes; what was read of the body already. h11 expects `kept` more bytes of it then."""
    protocol.flow.resume_reading()  # else it would do so by itself
    protocol.transport.pause_reading()
    cycle = protocol.cycle
    waiting = bytes(cycle.body)
    cycle.body = type(cycle.body)()  # older ones have bytes
    cycle.message_event.clear()
    # h11 after the head of this request, were its body `kept` bytes long
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
    """The connection as a raw stream, and the answer that must be sent first (RFC 9110 section 15.2.2).

    Only where `may_switch` says so. The protocol hears of the connection's end, and of nothing else any more.
    """
    head = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    answer = protocol.conn.send(h11.InformationalResponse(status_code=101, headers=head, reason=b"UPGRADED"))
    # uvicorn would answer 500 once the handler returns without an answer of its own
    protocol.cycle.response_started = True
    buffer = memoryview(bytearray(_RAW_PIECE))
    wire, transport = Wire(buffer), protocol.transport
    if transport.get_extra_info("sslcontext") is not None:
        # asyncio decrypts for its own protocol: below it the TLS object and its two buffers are taken over as they are,
        # with what they have read already
        tls: Any = operator.attrgetter("_ssl_protocol")(transport)
        wire = TlsWire(buffer, tls._sslobj, tls._incoming, tls._outgoing)  # noqa: SLF001
        transport = tls._transport  # noqa: SLF001
        tls._state = type(tls._state).UNWRAPPED  # noqa: SLF001 - it has nothing to say at the end
    wire.on_lost = protocol.connection_lost
    # a client may send its first keys together with the request
    wire.unread(bytes(protocol.conn.trailing_data[0]))
    transport.set_protocol(wire)
    wire.connection_made(transport)
    transport.resume_reading()  # h11 had it paused behind the request
    return wire, answer or b""


def unread(protocol: H11Protocol) -> bool:
    """Whether the client still sends the body of a request that has been answered."""
    return protocol.conn.their_state is h11.SEND_BODY and protocol.cycle.response_complete


class QuietProtocol(H11Protocol):
    """uvicorn's protocol without its warning about upgrades: our routes answer those."""

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing to warn of."""


class Server(uvicorn.server.Server):
    """uvicorn's server, for an agent that handles signals itself and stops within STOP_S."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The runtime handles signals."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, but what does not end by itself (a stream) ends as if its client had gone: uvicorn would break
        off the tasks of its requests, and log each as a defect."""
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
    """The package may be missing: then a request for a WebSocket is answered as any other that has no route."""
    if importlib.util.find_spec("websockets") is not None:
        return True
    logger.info("no WebSockets (consoles by HTTP and ubus work): they need the Python package websockets")
    return False


def make_web_socket(*args: Any, **named: Any) -> asyncio.Protocol:
    """What uvicorn calls at an upgrade. `websockets` is loaded with the first one."""
    from agent.api.access.websocket import make_protocol

    return make_protocol(*args, **named)


def quieten_logs() -> None:
    """Below ERROR uvicorn repeats what strangers send: targets, and the headers of WebSockets."""
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    logging.getLogger("uvicorn.error").addFilter(_is_ours)


def _is_ours(record: logging.LogRecord) -> bool:
    """Drops refused or broken handshakes and frames: anyone can send them, and they are not errors of ours. Nor are requests
    that the agent's end breaks off."""
    error = record.exc_info[1] if record.exc_info else None
    return record.msg.startswith("Exception in ASGI application") and not isinstance(
        error, asyncio.CancelledError
    )


def limit_tls_buffers() -> None:
    """Each TLS connection owns a buffer: asyncio's own 256 KiB would be 16 MiB for 64 that only wait."""
    sslproto.SSLProtocol.max_size = _TLS_BUFFER
