# SPDX-License-Identifier: GPL-2.0-or-later
"""What the command line prints, and how it ends: pure parts first, then against a running agent."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.apply.images import REPORT_S, PullProgress
from agent.cli.container import diff_text
from agent.cli.logs import Printer, escaped, since_when
from agent.cli.main import main
from agent.cli.output import Style
from agent.errors import ConfigError

ESC = "\x1b"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


WISHES = {
    "a terminal": ({"TERM": "xterm"}, True),
    "NO_COLOR": ({"TERM": "xterm", "NO_COLOR": "1"}, False),
    "an empty NO_COLOR": ({"TERM": "xterm", "NO_COLOR": ""}, True),
    "a dumb terminal": ({"TERM": "dumb"}, False),
}


@pytest.mark.parametrize(("env", "coloured"), WISHES.values(), ids=WISHES.keys())
def test_colours_follow_the_terminals_wishes(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], coloured: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert (Style.of(Terminal())("good", "x") != "x") is coloured
    assert Style.of(io.StringIO())("good", "x") == "x"


def a_field(name: str, desired: str, applied: str, observed: str, *why: str) -> dict[str, Any]:
    return {
        "field": name,
        "desired": desired,
        "applied": applied,
        "observed": observed,
        "edited": "edited" in why,
        "drifted": "drift" in why,
    }


DIFF = {
    "key": "container:web",
    "name": "web",
    "object_id": "id",
    "ours": True,
    "fields": [
        a_field("memory", "67108864", "67108864", "33554432", "drift"),
        a_field("env", "[A=***]", "[no A]", "[no A]", "edited"),
    ],
    "operations": [{"op": "replace", "key": "container:web", "cause": "env [no A] -> [A=***]"}],
    "findings": [],
}


def test_a_diff_shows_the_three_states_and_the_plan() -> None:
    assert diff_text(DIFF, Style(colours=False)).splitlines() == [
        "container:web, Docker name web",
        "FIELD   DECLARED  RUNS      WHY",
        "memory  67108864  33554432  drift",
        "env     A=***     no A      edited",
        "plan: replace: env [no A] -> [A=***]",
    ]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_diff_fits_the_terminal(width: int) -> None:
    long = a_field("command", "[sh, -c, " + "x " * 60 + "]", "[y]", "[" + "z" * 90 + "]", "edited", "drift")
    lines = diff_text({**DIFF, "fields": [long, *DIFF["fields"]]}, Style(colours=False, width=width)).split(
        "\n"
    )
    assert max(map(len, lines)) < width
    text = "".join("".join(lines).split())
    assert text.count("x") >= 60 if width < 60 else "applied" in text
    assert ("DECLARED" in lines[1]) is (width > 60)


def test_a_diff_without_differences_says_why_nothing_is_done() -> None:
    held = {"type": "Synced", "status": False, "reason": "Held", "message": "stop by hand"}
    answer = {**DIFF, "fields": [], "operations": [], "findings": [held], "ours": False, "object_id": ""}
    assert diff_text(answer, Style(colours=False)).splitlines() == [
        "container:web, Docker name web (not created yet)",
        "no differences",
        "plan: nothing, Held: stop by hand",
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("one\ntwo\tx\n", "one\ntwo\tx\n"),
        (f"{ESC}]0;title\x07 {ESC}[2J", "\\x1b]0;title\\x07 \\x1b[2J"),
        ("progress 1\rprogress 2\r\n", "progress 1\\rprogress 2\n"),
        ("grün", "grün"),
    ],
)
def test_a_containers_text_cannot_steer_the_terminal(text: str, shown: str) -> None:
    assert escaped(text) == shown


def test_a_line_end_that_two_pieces_share_is_one() -> None:
    written: list[str] = []
    printer = Printer(written.append, terminal=True)
    for piece in ("one\r", "\ntwo\r", "three\r"):
        printer.write(piece)
    printer.end()
    assert "".join(written) == "one\ntwo\\rthree\\r"
    piped: list[str] = []
    Printer(piped.append, terminal=False).write(f"a\r{ESC}")
    assert piped == [f"a\r{ESC}"]


def test_since_takes_durations_and_times() -> None:
    assert since_when("10m", 1000.0) == "400.000"
    assert since_when("1700000000.5", 0) == "1700000000.5"
    assert since_when("2026-01-01T00:00:00Z", 0) == "1767225600.000000000"
    assert since_when("2026-01-01T02:30:00.123456789+02:00", 0) == "1767227400.123456789"
    assert since_when("2026-01-01", 0) == since_when("2026-01-01T00:00", 0) == "1767225600.000000000"
    with pytest.raises(ConfigError, match="expected a duration such as 10m"):
        since_when("yesterday", 0)


LAYERS: list[tuple[dict[str, Any], int | None]] = [
    ({"status": "Pulling from library/nginx", "id": "1"}, None),
    ({"status": "Pulling fs layer", "id": "a"}, 0),
    ({"status": "Already exists", "id": "b"}, None),  # no work
    ({"status": "Downloading", "id": "a", "progressDetail": {"current": 50, "total": 100}}, 25),
    ({"status": "Downloading", "id": "a", "progressDetail": {"current": 10, "total": 100}}, None),
    ({"status": "Pulling fs layer", "id": "c"}, None),  # that would be less: it never goes back
    ({"status": "Downloading", "id": "c", "progressDetail": {"current": 5, "total": 0}}, None),
    ({"status": "Downloading", "id": "c", "progressDetail": {"current": -5, "total": "x"}}, None),
    ({"status": ["x"], "id": 5}, None),
    ({"status": "Pull complete", "id": "a"}, 48),
    ({"status": "Extracting", "id": "c", "progressDetail": {"current": 9, "total": 10}}, 99),
    ({"status": "Pull complete", "id": "c"}, None),
]


def test_the_progress_of_a_pull_only_grows() -> None:
    reports: list[int] = []
    now = [0.0]
    progress = PullProgress(reports.append, lambda: now[0])
    for step, expected in LAYERS:
        now[0] += REPORT_S
        before = len(reports)
        progress.step(step)
        assert reports[before:] == ([] if expected is None else [expected]), step
    assert reports == sorted(set(reports))


def test_progress_is_reported_twice_a_second_at_most_and_ten_thousand_layers_are_no_burden() -> None:
    reports: list[int] = []
    now = [0.0]
    progress = PullProgress(reports.append, lambda: now[0])
    for number in range(10_000):
        now[0] = number / 10_000
        progress.step({"status": "Already exists", "id": str(number)})
    assert len(reports) <= 2
    assert len(progress._progress._layers) <= 1000


MISTAKES = """\
config container 'web'
	option image 'nginx'
	option memory 'much'
	list port '80:x'
	option memroy '5m'

