# SPDX-License-Identifier: GPL-2.0-or-later
"""A secret in every place of every answer: no route, method or stream that a reader may use gives it away."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.api.engine_calls import BUS_CALLS, ReplyKind
from agent.api.jobs.job_specs import parse_job
from agent.api.jobs.jobs import Job
from agent.api.rules import Need, Rule
from agent.api.ubus.docker import signature
from agent.status.conditions import ConditionType
from tests.attacks.test_sessions import filled
from tests.model.test_secrets import PLACES, S
from tests.support.docker_bus import docker_on
from tests.support.fake_rpcd import ADMIN
from tests.support.fake_rpcd import READER as RPCD_READER
from tests.support.scripted_engine import ScriptedEngine
from tests.support.tcp import READ, WRITE, TcpController

# what a container prints is a reader's to see as it is, and so is what only tells numbers (docs/security.md)
AS_PRINTED = ("/logs", "/stats", "/wait", "/_ping", "/healthz", "/metrics")


def speak(connection: socket.socket, head: bytes) -> None:
    """The planted answer, once as an object and for events as a line."""
    if head.startswith(b"GET /networks "):  # who is a container is asked by this
        body = b"[]"
    elif b"/events" in head:
        body = json.dumps({**PLACES, **PLACES["Events"][0], "timeNano": 5}).encode() + b"\n"
    elif b"/history" in head:
        body = json.dumps(PLACES["History"]).encode()
    else:
        body = json.dumps(PLACES).encode()
    connection.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )


@pytest.fixture
def tcp(tmp_path: Path) -> Iterator[TcpController]:
    engine = ScriptedEngine(tmp_path / "engine.sock", speak)
    made = TcpController(engine, tmp_path)
    made.want("127.0.0.1:0")
    board = made.agent.board
    board.ensure("container:web")
    board.set(
        "container:web",
        ConditionType.SYNCED,
        status=False,
        reason="Pending",
        message=f"command: redis --requirepass {S} -> mysql -p{S}",
        details={"output": f"GENERATED ROOT PASSWORD: {S}"},
    )
    board.note("container:web", "x", cause=f"Bearer {S}", ok=False, error=f"//u:{S}@h")
    board.set_agent(engine={"reachable": False, "error": f"proxy http://u:{S}@h"}, warnings=[f"token={S}"])
    yield made
    made.close()
    engine.close()


def text_of(client: httpx.Client, rule: Rule) -> str:
    """What comes in the first moments: streams have no end."""
    found = b""
    with client.stream(rule.method, filled(rule)) as answer:
        assert answer.status_code < 500, answer.read()
        try:
            for piece in answer.iter_raw():
                found += piece
        except httpx.TimeoutException:
            pass
    return found.decode()


def test_no_route_gives_a_reader_a_secret(tcp: TcpController) -> None:
    asked = [
        rule
        for rule in tcp.rules
        if rule.grant.need is Need.READ and rule.method == "GET" and not rule.path.endswith(AS_PRINTED)
    ]
    assert len(asked) > 25
    # several at once: each stream takes until its time-out
    with tcp.client(READ, timeout=httpx.Timeout(10, read=1.0)) as reader, ThreadPoolExecutor(6) as pool:
        for rule, text in zip(asked, pool.map(lambda rule: text_of(reader, rule), asked), strict=True):
            assert S not in text, rule.path


def test_a_writer_and_root_get_what_the_engine_says(tcp: TcpController) -> None:
    with tcp.client(WRITE) as writer:
        for client in (writer, tcp.control.client):
            assert client.get("/docker/containers/c/json").json() == PLACES
            assert client.get("/docker/images/a/history").json() == PLACES["History"]
            assert S in client.get("/docker/events").text
        assert S not in writer.get("/v1/status").text, "a status has none for anybody"


def test_an_answer_that_is_too_large_to_be_looked_through_holds_nobody_up(tcp: TcpController) -> None:
    large = json.dumps({"Config": {"Labels": {f"l{n}": "x y=z " * 20 for n in range(90_000)}}}).encode()
    assert len(large) > 8_000_000

    def long(connection: socket.socket, head: bytes) -> None:
        body = (
            b"[]"
            if head.startswith(b"GET /networks ")
            else large
            if b"/large" in head
            else large[:-3_000_000]
        )
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    tcp.engine._script = long
    with tcp.client(READ, timeout=30) as reader:
        answer = reader.get("/docker/images/large/json")
    assert answer.status_code == 502 and "larger than 4 MiB" in answer.json()["message"]


def test_a_large_answer_is_masked_beside_the_event_loop(tcp: TcpController) -> None:
    large = json.dumps(
        {"Labels": {f"l{n}": f"x y=z {n} " * 4 for n in range(12_000)}, "Cmd": ["--token", S]}
    ).encode()

    def long(connection: socket.socket, head: bytes) -> None:
        body = b"[]" if head.startswith(b"GET /networks ") else large
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    tcp.engine._script = long
    worst = 0.0

    async def beats() -> None:
        nonlocal worst
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.01)
            worst = max(worst, time.monotonic() - began)

    async def ended(task: asyncio.Task[None]) -> None:
        task.cancel()
        await asyncio.wait({task})

    async def started() -> asyncio.Task[None]:
        return asyncio.create_task(beats())

    task = tcp.thread.run(started())
    with tcp.client(READ, timeout=60) as reader:
        began = time.monotonic()
        answer = reader.get("/docker/images/a/json")
        took = time.monotonic() - began
    tcp.thread.run(ended(task))
    assert answer.status_code == 200 and S not in answer.text
    assert worst < max(1, took / 2), f"the loop stood still for {worst:.2f} s of {took:.2f} s"


def test_no_method_on_ubus_gives_a_reader_a_secret(tmp_path: Path) -> None:
    async def run() -> None:
        engine = ScriptedEngine(tmp_path / "engine.sock", speak)
        async with docker_on(tmp_path / "ubus.sock", engine.url) as made:
            made.bus.rpcd.rights[RPCD_READER] = {
                (f"{name}", method) for name in BUS_CALLS for method in BUS_CALLS[name]
            }
            for name, calls in BUS_CALLS.items():
                for method, call in calls.items():
                    if (
                        call.need is not Need.READ
                        or call.output is not ReplyKind.JSON
                        or method in ("stats", "ping")
                    ):
                        continue
                    args = {"id": "e" * 64} if "id" in signature(call) else {}
                    shown = await made.call(f"{name}.{method}", args, session=RPCD_READER)
                    assert shown["code"] == 200 and S not in json.dumps(shown), f"{name} {method}"
                    if method == "inspect":
                        assert S in json.dumps(await made.call(f"{name}.{method}", args, session=ADMIN))
        engine.close()

    asyncio.run(run())


def test_what_a_build_repeats_of_its_arguments_is_in_no_job() -> None:
    job = Job(
        parse_job({"kind": "build", "remote": "https://h/x.git", "tags": ["a"], "buildargs": {"A": S}}, ()),
        now=1,
    )
    job.take({"stream": f"Step 1/2 : RUN echo {S}"})
    job.take({"stream": f"now {S}"})
    job.take({"stream": "curl https://u:hunter2@h --token hunter3"})

    async def all_of() -> list[Any]:
        changes = job.changes()
        return [await anext(changes) for _ in range(4)]

    shown = json.dumps([asyncio.run(all_of()), job.as_json()])
    assert S not in shown and "hunter" not in shown and "now ***" in shown
