# SPDX-License-Identifier: GPL-2.0-or-later
"""An engine on another machine, by TLS with a client's certificate: the whole agent works on it."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.api.console_client import Events, web_socket
from tests.api.test_streams_on_engine import tar_of
from tests.support.agent_process import Agent, running, wait_for
from tests.support.box import Box
from tests.support.controller import Controller, QuietAgent
from tests.support.remote import Authority, RemoteDockerd

SUBNET = 38
IP = f"10.213.{SUBNET}.1"
# the mount is one of this machine, which says nothing about the engine's
WEB = """
config agent 'agent'
	option docker_host '{url}'
	option docker_cert_path '{certs}'
config container 'web'
	option image 'IMAGE'
	option command 'sh -c "echo ready; sleep 600"'
	list wait_for 'mount:/nowhere/at/all'
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("authority"), names=("localhost", IP))


@pytest.fixture(scope="module")
def remote(authority: Authority) -> Iterator[RemoteDockerd]:
    dockerd = RemoteDockerd(authority.server, subnet=SUBNET)
    try:
        dockerd.start()
        dockerd.import_busybox()
        yield dockerd
    finally:
        dockerd.close()


class Far(Controller):
    """The running agent on a remote engine, seen through its control socket."""

    def __init__(self, box: Box, agent: Agent) -> None:
        super().__init__(Path(str(box.options.socket)), QuietAgent())
        self.box, self.process = box, agent
        self.url = ""

    def condition(self, key: str, kind: str) -> dict[str, Any]:
        """One of a resource's conditions; empty when it has none such."""
        resources = self.client.get("/v1/status").json()["resources"]
        found = [c for r in resources if r["key"] == key for c in r["conditions"] if c["type"] == kind]
        return dict(found[0]) if found else {}


@pytest.fixture(scope="module")
def far(
    remote: RemoteDockerd, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Far]:
    folder = tmp_path_factory.mktemp("far")
    client = docker.DockerClient(base_url=remote.host, version="auto")
    box = Box.make(folder, remote, client)
    certs = authority.client("router")
    box.write(WEB.format(url=remote.url(IP), certs=certs))
    (box.config / "dockerd").write_text("config globals 'globals'\n\toption log_level 'warn'\n")
    box.options = replace(box.options, docker_host=None)
    agent = Agent(box)
    agent.start()
    made = Far(box, agent)
    made.url = remote.url(IP)
    try:
        wait_for(lambda: running(box, "web"), 60)
        yield made
    finally:
        made.client.close()
        assert agent.end() == 0, agent.log.read_text()
        box.clean()
        client.close()


def test_a_container_of_uci_runs_there_whatever_this_machine_has_mounted(far: Far) -> None:
    wait_for(lambda: far.condition("container:web", "Running").get("status"), 60)
    assert far.client.get("/v1/status").json()["agent"]["engine"]["reachable"]
    assert far.condition("daemon:dockerd", "DaemonUnmanaged")["message"] == (
        f"the engine is on another machine, {far.url}: configure dockerd there"
    )
    assert far.client.post("/v1/dockerd/restart").status_code == 409


@pytest.mark.long
def test_what_is_done_there_by_hand_is_seen_by_its_event_and_repaired(far: Far) -> None:
    before = far.box.get("web").attrs["State"]["StartedAt"]
    far.box.get("web").kill()
    # the timers would see it in a minute
    wait_for(lambda: running(far.box, "web") and far.box.get("web").attrs["State"]["StartedAt"] != before, 40)


def test_streams_come_whole(far: Far) -> None:
    with far.client.stream("GET", "/v1/containers/web/logs?follow=1&tail=1") as logs:
        assert next(logs.iter_raw()) == b"ready\n"
    data = os.urandom(8_000_000)
    given = far.client.put("/v1/containers/web/archive?path=/data", content=tar_of("big", data))
    assert given.status_code == 204, given.text
    with far.client.stream("GET", "/v1/containers/web/archive?path=/data/big") as archive:
        packed = io.BytesIO(b"".join(archive.iter_raw()))
    with tarfile.open(fileobj=packed) as tar:
        member = tar.extractfile("big")
        assert member is not None and member.read() == data


def test_a_console_takes_input_to_its_end_and_tells_the_exit_code(far: Far) -> None:
    console = Events(far, "web", command=["sh", "-c", "cat; exit 7"], tty=False)
    data = bytes(range(256)) * 4000
    assert console.type(data, eof=1).status_code == 204
    assert console.everything() == (data, {"code": 7, "reason": ""})


@pytest.mark.long
def test_the_end_of_the_input_loses_no_output_that_waits_for_its_reader(far: Far) -> None:
    """More output than is kept for the reader lies in the connection when the input ends."""
    script = "busybox head -c 3000000 /dev/zero; cat; exit 3"
    console = Events(far, "web", command=["sh", "-c", script], tty=False)
    assert console.type(b"typed", eof=1).status_code == 204
    out, ended = console.everything()
    assert (len(out), out[-5:], ended["code"]) == (3_000_005, b"typed", 3)


@pytest.mark.long
def test_the_engine_api_passes_with_its_web_socket(far: Far) -> None:
    listed = far.client.get("/docker/containers/json").json()
    assert [item["Names"] for item in listed] == [["/web"]]
    made = far.box.client.containers.create("busybox:test", ["cat"], stdin_open=True, tty=True, name="echo")
    made.start()
    with web_socket(far, "/docker/containers/echo/attach/ws?stream=1&stdin=1&stdout=1") as socket:
        socket.send(b"hello\n")
        got = b""
        while got.count(b"hello") < 2:
            piece = socket.recv(10)
            got += piece if isinstance(piece, bytes) else piece.encode()
    made.remove(force=True)


def alone(far: Far, folder: Path, **more: str) -> Agent:
    """The command line where no agent runs."""
    options = replace(far.box.options, socket=str(folder / "none" / "agent.sock"), **more)
    return Agent(replace(far.box, options=options))


@pytest.mark.long
def test_one_pass_of_the_command_line_uses_the_certificate_too(far: Far, tmp_path: Path) -> None:
    wait_for(lambda: running(far.box, "web"), 60)
    done = alone(far, tmp_path).command("plan", "--exit-code", "--json")
    assert (done.returncode, json.loads(done.stdout)["operations"]) == (0, []), done


@pytest.mark.long
def test_an_engine_of_another_authority_is_refused_in_these_words(
    far: Far, authority: Authority, tmp_path: Path
) -> None:
    folder = authority.client("mistaken")
    shutil.copy(Authority.make(tmp_path / "stranger").server.ca, folder / "ca.pem")
    done = alone(far, tmp_path, docker_host=far.url, docker_cert_path=str(folder)).command("plan")
    assert done.returncode == 1
    assert f"no TLS with the engine at {far.url}: " in done.stderr
    assert "certificate verify failed" in done.stderr
