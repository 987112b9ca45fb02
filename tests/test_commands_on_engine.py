# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands against a running agent on a real engine: adopt, diff, logs, status --watch, holds."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from agent.errors import EngineError
from agent.runtime.reconciler import Reconciler
from tests.support.box import Box
from tests.support.dockerd import BUSYBOX
from tests.test_running_agent import Agent, running, wait_for

WEB = """
config container 'web'
	option image 'IMAGE'
	list command 'sh'
	list command '-c'
	list command 'printf "out\\033[2J\\n"; echo err >&2; trap exit TERM; sleep 1000 & wait'
	option gate '0.2'
"""


@pytest.fixture
def agent(box: Box) -> Iterator[Agent]:
    made = Agent(box)
    made.commit(WEB)
    made.start()
    wait_for(lambda: running(box, "web"))
    yield made
    if made.process is not None and made.process.poll() is None:
        made.end()


def on_a_terminal(agent: Agent, *words: str) -> tuple[subprocess.Popen[bytes], int]:
    """The command with a terminal as its output; the other end is to be read and closed."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "200"}
    command = [sys.executable, "-m", "agent", *words, *agent.words]
    process = subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE, env=env)
    os.close(theirs)
    return process, ours


def read_until(descriptor: int, wanted: str) -> str:
    text = ""
    while wanted not in text:
        text += os.read(descriptor, 4096).decode()
    return text


def test_a_container_made_by_hand_is_shown_committed_and_taken_over(agent: Agent, box: Box) -> None:
    foreign = box.client.containers.run(
        BUSYBOX,
        ["sh", "-c", "trap exit TERM; sleep 1000 & wait"],
        name="by-hand",
        detach=True,
        environment={"PW": "S3CRET"},
    )
    preview = agent.command("adopt", "by-hand")
    assert "config container 'by_hand'\n\toption name 'by-hand'\n" in preview.stdout
    assert "S3CRET" not in preview.stdout
    assert "a preview" in preview.stderr
    done = json.loads(agent.command("adopt", "by-hand", "--commit", "--section", "mine", "--json").stdout)
    assert (done["section"], done["committed"]) == ("mine", True)
    wait_for(lambda: box.get("by-hand").id != foreign.id and running(box, "by-hand"), 20)
    assert box.get("by-hand").attrs["Config"]["Env"] == ["PW=S3CRET"]
    refused = agent.command("adopt", "by-hand")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "is managed already, by the section mine" in refused.stderr


def test_logs_keep_streams_apart_and_cannot_steer_a_terminal(agent: Agent) -> None:
    def both() -> bool:
        done = agent.command("logs", "web")
        return (done.stdout, done.stderr) == ("out\x1b[2J\n", "err\n")

    wait_for(both)
    process, terminal = on_a_terminal(agent, "logs", "web", "--follow", "--tail", "2")
    assert read_until(terminal, "\n") == "out\\x1b[2J\r\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0
    os.close(terminal)
    assert agent.command("logs", "web", "--raw", "--since", "1h").stdout in (
        "out\x1b[2J\nerr\n",
        "err\nout\x1b[2J\n",
    )
    first = json.loads(agent.command("logs", "web", "--json").stdout.splitlines()[0])
    assert first["stream"] in ("stdout", "stderr")
    unknown = agent.command("logs", "nobody")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "No such container: nobody" in unknown.stderr


def test_a_watcher_sees_changes_in_a_pipe_and_a_picture_on_a_terminal(agent: Agent, box: Box) -> None:
    process, terminal = on_a_terminal(agent, "status", "--watch")
    first = read_until(terminal, "web")
    assert first.startswith("\x1b[H\x1b[J")
    words = [sys.executable, "-m", "agent", "status", "--watch", *agent.words]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as piped:
        assert piped.stdout is not None
        table = [piped.stdout.readline() for _ in range(3)]
        assert any(line.startswith("NAME") for line in table), table
        agent.commit(WEB + WEB.replace("'web'", "'two'"))
        pattern = re.compile(r"\d\d:\d\d:\d\d container:two: running")
        last = threading.Timer(60, piped.kill)
        last.start()
        assert any(pattern.match(line) for line in piped.stdout)
        last.cancel()
        piped.kill()
    assert "two" in read_until(terminal, "two")
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0
    os.close(terminal)


def test_a_watcher_ends_when_the_agent_does(agent: Agent) -> None:
    words = [sys.executable, "-m", "agent", "status", "--watch", *agent.words]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdout is not None
        watcher.stdout.readline()
        agent.end(signal.SIGKILL)
        _, error = watcher.communicate(timeout=10)
    assert (watcher.returncode, error) == (1, "ucidockd: the agent ended\n")


def test_a_diff_tells_edits_and_drift_apart_and_what_a_plan_would_do(agent: Agent, box: Box) -> None:
    assert "no differences\nplan: nothing to do" in agent.command("diff", "web").stdout
    agent.commit(WEB + "\toption on_drift 'report'\n\toption memory '64m'\n")
    wait_for(lambda: box.get("web").attrs["HostConfig"]["Memory"] == 64 << 20)
    wait_for(lambda: "no differences\nplan: nothing to do" in agent.command("diff", "web").stdout)
    box.get("web").update(mem_limit="32m", memswap_limit="64m")
    seen = json.loads(agent.command("diff", "web", "--json").stdout)
    (memory,) = (field for field in seen["fields"] if field["field"] == "memory")
    assert (memory["desired"], memory["observed"]) == ("64m", "32m")
    assert (memory["edited"], memory["drifted"]) == (False, True)
    assert "plan: nothing, Drift: memory 32m -> 64m" in agent.command("diff", "web").stdout
    unknown = agent.command("diff", "nobody")
    assert unknown.returncode == 1
    assert "expected a section or a Docker name (web)" in unknown.stderr


def test_a_stop_through_the_engines_door_is_held_until_a_reconcile(agent: Agent, box: Box) -> None:
    transport = httpx.HTTPTransport(uds=str(box.options.socket))
    with httpx.Client(transport=transport, base_url="http://localhost", timeout=20) as client:
        assert client.post("/docker/containers/web/stop").status_code == 204
    wait_for(lambda: "manual stop; `ucidockd reconcile` undoes it" in agent.command("status").stdout)
    assert (
        "... container:web: held: manual stop; `ucidockd reconcile` undoes it\n"
        in agent.command("plan").stdout
    )
    assert "plan: nothing, Held: manual stop" in agent.command("diff", "web").stdout
    assert box.get("web").status == "exited"
    assert "start" in agent.command("reconcile").stdout
    assert running(box, "web")


def test_commands_work_without_an_agent_too(box: Box) -> None:
    alone = Agent(box)
    alone.commit(WEB)
    assert alone.command("reconcile").returncode == 0
    assert running(box, "web")
    assert "no differences" in alone.command("diff", "web").stdout
    box.client.containers.create(BUSYBOX, ["true"], name="by-hand")
    assert "config container 'by_hand'" in alone.command("adopt", "by-hand", "--commit").stdout
    assert "config container 'by_hand'" in (box.config / "containers").read_text()


def test_a_pull_shows_how_far_it_is_on_the_board(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is real but for the pull: there is no registry here, its steps are played."""
    seen: list[str] = []
    board = box.reconciler.board
    board.subscribe(lambda: seen.append(image_ready(box.reconciler)))

    def pull(image: str, auth: object, on_progress: Any, meanwhile: Any, *, platform: str = "") -> None:
        on_progress({"status": "Downloading", "id": "a", "progressDetail": {"current": 9, "total": 20}})
        box.client.images.get(BUSYBOX).tag("pulled", "1")

    monkeypatch.setattr(box.reconciler.engine, "pull", pull)
    box.apply(WEB.replace("IMAGE", "pulled:1"))
    assert "pulling pulled:1: 22 %" in seen
    assert image_ready(box.reconciler) == ""
    box.client.images.remove("pulled:1", force=True)


def test_a_pull_that_broke_off_is_not_shown_as_going_on(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    def pull(image: str, auth: object, on_progress: Any, meanwhile: Any, *, platform: str = "") -> None:
        on_progress({"status": "Downloading", "id": "a", "progressDetail": {"current": 9, "total": 20}})
        raise EngineError("the registry went away", retryable=True)

    monkeypatch.setattr(box.reconciler.engine, "pull", pull)
    assert box.errors(WEB.replace("IMAGE", "never:1")) == ["the registry went away"]
    assert image_ready(box.reconciler) == "The image is not here yet."
    assert "'PullFailed'" in str(box.reconciler.board.snapshot())


def image_ready(reconciler: Reconciler) -> str:
    for resource in reconciler.board.snapshot()["resources"]:
        for condition in resource["conditions"]:
            if condition["type"] == "ImageReady":
                return str(condition["message"])
    return ""
