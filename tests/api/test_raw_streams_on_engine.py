# SPDX-License-Identifier: GPL-2.0-or-later
"""Raw streams of the Engine API through `/docker/`: what `docker exec`, `attach` and `run` ask for, over every door."""

from __future__ import annotations

import json
import os
import pty
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from agent.api.rules import Need
from agent.api.streams.consoles import LIMIT
from agent.wire.bodies import FrameDecoder
from tests.api.conftest import Containers
from tests.api.test_doors_on_engine import Door, _trusting, door, doors
from tests.support.dockerd import BUSYBOX
from tests.support.tcp import READ, WRITE, head_of

__all__ = ["door", "doors"]  # fixtures

UPGRADE = "Connection: Upgrade\r\nUpgrade: tcp\r\n"


class Tls:
    """A client whose `shutdown` ends its own side only, as Go's `CloseWrite`: Python's waits for the other side."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = _trusting().wrap_bio(self._in, self._out)
        self._until(self._tls.do_handshake)
        self._flush()

    def sendall(self, data: bytes) -> None:
        self._tls.write(data)
        self._flush()

    def recv(self, size: int) -> bytes:
        with suppress(ssl.SSLZeroReturnError):
            return bytes(self._until(lambda: self._tls.read(size)))
        return b""

    def shutdown(self, how: int) -> None:
        assert how == socket.SHUT_WR
        with suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        self._flush()

    def _until(self, step: Callable[[], Any]) -> Any:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self._flush()
                piece = self._link.recv(65536)
                self._in.write(piece) if piece else self._in.write_eof()

    def _flush(self) -> None:
        self._link.sendall(self._out.read())


@contextmanager
def connected(door: Door) -> Iterator[socket.socket]:
    if not door.client.headers.get("authorization"):
        made = socket.socket(socket.AF_UNIX)
        made.settimeout(10)
        made.connect(str(door.controller.control.path))
    else:
        made = door.controller.connect("127.0.0.1")
    with made:
        yield Tls(made) if door.tls else made  # type: ignore[misc]


def ask(path: str, body: object = None, *, session: str = WRITE, upgrade: str = UPGRADE) -> bytes:
    data = b"" if body is None else json.dumps(body).encode()
    head = (
        f"POST /docker{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {session}\r\n{upgrade}"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


def exec_of(door: Door, container: str, *command: str, tty: bool = False) -> str:
    body = {"Cmd": command, "AttachStdin": True, "AttachStdout": True, "AttachStderr": True, "Tty": tty}
    return str(door.client.post(f"/docker/containers/{container}/exec", json=body).json()["Id"])


def begun(client: socket.socket, request: bytes) -> None:
    client.sendall(request)
    head = head_of(client).lower()
    assert head.startswith(b"http/1.1 101 upgraded\r\n"), head
    assert b"upgrade: tcp" in head and b"content-type: application/vnd.docker." in head


def rest_of(client: socket.socket) -> bytes:
    got = b""
    while piece := client.recv(65536):
        got += piece
    return got


def seen(client: socket.socket, wanted: bytes) -> None:
    got = b""
    while wanted not in got:
        piece = client.recv(65536)
        assert piece, got
        got += piece


def text_of(frames: bytes) -> bytes:
    return b"".join(data for _, data in FrameDecoder().feed(frames))


def until(condition: Callable[[], object], limit_s: float = 20) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_output_comes_after_the_end_of_the_input(door: Door, containers: Containers) -> None:
    """By TLS the end of the client's side is an alert, and not the end of the connection."""
    made = exec_of(door, containers.run("sleep 1000"), "sh", "-c", "cat; echo done; exit 3")
    with connected(door) as client:
        # what is sent right behind the request belongs to the stream
        begun(client, ask(f"/exec/{made}/start", {"Tty": False}) + b"first ")
        client.sendall(b"second\n" + b"x" * 30_000)
        client.shutdown(socket.SHUT_WR)
        text = text_of(rest_of(client))
    assert text == b"first second\n" + b"x" * 30_000 + b"done\n"
    assert door.client.get(f"/docker/exec/{made}/json").json()["ExitCode"] == 3


@pytest.mark.long
def test_a_large_output_comes_whole_to_who_reads_slowly(door: Door, containers: Containers) -> None:
    made = exec_of(door, containers.run("sleep 1000"), "sh", "-c", "dd if=/dev/zero bs=65536 count=80")
    with connected(door) as client:
        begun(client, ask(f"/exec/{made}/start", {"Tty": False}))
        time.sleep(0.5)
        assert text_of(rest_of(client)).count(b"\0") == 80 * 65536


@pytest.mark.long
def test_a_container_is_attached_to_raw(door: Door, containers: Containers) -> None:
    made = containers.run("while read line; do echo got $line; done", stdin_open=True)
    with connected(door) as client:
        begun(client, ask(f"/containers/{made}/attach?stream=1&stdin=1&stdout=1&stderr=1"))
        client.sendall(b"hello\n")
        seen(client, b"got hello\n")
        # not HTTP any more: to the container it is input
        client.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        seen(client, b"got GET /healthz HTTP/1.1\r\n")


@pytest.mark.long
def test_the_engines_own_refusal_is_the_answer(door: Door, containers: Containers) -> None:
    stopped = containers.finished("true")
    for path, status in (
        ("/exec/nope/start", 404),
        ("/containers/nope/attach?stream=1", 404),
        (f"/containers/{stopped}/exec", 501),  # no call that becomes a stream
        ("/containers/a%20b/attach", 404),
    ):
        with connected(door) as client:
            client.sendall(ask(path, {}))
            assert head_of(client).startswith(f"HTTP/1.1 {status} ".encode()), path


