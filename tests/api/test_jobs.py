# SPDX-License-Identifier: GPL-2.0-or-later
"""Jobs over an engine that injects faults: what it says in a stream, and when it says nothing more."""

from __future__ import annotations

import asyncio
import base64
import json
import select
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.api.jobs import jobs as jobs_module
from agent.api.jobs.job_specs import (
    STALL_S,
    JobKind,
    JobSpec,
    build_upload,
    parse_job,
    split_reference,
)
from agent.api.jobs.jobs import (
    KEPT,
    MESSAGES,
    MESSAGES_ENDED,
    RUNNING_LIMIT,
    Job,
    Jobs,
    JobState,
    UnknownJobError,
)
from agent.engine.stream import DockerStream
from agent.errors import ConflictError
from agent.model.resources import RegistryAuth
from tests.support.scripted_engine import Script, ScriptedEngine, answer, until_gone

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
PULL = JobSpec(kind=JobKind.PULL, title="app:1", path="/images/create")
SECRET = "S3CRET-in-a-login"


def chunk(*lines: dict[str, Any] | bytes) -> bytes:
    data = b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.fixture
def make(tmp_path: Path) -> Any:
    engines: list[ScriptedEngine] = []

    def made(script: Script, **options: Any) -> tuple[Jobs, ScriptedEngine]:
        engine = ScriptedEngine(tmp_path / f"engine{len(engines)}.sock", script)
        engines.append(engine)
        return Jobs(DockerStream(engine.url), **options), engine

    yield made
    for engine in engines:
        engine.close()


async def over(job: Job, limit_s: float = 5) -> Job:
    async with asyncio.timeout(limit_s):
        async for _ in job.changes():
            pass
    return job


SUCCESS = chunk({"status": "Status: Downloaded newer image for app:1"})


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (SUCCESS + chunk({"error": "no"}) + LAST, "engine", "no"),
        (chunk({"errorDetail": {"message": "detail"}}) + LAST, "engine", "detail"),
        (chunk({"error": {"not": "text"}}) + LAST, "engine", "without a message"),
        (chunk({"error": "a\x1b[31mb\x1b]52;c;eA==\x07c\u202e\n"}) + LAST, "engine", "abc"),
        (chunk({"error": "x" * 100_000}) + LAST, "engine", "xxx..."),
        (chunk({"error": f"refused: {SECRET}"}) + LAST, "engine", "refused: ***"),
        (SUCCESS, "engine-unreachable", "broke off"),
        (chunk(b"no json\n") + LAST, "engine", "no JSON"),
        (chunk(b"[1]\n") + LAST, "engine", "no JSON object"),
        (chunk(b"{" + b'"a":{' * 5000) + LAST, "engine", "no JSON"),
        (chunk(b"x" * 2**20) + chunk(b"y" * 2**20) + LAST, "engine", "longer than"),
    ],
)
async def test_a_stream_that_does_not_end_well_is_a_failed_job(
    make: Any, body: bytes, code: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    jobs, _ = make(answer(HEAD + body))
    spec = JobSpec(kind=JobKind.PULL, title="app:1", path="/images/create", secrets=(SECRET,))
    job = (await over(jobs.start(spec))).as_json()
    assert (job["state"], job["error"]["code"]) == ("failed", code), job
    assert words in job["error"]["message"] and len(job["error"]["message"]) <= 1024
    assert words in caplog.text and SECRET not in json.dumps(job) + caplog.text
    assert jobs.ended == {(JobKind.PULL, JobState.FAILED): 1}


@pytest.mark.parametrize("status", [404, 500])
async def test_a_refusal_is_a_failed_job_with_the_engines_message(make: Any, status: int) -> None:
    text = b'{"message":"no such thing"}'
    jobs, _ = make(answer(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(text)) + text))
    job = await over(jobs.start(PULL))
    assert job.error == {"code": "engine", "message": "no such thing", "retryable": status == 500}


def again_and_again(*lines: dict[str, Any]) -> Script:
    def script(connection: socket.socket, head: bytes) -> None:
        del head
        connection.sendall(HEAD)
        while True:  # ends when the client is gone
            connection.sendall(chunk(*lines) * 50)

    return script


