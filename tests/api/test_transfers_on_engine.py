# SPDX-License-Identifier: GPL-2.0-or-later
"""Files in parts over a real engine: cut requests, lost answers, wrong hashes, clients that do not come back."""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from starlette.applications import Starlette

from agent.api.app import make_routes
from agent.api.http.routing import on_error
from agent.api.jobs.jobs import Jobs
from agent.api.jobs.transfer import AHEAD, PIECE, WINDOW
from agent.api.jobs.transfers import OPEN_LIMIT, Transfers
from agent.api.routes import files as routes_transfers
from agent.api.routes.files import TransferRoutes
from agent.api.routes.jobs import JobRoutes
from agent.data.parts import Data
from agent.engine.stream import DockerStream, SourceError
from agent.errors import UcidockdError
from tests.api.conftest import Containers
from tests.support.box import Box
from tests.support.connections import settled, wait_connections
from tests.support.controller import Controller, QuietAgent, serving
from tests.support.cut_client import CutClient
from tests.support.dockerd import BUSYBOX, PrivateDockerd
from tests.support.scripted_engine import ScriptedEngine, answer
from tests.test_running_agent import Agent

MIB = 1024 * 1024


def impatient(agent: QuietAgent, engine: DockerStream) -> Starlette:
    """The application's jobs and transfers with a short idle time-out."""
    jobs = Jobs(engine)
    nowhere = Path("/nowhere")
    data = Data(engine, agent, agent.board, instance=lambda: "", run_dir=nowhere, state_dir=nowhere)
    routes = TransferRoutes(Transfers(engine, jobs, idle_s=1.5), engine, agent.auths, agent.board, data)
    return Starlette(
        routes=make_routes([*routes.rules(), *JobRoutes(jobs, agent.auths).rules()]),
        exception_handlers={UcidockdError: on_error, SourceError: on_error},
    )


@pytest.fixture
def client(controller: Controller) -> Iterator[CutClient]:
    """Cut after a third of a second, at 12 MiB/s: 4 MiB a request."""
    yield CutClient(controller.path, bytes_per_s=12 * MIB, cut_s=0.33)
    for transfer in controller.client.get("/v1/transfers").json()["transfers"]:
        controller.client.delete(f"/v1/transfers/{transfer['id']}")


@pytest.fixture
def archive(docker_client: docker.DockerClient) -> bytes:
    """An image archive, of an image that is not there any more."""
    built, _ = docker_client.images.build(
        fileobj=tar_of(Dockerfile=f"FROM {BUSYBOX}\nCOPY big /big\n".encode(), big=os.urandom(8 * MIB)),
        custom_context=True,
        tag="parts:1",
    )
    saved = b"".join(built.save(named=True))
    docker_client.images.remove("parts:1", force=True)
    return saved


def tar_of(**files: bytes) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    buffer.seek(0)
    return buffer


def begun_archive(size: int) -> bytes:
    """The first `size` bytes of an archive. Newer engines end a load at once whose first bytes are the end of an archive."""
    return tar_of(file=bytes(2 * size)).getvalue()[:size]


def wait_state(client: CutClient, number: str, *states: str, limit_s: float = 15) -> Any:
    deadline = time.monotonic() + limit_s
    while (found := client.call("GET", f"/v1/transfers/{number}"))["state"] not in states:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


def send(client: CutClient, number: str, data: bytes) -> None:
    client.put(number, len(data), lambda offset, length: data[offset : offset + length])


def test_an_image_is_loaded_through_a_door_that_cuts(
    client: CutClient, archive: bytes, controller: Controller, docker_client: docker.DockerClient
) -> None:
    number = client.create(direction="up", target="load", size=len(archive))
    send(client, number, archive)
    assert client.cuts >= 2
    digest = hashlib.sha256(archive).hexdigest()
    ended = client.call("POST", f"/v1/transfers/{number}", {"sha256": digest, "size": len(archive)})
    assert (ended["sha256"], ended["size"]) == (digest, len(archive))
    done = wait_state(client, number, "done", "failed")
    job = controller.client.get(f"/v1/jobs/{done['job']}").json()["job"]
    assert job["state"] == "succeeded" and job["result"]["images"] == ["parts:1"], job
    assert job["progress"]["bytes_done"] == job["progress"]["bytes_total"] == len(archive)
    assert client.call("POST", f"/v1/transfers/{number}", {"sha256": digest})["state"] == "done", (
        "asked again"
    )
    docker_client.images.remove("parts:1", force=True)


