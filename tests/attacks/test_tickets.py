# SPDX-License-Identifier: GPL-2.0-or-later
"""Tickets: once, in time, for that route, from that address, while the session lasts; nothing of them in the log."""

from __future__ import annotations

import logging
import re

import pytest
from websockets.sync.client import connect

from agent.api.rules import Need
from tests.support.tcp import CORS, READ, WRITE, TcpController, new_client

ECHO = "/v1/echo/1/ws"


def test_a_ticket_opens_its_web_socket_once(served: TcpController) -> None:
    address = new_client()
    ticket = served.ticket(ECHO, address=address)
    assert re.fullmatch("[0-9a-f]{32}", ticket)
    assert served.upgrade(f"{ECHO}?ticket={ticket}", address=address) == 101
    assert served.upgrade(f"{ECHO}?ticket={ticket}", address=address) == 401


@pytest.mark.parametrize("late_s, expected", [(29, 101), (30, 401), (3600, 401)])
def test_a_ticket_ends_after_thirty_seconds(served: TcpController, late_s: int, expected: int) -> None:
    address = new_client()
    ticket = served.ticket(ECHO, address=address)
    served.clock.now += late_s
    assert served.upgrade(f"{ECHO}?ticket={ticket}", address=address) == expected


def test_a_ticket_shown_in_the_wrong_place_is_worth_nothing_afterwards(served: TcpController) -> None:
    address = new_client()
    for path, client in (("/v1/echo/2/ws", address), ("/v1/wecho/ws", address), (ECHO, new_client())):
        ticket = served.ticket(ECHO, address=address)
        assert served.upgrade(f"{path}?ticket={ticket}", address=client) == 401
        assert served.upgrade(f"{ECHO}?ticket={ticket}", address=address) == 401


def test_a_ticket_is_no_session_and_a_session_is_no_ticket(served: TcpController) -> None:
    address = new_client()
    ticket = served.ticket(ECHO, address=address)
    with served.client("", address) as client:
        assert client.get(f"/v1/status?ticket={ticket}").status_code == 401
        bearer = {"authorization": f"Bearer {ticket}"}
        assert client.get("/v1/status", headers=bearer).status_code == 401
    for query in (f"?ticket={READ}", f"?token={READ}", f"?ticket={ticket}&ticket={ticket}", "?ticket=", ""):
        headers = f"Authorization: Bearer {READ}\r\n"
        assert served.upgrade(f"{ECHO}{query}", headers, address=new_client()) == 401, query


def test_a_ticket_is_for_web_sockets_that_the_session_may_open(served: TcpController) -> None:
    address = new_client()
    with served.client(READ, address) as reader:
        for path, expected in (
            ("/v1/wecho/ws", 403),
            ("/v1/status", 404),
            ("/v1/nosuch/ws", 404),
            ("", 404),
            ("http://evil.example/v1/echo/1/ws", 404),
        ):
            assert reader.post("/v1/tickets", json={"path": path}).status_code == expected, path
        assert reader.post("/v1/tickets", json={"path": 5}).status_code == 400
        assert reader.post("/v1/tickets", content=b"{").status_code == 400
    ticket = served.ticket("/v1/wecho/ws", session=WRITE, address=address)
    assert served.upgrade(f"/v1/wecho/ws?ticket={ticket}", address=address) == 101
    assert served.control.client.post("/v1/tickets", json={"path": ECHO}).status_code == 400


def test_a_ticket_of_a_session_that_has_ended_is_refused(served: TcpController) -> None:
    session, address = "d" * 32, new_client()
    served.sessions.rights[session] = Need.READ
    ticket = served.ticket(ECHO, session=session, address=address)
    del served.sessions.rights[session]
    assert served.upgrade(f"{ECHO}?ticket={ticket}", address=address) == 401


def test_tickets_do_not_pile_up(served: TcpController) -> None:
    address = new_client()
    with served.client(READ, address) as client:
        first = client.post("/v1/tickets", json={"path": ECHO}).json()["ticket"]
        for _ in range(300):
            client.post("/v1/tickets", json={"path": ECHO})
    assert len(served.access.tickets._open) == 256
    assert served.upgrade(f"{ECHO}?ticket={first}", address=address) == 401
    served.clock.now += 60
    served.ticket(ECHO, address=address)
    assert len(served.access.tickets._open) == 1


def test_neither_ticket_nor_session_is_logged(
    served: TcpController, caplog: pytest.LogCaptureFixture
) -> None:
    address = new_client()
    with caplog.at_level(logging.DEBUG):
        ticket = served.ticket(ECHO, address=address)
        url = f"ws://{served.host()}{ECHO}?ticket={ticket}&rows=24"
        sock = served.connect(address)
        with connect(url, sock=sock, origin=CORS) as web_socket:  # type: ignore[arg-type]
            web_socket.send("hello")
            assert web_socket.recv() == "hello"
        bad = served.ticket(ECHO, address=address)
        assert served.upgrade(f"/v1/wecho/ws?ticket={bad}", address=address) == 401
        assert served.upgrade(f"{ECHO}?ticket={WRITE}", f"Authorization: Bearer {WRITE}\r\n") == 401
        with served.client(READ, address) as client:
            client.get("/v1/status")
            client.get("/v1/nosuch")
    for record in caplog.records:
        # the test's own client is a library too, and logs what it sends
        if not record.name.startswith("websockets.client"):
            text = record.getMessage() + repr(record.args)
            assert not [secret for secret in (ticket, bad, READ, WRITE) if secret in text], record