@pytest.mark.parametrize(
    "script",
    [
        until_gone(b""),
        until_gone(HEAD),
        until_gone(
            HEAD + chunk({"status": "Downloading", "id": "a", "progressDetail": {"current": 5, "total": 9}})
        ),
        again_and_again({"status": "Downloading", "id": "a", "progressDetail": {"current": 5, "total": 9}}),
        again_and_again(
            {"status": "Downloading", "id": "a", "progressDetail": {"current": 5, "total": 9}},
            {"status": "Downloading", "id": "b", "progressDetail": {"current": 2, "total": 4}},
        ),
        again_and_again({}),
    ],
)
async def test_a_job_without_progress_is_given_up_and_its_request_ended(make: Any, script: Script) -> None:
    jobs, engine = make(script, stall_s={**STALL_S, JobKind.PULL: 0.3})
    job = await over(jobs.start(PULL))
    assert job.error is not None and "no progress in 0.3 s" in job.error["message"] and job.error["retryable"]
    await asyncio.to_thread(engine.wait_closed)


async def test_progress_puts_the_stall_off_and_the_whole_is_limited(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(connection: socket.socket, head: bytes) -> None:
        del head
        connection.sendall(HEAD)
        for number in range(10_000):
            connection.sendall(chunk({"status": f"news {number}"}))
            if select.select([connection], [], [], 0.1)[0]:  # the client has gone
                return

    monkeypatch.setattr(jobs_module, "LIMIT_S", 1.2)
    jobs, engine = make(script, stall_s={**STALL_S, JobKind.PULL: 0.4})
    job = await over(jobs.start(PULL))
    assert job.error is not None and "not done in" in job.error["message"]
    assert job.version > 10
    await asyncio.to_thread(engine.wait_closed)


async def test_messages_are_bounded_and_a_gap_is_told(make: Any) -> None:
    lines = [{"stream": f"line {number}\n"} for number in range(MESSAGES + 50)]
    jobs, _ = make(answer(HEAD + chunk(*lines) + LAST))
    job = await over(jobs.start(PULL))
    got = [(name, data) async for name, data, _ in job.changes(1)]
    assert [name for name, _ in got] == ["gap"] + ["message"] * MESSAGES_ENDED + ["job"]
    assert got[-2][1] == {"text": f"line {MESSAGES + 49}"}


async def test_a_reader_that_resumes_gets_each_message_once(make: Any) -> None:
    lines = [{"stream": f"line {number}\n"} for number in range(20)]
    jobs, _ = make(answer(HEAD + chunk(*lines) + LAST))
    job = await over(jobs.start(PULL))
    whole = [change async for change in job.changes()]
    for _, _, number in whole:
        first = [item for item in whole if item[2] <= number]
        rest = [change async for change in job.changes(number)]
        assert first + rest == whole
    assert [change async for change in job.changes(10**9)] == whole, "an id that is not ours starts anew"


async def test_the_last_100_are_kept_and_no_running_one_is_lost(make: Any) -> None:
    def script(connection: socket.socket, head: bytes) -> None:
        if b"/hold" in head:
            until_gone(HEAD)(connection, head)
        connection.sendall(HEAD + LAST)

    jobs, engine = make(script)
    held = jobs.start(JobSpec(kind=JobKind.PULL, title="held", path="/hold"))
    made = []
    for _ in range(KEPT + 5):
        made.append(await over(jobs.start(PULL)))
    assert len(jobs.all()) == KEPT and jobs.all()[0] is made[-1] and jobs.get(held.id) is held
    with pytest.raises(UnknownJobError, match="the last 100 are kept"):
        jobs.get(made[0].id)
    await jobs.close()
    assert held.state is JobState.CANCELLED
    await asyncio.to_thread(engine.wait_closed)


async def test_too_many_at_once_are_refused_and_cancel_makes_room(make: Any) -> None:
    jobs, engine = make(until_gone(HEAD))
    running = [jobs.start(PULL) for _ in range(RUNNING_LIMIT)]
    with pytest.raises(ConflictError, match="16 jobs are running"):
        jobs.start(PULL)
    cancelled = await jobs.cancel(running[0].id)  # before its first step
    assert cancelled.state is JobState.CANCELLED and cancelled.body_taken.is_set()
    jobs.start(PULL)
    await jobs.close()
    assert jobs.ended == {(JobKind.PULL, JobState.CANCELLED): RUNNING_LIMIT + 1}
    await asyncio.to_thread(engine.wait_closed)


async def test_a_slow_reader_holds_nobody_up_and_sees_the_newest(make: Any) -> None:
    lines = [
        {"status": "Downloading", "id": "a", "progressDetail": {"current": n, "total": 5000}}
        for n in range(1, 5001)
    ]
    jobs, _ = make(answer(HEAD + b"".join(chunk(line) for line in lines) + LAST))
    job = jobs.start(PULL)
    slow = job.changes()
    first = await anext(slow)
    await over(job)
    second = await anext(slow)
    assert first[1]["state"] == "running" and second[1]["state"] == "succeeded"
    assert [change async for change in slow] == []


async def test_prune_counts_what_went(make: Any) -> None:
    text = json.dumps({"ContainersDeleted": ["a", "b"], "SpaceReclaimed": 7}).encode()
    jobs, engine = make(answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text))
    job = await over(jobs.start(parse_job({"kind": "prune", "what": "containers"}, ())))
    assert job.result == {"deleted": 2, "reclaimed_bytes": 7}
    assert b"POST /containers/prune?filters=" in engine.heads[0]
    assert b"label%21" in engine.heads[0]


