# SPDX-License-Identifier: GPL-2.0-or-later
"""Large bodies that go past the event loop: the connection is in order afterwards, however the body ended.

The engine is one that a test speaks for: it notes what it got of a body, and answers when it is told to.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import PlainTextResponse

from agent.api.access import uvicorn_compat
from agent.engine import body_pump
from agent.engine.stream import DockerStream
from agent.wire.http_head import LAST, encode_chunk
from tests.support.controller import Controller, QuietAgent, read_all, serving, sse_events
from tests.support.scripted_engine import ScriptedEngine

MIB = 1024 * 1024
BODY = os.urandom(4096) * 1024  # 4 MiB
LOAD = "POST /docker/images/load HTTP/1.1\r\nHost: x\r\n{more}Content-Length: {size}\r\n\r\n"
NEXT = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
VERSION = OK.replace(b"Length: 2", b"Length: 23").replace(b"{}", b'{"Version": "20.10.24"}')
REFUSED = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 17\r\n\r\n" + b'{"message": "no"}'


class Engine:
    """`patience`: how many bytes of a body it takes before it refuses; `exported`: what an export sends after its head."""

    def __init__(self, folder: Path) -> None:
        self.patience: int | None = None
        self.exported = b""
        self.got = bytearray()
        self.left = threading.Event()  # its client went away in the middle of a body
        self.fake = ScriptedEngine(folder / "engine.sock", self._speak)

    def _speak(self, connection: socket.socket, head: bytes) -> None:
        head, _, begun = head.partition(b"\r\n\r\n")
        if head.startswith(b"GET /version "):
            connection.sendall(VERSION)
            return
        if head.startswith(b"GET "):
            with contextlib.suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-tar\r\n" + self.exported)
                while connection.recv(65536):
                    pass
            self.left.set()
            return
        found = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        assert found is not None, "what has a length here has one there"
        self.got = bytearray(begun)
        while len(self.got) < int(found[1]):
            if self.patience is not None and len(self.got) >= self.patience:
                connection.sendall(REFUSED)
                return
            piece = connection.recv(65536)
            if not piece:
                self.left.set()
                return
            self.got += piece
        connection.sendall(OK)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = Engine(tmp_path)
    yield made
    made.fake.close()


@pytest.fixture
def controller(engine: Engine, tmp_path: Path) -> Iterator[Controller]:
    with serving(tmp_path, engine.fake.url) as made:
        yield made


@pytest.fixture
def pumps(monkeypatch: pytest.MonkeyPatch) -> list[body_pump.Pump]:
    """Those that have ended."""
    ended: list[body_pump.Pump] = []
    run = body_pump.Pump.run

    def noted(self: body_pump.Pump) -> None:
        try:
            run(self)
        finally:
            ended.append(self)

    monkeypatch.setattr(body_pump.Pump, "run", noted)
    return ended


@contextlib.contextmanager
def connected(controller: Controller) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(controller.path))
        yield client


def load(size: int = len(BODY), more: str = "") -> bytes:
    return LOAD.format(size=size, more=more).encode()


def answers(data: bytes) -> list[int]:
    """The statuses of all answers."""
    return [int(number) for number in re.findall(rb"HTTP/1\.1 (\d\d\d) ", data)]


def test_a_large_body_comes_whole_and_the_requests_behind_it_are_answered(
    engine: Engine, controller: Controller, pumps: list[body_pump.Pump]
) -> None:
    with connected(controller) as client:
        # in one go: what follows the body is read with its end
        threading.Thread(target=client.sendall, args=(load() + BODY + load(3) + b"abc" + NEXT,)).start()
        seen = read_all(client)
    assert answers(seen) == [200, 200, 200]
    assert bytes(engine.got) == b"abc"
    assert [pump.moved > len(BODY) - MIB for pump in pumps] == [True]


def test_its_bytes_are_not_changed(
    engine: Engine, controller: Controller, pumps: list[body_pump.Pump]
) -> None:
    for size in (len(BODY), len(BODY) - 1, body_pump.LEAST + 65536 + 1):
        assert controller.client.post("/docker/images/load", content=BODY[:size]).status_code == 200
        assert engine.got == BODY[:size]
    assert pumps


UPLOADS = {
    "the engine's load": ("POST", "/docker/images/load"),
    "the engine's build": ("POST", "/docker/build"),
    "the engine's archive": ("PUT", "/docker/containers/x/archive?path=/"),
    "load": ("PUT", "/v1/images/load"),
    "build": ("PUT", "/v1/builds?t=x:1"),
    "archive": ("PUT", "/v1/containers/x/archive?path=/"),
}


@pytest.mark.parametrize(("method", "path"), UPLOADS.values(), ids=UPLOADS.keys())
def test_every_large_file_that_comes_in_is_passed_on_as_it_was(
    engine: Engine, controller: Controller, pumps: list[body_pump.Pump], method: str, path: str
) -> None:
    tar = bytes(1024) + BODY  # the engine of this version gets plain tar only
    answer = controller.client.request(method, path, content=tar)
    assert answer.is_success
    if "job" in answer.text:
        job = answer.json()["job"]["id"]
        assert follow(controller, job, lambda seen: False)["state"] == "succeeded"
    assert engine.got == tar
    assert [pump.moved > len(tar) - MIB for pump in pumps] == [True]


def follow(controller: Controller, job: str, enough: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The job, once it is over or shows `enough`."""
    with controller.client.stream("GET", f"/v1/jobs/{job}/stream") as stream:
        seen: dict[str, Any] = {}
        for name, data, _ in sse_events(stream.iter_lines()):
            seen = data if name == "job" else seen
            if seen and enough(seen):
                break
        return seen


