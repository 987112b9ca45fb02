# SPDX-License-Identifier: GPL-2.0-or-later
"""The small languages of option values."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model import entries as e
from agent.model import quantities as q
from agent.model.resources import Dependency, DependsOn, Device, Endpoint, Mount, Port, RestartPolicy, Ulimit


@pytest.mark.parametrize(
    ("parser", "text", "value"),
    [
        (q.parse_size, "64m", 64 << 20),
        (q.parse_size, "64M", 64 << 20),
        (q.parse_size, "64mb", 64 << 20),
        (q.parse_size, "64MiB", 64 << 20),
        (q.parse_size, "512kib", 512 << 10),
        (q.parse_size, "1.5g", 3 << 29),
        (q.parse_size, "2t", 2 << 40),
        (q.parse_size, "10b", 10),
        (q.parse_size, "4096", 4096),
        (q.parse_swap, "-1", -1),
        (q.parse_duration, "1m30s", 90 * 10**9),
        (q.parse_duration, "500ms", 5 * 10**8),
        (q.parse_duration, "1.5h", 5400 * 10**9),
        (q.parse_duration, "0", 0),
        (q.parse_seconds, "2.5", 2.5),
        (q.parse_seconds, "1m", 60.0),
        (q.parse_cpus, "1.5", 1_500_000_000),
        (q.parse_cpus, ".5", 500_000_000),
        (q.parse_cpus, "2.", 2_000_000_000),
        (q.parse_bool, "enabled", True),
        (q.parse_bool, "off", False),
        (q.split_words, "a 'b c'", ("a", "b c")),
        (e.parse_ports, "80", (Port(container_port=80),)),
        (e.parse_ports, "8080:80/udp", (Port(container_port=80, host_port=8080, protocol="udp"),)),
        (e.parse_ports, "127.0.0.1:1:2", (Port(container_port=2, host_port=1, host_ip="127.0.0.1"),)),
        (e.parse_ports, "127.0.0.1::2", (Port(container_port=2, host_ip="127.0.0.1"),)),
        (e.parse_ports, "[::1]:1:2", (Port(container_port=2, host_port=1, host_ip="::1"),)),
        (
            e.parse_ports,
            "10-11:20-21",
            (Port(container_port=20, host_port=10), Port(container_port=21, host_port=11)),
        ),
        (e.parse_volume, "data:/d", Mount(source="data", target="/d")),
        (
            e.parse_volume,
            "/a:/d/:ro,rslave",
            Mount(source="/a", target="/d", read_only=True, propagation="rslave"),
        ),
        (e.parse_volume, "data:/d:nocopy,Z", Mount(source="data", target="/d", no_copy=True)),
        (e.parse_volume, "/d", Mount(source="", target="/d")),
        (e.parse_device, "/dev/a", Device(host="/dev/a", container="/dev/a")),
        (e.parse_device, "/dev/a:/dev/b:wr", Device(host="/dev/a", container="/dev/b", permissions="rw")),
        (e.parse_device, "/dev/a:r", Device(host="/dev/a", container="/dev/a", permissions="r")),
        (e.parse_device, "usb:10C4:EA60", Device(host="usb:10c4:ea60", container="")),
        (
            e.parse_device,
            "usb:10c4:ea60:AB1:/dev/z:rw",
            Device(host="usb:10c4:ea60:AB1", container="/dev/z", permissions="rw"),
        ),
        (e.parse_ulimit, "nofile=1:2", Ulimit(name="nofile", soft=1, hard=2)),
        (e.parse_ulimit, "core=-1", Ulimit(name="core", soft=-1, hard=-1)),
        (e.parse_restart, "on-failure:3", RestartPolicy(name="on-failure", max_retries=3)),
        (
            e.parse_endpoint,
            "lan,alias=a,alias=b,ip=10.0.0.2,ip6=fd00:0::1",
            Endpoint(network="lan", aliases=("a", "b"), ip="10.0.0.2", ip6="fd00::1"),
        ),
        (e.parse_dependency, "db", Dependency(section="db")),
        (e.parse_dependency, "db:healthy", Dependency(section="db", condition=DependsOn.HEALTHY)),
        (e.parse_extra_host, "nas=10.0.0.1", "nas:10.0.0.1"),
        (e.parse_extra_host, "v6:[fd00::1]", "v6:fd00::1"),
    ],
)
def test_a_good_value_is_read(parser: Callable[[str], object], text: str, value: object) -> None:
    assert parser(text) == value


@pytest.mark.parametrize(
    ("parser", "text", "hint"),
    [
        (q.parse_size, "64x", "64m"),
        (q.parse_size, "-1", "64m"),
        (q.parse_size, "", "64m"),
        (q.parse_duration, "30", "did you mean 30s"),
        (q.parse_duration, "1 m", "30s"),
        (q.parse_duration, "", "30s"),
        (q.parse_seconds, "soon", "seconds"),
        (q.parse_cpus, "0", "above 0"),
        (q.parse_cpus, ".", "above 0"),
        (q.parse_bool, "maybe", "1 (yes"),
        (q.split_words, "a 'b", "quotes"),
        (q.parse_pair, "=x", "NAME=value"),
        (q.parse_assignment, "x", "NAME=value"),
        (e.parse_ports, "65536", "1 to 65535"),
        (e.parse_ports, "8081-8080:80-81", "lower one first"),
        (e.parse_ports, "80-82:80-81", "one length"),
        (e.parse_ports, "::1:80:80", "brackets"),
        (e.parse_ports, "80/icmp", "tcp, udp or sctp"),
        (e.parse_ports, ":80", "container"),
        (e.parse_volume, "./data:/d", "absolute path"),
        (e.parse_volume, "data", "/target"),
        (e.parse_volume, "/a:/", "a directory"),
        (e.parse_volume, "/a:/b:nocopy", "nocopy"),
        (e.parse_device, "dev", "/dev/host"),
        (e.parse_device, "usb:1:2", "VID"),
        (e.parse_tmpfs, "run", "/target"),
        (e.parse_ulimit, "nofile=2:1", "soft"),
        (e.parse_restart, "always:3", "on-failure"),
        (e.parse_endpoint, "lan,ip=fd00::1", "IPv4"),
        (e.parse_endpoint, "lan,mac=1", "02:42"),
        (e.parse_dependency, "db:ready", "healthy"),
        (e.parse_wait, "clock:", "clock"),
        (e.parse_wait, "mount", "mount:/"),
        (e.parse_extra_host, "nas", "name:address"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_expected(
    parser: Callable[[str], object], text: str, hint: str
) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        parser(text)
    assert hint in str(caught.value)


@given(st.text())
def test_parsers_raise_nothing_but_value_errors(text: str) -> None:
    for parser in (
        q.parse_size,
        q.parse_duration,
        q.parse_cpus,
        q.parse_seconds,
        q.split_words,
        e.parse_ports,
        e.parse_volume,
        e.parse_device,
        e.parse_ulimit,
        e.parse_endpoint,
        e.parse_wait,
        e.parse_extra_host,
    ):
        try:
            parser(text)
        except ValueError as exc:
            assert ", expected " in str(exc)


@given(st.integers(0, 10**6), st.sampled_from(list(enumerate("bkmgt"))))
def test_a_size_is_its_number_times_its_unit(number: int, unit: tuple[int, str]) -> None:
    assert q.parse_size(f"{number}{unit[1]}") == number * 1024 ** unit[0]


@given(st.integers(1, 65000), st.integers(0, 50))
def test_a_range_expands_to_as_many_ports(first: int, more: int) -> None:
    ports = e.parse_ports(f"{first}-{first + more}:{first}-{first + more}")
    assert [p.container_port for p in ports] == list(range(first, first + more + 1))
