# SPDX-License-Identifier: GPL-2.0-or-later
"""What `lending` does to the insides of uvicorn's H11Protocol and of h11, which neither of them promises to keep.

Nothing else in `lending` looks into them. Where one is missing in another version, `fits` says so, and bodies go through
the event loop.
"""

from __future__ import annotations

import functools
import logging
import operator
from dataclasses import dataclass

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from agent.wire.http_head import HEAD_LIMIT

logger = logging.getLogger(__name__)

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


@dataclass(frozen=True, slots=True)
class _Sent:
    """Stands for bytes that went by another way, where h11 counts them."""

    size: int

    def __len__(self) -> int:
        return self.size


def fits(protocol: H11Protocol) -> bool:
    """Whether all that the rest needs is there, while a request is being answered."""
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


def count_sent(protocol: H11Protocol, size: int) -> None:
    """`size` bytes of an answer with a Content-Length have been sent."""
    protocol.conn.send_with_data_passthrough(h11.Data(data=_Sent(size)))  # type: ignore[arg-type]


def held(protocol: H11Protocol) -> int:
    """Bytes of the request's body that nobody has asked for yet."""
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
    protocol.conn = cycle.conn = _conn_before_the_end(protocol, kept)
    return waiting


def _conn_before_the_end(protocol: H11Protocol, kept: int) -> h11.Connection:
    """h11 after the head of this request, were its body `kept` bytes long."""
    lines = [f"POST / HTTP/{protocol.scope['http_version']}".encode(), b"host: x"]
    lines += [b"connection: " + value for name, value in protocol.headers if name == b"connection"]
    lines += [b"content-length: %d" % kept, b"", b""]
    made = h11.Connection(h11.SERVER, HEAD_LIMIT)
    made.receive_data(b"\r\n".join(lines))
    made.next_event()
    return made
