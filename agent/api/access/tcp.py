# SPDX-License-Identifier: GPL-2.0-or-later
"""Serves the application on the control socket and on TCP addresses: with TLS, or on loopback without.

Runs uvicorn's protocols under our own accept loop, which counts connections before TLS begins, limits a handshake to
ten seconds, uses the current certificate, and pauses when no file descriptors are left.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import resource
import socket
import ssl
import textwrap
from pathlib import Path
from types import TracebackType
from typing import Any

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.server import ServerState

from agent.api.access.connection import ConnectionLimits, ConnectionSlot, GuardedProtocol, address_of
from agent.api.access.guard import HEADERS
from agent.api.access.uvicorn_compat import (
    STOP_S,
    Server,
    has_websockets,
    limit_tls_buffers,
    make_web_socket,
    quieten_logs,
)
from agent.api.local_access import BACKLOG, bind
from agent.errors import ConfigError, PathError
from agent.files.user_paths import PATHS, Stamp, file_bytes, file_stamp
from agent.model.addresses import ListenAddress
from agent.wire.http_head import HEAD_LIMIT

logger = logging.getLogger(__name__)

# The listener's certificate and key. The files are checked for each new connection, so a renewed pair needs no restart.
#
# Open connections keep their certificate. While the new files do not match each other (one is replaced after the
# other), the previous pair stays in use.


Stamps = tuple[Stamp, ...]


class TlsFiles:
    """A certificate and its key, as PEM or DER files."""

    def __init__(self, cert: Path, key: Path) -> None:
        self.paths = (cert, key)
        # the last usable one, which stays while the files are broken
        self._context: ssl.SSLContext | None = None
        self._seen: Stamps | None = None  # stamps of the files when they were last read
        self._problem = ""

    def context(self) -> ssl.SSLContext:
        """The TLS context for a new connection. Blocks, since the files may be anywhere. Raises ConfigError if there
        has never been a usable pair.
        """
        # with a deadline: a certificate on a dead mount must not block the event loop's threads
        view = PATHS.view((file_stamp, str(path)) for path in self.paths)
        try:
            stamp = tuple(view(file_stamp, str(path)) for path in self.paths)
        except PathError as exc:
            self._failed(str(exc), None)
        else:
            if stamp != self._seen:
                self._load(stamp)
        if self._context is None:
            raise ConfigError(self._problem)
        return self._context

    def _load(self, stamp: Stamps) -> None:
        cert, key = self.paths
        try:
            self._context = _context(certificate_pem(_read(cert)), key_pem(_read(key)))
        except (OSError, PathError, PemError) as exc:  # an SSLError is an OSError
            self._failed(f"{cert} and {key} cannot be used: {exc}", stamp)
            return
        # the first load is not worth a log line
        if self._seen is not None:
            logger.info("certificate %s was loaded again", cert)
        self._seen, self._problem = stamp, ""

    def _failed(self, problem: str, stamp: Stamps | None) -> None:
        if problem != self._problem and self._context is not None:
            logger.warning("%s; the previous certificate stays in use", problem)
        self._problem, self._seen = problem, stamp or self._seen


def _read(path: Path) -> bytes:
    return PATHS.ask(file_bytes, str(path))


def _context(cert: bytes, key: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # a renegotiation costs us far more than the client that asks for it
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    # OpenSSL reads only from files; the memfd holds exactly the bytes that were checked
    descriptor = os.memfd_create("tls-pair", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, key + b"\n" + cert)
        # with "" a key that needs a passphrase fails, instead of asking for it on a terminal
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password="")
    finally:
        os.close(descriptor)
    return context


limit_tls_buffers()

HANDSHAKE_S = 10.0  # for a TLS handshake, in which the client holds a slot
TCP_STOP_S = 1.0  # for requests to finish; the control socket closes after that, and procd waits 5 s in all
UNREAD_S = 60.0  # a client that has read nothing for so long is gone; also applies while closing
_GOODBYE_S = 2.0
_BACKLOG = 64  # connections that the kernel queues, and that one wake-up accepts
_PAUSE_S = 1.0  # before accepting again, when descriptors or memory have run out


class TcpServer:
    """One TCP listener. `tls` may be replaced while it serves; new connections use the new files."""

    def __init__(
        self, app: ASGIApp, limits: ConnectionLimits, address: ListenAddress, *, tls: TlsFiles | None
    ) -> None:
        self.address = address
        self.tls = tls
        self._limits = limits
        self._config = make_config(app, limits)
        self._config.load()
        self._state = ServerState()
        self._state.default_headers = self._config.encoded_headers
        # handshakes: uvicorn does not know these connections yet
        self._opening: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._listener: socket.socket | None = None
        self._paused: asyncio.TimerHandle | None = None  # while descriptors or memory have run out

    def open(self) -> None:
        """Binds and starts to accept. Raises OSError: the address does not exist, or is taken."""
        version6 = self.address.ip.version == 6
        family = socket.AF_INET6 if version6 else socket.AF_INET
        # name the protocol: otherwise asyncio does not recognize TCP and leaves Nagle's delay on
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            # a restart must not fail because of old connections in TIME_WAIT
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if version6:
                # both `0.0.0.0` and `[::]` may be listed, and both must be able to bind
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.settimeout(0)
            listener.bind((str(self.address.ip), self.address.port))
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
        self._listener = listener
        self._loop.add_reader(listener, self._accept)

    @property
    def port(self) -> int:
        """The bound port, 0 while it is closed."""
        return int(self._listener.getsockname()[1]) if self._listener is not None else 0

    async def close(self) -> None:
        """Stops accepting, gives running requests a moment to finish, then cuts them."""
        if self._paused is not None:
            self._paused.cancel()
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        for task in self._opening:
            task.cancel()
        # first gracefully: a request that is being answered gets its answer
        for connection in list(self._state.connections):
            connection.shutdown()
        if await self._ended_within(TCP_STOP_S):
            return
        for connection in list(self._state.connections):
            connection.transport.abort()  # its request ends as if the client had disconnected
        if not await self._ended_within(TCP_STOP_S):
            for running in self._state.tasks:
                running.cancel()
            await self._ended()

    async def _ended_within(self, limit_s: float) -> bool:
        try:
            async with asyncio.timeout(limit_s):
                await self._ended()
        except TimeoutError:
            return False
        return True

    async def _ended(self) -> None:
        while self._state.connections or self._state.tasks or self._opening:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.02)

    def _accept(self) -> None:
        # accept several connections per wake-up, but a bounded number: the loop has other work
        for _ in range(_BACKLOG):
            if self._listener is None:
                return
            try:
                connection, peer = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as exc:
                # out of descriptors or memory: pause, or the kernel would call us again at once
                logger.warning("%s: cannot accept: %s", self.address, exc.strerror)
                self._loop.remove_reader(self._listener)
                self._paused = self._loop.call_later(_PAUSE_S, self._resume)
                return
            self._take(connection, address_of(peer))

    def _resume(self) -> None:
        self._paused = None
        if self._listener is not None:
            self._loop.add_reader(self._listener, self._accept)

    def _take(self, connection: socket.socket, client: str) -> None:
        slot = ConnectionSlot(self._limits)
        if not slot.acquire(client):
            connection.close()
            return
        connection.settimeout(0)
        # only the kernel notices a client that does not acknowledge the data sent to it (tcp(7))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD_S * 1000))
        task = self._loop.create_task(self._open(connection, slot), name="tcp-handshake")
        self._opening.add(task)
        task.add_done_callback(lambda done: self._opened(done, connection, slot))

    async def _open(self, connection: socket.socket, slot: ConnectionSlot) -> None:
        protocol = GuardedProtocol(self._limits, self._config, self._state, {}, self._loop)
        protocol.slot = slot
        # the files may have changed since the last connection
        context = await asyncio.to_thread(self.tls.context) if self.tls is not None else None
        await self._loop.connect_accepted_socket(
            lambda: protocol,
            connection,
            ssl=context,
            ssl_handshake_timeout=HANDSHAKE_S if context else None,
            ssl_shutdown_timeout=_GOODBYE_S if context else None,
        )

    def _opened(self, task: asyncio.Task[None], connection: socket.socket, slot: ConnectionSlot) -> None:
        """Gives the slot back if the connection failed; otherwise the protocol owns it now. A task may end
        before it ran.
        """
        self._opening.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None and not task.cancelled():
            return
        # otherwise each failed handshake would occupy a slot for ever
        slot.release()
        connection.close()
        if isinstance(error, OSError | ConfigError):
            logger.debug("%s: no connection: %s", self.address, error)
        elif error is not None:
            logger.error("%s: no connection", self.address, exc_info=error)


# Reads certificates and keys as PEM or DER: OpenWrt's uhttpd stores DER (its init script, px5g).
#
# The second element of a DER key's outer SEQUENCE tells which kind of key it is (RFC 5208, 8017, 5915).


_BEGIN = b"-----BEGIN "
_SEQUENCE, _INTEGER, _OCTETS = 0x30, 0x02, 0x04
_KEY_KINDS = {_SEQUENCE: "PRIVATE KEY", _INTEGER: "RSA PRIVATE KEY", _OCTETS: "EC PRIVATE KEY"}


class PemError(Exception):
    """The file is neither PEM nor the expected kind of DER."""


def certificate_pem(data: bytes) -> bytes:
    """A certificate, or a PEM chain, as PEM. Raises PemError."""
    if _BEGIN in data:
        return data
    if data[:1] != bytes([_SEQUENCE]):
        raise PemError("not a certificate in PEM or DER format")
    return _wrap(data, "CERTIFICATE")


def key_pem(data: bytes) -> bytes:
    """A private key as PEM. Raises PemError."""
    if _BEGIN in data:
        return data
    try:
        tag, content, _ = _element(data)
        version, _, rest = _element(content)
        kind = _KEY_KINDS[rest[0]] if (tag, version) == (_SEQUENCE, _INTEGER) else ""
    except (IndexError, KeyError):
        kind = ""
    if not kind:
        raise PemError("not a private key in PEM or DER format")
    return _wrap(data, kind)


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """Tag and content of the first element, and the bytes after it (X.690, 8.1). Raises IndexError."""
    length, start = data[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start], "big")
    if len(data) < start + length:
        raise IndexError
    return data[0], data[start : start + length], data[start + length :]


def _wrap(data: bytes, kind: str) -> bytes:
    body = "\n".join(textwrap.wrap(base64.b64encode(data).decode("ascii"), 64))
    return f"-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n".encode()


# Serves the application on the control socket; `TcpServer` above serves it on TCP.


# bytes of one WebSocket message from a client; it is held in memory until it is complete
WS_LIMIT = 64 * 1024
CONTROL_CONNECTIONS = 128  # clients of the control socket; `places` may allow fewer
_RESERVED_FDS = 32  # reserved for the engine, UCI, and our own files
_FDS_PER_CLIENT = 3


def make_config(app: ASGIApp, limits: ConnectionLimits) -> Config:
    """uvicorn's settings for the connections of a listener with these limits."""

    def protocol(*args: Any, **named: Any) -> GuardedProtocol:
        return GuardedProtocol(limits, *args, **named)

    quieten_logs()
    return Config(
        app,
        # our protocol, limits and log filters; uvicorn's trust in proxy headers and its access log are off
        http=protocol,  # type: ignore[arg-type]  # a factory works, although the type hint wants a class
        ws=make_web_socket if has_websockets() else "none",  # type: ignore[arg-type]
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        proxy_headers=False,
        headers=list(HEADERS),
        h11_max_incomplete_event_size=HEAD_LIMIT,
        ws_max_size=WS_LIMIT,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=STOP_S,
        backlog=BACKLOG,
    )


class ControlServer:
    """`async with ControlServer(app, path):` serves until the block ends. `listener` is a socket already
    bound at `path`.
    """

    def __init__(self, app: ASGIApp, path: Path, *, listener: socket.socket | None = None) -> None:
        room = places(CONTROL_CONNECTIONS)
        limits = ConnectionLimits(control=True, connections=room, per_client=room, per_prefix=room)
        self._server = Server(make_config(app, limits))
        self._path = path
        self._listener = listener
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> ControlServer:
        listener = self._listener or bind(self._path)
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="control-socket")
        return self

    def close_soon(self) -> None:
        """Starts to close; the end of the block waits for that."""
        self._server.should_exit = True

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        self._path.unlink(missing_ok=True)


def places(wanted: int) -> int:
    """The number of clients to allow: a crowd of clients must not take the descriptors that reconciling needs."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, (limit - _RESERVED_FDS) // _FDS_PER_CLIENT))