def test_a_file_whose_hash_is_wrong_is_not_handed_over(
    client: CutClient,
    archive: bytes,
    controller: Controller,
    docker_client: docker.DockerClient,
    engine: PrivateDockerd,
) -> None:
    before = settled(engine)
    number = client.create(direction="up", target="load")
    send(client, number, archive)
    route = f"/v1/transfers/{number}"
    short = controller.client.post(route, json={"size": len(archive) + 1})
    assert (
        short.status_code == 409 and f"{len(archive)} bytes were received" in short.json()["error"]["message"]
    )
    wrong = controller.client.post(route, json={"sha256": "0" * 64})
    assert wrong.status_code == 422 and "not passed on" in wrong.json()["error"]["message"]
    wait_connections(engine, before)
    failed = client.call("GET", f"/v1/transfers/{number}")
    assert failed["state"] == "failed"
    assert controller.client.get(f"/v1/jobs/{failed['job']}").json()["job"]["state"] == "failed"
    assert not [image for image in docker_client.images.list() if "parts:1" in image.tags]


def test_files_go_into_a_container_in_parts(
    client: CutClient, containers: Containers, docker_client: docker.DockerClient
) -> None:
    made = containers.run("sleep 60")
    data = os.urandom(9 * MIB)
    packed = tar_of(file=data).getvalue()
    number = client.create(direction="up", target="archive", container=made, path="/data")
    send(client, number, packed)
    assert client.cuts >= 1
    digest = hashlib.sha256(packed).hexdigest()
    ended = client.call("POST", f"/v1/transfers/{number}", {"sha256": digest})
    assert (ended["state"], ended["job"]) == ("done", None)
    stream, _ = docker_client.containers.get(made).get_archive("/data/file")
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
        member = tar.extractfile("file")
        assert member is not None and member.read() == data


def test_a_build_context_goes_in_parts(client: CutClient, docker_client: docker.DockerClient) -> None:
    packed = tar_of(Dockerfile=f"FROM {BUSYBOX}\nRUN echo built\n".encode()).getvalue()
    number = client.create(direction="up", target="build", options={"tags": ["inparts:1"]})
    send(client, number, packed)
    client.call("POST", f"/v1/transfers/{number}", {})
    done = wait_state(client, number, "done", "failed")
    assert (done["state"], done["error"]) == ("done", None)
    docker_client.images.remove("inparts:1")


@pytest.mark.parametrize("length", ["all", "3000000"])
def test_an_export_comes_out_through_a_door_that_cuts(
    client: CutClient, containers: Containers, docker_client: docker.DockerClient, length: str
) -> None:
    made = containers.finished("dd if=/dev/urandom of=/data/big bs=1048576 count=9 2>/dev/null")
    direct = hashlib.sha256()
    for piece in docker_client.containers.get(made).export():
        direct.update(piece)
    number = client.create(direction="down", target="export", container=made)
    got = hashlib.sha256()
    size = client.get(number, got.update, length=length)
    assert client.cuts >= (2 if length == "all" else 0)
    status = client.call("GET", f"/v1/transfers/{number}")
    assert (status["state"], status["size"], status["sha256"]) == ("done", size, got.hexdigest())
    assert got.hexdigest() == direct.hexdigest()


def test_images_and_files_come_out_in_parts(client: CutClient, containers: Containers) -> None:
    parts: list[bytes] = []
    client.get(client.create(direction="down", target="save", names=[BUSYBOX]), parts.append, length="500000")
    with tarfile.open(fileobj=io.BytesIO(b"".join(parts))) as tar:
        assert "manifest.json" in tar.getnames()
    made = containers.run("sleep 60")
    parts = []
    number = client.create(direction="down", target="archive", container=made, path="/etc/passwd")
    client.get(number, parts.append, length="100")
    with tarfile.open(fileobj=io.BytesIO(b"".join(parts))) as tar:
        assert tar.getnames() == ["passwd"]


