# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes as a section writes them, what they mean for what runs, and plans of single sections."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent.api.port import given_of
from agent.api.ubus.agent import AgentMethods
from agent.errors import UcidockdError, UciEditError
from agent.model.issues import GivenConfig
from agent.plan import operations as ops
from agent.plan.description import (
    ChangeKind,
    PendingResource,
    PlanDescription,
    describe_plan,
    kind_of,
    operations_as_json,
    summary_of,
)
from agent.status.conditions import Level
from agent.ubus.client import SESSION, TABLE
from agent.uci.edit import with_sections
from agent.uci.syntax import parse
from tests.support.plans import a_world

HEAD = "config container 'web'\n\toption image 'nginx'\n"


def planned(before: str, after: str) -> list[dict[str, Any]]:
    return operations_as_json(a_world(before, after).plan().operations)


def web(*lines: str) -> str:
    return HEAD + "".join(f"\t{line}\n" for line in lines)


# what the section said, what it says -> option, before, after, names whose values are not shown
WRITTEN: dict[str, tuple[str, str, list[tuple[Any, ...]]]] = {
    "a size": (
        web("option memory '64m'"),
        web("option memory '128m'"),
        [("memory", "64m", "128m", "update", None)],
    ),
    "taken away": (web("option memory '64m'"), HEAD, [("memory", "64m", None, "recreate", None)]),
    "two ports": (
        web("list port '8080:80'", "list port '8081:81'"),
        web("list port '8080:80'", "list port '8082:81'"),
        [("port", ["8080:80", "8081:81"], ["8080:80", "8082:81"], "recreate", None)],
    ),
    "a range of ports": (
        HEAD,
        web("list port '8080-8090:80-90/udp'"),
        [("port", None, ["8080-8090:80-90/udp"], "recreate", None)],
    ),
    "variables": (
        web("list env 'PW=a'", "list env 'OLD=1'"),
        web("list env 'PW=b'", "list env 'NEW=2'"),
        [("env", ["OLD=***", "PW=***"], ["NEW=***", "PW=***"], "recreate", ["PW"])],
    ),
    "a secret label": (
        web("list label 'api_key=a'", "list label 'x=1'"),
        web("list label 'api_key=b'", "list label 'x=2'"),
        [("label", ["api_key=***", "x=1"], ["api_key=***", "x=2"], "recreate", ["api_key"])],
    ),
    "a secret in a command": (
        web("option command 'run --token=a'"),
        web("option command 'run --token=b'"),
        [("command", "run '--token=***'", "run '--token=***'", "recreate", ["command"])],
    ),
    "a command with quotes": (
        HEAD,
        web("option command 'sh -c \"a b\"'"),
        [("command", None, "sh -c 'a b'", "recreate", None)],
    ),
    "an entrypoint that is none": (
        HEAD,
        web("list entrypoint ''"),
        [("entrypoint", None, "''", "recreate", None)],
    ),
    "a switch": (HEAD, web("option privileged '1'"), [("privileged", None, "1", "recreate", None)]),
    "health": (
        web("option health_cmd 'true'", "option health_interval '30s'"),
        web("option health_cmd 'true'", "option health_interval '1m'"),
        [("health_interval", "30s", "1m", "recreate", None)],
    ),
    "volumes": (
        web("list volume '/srv:/data:ro'"),
        web("list volume '/srv:/data'"),
        [("volume", ["/srv:/data:ro"], ["/srv:/data"], "recreate", None)],
    ),
    "restart and devices": (
        web("option restart 'no'"),
        web("option restart 'on-failure:5'", "list device '/dev/null:/dev/x:r'"),
        [
            ("device", None, ["/dev/null:/dev/x:r"], "recreate", None),
            ("restart", "no", "on-failure:5", "update", None),
        ],
    ),
}


@pytest.mark.parametrize(("before", "after", "want"), WRITTEN.values(), ids=WRITTEN.keys())
def test_a_change_is_told_as_the_section_writes_it(before: str, after: str, want: list[Any]) -> None:
    (operation,) = planned(before, after)
    shown = [(f["field"], f["before"], f["after"], f["level"], f.get("hidden")) for f in operation["fields"]]
    assert shown == want
    json.dumps(operation)


def test_a_subnet_is_shown_and_who_is_cut_meanwhile() -> None:
    net = "config network 'front'\n\tlist subnet '10.215.7.0/24'\n"
    users = web("list network 'front'") + HEAD.replace("web", "db") + "\tlist network 'front'\n"
    (operation,) = planned(net + users, net.replace(".7.", ".8.") + users)
    assert operation["fields"] == [
        {"field": "subnet", "before": ["10.215.7.0/24"], "after": ["10.215.8.0/24"], "level": "recreate"}
    ]
    assert operation["effect"] == "replaces the network; meanwhile db and web cannot use it"
    assert (operation["level"], operation["follows"]) == ("replace", ["db", "web"])


