# SPDX-License-Identifier: GPL-2.0-or-later
"""Jobs over a real engine and a real registry: progress, results, failures, cancel, and what outlives what."""

from __future__ import annotations

import io
import json
import os
import socket
import struct
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import docker
import pytest

from agent.model.resources import RegistryAuth
from tests.api.conftest import Containers
from tests.support.agent_process import wait_for
from tests.support.connections import settled, wait_connections
from tests.support.controller import Controller, sse_events
from tests.support.dockerd import BUSYBOX, PrivateDockerd
from tests.support.registry import PASSWORD, USER, Registry, Throttle, is_installed

BIG = 6 * 1024 * 1024

needs_registry = pytest.mark.skipif(not is_installed(), reason="docker-registry is not installed")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    made = Registry(tmp_path_factory.mktemp("registry"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def locked_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    made = Registry(tmp_path_factory.mktemp("locked"), with_login=True)
    yield made
    made.close()


@pytest.fixture(scope="module")
def big(engine: PrivateDockerd) -> Iterator[str]:
    """An image of two layers that do not compress: busybox, and BIG random bytes."""
    client = docker.DockerClient(base_url=engine.host, version="auto")
    client.images.build(
        fileobj=context(f"FROM {BUSYBOX}\nCOPY big /big\n", big=os.urandom(BIG)),
        custom_context=True,
        tag="big:1",
    )
    yield "big:1"
    client.images.remove("big:1", force=True)
    client.close()


def context(dockerfile: str, **files: bytes) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in {"Dockerfile": dockerfile.encode(), **files}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    buffer.seek(0)
    return buffer


def start(controller: Controller, **body: object) -> dict[str, Any]:
    answer = controller.client.post("/v1/jobs", json=body)
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()["job"]
    return job


def follow(
    controller: Controller, number: str, last: str = "", until: Callable[[Any], bool] = lambda _: False
) -> list[tuple[str, Any, str]]:
    """The events of a job until its stream ends, or until one of them satisfies `until`."""
    events = []
    headers = {"last-event-id": last} if last else {}
    with controller.client.stream("GET", f"/v1/jobs/{number}/stream", headers=headers) as response:
        for event in sse_events(response.iter_lines()):
            events.append(event)
            if until(event):
                break
    return events


def finished(controller: Controller, number: str) -> dict[str, Any]:
    events = follow(controller, number)
    assert events[-1][0] == "end"
    job: dict[str, Any] = controller.client.get(f"/v1/jobs/{number}").json()["job"]
    assert [data for name, data, _ in events if name == "job"][-1] == job
    return job


def test_a_push_and_a_pull_show_bytes_that_add_up(
    controller: Controller, registry: Registry, big: str, docker_client: docker.DockerClient
) -> None:
    door = Throttle(registry.port, bytes_per_s=BIG)
    name = f"{door.address}/push/big:1"
    docker_client.images.get(big).tag(name)
    pushed = finished(controller, start(controller, kind="push", image=name)["id"])
    assert pushed["state"] == "succeeded" and pushed["error"] is None, pushed
    assert pushed["result"]["digest"].startswith("sha256:")
    assert BIG < pushed["progress"]["bytes_done"] == pushed["progress"]["bytes_total"] < 2 * BIG
    docker_client.images.remove(name)
    docker_client.images.remove(big, force=True)
    job = start(controller, kind="pull", image=name)
    shown = [data["progress"] for kind, data, _ in follow(controller, job["id"]) if kind == "job"]
    assert len(shown) > 4, "progress was not seen while the job ran"
    numbers = [(p["bytes_done"], p["percent"] or 0) for p in shown]
    assert numbers == sorted(numbers) and numbers[-1][1] == 100 and numbers[0][1] < 50
    assert shown[-1]["layers_done"] >= 1 and shown[-1]["bytes_done"] > BIG
    assert finished(controller, job["id"])["result"]["digest"] == pushed["result"]["digest"]
    docker_client.images.get(name).tag(big)
    docker_client.images.remove(name)
    door.close()


def test_a_job_outlives_who_asked_for_it_and_its_stream_resumes(
    controller: Controller, docker_client: docker.DockerClient
) -> None:
    body = context(f"FROM {BUSYBOX}\n" + "".join(f"RUN echo say-{n}; sleep 0.2\n" for n in range(3)))
    answer = controller.client.put("/v1/builds?t=talk:1", content=body.getvalue())
    number = answer.json()["job"]["id"]
    first = follow(controller, number, until=lambda event: "say-0" in event[1].get("text", ""))
    rest = follow(controller, number, last=first[-1][2])
    texts = [data["text"] for name, data, _ in first + rest if name == "message"]
    assert [text for text in texts if text.startswith("say-")] == ["say-0", "say-1", "say-2"]
    assert texts.count(f"Step 1/4 : FROM {BUSYBOX}") == 1
    ids = [int(event_id) for name, _, event_id in first + rest if name != "end"]
    assert ids == sorted(set(ids)), "ids grow, and none comes twice"
    job = finished(controller, number)
    assert job["state"] == "succeeded" and job["progress"]["percent"] == 100
    assert docker_client.images.get("talk:1").id == job["result"]["image_id"]
    again = follow(controller, number, last=str(job["version"]))
    assert [name for name, _, _ in again] == ["end"]
    docker_client.images.remove("talk:1")


def test_an_import_fetches_a_file_system(
    controller: Controller, docker_client: docker.DockerClient, tmp_path: Path
) -> None:
    (tmp_path / "rootfs.tar").write_bytes(context("no Dockerfile to it", note=b"imported").getvalue())
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        source = f"http://127.0.0.1:{server.server_port}/rootfs.tar"
        job = finished(controller, start(controller, kind="import", source=source, image="fetched:2")["id"])
        gone = finished(controller, start(controller, kind="import", source=f"{source}x", image="a")["id"])
        server.shutdown()
    assert (job["state"], job["title"], job["progress"]["percent"]) == ("succeeded", "fetched:2", 100)
    assert len(docker_client.images.get("fetched:2").history()) == 1
    assert gone["state"] == "failed" and "404" in gone["error"]["message"]
    docker_client.images.remove("fetched:2")


def test_an_error_line_in_a_stream_that_began_well_is_a_failed_job(
    controller: Controller, docker_client: docker.DockerClient
) -> None:
    body = context(f"FROM {BUSYBOX}\nRUN echo fine\nRUN false\n")
    answer = controller.client.put("/v1/builds?t=never:1", content=body.getvalue())
    job = finished(controller, answer.json()["job"]["id"])
    assert (job["state"], job["error"]["code"]) == ("failed", "engine")
    assert "returned a non-zero code: 1" in job["error"]["message"]
    assert job["progress"]["percent"] < 100


def test_a_registry_that_is_away_fails_the_job_with_the_engines_words(controller: Controller) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    job = finished(controller, start(controller, kind="pull", image=f"127.0.0.1:{port}/no/thing")["id"])
    assert job["state"] == "failed" and "connection refused" in job["error"]["message"]


def test_cancel_ends_the_pull_in_the_engine(
    controller: Controller,
    registry: Registry,
    big: str,
    engine: PrivateDockerd,
    docker_client: docker.DockerClient,
) -> None:
    free = Throttle(registry.port, bytes_per_s=2**30)
    name = f"{free.address}/cancel/big:1"
    docker_client.images.get(big).tag(name)
    assert finished(controller, start(controller, kind="push", image=name)["id"])["state"] == "succeeded"
    docker_client.images.remove(name)
    docker_client.images.remove(big, force=True)
    before = settled(engine)
    free.bytes_per_s = BIG // 8
    job = start(controller, kind="pull", image=name)
    follow(
        controller,
        job["id"],
        until=lambda event: event[0] == "job" and event[1]["progress"]["bytes_done"] > 0,
    )
    answer = controller.client.delete(f"/v1/jobs/{job['id']}")
    assert answer.json()["job"]["state"] == "cancelled" and answer.json()["job"]["error"] is None
    wait_connections(engine, before)
    deadline, carried = time.monotonic() + 10, -1
    while free.open and free.carried != carried:  # engines from 29 on keep an idle connection
        assert time.monotonic() < deadline, "the engine still pulls"
        carried = free.carried
        time.sleep(0.5)
    assert controller.client.delete(f"/v1/jobs/{job['id']}").status_code == 409
    free.bytes_per_s = 2**30
    assert finished(controller, start(controller, kind="pull", image=name)["id"])["state"] == "succeeded"
    docker_client.images.get(name).tag(big)
    docker_client.images.remove(name)
    free.close()


@pytest.mark.parametrize("source", ["uci", "request"])
def test_logins_come_from_uci_or_the_request_and_are_never_shown(
    controller: Controller,
    locked_registry: Registry,
    docker_client: docker.DockerClient,
    source: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    name = f"{locked_registry.address}/private/{source}:1"
    docker_client.images.get(BUSYBOX).tag(name)
    caplog.set_level("DEBUG")
    refused = finished(controller, start(controller, kind="push", image=name)["id"])
    assert refused["state"] == "failed" and "auth" in refused["error"]["message"]
    body: dict[str, object] = {"kind": "push", "image": name}
    if source == "uci":
        controller.agent.logins = (
            RegistryAuth(server="other.lan", username="x", password="y"),
            RegistryAuth(server=locked_registry.address, username=USER, password=PASSWORD),
        )
    else:
        body["auth"] = {"username": USER, "password": PASSWORD}
    job = start(controller, **body)
    events = follow(controller, job["id"])
    controller.agent.logins = ()
    assert events[-2][1]["state"] == "succeeded", events[-2]
    shown = json.dumps([events, controller.client.get("/v1/jobs").json()]) + caplog.text
    assert PASSWORD not in shown and USER not in shown
    docker_client.images.remove(name)


def test_images_are_loaded_as_they_come(
    controller: Controller, docker_client: docker.DockerClient, big: str
) -> None:
    archive = b"".join(docker_client.images.get(big).save(named=True))
    docker_client.images.remove(big, force=True)
    answer = controller.client.put("/v1/images/load", content=archive)
    assert answer.status_code == 202
    job = finished(controller, answer.json()["job"]["id"])
    assert job["state"] == "succeeded" and job["result"]["images"] == [big], job
    assert job["progress"]["bytes_done"] == job["progress"]["bytes_total"] == len(archive)
    assert docker_client.images.get(big)


def test_progress_is_seen_while_an_upload_is_still_under_way(
    controller: Controller, docker_client: docker.DockerClient, big: str
) -> None:
    archive = b"".join(docker_client.images.get(big).save(named=True))
    go = threading.Event()

    def slowly() -> Iterator[bytes]:
        yield archive[: BIG // 2]
        go.wait(10)
        yield archive[BIG // 2 :]

    answers: list[Any] = []
    headers = {"content-length": str(len(archive))}
    sender = threading.Thread(
        target=lambda: answers.append(
            controller.client.put("/v1/images/load", content=slowly(), headers=headers)
        )
    )
    sender.start()
    try:
        job = running(controller, "load")
        seen = follow(
            controller,
            job["id"],
            until=lambda e: e[0] == "job" and e[1]["progress"]["bytes_done"] >= BIG // 2,
        )[-1][1]
        assert seen["state"] == "running" and 10 <= seen["progress"]["percent"] < 50
    finally:
        go.set()
        sender.join(20)
    assert finished(controller, answers[0].json()["job"]["id"])["state"] == "succeeded"


def running(controller: Controller, kind: str) -> dict[str, Any]:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for job in controller.client.get("/v1/jobs").json()["jobs"]:
            if job["kind"] == kind and job["state"] == "running":
                return dict(job)
        time.sleep(0.02)
    raise AssertionError(f"no {kind} job runs")


@pytest.mark.variants(4)
@pytest.mark.parametrize("route", ["/v1/images/load", "/v1/builds?t=cut:1", "archive"])
@pytest.mark.parametrize(
    ("at", "way"), [(100, "close"), (700, "reset"), (300_000, "shut"), (300_000, "reset")]
)
def test_an_upload_that_is_cut_ends_the_engines_request_and_fails_the_job(
    controller: Controller, containers: Containers, engine: PrivateDockerd, route: str, at: int, way: str
) -> None:
    body = context(f"FROM {BUSYBOX}\nCOPY big /big\n", big=os.urandom(600_000)).getvalue()
    if route == "archive":
        route = f"/v1/containers/{containers.run('sleep 60')}/archive?path=/data"
    before = settled(engine)
    folder = engine.root / "data" / "tmp"
    files = set(folder.iterdir())  # an engine keeps some of its own there
    number = ""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(controller.path))
        head = f"PUT {route} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body[:at])
        if "containers" not in route:
            number = running(controller, "load" if "load" in route else "build")["id"]
        if way == "shut":  # less than its Content-Length said
            client.shutdown(socket.SHUT_WR)
            wait_connections(engine, before)
        elif way == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if number:
        job = finished(controller, number)
        assert (job["state"], job["error"]["code"]) == ("failed", "upload")
        assert "disconnected" in job["error"]["message"]
    wait_connections(engine, before)
    wait_for(lambda: set(folder.iterdir()) <= files)


def test_what_is_no_image_archive_fails_with_the_engines_words(controller: Controller) -> None:
    answer = controller.client.put("/v1/images/load", content=context("FROM x\n").getvalue())
    job = finished(controller, answer.json()["job"]["id"])
    assert job["state"] == "failed" and job["error"]["message"]


def test_prune_leaves_what_uci_manages(
    controller: Controller, containers: Containers, docker_client: docker.DockerClient
) -> None:
    ours = containers.finished("true", labels={"ucidockd.owner": "ucidockd"})
    litter = docker_client.containers.run(BUSYBOX, ["true"], detach=True, network_mode="none")
    litter.wait()
    job = finished(controller, start(controller, kind="prune", what="containers")["id"])
    assert job["state"] == "succeeded" and job["result"]["deleted"] == 1, job
    left = [c.id for c in docker_client.containers.list(all=True)]
    assert ours in left and litter.id not in left


@pytest.mark.parametrize(
    ("what", "everything"),  # all images would take the tests' own
    [
        ("images", False),
        ("networks", False),
        ("volumes", False),
        ("volumes", True),
        ("build", False),
        ("build", True),
    ],
)
def test_every_kind_of_prune_is_one_that_the_engine_takes(
    controller: Controller, docker_client: docker.DockerClient, what: str, everything: bool
) -> None:
    made = docker_client.volumes.create("managed", labels={"ucidockd.owner": "ucidockd"})
    named = docker_client.volumes.create("named")
    old = tuple(map(int, docker_client.api.version()["ApiVersion"].split("."))) < (1, 42)
    job = finished(
        controller, start(controller, kind="prune", what=what, **({"all": True} if everything else {}))["id"]
    )
    if what == "volumes" and old:  # it would take named volumes without being told to
        assert job["state"] == "failed" and "an engine with API 1.42" in job["error"]["message"]
    else:
        assert job["state"] == "succeeded", job
    left = docker_client.volumes.list()
    assert made in left and (named in left or (what == "volumes" and everything))
    for volume in left:
        volume.remove()


def test_a_file_that_goes_on_after_its_archive_has_ended_is_taken_whole(
    controller: Controller, docker_client: docker.DockerClient
) -> None:
    archive = b"".join(docker_client.images.get(BUSYBOX).save(named=True)) + bytes(3_000_000)
    answer = controller.client.put("/v1/images/load", content=archive)
    assert answer.status_code == 202
    assert finished(controller, answer.json()["job"]["id"])["state"] == "succeeded"


def test_a_job_cancelled_during_its_upload_answers_at_once(
    controller: Controller, engine: PrivateDockerd
) -> None:
    before = settled(engine)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(controller.path))
        # an archive: engines from 29 on refuse anything else at once
        entry = tarfile.TarInfo("layer.tar")
        entry.size = 4_000_000
        client.sendall(
            b"PUT /v1/images/load HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n"
            + entry.tobuf()
            + bytes(99_000)
        )
        number = running(controller, "load")["id"]
        assert controller.client.delete(f"/v1/jobs/{number}").json()["job"]["state"] == "cancelled"
        head, _, body = client.recv(65536).partition(b"\r\n\r\n")
        assert b" 202 " in head and json.loads(body)["job"]["state"] == "cancelled"
    wait_connections(engine, before)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "kind: expected one of build, import, prune, pull, push"),
        ({"kind": "load"}, "/v1/images/load"),
        ({"kind": ["pull"]}, "kind: expected text"),
        ({"kind": "pull"}, "an image reference"),
        ({"kind": "pull", "image": "a b"}, "an image reference"),
        ({"kind": "pull", "image": "../../etc"}, "an image reference"),
        ({"kind": "pull", "image": "x\r\nHost: y"}, "control characters"),
        ({"kind": "pull", "image": "x", "tags": []}, "'tags'; use `"),
        ({"kind": "pull", "image": "x", "auth": "me"}, "auth: expected an object"),
        ({"kind": "pull", "image": "x", "auth": {"user": "me"}}, "'user'; use `"),
        ({"kind": "push", "image": "x@sha256:" + "0" * 64}, "not a digest"),
        ({"kind": "build"}, "remote: expected an address"),
        ({"kind": "build", "remote": "file:///etc/passwd"}, "remote: expected an address"),
        ({"kind": "build", "remote": "git://-oProxyCommand=x"}, "remote: expected an address"),
        ({"kind": "import", "image": "a:1"}, "source: expected an address"),
        ({"kind": "import", "source": "file:///etc/shadow", "image": "a:1"}, "source: expected an address"),
        ({"kind": "import", "source": "https://x/a.tar"}, "an image reference"),
        ({"kind": "build", "remote": "https://x", "tags": "x"}, "tags: expected a list"),
        ({"kind": "build", "remote": "https://x", "nocache": 1}, "nocache: expected true or false"),
        ({"kind": "prune", "what": "everything"}, "what: expected one of"),
        (
            {"kind": "prune", "what": "networks", "all": True},
            "all: applies to images, volumes and build only",
        ),
    ],
)
def test_what_cannot_be_a_job_is_refused_with_what_is_expected(
    controller: Controller, body: dict[str, object], words: str
) -> None:
    answer = controller.client.post("/v1/jobs", json=body)
    assert answer.status_code == 400 and words in answer.json()["error"]["message"]


def test_a_job_that_is_not_there_is_a_404(controller: Controller) -> None:
    for method, path in (("GET", ""), ("GET", "/stream"), ("DELETE", "")):
        answer = controller.client.request(method, f"/v1/jobs/{'0' * 32}{path}")
        assert answer.status_code == 404 and "no such job" in answer.json()["error"]["message"]