def test_a_single_file_and_a_log_come_out_as_themselves(
    controller: Controller, containers: Containers
) -> None:
    long = "n" * 120  # its name does not fit into a plain header
    made = containers.run(
        f"echo out; echo err >&2; head -c 3000000 /dev/urandom >/tmp/{long}; ln -s /empty /link; touch /empty; sleep 999"
    )
    wanted = subprocess_output(containers, made, ["sh", "-c", f"test -e /empty && sha256sum /tmp/{long}"])[
        :64
    ]

    def begun(**spec: object) -> dict[str, Any]:
        body = {"direction": "down", "container": made, "name": "my box", **spec}
        found: dict[str, Any] = controller.client.post("/v1/transfers", json=body).json()
        return found

    file = begun(target="file", path=f"/tmp/{long}")["transfer"]
    assert (file["title"], file["total"]) == (long, 3000000)
    # one plain request, as a link makes it
    answer = controller.client.get(f"/v1/transfers/{file['id']}/0?length=all")
    assert answer.headers["content-length"] == "3000000"
    assert answer.headers["content-disposition"] == f'attachment; filename="{long}"'
    assert hashlib.sha256(answer.content).hexdigest() == wanted
    empty = begun(target="file", path="/empty")["transfer"]
    assert controller.client.get(f"/v1/transfers/{empty['id']}/0?length=all").content == b""
    assert "folder" in begun(target="file", path="/tmp")["error"]["message"]
    assert "not a regular file" in begun(target="file", path="/link")["error"]["message"]
    odd = begun(target="archive", path="/", name="ü x")["transfer"]
    disposition = controller.client.get(f"/v1/transfers/{odd['id']}/0?length=1").headers[
        "content-disposition"
    ]
    assert disposition == "attachment; filename=\"__x.tar\"; filename*=UTF-8''%C3%BC%20x.tar"
    controller.client.delete(f"/v1/transfers/{odd['id']}")
    log = begun(target="logs", tail="2")["transfer"]
    assert (log["title"], log["total"], log["target"]) == ("my box.log", None, "logs")
    # what LuCI's bridge asks with for a reader: a log, and nothing else
    reader = {"x-transfer-target": "logs"}
    assert controller.client.get(f"/v1/transfers/{log['id']}", headers=reader).status_code == 200
    other = begun(target="archive", path="/tmp")["transfer"]
    for method, path in (("GET", ""), ("GET", "/0?length=all"), ("DELETE", "")):
        answer = controller.client.request(method, f"/v1/transfers/{other['id']}{path}", headers=reader)
        assert answer.status_code == 404, method
    controller.client.delete(f"/v1/transfers/{other['id']}")
    lines = controller.client.get(f"/v1/transfers/{log['id']}/0?length=all").text.splitlines()
    again = controller.client.get(f"/v1/transfers/{log['id']}/0?length=all")
    assert (again.status_code, "used already" in again.text) == (410, True)
    assert sorted(line.split(" ", 1)[1] for line in lines) == ["err", "out"]
    folder = begun(target="archive", path="/tmp/")["transfer"]
    assert folder["title"] == "my box_tmp.tar"
    # the engine begins no export while somebody reads an archive of the same container
    controller.client.delete(f"/v1/transfers/{folder['id']}")
    assert begun(target="export")["transfer"]["title"] == "my box.tar"
    for transfer in controller.client.get("/v1/transfers").json()["transfers"]:
        controller.client.delete(f"/v1/transfers/{transfer['id']}")


def subprocess_output(containers: Containers, made: str, words: list[str]) -> str:
    """What it prints in the container, once it is there."""
    deadline = time.monotonic() + 20
    while True:
        code, output = containers.client.containers.get(made).exec_run(words)
        if code == 0 or time.monotonic() > deadline:
            return str(output.decode())
        time.sleep(0.1)


def test_the_last_4_mib_can_be_asked_for_again_and_no_more_is_kept(
    client: CutClient, containers: Containers, controller: Controller
) -> None:
    made = containers.finished("dd if=/dev/urandom of=/data/big bs=1048576 count=12 2>/dev/null")
    number = client.create(direction="down", target="export", container=made)
    route = f"/v1/transfers/{number}"
    first = controller.client.get(f"{route}/0").content
    assert len(first) == WINDOW
    assert controller.client.get(f"{route}/0").content == first, "a whole part again"
    second = controller.client.get(f"{route}/{WINDOW}").content
    assert controller.client.get(f"{route}/{WINDOW}").content == second
    assert controller.client.get(f"{route}/{WINDOW + 7}?length=9").content == second[7:16]
    gone = controller.client.get(f"{route}/0")
    assert gone.status_code == 416 and "no longer kept" in gone.json()["error"]["message"]
    status = client.call("GET", route)
    assert WINDOW <= status["offset"] - status["kept_from"] <= WINDOW + AHEAD + 2 * PIECE
    assert status["offset"] < 3 * WINDOW, "the engine is not read ahead of the client"
    far = controller.client.get(f"{route}/{100 * MIB}")
    assert far.status_code == 416


