# SPDX-License-Identifier: GPL-2.0-or-later
"""The Engine API for browsers through the control socket, over a real engine."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import httpx
import pytest
from docker.types import LogConfig
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from tests.api.conftest import Containers
from tests.api.console_client import web_socket
from tests.api.test_streams_on_engine import tar_of
from tests.support.connections import settled, wait_connections
from tests.support.controller import Controller
from tests.support.dockerd import BUSYBOX, PrivateDockerd, unpacks_safely


@pytest.fixture
def http(controller: Controller) -> httpx.Client:
    return controller.client


def test_a_containers_whole_life_passes(http: httpx.Client, containers: Containers) -> None:
    body = {"Image": BUSYBOX, "Cmd": ["sh", "-c", "echo hello; sleep 1000"], "StopSignal": "KILL"}
    body |= {"HostConfig": {"NetworkMode": "none"}}
    made = http.post("/docker/containers/create", params={"name": "life"}, json=body)
    assert made.status_code == 201, made.text
    containers.adopt(made.json()["Id"])
    assert http.post("/docker/containers/life/start").status_code == 204
    assert http.post("/docker/containers/life/start").status_code == 304
    assert http.post("/docker/containers/life/rename", params={"name": "life2"}).status_code == 204
    inspect = http.get("/docker/containers/life2/json").json()
    assert (inspect["State"]["Running"], inspect["Name"]) == (True, "/life2")
    listed = http.get("/docker/containers/json", params={"filters": json.dumps({"name": ["life2"]})})
    assert [item["Id"] for item in listed.json()] == [inspect["Id"]]
    with http.stream("GET", "/docker/containers/life2/logs?stdout=1&follow=1") as logs:
        pieces = logs.iter_raw()
        assert next(pieces) == b"\x01\0\0\0\0\0\0\x06hello\n"
    raw = ("application/octet-stream", "application/vnd.docker.multiplexed-stream")
    assert logs.headers["content-type"] in raw
    assert http.post("/docker/containers/life2/stop?t=0").status_code == 204
    assert http.post("/docker/containers/life2/wait").json()["StatusCode"] == 137
    assert http.delete("/docker/containers/life2?v=1").status_code == 204
    gone = http.get("/docker/containers/life2/json")
    assert (gone.status_code, gone.json()) == (404, {"message": "No such container: life2"})


def test_the_version_is_the_engines_to_give(http: httpx.Client, docker_client: docker.DockerClient) -> None:
    spoken = docker_client.api.version()
    high, low = spoken["ApiVersion"], spoken["MinAPIVersion"]
    ping = http.get("/docker/_ping")
    assert (ping.text, ping.headers["api-version"]) == ("OK", high)
    assert http.get(f"/docker/v{high}/version").json()["ApiVersion"] == high
    assert http.get(f"/docker/v{low}/info").status_code == 200
    for text, message in (
        ("1.999", f"expected {low} to {high}"),
        ("1.1", f"expected {low} to {high}"),
        ("2.0", "expected v1.NN"),
        ("1.41x", "expected v1.NN"),
    ):
        refused = http.get(f"/docker/v{text}/info")
        assert refused.status_code == 400 and message in refused.json()["message"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/docker/containers/..%2fversion/json", 400),
        ("/docker/containers/..%252fversion/json", 400),
        ("/docker/containers/a%00b/json", 400),
        ("/docker/containers/a%0d%0ab/json", 400),
        ("/docker/containers/a%3fall=1/json", 404),
        ("/docker/containers/-a/json", 404),
        (f"/docker/containers/{'a' * 300}/json", 404),
        ("/docker/images/a/../b/json", 400),
        ("/docker/images/%2e%2e/%2e%2e/version/json", 400),
        ("/docker/images/a%20b/json", 404),
        ("/docker/v1.41/../v1/status", 400),
        ("/DOCKER/version", 404),
        ("/docker//version", 400),
        ("/docker/version/", 404),
        ("/docker/session", 405),
        ("/docker/grpc", 405),
        ("/docker/debug/vars", 404),
        ("/docker/networks/", 404),
    ],
)
def test_paths_that_are_no_route_do_not_reach_the_engine(
    controller: Controller, path: str, status: int
) -> None:
    head = controller.raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert head.startswith(f"HTTP/1.1 {status} ".encode()), head[:200]


def test_an_exec_may_be_made_started_and_looked_at(http: httpx.Client, containers: Containers) -> None:
    made = containers.run("sleep 1000")
    body = {"Cmd": ["echo", "hi"], "AttachStdout": True}
    exec_id = http.post(f"/docker/containers/{made}/exec", json=body).json()["Id"]
    started = http.post(f"/docker/exec/{exec_id}/start", json={"Detach": False, "Tty": False})
    assert started.content == b"\x01\0\0\0\0\0\0\x03hi\n"
    assert http.get(f"/docker/exec/{exec_id}/json").json()["ExitCode"] == 0


def test_bodies_flow_both_ways_and_stay_what_they_are(
    http: httpx.Client, containers: Containers, docker_client: docker.DockerClient
) -> None:
    made = containers.finished("dd if=/dev/urandom of=/data/big bs=1048576 count=30 2>/dev/null")
    direct, through = hashlib.sha256(), hashlib.sha256()
    for piece in docker_client.containers.get(made).export():
        direct.update(piece)
    with http.stream("GET", f"/docker/containers/{made}/export") as response:
        for piece in response.iter_raw():
            through.update(piece)
    assert through.hexdigest() == direct.hexdigest()
    archive = tar_of("file", b"x" * 3_000_000)
    url = f"/docker/containers/{made}/archive"
    assert http.put(url, params={"path": "/data"}, content=archive).status_code == 200
    assert http.put(url, params={"path": "/data"}, content=iter([archive])).status_code == 200
    head = http.head(url, params={"path": "/data/file"})
    assert head.status_code == 200 and "x-docker-container-path-stat" in head.headers
    with tarfile.open(fileobj=io.BytesIO(http.get(url, params={"path": "/data/file"}).content)) as tar:
        assert tar.getmember("file").size == 3_000_000
    packed = http.put(url, params={"path": "/data"}, content=gzip.compress(archive))
    if unpacks_safely():
        assert packed.status_code == 200
    else:
        assert packed.status_code == 415 and "plain tar" in packed.json()["message"]


def test_images_are_loaded_saved_tagged_and_built(http: httpx.Client) -> None:
    saved = http.get("/docker/images/get", params={"names": BUSYBOX}).content
    loaded = http.post("/docker/images/load", content=saved, headers={"content-type": "application/x-tar"})
    assert loaded.status_code == 200 and BUSYBOX in loaded.text
    tag = {"repo": "registry.lan:5000/some/thing", "tag": "one"}
    assert http.post(f"/docker/images/{BUSYBOX}/tag", params=tag).status_code == 201
    name = "registry.lan:5000/some/thing:one"
    assert http.get(f"/docker/images/{name}/json").json()["RepoTags"] == [BUSYBOX, name]
    assert http.get("/docker/images/registry.lan%3A5000%2Fsome%2Fthing%3Aone/history").status_code == 200
    assert http.delete(f"/docker/images/{name}").status_code == 200
    context = tar_of("Dockerfile", f"FROM {BUSYBOX}\nCMD true\n".encode())
    built = http.post(
        "/docker/build?t=built:1", content=context, headers={"content-type": "application/x-tar"}
    )
    assert built.status_code == 200 and "Successfully tagged built:1" in built.text
    assert http.delete("/docker/images/built:1").status_code == 200


def test_events_flow_and_a_client_that_leaves_ends_them(
    http: httpx.Client, containers: Containers, engine: PrivateDockerd
) -> None:
    before = settled(engine)
    made: list[str] = []
    later = threading.Timer(0.5, lambda: made.append(containers.finished("true")))
    later.start()
    with http.stream("GET", "/docker/events", params={"filters": '{"event": ["create"]}'}) as response:
        lines = response.iter_lines()
        event = json.loads(next(lines))
    later.join()
    assert event["Actor"]["ID"] == made[0]
    containers.client.close()  # its own connections do not count
    wait_connections(engine, before)


def test_manual_actions_are_told_to_the_agent_before_the_engine(
    controller: Controller, containers: Containers
) -> None:
    made = containers.run("trap : HUP; while :; do sleep 1; done", stop_signal="KILL")
    told = controller.agent.manual_actions
    del told[:]
    url = f"/docker/containers/{made}"
    for path, status in (
        ("pause", 204),
        ("unpause", 204),
        ("kill?signal=SIGHUP", 204),
        ("kill?signal=KILL", 204),
        ("start", 204),
        ("rename?name=" + "%20", 400),
        ("restart?t=0", 204),
        ("stop?t=0", 204),
    ):
        answer = controller.client.post(f"{url}/{path}")
        assert answer.status_code in (status, 500 if status == 400 else status), answer.text
    assert told == ["pause", "unpause", "kill", "start", "rename", "rename failed", "restart", "stop"]


class Shell:
    """What a browser's terminal shows of an attached container."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.out = b""

    def until(self, wanted: bytes) -> None:
        deadline = time.monotonic() + 10
        while wanted not in self.out:
            message = self.socket.recv(timeout=max(0.01, deadline - time.monotonic()))
            assert isinstance(message, bytes)
            self.out += message


