# SPDX-License-Identifier: GPL-2.0-or-later
"""Around docker-py: what an engine may send, how long it may take, and TLS to one on another machine.

A faulty or hostile engine costs no more than that. requests' time-outs are for one read each: an engine that sends a byte
each second keeps a call open for ever. Here the socket itself knows when the whole call must be over, its head included.
Bodies are counted as they come, and asked for as they are: what is packed small could be large.

TLS takes a folder with `ca.pem`, `cert.pem` and `key.pem`, as DOCKER_CERT_PATH names one. Both clients of the engine
(`engine.client`, `engine.stream`) take their contexts from here. Nothing but that `ca.pem` is trusted. Files that were
replaced count for the next connection.
"""

from __future__ import annotations

import json
import math
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.errors import EngineClockError, EngineTlsError, PathError
from agent.files.user_paths import PATHS, Stamp, file_stamp
from agent.model.quantities import clock_is_set

BODY_LIMIT = 16 * 1024 * 1024  # of an answer with JSON
LINE_LIMIT = 1024 * 1024  # of a progress or event stream
_PIECE = 64 * 1024
_ATTEND_MS = 1000


class OversizeError(ValueError):
    """The answer is larger than any that the engine gives."""


class Deadline:
    """When the call that is under way must be over, on the monotonic clock; for the calls of one thread."""

    def __init__(self) -> None:
        self.at = math.inf
        self.meanwhile: Callable[[], None] | None = None  # see `attend`

    @contextmanager
    def attend(self, meanwhile: Callable[[], None]) -> Iterator[None]:
        """In here `meanwhile` is called before each read, and each second while nothing comes. What it raises ends the
        read, and is raised where that was asked for."""
        self.meanwhile = meanwhile
        try:
            yield
        finally:
            self.meanwhile = None

    def begin(self, seconds: float) -> None:
        """A call begins."""
        self.at = time.monotonic() + seconds

    def end(self) -> None:
        """What follows has no end, or one of its own."""
        self.at = math.inf


class _TimedSocket(socket.socket):
    """Reads until the deadline."""

    deadline = Deadline()  # for calls without one: never

    def recv_into(self, *args: Any, **named: Any) -> int:
        _wait_until(self.deadline, self)
        return super().recv_into(*args, **named)


class TimedTlsSocket(ssl.SSLSocket):
    """The same with TLS; what an SSLContext makes sockets of."""

    deadline = Deadline()

    def recv_into(self, *args: Any, **named: Any) -> int:
        _wait_until(self.deadline, self)
        return super().recv_into(*args, **named)


def _wait_until(deadline: Deadline, reader: socket.socket) -> None:
    # a pull must end when its section goes, however long the engine says nothing
    if deadline.meanwhile is not None:
        deadline.meanwhile()
        poll = select.poll()
        poll.register(reader, select.POLLIN)
        # what TLS has decrypted already is waiting here: the kernel has nothing more, and a poll would wait for ever
        while not (isinstance(reader, ssl.SSLSocket) and reader.pending()) and not poll.poll(_ATTEND_MS):
            deadline.meanwhile()
    if deadline.at != math.inf:
        left = deadline.at - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        reader.settimeout(left)


def keep_time(client: Any, deadline: Deadline) -> None:
    """Gives the sockets of a docker-py client that deadline."""
    for adapter in client.adapters.values():
        # requests asks the first from 2.32 on, the second before
        for name in ("get_connection_with_tls_context", "get_connection"):
            if (found := getattr(adapter, name, None)) is not None:
                setattr(adapter, name, _with_timed_pool(found, deadline))


def keep_pools_in_time(manager: Any, deadline: Deadline) -> None:
    """The same for a urllib3 PoolManager or ProxyManager."""
    manager._new_pool = _with_timed_pool(manager._new_pool, deadline)  # noqa: SLF001 - as below


def _with_timed_pool(get: Callable[..., Any], deadline: Deadline) -> Callable[..., Any]:
    def got(*args: Any, **named: Any) -> Any:
        pool = get(*args, **named)
        if "_new_conn" not in vars(pool):
            pool._new_conn = _timed(pool._new_conn, deadline)  # noqa: SLF001 - where urllib3 makes its connections
        return pool

    return got


def _timed(make: Callable[[], Any], deadline: Deadline) -> Callable[[], Any]:
    def made() -> Any:
        connection = make()
        connect = connection.connect

        def connected() -> None:
            connect()
            plain = connection.sock
            if type(plain) is socket.socket:
                # the same connection in a socket that looks at the clock before each read
                limit = plain.gettimeout()
                timed = _TimedSocket(plain.family, plain.type, plain.proto, fileno=plain.detach())
                timed.settimeout(limit)
                connection.sock = timed
            connection.sock.deadline = deadline

        connection.connect = connected
        return connection

    return made