def test_a_part_whose_answer_was_lost_can_be_sent_again_and_none_is_left_out(
    client: CutClient, containers: Containers, controller: Controller
) -> None:
    made = containers.run("sleep 60")
    data = tar_of(file=os.urandom(300_000)).getvalue()
    route = f"/v1/transfers/{client.create(direction='up', target='archive', container=made, path='/data')}"
    assert controller.client.put(f"{route}/0", content=data[:100_000]).json()["transfer"]["offset"] == 100_000
    assert controller.client.put(f"{route}/0", content=data[:100_000]).json()["transfer"]["offset"] == 100_000
    hole = controller.client.put(f"{route}/100001", content=data[100_001:])
    assert (hole.status_code, hole.headers["x-transfer-offset"]) == (409, "100000")
    assert controller.client.put(f"{route}/50000", content=data[50_000:]).json()["transfer"]["offset"] == len(
        data
    )
    ended = controller.client.post(route, json={"sha256": hashlib.sha256(data).hexdigest()})
    assert ended.json()["transfer"]["state"] == "done", ended.text


def test_a_file_that_goes_on_after_its_archive_has_ended_is_taken_whole(
    client: CutClient, containers: Containers, controller: Controller
) -> None:
    made = containers.run("sleep 60")
    data = tar_of(file=b"x").getvalue() + bytes(3 * MIB)
    number = client.create(direction="up", target="archive", container=made, path="/data")
    send(client, number, data)
    ended = client.call("POST", f"/v1/transfers/{number}", {"sha256": hashlib.sha256(data).hexdigest()})
    assert (ended["state"], ended["size"]) == ("done", len(data))


def test_cancelling_its_job_ends_a_transfer(
    client: CutClient, controller: Controller, engine: PrivateDockerd
) -> None:
    before = settled(engine)
    number = client.create(direction="up", target="load")
    controller.client.put(f"/v1/transfers/{number}/0", content=begun_archive(MIB))
    job = client.call("GET", f"/v1/transfers/{number}")["job"]
    assert controller.client.delete(f"/v1/jobs/{job}").json()["job"]["state"] == "cancelled"
    assert "job was cancelled" in wait_state(client, number, "failed")["error"]
    part = controller.client.put(f"/v1/transfers/{number}/{MIB}", content=bytes(10))
    assert part.status_code == 409 and "job was cancelled" in part.json()["error"]["message"]
    wait_connections(engine, before)


def test_a_new_part_takes_the_place_of_one_whose_client_is_silent(
    client: CutClient, containers: Containers, controller: Controller
) -> None:
    made = containers.run("sleep 60")
    data = tar_of(file=os.urandom(300_000)).getvalue()
    route = f"/v1/transfers/{client.create(direction='up', target='archive', container=made, path='/data')}"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(controller.path))
        head = f"PUT {route}/0 HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
        silent.sendall(head.encode() + data[:200_000])
        deadline = time.monotonic() + 5
        while (offset := client.call("GET", route)["offset"]) < 200_000:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        controller.client.put(f"{route}/{offset}", content=data[offset:])
        ended = controller.client.post(route, json={"sha256": hashlib.sha256(data).hexdigest()})
        assert ended.json()["transfer"]["state"] == "done", ended.text
        silent.sendall(data[200_000:])
        silent.settimeout(5)
        assert b"409" in silent.recv(4096).split(b"\r\n")[0]


def test_who_does_not_come_back_loses_the_transfer_and_the_engine_its_request(
    engine: PrivateDockerd, containers: Containers, tmp_path: Path
) -> None:
    made = containers.run("sleep 60")
    before = settled(engine)
    with serving(tmp_path, engine.host, app=impatient, ready="/v1/jobs") as quick:
        client = CutClient(quick.path, bytes_per_s=MIB, cut_s=9)
        numbers = [
            client.create(direction="up", target="load"),
            client.create(direction="up", target="archive", container=made, path="/data"),
            client.create(direction="down", target="export", container=made),
        ]
        quick.client.put(f"/v1/transfers/{numbers[0]}/0", content=begun_archive(MIB))
        wait_connections(engine, before)
        jobs = quick.client.get("/v1/jobs").json()["jobs"]
        assert [job["state"] for job in jobs] == ["failed"]
        assert "no part of the transfer was requested" in jobs[0]["error"]["message"]
        deadline = time.monotonic() + 5
        while quick.client.get("/v1/transfers").json()["transfers"]:
            assert time.monotonic() < deadline, "an ended transfer is forgotten after as long again"
            time.sleep(0.05)


