# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent as a process, used through its Engine API and consoles: what it repairs, what it leaves, what it ends."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.support.box import Box
from tests.test_running_agent import WEB, Agent, running, wait_for


@pytest.fixture
def agent(box: Box) -> Iterator[Agent]:
    made = Agent(box)
    made.commit(WEB)
    made.start()
    wait_for(lambda: running(box, "web"))
    yield made
    if made.process is not None and made.process.poll() is None:
        made.end()


@pytest.fixture
def http(agent: Agent) -> Iterator[httpx.Client]:
    transport = httpx.HTTPTransport(uds=str(agent.box.options.socket))
    with httpx.Client(transport=transport, base_url="http://localhost", timeout=30) as made:
        yield made


def test_a_container_stopped_by_hand_stays_so_until_a_reconcile_is_asked_for(
    agent: Agent, box: Box, http: httpx.Client
) -> None:
    assert http.post("/docker/containers/web/stop?t=0").status_code == 204
    agent.commit(WEB + WEB.replace("'web'", "'two'"))
    wait_for(lambda: running(box, "two"))  # so a pass has seen it stopped
    assert not running(box, "web")
    assert "Held" in http.get("/v1/status").text
    assert http.post("/v1/reconcile").status_code == 200
    assert running(box, "web")


def test_the_agents_end_ends_the_processes_of_its_consoles(
    agent: Agent, box: Box, http: httpx.Client
) -> None:
    console = http.post("/v1/containers/web/exec", json={"command": ["sleep", "4717"]}).json()["id"]
    wait_for(lambda: "sleep 4717" in str(box.get("web").top()))
    with http.stream("GET", f"/v1/exec/{console}/stream"):
        assert agent.end() == 0
    assert "sleep 4717" not in str(box.get("web").top())
