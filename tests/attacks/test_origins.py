# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages in the admin's browser: forms of Origin and Host, preflights, and what each answer forbids the browser."""

from __future__ import annotations

import pytest

from tests.support.tcp import CORS, READ, UPGRADE, WRITE, TcpController, new_client

FOREIGN = [
    "null",
    "",
    "*",
    "https://evil.example",
    "http://router.lan",
    "https://router.lan:443",
    "https://router.lan:8443",
    "https://router.lan.",
    "https://router.lan/",
    "https://router.lan.evil.example",
    "https://evil.example/https://router.lan",
    "https://evil.example#https://router.lan",
    "https://evil.example?https://router.lan",
    "https://evil.example\\@router.lan",
    "https://router.lan@evil.example",
    "https://user@router.lan",
    "https://ROUTER.LAN",
    "HTTPS://router.lan",
    "https://router",
    "https://xrouter.lan",
    "https://router.lan https://evil.example",
    "https://router.lan,https://evil.example",
    "https://router.lan\x00",
    "https://router.lan\t",
    "//router.lan",
    "router.lan",
    "http://127.0.0.1",
    "http://127.0.0.1:8080",
    "https://127.0.0.1",
    "https://[::1]",
    "https://[fe80::1%25br-lan]",
    "http://localhost",
    "file://",
    "moz-extension://3c078156-979c-498b-8990-85f7987dd929",
    "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
    "app://router.lan",
    "https://xn--rter-6qa.lan",
    "https://rout\xe9r.lan",
]
HOSTS = [
    "evil.example",
    "evil.example:80",
    "1.2.3.4",
    "127.0.0.2",
    "127.0.0.1.evil.example",
    "127.0.0.1.",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "127.0.0.1@evil.example",
    "router@evil.example",
    "evil.example@router",
    "router.",
    "ROUTER.",
    "router.lan.",
    "router.lan.evil.example",
    "xrouter",
    "router:",
    "router:80:80",
    "router:abc",
    "[router]",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "::1",
    "0.0.0.0",
    "[::]",
    "*",
    "router/",
    "router evil.example",
    "router,evil.example",
    "router#",
    "",
]
GOOD_HOSTS = [
    "127.0.0.1",
    "127.0.0.1:1",
    "router",
    "ROUTER",
    "Router.Lan",
    "router.lan:2380",
    "localhost",
    "localhost:99",
]


def get(served: TcpController, headers: str, *, host: str | None = None, path: str = "/v1/status") -> int:
    name = served.host() if host is None else host
    text = f"GET {path} HTTP/1.1\r\nHost: {name}\r\nAuthorization: Bearer {READ}\r\n{headers}\r\n"
    return served.status(text)


@pytest.mark.parametrize("origin", FOREIGN, ids=ascii)
def test_a_page_of_an_origin_that_is_not_listed_gets_nothing(served: TcpController, origin: str) -> None:
    header = f"Origin: {origin}\r\n"
    # white space around a value is not part of it, and a control character is refused before
    expected = {"https://router.lan\t": 200, "https://router.lan\x00": 400}.get(origin, 403)
    assert get(served, header) == expected
    assert get(served, header, path="/healthz") == expected
    address = new_client()
    ticket = served.ticket("/v1/echo/1/ws", address=address)
    seen = served.upgrade(f"/v1/echo/1/ws?ticket={ticket}", header, address=address)
    assert seen == {200: 101}.get(expected, expected)
    ask = f"OPTIONS /v1/status HTTP/1.1\r\nHost: {served.host()}\r\n{header}Access-Control-Request-Method: GET\r\n\r\n"
    assert served.status(ask) == {200: 204}.get(expected, expected)


def test_there_are_no_pages_of_our_own_on_tcp(served: TcpController) -> None:
    for scheme in ("http", "https"):
        assert get(served, f"Origin: {scheme}://{served.host()}\r\n") == 403
        assert get(served, f"Origin: {scheme}://router\r\n", host="router") == 403


@pytest.mark.parametrize("host", HOSTS, ids=ascii)
def test_a_name_that_is_not_ours_is_misdirected_whoever_asks(served: TcpController, host: str) -> None:
    assert get(served, "", host=host) == 421
    assert get(served, f"Origin: {CORS}\r\n", host=host) == 421
    assert get(served, "", host=host, path="/healthz") == 421
    address = new_client()
    ticket = served.ticket("/v1/echo/1/ws", address=address)
    assert served.upgrade(f"/v1/echo/1/ws?ticket={ticket}", address=address, host=host) == 421
    ask = (
        f"OPTIONS / HTTP/1.1\r\nHost: {host}\r\nOrigin: {CORS}\r\nAccess-Control-Request-Method: PUT\r\n\r\n"
    )
    assert served.status(ask) == 421


@pytest.mark.parametrize("host", GOOD_HOSTS)
def test_our_own_names_and_the_address_that_was_called_are_ours(served: TcpController, host: str) -> None:
    assert get(served, "", host=host) == 200


def test_two_hosts_or_none_are_no_request(served: TcpController) -> None:
    bearer = f"Authorization: Bearer {READ}\r\n"
    two = f"GET /v1/status HTTP/1.1\r\nHost: router\r\nHost: evil.example\r\n{bearer}\r\n"
    assert served.status(two) == 400
    assert served.status(f"GET /v1/status HTTP/1.1\r\n{bearer}\r\n") == 400
    assert served.status(f"GET /v1/status HTTP/1.0\r\n{bearer}\r\n") == 421
    assert served.status(f"GET http://router/v1/status HTTP/1.1\r\nHost: router\r\n{bearer}\r\n") == 400


