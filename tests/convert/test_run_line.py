# SPDX-License-Identifier: GPL-2.0-or-later
"""`docker run` lines as people copy them from READMEs become sections that pass the check, and no flag goes unsaid."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from agent.convert.command_line import BY_LETTER, FLAGS
from agent.convert.conversion import Conversion, Line, Verdict
from agent.convert.run_line import import_run
from agent.errors import ConfigError
from agent.uci.decode import decode
from agent.uci.syntax import parse

DATA = Path(__file__).parents[1] / "data"
LINES = (DATA / "run-lines.txt").read_text().strip().split("\n\n")


def convert(text: str | list[str], folder: str = "/srv/app") -> Conversion:
    conversion = Conversion()
    import_run(text, conversion, folder=folder)
    conversion.finish({}, read_file=lambda _: "A=1\n")
    return conversion


def options(text: str | list[str], folder: str = "/srv/app") -> dict[str, str | list[str]]:
    """Of the first container."""
    sections = convert(text, folder).as_json()["sections"]
    found: dict[str, str | list[str]] = next(s["options"] for s in sections if s["type"] == "container")
    return found


def said(text: str, verdict: Verdict, folder: str = "/srv/app") -> dict[str, str]:
    return {line.where: line.text for line in convert(text, folder).report if line.verdict is verdict}


def flags_of(text: str) -> set[str]:
    """The flags before the image, by a splitter of another kind; those after it are the command's."""
    found: set[str] = set()
    line = re.sub(r"\\\n", " ", text)
    for command in re.split(r"\n|;", line):
        words = shlex.split(command, comments=True)
        if not {"run", "create"} & set(words):
            continue
        start = max(words.index(word) for word in ("run", "create") if word in words) + 1
        while start < len(words) and words[start].startswith("-"):
            name, equals, _ = words[start].lstrip("-").partition("=")
            long = words[start].startswith("--")
            flag = next((f for f in FLAGS if f.name == name), None) if long else BY_LETTER.get(name[-1:])
            found.add(name if long else next(f.name for f in FLAGS if f.short == name[0]))
            takes = flag is None or not flag.switch
            start += 2 if takes and not equals and (long or len(name) == 1 or flag is not None) else 1
    return found


@pytest.mark.parametrize("text", LINES, ids=range(len(LINES)))
def test_lines_of_readmes_become_sections_that_pass(text: str) -> None:
    conversion = convert(text)
    written = conversion.as_json()["text"]
    result = decode(
        {"containers": parse(written, package="containers")}, paths={}, read_file=lambda _: "A=1\n"
    )
    assert [issue.text() for issue in result.issues if issue.severity == "error"] == []
    assert result.desired.containers
    assert all(line.text for line in conversion.report if line.verdict is not Verdict.TAKEN)


@pytest.mark.parametrize(
    "text",
    [t for t in LINES if " create " not in t and "-dp" not in t and "-it" not in t and "; do" not in t],
)
def test_every_flag_is_accounted_for(text: str) -> None:
    told = {line.where.split()[0].lstrip("-") for line in convert(text).report if line.where.startswith("--")}
    assert flags_of(text) - told - {"H", "log-level"} == set()


def test_the_flags_are_docker_run_s() -> None:
    named = (DATA / "docker-run-flags.txt").read_text().split()
    assert [flag.name for flag in FLAGS] == named
    assert all(bool(flag.option) is not bool(flag.reason) for flag in FLAGS)


def test_words_that_a_shell_has_split_are_taken_as_they_are() -> None:
    assert options(["docker", "run", "-e", "A=$B", "nginx", "a b"])["env"] == ["A=$B"]
    assert options(["docker", "run", "-e", "A=$B", "nginx", "a b"])["command"] == ["a b"]


def test_without_a_policy_nothing_restarts() -> None:
    assert options("docker run nginx")["restart"] == "no"
    assert "--restart" in said("docker run nginx", Verdict.CHANGED)


