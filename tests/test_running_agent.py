# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent as a process: what it sees, what it prints, how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent_process import Agent, running, wait_for
from tests.support.box import Box

WEB = """
config container 'web'
	option image 'IMAGE'
	option command 'sleep 1000'
	option stop_timeout '0'
	option gate '0.3'
"""


@pytest.fixture
def agent(box: Box) -> Iterator[Agent]:
    made = Agent(box)
    made.commit(WEB)
    made.start()
    yield made
    if made.process is not None and made.process.poll() is None:
        made.end()


def test_a_commit_is_applied_and_reported(agent: Agent, box: Box) -> None:
    wait_for(lambda: running(box, "web"))
    agent.commit(WEB + WEB.replace("'web'", "'two'"))
    wait_for(lambda: running(box, "two"))
    wait_for(lambda: "two" in agent.command("status").stdout)
    status = json.loads(agent.command("status", "--json").stdout)
    assert status["agent"]["engine"]["reachable"] is True
    assert [resource["key"] for resource in status["resources"]] == ["container:two", "container:web"]
    plan = agent.command("plan", "--exit-code")
    assert (plan.returncode, plan.stdout) == (0, "Nothing to do: everything is as declared.\n")


def test_a_container_removed_by_hand_comes_back(agent: Agent, box: Box) -> None:
    wait_for(lambda: running(box, "web"))
    box.get("web").remove(force=True)
    wait_for(lambda: running(box, "web"))


def test_a_killed_agent_starts_again_at_once_and_leaves_the_containers(agent: Agent, box: Box) -> None:
    wait_for(lambda: running(box, "web"))
    before = box.get("web").id
    agent.end(signal.SIGKILL)
    assert running(box, "web")
    agent.start()
    wait_for(lambda: "web" in agent.command("status").stdout)
    assert box.get("web").id == before


def test_a_second_agent_ends_with_3(agent: Agent) -> None:
    second = agent.command("run")
    assert second.returncode == 3
    assert "another agent is running" in second.stderr


def test_it_ends_cleanly_and_the_containers_go_on(agent: Agent, box: Box) -> None:
    wait_for(lambda: running(box, "web"))
    assert agent.end() == 0
    assert running(box, "web")
    assert not Path(str(box.options.socket)).exists()


def test_the_control_socket_is_roots_alone(agent: Agent, box: Box) -> None:
    path = Path(str(box.options.socket))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"200 OK" in client.recv(4096)
    assert agent.command("reconcile").returncode == 0


def test_the_status_stream_starts_with_everything_and_shows_each_change(agent: Agent, box: Box) -> None:
    wait_for(lambda: running(box, "web"))
    words = [sys.executable, "-m", "agent", "status", "--watch", "--json", *agent.words]
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=env) as watcher:
        agent.commit(WEB + WEB.replace("'web'", "'two'"))
        assert watcher.stdout is not None
        assert any('"container:two"' in line for line in watcher.stdout)
        watcher.kill()


def test_an_engine_that_is_away_is_reported_and_the_agent_stays(
    agent: Agent, box: Box, tmp_path: Path
) -> None:
    agent.end()
    agent.words[-1] = f"--docker-host=unix://{tmp_path / 'nothing.sock'}"
    agent.start()
    wait_for(lambda: "not reachable" in agent.command("status").stdout)
    assert agent.command("reconcile").returncode == 1
