# SPDX-License-Identifier: GPL-2.0-or-later
"""Logs, stats, events, export and archives through the control socket, over a real engine."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import socket
import tarfile
import time

import docker

from tests.api.conftest import Containers
from tests.support.connections import connections, settled, wait_connections
from tests.support.controller import Controller, sse_events
from tests.support.dockerd import BUSYBOX, PrivateDockerd, unpacks_safely

TALK = "echo out1; echo err1 >&2; printf 'caf\\303\\251\\n'; echo out3"


def tar_of(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def test_logs_come_without_frames_and_by_stream(controller: Controller, containers: Containers) -> None:
    made = containers.finished(TALK)
    url = f"/v1/containers/{made}/logs"
    everything = controller.client.get(url)
    assert sorted(everything.text.split()) == ["café", "err1", "out1", "out3"]
    assert everything.headers["content-type"] == "text/plain; charset=utf-8"
    assert controller.client.get(url, params={"stderr": 1}).text == "err1\n"
    assert controller.client.get(url, params={"stdout": 1}).text == "out1\ncafé\nout3\n"
    assert len(controller.client.get(url, params={"tail": 2}).text.splitlines()) == 2
    lines = [
        json.loads(line) for line in controller.client.get(url, params={"format": "ndjson"}).iter_lines()
    ]
    assert {"stream": "stderr", "text": "err1\n"} in lines
    assert "".join(line["text"] for line in lines if line["stream"] == "stdout") == "out1\ncafé\nout3\n"


def test_logs_of_a_terminal_have_no_frames_to_begin_with(
    controller: Controller, containers: Containers
) -> None:
    made = containers.finished(TALK, tty=True)
    assert "caf\xe9\r\nout3\r\n" in controller.client.get(f"/v1/containers/{made}/logs").text


def test_logs_follow_until_the_container_ends(controller: Controller, containers: Containers) -> None:
    made = containers.run("for i in 1 2 3; do echo $i; sleep 0.3; done; echo no >&2")
    url = f"/v1/containers/{made}/logs?follow=1"
    with controller.client.stream("GET", url, headers={"accept": "text/event-stream"}) as response:
        got = list(sse_events(response.iter_lines()))
    assert [(name, data) for name, data, _ in got] == [
        ("stdout", "1\n"),
        ("stdout", "2\n"),
        ("stdout", "3\n"),
        ("stderr", "no\n"),
        ("end", {}),
    ]


def test_a_reader_that_leaves_ends_the_engines_request(
    controller: Controller, containers: Containers, engine: PrivateDockerd
) -> None:
    made = containers.run("echo hello; sleep 60")
    before = settled(engine)
    for form in ("text", "sse", "ndjson"):
        url = f"/v1/containers/{made}/logs?follow=1&format={form}"
        with controller.client.stream("GET", url) as response:
            pieces = response.iter_raw()  # kept: httpx closes the response with its iterator
            assert b"hello" in next(pieces)
            assert connections(engine) == before + 1
        wait_connections(engine, before)


def test_the_engines_own_words_and_status_reach_the_client(
    controller: Controller, containers: Containers
) -> None:
    gone = controller.client.get("/v1/containers/nosuch/logs")
    assert (gone.status_code, gone.json()["error"]["message"]) == (404, "No such container: nosuch")
    assert controller.client.get("/v1/containers/nosuch/export").status_code == 404
    assert controller.client.get("/v1/images/get?names=nosuch:1").status_code in (404, 500)
    made = containers.finished("true")
    bad = controller.client.get(f"/v1/containers/{made}/logs?since=y")
    assert bad.status_code == 400 and "'y'" in bad.json()["error"]["message"]
    missing = controller.client.get(f"/v1/containers/{made}/archive?path=/none")
    assert missing.status_code == 404 and "/none" in missing.json()["error"]["message"]


def test_stats_once_and_as_a_stream(controller: Controller, containers: Containers) -> None:
    made = containers.run("sleep 60")
    once = controller.client.get(f"/v1/containers/{made}/stats?stream=0&one-shot=1").json()
    assert once["memory_stats"]["usage"] > 0
    assert once.get("id", made) == made  # from 26 on an engine leaves it out where it reads once
    with controller.client.stream("GET", f"/v1/containers/{made}/stats?format=sse") as response:
        events = sse_events(response.iter_lines())
        name, data, _ = next(events)
        assert (name, data["id"]) == ("stats", made)


def test_events_of_the_engine_and_of_the_agent_are_one_stream_that_resumes(
    controller: Controller, containers: Containers
) -> None:
    def board(text: str) -> None:
        controller.agent.board.set_agent(test=text)

    with controller.client.stream("GET", "/v1/events") as response:
        events = sse_events(response.iter_lines())
        board("one")
        name, data, number = next(events)
        assert (name, data["agent"]["test"]) == ("change", "one")
        made = containers.finished("true")
        while not (name == "engine" and data["Action"] == "create"):
            name, data, number = next(events)
        assert data["Actor"]["ID"] == made
    board("two")
    with controller.client.stream("GET", "/v1/events", headers={"last-event-id": number}) as response:
        got = []
        for name, data, _ in sse_events(response.iter_lines()):
            got.append(data["agent"]["test"] if name == "change" else data["Action"])
            if {"two", "die"} <= set(got):
                break
    assert "create" not in got and "one" not in got and got.count("two") == 1


def test_an_export_is_whole(
    controller: Controller, containers: Containers, docker_client: docker.DockerClient
) -> None:
    made = containers.finished("dd if=/dev/urandom of=/data/big bs=1048576 count=40 2>/dev/null")
    digest, size = hashlib.sha256(), 0
    with controller.client.stream("GET", f"/v1/containers/{made}/export") as response:
        assert response.headers["content-type"] == "application/octet-stream"
        assert response.headers["content-disposition"] == f'attachment; filename="{made[:12]}_export.tar"'
        for piece in response.iter_raw():
            digest.update(piece)
            size += len(piece)
    direct = hashlib.sha256()
    for piece in docker_client.containers.get(made).export():
        direct.update(piece)
    assert size > 40 * 2**20 and digest.hexdigest() == direct.hexdigest()


def test_files_go_in_and_come_out(controller: Controller, containers: Containers) -> None:
    made = containers.run("sleep 60")
    data = os.urandom(3_000_000)
    url = f"/v1/containers/{made}/archive"
    put = controller.client.put(url, params={"path": "/data"}, content=tar_of("file", data))
    assert put.status_code == 204, put.text
    got = controller.client.get(url, params={"path": "/data/file"})
    assert "x-docker-container-path-stat" in got.headers
    with tarfile.open(fileobj=io.BytesIO(got.content)) as tar:
        member = tar.extractfile("file")
        assert member is not None and member.read() == data


def test_packed_archives_do_not_reach_an_old_engine(controller: Controller, containers: Containers) -> None:
    made = containers.run("sleep 60")
    packed = gzip.compress(tar_of("file", os.urandom(5000)))
    put = controller.client.put(f"/v1/containers/{made}/archive?path=/data", content=packed)
    if unpacks_safely():
        assert put.status_code == 204
        return
    assert put.status_code == 415 and "plain tar" in put.json()["error"]["message"]
    assert controller.client.get(f"/v1/containers/{made}/archive?path=/data/file").status_code == 404


def test_an_upload_that_is_cut_leaves_nothing(
    controller: Controller, containers: Containers, engine: PrivateDockerd
) -> None:
    made = containers.run("sleep 60")
    before = settled(engine)
    archive = tar_of("cut", os.urandom(2_000_000))
    head = f"PUT /v1/containers/{made}/archive?path=/data HTTP/1.1\r\nHost: localhost\r\n"
    head += f"Content-Length: {len(archive)}\r\n\r\n"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(controller.path))
        client.sendall(head.encode() + archive[:1_000_000])
        time.sleep(0.3)
    wait_connections(engine, before)


def test_images_are_saved(controller: Controller) -> None:
    got = controller.client.get("/v1/images/get", params={"names": BUSYBOX})
    with tarfile.open(fileobj=io.BytesIO(got.content)) as tar:
        assert "manifest.json" in tar.getnames()
