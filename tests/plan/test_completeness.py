# SPDX-License-Identifier: GPL-2.0-or-later
"""Every field of a ContainerSpec is known to all that has to know it: a new one without an entry fails here."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from agent.model.container_table import ChangeLevel
from agent.model.identity import canonical
from agent.model.resources import (
    Container,
    ContainerSpec,
    Device,
    DeviceLimit,
    Endpoint,
    Gpus,
    Healthcheck,
    Mount,
    Port,
    RestartPolicy,
    Tmpfs,
    Ulimit,
)
from agent.plan.container.bodies import container_body, read_spec, update_body
from agent.plan.container.changes import LEVELS, option_of, words
from agent.plan.container.difference import FIELDS as DRIFT_FIELDS
from agent.plan.container.difference import is_met
from agent.schema.validate import properties
from agent.uci.encode import encode_container

# a value of each field, and one that means another container
VALUES: dict[str, tuple[Any, Any]] = {
    "image": ("nginx", "caddy"),
    "hostname": ("a", "b"),
    "domainname": ("a", "b"),
    "user": ("a", "b"),
    "workdir": ("/a", "/b"),
    "privileged": (True, False),
    "restart": (RestartPolicy(name="always"), RestartPolicy(name="on-failure", max_retries=3)),
    "memory": (64 << 20, 32 << 20),
    "memory_swap": (64 << 20, 32 << 20),
    "memory_reservation": (64 << 20, 32 << 20),
    "nano_cpus": (10**9, 2 * 10**9),
    "cpu_shares": (512, 256),
    "cpuset": ("0", "1"),
    "pids_limit": (5, 6),
    "shm_size": (1 << 20, 2 << 20),
    "blkio_weight": (300, 400),
    "oom_kill_disable": (True, False),
    "init": (True, False),
    "read_only": (True, False),
    "tty": (True, False),
    "stdin": (True, False),
    "stop_signal": ("SIGINT", "SIGQUIT"),
    "stop_timeout_s": (1, 2),
    "runtime": ("a", "b"),
    "network_mode": ("host", "none"),
    "ipc": ("host", "shareable"),
    "pid": ("host", "container:x"),
    "userns": ("host", "other"),
    "log_driver": ("local", "syslog"),
    "publish_all": (True, False),
    "health": (Healthcheck(cmd="a"), Healthcheck(cmd="b")),
    "command": (("a", "b"), ("a",)),
    "entrypoint": (("a",), ("b",)),
    "env": ((("A", "1"),), (("A", "2"),)),
    "ports": ((Port(container_port=80, host_port=1),), (Port(container_port=80, host_port=2),)),
    "mounts": ((Mount(source="/a", target="/x"),), (Mount(source="/b", target="/x"),)),
    "tmpfs": ((Tmpfs(target="/a"),), (Tmpfs(target="/a", options="size=1m"),)),
    "endpoints": ((Endpoint(network="lan"),), (Endpoint(network="wan"),)),
    "devices": ((Device(host="/dev/a", container="/dev/a"),), (Device(host="/dev/b", container="/dev/a"),)),
    "device_cgroup_rules": (("c 1:3 r",), ("c 1:3 w",)),
    "cap_add": (("CAP_A",), ("CAP_B",)),
    "cap_drop": (("CAP_A",), ("CAP_B",)),
    "sysctls": ((("a", "1"),), (("a", "2"),)),
    "ulimits": ((Ulimit(name="core", soft=1, hard=1),), (Ulimit(name="core", soft=1, hard=2),)),
    "dns": (("1.1.1.1",), ("9.9.9.9",)),
    "dns_search": (("a",), ("b",)),
    "dns_opt": (("a",), ("b",)),
    "extra_hosts": (("a:1.1.1.1",), ("a:2.2.2.2",)),
    "labels": ((("a", "1"),), (("a", "2"),)),
    "log_opts": ((("a", "1"),), (("a", "2"),)),
    "group_add": (("5",), ("6",)),
    "security_opt": (("a",), ("b",)),
    "seccomp": ("{}", "[]"),
    "cdi_devices": (("a.b/c=d",), ("a.b/c=e",)),
    "cpu_period": (50000, 100000),
    "cpu_quota": (25000, 50000),
    "cpu_rt_period": (50000, 100000),
    "cpu_rt_runtime": (25000, 50000),
    "cpuset_mems": ("0", "0-1"),
    "memory_swappiness": (0, 60),
    "oom_score_adj": (-5, 5),
    "stdin_once": (True, False),
    "uts": ("host", "other"),
    "cgroupns": ("host", "private"),
    "cgroup_parent": ("/a", "/b"),
    "platform": ("linux/amd64", "linux/arm64"),
    "volume_driver": ("a", "b"),
    "blkio_weight_devices": (
        (DeviceLimit(path="/dev/a", limit=10),),
        (DeviceLimit(path="/dev/a", limit=20),),
    ),
    "device_read_bps": ((DeviceLimit(path="/dev/a", limit=10),), (DeviceLimit(path="/dev/a", limit=20),)),
    "device_read_iops": ((DeviceLimit(path="/dev/a", limit=10),), (DeviceLimit(path="/dev/a", limit=20),)),
    "device_write_bps": ((DeviceLimit(path="/dev/a", limit=10),), (DeviceLimit(path="/dev/a", limit=20),)),
    "device_write_iops": ((DeviceLimit(path="/dev/a", limit=10),), (DeviceLimit(path="/dev/a", limit=20),)),
    "gpus": (
        (Gpus(count=-1),),
        (Gpus(devices=("0", "1"), capabilities=("compute",), options=(("a", "b"),)),),
    ),
    "expose": (("80/tcp",), ("80/udp",)),
    "volumes_from": (("db",), ("db:ro",)),
    "storage_opts": ((("size", "1g"),), (("size", "2g"),)),
    "annotations": ((("a", "1"),), (("a", "2"),)),
}
NAMES = [field.name for field in fields(ContainerSpec)]
BESIDE_BODY = {"platform"}  # a parameter of the call, and shown of images only


def a_container(**values: Any) -> Container:
    return Container(section="web", name="web", spec=replace(ContainerSpec(image="nginx"), **values))


def body(container: Container) -> dict[str, Any]:
    return container_body(container, labels={}, image=container.spec.image, api=(1, 41))


def inspect_of(container: Container) -> dict[str, Any]:
    """What an engine would show of a container made with our body."""
    made = body(container)
    networks = {e.network: {"NetworkID": e.network} for e in container.spec.endpoints}
    mounts = [
        {"Type": m["Type"], "Source": m.get("Source"), "Destination": m["Target"], "RW": True}
        for m in made["HostConfig"].get("Mounts", ())
    ]
    config = {key: value for key, value in made.items() if key not in {"HostConfig", "NetworkingConfig"}}
    return {
        "Config": config,
        "HostConfig": made["HostConfig"],
        "NetworkSettings": {"Networks": networks},
        "Mounts": mounts,
    }


def test_the_tables_name_every_field() -> None:
    assert VALUES.keys() == set(NAMES)
    assert LEVELS.keys() == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_field_reaches_the_engine_and_is_read_back(name: str) -> None:
    one, other = (a_container(**{name: value}) for value in VALUES[name])
    if name in BESIDE_BODY:
        return
    assert body(one) != body(other)
    assert getattr(read_spec(inspect_of(one), {}), name) == VALUES[name][0]


@pytest.mark.parametrize("name", NAMES)
def test_a_field_that_the_engine_shows_otherwise_is_a_difference(name: str) -> None:
    one, other = (a_container(**{name: value}) for value in VALUES[name])
    shown = read_spec(inspect_of(other), {})
    assert is_met(name, one.spec, read_spec(inspect_of(one), {}))
    assert is_met(name, one.spec, shown) is (name in BESIDE_BODY)


@pytest.mark.parametrize("name", NAMES)
def test_a_field_is_written_as_an_option_and_named_by_it(name: str) -> None:
    one, other = (encode_container(a_container(**{name: value})).options for value in VALUES[name])
    assert one != other
    option = option_of(name)
    assert option in properties("container") or option == "health_*"


@pytest.mark.parametrize("name", NAMES)
def test_a_change_of_a_field_reads_differently(name: str) -> None:
    old, new = (canonical(a_container(**{name: value}).spec).get(name) for value in VALUES[name])
    before, after = words(name, old, new)
    if name != "env":  # values of environment variables are never shown
        assert before != after
    assert "{" not in before + after or name == "seccomp"


def test_what_is_updated_in_place_is_also_seen_as_drift_and_sent() -> None:
    in_place = {name for name, level in LEVELS.items() if level is ChangeLevel.UPDATE}
    assert in_place == {field for field, _ in DRIFT_FIELDS} | {"restart"}
    for name in in_place:
        assert update_body(a_container(**{name: VALUES[name][0]}).spec, [name])
