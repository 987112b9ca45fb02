# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything that streams, over every door: the control socket, a plain TCP listener of loopback, and one with TLS."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import ssl
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker
import httpx
import pytest
from websockets.sync.client import ClientConnection, connect, unix_connect

from tests.api.conftest import Containers
from tests.api.console_client import Events
from tests.api.test_streams_on_engine import tar_of
from tests.support.controller import sse_events
from tests.support.dockerd import BUSYBOX, PrivateDockerd
from tests.support.tcp import WRITE, TcpController, make_certificate

MIB = 1024 * 1024
DOORS = ("control", "loopback", "tls")
SIZE = 5 * MIB  # of what is moved: more than what buffers hold


def _trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@dataclass(frozen=True)
class Door:
    """A way in. Its `client` names a writer's session where the door asks for one."""

    client: httpx.Client
    controller: TcpController
    tls: bool

    @contextmanager
    def socket(self, path: str, **options: Any) -> Iterator[ClientConnection]:
        """A WebSocket, with a ticket where the door wants one."""
        if not self.client.headers.get("authorization"):
            with unix_connect(str(self.controller.control.path), f"ws://localhost{path}", **options) as made:
                yield made
            return
        ticket = self.client.post("/v1/tickets", json={"path": path.partition("?")[0]}).json()["ticket"]
        both = "&" if "?" in path else "?"
        base = str(self.client.base_url).replace("http", "ws", 1).rstrip("/")
        more = {"ssl": _trusting()} if self.tls else {}
        with connect(f"{base}{path}{both}ticket={ticket}", **more, **options) as made:
            yield made


@pytest.fixture(scope="session")
def doors(engine: PrivateDockerd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Door]]:
    folder: Path = tmp_path_factory.mktemp("doors")
    cert, key = make_certificate(folder, "router")
    plain = TcpController(SimpleNamespace(url=engine.host), folder / "plain")  # type: ignore[arg-type]
    secure = TcpController(SimpleNamespace(url=engine.host), folder / "secure")  # type: ignore[arg-type]
    assert plain.want("127.0.0.1:0") == ["Listening"]
    assert secure.want("127.0.0.1:0", cert=str(cert), key=str(key)) == ["Listening"]
    made = {
        "control": Door(plain.control.client, plain, tls=False),
        "loopback": Door(plain.client(WRITE, "127.0.0.1"), plain, tls=False),
        "tls": Door(secure.client(WRITE, "127.0.0.1", scheme="https", verify=_trusting()), secure, tls=True),
    }
    yield made
    for door in made.values():
        door.client.close()
    plain.close()
    secure.close()


@pytest.fixture(params=DOORS)
def door(doors: dict[str, Door], request: pytest.FixtureRequest) -> Door:
    return doors[request.param]


@pytest.fixture
def filled(containers: Containers) -> str:
    """A container with SIZE bytes in /data/big."""
    return containers.finished(f"dd if=/dev/urandom of=/data/big bs={MIB} count={SIZE // MIB} 2>/dev/null")


def _sha(client: httpx.Client, url: str, **options: Any) -> str:
    hashed = hashlib.sha256()
    with client.stream("GET", url, **options) as response:
        assert response.status_code == 200, response.read()
        for piece in response.iter_raw():
            hashed.update(piece)
    return hashed.hexdigest()


def _file_in(tar: bytes) -> str:
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        found = opened.extractfile("big")
        assert found is not None
        return hashlib.sha256(found.read()).hexdigest()


@pytest.mark.parametrize("prefix", ["/v1", "/docker"])
def test_downloads_come_whole(
    door: Door, filled: str, docker_client: docker.DockerClient, prefix: str
) -> None:
    wanted = hashlib.sha256()
    for piece in docker_client.containers.get(filled).export():
        wanted.update(piece)
    for _ in range(2):  # the second by the same connection
        assert _sha(door.client, f"{prefix}/containers/{filled}/export") == wanted.hexdigest()
    archive = door.client.get(f"{prefix}/containers/{filled}/archive?path=/data/big")
    assert len(archive.content) > SIZE and len(_file_in(archive.content)) == 64
    saved = door.client.get(f"{prefix}/images/get", params={"names": BUSYBOX})
    with tarfile.open(fileobj=io.BytesIO(saved.content)) as opened:
        assert "manifest.json" in opened.getnames()
    assert door.client.get("/v1/status").status_code == 200