def test_another_upgrade_is_refused_and_names_the_way(door: Door) -> None:
    for upgrade in (
        "Connection: Upgrade\r\nUpgrade: h2c\r\n",
        "Connection: Upgrade\r\nUpgrade: tcp, h2c\r\n",
        "Upgrade: tcp\r\n",
    ):
        with connected(door) as client:
            request = ask("/containers/any/attach?stream=1", upgrade=upgrade)
            client.sendall(request + b"GET /healthz HTTP/1.1\r\n\r\n")
            answer = rest_of(client)
        assert answer.startswith(b"HTTP/1.1 501 ") and b"/v1/exec" in answer
        assert answer.count(b"HTTP/1.1") == 1


def test_a_reader_gets_none(doors: dict[str, Door], containers: Containers) -> None:
    made = containers.run("sleep 1000")
    with connected(doors["loopback"]) as client:
        client.sendall(ask(f"/containers/{made}/attach?stream=1", session=READ))
        assert head_of(client).startswith(b"HTTP/1.1 403 ")


def _running(door: Door, made: str) -> bool:
    return bool(door.client.get(f"/docker/exec/{made}/json").json()["Running"])


@pytest.mark.long
def test_a_stream_ends_with_its_session_and_a_terminal_with_its_client(
    doors: dict[str, Door], containers: Containers
) -> None:
    door = doors["loopback"]
    container = containers.run("sleep 1000")
    session = "d" * 32
    door.controller.sessions.rights[session] = Need.WRITE
    made = exec_of(door, container, "sleep", "1000", tty=True)
    with connected(door) as client:
        begun(client, ask(f"/exec/{made}/start", {"Tty": True}, session=session))
        until(lambda: _running(door, made))
        door.controller.sessions.rights.pop(session)
        with suppress(ConnectionResetError):
            assert rest_of(client) == b""
    until(lambda: not _running(door, made))


@pytest.mark.long
def test_a_client_that_closes_a_terminal_ends_its_process(
    doors: dict[str, Door], containers: Containers
) -> None:
    door = doors["control"]
    made = exec_of(door, containers.run("sleep 1000"), "sleep", "1000", tty=True)
    with connected(door) as client:
        begun(client, ask(f"/exec/{made}/start", {"Tty": True}))
        until(lambda: _running(door, made))
    until(lambda: not _running(door, made))


@pytest.mark.long
def test_they_share_the_places_of_consoles(doors: dict[str, Door], containers: Containers) -> None:
    door = doors["loopback"]
    container = containers.run("sleep 1000")
    attach = ask(f"/containers/{container}/attach?stream=1&stdin=1&stdout=1")
    with ExitStack() as stack:
        for number in range(LIMIT):
            client = stack.enter_context(connected(doors[("control", "loopback")[number % 4 == 0]]))
            begun(client, attach)
        client = stack.enter_context(connected(doors["control"]))
        client.sendall(attach)
        assert head_of(client).startswith(b"HTTP/1.1 409 ")
    until(lambda: _fits(door, attach))


@pytest.mark.long
@pytest.mark.skipif(shutil.which("docker") is None, reason="there is no docker command")
@pytest.mark.parametrize("name", ["loopback", "tls"])
def test_the_docker_command_runs_execs_and_attaches(
    doors: dict[str, Door], containers: Containers, tmp_path: Path, name: str
) -> None:
    door = doors[name]
    (tmp_path / "config.json").write_text(json.dumps({"HttpHeaders": {"Authorization": f"Bearer {WRITE}"}}))
    base = f"tcp://{door.controller.ip}:{door.controller.port}/docker"
    docker = ["docker", "--config", str(tmp_path), *_trust(door), "-H", base]

    def said(*words: str, text: str = "") -> tuple[int, str]:
        done = subprocess.run(
            [*docker, *words], input=text, capture_output=True, text=True, timeout=60, check=False
        )
        return done.returncode, done.stdout + done.stderr

    made = containers.run("sleep 1000")
    assert said("exec", "-i", made, "sh", "-c", "cat; echo end; exit 4", text="x" * 200_000 + "\n") == (
        4,
        "x" * 200_000 + "\nend\n",
    )
    assert said("run", "--rm", "--network", "none", BUSYBOX, "sh", "-c", "echo out; exit 5") == (5, "out\n")
    assert said("run", "--rm", "-i", "--network", "none", BUSYBOX, "cat", text="in\n") == (0, "in\n")
    assert said("exec", "nope", "true")[0] == 1
    ends = containers.run("sleep 4; echo later")
    assert said("attach", "--no-stdin", ends) == (0, "later\n")
    leader, terminal = pty.openpty()
    with subprocess.Popen(
        [*docker, "exec", "-it", made, "sh"], stdin=terminal, stdout=terminal, stderr=terminal
    ) as shell:
        os.close(terminal)
        os.write(leader, b"stty size; echo $((6*7)); exit 6\n")
        assert shell.wait(30) == 6
    printed = b""
    with suppress(OSError):  # EIO: all was read, and nobody has the other end
        while b"\n42" not in printed and (piece := os.read(leader, 65536)):
            printed += piece
    os.close(leader)
    assert b"\n42" in printed


def _trust(door: Door) -> list[str]:
    return ["--tls", "--tlscacert", str(door.controller.settings.cert)] if door.tls else []


def _fits(door: Door, request: bytes) -> bool:
    with connected(door) as client:
        client.sendall(request)
        return head_of(client).startswith(b"HTTP/1.1 101 ")
