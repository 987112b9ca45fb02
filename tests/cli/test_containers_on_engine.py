# SPDX-License-Identifier: GPL-2.0-or-later
"""start, stop, restart, exec, logs and wait: with an agent and without one, declared or not, in a real terminal."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.cli.main import main
from tests.support.agent_process import ROOT, Agent, running, wait_for
from tests.support.box import Box
from tests.support.dockerd import BUSYBOX
from tests.support.terminal import Terminal

LOOP = "trap exit TERM; while :; do echo out NAME; echo err NAME >&2; sleep 0.3 & wait $!; done"
CONFIG = "".join(
    f"""
config container '{section}'
	option name '{name}'
	option image 'IMAGE'
	list command 'sh'
	list command '-c'
	list command '{LOOP.replace("NAME", section)}'
	option gate '0.2'
	{more}
"""
    for section, name, more in [
        ("web", "web", ""),
        ("db", "my-db", "option health_cmd 'true'\n\toption health_interval '1s'"),
    ]
)

NEW = """
config container 'new'
	option image 'IMAGE'
	list command 'sleep'
	list command '1000'
	option health_cmd 'true'
	option health_interval '1s'
	option gate '0.2'
"""
DISK = "\tlist wait_for 'mount:/not/there'\n"


@pytest.fixture
def agent(box: Box) -> Iterator[Agent]:
    made = Agent(box)
    made.commit(CONFIG)
    made.start()
    yield made
    if made.process is not None and made.process.poll() is None:
        made.end()


def said(agent: Agent, *words: str) -> tuple[int, str]:
    """The exit code, and all that it printed."""
    done = agent.command(*words)
    return done.returncode, done.stdout + done.stderr


def declared(box: Box) -> str:
    return (box.config / "containers").read_text()


def test_a_declared_container_is_stopped_and_started_in_uci(agent: Agent, box: Box) -> None:
    assert said(agent, "wait", "--timeout", "30") == (0, "in sync\n")
    code, text = said(agent, "stop", "my-db", "web")
    # a stop that takes longer is explained meanwhile
    assert (code, [line for line in text.splitlines() if "Ctrl-C" not in line]) == (
        0,
        [
            "my-db stopped (`option state 'stopped'` committed to containers)",
            "web stopped (`option state 'stopped'` committed to containers)",
        ],
    )
    assert declared(box).count("option state 'stopped'") == 2
    assert not running(box, "web") and not running(box, "my-db")
    assert said(agent, "stop", "web") == (0, "web is declared stopped already\n")
    refused = "ucidockd: web does not run; `ucidockd status web` says why\n"
    assert said(agent, "exec", "web", "true") == (1, refused)
    assert said(agent, "start", "web", "db") == (
        0,
        "".join(
            f"{name} started (removal of `option state` committed to containers)\n" for name in ("web", "db")
        ),
    )
    assert "stopped" not in declared(box)
    assert running(box, "web") and running(box, "my-db")
    assert said(agent, "wait", "db", "--for", "healthy", "--timeout", "20") == (0, "healthy\n")
    # one that is committed, and not even created yet, is waited for as well
    agent.commit(CONFIG + NEW + NEW.replace("'new'", "'later'") + DISK)
    assert said(agent, "wait", "new", "--for", "healthy", "--timeout", "20") == (0, "healthy\n")
    code, text = said(agent, "wait", "later", "--for", "healthy", "--timeout", "1")
    assert (code, text.splitlines()[1]) == (
        5,
        "  later: it has no container yet: nothing is mounted on /not/there",
    )


@pytest.mark.long
@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        (("while :;", "exit 3; while :;"), {"RolledBack"}),
        (("IMAGE", "none.invalid/none:1"), {"Failed", "BackOff"}),
    ],
    ids=["rolled back", "back-off"],
)
def test_one_whose_last_change_failed_is_stopped_and_started_too(
    agent: Agent, box: Box, change: tuple[str, str], reasons: set[str]
) -> None:
    assert said(agent, "wait", "--timeout", "30")[0] == 0
    # a stop takes longer than the look at what is wrong
    slow = CONFIG.replace("trap exit TERM", 'trap "sleep 1; exit" TERM')
    agent.commit(slow)
    assert said(agent, "wait", "--timeout", "30")[0] == 0
    agent.commit(slow.replace(*change, 1))

    def synced() -> str:
        status = json.loads(said(agent, "status", "--json")[1])
        web = next(r for r in status["resources"] if r["key"] == "container:web")
        return str(next(c for c in web["conditions"] if c["type"] == "Synced")["reason"])

    wait_for(lambda: synced() in reasons)
    code, text = said(agent, "stop", "web")
    assert (text, code) == ("web stopped (`option state 'stopped'` committed to containers)\n", 0)
    assert not running(box, "web")
    assert said(agent, "start", "web") == (
        0,
        "web started (removal of `option state` committed to containers)\n",
    )
    assert running(box, "web")
    assert synced() in reasons


@pytest.mark.long
def test_once_leaves_the_section_and_holds(agent: Agent, box: Box) -> None:
    wait_for(lambda: running(box, "web"))
    assert said(agent, "stop", "web", "--once") == (
        0,
        "web stopped until its section changes, `ucidockd reconcile` or a reboot\n",
    )
    assert "state" not in declared(box)
    code, text = said(agent, "wait", "web", "--timeout", "0")
    assert (code, text.splitlines()[0]) == (5, "ucidockd wait: not in-sync after 0 s:")
    assert said(agent, "start", "web") == (0, "web started\n")
    wait_for(lambda: running(box, "web"))
    before = box.get("web").attrs["State"]["StartedAt"]
    assert said(agent, "restart", "web") == (0, "web restarted\n")
    assert box.get("web").attrs["State"]["StartedAt"] != before
    told = json.loads(agent.command("restart", "web", "--json").stdout)
    assert told == {"schema": 1, "containers": [{"name": "web", "ok": True, "message": "web restarted"}]}
    box.client.containers.run(BUSYBOX, ["sleep", "100"], name="other", detach=True)
    assert said(agent, "stop", "other") == (0, "other stopped (it is not declared)\n")
    assert said(agent, "stop", "wbe") == (
        1,
        "ucidockd: No such container: wbe, and no section of this name; did you mean `web`?\n",
    )


@pytest.mark.long
def test_lines_of_several_containers_are_merged_by_time(agent: Agent, box: Box) -> None:
    wait_for(lambda: running(box, "my-db") and running(box, "web"))
    wait_for(lambda: "out web" in said(agent, "logs", "web")[1] and "out db" in said(agent, "logs", "db")[1])
    code, text = said(agent, "logs", "web", "db", "-t", "--grep", "^out")
    lines = text.splitlines()
    assert code == 0
    form = re.compile(r"(web|db ) \| [0-9TZ:.-]+ out (web|db)")
    assert lines and all(form.fullmatch(line) for line in lines)
    stamps = [line.split()[2] for line in lines]
    assert stamps == sorted(stamps)
    assert {line.split()[0] for line in lines} == {"web", "db"}
    first = json.loads(agent.command("logs", "web", "--json", "-n", "2").stdout.splitlines()[0])
    assert (first["name"], first["stream"] in {"stdout", "stderr"}) == ("web", True)
    assert "expected a duration such as 10m" in said(agent, "logs", "web", "--until", "yesterday")[1]


def test_a_shell_has_this_terminal_with_an_agent_and_without(agent: Agent, box: Box) -> None:
    wait_for(lambda: running(box, "web"))
    for _ in ("with an agent", "without"):
        shell = Terminal([*agent.words_of(["exec"]), "exec", "-it", "web", "sh"], columns=90, rows=30)
        shell.read_until("# ")
        shell.type("stty size\r")
        shell.read_until("30 90")
        shell.resize(40, 100)
        shell.type("echo begun; sleep 50\r")
        shell.read_until("begun\r\n")  # what is typed before is lost when the shell gives its terminal away
        shell.type("\x03")
        shell.read_until("# ")
        shell.type("stty size\r")
        shell.read_until("40 100")
        shell.type("exit 7\r")
        assert shell.end().code == 7
        assert said(agent, "exec", "web", "sh", "-c", "echo a; echo b >&2; exit 3") == (3, "a\nb\n")
        agent.end()
    assert said(agent, "stop", "web") == (
        0,
        "web stopped (`option state 'stopped'` committed to containers)\n",
    )
    assert not running(box, "web")
    assert "out web" in said(agent, "logs", "web", "-n", "3")[1]
    assert said(agent, "wait", "web")[0] == 1
    with (box.config / "containers").open("a") as file:
        file.write("\nconfig container 'fresh'\n\toption image 'busybox:test'\n\toption state 'stopped'\n")
    code, text = said(agent, "start", "fresh")
    assert code == 1
    assert "fresh has no container yet, and no agent runs that would create it: `ucidockd reconcile`" in text


@pytest.mark.long
def test_a_command_has_the_size_of_this_terminal_from_its_first_moment(agent: Agent, box: Box) -> None:
    if tuple(map(int, box.client.api.version()["ApiVersion"].split("."))) < (1, 42):
        pytest.skip("this engine takes no size before the start")
    wait_for(lambda: running(box, "web"))
    for _ in ("with an agent", "without"):
        shell = Terminal(
            [*agent.words_of(["exec"]), "exec", "-it", "web", "stty", "size"], columns=90, rows=30
        )
        assert shell.end().code == 0
        assert "30 90" in shell.raw
        agent.end()


def test_without_an_engine_a_sentence_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "containers").write_text("config container 'web'\n\toption image 'nginx'\n")
    where = [
        f"--config-dir={tmp_path}",
        f"--socket={tmp_path}/none",
        f"--docker-host=unix://{tmp_path}/gone.sock",
    ]
    for words in (["logs", "web"], ["exec", "web", "ls"], ["restart", "web"], ["pull", "web"]):
        assert main([*where, *words]) == 1
        told = capsys.readouterr().err
        assert "no Docker engine at" in told and "systemctl start docker" in told


def test_a_followed_log_goes_on_with_the_container_that_replaces_it(agent: Agent, box: Box) -> None:
    assert said(agent, "wait", "--timeout", "30")[0] == 0
    command = [sys.executable, "-m", "agent", *agent.words_of(["logs"]), "logs", "-f", "web", "-n", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as follower:
        assert follower.stdout is not None
        lines = iter(follower.stdout.readline, "")
        assert next(line for line in lines if line.startswith("out"))
        before = box.client.containers.get("web").id
        agent.commit(CONFIG.replace("out web", "out replaced"))
        assert next(line for line in lines if line == "out replaced\n")
        assert box.client.containers.get("web").id != before
        assert said(agent, "stop", "web")[0] == 0
        assert set(lines) <= {"out replaced\n", "err web\n"}
        assert follower.wait(20) == 0


@pytest.mark.long
def test_a_start_says_when_the_container_has_ended_already(agent: Agent, box: Box) -> None:
    assert said(agent, "wait", "--timeout", "30")[0] == 0
    box.client.api.create_container("busybox:test", ["sh", "-c", "exit 3"], name="short")
    code, text = said(agent, "start", "short")
    assert (code, text) == (0, "short started, and ended with exit code 3 (it is not declared)\n")
    box.client.api.remove_container("short", force=True)
