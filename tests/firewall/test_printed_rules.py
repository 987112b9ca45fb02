# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of situations against packets: what fw4 printed for each (its chains for forwarded packets) is loaded, and
hosts in lan, guest and wan try the ports of two containers, which try the internet.

`tests/data/fw4/forward.nft` was printed by firewall4 of March 2025 from the `firewall` and `network` of each row. A row that
changes, or a new one, needs its rules printed again.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.firewall.situations import SITUATIONS, Situation
from tests.support.daemon_lab import wait_for
from tests.support.dockerd import is_root
from tests.support.netns import OwnNetwork

pytestmark = [
    pytest.mark.skipif(not is_root(), reason="rules need root"),
    pytest.mark.skipif(shutil.which("nft") is None, reason="no nft here"),
]

PRINTED = Path(__file__).parents[1] / "data/fw4/forward.nft"
RULES = {
    head: body
    for head, _, body in (
        part.partition("\n") for part in re.split(r"^# ", PRINTED.read_text(), flags=re.MULTILINE)[1:]
    )
}
SAMPLE = (
    "the stock script's zone and nothing else",
    "what the first installation adds",
    "a zone by subnet",
    "a port forward from wan, which lan may use too",
    "forward ACCEPT of the zones is about their own members",
)
INTERNET = "198.51.100.9"
ENDS = {  # end -> device of the router, address of the router, of the end
    "lan": ("br-lan", "192.168.1.1/24", "192.168.1.2/24"),
    "guest": ("br-guest", "192.168.3.1/24", "192.168.3.2/24"),
    "wan": ("eth1", "203.0.113.1/24", "203.0.113.2/24"),
    "docker": ("docker0", "172.17.0.1/16", "172.17.0.2/16"),
    "iot": ("br-iot", "172.30.0.1/24", "172.30.0.2/24"),
}
AS_DOCKERD = """
table ip dockerd {
	chain in {
		type nat hook prerouting priority dstnat;
		fib daddr type local tcp dport 8080 dnat to 172.17.0.2:80
		fib daddr type local tcp dport 8081 dnat to 172.30.0.2:80
	}
	chain out {
		type nat hook postrouting priority srcnat;
		ip saddr 172.17.0.0/16 oifname != "docker0" masquerade
		ip saddr 172.30.0.0/24 oifname != "br-iot" masquerade
	}
}
"""
SERVER = "import socket\ns = socket.create_server(('', 80))\nwhile True: s.accept()[0].close()\n"


class Lab:
    """A router between its ends; every end listens on port 80."""

    def __init__(self) -> None:
        self.router = OwnNetwork(f"ucidp{os.getpid()}r")
        self.ends = {name: OwnNetwork(f"ucidp{os.getpid()}{name[0]}") for name in ENDS}
        self.router.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        for name, (device, ours, theirs) in ENDS.items():
            end = self.ends[name]
            self.router.run(
                "ip", "link", "add", device, "type", "veth", "peer", "name", "e", "netns", end.name
            )
            for where, link, address in ((self.router, device, ours), (end, "e", theirs)):
                where.run("ip", "addr", "add", address, "dev", link)
                where.run("ip", "link", "set", link, "up")
            end.run("ip", "route", "add", "default", "via", ours.partition("/")[0])
            if name in {"lan", "wan"}:
                end.run("ip", "addr", "add", f"{INTERNET}/32", "dev", "lo")
        self._servers = [
            subprocess.Popen(end.words(sys.executable, "-c", SERVER)) for end in self.ends.values()
        ]
        for name, end in self.ends.items():
            wait_for(lambda end=end, name=name: self._connects(end, ENDS[name][2].partition("/")[0], 80), 20)

    def load(self, rules: str, uplink: str) -> None:
        self.router.run("nft", "flush", "ruleset")
        for text in (AS_DOCKERD, rules):
            subprocess.run(self.router.words("nft", "-f", "-"), input=text, text=True, check=True)
        gateway = ENDS[uplink][2].partition("/")[0]
        self.router.run("ip", "route", "replace", "default", "via", gateway)

    def reaches(self, end: str, port: int) -> bool:
        """Whether a host there reaches a published port of the router's address in its own network."""
        return self._connects(self.ends[end], ENDS[end][1].partition("/")[0], port)

    def is_online(self, end: str) -> bool:
        return self._connects(self.ends[end], INTERNET, 80)

    def _connects(self, end: OwnNetwork, address: str, port: int) -> bool:
        answers: Any = multiprocessing.Queue()
        trying = multiprocessing.Process(target=_connect, args=(str(end.path), address, port, answers))
        trying.start()
        trying.join(20)
        return bool(answers.get(timeout=5))

    def close(self) -> None:
        for server in self._servers:
            server.kill()
            server.wait(5)
        for network in (*self.ends.values(), self.router):
            network.close()


def _connect(network: str, address: str, port: int, answers: Any) -> None:
    """Runs in a process of its own, which goes into the network."""
    import ctypes

    with open(network) as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0):
            raise OSError(ctypes.get_errno(), "setns")
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        answers.put(False)
    else:
        answers.put(True)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    made = Lab()
    yield made
    made.close()


def test_every_situation_has_its_rules() -> None:
    assert list(RULES) == list(SITUATIONS)


@pytest.mark.parametrize(
    "name", [name if name in SAMPLE else pytest.param(name, marks=pytest.mark.long) for name in SITUATIONS]
)
def test_packets_go_where_the_table_says(lab: Lab, name: str) -> None:
    given: Situation = SITUATIONS[name]
    lab.load(RULES[name], given.uplink)
    outside = {end: lab.reaches(end, 8080) for end in ("lan", "guest", "wan")}
    assert (any(outside.values()), lab.is_online("docker")) == (given.reached, given.online)
    assert outside["wan"] is given.public
    iot = any(lab.reaches(end, 8081) for end in ("lan", "guest", "wan")), lab.is_online("iot")
    assert iot == (
        given.reached if given.iot_reached is None else given.iot_reached,
        given.online if given.iot_online is None else given.iot_online,
    )
