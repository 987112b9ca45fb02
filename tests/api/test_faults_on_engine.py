# SPDX-License-Identifier: GPL-2.0-or-later
"""Clients that stall, and clients in crowds: what they cost ends, and the agent goes on."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette

from agent.api.access.tcp import CONTROL_CONNECTIONS, places
from agent.api.app import make_routes
from agent.api.routes.files import FileRoutes
from agent.engine.stream import DockerStream
from tests.api.conftest import Containers
from tests.support.box import Box
from tests.support.connections import connections, settled, wait_connections
from tests.support.controller import QuietAgent, serving
from tests.support.dockerd import PrivateDockerd

FDS = 64
WEB = "config container '{name}'\n\toption image 'busybox:test'\n\toption command 'sleep 1000'\n\toption gate '0'\n"


def impatient(agent: QuietAgent, engine: DockerStream) -> Starlette:
    del agent
    return Starlette(routes=make_routes(FileRoutes(engine, stall_s=0.5).rules()))


@pytest.mark.parametrize("leaves", [False, True])
def test_a_download_whose_client_stalls_ends_in_the_engine_too(
    engine: PrivateDockerd, containers: Containers, tmp_path: Path, leaves: bool
) -> None:
    made = containers.finished("dd if=/dev/zero of=/data/big bs=1048576 count=20 2>/dev/null")
    with serving(tmp_path, engine.host, app=impatient, ready="/v1/images/get?names=busybox:test") as served:
        before, descriptors = settled(engine), len(os.listdir("/proc/self/fd"))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(served.path))
            client.sendall(f"GET /v1/containers/{made}/export HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert client.recv(1000).startswith(b"HTTP/1.1 200")
            assert connections(engine) == before + 1
            if leaves:
                client.close()
            wait_connections(engine, before, limit_s=3)
            if not leaves:
                client.settimeout(3)
                assert not ended_well(client), "a download that was dropped must not look complete"
        deadline = time.monotonic() + 3
        while len(os.listdir("/proc/self/fd")) > descriptors:
            assert time.monotonic() < deadline, "descriptors are left"
            time.sleep(0.02)


def ended_well(client: socket.socket) -> bool:
    last = b""
    try:
        while piece := client.recv(65536):
            last = (last + piece)[-5:]
    except ConnectionResetError:
        return False
    return last == b"0\r\n\r\n"


class SmallAgent:
    """`ucidockd run` that may have FDS descriptors."""

    def __init__(self, box: Box) -> None:
        options = box.options
        self.path = str(options.socket)
        words = [f"--config-dir={options.config_dir}", f"--override-dir={options.override_dir}"]
        words += [
            f"--state-dir={options.state_dir}",
            f"--socket={self.path}",
            f"--docker-host={options.docker_host}",
        ]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agent", "run", *words],
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (FDS, FDS)),
        )

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(2)
            try:
                client.connect(self.path)
                client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                return client.recv(4096).startswith(b"HTTP/1.1 200")
            except OSError:
                return False


@pytest.fixture
def small_agent(box: Box) -> Iterator[SmallAgent]:
    box.write(WEB.format(name="one"))
    made = SmallAgent(box)
    wait(made.answers)
    yield made
    made.process.terminate()
    made.process.wait(20)


def running(box: Box, name: str) -> bool:
    return bool(box.client.api.containers(filters={"name": f"^/{name}$"}))


def wait(check: object, limit_s: float = 15) -> None:
    assert callable(check)
    deadline = time.monotonic() + limit_s
    while not check():
        assert time.monotonic() < deadline, "not seen in time"
        time.sleep(0.05)


def test_a_crowd_of_clients_leaves_descriptors_for_reconciling_and_goes_without_a_busy_loop(
    small_agent: SmallAgent, box: Box
) -> None:
    wait(lambda: running(box, "one"))
    crowd = []
    for _ in range(100):
        client = socket.socket(socket.AF_UNIX)
        client.connect(small_agent.path)
        crowd.append(client)
    wait(lambda: small_agent.descriptors() < FDS - 8)
    assert not small_agent.answers(), "the house is full"
    before = small_agent.cpu_s()
    time.sleep(1)
    assert small_agent.cpu_s() - before < 0.3
    box.write(WEB.format(name="one") + WEB.format(name="two"))
    wait(lambda: running(box, "two"))
    assert small_agent.process.poll() is None
    for client in crowd:
        client.close()
    wait(small_agent.answers)


@pytest.mark.parametrize(("limit", "room"), [(64, 10), (1024, CONTROL_CONNECTIONS), (16, 1)])
def test_a_house_is_as_large_as_its_descriptors(
    monkeypatch: pytest.MonkeyPatch, limit: int, room: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert places(CONTROL_CONNECTIONS) == room
