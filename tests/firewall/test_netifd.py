# SPDX-License-Identifier: GPL-2.0-or-later
"""netifd's answer, asked by a program that prints what `ubus` does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.clients.netifd import UbusNetifd, is_up
from agent.errors import BusError
from agent.model.interfaces import Interface

DUMP = {
    "interface": [
        {
            "interface": "lan",
            "up": True,
            "l3_device": "br-lan",
            "device": "br-lan",
            "ipv4-address": [{"address": "192.168.1.1", "mask": 24}],
            "ipv6-address": [{"address": "fd00::1", "mask": 60}],
        },
        {"interface": "wan", "up": False, "available": True, "device": "eth1"},
    ]
}


def ubus(folder: Path, body: str) -> UbusNetifd:
    """A netifd client whose programs are shell scripts that note their arguments."""
    for name, text in (("ubus", body), ("firewall", "")):
        script = folder / name
        script.write_text(f'#!/bin/sh\necho "{name} $*" >>{folder}/calls\n{text}\n')
        script.chmod(0o755)
    return UbusNetifd(ubus=str(folder / "ubus"), firewall=str(folder / "firewall"))


def test_interfaces_are_read_with_their_devices_and_addresses(tmp_path: Path) -> None:
    found = ubus(tmp_path, f"cat <<'EOF'\n{json.dumps(DUMP)}\nEOF").interfaces()
    assert found == {
        "lan": Interface(
            name="lan",
            up=True,
            device="br-lan",
            l3_device="br-lan",
            addresses=frozenset({"192.168.1.1", "fd00::1"}),
        ),
        "wan": Interface(name="wan", device="eth1"),
    }
    assert is_up("lan", found)
    assert not is_up("wan", found)
    assert (tmp_path / "calls").read_text() == "ubus -t 5 call network.interface dump\n"


def test_reloads_are_one_call_each(tmp_path: Path) -> None:
    netifd = ubus(tmp_path, "")
    netifd.reload_network()
    netifd.reload_firewall()
    assert (tmp_path / "calls").read_text() == "ubus -t 5 call network reload\nfirewall reload\n"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("echo 'Command failed: Not found' >&2; exit 4", "failed .4.: Command failed: Not found"),
        ("echo '{'", "unexpected answer"),
        ("echo '[]'", "unexpected answer"),
        ('echo \'{"interface": [{"up": true}]}\'', "unexpected answer"),
    ],
)
def test_a_bus_that_fails_is_an_error(tmp_path: Path, body: str, said: str) -> None:
    with pytest.raises(BusError, match=said):
        ubus(tmp_path, body).interfaces()


def test_without_ubus_there_is_no_netifd_and_devices_count(tmp_path: Path) -> None:
    assert UbusNetifd(ubus=str(tmp_path / "none")).interfaces() is None
    assert is_up("lo", None)
    assert not is_up("nonesuch0", None)
    assert not is_up("", None)
    assert not is_up("a-name-that-is-too-long", None)
    with pytest.raises(BusError):
        UbusNetifd(firewall=str(tmp_path / "none")).reload_firewall()
