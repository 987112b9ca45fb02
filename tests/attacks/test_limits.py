# SPDX-License-Identifier: GPL-2.0-or-later
"""Clients that take more than their share: connections, heads, bodies, frames and time. The others go on."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from agent.api.access import connection, listeners, tcp
from agent.wire import http_head
from tests.support.tcp import (
    READ,
    UPGRADE,
    WRITE,
    TcpController,
    head_of,
    make_certificate,
    new_client,
    serving_tcp,
)

DEADLINE_S = 0.5
HEALTH = "GET /healthz HTTP/1.1\r\nHost: router\r\n\r\n"


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TcpController]:
    """With deadlines that a test can wait for."""
    folder = tmp_path_factory.mktemp("narrow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "HEAD_TIMEOUT_S", DEADLINE_S)
        patch.setattr(connection, "UNREAD_TIMEOUT_S", DEADLINE_S)
        patch.setattr(tcp, "HANDSHAKE_S", DEADLINE_S)
        cert, key = make_certificate(folder, "router")
        with serving_tcp(folder, "127.0.0.1:0", "127.0.0.2:0", "127.0.0.3:0") as made:
            tls = listeners.TlsFiles(cert, key)
            made.listeners._servers[made.settings.listen[1]].tls = tls
            yield made


def closed_after(made: socket.socket, limit_s: float = 5) -> float:
    """Seconds until the server closes."""
    made.settimeout(limit_s)
    began = time.monotonic()
    try:
        while made.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return time.monotonic() - began


def test_the_deadlines_are_those_of_the_design() -> None:
    assert (connection.HEAD_TIMEOUT_S, tcp.HANDSHAKE_S, http_head.HEAD_LIMIT) == (10, 10, 16 * 1024)
    assert tcp.UNREAD_S == 60
    assert (listeners.CONNECTIONS, listeners.PER_CLIENT) == (64, 16)


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /v1/status HTT", b"GET /v1/status HTTP/1.1\r\nHost: router\r\nX-A: " + b"b" * 5000],
    ids=["nothing", "a piece of the line", "a header without end"],
)
def test_a_head_that_does_not_come_has_a_deadline(narrow: TcpController, sent: bytes) -> None:
    with narrow.connect() as made:
        made.sendall(sent)
        assert closed_after(made) < DEADLINE_S + 2


def test_one_byte_at_a_time_does_not_move_the_deadline(narrow: TcpController) -> None:
    with narrow.connect() as made:
        began = time.monotonic()
        with pytest.raises(OSError):
            for byte in b"GET /v1/status HTTP/1.1\r\nX-A: " + b"b" * 1000:
                made.sendall(bytes([byte]))
                made.settimeout(0.05)
                try:
                    if not made.recv(1):
                        raise ConnectionResetError
                except TimeoutError:
                    continue
        assert time.monotonic() - began < DEADLINE_S + 2


def test_the_second_head_of_a_connection_has_the_deadline_too(narrow: TcpController) -> None:
    with narrow.connect() as made:
        assert narrow.status("GET /healthz HTTP/1.1\r\nHost: router\r\n\r\n", connection=made) == 200
        made.sendall(b"GET /healthz HT")
        assert closed_after(made) < DEADLINE_S + 2


@pytest.mark.parametrize(
    "headers, expected",
    [
        ("X-A: " + "b" * 8000 + "\r\n", 200),
        ("X-A: " + "b" * 17000 + "\r\n", 431),
        ("X-A: " + "b" * 2**20 + "\r\n", 431),
        ("A: b\r\n" * 90, 200),
        ("A: b\r\n" * 101, 431),
        ("A: b\r\n" * 10000, 431),
    ],
    ids=["8 KiB", "17 KiB", "1 MiB", "90", "101", "10000"],
)
def test_heads_have_a_size(served: TcpController, headers: str, expected: int) -> None:
    with served.connect() as made:
        try:
            made.sendall(f"GET /healthz HTTP/1.1\r\nHost: router\r\n{headers}\r\n".encode())
        except (BrokenPipeError, ConnectionResetError):
            assert expected == 431  # it did not wait for the end
            return
        # what the server did not read any more may cost us its answer
        line = head_of(made).partition(b"\r\n")[0].split(b" ")
        assert int(line[1]) == expected if len(line) > 1 else expected == 431


def test_a_small_body_has_a_size(served: TcpController) -> None:
    with served.client(READ) as client:
        assert client.post("/v1/tickets", content=b" " * (2**20 + 1)).status_code == 413
        nested = b'{"path":' + b"[" * 5000 + b"]" * 5000 + b"}"
        assert client.post("/v1/tickets", content=nested).status_code == 400
        assert (
            client.post("/v1/tickets", content=b'{"path":' + b"[" * 100 + b"]" * 100 + b"}").status_code
            == 400
        )


@pytest.mark.parametrize(
    "path, auth", [("/healthz", ""), ("/v1/status", ""), ("/v1/status", f"Authorization: Bearer {READ}\r\n")]
)
def test_a_body_that_nobody_asked_for_is_not_taken_without_end(
    narrow: TcpController, path: str, auth: str
) -> None:
    with narrow.connect() as made:
        made.sendall(
            f"GET {path} HTTP/1.1\r\nHost: router\r\n{auth}Content-Length: 10737418240\r\n\r\n".encode()
        )
        assert head_of(made).startswith(b"HTTP/1.1 ")
        began, block = time.monotonic(), b"a" * 65536
        with pytest.raises(OSError):
            while time.monotonic() - began < 10:
                made.sendall(block)
        assert time.monotonic() - began < DEADLINE_S + 3


def test_an_endless_chunk_line_is_cut(served: TcpController) -> None:
    head = (
        f"PUT /v1/containers/web/archive?path=/ HTTP/1.1\r\nHost: router\r\nAuthorization: Bearer {WRITE}\r\n"
    )
    with served.connect() as made:
        made.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n0;")
        with pytest.raises(OSError):
            for _ in range(1000):
                made.sendall(b"a" * 1000)
                made.settimeout(0.01)
                try:
                    if not made.recv(65536):
                        raise ConnectionResetError
                except TimeoutError:
                    continue


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time enough to make a crowd of connections on a busy machine."""
    monkeypatch.setattr(connection, "HEAD_TIMEOUT_S", 2)
    monkeypatch.setattr(tcp, "HANDSHAKE_S", 2)


