# SPDX-License-Identifier: GPL-2.0-or-later
"""Jobs on ubus: the same as on HTTP, each method behind its right, and a stream that follows one."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.api.jobs.jobs import Jobs
from agent.api.streams.stream_sources import Source
from agent.api.ubus.agent import JobMethods, job_kinds, make_agent_object
from agent.engine.stream import DockerStream
from agent.errors import BusError, UcidockdError
from agent.wire.ubus_message import Status
from tests.support.bus import a_bus
from tests.support.controller import QuietAgent
from tests.support.fake_rpcd import READER
from tests.support.scripted_engine import ScriptedEngine

STREAM = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"


class Checking(QuietAgent):
    """An agent that notes what it is asked to check."""

    async def validate(self, texts: Any) -> list[dict[str, Any]]:
        return [{"severity": "error", "text": text} for text in texts.values()]


class Desk:
    """Calls of the object `ucidockd`, over an engine that ends a pull when `go` is set."""

    def __init__(self, bus: Any, jobs: Jobs, engine: ScriptedEngine) -> None:
        self.bus, self.jobs, self.engine = bus, jobs, engine

    async def call(self, method: str, args: dict[str, Any] | None = None, *, session: str = "") -> Any:
        given = {**(args or {}), **({"ubus_rpc_session": session} if session else {})}
        return await self.bus.caller.call("ucidockd", method, given, timeout_s=10)


@pytest.fixture
def go() -> Iterator[threading.Event]:
    made = threading.Event()
    yield made
    made.set()


@pytest.fixture
async def desk(tmp_path: Path, go: threading.Event) -> AsyncIterator[Desk]:
    def script(connection: socket.socket, head: bytes) -> None:
        del head
        connection.sendall(STREAM + b'{"status": "Pulling from app"}\n')
        go.wait(10)
        connection.sendall(b'{"status": "Digest: sha256:0f"}\n')

    engine = ScriptedEngine(tmp_path / "engine.sock", script)
    jobs, agent = Jobs(DockerStream(engine.url)), Checking()
    async with a_bus(tmp_path / "ubus.sock") as bus:
        await bus.publish([make_agent_object(bus.sessions, JobMethods(agent, jobs).methods())])
        yield Desk(bus, jobs, engine)
        await jobs.close()
    engine.close()


async def test_a_job_is_started_shown_listed_and_followed(desk: Desk, go: threading.Event) -> None:
    started = (await desk.call("job_start", {"kind": "pull", "image": "app:1"}))["job"]
    assert (started["kind"], started["title"], started["state"]) == ("pull", "app:1", "running")
    source: Source = job_kinds(desk.jobs)["job"].open({"id": started["id"]})
    items = source.items()
    seen = [await anext(items)]
    go.set()
    seen += [item async for item in items]
    assert seen[-1]["json"]["state"] == "succeeded"
    assert [item["json"]["text"] for item in seen if item["name"] == "message"] == [
        "Pulling from app",
        "Digest: sha256:0f",
    ]
    shown = (await desk.call("job_status", {"id": started["id"]}))["job"]
    assert shown["result"] == {"digest": "sha256:0f"} and shown["progress"]["percent"] == 100
    assert (await desk.call("job_list"))["jobs"] == [shown]


async def test_cancel_ends_the_engines_request(desk: Desk, go: threading.Event) -> None:
    started = (await desk.call("job_start", {"kind": "pull", "image": "app:1"}))["job"]
    cancelled = (await desk.call("job_cancel", {"id": started["id"]}))["job"]
    assert cancelled["state"] == "cancelled"
    go.set()
    await asyncio.to_thread(desk.engine.wait_closed)


async def test_every_kind_of_argument_arrives(desk: Desk, go: threading.Event) -> None:
    go.set()
    secret = "S3CRET-token"
    for args in (
        {"kind": "prune", "what": "images", "all": True, "until": "24h"},
        {"kind": "push", "image": "lan/app:1", "auth": {"username": "me", "password": secret}},
        {
            "kind": "build",
            "remote": "https://git.lan/x",
            "tags": ["a:1"],
            "nocache": True,
            "buildargs": {"A": secret},
        },
    ):
        answer = await desk.call("job_start", args)
        assert "job" in answer, answer
        assert secret not in json.dumps(answer)


@pytest.mark.parametrize(
    ("method", "args", "words"),
    [
        ("job_start", {}, "kind: expected one of"),
        ("job_start", {"kind": "pull", "image": "a b"}, "an image reference"),
        ("job_start", {"kind": "pull", "image": "a", "tags": ["x"]}, "'tags'; use `"),
        ("job_status", {"id": "0" * 32}, "no such job"),
        ("job_status", {}, "no such job"),
        ("job_cancel", {"id": "0" * 32}, "no such job"),
        ("validate", {"packages": {"containers": ["x"]}}, "expected the text of a UCI file"),
    ],
)
async def test_what_is_wrong_is_said_in_the_answer(
    desk: Desk, method: str, args: dict[str, Any], words: str
) -> None:
    answer = await desk.call(method, args)
    assert words in answer["error"]["message"]


async def test_validate_answers_as_on_http(desk: Desk) -> None:
    answer = await desk.call("validate", {"packages": {"containers": "config x"}})
    assert answer == {"valid": False, "issues": [{"severity": "error", "text": "config x"}]}
    assert await desk.call("validate", {"packages": {}}) == {"valid": True, "issues": []}


@pytest.mark.parametrize("method", ["job_start", "job_cancel", "validate"])
async def test_who_only_reads_starts_nothing(desk: Desk, method: str) -> None:
    desk.bus.rpcd.rights[READER] = {("ucidockd", "job_list"), ("ucidockd", "job_status")}
    assert await desk.call("job_list", session=READER) == {"jobs": []}
    with pytest.raises(BusError) as refused:
        await desk.call(method, session=READER)
    assert refused.value.status == Status.PERMISSION_DENIED
    assert desk.jobs.all() == []


@pytest.mark.parametrize("args", [{}, {"id": 5}, {"id": "0" * 32}, {"id": "x", "container": "y"}])
async def test_a_stream_of_no_job_is_refused(desk: Desk, args: dict[str, Any]) -> None:
    with pytest.raises(UcidockdError):
        job_kinds(desk.jobs)["job"].open(args)