def test_what_the_engine_fails_of_reaches_the_client(client: CutClient, controller: Controller) -> None:
    number = client.create(direction="up", target="archive", container="nosuch", path="/data")
    deadline = time.monotonic() + 5
    while (
        put := controller.client.put(f"/v1/transfers/{number}/0", content=bytes(4 * MIB))
    ).status_code == 200:
        assert time.monotonic() < deadline
    assert put.status_code == 404 and "No such container" in put.json()["error"]["message"]
    number = client.create(direction="up", target="load")
    controller.client.put(f"/v1/transfers/{number}/0", content=b"no archive at all" * 10_000)
    controller.client.post(f"/v1/transfers/{number}", json={})
    failed = wait_state(client, number, "failed", "done")
    assert failed["state"] == "failed" and failed["error"]
    gone = controller.client.post(
        "/v1/transfers", json={"direction": "down", "target": "export", "container": "nosuch"}
    )
    assert gone.status_code == 404


def test_an_engine_that_packs_for_long_does_not_hold_up_who_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()

    def slowly(connection: socket.socket, head: bytes) -> None:
        del head
        go.wait(10)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nbytes")

    monkeypatch.setattr(routes_transfers, "_WAIT_S", 0.2)
    fake = ScriptedEngine(tmp_path / "engine.sock", slowly)
    with serving(tmp_path, fake.url) as served:
        client = CutClient(served.path, bytes_per_s=MIB, cut_s=9)
        number = client.create(direction="down", target="save", names=["large:1"])
        assert client.call("GET", f"/v1/transfers/{number}")["state"] == "open"
        with served.client.stream("GET", f"/v1/transfers/{number}/0") as part:
            go.set()
            assert part.read() == b"bytes"
    fake.close()


def test_an_answer_that_breaks_off_is_no_complete_part(tmp_path: Path) -> None:
    broken = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n186a0\r\n" + bytes(5000)
    fake = ScriptedEngine(tmp_path / "engine.sock", answer(broken))
    with serving(tmp_path, fake.url) as served:
        client = CutClient(served.path, bytes_per_s=MIB, cut_s=9)
        number = client.create(direction="down", target="export", container="some")
        failed = wait_state(client, number, "failed")
        assert "broke off" in failed["error"] and failed["sha256"] is None
        part = served.client.get(f"/v1/transfers/{number}/0")
        assert part.status_code == 503 and "broke off" in part.json()["error"]["message"]
    fake.close()


def test_only_so_many_are_open_and_delete_makes_room(
    client: CutClient, controller: Controller, engine: PrivateDockerd
) -> None:
    before = settled(engine)
    numbers = [client.create(direction="up", target="load") for _ in range(OPEN_LIMIT)]
    full = controller.client.post("/v1/transfers", json={"direction": "up", "target": "load"})
    assert full.status_code == 409 and "transfers are open" in full.json()["error"]["message"]
    for number in numbers:
        assert controller.client.delete(f"/v1/transfers/{number}").status_code == 204
        assert controller.client.get(f"/v1/transfers/{number}").status_code == 404
    wait_connections(engine, before)
    assert client.create(direction="up", target="load")


def test_ended_downloads_hold_no_more_than_open_ones_may(client: CutClient, controller: Controller) -> None:
    numbers = [client.create(direction="down", target="save", names=[BUSYBOX]) for _ in range(OPEN_LIMIT)]
    for number in numbers:
        client.get(number, lambda _: None)
    assert [client.call("GET", f"/v1/transfers/{number}")["state"] for number in numbers] == [
        "done"
    ] * OPEN_LIMIT
    client.create(direction="down", target="save", names=[BUSYBOX])
    kept = [client.call("GET", f"/v1/transfers/{number}") for number in numbers]
    assert [one["kept_from"] < one["offset"] for one in kept] == [False] + [True] * (OPEN_LIMIT - 1)
    assert controller.client.get(f"/v1/transfers/{numbers[0]}/0").status_code == 416


