# SPDX-License-Identifier: GPL-2.0-or-later
"""The sets of versions say what they promise."""

from __future__ import annotations

import select
import socket
import tomllib
from collections.abc import Iterator

import httpx
import pytest
from websockets.sync.client import unix_connect

from tests.api.console_client import Screen
from tests.setup.dependencies import LOWEST, NEWEST, PROJECT, SETS, pins
from tests.support.agent_process import Agent, running, wait_for
from tests.support.box import Box

FOR_TESTS = ("dev", "openwisp")
CLOSE = b"\x88\x02\x03\xe8"  # a close frame with code 1000


def bounds() -> dict[str, str]:
    """Library -> lower bound, of all that a user installs."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    optional = project.get("optional-dependencies", {})
    named = [
        *project["dependencies"],
        *(line for extra in optional if extra not in FOR_TESTS for line in optional[extra]),
    ]
    return dict(line.split(">=") for line in named if ">=" in line)


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def test_the_lowest_set_is_the_bounds() -> None:
    lowest = pins("lowest")
    assert set(lowest) == set(bounds())
    for library, bound in bounds().items():
        assert version(lowest[library])[: len(version(bound))] == version(bound), library


def test_no_set_is_below_the_bounds() -> None:
    for name in SETS:
        for library, bound in bounds().items():
            if library in pins(name):
                assert version(pins(name)[library]) >= version(bound), (name, library)
    assert NEWEST in SETS and len(SETS) == 4


def test_what_pip_installs_has_all_folders_of_the_agent() -> None:
    listed = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {".".join(file.parent.relative_to(PROJECT).parts) for file in (PROJECT / "agent").rglob("*.py")}
    assert {*listed} == folders | {"agent.schema.files"}
    assert listed == sorted(listed)


@pytest.fixture
def agent(box: Box) -> Iterator[Agent]:
    made = Agent(box)
    made.commit(
        "config container 'web'\n\toption image 'IMAGE'\n\toption command 'sleep 1000'\n"
        "\toption stop_timeout '0'\n\toption gate '0'\n"
    )
    yield made
    made.close()


def _closes_after_its_client(path: str, target: str) -> bool:
    """Whether a WebSocket that the agent ends stays open until its client has said so too (RFC 6455 section 7.1.1).

    A client that cannot send its close frame may take the connection for broken, and what it has not read for lost.
    """
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(path)
        client.sendall(
            f"GET {target} HTTP/1.1\r\nHost: agent\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        got = b""
        while CLOSE not in got:
            piece = client.recv(4096)
            assert piece, got
            got += piece
        stays_open = not select.select([client], [], [], 0.5)[0]
        client.sendall(b"\x88\x82\0\0\0\0\x03\xe8")
        return stays_open and client.recv(1) == b""


@pytest.mark.skipif(not LOWEST.exists(), reason="`make lowest-if-possible` installs the lowest versions")
def test_the_agent_answers_with_the_lowest_versions(agent: Agent, box: Box) -> None:
    agent.start(PYTHONPATH=str(LOWEST))
    assert agent.process is not None
    wait_for(lambda: running(box, "web"), limit_s=60)
    path = str(box.options.socket)
    with httpx.Client(transport=httpx.HTTPTransport(uds=path), base_url="http://agent", timeout=30) as client:
        assert client.get("/v1/status").json()["agent"]["engine"]["reachable"]
        assert client.get("/v1/nothing").json()["error"]["code"] == "http-404"
        assert client.get("/docker/containers/json").json()[0]["Names"] == ["/web"]
        console = client.post("/v1/containers/web/exec", json={"command": ["echo", "hello"]}).json()["id"]
        with unix_connect(path, f"ws://agent/v1/exec/{console}/ws", compression=None) as web_socket:
            Screen(web_socket).until("hello")
        assert _closes_after_its_client(path, f"/v1/exec/{console}/ws")
        with client.stream("GET", "/v1/status/stream") as stream:
            next(stream.iter_lines())
