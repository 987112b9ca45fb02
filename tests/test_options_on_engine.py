# SPDX-License-Identifier: GPL-2.0-or-later
"""Every container option reaches the engine: UCI in, `docker inspect` out. A new option without a row fails."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.box import Box
from tests.support.policies import policies

Inspect = dict[str, Any]
Row = tuple[str, Callable[[Inspect], Any], Any]

BASE = """
config container 'web'
	option image 'IMAGE'
	option stop_timeout '0'
"""
SLEEP = "option command 'sleep 1000'"
NETS = """
config network 'lan'
	list subnet '10.219.5.0/24'
	list subnet 'fd00:5::/64'
	option ipv6 '1'
"""


def _host(key: str) -> Callable[[Inspect], Any]:
    return lambda body: body["HostConfig"][key]


def _config(key: str) -> Callable[[Inspect], Any]:
    return lambda body: body["Config"].get(key)


def _health(key: str) -> Callable[[Inspect], Any]:
    return lambda body: body["Config"]["Healthcheck"].get(key)


def _lan(key: str) -> Callable[[Inspect], Any]:
    return lambda body: body["NetworkSettings"]["Networks"]["lan"][key]


def _mount(body: Inspect) -> Any:
    return [
        (m["Type"], m["Source"], m["Target"], m.get("ReadOnly", False)) for m in body["HostConfig"]["Mounts"]
    ]


HEALTH = "option health_cmd 'true'\n\t"
ROWS: dict[str, Row] = {
    "image": ("", _config("Image"), "busybox:test"),
    "command": ("option command 'sh -c \"sleep 99\"'", _config("Cmd"), ["sh", "-c", "sleep 99"]),
    "entrypoint": (
        "list entrypoint 'sh'\n\tlist entrypoint '-c'\n\tlist entrypoint 'sleep 99'",
        _config("Entrypoint"),
        ["sh", "-c", "sleep 99"],
    ),
    "hostname": ("option hostname 'box'", _config("Hostname"), "box"),
    "domainname": ("option domainname 'lan.example'", _config("Domainname"), "lan.example"),
    "user": ("option user 'nobody'", _config("User"), "nobody"),
    "workdir": ("option workdir '/tmp'", _config("WorkingDir"), "/tmp"),
    "privileged": ("option privileged 'yes'", _host("Privileged"), True),
    "restart": (
        "option restart 'on-failure:3'",
        _host("RestartPolicy"),
        {"Name": "on-failure", "MaximumRetryCount": 3},
    ),
    "memory": ("option memory '64m'", _host("Memory"), 64 << 20),
    "memory_swap": ("option memory '64m'\n\toption memory_swap '96m'", _host("MemorySwap"), 96 << 20),
    "memory_reservation": ("option memory_reservation '32m'", _host("MemoryReservation"), 32 << 20),
    "cpus": ("option cpus '1.5'", _host("NanoCpus"), 1_500_000_000),
    "cpu_shares": ("option cpu_shares '512'", _host("CpuShares"), 512),
    "cpuset": ("option cpuset '0'", _host("CpusetCpus"), "0"),
    "pids_limit": ("option pids_limit '50'", _host("PidsLimit"), 50),
    "shm_size": ("option shm_size '16m'", _host("ShmSize"), 16 << 20),
    "blkio_weight": ("option blkio_weight '300'", _host("BlkioWeight"), 300),
    "oom_kill_disable": ("option oom_kill_disable '1'\n\toption memory '64m'", _host("OomKillDisable"), True),
    "init": ("option init '1'", _host("Init"), True),
    "read_only": ("option read_only 'on'", _host("ReadonlyRootfs"), True),
    "tty": ("option tty '1'", _config("Tty"), True),
    "stdin": ("option stdin '1'", _config("OpenStdin"), True),
    "stop_signal": ("option stop_signal 'SIGINT'", _config("StopSignal"), "SIGINT"),
    "stop_timeout": ("", _config("StopTimeout"), 0),
    "runtime": ("option runtime 'runc'", _host("Runtime"), "runc"),
    "network_mode": ("option network_mode 'none'", _host("NetworkMode"), "none"),
    "ipc": ("option ipc 'host'", _host("IpcMode"), "host"),
    "pid": ("option pid 'host'", _host("PidMode"), "host"),
    "userns": ("option userns 'host'", _host("UsernsMode"), "host"),
    "log_driver": (
        "option log_driver 'local'",
        lambda body: body["HostConfig"]["LogConfig"]["Type"],
        "local",
    ),
    "log_opt": (
        "option log_driver 'json-file'\n\tlist log_opt 'max-size=1m'",
        lambda body: body["HostConfig"]["LogConfig"]["Config"],
        {"max-size": "1m"},
    ),
    "publish_all": ("option publish_all '1'", _host("PublishAllPorts"), True),
    "health_cmd": (HEALTH, _health("Test"), ["CMD-SHELL", "true"]),
    "health_interval": (HEALTH + "option health_interval '3s'", _health("Interval"), 3 * 10**9),
    "health_timeout": (HEALTH + "option health_timeout '500ms'", _health("Timeout"), 500 * 10**6),
    "health_retries": (HEALTH + "option health_retries '4'", _health("Retries"), 4),
    "health_start_interval": (
        HEALTH + "option health_start_interval '3s'",
        _health("StartInterval"),
        3 * 10**9,
    ),
    "health_start_period": (HEALTH + "option health_start_period '2s'", _health("StartPeriod"), 2 * 10**9),
    "env": (
        "list env 'B=2'\n\tlist env 'A=x y'",
        lambda body: sorted(body["Config"]["Env"])[:2],
        ["A=x y", "B=2"],
    ),
    "env_file": ("list env_file 'FOLDER/env'", lambda body: "FROM_FILE=1" in body["Config"]["Env"], True),
    "port": (
        "list port '127.0.0.1:18570:80/udp'",
        _host("PortBindings"),
        {"80/udp": [{"HostIp": "127.0.0.1", "HostPort": "18570"}]},
    ),
    "volume": (
        "list volume 'data:/data'\n\tlist volume '/tmp:/host:ro'",
        _mount,
        [("volume", "data", "/data", False), ("bind", "/tmp", "/host", True)],
    ),
    "tmpfs": ("list tmpfs '/scratch:size=1m'", _host("Tmpfs"), {"/scratch": "size=1m"}),
    "network": ("list network 'lan,alias=www'", lambda body: "www" in _lan("Aliases")(body), True),
    "ip": ("list network 'lan'\n\toption ip '10.219.5.7'", _lan("IPAddress"), "10.219.5.7"),
    "ip6": ("list network 'lan'\n\toption ip6 'fd00:5::7'", _lan("GlobalIPv6Address"), "fd00:5::7"),
    "mac_address": (
        "list network 'lan'\n\toption mac_address '02:42:0a:00:00:09'",
        _lan("MacAddress"),
        "02:42:0a:00:00:09",
    ),
    "device": (
        "list device '/dev/null:/dev/mine:rw'",
        _host("Devices"),
        [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/mine", "CgroupPermissions": "rw"}],
    ),
    "device_cgroup_rule": (
        "list device_cgroup_rule 'c 188:* rmw'",
        _host("DeviceCgroupRules"),
        ["c 188:* rmw"],
    ),
    "cap_add": ("list cap_add 'net_admin'", _host("CapAdd"), ["CAP_NET_ADMIN"]),
    "cap_drop": ("list cap_drop 'MKNOD'", _host("CapDrop"), ["CAP_MKNOD"]),
    "sysctl": ("list sysctl 'net.ipv4.ip_forward=1'", _host("Sysctls"), {"net.ipv4.ip_forward": "1"}),
    "ulimit": (
        "list ulimit 'nofile=1024:2048'",
        _host("Ulimits"),
        [{"Name": "nofile", "Soft": 1024, "Hard": 2048}],
    ),
    "dns": ("list dns '9.9.9.9'", _host("Dns"), ["9.9.9.9"]),
    "dns_search": ("list dns_search 'lan'", _host("DnsSearch"), ["lan"]),
    "dns_opt": ("list dns_opt 'ndots:2'", _host("DnsOptions"), ["ndots:2"]),
    "extra_host": ("list extra_host 'nas:10.0.0.9'", _host("ExtraHosts"), ["nas:10.0.0.9"]),
    "label": ("list label 'a=b'", lambda body: body["Config"]["Labels"]["a"], "b"),
    "group_add": ("list group_add '5'", _host("GroupAdd"), ["5"]),
    "cpu_period": ("option cpu_period '50000'\n\toption cpu_quota '25000'", _host("CpuPeriod"), 50000),
    "cpu_quota": ("option cpu_quota '25000'", _host("CpuQuota"), 25000),
    "cpu_rt_period": ("option cpu_rt_period '1000000'", _host("CpuRealtimePeriod"), 1000000),
    "cpu_rt_runtime": ("option cpu_rt_runtime '950000'", _host("CpuRealtimeRuntime"), 950000),
    "cpuset_mems": ("option cpuset_mems '0'", _host("CpusetMems"), "0"),
    "memory_swappiness": ("option memory_swappiness '10'", _host("MemorySwappiness"), 10),
    "oom_score_adj": ("option oom_score_adj '500'", _host("OomScoreAdj"), 500),
    "stdin_once": ("option stdin_once '1'", _config("StdinOnce"), True),
    "uts": ("option uts 'host'", _host("UTSMode"), "host"),
    "cgroupns": ("option cgroupns 'host'", _host("CgroupnsMode"), "host"),
    "cgroup_parent": ("option cgroup_parent '/ucidockd-test'", _host("CgroupParent"), "/ucidockd-test"),
    "platform": ("option platform 'linux/amd64'", lambda body: body["Platform"], "linux"),
    "volume_driver": (
        "option volume_driver 'local'\n\tlist volume 'fresh:/x'",
        _host("VolumeDriver"),
        "local",
    ),
    "blkio_weight_device": (
        "list blkio_weight_device '/dev/null:300'",
        _host("BlkioWeightDevice"),
        [{"Path": "/dev/null", "Weight": 300}],
    ),
    **{
        option: (f"list {option} '/dev/null:1000'", _host(key), [{"Path": "/dev/null", "Rate": 1000}])
        for option, key in (
            ("device_read_bps", "BlkioDeviceReadBps"),
            ("device_read_iops", "BlkioDeviceReadIOps"),
            ("device_write_bps", "BlkioDeviceWriteBps"),
            ("device_write_iops", "BlkioDeviceWriteIOps"),
        )
    },
    "gpus": (
        "list gpus 'all'",
        _host("DeviceRequests"),
        [{"Driver": "", "Count": -1, "DeviceIDs": None, "Capabilities": [["gpu"]], "Options": {}}],
    ),
    "expose": (
        "list expose '80-81/UDP'",
        lambda body: sorted(body["Config"]["ExposedPorts"]),
        ["80/udp", "81/udp"],
    ),
    "volumes_from": ("list volumes_from 'lender:ro'", _host("VolumesFrom"), ["lender:ro"]),
    "storage_opt": ("list storage_opt 'size=1g'", _host("StorageOpt"), {"size": "1g"}),
    "annotation": ("list annotation 'a=b'", _host("Annotations"), {"a": "b"}),
    "security_opt": ("list security_opt 'no-new-privileges'", _host("SecurityOpt"), ["no-new-privileges"]),
}
# what the kernel or the container of a test machine may not allow at start; the engine has the value all the same
NOT_STARTED = {
    "blkio_weight",
    "oom_kill_disable",
    "userns",
    "privileged",
    "cgroup_parent",
    "memory_swappiness",
    "cpu_rt_period",
}
NOT_STARTED |= {
    "cpu_rt_runtime",
    "blkio_weight_device",
    "device_read_bps",
    "device_read_iops",
    "device_write_bps",
    "device_write_iops",
}
# what this engine, its storage driver or the kernel refuses, with its words: it is asked for, and what runs goes on
REFUSED = {"gpus": r"could not select device driver|no known GPU vendor", "storage_opt": "storage-opt|^$"}
SINCE = {"health_start_interval": (1, 44), "annotation": (1, 43)}
LENDER = BASE.replace("'web'", "'lender'") + f"\t{SLEEP}\n\tlist volume 'data:/data'\n"


# options that say when and how, not what: they are tested where their behaviour is
def test_every_option_of_the_schema_has_a_row() -> None:
    schema = Path(__file__).parents[1] / "schemas" / "container.schema.json"
    assert set(json.loads(schema.read_text())["properties"]) == ROWS.keys() | policies() | {"name"}


@pytest.mark.variants(12)
@pytest.mark.parametrize("option", sorted(ROWS))
def test_the_option_reaches_the_engine_and_stays(box: Box, tmp_path: Path, option: str) -> None:
    if option.startswith("blkio_weight") and not Path("/sys/fs/cgroup/blkio/blkio.weight").exists():
        pytest.skip("this kernel has no blkio weights: the engine drops the value with a warning")
    (tmp_path / "env").write_text("# a comment\nFROM_FILE=1\n")
    lines, look, expected = ROWS[option]
    command = "" if option in {"command", "entrypoint"} else f"\t{SLEEP}\n"
    state = "\toption state 'stopped'\n" if option in NOT_STARTED else ""
    lender = LENDER if option == "volumes_from" else ""
    text = NETS + lender + BASE + command + state + f"\t{lines}\n".replace("FOLDER", str(tmp_path))
    if SINCE.get(option, (0, 0)) > box.reconciler.engine.api_version():
        plan, _ = box.apply(text)
        assert "EngineTooOld" in {finding.reason for finding in plan.findings}
        assert "web" not in box.names()
        return
    if option in REFUSED:
        assert re.search(REFUSED[option], "".join(box.errors(text)))
        return
    assert box.errors(text) == []
    seen = look(box.get("web").attrs)
    assert seen == expected
    assert str(box.apply()[0]) == "nothing to do"
