# SPDX-License-Identifier: GPL-2.0-or-later
"""Help in a real terminal, and what is answered to what people type who know docker, compose, kubectl or terraform."""

from __future__ import annotations

import importlib
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agent.cli.commands import COMMANDS, DOCKER_WORDS, GROUPS
from agent.cli.main import main
from agent.cli.parser import parse
from tests.support.agent_process import wait_for
from tests.support.manual import PROJECT, WIDTHS
from tests.support.terminal import shown


@pytest.mark.parametrize("columns", WIDTHS)
def test_help_in_a_terminal(columns: int) -> None:
    golden = (PROJECT / f"tests/data/terminal/help-{columns}.txt").read_text()
    seen = [shown([], columns=columns), shown(["logs", "--help"], columns=columns)]
    assert [each.code for each in seen] == [2, 0]
    assert seen[0].raw.replace("\r\n", "\n") + seen[1].raw.replace("\r\n", "\n") == golden
    examples = re.compile("  ucidockd ")  # a command line is not broken
    assert all(len(line) < columns or examples.match(line) for line in golden.splitlines())


def test_every_row_is_whole() -> None:
    for command in COMMANDS:
        module, _, function = command.handler.partition(":")
        assert callable(getattr(importlib.import_module(module), function)), command.name
        assert command.group in GROUPS
        assert len(command.summary) <= 60 and not command.summary.endswith("."), command.name
        assert command.description.endswith(".") and command.examples and command.exit_codes, command.name
        for text, _ in command.examples:
            for line in re.findall(r"ucidockd ([^|;<]+)", text):
                parse([word.strip("'") for word in line.split()])
    assert DOCKER_WORDS.keys() & {command.name for command in COMMANDS} == set()


def test_common_options_stand_before_or_behind() -> None:
    for words in (
        ["--json", "status", "--socket", "x"],
        ["status", "--json", "--socket=x"],
        ["--socket=x", "status", "--json"],
    ):
        command, args = parse(words)
        assert (command.name, args.json, args.socket) == ("status", True, "x")


