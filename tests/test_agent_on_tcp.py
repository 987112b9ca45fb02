# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent as a process on TCP: the section is followed, the token file is the session, the end is quick."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.box import Box
from tests.support.tcp import make_certificate, served_name
from tests.test_running_agent import Agent, wait_for


@pytest.fixture
def agent(box: Box) -> Iterator[Agent]:
    made = Agent(box)
    made.commit("")
    made.start()
    yield made
    if made.process is not None and made.process.poll() is None:
        made.end()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_the_listener_follows_the_section_and_takes_the_token(agent: Agent, box: Box, tmp_path: Path) -> None:
    port = free_port()
    assert not listening(port)
    agent.commit(f"config agent\n\tlist listen '127.0.0.1:{port}'\n")
    wait_for(lambda: listening(port))
    url = f"http://127.0.0.1:{port}/v1/status"
    token_file = box.options.state_dir / "token"
    assert token_file.stat().st_mode & 0o777 == 0o600
    assert httpx.get(url).status_code == 401
    assert httpx.get(url, headers={"authorization": "Bearer " + "1" * 32}).status_code == 401
    session = {"authorization": f"Bearer {token_file.read_text().strip()}"}
    status = httpx.get(url, headers=session).json()
    assert status["agent"]["listen"] == [
        {"address": f"127.0.0.1:{port}", "state": "Listening", "message": "without TLS"}
    ]
    cert, key = make_certificate(tmp_path, "router")
    section = (
        f"config agent\n\tlist listen '127.0.0.1:{port}'\n\toption cert '{cert}'\n\toption key '{key}'\n"
    )
    agent.commit(section)
    wait_for(lambda: '"with TLS"' in agent.command("status", "--json").stdout)
    assert served_name("127.0.0.1", port) == "router"
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(url, headers=session)
    agent.commit(f"config agent\n\tlist listen '0.0.0.0:{port}'\n")
    wait_for(lambda: "ExposedListener" in agent.command("status", "--json").stdout)
    assert not listening(port)
    assert token_file.read_text().strip() not in agent.command("status", "--json").stdout


def test_an_open_stream_does_not_hold_the_end_up(agent: Agent, box: Box) -> None:
    port = free_port()
    agent.commit(f"config agent\n\tlist listen '127.0.0.1:{port}'\n")
    wait_for(lambda: listening(port))
    session = {"authorization": f"Bearer {(box.options.state_dir / 'token').read_text().strip()}"}
    with httpx.stream("GET", f"http://127.0.0.1:{port}/v1/status/stream", headers=session) as stream:
        next(stream.iter_lines())
        began = time.monotonic()
        assert agent.end(signal.SIGTERM) == 0
    assert time.monotonic() - began < 4


def test_check_names_what_is_wrong_with_the_section(box: Box) -> None:
    box.write(
        "config agent\n\tlist listen 'router:2380'\n\tlist listen '127.0.0.1:99999'\n\tlist listen '1.2.3:1'\n"
        "\tlist cors_origin '*'\n\tlist cors_origin 'https://router.lan/'\n\tlist allowed_host 'a:1'\n"
    )
    command = [sys.executable, "-m", "agent", "check", "--json", f"--config-dir={box.options.config_dir}"]
    done = subprocess.run([*command, "--override-dir=/nosuch"], capture_output=True, text=True, check=False)
    texts = [issue["text"] for issue in json.loads(done.stdout) if issue["severity"] == "error"]
    places = sorted(text.split(":")[0].partition(".")[2].partition(".")[2] for text in texts)
    assert places == [
        "allowed_host[0]",
        "cors_origin[0]",
        "cors_origin[1]",
        "listen[0]",
        "listen[1]",
        "listen[2]",
    ]
    assert all("expected" in text for text in texts)
