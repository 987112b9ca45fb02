# SPDX-License-Identifier: GPL-2.0-or-later
"""An engine that is faulty or hostile: what it sends is bounded, and so is the time that a call takes."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.engine import transport
from agent.engine.client import DockerEngine
from agent.engine.stream import DockerStream
from agent.errors import EngineError, EngineInvalidError, EngineSlowError, EngineUnreachableError
from agent.model.resources import RegistryAuth
from tests.support.scripted_engine import ScriptedEngine

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
LIMIT_S = 0.5


def whole(body: bytes, more: bytes = b"") -> bytes:
    return HEAD + more + b"Content-Length: %d\r\n\r\n" % len(body) + body


VERSION = whole(b'{"ApiVersion": "1.41"}')


class Hostile:
    """Tells its version; everything else is up to `speak`."""

    def __init__(self, path: Path) -> None:
        self.speak: Callable[[socket.socket], None] = lambda connection: None
        self.gone = threading.Event()
        self.fake = ScriptedEngine(path, self._answer)

    def _answer(self, connection: socket.socket, head: bytes) -> None:
        if b" /version " in head:
            connection.sendall(VERSION)
            return
        try:
            self.speak(connection)
        except OSError:
            self.gone.set()

    def sends(self, data: bytes) -> None:
        self.speak = lambda connection: connection.sendall(data)

    def trickles(self, data: bytes, rest: bytes) -> None:
        """`data` at once, then `rest` for ever, a byte at a time: never silent for as long as a call may take."""

        def speak(connection: socket.socket) -> None:
            connection.sendall(data)
            for number in range(10_000):
                connection.sendall(rest[number % len(rest) : number % len(rest) + 1])
                time.sleep(LIMIT_S / 20)

        self.speak = speak

    def floods(self, data: bytes, rest: bytes) -> None:
        """`data`, then `rest` without end."""

        def speak(connection: socket.socket) -> None:
            connection.sendall(data)
            while True:
                connection.sendall(rest)

        self.speak = speak


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[Hostile]:
    made = Hostile(tmp_path / "engine.sock")
    yield made
    made.fake.close()


@pytest.fixture
def engine(hostile: Hostile) -> DockerEngine:
    """It knows the version already: a busy machine may take longer than the limit to say it."""
    made = DockerEngine(hostile.fake.url, timeout_s=20)
    made.ping()
    made._timeout_s = LIMIT_S
    return made


TRICKLES = {
    "the status line": (b"", b"HTTP/1.1 "),
    "the headers": (HEAD, b"X-A: b\r\n"),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a body of a length": (HEAD + b"Content-Length: 100000\r\n\r\n", b" "),
    "a chunk": (HEAD + b"Transfer-Encoding: chunked\r\n\r\nffff\r\n", b" "),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "a body without a length": (HEAD + b"\r\n", b" "),
}


@pytest.mark.parametrize("name", TRICKLES)
def test_a_call_ends_in_time_however_slowly_the_answer_comes(
    hostile: Hostile, engine: DockerEngine, name: str
) -> None:
    hostile.trickles(*TRICKLES[name])
    begun = time.monotonic()
    with pytest.raises(EngineSlowError):
        engine.info()
    assert time.monotonic() - begun < 60 * LIMIT_S, "it would take minutes"
    assert hostile.gone.wait(10), "the connection is closed too"


FLOODS = {
    "a body": (HEAD + b"\r\n", b" " * 65536),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b" " * 65536 + b"\r\n"),
    "headers": (HEAD, b"X-A: b\r\n" * 1000),
    "one header": (HEAD + b"X-A: ", b"b" * 65536),
}


@pytest.mark.parametrize("name", FLOODS)
def test_an_answer_without_end_is_not_collected(hostile: Hostile, name: str) -> None:
    hostile.floods(*FLOODS[name])
    with pytest.raises(EngineUnreachableError):
        DockerEngine(hostile.fake.url, timeout_s=20).info()
    assert hostile.gone.wait(10)


def broken_chunk(name: str) -> bool:
    """urllib3 does not tell it from a connection that broke off, and that is what it is called then."""
    return name in {"less than it says", "no chunk"}


NONSENSE = {
    "nested too deeply": whole(b"[" * 100_000),
    "no UTF-8": whole(b'{"a": "\xff\xfe"}'),
    "no JSON": whole(b"<html>"),
    "a number of too many digits": whole(b'{"a": ' + b"9" * 5000 + b"}"),
    "packed": whole(b"\x1f\x8b\x08\x00" + bytes(20), b"Content-Encoding: gzip\r\n"),
    "a list where an object should be": whole(b"[1]"),
    "less than it says": HEAD + b"Content-Length: 100\r\n\r\n{}",
    "no chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n{}",
    "no HTTP": b"SSH-2.0-OpenSSH\r\n",
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_counts_as_no_answer_and_is_called_what_it_is(
    hostile: Hostile, engine: DockerEngine, name: str
) -> None:
    hostile.sends(NONSENSE[name])
    with pytest.raises(EngineUnreachableError) as caught:
        engine.info()
    assert caught.type is (EngineUnreachableError if broken_chunk(name) else EngineInvalidError)


def test_calls_of_a_thread_share_a_connection_whatever_their_answers_are(tmp_path: Path) -> None:
    opened: list[int] = []

    def script(connection: socket.socket, head: bytes) -> None:
        opened.append(1)
        answers = {
            b"/version": VERSION,
            b"/info": whole(b"{}"),
            b"/start": b"HTTP/1.1 204 No Content\r\n\r\n",
        }
        while head:
            (found,) = (answer for path, answer in answers.items() if head.split(b" ")[1].endswith(path))
            connection.sendall(found)
            head = connection.recv(65536)

    fake = ScriptedEngine(tmp_path / "engine.sock", script)
    engine = DockerEngine(fake.url, timeout_s=20)
    engine.ping()
    for _ in range(3):
        engine.start("web")
        engine.info()
    assert len(opened) == 2, "one for the question about the version, one for all others"
    fake.close()


ASKING: dict[str, Callable[[DockerEngine], object]] = {
    "/v1.41/info": DockerEngine.info,
    "/v1.41/images/create": lambda engine: engine.pull(
        "busybox", RegistryAuth(server="", token="S3CRET"), print, lambda: None
    ),
    "/v1.41/events": lambda engine: next(engine.events(None)),
}


@pytest.mark.parametrize("path", ASKING)
def test_a_redirect_is_not_followed(hostile: Hostile, engine: DockerEngine, path: str) -> None:
    hostile.sends(b"HTTP/1.1 307 Moved\r\nLocation: /containers/json\r\nContent-Length: 2\r\n\r\n{}")
    with pytest.raises(EngineInvalidError):
        ASKING[path](engine)
    asked = [head.split(b" ")[1].partition(b"?")[0].decode() for head in hostile.fake.heads]
    assert asked == ["/version", path]


@pytest.mark.parametrize(
    "answer", [whole(b"{}"), whole(b"[]"), whole(b'{"ApiVersion": "new"}'), whole(b"[" * 100_000)]
)
def test_an_engine_that_does_not_tell_its_version_is_not_used(tmp_path: Path, answer: bytes) -> None:
    fake = ScriptedEngine(tmp_path / "engine.sock", lambda connection, head: connection.sendall(answer))
    with pytest.raises(EngineUnreachableError, match="does not report its API version"):
        DockerEngine(fake.url, timeout_s=20).ping()
    fake.close()


STREAMS = {
    "no object": b'"a"\n',
    "no JSON": b"abc\n",
    "nested too deeply": b"[" * 100_000 + b"\n",
}


@pytest.mark.parametrize("line", STREAMS.values(), ids=STREAMS.keys())
def test_events_that_are_none_end_their_stream(hostile: Hostile, engine: DockerEngine, line: bytes) -> None:
    event = json.dumps({"Type": "container"}).encode() + b"\n"
    hostile.sends(HEAD + b"\r\n" + event + line)
    stream = engine.events(None)
    assert next(stream) == {"Type": "container"}
    with pytest.raises(EngineUnreachableError, match="broke"):
        next(stream)


def test_a_line_without_end_is_not_collected(
    hostile: Hostile, engine: DockerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "LINE_LIMIT", 100_000)
    hostile.floods(HEAD + b"\r\n", b"x" * 65536)
    with pytest.raises(EngineUnreachableError, match="longer than 100000 bytes"):
        next(engine.events(None))
    assert hostile.gone.wait(10)
    with pytest.raises(EngineError, match="longer than 100000 bytes"):
        engine.pull("busybox", None, print, lambda: None)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 O"])
async def test_an_engine_that_ends_before_its_answer_is_away_and_not_another_program(
    tmp_path: Path, said: bytes
) -> None:
    fake = ScriptedEngine(tmp_path / "engine.sock", lambda connection, head: connection.sendall(said))
    with pytest.raises(EngineUnreachableError, match="closed the connection without an answer") as caught:
        await DockerStream(fake.url).open("GET", "/info")
    assert caught.type is EngineUnreachableError
    fake.close()
