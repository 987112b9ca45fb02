# SPDX-License-Identifier: GPL-2.0-or-later
"""Logs, stats, events, export and archives through the control socket, over a real engine."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import io
import json
import os
import re
import socket
import tarfile
import time

import docker
import httpx
import pytest

from agent.api.streams import logs
from agent.engine.stream import DockerStream
from agent.status.board import StatusBoard
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


def test_a_log_is_searched_and_ranged_by_the_agent(controller: Controller, containers: Containers) -> None:
    made = containers.finished(
        "echo ERROR one; echo fine; echo 'an error, two' >&2; printf 'no end: Error'; sleep 1.2; echo error late"
    )
    url = f"/v1/containers/{made}/logs"
    found = controller.client.get(url, params={"grep": "eRRor"}).text
    assert sorted(found.split("\n")) == ["", "ERROR one", "an error, two", "no end: Errorerror late"]
    stamped = controller.client.get(url, params={"timestamps": 1, "tail": 1}).text
    stamp, _, text = stamped.rstrip("\n").partition(" ")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", stamp) and "error late" in text
    assert controller.client.get(url, params={"timestamps": 1, "grep": stamp[:10]}).text == ""
    for option, expected in (("since", [text]), ("until", [text])):  # the engine counts both ends in
        assert text in controller.client.get(url, params={option: stamp, "stdout": 1}).text, (
            option,
            expected,
        )
    assert controller.client.get(url, params={"since": "1h"}).text.count("\n") == 4
    saved = controller.client.get(url, params={"download": 1, "grep": "one"})
    assert saved.text == "ERROR one\n" and "attachment" in saved.headers["content-disposition"]
    for wrong in ({"since": "yesterday"}, {"tail": "-1"}, {"grep": "x" * 300}, {"format": "xml"}):
        refused = controller.client.get(url, params=wrong)
        assert refused.status_code == 400 and next(iter(wrong)) in refused.json()["message"]


def test_a_search_reads_no_more_than_its_bound(
    controller: Controller, containers: Containers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "SEARCH_BYTES", 100_000)
    monkeypatch.setattr(logs, "SEARCH_LINES", "10")
    made = containers.finished("seq 1 50000")
    url = f"/v1/containers/{made}/logs"
    with contextlib.suppress(httpx.RemoteProtocolError):  # on a slow machine the answer has begun, and is cut
        assert controller.client.get(url, params={"grep": "no such text"}).status_code == 413
    assert controller.client.get(url, params={"grep": "49999", "tail": 100}).text == "49999\n"
    assert controller.client.get(url, params={"grep": "9", "follow": 1}).text.split() == [
        str(number) for number in range(49991, 50000)
    ]


def test_logs_of_several_containers_are_merged_by_time(
    controller: Controller, containers: Containers
) -> None:
    one = containers.run("for i in 1 3 5; do echo $i; sleep 0.2; done", name="one-log")
    other = containers.run("sleep 0.1; for i in 2 4 6; do echo $i >&2; sleep 0.2; done", name="other-log")
    for follow in (1, 0):  # first while they run
        query = {"containers": f"one-log,{other}", "format": "ndjson", "follow": follow}
        lines = [json.loads(line) for line in controller.client.get("/v1/logs", params=query).iter_lines()]
        stamps = [line["time"] for line in lines]
        assert stamps == sorted(stamps) and all(len(stamp) == 30 for stamp in stamps)
        assert {(line["container"], line["stream"]) for line in lines} == {
            ("one-log", "stdout"),
            (other, "stderr"),
        }
        assert sorted(line["text"] for line in lines) == list("123456")
    text = controller.client.get("/v1/logs", params={"containers": "other-log,one-log", "tail": 1}).text
    assert sorted(text.splitlines()) == ["one-log   | 5", "other-log | 6"]
    refused = controller.client.get("/v1/logs", params={"containers": f"{one},no-such"})
    assert refused.status_code == 404 and "no-such" in refused.json()["message"]
    assert controller.client.get("/v1/logs").status_code == 400


def test_one_answer_has_the_newest_lines(engine: PrivateDockerd, containers: Containers) -> None:
    made = containers.finished("seq 1 20000")

    def answer(**asked: object) -> tuple[list[str], int]:
        found = asyncio.run(
            logs.last_lines(
                DockerStream(engine.host), StatusBoard(time.time), {"containers": [made], **asked}
            )
        )
        return [line["text"] for line in found["lines"]], found["left_out"]

    assert answer()[0] == [str(number) for number in range(19801, 20001)]
    assert len(json.dumps(answer(tail="all")[0])) < 1 << 18 and answer(tail="all")[0][-1] == "20000"
    assert answer(grep="9999")[0] == ["9999", "19999"]
    assert answer(grep="1")[1] > 0  # more than fits


@pytest.mark.long
def test_a_followed_log_goes_on_after_a_restart(
    controller: Controller, containers: Containers, docker_client: docker.DockerClient
) -> None:
    made = containers.run("trap exit TERM; echo $$-$(cat /proc/uptime | tr -d ' '); sleep 100 & wait")
    url = f"/v1/containers/{made}/logs?follow=1"
    with controller.client.stream("GET", url, timeout=30) as response:
        lines = response.iter_lines()
        seen = [next(lines)]
        for _ in range(2):
            docker_client.containers.get(made).restart(timeout=5)
            seen.append(next(lines))
        docker_client.containers.get(made).stop(timeout=5)
        assert list(lines) == []
    assert controller.client.get(f"/v1/containers/{made}/logs").text.split() == seen


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
