# SPDX-License-Identifier: GPL-2.0-or-later
"""What passes between a browser and an engine that may be hostile, and what does not: an engine that a test speaks for."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.api.engine_calls import ENGINE_CALLS
from agent.api.engine_requests import for_readers
from agent.errors import EngineError
from agent.model.identity import ID
from tests.support.controller import Controller, serving
from tests.support.scripted_engine import ScriptedEngine, until_gone
from tests.support.tcp import READ, WRITE, TcpController
from tests.test_running_agent import wait_for

INSPECT = {
    "Id": "c1",
    "Config": {"Env": ["PASSWORD=S3CRET-1", "EMPTY=", "BARE"], "Tty": False},
    "Spec": {"TaskTemplate": {"ContainerSpec": {"Env": ["TOKEN=S3CRET-2"]}}},
}
HOSTILE = (
    "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nContent-Type: text/html; charset=utf-8\r\nSet-Cookie: sysauth_http=x\r\n"
    "Location: http://evil/\r\nServer: evil\r\nAccess-Control-Allow-Origin: *\r\nContent-Encoding: gzip\r\n"
    "Content-Security-Policy: none\r\nLink: <http://evil/>\r\nApi-Version: 1.47\r\n\r\n<html>"
)

Answer = Callable[[bytes], bytes]


def as_json(body: object, status: str = "200 OK") -> bytes:
    data = json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


class Scripted:
    """An engine whose answer a test chooses, and the application before it."""

    def __init__(self, folder: Path) -> None:
        self.answer = as_json({})
        self.engine = ScriptedEngine(folder / "engine.sock", self._speak)

    def _speak(self, connection: socket.socket, head: bytes) -> None:
        if head.startswith(b"GET /networks "):  # the access check asks which subnets are docker's
            connection.sendall(as_json([]))
            return
        connection.sendall(self.answer)

    @property
    def heads(self) -> list[str]:
        return [head.decode() for head in self.engine.heads if not head.startswith(b"GET /networks ")]


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[Scripted]:
    made = Scripted(tmp_path)
    yield made
    made.engine.close()


@pytest.fixture
def root(scripted: Scripted, tmp_path: Path) -> Iterator[Controller]:
    with serving(tmp_path, scripted.engine.url) as made:
        yield made


@pytest.mark.parametrize(
    "kind", ["application/json", "application/jsonl", "application/x-ndjson; charset=utf-8"]
)
def test_types_that_the_engine_streams_json_with_pass(
    scripted: Scripted, root: Controller, kind: str
) -> None:
    body = b'{"a":1}\n'
    scripted.answer = (
        f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    )
    answer = root.client.get("/docker/containers/x/logs?stdout=1")
    assert (answer.headers["content-type"], answer.content) == (kind, body)


def test_headers_of_the_engine_pass_by_allow_list(scripted: Scripted, root: Controller) -> None:
    scripted.answer = HOSTILE.encode()
    answer = root.client.get("/docker/containers/x/logs?stdout=1")
    assert answer.content == b"<html>"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["api-version"] == "1.47"
    assert "sandbox" in answer.headers["content-security-policy"]
    for name in (
        "set-cookie",
        "location",
        "server",
        "access-control-allow-origin",
        "link",
        "content-encoding",
    ):
        assert name not in answer.headers


def test_headers_of_the_client_pass_by_allow_list(scripted: Scripted, root: Controller) -> None:
    headers = {
        "authorization": f"Bearer {WRITE}",
        "cookie": "sysauth_http=x",
        "x-forwarded-for": "1.2.3.4",
        "x-registry-auth": "e30=",
        "content-type": "application/json",
        "expect": "",
    }
    root.client.post("/docker/images/create", params={"fromImage": "a/b", "tag": "1"}, headers=headers)
    head = scripted.heads[0].lower()
    assert head.startswith("post /images/create?fromimage=a%2fb&tag=1 http/1.1\r\n")
    assert "x-registry-auth: e30=" in head and "content-type: application/json" in head
    for name in ("authorization", "cookie", "x-forwarded-for", "expect", "localhost"):
        assert name not in head


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ("GET /docker/containers/json?all=1&filters=%7B%22a%22%3A%5B%22%26%23%22%5D%7D", None),
        ("GET /docker/images/a%2Fb%3A1/json", "GET /images/a/b:1/json "),
        ("GET /docker/volumes/v1.47", "GET /volumes/v1.47 "),
        ("GET /docker/volumes/x/json", ""),
        ("HEAD /docker/_ping", "HEAD /_ping "),
    ],
)
def test_the_engine_gets_a_request_line_built_anew(
    scripted: Scripted, root: Controller, asked: str, sent: str | None
) -> None:
    root.raw(f"{asked} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    wanted = asked.replace("/docker", "") + " " if sent is None else sent
    assert [head.split("HTTP/")[0] for head in scripted.heads] == ([wanted] if wanted else [])


GETS = tuple(call.path for call in ENGINE_CALLS if call.verb == "GET")
NAMES = ("a", "json", "get", "b:1", "a/b", "v1.41", "registry.lan:5000/x/y", "a" * 64)
ODD = (
    "..",
    ".",
    "",
    "%2e%2e",
    "%252e",
    "%2F",
    "%00",
    "%0d%0aX:y",
    ";x",
    "a%20b",
    "%c3%a9",
    "%3fall=1",
    "@x",
    "-x",
)


@st.composite
def targets(draw: st.DrawFn) -> str:
    """A route of the table with anything for its names, and sometimes more in between."""
    words = st.sampled_from(NAMES) | st.sampled_from(ODD)
    path = re.sub(r"\{\w+\}", lambda _: draw(words), draw(st.sampled_from(GETS)))
    version = draw(st.sampled_from(("", "/v1.41", "/v1.999", "/v../v1.41")))
    parts = (version + path).split("/")
    if draw(st.integers(0, 3)) == 0:
        parts.insert(draw(st.integers(0, len(parts))), draw(st.sampled_from(ODD)))
    return "/docker" + "/".join(parts)


def _request_lines() -> re.Pattern[str]:
    """What may reach the engine, as one pattern made from the table."""
    image = r"(?:[A-Za-z0-9][A-Za-z0-9_.:-]*/)*[A-Za-z0-9][A-Za-z0-9_.:@-]*"
    parts = {"id": rf"{ID}(?:/{ID})*", "image": image, "network": r"[A-Za-z0-9_.~%-]+"}
    paths = "|".join(re.sub(r"\{(\w+)\}", lambda found: parts[found[1]], path) for path in GETS)
    return re.compile(rf"GET (/v1\.\d+)?({paths}) HTTP/1\.1")


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(targets())
def test_whatever_the_path_the_engine_sees_routes_of_the_table_only(
    scripted: Scripted, root: Controller, target: str
) -> None:
    scripted.answer = as_json({"ApiVersion": "1.47", "MinAPIVersion": "1.24"})
    answer = root.raw(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 400 ", b"HTTP/1.1 404 ", b"HTTP/1.1 405 "))
    allowed = _request_lines()
    for head in scripted.heads:
        line = head.split("\r\n")[0]
        assert allowed.fullmatch(line) and ".." not in line, line
    scripted.engine.heads.clear()


def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one(scripted: Scripted, root: Controller) -> None:
    scripted.answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-tar\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
    with pytest.raises(httpx.RemoteProtocolError):
        root.client.get("/docker/containers/x/export")


def test_an_engine_that_is_away_is_told_in_both_forms(scripted: Scripted, root: Controller) -> None:
    scripted.answer = b""
    answer = root.client.get("/docker/containers/json")
    assert answer.status_code == 503
    assert answer.json()["message"] == answer.json()["error"]["message"] != ""


def test_a_manual_action_that_the_engine_never_answered_is_taken_back(
    scripted: Scripted, root: Controller
) -> None:
    scripted.answer = b""
    assert root.client.post("/docker/containers/web/stop").status_code == 503
    assert root.agent.manual_actions == ["stop", "stop failed"]


def test_a_client_that_leaves_before_the_answer_ends_the_engines_work(
    scripted: Scripted, root: Controller
) -> None:
    scripted.engine._script = until_gone(b"")
    for request in (
        "GET /docker/images/get?names=x HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "POST /docker/build HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc",
    ):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(root.path))
            client.sendall(request.encode())
            wait_for(lambda: scripted.engine.open == 1)
        scripted.engine.wait_closed()


@pytest.fixture
def tcp(scripted: Scripted, tmp_path: Path) -> Iterator[TcpController]:
    made = TcpController(scripted.engine, tmp_path)
    made.want("127.0.0.1:0")
    yield made
    made.close()


@pytest.mark.parametrize(
    "path",
    ["/docker/containers/c1/json", "/docker/services/s1", "/docker/tasks", "/docker/images/a/json"],
)
def test_readers_get_no_values_of_environment_variables(
    scripted: Scripted, tcp: TcpController, path: str
) -> None:
    scripted.answer = as_json(INSPECT)
    with tcp.client(READ) as reader, tcp.client(WRITE) as writer:
        seen = reader.get(path)
        assert seen.status_code == 200 and "S3CRET" not in seen.text
        assert seen.json()["Config"]["Env"] == ["PASSWORD=***", "EMPTY=***", "BARE"]
        assert writer.get(path).json() == INSPECT
        scripted.answer = as_json({"message": "no such thing"}, "404 Not Found")
        gone = reader.get(path)
        assert (gone.status_code, gone.json()) == (404, {"message": "no such thing"})


def test_what_a_reader_may_not_see_whole_is_bounded(scripted: Scripted, tcp: TcpController) -> None:
    deep = b"[" * 3000 + b"]" * 3000
    scripted.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(deep) + deep
    with tcp.client(READ) as reader:
        assert reader.get("/docker/containers/c1/json").status_code == 503


def test_a_reader_may_not_have_ps_show_the_environment(scripted: Scripted, tcp: TcpController) -> None:
    with tcp.client(READ) as reader, tcp.client(WRITE) as writer:
        assert reader.get("/docker/containers/c1/top", params={"ps_args": "auxe"}).status_code == 403
        assert scripted.heads == []
        assert reader.get("/docker/containers/c1/top", params={"ps_args": "-ef"}).status_code == 200
        assert writer.get("/docker/containers/c1/top", params={"ps_args": "auxe"}).status_code == 200


NONSENSE = {
    "a list": b"[]",
    "a word": b'"x"',
    "nothing": b"null",
    "an empty object": b"{}",
    "something else inside": b'{"Config": [], "Id": "../x", "Version": 5, "ApiVersion": [], "MinAPIVersion": "a"}',
    "nested too deeply": b'{"Config": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}
ASKING = {
    "logs": ("GET", "/v1/containers/x/logs", {}),
    "a console": ("POST", "/v1/containers/x/exec", {"json": {"command": ["sh"]}}),
    "a version": ("GET", "/docker/v1.41/containers/json", {}),
}


@pytest.mark.parametrize("asking", ASKING.values(), ids=ASKING.keys())
@pytest.mark.parametrize("body", NONSENSE.values(), ids=NONSENSE.keys())
def test_an_engine_that_talks_nonsense_is_no_defect_of_ours(
    scripted: Scripted,
    root: Controller,
    caplog: pytest.LogCaptureFixture,
    body: bytes,
    asking: tuple[str, str, dict[str, object]],
) -> None:
    scripted.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    method, path, more = asking
    answer = root.client.request(method, path, **more)
    assert answer.status_code == 503, answer.text
    assert answer.json()["error"]["code"] == "engine-invalid"
    assert "Traceback" not in caplog.text


def test_what_is_nested_too_deeply_to_be_masked_is_refused() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(EngineError, match="nested too deeply"):
        for_readers(deep)