@pytest.mark.parametrize("tty", [True, False])
def test_a_browser_attaches_to_a_container(controller: Controller, containers: Containers, tty: bool) -> None:
    script = "echo ready; read a; echo got $a >&2; read b; exit 4"
    made = containers.run(script, tty=tty, stdin_open=True)
    query = "stream=1&stdin=1&stdout=1&stderr=1&logs=1"
    with web_socket(controller, f"/docker/containers/{made}/attach/ws?{query}") as socket:
        shell = Shell(socket)
        shell.until(b"ready")
        socket.send("wörld\n")
        shell.until("got wörld".encode())
        socket.send(b"\n")
        with pytest.raises(ConnectionClosed) as caught:
            while True:
                socket.recv(timeout=10)
    assert caught.value.rcvd is not None and caught.value.rcvd.code == 1000
    assert controller.client.get(f"/docker/containers/{made}/json").json()["State"]["ExitCode"] == 4


def test_attaching_to_nothing_is_refused_before_the_socket_opens(controller: Controller) -> None:
    for path, status in (("nosuch/attach/ws", 404), ("a%20b/attach/ws", 404)):
        with pytest.raises(InvalidStatus) as caught, web_socket(controller, f"/docker/containers/{path}"):
            pass
        assert caught.value.response.status_code == status


def test_a_browser_that_does_not_read_stops_an_attached_container(
    controller: Controller, containers: Containers
) -> None:
    script = "i=0; while :; do i=$((i+1)); echo $i > /tmp/n; mv /tmp/n /tmp/count; cat /bin/busybox; done"
    made = containers.run(script, log_config=LogConfig(type=LogConfig.types.NONE))
    query = "stream=1&stdout=1"
    with web_socket(
        controller, f"/docker/containers/{made}/attach/ws?{query}", max_queue=1, close_timeout=0
    ) as socket:
        socket.recv(timeout=10)
        before, last, seen = _resident_kib(), -1, 0
        deadline = time.monotonic() + 30
        while seen != last:
            assert time.monotonic() < deadline, "it still writes although nobody reads"
            time.sleep(1)
            out = containers.client.containers.get(made).exec_run("cat /tmp/count").output
            last, seen = seen, int(out)
        assert _resident_kib() - before < 8 * 1024


def _resident_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


@pytest.fixture(autouse=True)
def _told(controller: Controller) -> Iterator[None]:
    yield
    del controller.agent.manual_actions[:]
