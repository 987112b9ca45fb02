# SPDX-License-Identifier: GPL-2.0-or-later
"""Equal edits change nothing: the same in other words, and stated defaults. No hash is another one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent.model.identity import canonical
from agent.plan.container.meaning import changed_fields, image_defaults, meaning
from agent.plan.draft import with_hashes
from agent.schema.validate import properties
from agent.uci.decode import decode
from agent.uci.syntax import parse
from tests.support.plans import World, a_world, text_of

RECORDED = (Path(__file__).parents[1] / "data" / "spec-hashes.jsonl").read_text().splitlines()
NETS = json.loads(RECORDED[0])["NETS"]
IMAGE = {
    "Config": {
        "User": "app",
        "StopSignal": "SIGQUIT",
        "WorkingDir": "/srv",
        "Cmd": ["run"],
        "Entrypoint": ["/e"],
    }
}


@pytest.mark.parametrize("case", [json.loads(line) for line in RECORDED[1:]], ids=lambda case: None)
def test_hashes_that_routers_have_recorded_stay(case: dict[str, Any]) -> None:
    package = parse(case["text"].replace("@NETS\n", NETS), package="containers")
    result = decode({"containers": package}, paths={})
    hashes = with_hashes(result.desired).spec_hashes
    assert {key: hashes.get(key) for key in case["hashes"]} == case["hashes"], result.issues


def web(*lines: str) -> str:
    body = (
        lines
        if any(line.startswith("option image") for line in lines)
        else ("option image 'nginx:1.27'", *lines)
    )
    return "config container 'web'\n" + "".join(f"\t{line}\n" for line in body)


def net(*lines: str) -> str:
    return "config network 'lan'\n" + "".join(f"\t{line}\n" for line in lines)


def volume(*lines: str) -> str:
    return "config volume 'data'\n" + "".join(f"\t{line}\n" for line in lines)


# options whose value is what is so without them
STATED: dict[str, tuple[str, ...]] = {
    "enabled": ("1", "yes"),
    "name": ("web",),
    "pull": ("missing",),
    "user": ("root", "0"),
    "workdir": ("/", "//"),
    "privileged": ("0", "no"),
    "memory": ("0",),
    "memory_swap": ("0", "-1"),
    "memory_reservation": ("0",),
    "pids_limit": ("0", "-1"),
    "shm_size": ("64m", "65536k", "0"),
    "blkio_weight": ("0",),
    "oom_kill_disable": ("0",),
    "init": ("0",),
    "read_only": ("0",),
    "tty": ("0",),
    "stdin": ("0",),
    "stdin_once": ("0",),
    "oom_score_adj": ("0",),
    "cpu_period": ("0",),
    "cpu_shares": ("0",),
    "cpu_quota": ("0", "-1"),
    "cpu_rt_period": ("0",),
    "cpu_rt_runtime": ("0",),
    "volume_driver": ("local",),
    "health_start_interval": ("0",),
    "stop_signal": ("SIGTERM", "TERM", "15"),
    "stop_timeout": ("10", "10s"),
    "runtime": ("runc",),
    "network_mode": ("bridge", "default"),
    "ipc": ("private",),
    "log_driver": ("json-file",),
    "state": ("running",),
    "health_interval": ("30s", "0"),
    "health_timeout": ("30s", "0"),
    "health_retries": ("3", "0"),
    "health_start_period": ("0",),
    "publish_all": ("0",),
    "adopt": ("0",),
    "on_drift": ("repair",),
    "on_unhealthy": ("report",),
    "update": ("notify",),
    "strategy": ("swap",),
    "backup_before_update": ("0",),
    "hold_limit": ("1d",),
    "pre_stop_timeout": ("30",),
    "post_start_timeout": ("30",),
    "update_window": ("02:00-05:00",),
    "update_age": ("3d",),
    "rollback": ("1",),
    "gate": ("5",),
    "grace": ("120", "2m"),
    "remove_volumes": ("0",),
    "network": ("bridge",),
    "cap_add": ("CHOWN",),  # every container has it
    "cap_drop": ("SYS_ADMIN",),  # no container has it
    "security_opt": ("no-new-privileges=false",),
    "entrypoint": ("",),
}
# without them something else is so, or nothing that a value could say
WITHOUT_DEFAULT = {
    "image", "hostname", "domainname", "restart", "cpus", "cpuset", "pid", "userns", "mac_address", "ip",
    "ip6", "health_cmd", "command", "env", "env_file", "port", "volume", "tmpfs", "device", "device_cgroup_rule",
    "sysctl", "ulimit", "dns", "dns_search", "dns_opt", "extra_host", "label", "log_opt", "group_add", "depends_on",
    "wait_for", "stack", "webui", "cpuset_mems", "memory_swappiness", "uts", "cgroupns", "cgroup_parent", "platform",
    "blkio_weight_device",
    "device_read_bps", "device_read_iops", "device_write_bps", "device_write_iops", "gpus", "expose", "volumes_from",
    "storage_opt", "annotation", "hold_cmd", "pre_stop", "post_start",
}  # fmt: skip


def with_image(config: dict[str, Any]) -> Any:
    def change(world: World) -> None:
        image = world.records["web"].image_id
        world.context["image_ids"] = {world.desired.containers[0].spec.image: image}
        world.context["image_defaults"] = {image: image_defaults({"Config": config})}

    return change


def plan(before: str, after: str, config: dict[str, Any] | None = None) -> str:
    return text_of(a_world(before, after, with_image(config or {})).plan())


def test_every_option_is_in_one_of_the_tables() -> None:
    assert STATED.keys() | WITHOUT_DEFAULT == properties("container").keys()
    assert not STATED.keys() & WITHOUT_DEFAULT


def test_a_default_of_the_schema_is_one_that_is_tried() -> None:
    defaults = {name: schema.get("default") for name, schema in properties("container").items()}
    assert all(default in STATED[name] for name, default in defaults.items() if isinstance(default, str))


@pytest.mark.parametrize(("option", "value"), [(o, v) for o, values in STATED.items() for v in values])
def test_a_stated_default_changes_nothing(option: str, value: str) -> None:
    word = "list" if properties("container")[option]["type"] == "array" else "option"
    stated = web(f"{word} {option} '{value}'")
    assert plan(web(), stated) == "nothing to do"
    assert plan(stated, web()) == "nothing to do"


PAIRS: dict[str, tuple[list[str], list[str]]] = {
    "signals": (["option stop_signal 'SIGUSR1'"], ["option stop_signal 'USR1'"]),
    "small signals": (["option stop_signal 'SIGINT'"], ["option stop_signal '2'"]),
    "the hub": (["option image 'busybox:1'"], ["option image 'docker.io/library/busybox:1'"]),
    "the hub's other name": (["option image 'a/b:1'"], ["option image 'index.docker.io/a/b:1'"]),
    "latest": (["option image 'lan:5000/a'"], ["option image 'lan:5000/a:latest'"]),
    "a digest": (
        ["option image 'a:1@sha256:" + "a" * 64 + "'"],
        ["option image 'a@sha256:" + "a" * 64 + "'"],
    ),
    "root": (["option user 'root'"], ["option user '0'"]),
    "root's group": (["option user 'root:root'"], ["option user '0:0'"]),
    "everywhere": (["list port '80:80'"], ["list port '0.0.0.0:80:80/tcp'"]),
    "ports in ranges": (["list port '80-81:80-81'"], ["list port '81:81'", "list port '80:80'"]),
    "a published port": (["list port '80-81:80-81'"], ["list port '80-81:80-81'", "list expose '81'"]),
    "a resolver twice": (["list dns '1.1.1.1'"], ["list dns '1.1.1.1'", "list dns '1.1.1.1'"]),
    "a domain twice": (["list dns_search 'lan'"], ["list dns_search 'lan'", "list dns_search 'lan'"]),
    "the default bridge's MAC": (
        ["option mac_address '02-42-AC-11-00-02'"],
        ["list network 'bridge'", "option mac_address '02:42:ac:11:00:02'"],
    ),
    "tmpfs rw": (["list tmpfs '/run'"], ["list tmpfs '/run:rw,nosuid'"]),
    "tmpfs order": (["list tmpfs '/run:size=16m,mode=1777'"], ["list tmpfs '/run/:mode=01777,size=16384k'"]),
    "resolver options": (
        ["list dns_opt 'a'", "list dns_opt 'b'"],
        ["list dns_opt 'b'", "list dns_opt 'a'"],
    ),
    "hosts": (
        ["list extra_host 'a:1.1.1.1'", "list extra_host 'b:2.2.2.2'"],
        ["list extra_host 'b=2.2.2.2'", "list extra_host 'a:1.1.1.1'"],
    ),
    "processors": (["option cpuset '0,1,2'"], ["option cpuset '0-2'"]),
    "half a processor": (["option cpus '.5'"], ["option cpus '0.50'"]),
    "swap by itself": (["option memory '64m'"], ["option memory '64m'", "option memory_swap '128m'"]),
    "paths": (["list volume '/mnt/a/b:/x'"], ["list volume '/mnt//a/./b/:/x/:rw,rprivate'"]),
    "no new privileges": (
        ["list security_opt 'no-new-privileges'"],
        ["list security_opt 'no-new-privileges:true'"],
    ),
    "separators": (["list security_opt 'seccomp=unconfined'"], ["list security_opt 'seccomp:unconfined'"]),
    "all capabilities": (["list cap_add 'ALL'"], ["list cap_add 'all'", "list cap_add 'NET_ADMIN'"]),
    "rules": (["list device_cgroup_rule 'c 1:3 rwm'"], ["list device_cgroup_rule 'c 1:3 mwr'"]),
    "sysctl slashes": (["list sysctl 'net.core.somaxconn=5'"], ["list sysctl 'net/core/somaxconn=5'"]),
    "restart without a limit": (["option restart 'on-failure'"], ["option restart 'on-failure:0'"]),
    "a working directory": (["option workdir '/app'"], ["option workdir '/app/'"]),
    "no check": (
        ["option health_cmd 'none'"],
        ["option health_cmd 'none'", "option health_interval '5s'"],
    ),
    "a check's defaults": (
        ["option health_cmd 'true'"],
        ["option health_cmd 'true'", "option health_interval '30s'", "option health_retries '3'"],
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_the_same_in_other_words_changes_nothing(name: str) -> None:
    one, other = (web(*lines) for lines in PAIRS[name])
    assert plan(one, other) == "nothing to do"
    assert plan(other, one) == "nothing to do"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], ["option user 'root'"]),
        ([], ["option stop_signal 'TERM'"]),
        ([], ["option workdir '/'"]),
        (["option user 'app'"], ["option user '0'"]),
        ([], ["option log_driver 'local'"]),
        ([], ["option init '1'"]),
        ([], ["list cap_drop 'CHOWN'"]),
        ([], ["list cap_add 'NET_ADMIN'"]),
        (["list cap_drop 'ALL'"], ["list cap_drop 'ALL'", "list cap_add 'CHOWN'"]),
        (["list tmpfs '/run'"], ["list tmpfs '/run:exec'"]),
        (["list port '80:80'"], ["list port '[::]:80:80'"]),
        (["list dns '1.1.1.1'", "list dns '9.9.9.9'"], ["list dns '9.9.9.9'", "list dns '1.1.1.1'"]),
        (
            ["list extra_host 'a:1.1.1.1'", "list extra_host 'a:2.2.2.2'"],
            ["list extra_host 'a:2.2.2.2'", "list extra_host 'a:1.1.1.1'"],
        ),
        (["option stop_signal '10'"], ["option stop_signal 'USR1'"]),  # 16 on MIPS
        (["option user 'root'"], ["option user '0:0'"]),  # root's other groups
        (["list env 'A=1'"], ["list env 'A=01'"]),
    ],
)
def test_what_means_something_else_is_done(before: list[str], after: list[str]) -> None:
    for old, new in ((before, after), (after, before)):
        assert "replace" in plan(web(*old), web(*new), IMAGE["Config"])


@pytest.mark.parametrize(
    "line",
    [
        "option user 'app'",
        "option workdir '/srv/'",
        "option stop_signal 'QUIT'",
        "list command 'run'",
        "list entrypoint '/e'",
    ],
)
def test_what_the_image_gives_may_be_stated(line: str) -> None:
    config = IMAGE["Config"]
    if "entrypoint" in line:  # with one of its own a container does not get the image's command
        assert "replace" in plan(web(), web(line), config)
        return
    assert plan(web(), web(line), config) == plan(web(line), web(), config) == "nothing to do"


def test_what_an_unknown_image_gives_is_not_guessed() -> None:
    assert "replace" in text_of(a_world(web(), web("option user 'root'")).plan())


def test_a_limit_of_zero_is_taken_away_as_one_that_is_unset() -> None:
    assert plan(web("option memory '64m'"), web("option memory '0'")).startswith("replace")


DAEMON = "config globals 'globals'\n\toption log_driver 'local'\n\toption default_shm_size '128m'\n"


def test_defaults_are_those_of_dockerds_settings() -> None:
    from agent.plan.container.meaning import defaults_of

    package = parse(DAEMON, package="dockerd")
    settings = decode({"dockerd": package}, paths={}).desired.daemon
    defaults = defaults_of(settings)
    assert changed_fields("container", {}, {"log_driver": "local", "shm_size": 128 << 20}, defaults) == ()
    assert changed_fields("container", {}, {"log_driver": "json-file"}, defaults) == ("log_driver",)


def test_a_default_that_the_engine_has_otherwise_is_a_change() -> None:
    def other(world: World) -> None:
        world.inspect("web", LogConfig={"Type": "local", "Config": {}})

    world = a_world(web(), web("option log_driver 'json-file'"), other)
    assert text_of(world.plan()).startswith("replace")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], ["option driver 'bridge'"]),
        (
            [],
            [
                "option internal '0'",
                "option attachable '0'",
                "option ipv6 '0'",
                "option zone 'docker'",
                "option adopt '0'",
            ],
        ),
        (["list subnet '10.1.0.0/24'"], ["list subnet '10.1.0.0/24'", "list gateway '10.1.0.1'"]),
        (
            ["list subnet '10.1.0.0/24'", "list subnet 'fd00::/64'"],
            ["list subnet 'fd00::/64'", "list subnet '10.1.0.0/24'"],
        ),
        (["option driver 'macvlan'"], ["option driver 'macvlan'", "option mode 'bridge'"]),
        (["option driver 'ipvlan'"], ["option driver 'ipvlan'", "option mode 'l2'"]),
        ([], ["list opt 'com.docker.network.bridge.enable_icc=true'"]),
        ([], ["option name 'lan'"]),
    ],
)
def test_equal_edits_of_a_network(before: list[str], after: list[str]) -> None:
    for old, new in ((before, after), (after, before)):
        assert text_of(a_world(net(*old), net(*new)).plan()) == "nothing to do"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], ["option driver 'local'", "option adopt '0'"]),
        ([], ["option name 'data'"]),
        (["list opt 'type=nfs'", "list opt 'o=x'"], ["list opt 'o=x'", "list opt 'type=nfs'"]),
    ],
)
def test_equal_edits_of_a_volume(before: list[str], after: list[str]) -> None:
    for old, new in ((before, after), (after, before)):
        assert text_of(a_world(volume(*old), volume(*new)).plan()) == "nothing to do"


@pytest.mark.parametrize("odd", [None, 5, "x", ["x"], {"a": 1}, [["a"]], [{"a": 1}], [None]])
def test_a_spec_of_another_form_means_itself(odd: Any) -> None:
    """A record may be of another version of us, or adopted `as found`."""
    for kind in ("container", "network", "volume"):
        for name in (
            "image",
            "user",
            "ports",
            "mounts",
            "tmpfs",
            "endpoints",
            "cap_add",
            "health",
            "options",
            "pools",
            "command",
        ):
            assert meaning(kind, {name: odd}) == meaning(kind, {name: odd})
            assert changed_fields(kind, {name: odd}, {name: odd}) == ()


def test_rolled_back_and_held_sections_stay_so(tmp_path: Path) -> None:
    from agent.plan.container.image import failure_of
    from agent.runtime.holds import Holds
    from tests.plan.test_image import NO_FAILURE

    def failed(world: World) -> None:
        tried = a_world(web(), web("option stop_signal 'USR1'", "option privileged '0'")).desired.containers[
            0
        ]
        world.record("web", **failure_of(tried, "sha256:nginx:1.27", NO_FAILURE))
        world.context["image_ids"] = {"nginx:1.27": "sha256:nginx:1.27"}

    world = a_world(web(), web("option stop_signal 'SIGUSR1'"), failed)
    assert "RolledBack" in text_of(world.plan())

    desired = [
        a_world(web(), web(*lines)).desired for lines in ((), ("option tty '0'",), ("option tty '1'",))
    ]
    holds = Holds(tmp_path / "holds.json")
    holds.add(desired[0].containers[0], "stop")
    again = Holds(tmp_path / "holds.json")
    assert again.current(desired[1]) == {"container:web": "stop"}
    assert again.current(desired[2]) == {}


def test_a_canonical_spec_is_not_changed_by_asking_what_it_means() -> None:
    spec = a_world(web(), web("list cap_add 'ALL'", "list port '0.0.0.0:1:1'")).desired.containers[0].spec
    before = json.dumps(canonical(spec))
    meaning("container", canonical(spec))
    assert json.dumps(canonical(spec)) == before