def test_a_download_in_parts_comes_whole(door: Door, filled: str) -> None:
    ask = {"direction": "down", "target": "export", "container": filled}
    route = f"/v1/transfers/{door.client.post('/v1/transfers', json=ask).json()['transfer']['id']}"
    got = b""
    while part := door.client.get(f"{route}/{len(got)}", params={"length": 2 * MIB}).content:
        got += part
    ended = door.client.get(route).json()["transfer"]
    assert (ended["state"], ended["sha256"]) == ("done", hashlib.sha256(got).hexdigest())
    assert door.client.delete(route).status_code in (200, 204)


@pytest.mark.parametrize("prefix", ["/v1", "/docker"])
def test_uploads_arrive_whole(door: Door, containers: Containers, prefix: str) -> None:
    made = containers.run("sleep 60")
    data = os.urandom(SIZE)
    archive = tar_of("big", data)
    url = f"{prefix}/containers/{made}/archive"
    for content in (archive, iter([archive[:MIB], archive[MIB:]])):
        put = door.client.put(url, params={"path": "/tmp"}, content=content)
        assert put.status_code in (200, 204), put.text
    back = door.client.get(f"{prefix}/containers/{made}/archive", params={"path": "/tmp/big"})
    assert _file_in(back.content) == hashlib.sha256(data).hexdigest()


def test_an_image_is_loaded(door: Door) -> None:
    saved = door.client.get("/v1/images/get", params={"names": BUSYBOX}).content
    answer = door.client.post("/docker/images/load", content=saved)
    assert answer.status_code == 200 and "busybox" in answer.text
    job = door.client.put("/v1/images/load", content=saved).json()["job"]
    with door.client.stream("GET", f"/v1/jobs/{job['id']}/stream") as response:
        states = [data["state"] for name, data, _ in sse_events(response.iter_lines()) if name == "job"]
    assert states[-1] == "succeeded"


@pytest.mark.parametrize("shape", ["text", "sse", "ndjson"])
def test_a_log_is_there_line_by_line(door: Door, containers: Containers, shape: str) -> None:
    made = containers.run("echo one; sleep 60")
    with door.client.stream("GET", f"/v1/containers/{made}/logs?follow=1&format={shape}") as response:
        assert "one" in next(line for line in response.iter_lines() if "one" in line)
    with door.client.stream("GET", f"/docker/containers/{made}/logs?follow=1&stdout=1") as response:
        assert b"one" in next(response.iter_raw())


def test_events_stats_and_status_flow(door: Door, containers: Containers) -> None:
    made = containers.run("sleep 60")
    for url in (f"/v1/containers/{made}/stats?format=sse", "/v1/status/stream", "/v1/events"):
        with door.client.stream("GET", url) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            if url == "/v1/events":
                door.controller.agent.board.set_agent(test=os.urandom(4).hex())
            assert next(sse_events(response.iter_lines()))
    with door.client.stream("GET", f"/docker/containers/{made}/stats") as response:
        line = b""
        for piece in response.iter_raw():
            line += piece
            if b"\n" in line:
                break
        assert json.loads(line.partition(b"\n")[0])["read"]


def test_a_console_takes_input_and_ends(door: Door, containers: Containers) -> None:
    made = containers.run("sleep 60")
    control = SimpleNamespace(client=door.client)
    console = Events(control, made, command=["sh"], tty=True)  # type: ignore[arg-type]
    console.type("echo $((6*7)); exit 3\n")
    out, ended = console.everything()
    assert b"42" in out and ended["code"] == 3
    door.client.delete(f"/v1/exec/{console.id}")
    other = door.client.post(f"/v1/containers/{made}/exec", json={"command": ["cat"]}).json()["id"]
    with door.socket(f"/v1/exec/{other}/ws") as web:
        web.send(b"hello\n")
        got = b""
        for message in web:
            got += message if isinstance(message, bytes) else b""
            if b"hello" in got:
                break
    door.client.delete(f"/v1/exec/{other}")


def test_a_container_is_attached_to(door: Door, containers: Containers) -> None:
    made = containers.run("while read line; do echo got $line; done", stdin_open=True)
    with door.socket(f"/docker/containers/{made}/attach/ws?stream=1&stdin=1&stdout=1") as web:
        web.send(b"hello\n")
        got = b""
        for message in itertools.islice(web, 10):
            got += message if isinstance(message, bytes) else message.encode()
            if b"got hello" in got:
                return
    pytest.fail(f"the container answered {got!r}")
