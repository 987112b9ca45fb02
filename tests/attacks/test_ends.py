# SPDX-License-Identifier: GPL-2.0-or-later
"""A session that ends takes along what it began."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from agent.api.access import guard
from agent.api.rules import Need
from tests.support.tcp import CORS, TcpController, new_client

_numbers = itertools.count(1)


@pytest.fixture
def session(served: TcpController, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A reader's session; what it opens is looked at ten times a second."""
    monkeypatch.setattr(guard, "RECHECK_S", 0.1)
    made = f"{next(_numbers):032x}"
    served.sessions.rights[made] = Need.READ
    yield made
    served.sessions.rights.pop(made, None)


def test_streams_are_asked_about_often_enough() -> None:
    cached_s = 5.0  # a right may outlive its session for that long: port.Sessions
    assert guard.RECHECK_S + cached_s < 10


@pytest.mark.parametrize("ends", ["the session", "its right", "rpcd", "the check itself"])
def test_a_stream_ends_with(
    served: TcpController, session: str, ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served.client(session) as client, client.stream("GET", "/v1/status/stream") as stream:
        lines = stream.iter_lines()
        next(lines)
        time.sleep(0.3)  # it was looked at, and goes on
        served.agent.board.set_agent(ends=f"{ends} {session}")
        assert any(session in line for line in lines)
        readable = set(served.sessions.readable)
        if ends == "the session":
            del served.sessions.rights[session]
        elif ends == "its right":
            served.sessions.readable.clear()
        elif ends == "rpcd":
            served.sessions.silent = True
        else:
            monkeypatch.setattr(served.sessions, "allowed", None)
        began = time.monotonic()
        try:
            with pytest.raises(httpx.RemoteProtocolError):
                for _ in lines:
                    pass
        finally:
            served.sessions.silent = False
            served.sessions.readable |= readable
        assert time.monotonic() - began < 10


def test_a_web_socket_ends_with_its_session_and_says_why(served: TcpController, session: str) -> None:
    address = new_client()
    ticket = served.ticket("/v1/echo/1/ws", session=session, address=address)
    url = f"ws://{served.host()}/v1/echo/1/ws?ticket={ticket}"
    with connect(url, sock=served.connect(address), origin=CORS) as web_socket:  # type: ignore[arg-type]
        web_socket.send("one")
        assert web_socket.recv() == "one"
        del served.sessions.rights[session]
        with pytest.raises(ConnectionClosed) as closed:
            web_socket.recv(timeout=10)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "the session has ended")


def test_a_web_socket_whose_client_does_not_answer_is_cut(served: TcpController, session: str) -> None:
    from tests.attacks.test_limits import closed_after
    from tests.support.tcp import UPGRADE

    address = new_client()
    ticket = served.ticket("/v1/echo/1/ws", session=session, address=address)
    request = f"GET /v1/echo/1/ws?ticket={ticket} HTTP/1.1\r\nHost: router\r\n{UPGRADE}\r\n"
    with served.connect(address) as made:
        assert served.status(request, connection=made) == 101
        del served.sessions.rights[session]
        assert closed_after(made) < 3


def test_an_export_is_cut_off_and_the_engine_let_go(
    served: TcpController, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    monkeypatch.setattr(guard, "RECHECK_S", 0.1)
    session = f"{next(_numbers):032x}"
    served.sessions.rights[session] = Need.WRITE
    plain = served.engine._script

    def slow(connection: socket.socket, head: bytes) -> None:
        if b"/export" not in head:
            plain(connection, head)
            return
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"a" * 1000)
        while connection.recv(65536):
            pass

    monkeypatch.setattr(served.engine, "_script", slow)
    with served.client(session) as client, client.stream("GET", "/v1/containers/web/export") as stream:
        pieces = stream.iter_raw()
        assert next(pieces).startswith(b"aaa")
        served.sessions.rights[session] = Need.READ
        with pytest.raises(httpx.RemoteProtocolError):
            for _ in pieces:
                pass
    served.engine.wait_closed()
    del served.sessions.rights[session]
