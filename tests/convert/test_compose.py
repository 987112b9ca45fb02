# SPDX-License-Identifier: GPL-2.0-or-later
"""Compose files as people have them become sections that pass the check, and no key goes unsaid."""

from __future__ import annotations

import contextlib
import copy
import json
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.convert.compose import ComposeOptions, import_compose
from agent.convert.compose_file import parse_env, parse_text, without_marks
from agent.convert.conversion import Conversion, Verdict
from agent.errors import ConfigError, PathError
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
    for key in keys_of(without_marks(parse_text(FILES[name]))):
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
    app = next(draft for draft in conversion.drafts if draft.name == "app")
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
        ("web: {image: nginx}", "no services; put `services:` above its services and indent them"),
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


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _places(item, (*path, key))


_ODD = (
    None, "", "x", 1, True, 1.5, -5, "a:b:c:d:e", "=", "${", [], {}, [[]], [{}], [None], [1, "1"], {"a": None}, {"a": [1]},
    {"a": "x"}, [{"a": "b"}], {"": ""},
)  # fmt: skip


def test_no_value_of_any_form_is_a_crash() -> None:
    """Each place of each file with values that nobody expects there; what comes out passes the check."""
    chance = random.Random(7)
    documents = [parse_text(text) for text in FILES.values()]
    for _ in range(300):
        document = copy.deepcopy(chance.choice(documents))
        path = chance.choice(list(_places(document))[1:])
        inner = document
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = chance.choice(_ODD)
        with contextlib.suppress(ConfigError):
            result = decoded(convert(json.dumps(document), profiles=frozenset("*")))
            assert [i.text() for i in result.issues if i.severity == "error"] == [], (path, inner[path[-1]])


@pytest.mark.parametrize(
    "line",
    [
        "deploy: {resources: []}", "deploy: {resources: {limits: [x]}}", "blkio_config: {device_read_bps: [x]}",
        "blkio_config: {weight_device: x}", "labels: {}", "labels: a=b", "sysctls: net.core.somaxconn=1",
        "ulimits: [nofile=1]", "cap_add: []", "cap_add: [{NET_ADMIN: }]", "dns: {a: b}", "logging: json-file",
    ],
)  # fmt: skip
def test_a_key_of_the_wrong_form_is_said(line: str) -> None:
    key = line.partition(":")[0]
    lines = [line for line in convert(service(line)).report if line.where.startswith(f"services.app.{key}")]
    assert lines and all(line.verdict in (Verdict.UNKNOWN, Verdict.LEFT_OUT) for line in lines)


def test_yes_of_yaml_1_1_counts_where_yes_or_no_is_expected() -> None:
    assert section(service("healthcheck: {disable: yes}"), "app")["health_cmd"] == "none"
    assert section(service("init: y", "read_only: n"), "app")["init"] == "1"


def test_an_empty_check_leaves_the_images_own() -> None:
    assert "health_cmd" not in section(service("healthcheck: {test: [], interval: 30s}"), "app")


def test_keys_are_text_as_they_stand() -> None:
    found = section(service("environment: {TRUE: 1, 0x10: a, Null: b, 1.10: c}"), "app")["env"]
    assert found == ["TRUE=1", "0x10=a", "Null=b", "1.10=c"]


def test_a_mapping_in_a_list_says_the_same() -> None:
    assert section(service("environment: [TZ: Europe/Berlin, A=1]"), "app")["env"] == [
        "TZ=Europe/Berlin",
        "A=1",
    ]


def test_documents_of_one_file_are_merged() -> None:
    names = {
        s["name"]
        for s in convert("services: {web: {image: w}}\n---\nservices: {db: {image: d1}}").as_json()[
            "sections"
        ]
    }
    assert names == {"web", "db"}


def test_configs_of_a_relative_target_are_at_the_root() -> None:
    text = service("configs: [{source: site, target: conf/site}]") + "configs: {site: {file: /srv/site}}\n"
    assert section(text, "app")["volume"] == ["/srv/site:/conf/site:ro"]


def test_a_network_mode_may_name_a_network_that_exists() -> None:
    sections = convert(service("network_mode: proxy")).as_json()["sections"]
    assert [(s["name"], s["options"].get("external"), s["options"].get("network")) for s in sections] == [
        ("proxy", "1", None),
        ("app", None, ["proxy"]),
    ]


def test_without_the_network_that_it_shares_there_is_no_container() -> None:
    assert not convert(service('network_mode: "service:gluetun"')).drafts


def test_a_device_of_cdi_is_a_device() -> None:
    wanted = "{driver: cdi, device_ids: [nvidia.com/gpu=all], capabilities: [gpu]}"
    found = section(service(f"deploy: {{resources: {{reservations: {{devices: [{wanted}]}}}}}}"), "app")
    assert found["device"] == ["nvidia.com/gpu=all"] and "gpus" not in found