async def test_the_body_goes_on_as_it_comes(make: Any) -> None:
    def script(connection: socket.socket, head: bytes) -> None:
        seen = head.partition(b"\r\n\r\n")[2]
        while LAST not in seen:
            seen += connection.recv(65536)
        connection.sendall(HEAD + chunk({"stream": f"{len(seen)} bytes\n"}) + LAST)

    async def body() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 1000

    jobs, _ = make(script)
    job = await over(
        jobs.start(
            JobSpec(kind=JobKind.LOAD, title="t", path="/images/load", uploads=True),
            body=body(),
            upload_bytes=3000,
        )
    )
    assert job.body_taken.is_set() and job.state is JobState.SUCCEEDED
    assert job.progress.bytes_done == 3000


AUTHS = (
    RegistryAuth(server="registry.lan", username="me", password=SECRET),
    RegistryAuth(server="docker.io", username="hub", token="S3CRET-token"),
)


def login(spec: JobSpec) -> Any:
    return json.loads(base64.urlsafe_b64decode(dict(spec.headers)["x-registry-auth"]))


@pytest.mark.parametrize(
    ("image", "wanted"),
    [
        ("registry.lan/app", {"username": "me", "password": SECRET, "serveraddress": "registry.lan"}),
        (
            "alpine",
            {"username": "hub", "password": "S3CRET-token", "serveraddress": "https://index.docker.io/v1/"},
        ),
        ("evil.registry.lan/app", {}),
        ("evil.com/registry.lan/app", {}),
    ],
)
def test_a_login_goes_to_its_own_registry_only(image: str, wanted: dict[str, str]) -> None:
    spec = parse_job({"kind": "pull", "image": image}, AUTHS)
    assert login(spec) == wanted
    assert "S3CRET" not in repr(spec)


def test_a_login_of_the_request_goes_before_ucis() -> None:
    given: dict[str, object] = {"username": "u", "password": "p"}
    spec = parse_job({"kind": "pull", "image": "registry.lan/app", "auth": given}, AUTHS)
    assert login(spec)["username"] == "u" and spec.secrets == ("p", "dTpw")


def test_a_build_takes_every_login_and_hides_its_arguments() -> None:
    spec = build_upload({"tags": ["a:1", "b"], "buildargs": {"TOKEN": SECRET}, "nocache": True}, AUTHS)
    config = json.loads(base64.urlsafe_b64decode(dict(spec.headers)["x-registry-config"]))
    assert config.keys() == {"registry.lan", "https://index.docker.io/v1/"}
    assert ("t", "a:1") in spec.query and ("t", "b") in spec.query and ("nocache", "1") in spec.query
    assert "S3CRET" not in repr(spec) and spec.uploads


async def test_what_an_address_carries_is_hidden_wherever_it_comes_back(make: Any) -> None:
    lines = [{"stream": f"fetching https://me:{SECRET}@git.lan/x"}, {"error": f"no {SECRET}"}]
    jobs, _ = make(answer(HEAD + chunk(*lines) + LAST))
    job = await over(jobs.start(parse_job({"kind": "build", "remote": f"https://me:{SECRET}@git.lan/x"}, ())))
    shown = json.dumps([change async for change in job.changes()])
    assert "fetching https://***" in shown and "no ***" in shown and SECRET not in shown


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        ("alpine", ("alpine", "latest")),
        ("alpine:3.20", ("alpine", "3.20")),
        ("lan:5000/a/b", ("lan:5000/a/b", "latest")),
        ("lan:5000/a/b:c", ("lan:5000/a/b", "c")),
        ("a@sha256:0f", ("a", "sha256:0f")),
        ("lan:5000/a:1@sha256:0f", ("lan:5000/a", "sha256:0f")),
    ],
)
def test_a_reference_is_split_as_the_engine_wants_it(image: str, parts: tuple[str, str]) -> None:
    assert split_reference(image) == parts