def test_a_listed_origin_may_ask_first_without_a_session(served: TcpController) -> None:
    ask = {
        "origin": CORS,
        "access-control-request-method": "PUT",
        "access-control-request-headers": "authorization",
        "access-control-request-private-network": "true",
    }
    with served.client() as client:
        answer = client.options("/v1/containers/web/archive", headers=ask)
        plain = client.options(
            "/v1/status", headers={k: v for k, v in ask.items() if not k.endswith("private-network")}
        )
    assert answer.status_code == 204
    headers = answer.headers
    assert headers["access-control-allow-origin"] == CORS
    assert headers["access-control-allow-private-network"] == "true"
    assert "PUT" in headers["access-control-allow-methods"]
    assert "authorization" in headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in headers
    assert "access-control-allow-private-network" not in plain.headers


@pytest.mark.parametrize("private", ["", "Access-Control-Request-Private-Network: true\r\n"])
def test_a_foreign_preflight_gets_no_leave(served: TcpController, private: str) -> None:
    answer = served.raw(
        f"OPTIONS /v1/status HTTP/1.1\r\nHost: router\r\nOrigin: https://evil.example\r\nConnection: close\r\n"
        f"Access-Control-Request-Method: GET\r\n{private}\r\n".encode()
    )
    assert answer.startswith(b"HTTP/1.1 403 ") and b"access-control" not in answer.lower()


def test_only_the_listed_origin_is_named_and_caches_are_told(served: TcpController) -> None:
    with served.client(READ) as client:
        listed = client.get("/v1/status", headers={"origin": CORS})
        none = client.get("/v1/status")
        foreign = client.get("/v1/status", headers={"origin": "https://evil.example"})
        refused = client.post("/v1/reconcile", headers={"origin": CORS})
    assert listed.headers["access-control-allow-origin"] == CORS
    assert refused.status_code == 403 and refused.headers["access-control-allow-origin"] == CORS
    for answer in (none, foreign):
        assert not [name for name in answer.headers if name.startswith("access-control")]
    for answer in (listed, none, foreign, refused):
        assert answer.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in answer.headers


def test_every_answer_forbids_framing_sniffing_and_storing(served: TcpController) -> None:
    def requests() -> list[tuple[str, bytes]]:
        host = f"Host: {served.host()}\r\nConnection: close\r\n".encode()
        bearer = f"Authorization: Bearer {WRITE}\r\n".encode()
        return [
            ("200", b"GET /v1/status HTTP/1.1\r\n" + host + bearer + b"\r\n"),
            ("200", b"GET /healthz HTTP/1.1\r\n" + host + b"\r\n"),
            ("401", b"GET /v1/status HTTP/1.1\r\n" + host + b"\r\n"),
            ("404", b"GET /nosuch HTTP/1.1\r\n" + host + bearer + b"\r\n"),
            ("405", b"PUT /v1/status HTTP/1.1\r\n" + host + bearer + b"Content-Length: 0\r\n\r\n"),
            ("421", b"GET /v1/status HTTP/1.1\r\nConnection: close\r\nHost: evil.example\r\n\r\n"),
            ("400", b"GET /../ HTTP/1.1\r\n" + host + b"\r\n"),
            ("400", b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"),
            ("401", b"GET /v1/echo/1/ws HTTP/1.1\r\nHost: router\r\n" + UPGRADE.encode() + b"\r\n"),
        ]

    for status, data in requests():
        answer = served.raw(data).partition(b"\r\n\r\n")[0].decode("latin-1").lower().split("\r\n")
        assert answer[0].split(" ")[1] == status, data
        for line in (
            "x-content-type-options: nosniff",
            "x-frame-options: sameorigin",
            "referrer-policy: no-referrer",
            "cache-control: no-store",
            "cross-origin-resource-policy: same-origin",
            "content-security-policy: default-src 'none'; frame-ancestors 'self'; sandbox",
        ):
            assert answer.count(line) == 1, (status, line)
        assert not [line for line in answer if line.startswith(("server:", "set-cookie:"))]


def test_the_control_socket_refuses_pages_that_a_proxy_lets_through(served: TcpController) -> None:
    client = served.control.client
    for origin, host, expected in (
        ("https://evil.example", "router", 403),
        ("null", "router", 403),
        ("https://router:8443", "router", 403),
        ("https://router", "router", 200),
        ("http://router:8080", "router:8080", 200),
        (CORS, "localhost", 200),
    ):
        answer = client.post("/v1/reconcile", headers={"origin": origin, "host": host})
        assert answer.status_code == expected, origin
    assert client.post("/v1/reconcile", headers={"host": "whatever.a.proxy.says"}).status_code == 200


@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain"]
)
def test_a_form_with_every_cookie_changes_nothing(served: TcpController, kind: str) -> None:
    cookie = f"sysauth_http={WRITE}; sysauth_https={WRITE}; sysauth={WRITE}"
    with served.client() as client:
        for path in ("/v1/reconcile", f"/v1/reconcile?token={WRITE}", f"/v1/reconcile?ticket={WRITE}"):
            answer = client.post(path, content=b'{"a":"b"}', headers={"content-type": kind, "cookie": cookie})
            assert answer.status_code == 401