@pytest.mark.parametrize("text", ["a$1b", "${", "${1X}", "${}", "${A:0:3}", "$2y$$10"])
def test_a_dollar_sign_that_begins_no_variable_is_said(text: str) -> None:
    """docker compose refuses such a file."""
    report = convert(service(f"hostname: h\n    labels: {{a: '{text}'}}"), variables={"A": "1"}).report
    assert [line.where for line in report if "compose wants $$" in line.text]


def test_files_that_may_be_missing_are_waited_for_and_it_is_said() -> None:
    lines = (
        "env_file: [{path: a.env, required: false}]",
        "depends_on: {app2: {condition: service_started, required: false}}",
    )
    report = convert(service(*lines) + "  app2: {image: x}\n").report
    told = {line.where for line in report if line.verdict is Verdict.LEFT_OUT}
    assert {"services.app.env_file[0].required", "services.app.depends_on.app2.required"} <= told


def test_paths_of_another_file_start_at_its_folder() -> None:
    files = {
        "/srv/shop/sub/base.yml": service(
            "env_file: a.env", "volumes: [./d:/d, named:/n, ~/h:/h]", "security_opt: [seccomp=p.json]"
        ),
        "/srv/shop/media/compose.yml": "include: [more/x.yml]\nservices: {db: {image: db1, volumes: [../data:/data]}}\n"
        "secrets: {s: {file: s.txt}}\n",
        "/srv/shop/media/more/x.yml": "services: {x1: {image: x, volumes: [{type: bind, source: ., target: /x}]}}",
    }
    text = (
        "include: [media/compose.yml]\nservices:\n  web: {extends: {file: sub/base.yml, service: app}}\n"
        "  s1: {image: s, secrets: [s]}\n"
    )
    conversion = convert(text, read_file=lambda path: files.get(path, ""))
    drafts = {draft.name: draft for draft in conversion.drafts}
    assert drafts["web"].items("volume") == ["/srv/shop/sub/d:/d", "shop_named:/n", "/root/h:/h"]
    assert drafts["web"].items("env_file") == ["/srv/shop/sub/a.env"]
    assert drafts["db"].items("volume") == ["/srv/shop/data:/data"]
    assert drafts["x1"].items("volume") == ["/srv/shop/media/more:/x"]
    assert drafts["s1"].items("volume") == ["/srv/shop/media/s.txt:/run/secrets/s:ro"]


def test_json_needs_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    text = json.dumps({"services": {"web": {"image": "nginx", "ports": ["80:80"]}}})
    assert section(text, "web")["port"] == ["80:80"]
    with pytest.raises(ConfigError, match="install python3-yaml, or give the file as JSON"):
        convert("services: {a: {image: x}}")


def test_env_files_of_projects_are_read_as_compose_reads_them() -> None:
    text = "# c\nA=1\nexport B='x $A'\nC=\"y ${A}\\n\"\nD=z # note\nE=\n=bad\nF = f\n"
    assert parse_env(text) == {"A": "1", "B": "x $A", "C": "y 1\n", "D": "z", "E": "", "F": "f"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("\ufeffA=1\r\nB=\"x\"\r\nC='y' # z\r\n", {"A": "1", "B": "x", "C": "y"}),
        ('A="say \\"hi\\" \\$B $$C"', {"A": 'say "hi" $B $C'}),
        ("A='it\\'s $B'", {"A": "it's $B"}),
        ("A=\"two\n lines ${B}\"\nC='3\n4'", {"A": "two\n lines b", "C": "3\n4"}),
        ("A: yaml\nexport\tC=d", {"A": "yaml", "C": "d"}),
        ("B\nUNKNOWN\nC=${B}", {"B": "b", "C": "b"}),
        ("A=a#b\nC= # d\nD=e # f", {"A": "a#b", "C": "# d", "D": "e"}),
        (r'A="\101\0101\q\t"', {"A": "\\101A\\q\t"}),
    ],
)
def test_env_files_as_compose_go_reads_them(text: str, found: dict[str, str]) -> None:
    assert parse_env(text, {"B": "b"}) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('A=1\nB="x\nC=2', "line 2: the quote opened for B is never closed"),
        ("A=1\nfoo bar\n", "line 2: this is not a variable"),
        ("A=${B:?give it}", "line 1: the variable B is not set: give it"),
    ],
)
def test_mistakes_in_an_env_file_are_told_with_their_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_env(text)


def test_a_large_env_file_takes_no_time() -> None:
    assert len(parse_env("".join(f"N{i}=$N{i - 1}x\n" for i in range(300)) + "A='b'\n" * 100_000)) == 301


