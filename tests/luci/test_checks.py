# SPDX-License-Identifier: GPL-2.0-or-later
"""The forms' checks (checks.js, run by node) against the agent's own parsers: both say yes or no to the same values."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.model import entries, quantities
from agent.model.quantities import QuantityError

HERE = Path(__file__).parent

if shutil.which("node") is None:
    pytest.skip("node is not installed", allow_module_level=True)

_ADDRESSES = (
    "1.2.3.4 0.0.0.0 256.1.1.1 1.2.3 01.2.3.4 1.2.3.4.5 ::1 :: fd00::1 1::2::3 fe80::1%br-lan ::1% ::ffff:1.2.3.4 "
    "1:2:3:4:5:6:7:8 1:2:3:4:5:6:7:8:9 1:2:3:4:5:6:7:: ::2:3:4:5:6:7:8 1:2:3:4:5:6:7::8 1:2:3:4:5:6:1.2.3.4 12345::1 g::1 : ::: 1.2.3.4::"
).split()
_SIZES = "0 1 64m 64M 64mb 64MiB 1.5g 1 . 1. .5 1,5 -1 64q 8191p 8192p 99999999999999999999 m".split() + [
    "64 m", "", "64  m", " 64m", "64m ",
]
_DURATIONS = "0 5 30s 1m30s 500ms 1.5h 1.h .5s 30 30S s 1d 10us 10µs 1s2 -1s".split() + ["", "1 s"]
_DEVICES = [
    "/dev/a", "/dev/a:/dev/b", "/dev/a:/dev/b:r", "/dev/a:rw", "/dev/a:rr", "/dev/a::rw", "dev/a", "/dev/a:b", "/dev/a:/dev/b:",
    "/dev/a:/dev/b:x", "/dev/a:/dev/b:rwm:x", "usb:1d6b:0002", "usb:1d6b:0002:S1", "usb:1d6b:2", "usb:1d6b:0002:/dev/x:rw",
    "usb:1d6b:0002:S1:/dev/x:rwm", "usb:1d6b:0002:S1:/dev/x:rrw", "usb:", "",
]  # fmt: skip
_VOLUMES = [
    "data:/data", "/mnt/a:/data", "/mnt/a:/data:ro", "d:/data", "./a:/data", "~/a:/data", "data:data", "data:/", "data://", "/data", "/",
    "", "data:/data:ro,nocopy", "/a:/data:nocopy", "/a:/data:rslave", "data:/data:rslave", "a:/b:ro:x", "a b:/data", "data:/data:", "data:/data:z",
]  # fmt: skip
_PORTS = [
    "80", "8080:80", "8080:80/tcp", "8080:80/udp", "8080:80/sctp", "8080:80/icmp", "8080:80/", "0:80", "65536:80", "80:0", "1-3:1-3",
    "1-3:1-2", "3-1:3-1", "1-3", "127.0.0.1:53:53/udp", "127.0.0.1::53", ":53:53", ":53", "[::1]:8080:80", "[::1]8080:80", "[::1]:80",
    "[1.2.3.4]:1:1", "::1:8080:80", "300.1.1.1:1:1", "a:b", "", "80:80:80:80", "8080:80/tcp/udp", "[::1]::80", " 80", "80:",
]  # fmt: skip
_NETWORKS = [
    "lan", "lan,alias=a,alias=b", "lan,ip=1.2.3.4", "lan,ip=::1", "lan,ip6=::1", "lan,ip6=1.2.3.4", "lan,ip=1.2.3.4,ip=1.2.3.5", "lan,",
    "lan,alias=", "lan,alias", "lan,mac=x", "", ",alias=a", "ip=1.2.3.4",
]  # fmt: skip


def _address4(text: str) -> object:
    return entries.parse_address(text, version=4)


def _address6(text: str) -> object:
    return entries.parse_address(text, version=6)


CASES: dict[tuple[str, str], tuple[Callable[[str], object], list[str]]] = {
    ("container", "memory"): (quantities.parse_size, _SIZES),
    ("container", "memory_swap"): (quantities.parse_swap, _SIZES),
    ("container", "health_interval"): (quantities.parse_duration, _DURATIONS),
    ("container", "gate"): (quantities.parse_seconds, _DURATIONS),
    ("container", "cpus"): (quantities.parse_cpus, "1 0.5 0 0.0 1.5.5 x 1e3 .5 1. -1 10000000000".split()),
    ("container", "dns"): (entries.parse_address, _ADDRESSES),
    ("container", "ip"): (_address4, _ADDRESSES),
    ("container", "ip6"): (_address6, _ADDRESSES),
    ("container", "port"): (entries.parse_ports, _PORTS),
    ("container", "volume"): (entries.parse_volume, _VOLUMES),
    ("container", "tmpfs"): (entries.parse_tmpfs, ["/run", "/run:size=64m", "run", "/", "//", "", "/a:b:c"]),
    ("container", "device"): (entries.parse_device, _DEVICES),
    ("container", "network"): (entries.parse_endpoint, _NETWORKS),
    ("container", "ulimit"): (
        entries.parse_ulimit,
        "nofile=1 nofile=1:2 nofile=2:1 nofile=-1 nofile=-1:5 nofile=5:-1 nofile -1 NOFILE=1 n=1:2:3 n=".split(),
    ),
    ("container", "restart"): (
        entries.parse_restart,
        "no always unless-stopped on-failure on-failure:3 on-failure: always:3 never on-failure:-1".split(),
    ),
    ("container", "depends_on"): (
        entries.parse_dependency,
        "db db:started db:healthy db:completed db: db:up :started a:b:c".split(),
    ),
    ("container", "wait_for"): (
        entries.parse_wait,
        "clock clock: mount:/mnt/a mount:mnt mount: device:/dev/a device:usb:1:2 device:a interface:wan interface: x".split(),
    ),
    ("container", "extra_host"): (
        entries.parse_extra_host,
        "nas:1.2.3.4 nas=1.2.3.4 nas:::1 nas:[::1] nas=[::1] nas:host-gateway nas: :1.2.3.4 nas nas:x =1.2.3.4".split(),
    ),
}


def _verdict(parse: Callable[[str], object], text: str) -> bool:
    try:
        parse(text)
    except QuantityError:
        return False
    return True


def test_forms_and_agent_agree_on_every_value() -> None:
    asked = [(*key, text) for key, (_, texts) in CASES.items() for text in texts]
    node = subprocess.run(
        ["node", str(HERE / "checks_answer.mjs")], input=json.dumps(asked), capture_output=True, text=True, check=True
    )
    answers = json.loads(node.stdout)
    differing = [
        (option, text, answer)
        for (section, option, text), answer in zip(asked, answers, strict=True)
        if (answer == "") is not _verdict(CASES[section, option][0], text)
    ]
    assert differing == []
