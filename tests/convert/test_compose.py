# SPDX-License-Identifier: GPL-2.0-or-later
"""Compose files as people have them become sections that pass the check, and no key goes unsaid."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.convert.compose import ComposeOptions, import_compose
from agent.convert.compose_file import parse_env, parse_text
from agent.convert.conversion import Conversion, Verdict
from agent.errors import ConfigError
from agent.uci.decode import DecodeResult, decode
from agent.uci.syntax import parse

DATA = Path(__file__).parents[1] / "data" / "compose-files.yml"
FILES = {
    part.partition("\n")[0].strip(): part.partition("\n")[2] for part in DATA.read_text().split("# ===")[1:]
}


def convert(text: str, **options: Any) -> Conversion:
    conversion = Conversion()
    chosen = {
        "project": "shop",
        "folder": "/srv/shop",
        "variables": {"DB_PASSWORD": "S3CRET-1", "SET": "1"},
    } | options
    import_compose(text, conversion, ComposeOptions(**chosen))
    conversion.finish({}, read_file=lambda _: "A=1\n")
    return conversion


def decoded(conversion: Conversion) -> DecodeResult:
    text = conversion.as_json()["text"]
    return decode({"containers": parse(text, package="containers")}, paths={}, read_file=lambda _: "A=1\n")


def section(text: str, name: str, **options: Any) -> dict[str, Any]:
    sections = convert(text, **options).as_json()["sections"]
    found: dict[str, Any] = next(s["options"] for s in sections if s["name"] == name)
    return found


def service(*lines: str) -> str:
    return "services:\n  app:\n    image: app\n" + "".join(f"    {line}\n" for line in lines)


def keys_of(document: dict[str, Any]) -> Iterator[str]:
    for key, value in document.items():
        if key == "services":
            yield from (f"services.{name}.{inner}" for name, body in value.items() for inner in body)
        elif key in ("networks", "volumes", "secrets", "configs"):
            yield from (f"{key}.{name}" for name in value or ())
        else:
            yield key


@pytest.mark.parametrize("name", FILES)
def test_files_become_sections_that_pass(name: str) -> None:
    conversion = convert(FILES[name], profiles=frozenset())
    result = decoded(conversion)
    assert [issue.text() for issue in result.issues if issue.severity == "error"] == []
    assert result.desired.containers
    assert all(line.text for line in conversion.report if line.verdict is not Verdict.TAKEN)


@pytest.mark.parametrize("name", FILES)
def test_every_key_is_accounted_for(name: str) -> None:
    told = [line.where for line in convert(FILES[name], profiles=frozenset("*")).report]
    for key in keys_of(parse_text(FILES[name])):
        used = key.split(".")[0] in ("secrets", "configs")  # told where a service names it
        assert used or any(re.match(rf"{re.escape(key)}(\W|$)", where) for where in told), key


def test_no_secret_is_in_a_report() -> None:
    for text in FILES.values():
        report = convert(text).report
        assert not [line for line in report if "S3CRET" in f"{line}" or "somewordpress" in f"{line}"]


def test_a_project_is_a_stack_with_the_volumes_that_compose_made() -> None:
    app = section(FILES["nextcloud"], "app")
    assert app["stack"] == "shop"
    assert app["volume"] == ["shop_nextcloud:/var/www/html:z"]
    assert app["depends_on"] == ["db", "redis"]
    assert "network" not in app


def test_ports_are_text_and_not_of_base_60() -> None:
    assert section(FILES["long-ports"], "web")["port"] == [
        "8084:80", "127.0.0.1:5353:53/udp", "[::1]:8443:443", "9000", "9100-9102:9100-9102", "22:22", "6060:6060/udp",
    ]  # fmt: skip


def test_values_are_those_of_yaml_1_2() -> None:
    env = section(FILES["booleans"], "app")["env"]
    assert env == [
        "ON=yes", "OFF=off", "T=true", "F=false", "NUM=0123", "FLOAT=1.10", "OCT=12", "HEX=31", "DATE=2001-12-14", "EMPTY=",
    ]  # fmt: skip


def test_variables_are_replaced() -> None:
    app = section(FILES["interpolation"], "app", variables={"SET": "1", "TAG": ""})
    assert app["image"] == "app:latest"
    assert app["env"] == ["A=", "B=", "C=", "D=yes", "E=$literal", "F=deep"]


def test_a_variable_that_is_demanded_must_be_given() -> None:
    with pytest.raises(ConfigError, match=r"the variable X is not set: give the port; give it in \.env"):
        convert(service("hostname: '${X:?give the port}'"))


def test_a_variable_that_is_missing_is_said() -> None:
    report = convert(service("hostname: 'h$X'")).report
    assert ("${X}", Verdict.CHANGED) in [(line.where, line.verdict) for line in report]


def test_extends_merges_as_compose_does() -> None:
    app = section(FILES["extends"], "app")
    assert app["env"] == ["A=1", "B=3", "C=4"]
    assert app["volume"] == ["/b:/x"]
    assert app["port"] == ["9200:9200", "9201:9201"] or app["port"] == ["9201:9201"]


def test_extends_and_include_of_other_files_are_read_where_they_can_be() -> None:
    files = {
        "/srv/shop/base.yml": service("environment: [A=1]"),
        "/srv/shop/more.yml": "services: {db: {image: db1}}",
    }
    text = "include: [more.yml]\nservices:\n  web:\n    extends: {file: base.yml, service: app}\n"
    sections = convert(text, read_file=files.__getitem__).as_json()["sections"]
    assert {s["name"] for s in sections} == {"web", "db"}


def test_a_circle_of_extends_is_refused() -> None:
    with pytest.raises(ConfigError, match="it extends itself"):
        convert("services: {a: {extends: b}, b: {extends: a}}")
    file = "services: {a: {extends: {file: /srv/more.yml, service: a}}}"
    with pytest.raises(ConfigError, match=r"a\.extends: it extends itself through a and /srv/more\.yml: a"):
        convert(file, read_file=lambda path: file)


def test_profiles_are_a_choice() -> None:
    names = [s["name"] for s in convert(FILES["profiles"], profiles=frozenset({"dev"})).as_json()["sections"]]
    assert names == ["app", "debug", "dep"]
    assert [s["name"] for s in convert(FILES["profiles"]).as_json()["sections"]] == ["app", "dep"]


def test_secrets_become_files_and_binds() -> None:
    conversion = convert(FILES["secrets"])
    app = next(sheet for sheet in conversion.sheets if sheet.name == "app")
    assert app.items("volume") == [
        "/etc/ucidockd/files/shop/db_password:/run/secrets/db_password:ro",
        "/srv/shop/token.txt:/run/secrets/api_token:ro",
        "/etc/ucidockd/files/shop/site:/etc/nginx/conf.d/site.conf:ro",
        "/srv/shop/plain.conf:/plain:ro",
    ]
    assert {file.path: file.content for file in conversion.files} == {
        "/etc/ucidockd/files/shop/db_password": "S3CRET-1",
        "/etc/ucidockd/files/shop/site": "server { listen 80; }\n",
    }


def test_services_resolve_by_their_names() -> None:
    """As in compose, whatever the containers are called."""
    result = decoded(convert(FILES["circular-names"]))
    endpoints = {c.name: c.spec.endpoints[0] for c in result.desired.containers}
    assert endpoints["my.container"].aliases == ("d_e",)
    assert endpoints["a.b-c"].aliases in ((), ("a_b_c",))
    assert {endpoint.network for endpoint in endpoints.values()} == {"shop"}


def test_a_service_may_be_called_like_its_project() -> None:
    result = decoded(convert(FILES["service-like-project"]))
    assert len({c.spec.endpoints[0].network for c in result.desired.containers}) == 1
    assert result.desired.networks[0].spec.pools[0].subnet == "172.29.0.0/24"


def test_two_projects_stand_beside_each_other() -> None:
    conversion = convert(FILES["wordpress"])
    there = {"containers": parse(conversion.as_json()["text"], package="containers")}
    second = Conversion(taken_names={s.name for s in there["containers"].sections})
    import_compose(
        FILES["wordpress"].replace("8080:80", "8099:80"), second, ComposeOptions(project="blog", folder="/b")
    )
    second.finish(there)
    db = next(s for s in second.as_json()["sections"] if s["options"]["image"].startswith("mariadb"))
    assert (db["name"], db["options"]["name"]) == ("blog_db", "blog-db")
    web = next(s for s in second.as_json()["sections"] if s["options"]["image"].startswith("wordpress"))
    assert web["options"]["depends_on"] == ["blog_db"]
    assert db["options"]["network"] == ["blog,alias=db"]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "it is not a compose file"),
        ("a: [", "line 1"),
        ("services: {}", "no services"),
        ("web: {image: nginx}", "no services"),
        ("services: [a]", "expected names"),
        ("services:\n  a: {image: x}\n  a: {image: y}", "line 3: 'a' is there already, in line 2"),
        ("services: {a: {extends: nobody}}", "there is no service 'nobody'"),
        ("\t- x", "line 1"),
    ],
)
def test_what_is_no_compose_file_is_refused_in_words(text: str, part: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(part)):
        convert(text)


def test_aliases_of_aliases_do_not_fill_the_memory() -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
    with pytest.raises(ConfigError, match="too many values"):
        convert(bomb + "services: {a: {image: x}}")


def test_json_needs_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    text = json.dumps({"services": {"web": {"image": "nginx", "ports": ["80:80"]}}})
    assert section(text, "web")["port"] == ["80:80"]
    with pytest.raises(ConfigError, match="install python3-yaml, or give the file as JSON"):
        convert("services: {a: {image: x}}")


def test_env_files_of_projects_are_read_as_compose_reads_them() -> None:
    text = "# c\nA=1\nexport B='x $A'\nC=\"y ${A}\\n\"\nD=z # note\nE=\n=bad\nF = f\n"
    assert parse_env(text) == {"A": "1", "B": "x $A", "C": "y 1\n", "D": "z", "E": "", "F": "f"}


def test_health_checks_keep_their_form() -> None:
    test = ["CMD", "pg_isready", "-U", "a b"]
    assert section(service(f"healthcheck: {{test: {json.dumps(test)}}}"), "app")["health_cmd"] == test[1:]
    assert section(service("healthcheck: {test: NONE}"), "app")["health_cmd"] == "none"
    assert section(service("healthcheck: {test: curl -f x}"), "app")["health_cmd"] == "curl -f x"


@pytest.mark.parametrize("mode", ["0o1777", "1023"])
def test_the_mode_of_a_tmpfs_is_a_number_that_mount_takes_in_octal(mode: str) -> None:
    lines = (f"volumes: [{{type: tmpfs, target: /t, tmpfs: {{size: 1024, mode: {mode}}}}}]",)
    assert section(service(*lines), "app")["tmpfs"] == ["/t:size=1024,mode=1777"]


def test_settings_of_one_network_stay_with_it() -> None:
    lines = (
        "networks: {default: {mac_address: '02:42:ac:11:00:09', gw_priority: 5, link_local_ips: [169.254.8.8]}}",
    )
    (entry,) = section(service(*lines), "app")["network"]
    assert entry == "shop,mac=02:42:ac:11:00:09,gw_priority=5,link_local=169.254.8.8"


def test_hooks_are_one_command_of_the_section() -> None:
    conversion = convert(
        service(
            "post_start: [{command: 'app --join now', user: root}, {command: more}]",
            "pre_stop: [{command: [a, b c]}]",
        )
    )
    (section,) = conversion.as_json()["sections"]
    assert section["options"]["post_start"] == ["app", "--join", "now"]
    assert section["options"]["pre_stop"] == ["a", "b c"]
    left = [line.where for line in conversion.report if line.verdict is Verdict.LEFT_OUT]
    assert left == ["services.app.post_start[0].user", "services.app.post_start[1].command"]
