# SPDX-License-Identifier: GPL-2.0-or-later
"""The files of a router, and a netifd with configurable answers that counts reloads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.errors import BusError
from agent.model.addresses import Interface

NETWORK = """
config interface 'loopback'
	option device 'lo'
	option proto 'static'

config interface 'lan'
	option device 'br-lan'
	option proto 'static'

config interface 'wan'
	option device 'eth1'
	option proto 'pppoe'

config interface 'wan6'
	option device '@wan'
	option proto 'dhcpv6'

config interface 'docker'
	option device 'docker0'
	option proto 'none'
	option auto '0'
"""

FIREWALL = """
config defaults
	option input 'REJECT'
	option output 'ACCEPT'
	option forward 'REJECT'

config zone
	option name 'lan'
	list network 'lan'
	option input 'ACCEPT'
	option output 'ACCEPT'
	option forward 'ACCEPT'

config zone
	option name 'wan'
	list network 'wan'
	list network 'wan6'
	option input 'REJECT'
	option output 'ACCEPT'
	option forward 'REJECT'
	option masq '1'

config forwarding
	option src 'lan'
	option dest 'wan'

config zone 'docker'
	option name 'docker'
	option network 'docker'
	option input 'ACCEPT'
	option output 'ACCEPT'
	option forward 'ACCEPT'
"""


def write_router(config: Path, *, firewall: str = FIREWALL, network: str = NETWORK) -> None:
    """Writes a router's /etc/config/network and /etc/config/firewall."""
    (config / "network").write_text(network)
    (config / "firewall").write_text(firewall)


@dataclass
class FakeNetifd:
    """`known` None: there is no netifd. `failing`: the error that its calls raise."""

    known: Mapping[str, Interface] | None = None
    failing: str = ""
    reloads: list[str] = field(default_factory=list)

    def interfaces(self) -> Mapping[str, Interface] | None:
        self._fail()
        return self.known

    def reload_network(self) -> None:
        self._fail()
        self.reloads.append("network")

    def reload_firewall(self) -> None:
        self._fail()
        self.reloads.append("firewall")

    def _fail(self) -> None:
        if self.failing:
            raise BusError(self.failing)