config container 'web2'
	list env '=S3CRET'
"""
LISTED = """\
FILE:3: error: containers.web.memory: 'much' is not valid here, expected a size such as 512k, 64m or 2g (b, k, m, g, t; 1024-based)
FILE:4: error: containers.web.port[0]: '80:x' is not a port, expected [ip:]host[-range]:container[-range][/tcp|udp|sctp] such as 8080:80 or 127.0.0.1:53:53/udp
FILE:5: warning: containers.web.memroy: unknown option of a container section, expected perhaps `memory`
FILE:7: error: containers.web2.image: is missing, expected an image reference such as nginx:1.27
FILE:8: error: containers.web2.env[0]: the value does not have the right form, expected K=V or K
"""  # noqa: E501 - as it is printed


def test_check_lists_every_mistake_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "containers"
    path.write_text(MISTAKES)
    assert main(["check", "--config-dir", str(tmp_path), "--override-dir", str(tmp_path / "none")]) == 1
    printed = capsys.readouterr()
    assert printed.out.replace(str(path), "FILE") == LISTED
    assert printed.err == "4 errors and 1 warning\n"


def test_check_says_what_this_router_and_its_dockerd_cannot_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "dockerd.sh"
    program.write_text("#!/bin/sh\necho 'Docker version 20.10.24, build 1'\n")
    program.chmod(0o755)
    agent = f"config agent 'agent'\n\toption daemon 'child'\n\toption dockerd '{program}'\n\toption socket '{tmp_path}/x'\n"
    (tmp_path / "containers").write_text(agent)
    (tmp_path / "dockerd").write_text(
        "config globals 'globals'\n\toption log_format 'json'\n\toption userns_remap 'nobody'\n"
        "\nconfig proxies 'proxies'\n\toption http_proxy 'http://proxy.lan:3128'\n"
    )
    words = ["check", "--config-dir", str(tmp_path), "--override-dir", str(tmp_path / "none")]
    assert main(words) == 0, "another router may have them"
    lines = capsys.readouterr().out.replace(str(tmp_path), "").splitlines()
    told = [line.partition(": is ")[0] for line in lines]
    assert sorted(told) == [
        "/dockerd:2: warning: dockerd.globals.log_format",
        "/dockerd:3: warning: dockerd.globals.userns_remap",
        "/dockerd:6: warning: dockerd.proxies.http_proxy",
    ]
    assert any("/etc/subuid has no range for nobody" in line for line in lines)
    assert main([*words, "--offline"]) == 0
    assert capsys.readouterr().out == "no mistakes\n"


def test_without_an_agent_the_message_names_the_socket(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--config-dir", str(tmp_path), "--override-dir", str(tmp_path / "none")]
    (tmp_path / "containers").write_text(f"config agent 'a'\n\toption socket '{tmp_path}/own.sock'\n")
    assert main(["status", *words]) == 1
    assert f"no agent answers on {tmp_path}/own.sock" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["logs"], ["nothing"], ["status", "--bogus"]])
def test_wrong_usage_ends_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert "--help`" in capsys.readouterr().err


HEAVY = {"docker", "requests", "jsonschema", "watchdog", "starlette", "uvicorn", "asyncio", "h11"}


def test_status_starts_without_what_it_does_not_need() -> None:
    program = "import sys\nfrom agent.cli.main import main\nmain(['status', '--socket', '/nowhere'])\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert HEAVY & set(done.stdout.split()) == set()


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    ends = pty.openpty()
    yield ends
    for end in ends:
        os.close(end)


def test_json_is_printed_without_colours_on_a_terminal_too(tmp_path: Path, terminal: tuple[int, int]) -> None:
    (tmp_path / "containers").write_text("\n")
    words = [sys.executable, "-m", "agent", "check", "--json", "--config-dir", str(tmp_path)]
    subprocess.run(words, stdout=terminal[1], check=True, env={**os.environ, "TERM": "xterm"})
    assert json.loads(os.read(terminal[0], 4096)) == []