def test_values_of_env_files_are_those_that_compose_would_give() -> None:
    files = {
        "/srv/shop/a.env": "PLAIN=1\nQUOTED='x y'\nNOTE=z # note\nOWN=\"1\"\nFROM=$SET",
        "/srv/shop/b.env": "PLAIN=2\n",
        "/srv/shop/raw.env": "RAW='kept'\n",
    }
    lines = ("env_file: [a.env, b.env, none.env, {path: raw.env, format: raw}]", "environment: {OWN: own}")

    def read(path: str) -> str:
        if path not in files:
            raise PathError(f"{path} is missing")
        return files[path]

    conversion = convert(service(*lines), read_file=read)
    (draft,) = (draft for draft in conversion.drafts if draft.kind == "container")
    assert draft.items("env") == ["OWN=own", "QUOTED=x y", "NOTE=z", "FROM=1"]
    assert len(draft.items("env_file")) == 4
    # over HTTP nothing is read, and that is told
    told = [line.text for line in convert(service("env_file: /etc/a.env")).report if "env_file" in line.where]
    assert told == ["/etc/a.env; values are taken as they stand, with their quotes"]


def test_what_extends_merges_is_what_compose_merges() -> None:
    text = """
services:
  base:
    image: base
    dns: 1.1.1.1
    depends_on: [other]
    networks: [one]
    logging: {driver: json-file, options: {max-size: 1m}}
    ports: ["80"]
    volumes: ["/a:/a"]
    environment: [A=1, B=2]
    env_file: /a.env
  web:
    extends: base
    dns: [8.8.8.8]
    depends_on: {third: {condition: service_healthy}}
    networks: {two: {aliases: [x]}}
    logging: {driver: syslog, options: {tag: x}}
    ports: !override ["81:80"]
    volumes: !reset []
    environment: {B: 3, A: !reset null}
    env_file: [/b.env]
  plain: {extends: base, environment: !reset null, ports: }
  other: {image: other}
  third: {image: third}
networks: {one: {}, two: {}}
"""
    web, plain = section(text, "web"), section(text, "plain")
    assert web["dns"] == ["1.1.1.1", "8.8.8.8"]
    assert web["depends_on"] == ["other", "third:healthy"]
    assert web["network"] == ["shop_one", "shop_two,alias=x"]
    assert (web["log_driver"], web["log_opt"]) == ("syslog", ["tag=x"])
    assert web["port"] == ["81:80"]
    assert "volume" not in web
    assert web["env"] == ["B=3"]
    assert web["env_file"] == ["/a.env", "/b.env"]
    assert "env" not in plain
    assert plain["port"] == ["80"]


def test_a_later_document_resets_and_overrides() -> None:
    text = service("ports: ['1:1']", "environment: {A: 1, B: 2}") + (
        "---\nservices:\n  app:\n    ports: !override ['2:2']\n    environment: {A: !reset null}\n"
    )
    assert section(text, "app")["port"] == ["2:2"]
    assert section(text, "app")["env"] == ["B=2"]


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


def test_volumes_have_the_names_that_compose_gives_them() -> None:
    text = "services: {a: {image: a, volumes: ['data:/d', 'undeclared:/u']}}\nvolumes: {data: {}}\n"
    app = section(text, "app_a", project="", folder="/srv/Home-Assistant.2")
    assert app["volume"] == ["home-assistant2_data:/d", "home-assistant2_undeclared:/u"]
    assert app["stack"] == "home_assistant_2"


def test_the_folder_and_home_of_the_shell_are_known() -> None:
    conversion = convert(service("volumes: ['$PWD/a:/a', '${HOME}/b:/b', '${PWD:-x}/c:/c']"))
    (draft,) = (draft for draft in conversion.drafts if draft.kind == "container")
    assert draft.items("volume") == ["/srv/shop/a:/a", "/root/b:/b", "/srv/shop/c:/c"]
    told = {line.where: line.text for line in conversion.report}
    assert (told["${PWD}"], told["${HOME}"]) == ("its value is /srv/shop", "its value is /root")


def test_of_two_volumes_at_one_target_the_later_counts() -> None:
    assert section(service("volumes: ['/x:/d', '/e:/e', '/y:/d']"), "app")["volume"] == ["/y:/d", "/e:/e"]


def told(conversion: Conversion, where: str) -> str:
    return next((line.text for line in conversion.report if line.where == where), "")