def test_a_replaced_container_says_how_long_it_is_down_and_who_follows() -> None:
    app = "config container 'app'\n\toption image 'app'\n\toption network_mode 'service:web'\n"
    first, second = planned(web("option user '1'") + app, web("option user '2'") + app)
    assert first["effect"] == (
        "replaces the container, about 2 s down (12 s if it ignores its stop signal); its volumes stay; app follows"
    )
    assert (first["follows"], first["down_s"], first["besides"]) == (["app"], 2, "")
    assert second["besides"] == "the container whose namespace it shares was replaced"
    (operation,) = planned(web("option user '1'", "option stop_timeout '0'"), web("option stop_timeout '0'"))
    assert operation["effect"] == "replaces the container, about 2 s down; its volumes stay"


def test_what_is_created_tells_all_that_its_section_says() -> None:
    create, start = planned("", web("list port '80:80'", "list env 'PW=secret'"))
    assert [(f["field"], f["before"], f["after"]) for f in create["fields"]] == [
        ("image", None, "nginx"),
        ("env", None, ["PW=***"]),
        ("port", None, ["80:80"]),
    ]
    assert (create["level"], start["level"], start["fields"]) == ("create", "run", [])


def test_every_operation_has_a_kind() -> None:
    classes = [
        each
        for each in vars(ops).values()
        if isinstance(each, type) and issubclass(each, ops.Operation) and each is not ops.Operation
    ]
    assert {kind_of(each.__new__(each)) for each in classes if each is not ops.ChangeDaemon} == set(
        ChangeKind
    )


def test_objects_are_counted_once_by_the_most_that_is_done_to_them() -> None:
    plan = a_world("", HEAD + HEAD.replace("web", "db")).plan()
    entries = (
        PendingResource(key="container:a", state="waiting", level=Level.WAITING, message="x"),
        PendingResource(key="container:b", state="conflict", level=Level.ERROR, message="x"),
        PendingResource(key="container:c", state="in progress", level=Level.WAITING, message="x"),
    )
    counts = summary_of(PlanDescription(plan=plan, entries=entries))
    assert {name: count for name, count in counts.items() if count} == {
        "create": 2,
        "waiting": 1,
        "in_progress": 1,
        "errors": 1,
    }


def test_of_single_sections_only_what_follows_from_them_is_told() -> None:
    lost = HEAD.replace("web", "lost")
    before = a_world(HEAD, HEAD + lost).plan()
    after = a_world(HEAD, web("option user '2'") + lost).plan()
    nothing: Any = {"busy": {}, "retry_in_s": {}}
    found = describe_plan(after, after, **nothing).beyond(
        describe_plan(before, before, **nothing), own={"container:web"}
    )
    assert [(o.verb, o.key) for o in found.operations] == [("replace", "container:web")]
    same = describe_plan(before, before, **nothing)
    assert [o.verb for o in same.beyond(same, own={"container:lost"}).operations] == ["create", "start"]


def test_sections_take_the_place_of_those_of_their_names() -> None:
    package = parse("config container 'a'\n\toption x '1'\nconfig container 'b'\n", package="containers")
    given: Any = {
        "a": {".type": "container", ".anonymous": False, ".index": 3, "image": "n", "port": ["1:1", "2:2"]},
        "b": None,
        "c": {".type": "volume", "name": ""},
    }
    made = with_sections(package, given)
    assert [(s.type, s.name, [(o.name, o.value) for o in s.options]) for s in made.sections] == [
        ("container", "a", [("image", "n"), ("port", ("1:1", "2:2"))]),
        ("volume", "c", []),
    ]


@pytest.mark.parametrize(
    "sections",
    [
        {"a-b": {".type": "x"}},
        {"a": {"image": "x"}},
        {"a": {".type": "x", "o.p": "1"}},
        {"a": {".type": "x", "o": "\x01"}},
    ],
    ids=["name", "type", "option", "control character"],
)
def test_what_no_file_can_say_is_refused(sections: Any) -> None:
    with pytest.raises(UciEditError):
        with_sections(parse("", package="containers"), sections)


@pytest.mark.parametrize(
    "sections", [[], {"containers": []}, {"containers": {"a": "x"}}, {"containers": {"a": {"b": 1}}}]
)
def test_sections_of_another_form_are_refused(sections: Any) -> None:
    with pytest.raises(UcidockdError, match="`sections`: expected"):
        given_of({"sections": sections})


async def test_ubus_takes_sections_too() -> None:
    class Port:
        async def plan(self, given: GivenConfig) -> dict[str, Any]:
            return {"sections": given.sections, "save": given.save_dir}

    port: Any = Port()
    preview = AgentMethods(port, lambda *_: None).methods()["preview"]
    sections = {"containers": {"web": {".type": "container", "image": "n"}}}
    assert preview.args["sections"] == TABLE
    answer = await preview.handler({"sections": sections, "staged": True, SESSION: "5e55"})
    assert answer == {"sections": sections, "save": "/var/run/rpcd/uci-5e55"}
