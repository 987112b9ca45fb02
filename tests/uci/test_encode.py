# SPDX-License-Identifier: GPL-2.0-or-later
"""Sections written for resources are read back as the same resources, through the text of a file."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.model.container_table import TABLE, Shape
from agent.model.resources import (
    Container,
    ContainerPolicy,
    ContainerSpec,
    Dependency,
    DependsOn,
    Device,
    DeviceLimit,
    Endpoint,
    Gpus,
    Healthcheck,
    Mount,
    Network,
    NetworkSpec,
    OnDrift,
    OnUnhealthy,
    Pool,
    Port,
    Pull,
    RestartPolicy,
    RunState,
    Tmpfs,
    Ulimit,
    Update,
    Volume,
    VolumeSpec,
    WaitFor,
    WaitKind,
)
from agent.model.updates import UpdateWindow
from agent.schema.validate import properties
from agent.uci.decode import decode
from agent.uci.encode import encode_container, encode_network, encode_volume
from agent.uci.syntax import Package, Section, format_file, parse

LAN = Network(
    section="lan",
    name="my.lan",
    spec=NetworkSpec(
        ipv6=True,
        pools=(Pool(subnet="10.219.0.0/16"), Pool(subnet="fd00:5::/64")),
        options=(("com.docker.network.bridge.name", "br-lan"),),
    ),
)
DATA = Volume(section="data", name="my-data", spec=VolumeSpec())
OTHERS = [Container(section=name, name=name, spec=ContainerSpec(image="a")) for name in ("db", "mq")]


def read_back(*sections: Section) -> Any:
    """Through text, as a file would be."""
    text = format_file(Package(name="containers", sections=sections))
    result = decode({"containers": parse(text, package="containers")}, paths={})
    assert [issue.text() for issue in result.issues if issue.severity == "error"] == []
    return result.desired


TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0\r"), max_size=12)
WORD = st.from_regex(r"[a-zA-Z0-9_]{1,8}", fullmatch=True)
NAME = st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,6}", fullmatch=True)
KEY = st.from_regex(r"[A-Za-z][A-Za-z0-9_.]{0,6}", fullmatch=True)
PATH = st.from_regex(r"(/[a-z0-9 _.]{1,5}){1,3}", fullmatch=True).filter(
    lambda p: all(part.strip() for part in p.split("/")[1:])
)
SIZE = st.integers(6 << 20, 1 << 40)
TIME_NS = st.just(0) | st.integers(10**6, 10**15)


def sorted_set(items: st.SearchStrategy[Any], key: Any = None) -> st.SearchStrategy[Any]:
    return st.lists(items, max_size=3, unique_by=key or (lambda item: item)).map(
        lambda found: tuple(sorted(found, key=key))
    )


def maybe(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | items


PAIRS = st.dictionaries(KEY, TEXT, max_size=3).map(lambda found: tuple(sorted(found.items())))
SET_PAIRS = st.dictionaries(KEY, WORD, max_size=3).map(lambda found: tuple(sorted(found.items())))
PORT = st.builds(
    Port,
    container_port=st.integers(1, 65535),
    host_port=st.integers(0, 65535),
    host_ip=st.sampled_from(["", "127.0.0.1", "0.0.0.0", "::1"]),
    protocol=st.sampled_from(["tcp", "udp", "sctp"]),
)
MOUNT = st.one_of(
    st.builds(
        Mount,
        source=PATH,
        target=PATH,
        read_only=st.booleans(),
        propagation=st.sampled_from(["", "rshared", "slave"]),
    ),
    st.builds(
        Mount,
        source=NAME | st.just("my-data"),
        target=PATH,
        read_only=st.booleans(),
        no_copy=st.booleans(),
    ),
    st.builds(Mount, source=st.just(""), target=PATH),
)
HOST_DEVICE = st.builds(Device, host=PATH, container=PATH, permissions=st.sampled_from(["rwm", "rw", "r"]))
USB = st.builds(
    Device, host=st.just("usb:0403:6001"), container=st.just("") | PATH, permissions=st.just("rwm")
)
HEALTH = st.builds(
    Healthcheck,
    cmd=maybe(TEXT.filter(bool)),
    argv=st.just(()) | st.lists(TEXT.filter(bool), min_size=1, max_size=3).map(tuple),
    interval_ns=maybe(TIME_NS),
    timeout_ns=maybe(TIME_NS),
    retries=maybe(st.integers(0, 99)),
    start_period_ns=maybe(TIME_NS),
    start_interval_ns=maybe(TIME_NS),
).filter(lambda health: health != Healthcheck() and not (health.cmd and health.argv))
ENDPOINT = st.builds(
    Endpoint,
    network=st.just("my.lan"),
    aliases=st.lists(NAME, max_size=2, unique=True).map(tuple),
    ip=st.sampled_from(["", "10.219.4.9"]),
    ip6=st.sampled_from(["", "fd00:5::9"]),
    mac_address=st.sampled_from(["", "02:42:0a:00:00:09"]),
    link_local=st.sampled_from([(), ("169.254.7.7",), ("169.254.7.7", "fe80::7")]),
    driver_opts=sorted_set(
        st.tuples(KEY, st.sampled_from(["", "1", "a=b,c=d", 'say "hi", twice'])), lambda p: p[0]
    ),
    gw_priority=maybe(st.integers(-9, 9)),
)
ENDPOINTS = st.one_of(
    st.just(()),
    ENDPOINT.map(lambda e: (e,)),
    ENDPOINT.map(lambda e: (e, Endpoint(network="bridge"))),
    ENDPOINT.map(lambda e: (Endpoint(network="bridge"), e)),
)
GPUS = st.one_of(
    st.sampled_from(
        [Gpus(count=-1), Gpus(count=2), Gpus(count=1, driver="nvidia", capabilities=("compute", "utility"))]
    ),
    st.just(Gpus(devices=("0", "GPU-a"), options=(("a", "1"), ("b", "")))),
)


def device_limits(limits: st.SearchStrategy[int]) -> st.SearchStrategy[Any]:
    paths = st.sampled_from(["/dev/sda", "/dev/disk/by-id/a:b"])
    return sorted_set(st.builds(DeviceLimit, path=paths, limit=limits), lambda item: item.path)


LIMITS = st.sampled_from(
    [(None, None, None), (64 << 20, None, 7 << 20), (64 << 20, 96 << 20, None), (64 << 20, -1, 1)]
)

SPEC: dict[str, st.SearchStrategy[Any]] = {
    "image": st.sampled_from(["nginx:1.27", "ghcr.io/a/b@sha256:" + "0" * 64]),
    "hostname": maybe(st.sampled_from(["box", "a.b-c"])),
    "domainname": maybe(WORD),
    "user": maybe(st.sampled_from(["nobody", "1000:1000"])),
    "workdir": maybe(PATH),
    "privileged": maybe(st.booleans()),
    "restart": maybe(
        st.sampled_from([RestartPolicy(name="always"), RestartPolicy(name="on-failure", max_retries=3)])
    ),
    "memory": st.none(),  # the three go together: see LIMITS
    "memory_swap": st.none(),
    "memory_reservation": st.none(),
    "nano_cpus": maybe(st.integers(1, 10**12)),
    "cpu_shares": maybe(st.integers(2, 262144)),
    "cpuset": maybe(st.sampled_from(["0-1", "0,2"])),
    "pids_limit": maybe(st.integers(-1, 10**6)),
    "shm_size": maybe(SIZE),
    "blkio_weight": maybe(st.just(0) | st.integers(10, 1000)),
    "oom_kill_disable": maybe(st.booleans()),
    "init": maybe(st.booleans()),
    "read_only": maybe(st.booleans()),
    "tty": maybe(st.booleans()),
    "stdin": maybe(st.booleans()),
    "stop_signal": maybe(st.sampled_from(["SIGINT", "SIGRTMIN+3", "9"])),
    "stop_timeout_s": maybe(st.integers(0, 9999)),
    "runtime": maybe(WORD),
    "network_mode": st.sampled_from([None, "host", "none", "bridge"]),
    "ipc": maybe(st.sampled_from(["host", "private", "shareable"])),
    "pid": maybe(st.just("host")),
    "userns": maybe(st.just("host")),
    "log_driver": maybe(st.sampled_from(["json-file", "local"])),
    "publish_all": maybe(st.booleans()),
    "health": maybe(HEALTH),
    "command": maybe(st.lists(TEXT, min_size=1, max_size=3).map(tuple)),
    "entrypoint": maybe(st.lists(TEXT, min_size=1, max_size=3).map(tuple)),
    "env": PAIRS,
    "ports": sorted_set(PORT, lambda p: (p.container_port, p.protocol, p.host_ip, p.host_port)),
    "mounts": st.lists(MOUNT, max_size=3, unique_by=lambda m: m.target).map(
        lambda found: tuple(sorted(found, key=lambda m: (m.target, m.source)))
    ),
    "tmpfs": sorted_set(
        st.builds(
            Tmpfs,
            target=st.sampled_from(["/t/1", "/t/2"]),
            options=st.sampled_from(["", "size=64m,mode=755"]),
        ),
        lambda entry: entry.target,
    ),
    "endpoints": ENDPOINTS,
    "devices": sorted_set(HOST_DEVICE | USB, lambda d: (d.container, d.host)),
    "device_cgroup_rules": sorted_set(st.sampled_from(["c 188:* rmw", "a *:* r"])),
    "cap_add": sorted_set(st.sampled_from(["ALL", "CAP_NET_ADMIN", "CAP_SYS_TIME"])),
    "cap_drop": sorted_set(st.sampled_from(["ALL", "CAP_MKNOD"])),
    "sysctls": st.dictionaries(KEY.map("net.{}".format), WORD, max_size=3).map(
        lambda found: tuple(sorted(found.items()))
    ),
    "ulimits": sorted_set(
        st.builds(
            Ulimit,
            name=st.sampled_from(["nofile", "core"]),
            soft=st.just(5),
            hard=st.sampled_from([5, 9, -1]),
        ),
        lambda limit: limit.name,
    ),
    "dns": st.sampled_from([(), ("9.9.9.9", "1.1.1.1"), ("fd00::1",)]),
    "dns_search": st.lists(WORD, max_size=2).map(tuple),
    "dns_opt": st.lists(WORD, max_size=2).map(tuple),
    "extra_hosts": st.sampled_from([(), ("nas:192.168.1.5", "a:host-gateway"), ("six:fd00::5",)]),
    "labels": PAIRS,
    "log_opts": SET_PAIRS,
    "group_add": sorted_set(WORD),
    "seccomp": st.none(),  # an option that names a file
    "cdi_devices": sorted_set(st.sampled_from(["nvidia.com/gpu=all", "a.b/c=d:0"])),
    "cpu_period": st.none(),  # not beside `cpus`
    "cpu_quota": st.none(),
    "cpu_rt_period": maybe(st.integers(0, 10**6)),
    "cpu_rt_runtime": maybe(st.integers(0, 10**6)),
    "memory_swappiness": maybe(st.integers(0, 100)),
    "oom_score_adj": maybe(st.integers(-1000, 1000)),
    "stdin_once": maybe(st.booleans()),
    "uts": st.none(),  # not beside `hostname`
    "platform": maybe(st.sampled_from(["linux/arm64", "linux/arm/v7"])),
    "volume_driver": maybe(st.just("local")),  # as the volume section has it
    "blkio_weight_devices": device_limits(st.integers(10, 1000)),
    "device_read_bps": device_limits(st.integers(1, 1 << 40)),
    "device_read_iops": device_limits(st.integers(1, 10**6)),
    "device_write_bps": device_limits(st.integers(1, 1 << 40)),
    "device_write_iops": device_limits(st.integers(1, 10**6)),
    "gpus": st.lists(GPUS, max_size=2).map(tuple),
    "expose": sorted_set(st.sampled_from(["80/tcp", "53/udp", "53/tcp"])),
    "volumes_from": st.sampled_from([(), ("lender",), ("lender:ro", "other")]),
    "storage_opts": SET_PAIRS,
    "annotations": PAIRS,
    "security_opt": sorted_set(st.sampled_from(["no-new-privileges", 'seccomp={"a": [1]}'])),
}
# a plain option without a line above takes the examples of its schema
for _row in TABLE:
    if _row.field not in SPEC and _row.shape is Shape.ONE:
        _examples = properties("container")[_row.uci]["examples"]
        SPEC[_row.field] = maybe(st.sampled_from([_row.codec.parse(example) for example in _examples]))
HOOKS = st.sampled_from([(), ("/bin/sh", "-c", "dump > /data/all"), ("dump", "--all", "a b")])
POLICY: dict[str, st.SearchStrategy[Any]] = {
    "enabled": st.booleans(),
    "state": st.sampled_from(RunState),
    "pull": st.sampled_from(Pull),
    "adopt": st.booleans(),
    "on_drift": st.sampled_from(OnDrift),
    "on_unhealthy": st.sampled_from(OnUnhealthy),
    "webui": st.sampled_from([None, "https://[host]:[port:8443]/path", "http://[fd00::1]/"]),
    "rollback": st.booleans(),
    "gate_s": st.integers(0, 10**6).map(lambda ms: ms / 1000),
    "grace_s": st.integers(0, 10**6).map(lambda ms: ms / 1000),
    "remove_volumes": st.booleans(),
    "wait_for": st.sampled_from(
        [
            (),
            (WaitFor(kind=WaitKind.MOUNT, target="/mnt/sda1"), WaitFor(kind=WaitKind.CLOCK)),
            (WaitFor(kind=WaitKind.DEVICE, target="usb:0403:6001"),),
        ]
    ),
    "depends_on": st.sampled_from(
        [(), (Dependency(section="db"), Dependency(section="mq", condition=DependsOn.HEALTHY))]
    ),
    "update": st.sampled_from([None, *Update]),
    "backup_before_update": st.sampled_from([None, False, True]),
    "strategy": st.just(None),  # what goes with a handover is tested apart
    "hold_limit_s": st.sampled_from([None, 0.0, 7200.0]),
    **dict.fromkeys(("hold_cmd", "pre_stop", "post_start"), HOOKS),
    **dict.fromkeys(("pre_stop_timeout_s", "post_start_timeout_s"), st.sampled_from([None, 1.5, 90.0])),
    "update_window": st.sampled_from([None, UpdateWindow(7200, 18000), UpdateWindow(84600, 3600)]),
    "update_age_s": st.sampled_from([None, 0.0, 1800.0, 43200.0, 3 * 86400.0, 7 * 86400.0]),
}


@st.composite
def containers(draw: st.DrawFn) -> Container:
    spec = ContainerSpec(**{name: draw(strategy) for name, strategy in SPEC.items()})
    memory, swap, reservation = draw(LIMITS)
    spec = replace(spec, memory=memory, memory_swap=swap, memory_reservation=reservation)
    if spec.endpoints:
        spec = replace(spec, network_mode=None)
    if spec.network_mode == "host":
        spec = replace(spec, sysctls=())
    policy = ContainerPolicy(**{name: draw(strategy) for name, strategy in POLICY.items()})
    return Container(section="web", name=draw(st.sampled_from(["web", "my-web.1"])), spec=spec, policy=policy)


def test_every_field_has_a_strategy() -> None:
    assert SPEC.keys() == {f.name for f in fields(ContainerSpec)}
    assert POLICY.keys() == {f.name for f in fields(ContainerPolicy)}


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(container=containers())
def test_a_container_is_read_back_as_it_was(container: Container) -> None:
    section = encode_container(container, networks={"my.lan": "lan"}, volumes={"my-data": "data"})
    others = [encode_container(other) for other in OTHERS]
    desired = read_back(encode_network(LAN), encode_volume(DATA), *others, section)
    found = next(c for c in desired.containers if c.section == "web")
    assert found == container
    assert desired.networks == (LAN,)
    assert desired.volumes == (DATA,)


POOLS = st.sampled_from(
    [
        (),
        (Pool(subnet="10.1.0.0/16", gateway="10.1.0.1", ip_range="10.1.2.0/24"),),
        (
            Pool(subnet="10.1.0.0/16", aux_addresses=(("nas", "10.1.0.9"), ("tv", "10.1.0.8"))),
            Pool(subnet="fd00:7::/64", gateway="fd00:7::1"),
        ),
    ]
)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(["net", "my-net"]),
    zone=st.sampled_from(["docker", "lan"]),
    adopt=st.booleans(),
    internal=st.booleans(),
    attachable=st.booleans(),
    ipv6=st.booleans(),
    pools=POOLS,
    driver=st.sampled_from(["bridge", "macvlan"]),
    options=PAIRS,
    labels=PAIRS,
    bridge=st.sampled_from(["br-net", "br-other"]),
)
def test_a_network_is_read_back_as_it_was(**values: Any) -> None:
    driver = values["driver"]
    options = dict(values["options"])
    if driver == "bridge":
        options["com.docker.network.bridge.name"] = values["bridge"]
    else:
        options |= {"parent": "eth0.5", "macvlan_mode": "bridge"}
    pools = values["pools"]
    spec = NetworkSpec(
        driver=driver,
        internal=values["internal"],
        attachable=values["attachable"],
        ipv6=values["ipv6"] or any(":" in pool.subnet for pool in pools),
        pools=pools,
        options=tuple(sorted(options.items())),
        labels=values["labels"],
    )
    network = Network(
        section="net", name=values["name"], zone=values["zone"], adopt=values["adopt"], spec=spec
    )
    assert read_back(encode_network(network)).networks == (network,)
    external = Network(section="net", name=values["name"], external=True, spec=NetworkSpec())
    assert read_back(encode_network(external)).networks == (external,)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(["vol", "my-vol"]),
    adopt=st.booleans(),
    driver=st.sampled_from(["local", "nfs"]),
    options=PAIRS,
    labels=PAIRS,
)
def test_a_volume_is_read_back_as_it_was(**values: Any) -> None:
    spec = VolumeSpec(driver=values["driver"], options=values["options"], labels=values["labels"])
    volume = Volume(section="vol", name=values["name"], adopt=values["adopt"], spec=spec)
    assert read_back(encode_volume(volume)).volumes == (volume,)


def a_container(**values: Any) -> Container:
    return Container(section="web", name="web", spec=ContainerSpec(image="a", **values))


def ports(*numbers: tuple[int, int], **more: str) -> tuple[Port, ...]:
    return tuple(Port(container_port=inner, host_port=outer, **more) for outer, inner in numbers)


WORDS = {
    "a size in the largest whole unit": ({"memory": 64 << 20}, "memory", "64m"),
    "bytes": ({"memory": (64 << 20) + 1}, "memory", "67108865"),
    "cpus": ({"nano_cpus": 1_500_000_000}, "cpus", "1.5"),
    "a duration": ({"health": Healthcheck(interval_ns=90 * 10**9)}, "health_interval", "1m30s"),
    "a range of ports": ({"ports": ports((8080, 80), (8081, 81), (9000, 90))}, "port", ("8080-8081:80-81", "9000:90")),
    "a port of the engine's choice": ({"ports": ports((0, 80), host_ip="127.0.0.1")}, "port", ("127.0.0.1::80",)),
    "IPv6": ({"ports": ports((53, 53), host_ip="::1", protocol="udp")}, "port", ("[::1]:53:53/udp",)),
    "an anonymous volume": ({"mounts": (Mount(source="", target="/x"),)}, "volume", ("/x",)),
    "a device as it is": ({"devices": (Device(host="/dev/a", container="/dev/a"),)}, "device", ("/dev/a",)),
}  # fmt: skip


@pytest.mark.parametrize(("values", "option", "expected"), WORDS.values(), ids=WORDS.keys())
def test_values_are_written_the_short_way(values: dict[str, Any], option: str, expected: object) -> None:
    found = encode_container(a_container(**values)).get(option)
    assert found is not None
    assert found.value == expected


def test_nothing_but_the_image_is_written_for_a_bare_container() -> None:
    assert [option.name for option in encode_container(a_container()).options] == ["image"]