def test_a_job_tells_how_far_its_file_is_and_fails_when_the_client_goes(
    engine: Engine, controller: Controller, pumps: list[body_pump.Pump]
) -> None:
    with connected(controller) as client:
        client.sendall(b"PUT /v1/images/load HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(BODY))
        client.sendall(BODY[: 3 * MIB])
        (job,) = [job["id"] for job in controller.client.get("/v1/jobs").json()["jobs"]]
        half = follow(controller, job, lambda seen: bool(seen["progress"]["bytes_done"] == 3 * MIB))
        assert (half["state"], half["progress"]["bytes_total"]) == ("running", len(BODY))
    over = follow(controller, job, lambda seen: False)
    assert over["state"] == "failed"
    assert "client disconnected" in over["error"]["message"]
    engine.fake.wait_closed()
    assert len(pumps) == 1


def test_a_job_that_is_cancelled_lets_go_of_the_rest_of_its_file(
    engine: Engine, controller: Controller, pumps: list[body_pump.Pump]
) -> None:
    with connected(controller) as client:
        client.sendall(b"PUT /v1/images/load HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(BODY))
        client.sendall(BODY[:MIB])
        (job,) = [job["id"] for job in controller.client.get("/v1/jobs").json()["jobs"]]
        follow(controller, job, lambda seen: bool(seen["progress"]["bytes_done"]))
        assert controller.client.delete(f"/v1/jobs/{job}").json()["job"]["state"] == "cancelled"
        engine.fake.wait_closed()
        threading.Thread(target=client.sendall, args=(BODY[MIB:] + NEXT,)).start()
        seen = read_all(client)
    assert answers(seen) == [202, 200]
    assert len(pumps) == 1


def test_who_waits_for_100_continue_gets_it(
    engine: Engine, controller: Controller, pumps: list[body_pump.Pump]
) -> None:
    with connected(controller) as client:
        client.sendall(load(more="Expect: 100-continue\r\n"))
        assert client.recv(100).startswith(b"HTTP/1.1 100 ")
        threading.Thread(target=client.sendall, args=(BODY + NEXT,)).start()
        seen = read_all(client)
    assert answers(seen) == [200, 200]
    assert engine.got == BODY
    assert len(pumps) == 1


def test_a_body_that_the_engine_refuses_half_way_is_dropped_and_not_taken_for_a_request(
    engine: Engine, controller: Controller, pumps: list[body_pump.Pump]
) -> None:
    engine.patience = MIB
    poison = b"POST /v1/reconcile HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n" * (len(BODY) // 64)
    with connected(controller) as client:
        threading.Thread(target=client.sendall, args=(load(len(poison)) + poison + NEXT,)).start()
        seen = read_all(client)
    assert answers(seen) == [400, 200], "the engine's answer, and the one to the next request"
    assert b'{"message": "no"}' in seen
    assert len(pumps) == 1


def test_a_client_that_goes_ends_the_request_to_the_engine(
    engine: Engine, controller: Controller, pumps: list[body_pump.Pump]
) -> None:
    with connected(controller) as client:
        client.sendall(load() + BODY[: 2 * MIB])
    assert engine.left.wait(10)
    engine.fake.wait_closed()
    assert len(pumps) == 1


def export(engine: Engine, controller: Controller, exported: bytes, version: str = "1.1") -> bytes:
    engine.exported = exported
    with connected(controller) as client:
        client.sendall(f"GET /v1/containers/x/export HTTP/{version}\r\nHost: x\r\n\r\n".encode())
        return read_all(client) if version == "1.0" else read_to(client, LAST)


def read_to(client: socket.socket, end: bytes) -> bytes:
    """Until what came ends with `end`, or the connection does."""
    found = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while not found.endswith(end) and (piece := client.recv(65536)):
            found += piece
    return bytes(found)


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(encode_chunk(BODY[:MIB]) for _ in range(4))
COUNTED = b"Content-Length: %d\r\n\r\n" % len(BODY)


def test_a_download_comes_whole_however_it_is_framed(
    engine: Engine, controller: Controller, pumps: list[body_pump.Pump]
) -> None:
    engine.exported = CHUNKED + LAST
    for _ in range(2):  # the connection is kept
        assert controller.client.get("/v1/containers/x/export").content == BODY[:MIB] * 4
    engine.exported = COUNTED + BODY
    for _ in range(2):
        assert controller.client.get("/docker/containers/x/export").content == BODY
    seen = export(engine, controller, CHUNKED + LAST, version="1.0")
    assert seen.partition(b"\r\n\r\n")[2] == BODY[:MIB] * 4, "an old client knows no chunks"
    assert len(pumps) == 5


@pytest.mark.parametrize(
    "exported",
    [CHUNKED, CHUNKED + b"nonsense", COUNTED + BODY[:-1]],
    ids=["no last chunk", "no chunk", "a byte is missing"],
)
def test_a_download_that_breaks_off_does_not_look_complete(
    engine: Engine, controller: Controller, pumps: list[body_pump.Pump], exported: bytes
) -> None:
    def cut(connection: socket.socket, head: bytes) -> None:
        del head
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + exported)

    engine.fake._script = cut
    with connected(controller) as client:
        client.sendall(b"GET /docker/containers/x/export HTTP/1.1\r\nHost: x\r\n\r\n")
        seen = read_all(client)
    assert not seen.endswith(LAST)
    body = seen.partition(b"\r\n\r\n")[2]
    assert exported.startswith(CHUNKED) or len(body) < len(BODY)
    assert len(pumps) == 1


def test_a_client_that_leaves_a_download_ends_it_in_the_engine(
    engine: Engine, controller: Controller, pumps: list[body_pump.Pump]
) -> None:
    engine.exported = CHUNKED  # and then silence
    with connected(controller) as client:
        client.sendall(b"GET /v1/containers/x/export HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(1000)
    assert engine.left.wait(10)
    assert len(pumps) == 1


def test_more_of_them_than_there_are_threads_for_come_whole_too(
    engine: Engine, controller: Controller, pumps: list[body_pump.Pump], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_pump, "THREADS", 0)
    engine.exported = CHUNKED + LAST
    assert controller.client.get("/v1/containers/x/export").content == BODY[:MIB] * 4
    assert controller.client.post("/docker/images/load", content=BODY).status_code == 200
    assert engine.got == BODY
    assert pumps == []


def test_this_uvicorn_has_all_that_lending_needs(tmp_path: Path) -> None:
    """Where it fails after an update: mend `uvicorn_compat` for the new one, or bodies of gigabytes get slow."""
    found: list[tuple[str, ...]] = []

    def app(agent: QuietAgent, stream: DockerStream) -> Any:
        async def answer(scope: Any, receive: Any, send: Any) -> None:
            found.append(uvicorn_compat.missing(scope["state"]["connection"]))
            await PlainTextResponse("fine")(scope, receive, send)

        return answer

    with serving(tmp_path, "unix:///nowhere", app=app):
        assert set(found) == {()}


def test_with_a_uvicorn_that_lacks_something_bodies_go_through_the_loop(
    engine: Engine,
    controller: Controller,
    pumps: list[body_pump.Pump],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(uvicorn_compat, "NEEDED", (*uvicorn_compat.NEEDED, "cycle.no_more", "no.way"))
    engine.exported = COUNTED + BODY
    for _ in range(2):
        assert controller.client.get("/v1/containers/x/export").content == BODY
        assert controller.client.post("/docker/images/load", content=BODY).status_code == 200
        assert engine.got == BODY
    assert pumps == []
    assert [record.message for record in caplog.records if "uvicorn" in record.message] == [
        "this uvicorn has no cycle.no_more, no.way: large bodies go through the event loop, slower"
    ]
