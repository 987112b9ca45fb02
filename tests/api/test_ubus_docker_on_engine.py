# SPDX-License-Identifier: GPL-2.0-or-later
"""The `docker*` objects on a real engine."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import tarfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.ubus.client import TOO_LARGE
from tests.api.conftest import Containers
from tests.support.docker_bus import Docker, docker_on
from tests.support.dockerd import BUSYBOX, PrivateDockerd
from tests.support.fake_rpcd import ADMIN, READER


@pytest.fixture
async def docker(engine: PrivateDockerd, tmp_path: Path) -> AsyncIterator[Docker]:
    async with docker_on(tmp_path / "ubus.sock", engine.host) as made:
        yield made


async def test_a_reader_sees_the_names_of_variables_only(docker: Docker, containers: Containers) -> None:
    made = containers.run("sleep 60", environment={"TOKEN": "S3CRET"})
    docker.bus.rpcd.rights[READER] = {("docker.container", "inspect")}
    masked = await docker.call("docker.container.inspect", {"id": made}, session=READER)
    assert "TOKEN=***" in masked["body"]["Config"]["Env"]
    assert "S3CRET" not in json.dumps(masked)
    for session in (ADMIN, ""):
        shown = await docker.call("docker.container.inspect", {"id": made}, session=session)
        assert "TOKEN=S3CRET" in shown["body"]["Config"]["Env"]


async def test_the_pages_calls_work_on_the_engine(docker: Docker, containers: Containers) -> None:
    made = containers.run("echo hi; sleep 60")
    for name, args in (
        ("docker.version", {}),
        ("docker.info", {}),
        ("docker.container.list", {"query": {"all": True}}),
        ("docker.container.inspect", {"id": made}),
        ("docker.container.top", {"id": made}),
        ("docker.container.changes", {"id": made}),
        ("docker.container.stats", {"id": made, "query": {"stream": False, "one-shot": True}}),
        ("docker.image.list", {}),
        ("docker.image.inspect", {"id": BUSYBOX}),
        ("docker.image.history", {"id": BUSYBOX}),
        ("docker.network.list", {}),
        ("docker.network.inspect", {"id": "none"}),
        ("docker.volume.list", {}),
        ("docker.events", {"query": {"since": int(time.time()) - 60, "filters": {"container": [made]}}}),
        ("docker.df", {}),
    ):
        got = await docker.call(name, args)
        assert got["code"] == 200, (name, got)
        assert isinstance(got["body"], dict | list | None), name
    assert (await docker.call("docker.ping"))["body"] == "OK"
    missing = await docker.call("docker.container.inspect", {"id": "no-such"})
    assert (missing["code"], missing["body"]["message"]) == (404, "No such container: no-such")
    stat = await docker.call("docker.container.info_archive", {"id": made, "query": {"path": "/etc"}})
    assert json.loads(base64.b64decode(stat["headers"]["x-docker-container-path-stat"]))["name"] == "etc"


@pytest.mark.parametrize("tty", [False, True])
async def test_logs_come_without_frames(docker: Docker, containers: Containers, tty: bool) -> None:
    made = containers.finished("echo grüße; echo err >&2", tty=tty)
    got = await docker.call("docker.container.logs", {"id": made, "query": {"tail": 100, "follow": True}})
    assert got["code"] == 200
    assert sorted(got["body"].split()) == ["err", "grüße"]
    only = await docker.call("docker.container.logs", {"id": made, "query": {"stderr": True}})
    assert only["body"].split() == ([] if tty else ["err"])
    assert (await docker.call("docker.container.logs", {"id": "no-such"}))["code"] == 404


async def test_logs_over_the_limit_are_an_error_that_says_so(docker: Docker, containers: Containers) -> None:
    made = containers.finished("head -c 1500000 /dev/zero | tr '\\0' x")
    got = await docker.call("docker.container.logs", {"id": made})
    assert got["code"] == 500
    assert got["body"]["message"].startswith(TOO_LARGE)


async def test_a_stop_with_a_long_grace_delays_no_other_call(docker: Docker, containers: Containers) -> None:
    made = containers.run("trap '' TERM; while :; do sleep 1; done")
    begun = time.monotonic()
    stop = asyncio.create_task(docker.call("docker.container.stop", {"id": made, "query": {"t": 3}}))
    await asyncio.sleep(0.1)
    for _ in range(5):
        assert (await docker.call("docker.container.list"))["code"] == 200
    assert not stop.done()
    assert (await stop)["code"] == 204
    assert time.monotonic() - begun > 2.5
    assert (await docker.call("docker.container.stop", {"id": made}))["code"] == 304


async def test_a_manual_action_is_told_before_it_is_done_and_taken_back_when_refused(
    docker: Docker, containers: Containers
) -> None:
    made = containers.run("sleep 60")
    await docker.call("docker.container.kill", {"id": made})
    await docker.call("docker.container.start", {"id": "no-such"})
    await docker.call("docker.container.inspect", {"id": made})
    assert docker.agent.told == [(made, "kill"), ("no-such", "start"), ("no-such",)]


async def test_a_process_runs_and_its_output_comes_without_frames(
    docker: Docker, containers: Containers
) -> None:
    made = containers.run("sleep 60")
    opts = {"Cmd": ["sh", "-c", "echo out; echo err >&2"], "AttachStdout": True, "AttachStderr": True}
    created = await docker.call("docker.container.exec", {"id": made, "opts": opts})
    assert created["code"] == 201
    ran = await docker.call(
        "docker.exec.start", {"id": created["body"]["Id"], "body": '{"Detach":false,"Tty":false}'}
    )
    assert (ran["code"], sorted(ran["body"].split())) == (200, ["err", "out"])
    assert (await docker.call("docker.exec.inspect", {"id": created["body"]["Id"]}))["body"]["ExitCode"] == 0


async def test_a_small_archive_is_unpacked_and_a_compressed_one_refused(
    docker: Docker, containers: Containers
) -> None:
    made = containers.run("sleep 60")
    for mode, code in (("w", 200), ("w:gz", 415)):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
            entry = tarfile.TarInfo("hello")
            entry.size = 2
            tar.addfile(entry, io.BytesIO(b"hi"))
        args = {"id": made, "query": {"path": "/tmp"}, "body": base64.b64encode(buffer.getvalue()).decode()}
        assert (await docker.call("docker.container.put_archive", args))["code"] == code
    stat = await docker.call("docker.container.info_archive", {"id": made, "query": {"path": "/tmp/hello"}})
    assert stat["code"] == 200
