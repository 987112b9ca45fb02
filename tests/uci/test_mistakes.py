# SPDX-License-Identifier: GPL-2.0-or-later
"""All mistakes of a file are told, each with the line where it began; and what libuci merges or drops without a word."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from agent.cli.main import main
from agent.convert.command_line import FLAGS
from agent.files.config import mistakes_of
from agent.model.issues import Issue, issue_as_json
from agent.schema.validate import DAEMON_KINDS, KINDS, WORDS, properties
from agent.uci.decode import decode
from agent.uci.syntax import UciSyntaxError, parse

WEB = "config container 'web'\n\toption image 'nginx'\n"


def told(text: str) -> list[tuple[int, str, str]]:
    with pytest.raises(UciSyntaxError):
        parse(text, package="containers")
    return [(m.line, m.wrong, m.expected) for m in mistakes_of(text, package="containers")]


ONE: dict[str, tuple[str, int, str, str]] = {
    "a dash in a section name": (
        "config container 'home-assistant'\n\toption image 'x'\n",
        1,
        "section names may hold letters, digits and `_` only, unlike `home-assistant`",
        "`config container 'home_assistant'` and `option name 'home-assistant'`",
    ),
    "a quote that is never closed": (
        "config container 'web'\n\toption image 'nginx\n\toption memory '64m'\n\tlist port '80:80'\n",
        2,
        "the quote opened in `option image` is never closed",
        "a closing quote on the same line",
    ),
    "one at the end": (
        WEB + '\toption user "root\n',
        3,
        "the quote opened in `option user` is never closed",
        "a closing",
    ),
    "a section of another type": (
        "config volume 'db'\n\nconfig container 'db'\n\toption image 'x'\n",
        3,
        "`db` is already the volume of line 1; names are unique in a UCI file",
        "another name, as in `config container 'db_container'`, with `option name 'db'`",
    ),
    "an option without a section": (
        "option a 'b'\n",
        1,
        "`option a` stands before the first section",
        "a `config` line",
    ),
    "a misspelt command": (WEB + "\toptoin user 'x'\n", 3, "`optoin` is not a UCI command", "`option`"),
    "no command at all": (
        WEB + "S3CRET hidden\n",
        3,
        "the line does not begin with a UCI command",
        "`config`",
    ),
    "several words": (
        WEB + "\toption command sleep 5\n",
        3,
        "`option command` has more than one value",
        "'a b c'",
    ),
    "a dash in an option": (
        WEB + "\toption mem-limit '1'\n",
        3,
        "`mem-limit` is not an option name",
        "`option mem_limit`",
    ),
    "an equals sign": (
        WEB + "\toption password='S3CRET'\n",
        3,
        "an equals sign follows `option password`",
        "`option password 'VALUE'`",
    ),
    "a byte order mark": ("\ufeff" + WEB, 1, "byte order mark", "UTF-8 without BOM"),
    "typographic quotes": (WEB + "\toption user \u201ca b\u201d\n", 3, "typographic quotes", "plain quotes"),
    "an option without a name": (WEB + "\toption\n", 3, "`option` is not complete", "`option NAME 'VALUE'`"),
    "a section without a type": ("config\n", 1, "`config` is not complete", "`config TYPE 'NAME'`"),
}


@pytest.mark.parametrize("name", ONE)
def test_a_mistake_is_told_with_its_line(name: str) -> None:
    text, line, wrong, expected = ONE[name]
    [(found, said, wish)] = told(text)
    assert found == line
    assert wrong in said
    assert expected in wish


def test_all_mistakes_are_told_each_with_its_line() -> None:
    text = (
        "config container 'a-b'\n\toption image 'x'\n"  # 1
        "config container 'web'\n\toption image 'nginx\n\toption user 'me'\n"  # 4
        "\toptoin memory '64m'\n"  # 6
        "\toption command sleep 5\n"  # 7
        "config volume 'web'\n\toption driver 'local'\n"  # 8
        "\n\tlist port '80:80\n"  # 11
    )
    assert [line for line, _, _ in told(text)] == [1, 4, 6, 7, 8, 11]


def test_no_value_is_told() -> None:
    for text in (
        WEB + "\tlist env 'PASSWORD=S3CRET\n\toption user 'x'\n",
        WEB + "\tlist env PASSWORD=S3CRET x\n",
        WEB + "\tlist env 'A=1\nS3CRET\n",
        "S3CRET\n",
    ):
        assert "S3CRET" not in str(told(text))


def test_a_file_of_mistakes_is_told_quickly() -> None:
    assert len(told("x\n" * 200_000)) == 50


@pytest.mark.parametrize(
    "text",
    ["config 'a\n", "config a b c", "'", '"\\', "option", "config x '\nconfig y '\n\n'", "\0", "a;b;c"],
)
def test_any_text_ends(text: str) -> None:
    for mistake in mistakes_of(text, package="x"):
        assert 1 <= mistake.line <= text.count("\n") + 1


def warnings(text: str) -> list[str]:
    found = decode({"containers": parse(text, package="containers")}, paths={}).issues
    assert all(issue.severity == "warning" for issue in found), found
    return [issue.text() for issue in found]


def test_a_section_that_is_written_twice_is_told() -> None:
    [said] = warnings(WEB + "\nconfig container 'web'\n\toption user 'x'\n")
    assert "containers.web: the section is written in lines 1 and 4" in said


def test_an_option_that_is_written_twice_is_told() -> None:
    [said] = warnings(WEB + "\toption port '80:80'\n\toption port '443:443'\n")
    assert "port: is set in lines 3 and 4: only the last value counts, expected one `list port` line" in said
    [said] = warnings(WEB + "\toption user 'a'\n\toption user 'b'\n\toption user 'c'\n")
    assert "user: is set in lines 3, 4 and 5" in said
    assert warnings(WEB + "\tlist port '80:80'\n\tlist port '443:443'\n") == []


def test_a_value_that_swallowed_a_command_is_told() -> None:
    text = WEB + "\tlist env 'A=1\n\tlist env 'B=2'\n\tlist env C='\n"
    said = [
        issue.text() for issue in decode({"containers": parse(text, package="containers")}, paths={}).issues
    ]
    assert any("continues over a line that looks like a command" in text for text in said)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in WORDS.items() for name in names])
def test_names_from_elsewhere_are_told_what_to_write(kind: str, name: str) -> None:
    assert name not in properties(kind)
    login = "\toption serveraddress 'ghcr.io'\n\toption token 'x'\n"
    notify = "\toption type 'exec'\n\tlist command 'x'\n"
    required = {"container": "\toption image 'x'\n", "auth": login, "notify": notify}.get(kind, "")
    [said] = warnings(f"config {kind} 'abc'\n{required}\toption {name} '1'\n")
    assert WORDS[kind][name].removeprefix("nothing: ") in said
    assert "perhaps" not in said


def test_check_strict_fails_on_warnings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "containers"
    file.write_text(WEB + "\toption memroy '64m'\n")
    args = ["check", "--config-dir", str(tmp_path), "--override-dir", str(tmp_path / "none")]
    assert main(args) == 0
    assert main([*args, "--strict"]) == 1
    assert "perhaps `memory`" in capsys.readouterr().out
    file.write_text(WEB)
    assert main([*args, "--strict"]) == 0
    file.write_text("config container 'a-b'\nfoo\n")
    assert main(args) == 1
    out = capsys.readouterr().out
    assert f"{file}:1: error: " in out
    assert f"{file}:2: error: " in out


COMPOSE = """
annotations attach blkio_config build cap_add cap_drop cgroup cgroup_parent command configs
container_name cpu_count cpu_percent cpu_period cpu_quota cpu_rt_period cpu_rt_runtime cpu_shares
cpus cpuset credential_spec depends_on deploy develop device_cgroup_rules devices dns dns_opt
dns_search domainname driver_opts entrypoint env_file environment expose extends external_links
extra_hosts gpus group_add healthcheck hostname image init ipc isolation label_file labels links
logging mac_address mem_limit mem_reservation mem_swappiness memswap_limit models network_mode
networks oom_kill_disable oom_score_adj pid pids_limit platform ports post_start pre_stop privileged
profiles provider pull_policy read_only restart runtime scale secrets security_opt shm_size
stdin_open stop_grace_period stop_signal storage_opt sysctls tmpfs tty ulimits use_api_socket user
userns_mode uts volumes volumes_from working_dir
""".split()  # noqa: SIM905 - a list of seventy words


def test_every_flag_of_docker_run_and_key_of_compose_is_known_or_has_an_answer() -> None:
    flags = [name.replace("-", "_") for flag in FLAGS for name in (flag.name, flag.short) if name]
    known = properties("container").keys() | WORDS["container"].keys()
    assert {*flags, *COMPOSE} - known == set()


def checked(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, *words: str) -> list[str]:
    file = tmp_path / "any.conf"
    file.write_text(text)
    main(["check", str(file), f"--config-dir={tmp_path / 'none'}", *words])
    return capsys.readouterr().out.replace(str(file), "FILE").splitlines()


def test_mistakes_of_options_are_told_beside_those_of_the_syntax(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (
        "config network 'my-net'\n\toption memroy '1'\n\n"
        "config container 'web'\n\toption image 'nginx\n\toption detach '1'\n\n"
        "config container 'db'\n\toption memory '64'\n"
    )
    lines = checked(tmp_path, capsys, text)
    assert [line.partition(" container")[0] for line in lines] == [
        "FILE:1: error:",
        "FILE:2: warning:",
        "FILE:5: error:",
        "FILE:6: warning:",
        "FILE:8: error:",
    ]
    assert lines[4].startswith("FILE:8: error: containers.db.image: is missing")
    codes = [issue["code"] for issue in json.loads("\n".join(checked(tmp_path, capsys, text, "--json")))]
    assert codes == ["syntax", "unknown-option", "syntax", "unknown-option", "missing-option"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("option memory '64'", "is too small (64 means 64 bytes), expected at least 6m; did you mean `64m`?"),
        ("list env 'TZ: Europe/Berlin'", "write `TZ=...`"),
        ("option detach '1'", "containers always run in the background"),
        ("option publish '80:80'", "expected `list port`"),
    ],
)
def test_it_says_what_to_write(
    line: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in "".join(checked(tmp_path, capsys, WEB + "\t" + line + "\n"))


def test_the_standard_input_and_a_file_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"config container 'web'\n")))
    assert main(["check", "-", f"--config-dir={tmp_path}"]) == 1
    assert capsys.readouterr().out.startswith("<stdin>:1: error: containers.web.image: is missing")
    assert main(["check", f"{tmp_path}/gone"]) == 1
    assert capsys.readouterr().err.startswith(f"ucidockd: there is no file {tmp_path}/gone: name one")
    assert main(["check", f"--config-dir={tmp_path}", f"--override-dir={tmp_path}/none"]) == 1
    assert f"`touch {tmp_path}/containers` makes an empty one" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said", "wish"),
    [
        ('{"services": {}}', "the file is JSON", "`ucidockd import compose FILE`"),
        (
            "# mine\n\nservices:\n  web:\n    image: nginx\n",
            "the file is YAML",
            "`ucidockd import compose FILE`",
        ),
        ("version: '3'\nservices: {}\n", "the file is YAML", "`ucidockd import compose FILE`"),
        ("  sudo docker run -d -p 80:80 nginx\n", "this is a command line", "`ucidockd import run < FILE`"),
    ],
)
def test_a_file_in_another_syntax_is_one_mistake_with_the_way_out(text: str, said: str, wish: str) -> None:
    [mistake] = mistakes_of(text, package="containers")
    assert said in mistake.wrong and wish in mistake.expected
    if "JSON" in said:
        [mistake] = mistakes_of(text, package="dockerd")
        assert "alt_config_file" in mistake.expected


@pytest.mark.parametrize(
    ("line", "said", "wish"),
    [
        ("option command ['nginx','-g']", "UCI has no arrays", "one `list command` line for each argument"),
        ("list tmpfs '/tmp:64m'", "'64m' is not an option of a tmpfs", "did you mean `size=64m`?"),
        ("list tmpfs '/tmp:mode:1777'", "'mode:1777' is not an option of a tmpfs", "size=64m,mode=1777"),
    ],
)
def test_what_only_the_engine_would_refuse_is_told_before(line: str, said: str, wish: str) -> None:
    [issue] = decoded_container(line)
    assert said in issue.message and wish in issue.expected


@pytest.mark.parametrize(
    "line", ["list tmpfs '/tmp:rw,noexec,size=64m,mode=1777'", "option command '[ -f /x ]'"]
)
def test_what_the_engine_takes_is_no_mistake(line: str) -> None:
    assert decoded_container(line) == ()


@pytest.mark.parametrize(
    ("kind", "wish"),
    [
        ("containers", "`config container 'NAME'`"),
        ("service", "`config container 'NAME'`"),
        ("login", "`config auth 'NAME'`"),
        ("interface", "one of container, network"),
    ],
)
def test_another_section_type_gets_the_one_that_is_meant(kind: str, wish: str) -> None:
    package = parse(f"config {kind} 'web'\n\toption image 'nginx'\n", package="containers")
    [issue] = decode({"containers": package}, paths={}).issues
    assert "is ignored" in issue.message and wish in issue.expected


def decoded_container(line: str) -> tuple[Issue, ...]:
    package = parse(f"config container 'web'\n\toption image 'nginx'\n\t{line}\n", package="containers")
    return decode({"containers": package}, paths={}).issues


PLANTED = "S3CRETx9"
FORMS = (
    f"u:{PLANTED}@h",
    f"http://u:{PLANTED}@h/x",
    f"tcp://u:{PLANTED}@192.0.2.1:1",
    f"//u:{PLANTED}@h",
    f"u:{PLANTED}@reg.lan:5000/App:1",
    f"u:{PLANTED}@192.0.2.1:80:80",
    f"/a:u:{PLANTED}@b:rw",
    f"u:{PLANTED}@[::1]:80",
    f"x=u:{PLANTED}@h",
    f"a u:{PLANTED}@h:99999",
    f"PASSWORD={PLANTED}\x01",
    f"API_TOKEN={PLANTED}",
    f"https://h/?token={PLANTED}",
)


@pytest.mark.parametrize("kind", [*KINDS, *DAEMON_KINDS])
def test_no_mistake_shows_a_secret_whatever_option_it_was_written_into(kind: str) -> None:
    for option in (*properties(kind), "imagge", "passwrd"):
        for form in FORMS:
            package = parse(
                f"config {kind} 'web'\n\toption image 'a'\n\tlist {option} '{form}'\n", package="x"
            )
            for issue in decode(
                {"dockerd" if kind in DAEMON_KINDS else "containers": package}, paths={}
            ).issues:
                assert PLANTED not in issue.text() + json.dumps(issue_as_json(issue)), (option, form)
