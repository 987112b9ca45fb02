# SPDX-License-Identifier: GPL-2.0-or-later
"""Limits around docker-py: how much an engine may send and how long it may take; and TLS to an engine on another machine.

These limits bound the damage that a faulty or hostile engine can do. requests' timeouts cover a single read, so an
engine that sends a byte each second would keep a call open for ever. Here the socket itself knows the end of the
whole call, including the head. Bodies are counted while they are read, and requested uncompressed: a small compressed
body could unpack to a huge one.

TLS uses a folder with `ca.pem`, `cert.pem` and `key.pem`, like DOCKER_CERT_PATH. Both clients of the engine
(`engine.client`, `engine.stream`) get their contexts here. Only that `ca.pem` is trusted. Replaced files apply to the
next connection.
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
_ATTEND_MS = 1000  # between looks whether the caller still wants the answer


class OversizeError(ValueError):
    """The answer is larger than any real answer of an engine."""


class CallDeadline:
    """When the current call of a thread must end, on the monotonic clock."""

    def __init__(self) -> None:
        self.at = math.inf
        self.meanwhile: Callable[[], None] | None = None  # see `attend`

    @contextmanager
    def attend(self, meanwhile: Callable[[], None]) -> Iterator[None]:
        """Inside the block `meanwhile` is called before each read, and once a second while nothing arrives. If it
        raises, the read ends with that error.
        """
        self.meanwhile = meanwhile
        try:
            yield
        finally:
            self.meanwhile = None

    def begin(self, seconds: float) -> None:
        """Starts the time of a call."""
        self.at = time.monotonic() + seconds

    def end(self) -> None:
        """Removes the limit."""
        self.at = math.inf


class _TimedSocket(socket.socket):
    """A socket whose reads end at the deadline."""

    deadline = CallDeadline()  # for sockets without a deadline of their own: no limit

    def recv_into(self, *args: Any, **named: Any) -> int:
        _wait_until(self.deadline, self)
        return super().recv_into(*args, **named)


class TimedTlsSocket(ssl.SSLSocket):
    """The same for TLS. An SSLContext creates its sockets from this class."""

    deadline = CallDeadline()

    def recv_into(self, *args: Any, **named: Any) -> int:
        _wait_until(self.deadline, self)
        return super().recv_into(*args, **named)


def _wait_until(deadline: CallDeadline, reader: socket.socket) -> None:
    # a pull must end when its section is removed, even if the engine sends nothing
    if deadline.meanwhile is not None:
        deadline.meanwhile()
        poll = select.poll()
        poll.register(reader, select.POLLIN)
        # skip the poll if TLS has decrypted bytes already: the kernel has none, and the poll would wait for ever
        while not (isinstance(reader, ssl.SSLSocket) and reader.pending()) and not poll.poll(_ATTEND_MS):
            deadline.meanwhile()
    if deadline.at != math.inf:
        left = deadline.at - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        reader.settimeout(left)


def keep_time(client: Any, deadline: CallDeadline) -> None:
    """Applies the deadline to the sockets of a docker-py client."""
    for adapter in client.adapters.values():
        # requests calls the first one from 2.32 on, the second one before
        for name in ("get_connection_with_tls_context", "get_connection"):
            if (found := getattr(adapter, name, None)) is not None:
                setattr(adapter, name, _with_timed_pool(found, deadline))


def keep_pools_in_time(manager: Any, deadline: CallDeadline) -> None:
    """The same for a urllib3 PoolManager or ProxyManager."""
    manager._new_pool = _with_timed_pool(manager._new_pool, deadline)  # noqa: SLF001 - as below


def _with_timed_pool(get: Callable[..., Any], deadline: CallDeadline) -> Callable[..., Any]:
    def got(*args: Any, **named: Any) -> Any:
        pool = get(*args, **named)
        if "_new_conn" not in vars(pool):
            pool._new_conn = _timed(pool._new_conn, deadline)  # noqa: SLF001 - where urllib3 creates its connections
        return pool

    return got


def _timed(make: Callable[[], Any], deadline: CallDeadline) -> Callable[[], Any]:
    def made() -> Any:
        connection = make()
        connect = connection.connect

        def connected() -> None:
            connect()
            plain = connection.sock
            if type(plain) is socket.socket:
                # put the connection into a socket that checks the clock before each read
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
    # undecoded: a small compressed body could unpack to a huge one, and no engine compresses
    for piece in response.raw.stream(_PIECE, decode_content=False):
        size += len(piece)
        if size > BODY_LIMIT:
            response.close()
            raise OversizeError(f"the answer is longer than {BODY_LIMIT} bytes")
        parts.append(piece)
    return b"".join(parts)


def json_lines(response: Any) -> Iterator[dict[str, Any]]:
    """The objects of a streamed response, one per line. Raises ValueError for other lines, OversizeError."""
    rest = b""
    for piece in response.raw.stream(_PIECE, decode_content=False):
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > LINE_LIMIT:
            raise OversizeError(f"a line is longer than {LINE_LIMIT} bytes")
        yield from _objects(lines)
    yield from _objects([rest])


def _objects(lines: list[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        text = line.strip(b"\x1e \t\r")  # strip a record separator too: RFC 7464
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
    """The TLS files of an engine. `wall` returns unix seconds."""

    def __init__(self, folder: str, *, wall: Callable[[], float] = time.time) -> None:
        self.ca, self._cert, self._key = (Path(folder, name) for name in ("ca.pem", "cert.pem", "key.pem"))
        self._wall = wall
        self._made: tuple[_Stamps, ssl.SSLContext] | None = None  # with the stamps of its files

    def context(self) -> ssl.SSLContext:
        """A context for any number of connections of one thread. Raises EngineTlsError, EngineClockError."""
        stamp = self._stamp()
        if self._made is None or self._made[0] != stamp:
            self._made = (stamp, self._make())
        return self._made[1]

    def own_context(self) -> ssl.SSLContext:
        """A context that the caller may modify, as urllib3 does for each connection. Raises like `context`."""
        self._stamp()
        return self._make()

    def words(self) -> list[str]:
        """The TLS arguments for the command `docker`."""
        return ["--tlsverify", f"--tlscacert={self.ca}", f"--tlscert={self._cert}", f"--tlskey={self._key}"]

    def _stamp(self) -> _Stamps:
        """The stamps of the files. Raises if they cannot be used."""
        # without the time every certificate looks "not yet valid", which would hide the real reason
        if not clock_is_set(self._wall()):
            raise EngineClockError("the clock is not set: the engine's certificate cannot be checked yet")
        files = (self.ca, self._cert, self._key)
        # all at once under one deadline, because the folder may be on a mount that does not answer
        view = PATHS.view((file_stamp, str(path)) for path in files)
        try:
            found = tuple(view(file_stamp, str(path)) for path in files)
        except PathError as exc:
            raise EngineTlsError(f"docker_cert_path: {exc}") from exc
        # the last of the three is the key: anyone who can read it controls the engine
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
            # a key with a passphrase would ask for it on a terminal, which a service does not have
            context.load_cert_chain(self._cert, self._key, password=_no_password)
        except (OSError, ssl.SSLError, ValueError) as exc:
            raise EngineTlsError(
                f"docker_cert_path: {self._cert} and {self._key} are not a pair of certificate and key in PEM: {exc}"
            ) from exc
        return context


def is_trust_failure(exc: BaseException) -> bool:
    """Whether TLS failed because one side does not trust the other, rather than because the connection broke."""
    return isinstance(exc, ssl.SSLError) and not isinstance(exc, ssl.SSLEOFError | ssl.SSLZeroReturnError)


def _no_password() -> str:
    """Raises, because OpenSSL would otherwise ask on the terminal."""
    raise ValueError("the key needs a password")