def read_body(response: Any) -> bytes:
    """The body of a streamed response. Raises OversizeError."""
    parts, size = [], 0
    # As it is on the wire: what is packed small could be large, and no engine packs.
    for piece in response.raw.stream(_PIECE, decode_content=False):
        size += len(piece)
        if size > BODY_LIMIT:
            response.close()
            raise OversizeError(f"the answer is longer than {BODY_LIMIT} bytes")
        parts.append(piece)
    return b"".join(parts)


def json_lines(response: Any) -> Iterator[dict[str, Any]]:
    """The objects of a streamed response, one a line. Raises ValueError for other lines, OversizeError."""
    rest = b""
    for piece in response.raw.stream(_PIECE, decode_content=False):
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > LINE_LIMIT:
            raise OversizeError(f"a line is longer than {LINE_LIMIT} bytes")
        yield from _objects(lines)
    yield from _objects([rest])


def _objects(lines: list[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        text = line.strip(b"\x1e \t\r")  # a record separator: RFC 7464
        if not text:
            continue
        try:
            found = json.loads(text)
        except RecursionError as exc:
            raise ValueError("it is nested too deeply") from exc
        if not isinstance(found, dict):
            raise ValueError("a line is not an object")
        yield found


_OTHERS = 0o077  # mode bits of everybody but the owner
_Stamps = tuple[Stamp, ...]


class EngineTls:
    """`wall`: the clock, in unix seconds."""

    def __init__(self, folder: str, *, wall: Callable[[], float] = time.time) -> None:
        self.ca, self._cert, self._key = (Path(folder, name) for name in ("ca.pem", "cert.pem", "key.pem"))
        self._wall = wall
        self._made: tuple[_Stamps, ssl.SSLContext] | None = None

    def context(self) -> ssl.SSLContext:
        """For any number of connections of one thread. Raises EngineTlsError, EngineClockError."""
        stamp = self._stamp()
        if self._made is None or self._made[0] != stamp:
            self._made = (stamp, self._make())
        return self._made[1]

    def own_context(self) -> ssl.SSLContext:
        """One that the caller may change: urllib3 does, at each connection. Raises as `context`."""
        self._stamp()
        return self._make()

    def words(self) -> list[str]:
        """What the command `docker` needs to be told."""
        return ["--tlsverify", f"--tlscacert={self.ca}", f"--tlscert={self._cert}", f"--tlskey={self._key}"]

    def _stamp(self) -> _Stamps:
        """The files as they are now. Raises where they cannot be used."""
        # Without the time every certificate is "not yet valid", and the real reason would be lost.
        if not clock_is_set(self._wall()):
            raise EngineClockError("the clock is not set: the engine's certificate cannot be checked yet")
        files = (self.ca, self._cert, self._key)
        # Asked together, with one deadline: the folder may be on a mount that does not answer.
        view = PATHS.view((file_stamp, str(path)) for path in files)
        try:
            found = tuple(view(file_stamp, str(path)) for path in files)
        except PathError as exc:
            raise EngineTlsError(f"docker_cert_path: {exc}") from exc
        # The key is the last of the three. Who reads it controls the engine.
        if found[-1].mode & _OTHERS:
            raise EngineTlsError(f"docker_cert_path: {self._key} is open to others, expected mode 0600")
        return found

    def _make(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.sslsocket_class = TimedTlsSocket
        try:
            context.load_verify_locations(self.ca)
        except (OSError, ssl.SSLError) as exc:
            raise EngineTlsError(f"docker_cert_path: {self.ca} holds no certificate in PEM: {exc}") from exc
        try:
            # A key with a passphrase would ask for it on a terminal that a service does not have.
            context.load_cert_chain(self._cert, self._key, password=_no_password)
        except (OSError, ssl.SSLError, ValueError) as exc:
            raise EngineTlsError(
                f"docker_cert_path: {self._cert} and {self._key} are not a pair of certificate and key in PEM: {exc}"
            ) from exc
        return context


def is_mistrust(exc: BaseException) -> bool:
    """Whether TLS failed for what the two sides think of each other, and not for a connection that broke."""
    return isinstance(exc, ssl.SSLError) and not isinstance(exc, ssl.SSLEOFError | ssl.SSLZeroReturnError)


def _no_password() -> str:
    """Without it OpenSSL would ask on the terminal."""
    raise ValueError("the key wants a password")
