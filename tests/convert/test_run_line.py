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
    assert said(text, Verdict.UNKNOWN) == {
        "--env B": "write the value instead of $w, which only a shell knows"
    }


@pytest.mark.parametrize(
    "written",
    [
        "${A:?must be set}",
        "${#A}",
        "${A%x}",
        "$((1 + 2))",
        "$1",
        "$$",
        "$(cat 'a b' | cut -d\\( -f1)",
        "`id -u`",
        "$2y$05$ab",
    ],
)
def test_what_only_a_shell_can_replace_is_never_taken(written: str) -> None:
    text = f'docker run -e "X={written}" -e Y=1 nginx top'
    assert (options(text)["env"], options(text)["command"]) == (["Y=1"], ["top"])
    assert list(said(text, Verdict.UNKNOWN)) == ["--env X"]


def test_defaults_may_have_defaults_and_comments_in_backquotes_are_none() -> None:
    text = (
        'BASE="${BASE:-$(pwd)}"\nTAG=${TAG:=${OTHER-1.2}}\nMORE="-p 80:80 -e A=1"\n'
        'docker run \\\n --hostname=sync `#optional` \\\n -v "${BASE}/x:/x" $MORE \\\n nginx:$TAG'
    )
    found = options(text)
    assert (found["volume"], found["image"], found["hostname"]) == (["/srv/app/x:/x"], "nginx:1.2", "sync")
    assert (found["port"], found["env"]) == (["80:80"], ["A=1"])


@pytest.mark.parametrize(
    "words", ["> /dev/null 2>&1", ">/tmp/id", "2>>log &", "&>/dev/null", ">| x", "< /dev/null"]
)
def test_redirections_are_not_the_command(words: str) -> None:
    assert "command" not in options(f"docker run -d nginx {words}")
    assert options(f"docker run -d nginx top {words.removesuffix('&')} -b")["command"] == ["top", "-b"]
    assert options("docker run -e A=<name> -v <your/path>:/x nginx")["env"] == ["A=<name>"]


@pytest.mark.parametrize(
    "text",
    [
        "root@OpenWrt:~# docker run -p 80:80 --name web nginx",
        "[me@nas ~]$ sudo -E docker run -p 80:80 --name web nginx",
        "PS C:\\Users\\me> docker run -p 80:80 `\n --name web `\n nginx",
        "# docker run -p 80:80 --name web nginx",
        "$ sudo -u root -- docker run \\\n> -p 80:80 \\\n> --name web nginx",
        "docker run \\\n  > -p 80:80 \\\n  > --name web \\\n  > nginx",
        "docker run –p 80:80 –name “web” nginx",
        "docker run —publish=80:80 -name web nginx",
        "docker run --p 80:80 -name=web nginx",
        "docker run\u00a0-p 80:80 --name web\u200b nginx",
        "\ufeffdocker run -p 80:80 --name web nginx",
        "docker run -p 80:80 \\  # the web port\n --name web \\ \n nginx",
        "docker run -p 80:80\n  --name web\n  nginx",
    ],
)
def test_lines_copied_from_terminals_and_web_pages(text: str) -> None:
    found = convert(text).as_json()["sections"]
    assert [(s["name"], s["options"].get("port"), s["options"]["image"]) for s in found] == [
        ("web", ["80:80"], "nginx")
    ]


def test_switches_that_look_like_a_long_flag_stay_switches() -> None:
    assert options("docker run -ip 80:80 nginx")["port"] == ["80:80"]


def test_the_folder_of_windows() -> None:
    assert options("docker run ^\n -v %cd%/data:/data nginx")["volume"] == ["/srv/app/data:/data"]


def test_a_volume_with_a_driver_gets_a_section() -> None:
    mount = 'type=volume,src=media-nfs,dst=/m,volume-driver=local,volume-opt=type=nfs,"volume-opt=o=addr=10.0.0.1,ro"'
    volume, container = convert(f"docker run --mount '{mount}' nginx").as_json()["sections"]
    assert volume["options"] == {
        "name": "media-nfs", "driver": "local", "adopt": "1", "opt": ["type=nfs", "o=addr=10.0.0.1,ro"],
    }  # fmt: skip
    assert (volume["name"], container["options"]["volume"]) == ("media_nfs", ["media_nfs:/m"])


def test_a_setting_without_a_network_is_said_once_and_as_it_was_written() -> None:
    text = "docker run --network host --network-alias x --ip 1.2.3.4 nginx"
    assert set(said(text, Verdict.LEFT_OUT)) == {"--network-alias x", "--ip 1.2.3.4"}
    assert not {"--network-alias x", "--ip 1.2.3.4"} & set(said(text, Verdict.TAKEN))


def test_without_the_network_that_it_shares_there_is_no_container() -> None:
    """It would reach the internet past its VPN."""
    assert not convert("docker run --network service:vpn nginx").drafts
    both = "docker run --name vpn gluetun; docker run --network service:vpn nginx"
    assert options(both.replace("; ", "\n"))["image"] == "gluetun"
    assert len(convert(both).drafts) == 2


def test_a_policy_that_is_wrong_does_not_make_a_service() -> None:
    assert options("docker run --restart unless_stopped nginx")["restart"] == "no"


def test_a_compose_command_is_answered_with_the_import_of_the_file() -> None:
    with pytest.raises(ConfigError, match="`ucidockd import compose FILE` takes a compose file"):
        convert("docker compose up -d")


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
    assert conversion.drafts[0].name == "nginx2"


def test_what_clashes_with_a_section_leaves_the_new_one() -> None:
    there = parse("config container 'a'\n option image x\n list port '80:80'\n", package="containers")
    conversion = Conversion(taken_names={"a"})
    import_run("docker run -p 80:8080 -p 81:81 nginx", conversion)
    conversion.finish({"containers": there})
    assert conversion.drafts[0].items("port") == ["81:81"]
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
    assert not convert(text).drafts


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


def test_the_network_of_a_container_that_is_left_out_is_left_out_too() -> None:
    made = convert(
        "docker network create own && docker run -d --network nn --network own --name x/y nginx"
    ).as_json()
    assert [(s["type"], s["name"]) for s in made["sections"]] == [("network", "own")]
    assert [line["text"] for line in made["report"] if line["where"] == "network nn"] == [
        "the container that needs it is left out"
    ]
