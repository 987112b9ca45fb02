# SPDX-License-Identifier: GPL-2.0-or-later
"""Man pages and completions are those of the commands that there are."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from agent.cli.commands import COMMANDS
from tests.support import manual, reference

PAGES = [path for path in manual.documents() if path.suffix in {".8", ".5"}]
BASH = manual.PROJECT / "package/completion/ucidockd.bash"


@pytest.mark.parametrize("path", manual.documents(), ids=lambda path: path.name)
def test_it_is_fresh(path: Path) -> None:
    assert path.read_text() == manual.documents()[path], "run `make manual`"


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_groff_has_nothing_to_say(path: Path) -> None:
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z", str(path)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""


def test_every_section_type_is_in_the_reference() -> None:
    kinds = {path.name.partition(".")[0] for path in (manual.PROJECT / "schemas").glob("*.schema.json")}
    assert {section.kind for section in reference.SECTIONS} == kinds


def test_every_command_option_and_section_is_there() -> None:
    text = (manual.PROJECT / "docs/man/ucidockd.8").read_text()
    for command in COMMANDS:
        name = command.name.replace("-", "\\-")
        assert f".SS ucidockd {name}" in text
        for option in manual.options_of(command):
            for name in option.flags:
                assert name.replace("-", "\\-") in text
    sections = (manual.PROJECT / "docs/man/ucidockd.containers.5").read_text()
    assert ".B list port" in sections and ".B option image" in sections


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["statu"], ["status"]),
        (["plan", "--exit"], ["--exit-code"]),
        (["run", "--log-level", "w"], ["warning"]),
        (["tls", ""], ["client"]),
        (["tls", "client", "--da"], ["--days"]),
        (["import", "compose", "--prof"], ["--profile"]),
        (["import", "run", "--prof"], []),
        (["uci", "exp"], ["export"]),
        (["logs", "we"], ["web", "web2", "web_3"]),
        (["plan", "conta"], ["containers"]),
        (["plan", "--config-dir", "conta"], ["containers"]),
    ],
)
def test_bash_completes(words: list[str], wanted: list[str], tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\nprintf 'web\\nweb2\\nother\\n'\n")
    docker.chmod(0o755)
    (tmp_path / "containers").write_text(
        "config network 'wet'\n\toption name 'west'\nconfig container 'web_3'\nconfig container\n\toption name \"web2\"\n"
    )
    line = " ".join(f"'{word}'" for word in ("ucidockd", *words))
    script = f'. {BASH}; COMP_WORDS=({line}); COMP_CWORD={len(words)}; _ucidockd; printf "%s\\n" "${{COMPREPLY[@]}}"'
    path = f"{tmp_path}:/usr/bin:/bin"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={"PATH": path, "UCI_CONFIG_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout.split(), done.stderr) == (wanted, "")


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes(tmp_path: Path) -> None:
    (tmp_path / "containers").write_text("config container 'web'\n\toption name 'nginx'\n")
    wanted = {"sta": ["start", "status"], "logs ": ["nginx", "web"], "import ": ["compose", "run"]}
    wanted |= {"import compose --prof": ["--profile"], "import run --prof": []}
    script = f"source {manual.PROJECT}/package/completion/ucidockd.fish\n"
    script += "".join(f"complete -C 'ucidockd {words}'; echo .\n" for words in wanted)
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "UCI_CONFIG_DIR": str(tmp_path)}
    done = subprocess.run(["fish", "-c", script], env=env, capture_output=True, text=True, check=True)
    answers = [
        [line.split("\t")[0] for line in part.split("\n") if line] for part in done.stdout.split(".\n")[:-1]
    ]
    assert dict(zip(wanted, answers, strict=True)) == wanted


@pytest.mark.parametrize(
    ("shell", "file"), [("zsh", "_ucidockd"), ("fish", "ucidockd.fish"), ("bash", "ucidockd.bash")]
)
def test_the_shell_can_read_it(shell: str, file: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n", str(manual.PROJECT / "package/completion" / file)], check=True)
