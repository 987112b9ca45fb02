# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's routes as /proc shows them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from agent.model.addresses import Route
from agent.router.addresses import host_routes
from tests.support.dockerd import is_root

NONE6, HERE6 = "0" * 32, "fd010000000000000000000000000000"


def little(text: str) -> str:
    """An address as a machine of this byte order shows it."""
    return f"{int.from_bytes(bytes(map(int, text.split('.'))), sys.byteorder):08X}"


def row4(device: str, to: str, by: str, flags: int, mask: str) -> str:
    return f"{device}\t{little(to)}\t{little(by)}\t{flags:04X}\t0\t0\t0\t{little(mask)}\t0\t0\t0\n"


def row6(to: str, prefix: int, flags: int, device: str) -> str:
    return f"{to} {prefix:02x} {NONE6} 00 {NONE6} 00000100 00000001 00000000 {flags:08x} {device:>8}\n"


def test_subnets_are_read_and_what_is_no_subnet_is_left_out(tmp_path: Path) -> None:
    ipv4 = (
        "Iface\tDestination\tGateway\n"
        + row4("wan", "0.0.0.0", "192.0.2.1", 0x3, "0.0.0.0")
        + row4("br-lan", "192.168.1.0", "0.0.0.0", 0x1, "255.255.255.0")
        + row4("wg0", "10.0.0.0", "10.9.0.1", 0x3, "255.0.0.0")
        + row4("down0", "10.7.0.0", "0.0.0.0", 0x0, "255.255.0.0")
        + row4("*", "10.8.0.0", "0.0.0.0", 0x201, "255.255.0.0")
    )
    ipv6 = (
        row6(HERE6, 64, 0x1, "br-lan")
        + row6(HERE6[:-1] + "1", 128, 0x1, "br-lan")
        + row6("fe800000000000000000000000000000", 64, 0x1, "br-lan")
        + row6("ff000000000000000000000000000000", 8, 0x1, "br-lan")
        + row6(NONE6, 0, 0x3, "wan")
    )
    (tmp_path / "route").write_text(ipv4)
    (tmp_path / "ipv6_route").write_text(ipv6)
    assert host_routes(tmp_path) == (
        Route(device="br-lan", subnet="192.168.1.0/24", direct=True),
        Route(device="br-lan", subnet="fd01::/64", direct=True),
        Route(device="wg0", subnet="10.0.0.0/8", direct=False),
    )


def test_a_kernel_without_them_has_none(tmp_path: Path) -> None:
    assert host_routes(tmp_path) == ()


@pytest.mark.skipif(not is_root(), reason="making a device needs root")
@pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="this kernel makes no tunnels")
def test_the_kernels_own_are_read_and_a_tunnel_is_no_link() -> None:
    made = ["unshare", "--net", "sh", "-ec"]
    show = (
        "import agent.router.addresses as r; print([(x.device, x.subnet, x.direct) for x in r.host_routes()])"
    )
    words = (
        "ip link add own0 type bridge; ip addr add 10.77.1.1/20 dev own0; ip link set own0 up;"
        " ip tuntap add mode tun name vpn0; ip addr add 10.79.0.1/16 dev vpn0; ip link set vpn0 up;"
        f" ip route add 10.78.0.0/16 via 10.77.1.2; exec '{sys.executable}' -c '{show}'"
    )
    out = subprocess.run([*made, words], capture_output=True, text=True, check=True).stdout
    assert ast.literal_eval(out) == [
        ("own0", "10.77.0.0/20", True),
        ("own0", "10.78.0.0/16", False),
        ("vpn0", "10.79.0.0/16", False),
    ]
