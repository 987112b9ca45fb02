# SPDX-License-Identifier: GPL-2.0-or-later
"""Which devices, and addresses, are WAN's by the packages `firewall` and `network`."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from agent.errors import ConfigError
from agent.files.options import RuntimeOptions
from agent.router.addresses import device_addresses
from agent.runtime.servers import wan_addresses
from agent.uci.router import wan_devices
from agent.uci.syntax import parse

FIREWALL = """
config defaults
	option input 'REJECT'

config zone
	option name 'lan'
	list network 'lan'
	option input 'ACCEPT'

config zone
	option name 'wan'
	list network 'wan'
	list network 'wan6'
	option input 'REJECT'

config zone
	option name 'guest'
	option network 'guest vpn'
	option device 'tun0'
	option input 'DROP'

config forwarding
	option src 'lan'
	option dest 'wan'
"""
NETWORK = """
config interface 'lan'
	option device 'br-lan'
	option proto 'static'

config interface 'wan'
	option device 'eth1'
	option proto 'pppoe'

config interface 'wan6'
	option device '@wan'
	option proto 'dhcpv6'

config interface 'guest'
	option ifname 'eth2 eth3'
	option proto 'static'
"""


def test_devices_of_zones_that_refuse_input_are_wan() -> None:
    found = wan_devices(parse(FIREWALL, package="firewall"), parse(NETWORK, package="network"))
    assert {"eth1", "pppoe-wan", "wan", "wan6", "eth2", "eth3", "tun0", "vpn"} <= found
    assert not found & {"br-lan", "lan", "@wan", "eth0"}


def test_the_kernel_tells_a_devices_addresses() -> None:
    assert ipaddress.ip_address("127.0.0.1") in device_addresses(["lo"])
    assert device_addresses(["nosuchdevice0", "x" * 300, ""]) == frozenset()


def test_without_a_firewall_nothing_is_wan_and_a_broken_one_is_an_error(tmp_path: Path) -> None:
    options = RuntimeOptions(config_dir=tmp_path, override_dir=tmp_path / "none")
    assert wan_addresses(options) == frozenset()
    (tmp_path / "firewall").write_text(FIREWALL)
    (tmp_path / "network").write_text(NETWORK.replace("'eth1'", "'lo'"))
    assert ipaddress.ip_address("127.0.0.1") in wan_addresses(options)
    (tmp_path / "network").write_text("config interface 'wan\n")
    with pytest.raises(ConfigError):
        wan_addresses(options)