def test_networks_of_a_project_with_a_long_name_have_bridges_of_their_own() -> None:
    """An interface's name has 15 characters: `br-homeassistan` would be that of all three networks."""
    text = (
        "name: homeassistant\nservices: {a: {image: a1, networks: [front, back]}, b: {image: b1}}\n"
        "networks: {front: {}, back: {driver_opts: {com.docker.network.bridge.name: br-mine}}}"
    )
    conversion = convert(text)
    result = decoded(conversion)
    assert not result.issues
    bridges = [
        dict(network.spec.options)["com.docker.network.bridge.name"] for network in result.desired.networks
    ]
    assert sorted(bridges) == ["br-homeassista2", "br-homeassistan", "br-mine"]
    assert "br-homeassista2" in told(conversion, "network homeassistant_front")
    a = next(c for c in result.desired.containers if c.section == "app_a")
    assert [endpoint.network for endpoint in a.spec.endpoints] == [
        "homeassistant_front",
        "homeassistant_back",
    ]


def test_a_bridge_that_another_section_has_is_not_taken() -> None:
    there = "config network 'homeassistant_other'\n"
    conversion = Conversion()
    import_compose(
        "services: {app: {image: a1, networks: [x]}}\nnetworks: {x: {}}",
        conversion,
        ComposeOptions(project="homeassistant"),
    )
    conversion.finish({"containers": parse(there, package="containers")})
    assert "bridge.name=br-homeassista2" in conversion.as_json()["text"]


@pytest.mark.parametrize("first", ["default", "proxy"])
def test_two_networks_with_one_name_are_one(first: str) -> None:
    networks = {"default": {"external": {"name": "web"}}, "proxy": {"name": "web", "external": True}}
    services = {"app": {"image": "a1", "networks": ["proxy", "default"]}, "db": {"image": "b1"}}
    ordered = dict(sorted(networks.items(), reverse=first == "proxy"))
    conversion = convert(json.dumps({"services": services, "networks": ordered}))
    result = decoded(conversion)
    assert [c.spec.endpoints[0].network for c in result.desired.containers] == ["web", "web"]
    assert len(result.desired.networks) == 1
    assert [line for line in conversion.report if "which is there already" in line.text]
    assert not [line for line in conversion.report if line.verdict is Verdict.LEFT_OUT]


def test_a_mac_address_applies_to_the_project_s_network() -> None:
    app = section(service("mac_address: '02:42:ac:11:65:43'"), "app")
    assert (app["network"], app["mac_address"]) == (["shop"], "02:42:ac:11:65:43")


def test_names_in_links_resolve() -> None:
    text = (
        "services:\n  web: {image: a1, links: ['db:mysql', 'cache:db', 'vpn:tunnel']}\n  db: {image: b1}\n"
        "  cache: {image: c1, networks: {default: {}}}\n  vpn: {image: d1, network_mode: host}\n"
    )
    conversion = convert(text)
    assert section(text, "db")["network"] == ["shop,alias=mysql"]
    assert section(text, "cache")["network"] == ["shop"]  # `db` is a service's own name
    assert "mysql resolves in all containers" in told(conversion, "services.web.links[0]")
    assert "db does not resolve" in told(conversion, "services.web.links[1]")
    assert "tunnel does not resolve" in told(conversion, "services.web.links[2]")
    assert section(text, "web")["depends_on"] == ["db", "cache", "vpn"]


def test_an_optional_file_that_is_not_there_is_left_out() -> None:
    def read(path: str) -> str:
        if path != "/srv/shop/a.env":
            raise PathError(f"{path} cannot be read")
        return "A=1\n"

    text = service("env_file: [{path: a.env, required: false}, {path: b.env, required: false}, c.env]")
    assert section(text, "app", read_file=read)["env_file"] == ["/srv/shop/a.env", "/srv/shop/c.env"]
    conversion = convert(text, read_file=read)
    assert "there is no file /srv/shop/b.env" in told(conversion, "services.app.env_file[1]")
    # where files cannot be looked at, the container waits for it
    assert "/srv/shop/b.env" in section(text, "app")["env_file"]


def test_a_service_without_containers_is_not_waited_for() -> None:
    text = "services: {a: {image: a1, scale: 0}, b: {image: b1, depends_on: [a, c]}, c: {image: c1, deploy: {replicas: 0}}}"
    conversion = convert(text)
    assert "depends_on" not in section(text, "app_b")
    assert "runs no container" in told(conversion, "services.b.depends_on.a")


@pytest.mark.parametrize(("written", "seconds"), [("500ms", "1"), ("1500ms", "2"), ("1m30s", "1m30s")])
def test_a_grace_period_is_rounded_up(written: str, seconds: str) -> None:
    assert section(service(f"stop_grace_period: {written}"), "app")["stop_timeout"] == seconds


def test_what_is_included_and_what_is_empty_is_told() -> None:
    conversion = convert(
        "include: [more.yml]\n" + service("deploy: {restart_policy: {}}"),
        read_file=lambda path: "services: {db: {image: b1}}",
    )
    assert "include more.yml" in [line.where for line in conversion.report]
    assert told(conversion, "services.app.deploy") == "it is empty"
