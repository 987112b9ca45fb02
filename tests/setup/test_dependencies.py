# SPDX-License-Identifier: GPL-2.0-or-later
"""The sets of versions say what they promise."""

from __future__ import annotations

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


@pytest.mark.skipif(not LOWEST.exists(), reason="`make lowest-if-possible` installs the lowest versions")
def test_the_agent_answers_with_the_lowest_versions(agent: Agent, box: Box) -> None:
    agent.start(PYTHONPATH=str(LOWEST))
    assert agent.process is not None
    wait_for(lambda: running(box, "web"), limit_s=60)
    socket = str(box.options.socket)
    with httpx.Client(
        transport=httpx.HTTPTransport(uds=socket), base_url="http://agent", timeout=30
    ) as client:
        assert client.get("/v1/status").json()["agent"]["engine"]["reachable"]
        assert client.get("/v1/nothing").json()["error"]["code"] == "http-404"
        assert client.get("/docker/containers/json").json()[0]["Names"] == ["/web"]
        console = client.post("/v1/containers/web/exec", json={"command": ["echo", "hello"]}).json()["id"]
        with unix_connect(socket, f"ws://agent/v1/exec/{console}/ws", compression=None) as web_socket:
            Screen(web_socket).until("hello")
        with client.stream("GET", "/v1/status/stream") as stream:
            next(stream.iter_lines())