MISTAKES = {
    "statsu": "there is no command `statsu`; did you mean `ucidockd status`?",
    "stat": "did you mean `ucidockd status`?",
    "ps -a": "`ucidockd status` shows what runs",
    "up -d": "`ucidockd reconcile`",
    "down": "uci delete containers.NAME",
    "compose up": "`ucidockd import compose FILE`",
    "run -d nginx": "this command is the agent; `ucidockd import run",
    "run nginx": "`nginx` is one word too many: this command is the agent",
    "rm web": "delete the section",
    "images": "`ucidockd pull`",
    "kill web": "`ucidockd stop NAME` stops a container",
    "apply --auto-approve": "`ucidockd reconcile` applies the configuration",
    "validate": "`ucidockd check` lists every mistake",
    "plan --detailed-exitcode": "`--exit-code` ends with 4",
    "reconcile web": "it applies the whole configuration; `ucidockd start NAME`",
    "logs": "NAME is missing: a section, a Docker name or an id",
    "logs --folow web": "unknown option --folow; did you mean --follow?",
    "-f logs web": "it is an option of `ucidockd logs` and follows the command",
    "status --tail 5": "--tail does not apply to `status`; it is an option of `logs`",
    "--jsn status": "did you mean --json?",
    "status --json=1": "--json takes no value",
    "stop -t 5 web": "`option stop_timeout` of the section",
    "restart --once web": "leave it out, a restart never changes the section",
    "exec": "NAME is missing",
    "wait --for=running": "`running` is not one of in-sync, healthy",
    "wait --timeout 5x": "`5x` is not a duration such as 90s or 2m",
    "wait --timeout": "--timeout needs a value",
    "tls": "`tls` needs a second word: `ucidockd tls client`",
    "uci sho containers": "`sho` is not one of show, export; did you mean show?",
    "--docker-host nope plan": "expected unix:///path, tcp://address:port",
    "--config-dir /x": "a command is missing after `--config-dir /x`",
    "run --json": "--json does not apply to `run`",
    "uci show containers --json": "--json does not apply to `uci`",
    "check --docker-host unix:///x": "--docker-host does not apply to `check`",
    "-v": "did you mean --version?",
    "import run -d -p 80:80 nginx": "docker's options follow `--`, as in `ucidockd import run -- docker run",
    "completion bash": "the package brings completion",
    "rollout undo web": "`ucidockd update` and `ucidockd rollback NAME`",
    "volumes": "`ucidockd volume ls`",
    "help nosuch": "`ucidockd --help` lists the commands",
    "prune --volumes": "volumes are never removed",
    "status --load --watch": "leave out --watch, or --load",
    "logs --tail ten web": "--tail ten: expected a number of lines",
    "logs --grep ( web": "not a regular expression",
    "logs --since yesterday web": "--since yesterday: expected a duration",
    "logs -f --until 5m web": "use only one of them",
    "volume put data /x.tar --replace --create": "--replace and --create cannot be used together",
    "volume ls a/b": "`a/b` is not a name",
    "restore /x.tar": "`/x.tar` is not a name",
    "describe web%2f": "`web%2f` is not a name",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_gets_what_to_do_next(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert MISTAKES[line] in told.err
    assert "--help" in told.err and "Traceback" not in told.err and "argument " not in told.err


def test_an_encoding_without_a_character_shows_its_number() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "agent", "import", "run", "--", "docker", "run", "-e", "A=\u2713", "nginx"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        check=False,
    )
    assert done.returncode == 0
    assert rb"list env 'A=\u2713'" in done.stdout


@pytest.mark.long
@pytest.mark.parametrize("line", ["plan", "describe web", "reconcile"])
def test_an_agent_that_hangs_is_said(line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()  # and never accepts
        assert main([*line.split(), "--socket", str(path)]) == 1
    assert "does not answer within 10 s" in capsys.readouterr().err


def test_docker_host_of_the_environment_counts_and_is_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "containers").write_text("config container 'web'\n\toption image 'nginx'\n")
    where = [f"--config-dir={tmp_path}", f"--state-dir={tmp_path}/state", f"--socket={tmp_path}/none"]
    for host, said in (
        (f"unix://{tmp_path}/gone.sock", f"no Docker engine at unix://{tmp_path}/gone.sock"),
        ("foo", "the environment variable DOCKER_HOST: 'foo' is not an address"),
    ):
        monkeypatch.setenv("DOCKER_HOST", host)
        assert main(["plan", *where]) == 1
        told = capsys.readouterr()
        assert told.out == ""
        assert said in told.err and len(told.err.splitlines()) == 1


def test_an_internal_error_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr("agent.cli.system.load_given", broken)
    assert main(["check"]) == 1
    assert capsys.readouterr().err.startswith("ucidockd: internal error (KeyError), a defect of ucidockd")


def test_colours_in_a_terminal_and_none_where_they_are_not_wanted(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_text("config container 'web'\n\toption memroy '1'\n")
    coloured = shown(["check", str(file)])
    assert "\x1b[31merror\x1b[0m" in coloured.raw and "\x1b[33mwarning\x1b[0m" in coloured.raw
    plain = shown(["check", str(file)], NO_COLOR="1")
    assert "\x1b" not in plain.raw
    assert plain.lines == coloured.lines
    assert plain.lines[0].startswith(f"{file}:1: error: containers.web.image: is missing")


def test_where_the_agent_has_no_engine_each_command_says_so_and_a_stop_is_declared_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "containers"
    config.write_text("config container 'web'\n\toption image 'nginx'\n")
    folders = [f"--{name}-dir={tmp_path / name}" for name in ("override", "state", "save")]
    where = [f"--config-dir={tmp_path}", *folders, f"--socket={tmp_path}/agent.sock"]
    engine = f"unix://{tmp_path}/gone.sock"
    run = [
        sys.executable,
        "-m",
        "agent",
        "run",
        *where,
        f"--docker-host={engine}",
        f"--ubus-socket={tmp_path}/no",
    ]

    def said(*words: str) -> tuple[int, str]:
        code = main([*where, *words])
        told = capsys.readouterr()
        return code, told.out + told.err

    with subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=PROJECT) as agent:
        try:
            wait_for(lambda: said("status")[0] == 0)
            # already in its first pass: a stop must not depend on what the agent has read so far
            for words in ("logs web", "exec web ls", "restart web", "pull web", "plan", "diff web", "wait"):
                code, text = said(*words.split())
                assert code == 1
                assert (
                    f"no Docker engine at {engine}; is dockerd running? `/etc/init.d/dockerd start`" in text
                ), words
            code, text = said("stop", "web")
            assert code == 1
            assert (
                "`option state 'stopped'` committed to containers, but not stopped yet: no Docker engine"
                in text
            )
            assert "option state 'stopped'" in config.read_text()
        finally:
            agent.terminate()