@pytest.fixture
def crowd(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What listeners did: the `most` that stood in one, and how many were `refused`."""
    seen: Counter[str] = Counter()
    acquire = connection.ConnectionLimits.acquire

    def counted(limits: connection.ConnectionLimits, client: str) -> bool:
        entered = acquire(limits, client)
        seen["most"] = max(seen["most"], limits.taken)
        seen["refused"] += not entered
        return entered

    monkeypatch.setattr(connection.ConnectionLimits, "acquire", counted)
    return seen


@pytest.mark.usefixtures("patience")
def test_one_client_gets_sixteen_connections_and_leaves_room_for_others(narrow: TcpController) -> None:
    greedy = new_client()
    made = [narrow.connect(greedy) for _ in range(20)]
    try:
        closed = [one for one in made[16:] if _is_closed(one)]
        assert len(closed) == 4 and narrow.limits.open[greedy] == 16
        with narrow.client(READ) as client:
            assert client.get("/v1/status").status_code == 200
    finally:
        for one in made:
            one.close()
    _until(lambda: narrow.limits.open[greedy] == 0)
    with narrow.client(READ, greedy) as client:
        assert client.get("/v1/status").status_code == 200


@pytest.mark.usefixtures("patience")
def test_two_hundred_idle_connections_do_not_reach_the_control_socket_and_end(
    narrow: TcpController, crowd: Counter[str]
) -> None:
    assert narrow.control.client.get("/v1/status").status_code == 200
    gc.collect()
    before, descriptors = _rss(), len(os.listdir("/proc/self/fd"))
    addresses = [new_client() for _ in range(20)]
    made = [narrow.connect(addresses[number % 20]) for number in range(200)]
    try:
        _until(lambda: crowd["refused"] > 0)
        assert crowd["most"] == 64
        began = time.monotonic()
        assert narrow.control.client.get("/v1/status").status_code == 200
        assert time.monotonic() - began < DEADLINE_S + 2
        assert _rss() - before < 16 * 2**20
        _until(lambda: narrow.limits.taken == 0)
        with narrow.client(READ) as client:
            assert client.get("/v1/status").status_code == 200
    finally:
        for one in made:
            one.close()
    _until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)


def test_the_addresses_of_one_ipv6_host_do_not_take_all_places() -> None:
    limits = connection.ConnectionLimits(control=False, connections=64, per_client=16, per_prefix=32)
    taken = [f"2001:db8::{number % 5:x}" for number in range(80)]
    entered = [client for client in taken if limits.acquire(client)]
    assert (len(entered), limits.taken) == (32, 32)
    assert (
        limits.acquire("2001:db8:0:1::1")
        and limits.acquire("192.168.1.7")
        and limits.acquire("fe80::1%br-lan")
    )
    for client in [*entered, "2001:db8:0:1::1", "192.168.1.7", "fe80::1%br-lan"]:
        limits.release(client)
    assert not limits.open


def test_who_fills_one_listener_keeps_nobody_from_another(narrow: TcpController) -> None:
    full = narrow.listeners._servers[narrow.settings.listen[1]]
    address = (str(narrow.settings.listen[1].ip), full.port)
    made = [socket.create_connection(address, 5, (new_client(), 0)) for _ in range(64)]
    try:
        _until(lambda: full._limits.taken == 64)
        with narrow.client(READ) as client:
            assert client.get("/v1/status").status_code == 200
    finally:
        for one in made:
            one.close()


@pytest.mark.usefixtures("patience")
def test_a_tls_handshake_that_does_not_come_counts_and_has_a_deadline(
    narrow: TcpController, crowd: Counter[str]
) -> None:
    server = narrow.listeners._servers[narrow.settings.listen[1]]
    address = (str(narrow.settings.listen[1].ip), server.port)
    made = [socket.create_connection(address, 5, (new_client(), 0)) for _ in range(70)]
    try:
        _until(lambda: crowd["refused"] > 0)
        assert crowd["most"] == 64
        assert closed_after(made[0]) < 5
        _until(lambda: server._limits.taken == 0)
    finally:
        for one in made:
            one.close()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(address, 5, (new_client(), 0)) as raw, context.wrap_socket(raw) as good:
        good.sendall(b"GET /healthz HTTP/1.1\r\nHost: router\r\n\r\n")
        assert good.recv(4096).startswith(b"HTTP/1.1 200 ")


def test_memory_of_idle_tls_connections_is_bounded(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path, "router")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with serving_tcp(tmp_path, "127.0.0.1:0", cert=str(cert), key=str(key)) as made:
        context.wrap_socket(made.connect()).close()
        gc.collect()
        before = _rss()
        clients = [context.wrap_socket(made.connect()) for _ in range(60)]
        grown = _rss() - before
        for one in clients:
            one.close()
    assert grown < 10 * 2**20, f"{grown / 2**20:.1f} MiB for both ends of 60 connections"


def test_frames_have_a_size_and_are_never_packed(served: TcpController) -> None:
    address = new_client()
    for message, taken in (("a" * 65000, True), ("a" * 70000, False)):
        ticket = served.ticket("/v1/echo/1/ws", address=address)
        url = f"ws://{served.host()}/v1/echo/1/ws?ticket={ticket}"
        with connect(url, sock=served.connect(address)) as web_socket:
            assert web_socket.protocol.extensions == []
            web_socket.send(message)
            if taken:
                assert web_socket.recv() == message
                continue
            with pytest.raises(ConnectionClosed) as closed:
                web_socket.recv()
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1009


@pytest.mark.parametrize(
    "frame",
    [
        struct.pack("!BBQ", 0x82, 0xFF, 2**30) + b"\0\0\0\0",
        struct.pack("!BBQ", 0x82, 0xFF, 2**63) + b"\0\0\0\0",
        b"\xc2\x80\0\0\0\0",
        b"\x82\x01a",
        b"\x83\x80\0\0\0\0",
    ],
    ids=["1 GiB", "a negative length", "packed", "without a mask", "an unknown kind"],
)
def test_a_frame_that_must_not_be_ends_the_web_socket(served: TcpController, frame: bytes) -> None:
    address = new_client()
    ticket = served.ticket("/v1/echo/1/ws", address=address)
    request = f"GET /v1/echo/1/ws?ticket={ticket} HTTP/1.1\r\nHost: router\r\n{UPGRADE}\r\n"
    with served.connect(address) as made:
        assert served.status(request, connection=made) == 101
        made.sendall(frame)
        assert closed_after(made) < 3


def test_a_web_socket_counts_as_a_connection_until_it_ends(served: TcpController) -> None:
    address = new_client()
    made = []
    for _ in range(15):
        ticket = served.ticket("/v1/echo/1/ws", address=address)
        one = served.connect(address)
        request = f"GET /v1/echo/1/ws?ticket={ticket} HTTP/1.1\r\nHost: router\r\n{UPGRADE}\r\n"
        assert served.status(request, connection=one) == 101
        made.append(one)
    _until(lambda: served.limits.open[address] == 15)
    extra = [served.connect(address) for _ in range(2)]
    assert [_is_closed(one) for one in extra] == [False, True]
    for one in [*made, *extra]:
        one.close()
    _until(lambda: served.limits.open[address] == 0)


def test_a_client_that_does_not_read_its_answers_does_not_keep_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp, "UNREAD_S", 0.5)
    with serving_tcp(tmp_path, "127.0.0.1:0") as made:
        address = new_client()
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        client.bind((address, 0))
        client.connect((made.ip, made.port))
        client.settimeout(0.5)
        # answers for more than the kernel keeps: the server waits for its client
        with pytest.raises(OSError):
            while True:
                client.sendall(b"GET /healthz HTTP/1.1\r\nHost: router\r\n\r\n" * 100)
        _until(lambda: made.limits.open[address] == 0, limit_s=8)
        client.close()


def test_without_descriptors_the_listener_pauses_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tcp, "_PAUSE_S", 0.2)
    # server, engine and test are one process: with a descriptor that any of them gives back the client is taken before the
    # shortage is over, and may not be cut for its silence then
    monkeypatch.setattr(connection, "HEAD_TIMEOUT_S", 60)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with serving_tcp(tmp_path, "127.0.0.1:0") as made, socket.socket() as waiting, made.connect() as client:
        assert made.status(HEALTH, connection=client) == 200
        made.engine.wait_closed()  # the listener has asked it for the networks
        held: list[int] = []

        def said() -> int:
            held.extend(_all_descriptors())
            return caplog.text.count("cannot accept")

        resource.setrlimit(resource.RLIMIT_NOFILE, (_highest_descriptor() + 1, hard))
        try:
            assert said() == 0
            waiting.settimeout(10)
            waiting.connect((made.ip, made.port))
            _until(said)
            lines, until = said(), time.monotonic() + 0.5
            _until(lambda: said() > lines + 3 or time.monotonic() > until)
            assert said() <= lines + 3
        finally:
            for descriptor in held:
                os.close(descriptor)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert made.status(HEALTH, connection=waiting) == 200
        assert made.status(HEALTH, connection=client) == 200


def _highest_descriptor() -> int:
    return max(int(name) for name in os.listdir("/proc/self/fd"))


def _all_descriptors() -> Iterator[int]:
    """Takes them until none is left."""
    with contextlib.suppress(OSError):
        while True:
            yield os.dup(0)


def _is_closed(made: socket.socket) -> bool:
    """Whether the server has closed it by now."""
    made.settimeout(0.2)
    try:
        return made.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True


def _until(condition: object, limit_s: float = 5) -> None:
    assert callable(condition)
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        threading.Event().wait(0.02)


def _rss() -> int:
    """Resident bytes of this process: server and clients of the test."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