@pytest.mark.parametrize(
    ("method", "route", "body", "status", "words"),
    [
        ("POST", "", {}, 400, "direction: expected up or down"),
        ("POST", "", {"direction": "up"}, 400, "target: expected archive, load, build or volume"),
        (
            "POST",
            "",
            {"direction": "down", "target": "load"},
            400,
            "target: expected export, archive, file, logs, save, volume or volume_file",
        ),
        ("POST", "", {"direction": "up", "target": "archive", "container": "x"}, 400, "path: expected"),
        (
            "POST",
            "",
            {"direction": "up", "target": "archive", "container": "../x", "path": "/"},
            400,
            "an id",
        ),
        ("POST", "", {"direction": "down", "target": "save"}, 400, "names: expected a list"),
        ("POST", "", {"direction": "down", "target": "save", "names": ["a b"]}, 400, "an image reference"),
        ("POST", "", {"direction": "up", "target": "load", "size": -1}, 400, "size: expected"),
        ("POST", "", {"direction": "up", "target": "build", "options": 1}, 400, "options: expected"),
        ("POST", "", {"direction": "up", "target": "build", "options": {"x": 1}}, 400, "'x'; use `"),
        ("GET", "/" + "0" * 32, None, 404, "no such transfer"),
        ("PUT", "/UP/x", None, 400, "offset: expected"),
        ("PUT", "/UP/-1", None, 400, "offset: expected"),
        ("PUT", "/UP/99999999999999999999", None, 400, "offset: expected"),
        ("GET", "/UP/0", None, 405, "this is an upload"),
        ("PUT", "/DOWN/0", None, 405, "this is a download"),
        ("POST", "/DOWN", {}, 405, "only an upload"),
        ("GET", "/DOWN/0?length=x", None, 400, "length: expected"),
        ("GET", "/DOWN/0?size=1", None, 400, "'size'; use `"),
    ],
)
def test_what_is_no_transfer_is_refused_with_what_is_expected(
    client: CutClient, controller: Controller, method: str, route: str, body: Any, status: int, words: str
) -> None:
    if "UP" in route:
        route = route.replace("UP", client.create(direction="up", target="load"))
    if "DOWN" in route:
        route = route.replace("DOWN", client.create(direction="down", target="save", names=[BUSYBOX]))
    content = b"" if body is None else json.dumps(body).encode()
    answered = controller.client.request(method, f"/v1/transfers{route}", content=content)
    assert answered.status_code == status, answered.text
    assert words in answered.json()["error"]["message"]


@pytest.mark.long
@pytest.mark.timeout(400)
def test_a_quarter_of_a_gigabyte_at_3_mb_a_second_in_requests_of_20_s(
    agent: Agent, docker_client: docker.DockerClient
) -> None:
    size = 240 * 10**6
    path = agent.box.config.parent / "image.tar"
    built, _ = docker_client.images.build(
        fileobj=tar_of(Dockerfile=f"FROM {BUSYBOX}\nCOPY big /big\n".encode(), big=os.urandom(size)),
        custom_context=True,
        tag="parts:1",
    )
    with path.open("wb") as file:
        for piece in built.save(named=True):
            file.write(piece)
    docker_client.images.remove("parts:1", force=True)
    client = CutClient(Path(str(agent.box.options.socket)), bytes_per_s=3 * 10**6, cut_s=20)
    before = resident(client)
    number = client.create(direction="up", target="load", size=path.stat().st_size)
    with path.open("rb") as file:
        client.put(
            number, path.stat().st_size, lambda offset, length: os.pread(file.fileno(), length, offset)
        )
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    assert client.cuts >= 3
    client.call("POST", f"/v1/transfers/{number}", {"sha256": digest})
    assert wait_state(client, number, "done", "failed", limit_s=60)["state"] == "done"
    assert resident(client) - before < 8 * MIB
    client.cuts, before = 0, resident(client)
    number = client.create(direction="down", target="save", names=["parts:1"])
    got = hashlib.sha256()
    assert client.get(number, got.update) > size and client.cuts >= 3
    assert client.call("GET", f"/v1/transfers/{number}")["sha256"] == got.hexdigest()
    assert resident(client) - before < 8 * MIB
    docker_client.images.remove("parts:1", force=True)


def resident(client: CutClient) -> int:
    line = next(line for line in client.text("/metrics").splitlines() if line.startswith("process_resident"))
    return int(float(line.split()[1]))


@pytest.fixture
def agent(box: Box) -> Iterator[Agent]:
    made = Agent(box)
    made.commit("")
    made.start()
    yield made
    made.end()
