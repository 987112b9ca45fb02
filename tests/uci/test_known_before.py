# SPDX-License-Identifier: GPL-2.0-or-later
"""What no engine takes is a mistake that `check` tells, and what docker's own syntax allows is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.files.user_paths import PATHS
from agent.model.resources import Container, Device, Port
from agent.plan.container.bodies import container_body, host_config
from agent.uci.decode import DecodeResult, decode
from agent.uci.syntax import parse

NET = "config network 'lan'\n\tlist subnet '10.1.0.0/24'\n\tlist subnet 'fd00:1::/64'\n\n"


def checked(*lines: str, network: str = NET) -> DecodeResult:
    image = () if any(line.startswith("option image") for line in lines) else ("option image 'nginx'",)
    text = network + "config container 'web'\n" + "".join(f"\t{line}\n" for line in (*image, *lines))
    return decode({"containers": parse(text, package="containers")}, paths={}, read_file=PATHS.read_text)


def mistakes(*lines: str, network: str = NET) -> list[str]:
    return [f"{i.message}, expected {i.expected}" for i in checked(*lines, network=network).issues]


def container(*lines: str) -> Container:
    result = checked(*lines)
    assert result.issues == ()
    return result.desired.containers[0]


REFUSED: dict[str, str] = {
    "list sysctl 'vm.swappiness=1'": "belongs to the whole router",
    "list sysctl 'kernel.hostname=x'": "belongs to the whole router",
    "list sysctl 'fs.file-max=1'": "belongs to the whole router",
    "list ulimit 'nofiles=5'": "did you mean nofile?",
    "list ulimit 'as=5'": "'as' is not a limit",
    "list cap_add 'NET_ADMN'": "did you mean NET_ADMIN?",
    "list cap_drop 'CAP_FOO'": "is not a capability",
    "list cap_add 'CAP_ALL'": "is not a capability",
    "option stop_signal 'SIGFOO'": "is not a signal",
    "option stop_signal 'TREM'": "did you mean TERM?",
    "option stop_signal '0'": "is not a signal",
    "option stop_signal '999'": "is not a signal",
    "option stop_signal 'SIG15'": "is not a signal",
    "option stop_signal 'RTMIN+16'": "is not a signal",
    "list security_opt 'no-new-privilege'": "did you mean no-new-privileges?",
    "list security_opt 'no-new-privileges=maybe'": "is not true or false",
    "list security_opt 'seccomp=profile.json'": "is not a seccomp profile",
    "list security_opt 'systempaths=none'": "is not a value of systempaths",
    "list security_opt 'seccomp'": "is not a security option",
    "list security_opt 'label=x'": "is not a label option",
    "list volume '/a:/b:readonly'": "'readonly' is not an option",
    "list volume 'data:/b:rshared'": "'rshared' is not an option",
    "option image 'a-/a'": "is not an image reference",
    "option image '-a'": "is not an image reference",
    "option image 'a..b/c'": "is not an image reference",
    "option image 'reg-.lan/a'": "is not an image reference",
    "option image 'a@sha256:abcd'": "a digest of sha256: and 64 hex digits",
    f"option image 'a@sha256:{'a' * 63}'": "is not an image reference",
    f"option image 'a@sha256:{'A' * 64}'": "is not an image reference",
    f"option image 'a@md5:{'a' * 32}'": "is not an image reference",
    f"option image '{'a/' * 130}b'": "is not an image reference",
    "list extra_host 'a:fe80::1%eth0'": "has a zone",
    "list network 'lan,ip=10.1.0.0'": "is the network address",
    "list network 'lan,ip=10.1.0.255'": "is the broadcast address",
    "list network 'lan,ip6=fd00:1::'": "is the network address",
    "list port '80:80 443:443'": "one `list port` line for each",
    "list port '8080:80:90'": "has too many parts",
    "list port '21900-21902:80-81'": "3 host ports for 2 container ports",
    "option health_interval '100us'": "less than a millisecond",
    "option health_timeout '999999ns'": "less than a millisecond",
    "option health_start_period '1ns'": "less than a millisecond",
    "list device 'vendor.com/gpu'": "is not a device",
    "option user ':'": "user[:group]",
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_no_engine_takes_is_told(line: str) -> None:
    found = [i for i in checked(line).issues if i.severity == "error"]
    [said] = [f"{i.message}, expected {i.expected}" for i in found]
    assert REFUSED[line] in said


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (("list sysctl 'net.core.somaxconn=5'", "list network 'host'"), "cannot be set with network host"),
        (("list sysctl 'net.core.somaxconn=5'", "option network_mode 'host'"), "with network host"),
        (("list sysctl 'kernel.sem=5'", "option ipc 'host'"), "cannot be set with ipc host"),
    ],
)
def test_sysctls_of_a_namespace_that_is_shared_are_told(lines: tuple[str, ...], words: str) -> None:
    [said] = mistakes(*lines)
    assert words in said


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["list gateway '10.1.0.0'"], "is the network address"),
        (["list gateway '10.1.0.255'"], "is the broadcast address"),
        (["list gateway 'fd00:1::'"], "is the network address"),
        (["list gateway '10.1.0.1'", "list gateway '10.1.0.2'"], "has one already"),
        (["list aux_address 'a=10.1.0.255'"], "is the broadcast address"),
        (["list gateway 'fe80::1%eth0'"], "has a zone"),
        (["list gateway '10.1.0.1'", "list gateway 'fd00:1::1'"], ""),
    ],
)
def test_gateways(lines: list[str], words: str) -> None:
    said = mistakes(network=NET.rstrip() + "".join(f"\n\t{line}" for line in lines) + "\n\n")
    assert len(said) == bool(words)
    assert words in "".join(said)


def test_a_bridge_takes_one_subnet_for_each_family() -> None:
    [said] = mistakes(network=NET.rstrip() + "\n\tlist subnet '10.2.0.0/24'\n\n")
    assert "one subnet for each family" in said
    assert (
        mistakes(network=NET.rstrip() + "\n\tlist subnet '10.2.0.0/24'\n\toption driver 'macvlan'\n\n") == []
    )


def test_subnets_of_two_addresses_have_no_ends() -> None:
    assert (
        mistakes(network="config network 'p'\n\tlist subnet '10.1.0.0/31'\n\tlist gateway '10.1.0.0'\n\n")
        == []
    )


TAKEN = [
    "list sysctl 'net/ipv4/conf/eth0.5/forwarding=1'",
    "list sysctl 'kernel.shm_rmid_forced=1'",
    "list sysctl 'fs.mqueue.msg_max=1'",
    "list sysctl 'kernel.domainname=x'",
    "list ulimit 'rttime=5'",
    "list cap_add 'checkpoint_restore'",
    "list dns 'fe80::1%eth0'",
    "option image 'A/b'",
    "option image 'localhost/a'",
    f"option image 'a@sha512:{'a' * 128}'",
    "list security_opt 'label:type:svirt_t'",
    "list security_opt 'apparmor=unconfined'",
    "list security_opt 'writable-cgroups=true'",
    "option health_interval '1ms'",
    "option health_interval '0'",
]


@pytest.mark.parametrize("line", TAKEN)
def test_what_engines_take_is_no_mistake(line: str) -> None:
    assert mistakes(line) == []


# docker run's own words


def test_a_range_of_host_ports_for_one_port() -> None:
    made = container("list port '127.0.0.1:21900-21910:80/TCP'")
    assert made.spec.ports == (
        Port(container_port=80, host_port=21900, host_port_end=21910, host_ip="127.0.0.1"),
    )
    assert host_config(made.spec, {})["PortBindings"] == {
        "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "21900-21910"}]
    }


def test_other_spellings_of_docker_run() -> None:
    spec = container(
        "list volume 'data:/a:cached'",
        "list volume '/b:/b:ro,delegated'",
        "list volume '/c:/c:consistent'",
        "option mac_address '02-42-AC-11-00-02'",
        "list network 'lan'",
        "option stop_signal 'sigterm'",
        "option user ':100'",
    ).spec
    assert [(m.target, m.read_only) for m in spec.mounts] == [("/a", False), ("/b", True), ("/c", False)]
    assert (spec.endpoints[0].mac_address, spec.stop_signal, spec.user) == (
        "02:42:ac:11:00:02",
        "SIGTERM",
        ":100",
    )


def test_a_device_by_its_cdi_name() -> None:
    spec = container("list device 'vendor.com/gpu=all'", "list device '/dev/a'").spec
    assert (spec.devices, spec.cdi_devices) == (
        (Device(host="/dev/a", container="/dev/a"),),
        ("vendor.com/gpu=all",),
    )
    assert host_config(spec, {})["DeviceRequests"] == [{"Driver": "cdi", "DeviceIDs": ["vendor.com/gpu=all"]}]


def body(made: Container) -> dict[str, Any]:
    host: dict[str, Any] = container_body(made, labels={}, image="x", api=(1, 41))["HostConfig"]
    return host


def test_system_paths() -> None:
    host = body(
        container("list security_opt 'systempaths=unconfined'", "list security_opt 'no-new-privileges'")
    )
    assert (host["SecurityOpt"], host["MaskedPaths"], host["ReadonlyPaths"]) == (
        ["no-new-privileges"],
        [],
        [],
    )


def test_a_seccomp_profile_is_read_and_sent(tmp_path: Path) -> None:
    from agent.plan.draft import desired_spec, with_hashes

    file = tmp_path / "profile.json"
    file.write_text('{\n  "defaultAction": "SCMP_ACT_ALLOW",\n  "a": 1\n}')
    line = f"list security_opt 'seccomp={file}'"
    made = container(line)
    sent = 'seccomp={"a":1,"defaultAction":"SCMP_ACT_ALLOW"}'
    assert body(made)["SecurityOpt"] == [sent]
    assert "SCMP" not in str(desired_spec(made))
    before = with_hashes(checked(line).desired).spec_hashes
    file.write_text('{"a": 1, "defaultAction": "SCMP_ACT_ALLOW"}\n')
    assert with_hashes(checked(line).desired).spec_hashes == before
    file.write_text('{"a": 2, "defaultAction": "SCMP_ACT_ALLOW"}\n')
    assert with_hashes(checked(line).desired).spec_hashes != before


@pytest.mark.parametrize("content", ["", "[]", "{", '"x"', "[" * 100_000])
def test_what_is_no_profile_is_told(tmp_path: Path, content: str) -> None:
    file = tmp_path / "profile.json"
    file.write_text(content)
    assert "not a JSON object" in mistakes(f"list security_opt 'seccomp={file}'")[0]


def test_files_that_are_none(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "large").write_bytes(b"x" * ((1 << 20) + 1))
    (tmp_path / "latin").write_bytes(b"A=\xff")
    for name, words in (
        (f"{tmp_path}/fifo", "a named pipe, not a regular file"),
        ("/dev/zero", "a character device, not a regular file"),
        (f"{tmp_path}/large", "larger than 1 MiB"),
        (f"{tmp_path}/latin", "is not UTF-8"),
        (f"{tmp_path}/gone", "No such file"),
        (str(tmp_path), "directory"),
    ):
        for line in (f"list env_file '{name}'", f"list security_opt 'seccomp={name}'"):
            [said] = mistakes(line)
            assert words in said or "not a regular" in said, said


def test_lines_of_an_environment_file_end_at_a_line_feed_only(tmp_path: Path) -> None:
    file = tmp_path / "env"
    values = {"A": "x\u2028y", "B": "x\u0085y", "C": "x\fy\vz", "D": "x\ry", "E": "\x1cx"}
    file.write_bytes("".join(f"{k}={v}\n" for k, v in values.items()).encode() + b"F=crlf\r\nG=")
    assert dict(container(f"list env_file '{file}'").spec.env) == {**values, "F": "crlf", "G": ""}