def test_single_quotes_keep_a_dollar_and_double_quotes_do_not() -> None:
    text = """docker run -e A='p$w' -e B="p$w" nginx"""
    assert options(text)["env"] == ["A=p$w"]
    assert said(text, Verdict.UNKNOWN) == {"--env": "write the value instead of $w, which only a shell knows"}


def test_relative_paths_start_at_the_folder_and_need_one() -> None:
    text = "docker run -v ./a:/a -v $PWD/b:/b -v ~/c:/c nginx"
    assert options(text)["volume"] == ["/srv/app/a:/a", "/srv/app/b:/b", "/root/c:/c"]
    assert options(text, folder="")["volume"] == ["/root/c:/c"]


def test_a_network_gets_a_section_that_takes_over_what_exists() -> None:
    sections = convert("docker run --network my-net --ip 10.1.0.5 --network-alias w nginx").as_json()[
        "sections"
    ]
    network = next(s for s in sections if s["type"] == "network")
    assert network == {"type": "network", "name": "my_net", "options": {"name": "my-net", "adopt": "1"}}


def test_networks_and_volumes_of_commands_before_it_are_used() -> None:
    text = "docker run --network pub --ip 172.30.0.9 nginx\ndocker network create --subnet 172.30.0.0/24 pub"
    sections = convert(text).as_json()["sections"]
    assert [s["name"] for s in sections] == ["pub", "nginx"]
    assert sections[1]["options"]["network"] == ["pub,ip=172.30.0.9"]


def test_new_sections_keep_clear_of_those_that_are_there() -> None:
    conversion = Conversion(taken_names={"nginx"})
    import_run("docker run nginx", conversion)
    assert conversion.sheets[0].name == "nginx2"


def test_what_clashes_with_a_section_leaves_the_new_one() -> None:
    there = parse("config container 'a'\n option image x\n list port '80:80'\n", package="containers")
    conversion = Conversion(taken_names={"a"})
    import_run("docker run -p 80:8080 -p 81:81 nginx", conversion)
    conversion.finish({"containers": there})
    assert conversion.sheets[0].items("port") == ["81:81"]
    (line,) = (line for line in conversion.report if line.where == "--publish 80:8080")
    assert line.verdict is Verdict.LEFT_OUT


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "there is no `docker run`"),
        ("docker ps", "there is no `docker run`"),
        ("docker run -e 'A=1 nginx", "a single quote is not closed"),
        ('docker run -e "A=1 nginx', "a double quote is not closed"),
    ],
)
def test_what_is_no_line_is_refused_in_words(text: str, part: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(part)):
        convert(text)


@pytest.mark.parametrize(
    "text", ["docker run", "docker run -d", "docker run -p", "docker run --name", "docker run -e A=1"]
)
def test_a_line_without_an_image_says_so(text: str) -> None:
    report: list[Line] = convert(text).report
    assert any(line.verdict is Verdict.UNKNOWN for line in report)
    assert not convert(text).sheets


def test_no_secret_is_in_the_report() -> None:
    text = "docker run -e TOKEN=S3CRET-1 --health-cmd 'curl -u a:S3CRET-2 x' -l t=S3CRET-3 img --password S3CRET-4"
    assert "S3CRET" not in str(convert(text).report)


SECRET = "S3CRETxyz"


@pytest.mark.parametrize(
    "line",
    [
        f"docker run --bogus=http://u:{SECRET}@host web:1",
        f"docker run --mount type=volume,volume-opt=password={SECRET},dst=/x,bogus=1 web:1",
        f"docker run --log-opt splunk-token={SECRET} --log-opt bogus --security-opt=token={SECRET} web:1",
        f"docker run -e 'b ad={SECRET}' --env-file /x?password={SECRET} web:1 --requirepass {SECRET}",
        f"docker run --health-cmd 'curl -u u:{SECRET} h' --label password={SECRET} --annotation token={SECRET} web:1",
        f"docker run --storage-opt password={SECRET} --volume-driver http://u:{SECRET}@h web:1",
    ],
)
def test_the_report_shows_no_secret_of_the_line(line: str) -> None:
    """The sections have to hold them, and show them to who imports; the report may be copied to anywhere."""
    assert SECRET not in repr(convert(line).as_json()["report"])
