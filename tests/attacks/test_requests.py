# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests that two readers could understand in two ways: on the control socket and on TCP, with a writer's session.

With the session nothing but the form of the request is in the way; the engine must not hear of it.
"""

from __future__ import annotations

import posixpath
import re
import socket
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.http_head import path_problem
from tests.support.tcp import WRITE, TcpController, head_of

HOST = b"Host: router\r\n"
AUTH = b"Authorization: Bearer " + WRITE.encode() + b"\r\n"
INNER = b"POST /v1/reconcile HTTP/1.1\r\n" + HOST + AUTH + b"Content-Length: 0\r\n\r\n"

SMUGGLED = {
    "length and chunks": b"POST / HTTP/1.1\r\n%sContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\n%sContent-Length: 0\r\nContent-Length: 44\r\n\r\n",
    "the same length twice": b"POST / HTTP/1.1\r\n%sContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "a list of lengths": b"POST / HTTP/1.1\r\n%sContent-Length: 0, 44\r\n\r\n",
    "a signed length": b"POST / HTTP/1.1\r\n%sContent-Length: +0\r\n\r\n",
    "a negative length": b"POST / HTTP/1.1\r\n%sContent-Length: -1\r\n\r\n",
    "a hexadecimal length": b"POST / HTTP/1.1\r\n%sContent-Length: 0x0\r\n\r\n",
    "an endless length": b"POST / HTTP/1.1\r\n%sContent-Length: " + b"9" * 30 + b"\r\n\r\n",
    "xchunked": b"POST / HTTP/1.1\r\n%sTransfer-Encoding: xchunked\r\n\r\n",
    "chunked and more": b"POST / HTTP/1.1\r\n%sTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "gzip": b"POST / HTTP/1.1\r\n%sTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a quoted coding": b'POST / HTTP/1.1\r\n%sTransfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "a coding twice": b"POST / HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
    "a space before the colon": b"POST / HTTP/1.1\r\n%sTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a folded coding": b"POST / HTTP/1.1\r\n%sTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a folded header": b"POST / HTTP/1.1\r\n%sX-A: b\r\n\tc\r\nContent-Length: 0\r\n\r\n",
    "a leading space": b"POST / HTTP/1.1\r\n Host: x\r\n%sContent-Length: 0\r\n\r\n",
    "bare line feeds": b"POST / HTTP/1.1\n%sContent-Length: 0\n\n",
    "one bare line feed": b"POST / HTTP/1.1\r\n%sX-A: b\nContent-Length: 44\r\n\r\n",
    "a bare return": b"POST / HTTP/1.1\r\n%sX-A: b\rContent-Length: 44\r\n\r\n",
    "a NUL in a value": b"POST / HTTP/1.1\r\n%sX-A: b\x00c\r\nContent-Length: 0\r\n\r\n",
    "a NUL in a name": b"POST / HTTP/1.1\r\n%sX-\x00: b\r\nContent-Length: 0\r\n\r\n",
    "no name": b"POST / HTTP/1.1\r\n%s: b\r\nContent-Length: 0\r\n\r\n",
    "no colon": b"POST / HTTP/1.1\r\n%sX-A\r\nContent-Length: 0\r\n\r\n",
    "an empty line first": b"\r\nPOST / HTTP/1.1\r\n%sContent-Length: 0\r\n\r\n",
    "a doubled version": b"POST / HTTP/1.1 HTTP/1.1\r\n%sContent-Length: 0\r\n\r\n",
    "a space after the version": b"POST / HTTP/1.1 \r\n%sContent-Length: 0\r\n\r\n",
    "two spaces": b"POST  / HTTP/1.1\r\n%sContent-Length: 0\r\n\r\n",
    "a tab for a space": b"POST\t/\tHTTP/1.1\r\n%sContent-Length: 0\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/1.2": b"POST / HTTP/1.2\r\n%sContent-Length: 0\r\n\r\n",
    "an absolute target": b"POST http://router/ HTTP/1.1\r\n%sContent-Length: 0\r\n\r\n",
    "CONNECT": b"CONNECT router:80 HTTP/1.1\r\n%s\r\n",
    "a star": b"OPTIONS * HTTP/1.1\r\n%s\r\n",
    "TRACE": b"TRACE / HTTP/1.1\r\n%s\r\n",
    "TLS": b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n",
}
# h11 finds out about these once the head is read
CHUNKS = {
    "no size": b"\r\n\r\n",
    "a negative size": b"-1\r\n\r\n",
    "a size with 0x": b"0x0\r\n\r\n",
    "a bare line feed": b"0\n\n",
    "a size of 21 digits": b"1" * 21 + b"\r\n",
}
PATHS = {
    "dots": b"/v1/../v1/status",
    "dots, encoded": b"/v1/%2e%2e/v1/status",
    "dots, half encoded": b"/v1/.%2E/v1/status",
    "dots, encoded twice": b"/v1/%252e%252e/v1/status",
    "a dot": b"/./v1/status",
    "dots at the end": b"/v1/containers/..",
    "dots after an encoded slash": b"/v1/containers/..%2fversion%3f/logs",
    "two slashes": b"//v1/status",
    "two slashes inside": b"/v1//status",
    "an encoded slash beside a slash": b"/v1/%2fstatus",
    "a parameter": b"/v1/status;x=1",
    "a backslash": b"/v1\\status",
    "an encoded backslash": b"/v1/%5cstatus",
    "NUL": b"/v1/containers/web%00/logs",
    "a line break": b"/v1/containers/web%0d%0aX-A:%20b/logs",
    "an encoded question mark": b"/v1/containers/web%3ffollow=1/logs",
    "an encoded number sign": b"/v1/status%23",
    "a number sign": b"/v1/status#x",
    "a space": b"/v1/containers/web%20x/logs",
    "a wide character": b"/v1/containers/%e2%80%ae/logs",
    "bytes that are no text": b"/v1/containers/%ff%fe/logs",
    "an overlong dot": b"/v1/%c0%ae%c0%ae/status",
    "a lone percent sign": b"/v1/%/status",
    "percent and one digit": b"/v1/%2/status",
    "percent and no digits": b"/v1/%zz/status",
}


@pytest.fixture(params=["control", "tcp"])
def ask(request: pytest.FixtureRequest, served: TcpController) -> Callable[[bytes], bytes]:
    """Sends bytes by one of the doors; everything until the server closes."""
    return served.control.raw if request.param == "control" else served.raw


@pytest.mark.parametrize("case", SMUGGLED)
def test_an_ambiguous_request_is_refused_and_what_follows_it_is_never_run(
    served: TcpController, ask: Callable[[bytes], bytes], case: str
) -> None:
    before = len(served.asked())
    data = SMUGGLED[case]
    answer = ask((data % (HOST + AUTH) if b"%s" in data else data) + INNER)
    assert _statuses(answer) == [b"400"], answer
    assert len(served.asked()) == before


@pytest.mark.parametrize("case", CHUNKS)
def test_a_broken_chunk_ends_the_connection(
    served: TcpController, ask: Callable[[bytes], bytes], case: str
) -> None:
    before = len(served.asked())
    head = b"PUT /v1/containers/web/archive?path=/ HTTP/1.1\r\n" + HOST + AUTH
    answer = ask(head + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS[case] + INNER)
    assert b" 200 " not in answer and b" 204 " not in answer, answer
    assert [line for line in served.asked()[before:] if line.startswith(b"PUT")] == []


@pytest.mark.parametrize("case", PATHS)
def test_a_path_with_two_readings_is_refused(
    served: TcpController, ask: Callable[[bytes], bytes], case: str
) -> None:
    before = len(served.asked())
    answer = ask(b"GET " + PATHS[case] + b" HTTP/1.1\r\nConnection: close\r\n" + HOST + AUTH + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert len(served.asked()) == before


@pytest.mark.parametrize(
    "path",
    [b"/", b"/v1/status", b"/docker/v1.47/images/a%2Fb:1/json", b"/docker/images/a/b@sha256:0/json", b"/v1/"],
)
def test_plain_paths_pass(path: bytes) -> None:
    assert path_problem(path) is None


@given(
    st.lists(
        st.sampled_from(
            [b"/", b".", b"%2e", b"%2F", b"%25", b"2e", b"a", b"%00", b"%c3%a9", b"\\", b";", b"%3b"]
        )
    )
)
def test_a_path_that_passes_means_the_same_however_often_it_is_decoded_or_tidied(parts: list[bytes]) -> None:
    raw = b"/" + b"".join(parts)
    once = unquote_to_bytes(raw)
    if path_problem(raw) is None:
        assert unquote_to_bytes(once) == once
        assert posixpath.normpath(once) == (once.rstrip(b"/") or b"/")
        assert once.isascii() and not set(once) & set(b"\\;?#%\0\r\n ")


@pytest.mark.parametrize(
    "query",
    [
        b"since=%0d%0aX-A:%20b",
        b"since=1%00",
        b"tail=all&tail=%0a",
        b"since=1&evil=1",
        b"filters=%00",
        b"since=\xff",
    ],
)
def test_control_characters_and_unknown_names_in_a_query_are_refused(
    served: TcpController, ask: Callable[[bytes], bytes], query: bytes
) -> None:
    before = len(served.asked())
    target = b"/v1/events?" if query.startswith(b"filters") else b"/v1/containers/web/logs?"
    answer = ask(b"GET " + target + query + b" HTTP/1.1\r\nConnection: close\r\n" + HOST + AUTH + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert len(served.asked()) == before


@pytest.mark.parametrize(
    "name", ["-v", ".hidden", "a" * 256, "web%40x", "we%22b", "%24(reboot)", "a" * 15000]
)
def test_what_is_no_id_does_not_reach_the_engine(
    served: TcpController, ask: Callable[[bytes], bytes], name: str
) -> None:
    before = len(served.asked())
    request = (
        f"GET /v1/containers/{name}/logs HTTP/1.1\r\nConnection: close\r\n".encode() + HOST + AUTH + b"\r\n"
    )
    assert ask(request).startswith(b"HTTP/1.1 400 ")
    assert len(served.asked()) == before


@pytest.mark.parametrize("upgrade", [b"tcp", b"h2c", b"websocket", b"TLS/1.3"])
def test_what_is_sent_behind_an_upgrade_that_is_not_made_is_a_request_like_others(
    served: TcpController, upgrade: bytes
) -> None:
    head = b"POST /v1/status HTTP/1.1\r\n" + HOST + b"Upgrade: " + upgrade + b"\r\nConnection: Upgrade\r\n"
    with served.connect() as made:
        made.sendall(head + b"Content-Length: 0\r\n\r\n" + INNER.replace(AUTH, b""))
        made.shutdown(socket.SHUT_WR)
        answer = head_of(made)
        while piece := made.recv(65536):
            answer += piece
    assert set(_statuses(answer)) <= {b"401", b"400"} and _statuses(answer), answer


def test_pipelined_requests_are_each_asked_for_their_session(served: TcpController) -> None:
    first = b"GET /v1/status HTTP/1.1\r\n" + HOST + AUTH + b"\r\n"
    second = b"GET /v1/status HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n"
    assert _statuses(served.raw(first + second)) == [b"200", b"401"]


def _statuses(answer: bytes) -> list[bytes]:
    return re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", answer)
