# SPDX-License-Identifier: GPL-2.0-or-later
"""Real packets to and from a container of a real dockerd, under the `config firewall` that people have."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from tests.support.daemon_lab import DaemonLab, wait_for
from tests.support.debian import CannotFetchError
from tests.support.dockerd import is_root
from tests.support.engines import programs
from tests.support.iptables import in_force, nft_in_force
from tests.support.netns import OwnNetwork

pytestmark = pytest.mark.skipif(not is_root(), reason="a dockerd needs root")

_numbers = itertools.count()
STOCK = "config firewall 'firewall'\n\toption device 'docker0'\n\tlist blocked_interfaces 'eth1'\n"
BY_NFT = """
table ip byhand {
	chain out { type nat hook postrouting priority srcnat; oifname "eth1" masquerade; }
	chain in { type nat hook prerouting priority dstnat; iifname "eth1" tcp dport 8081 dnat to CONTAINER:80; }
}
"""


class Router:
    """outside (192.0.2.2) -- (eth1) router with dockerd and the agent (docker0) -- container."""

    def __init__(self, engine: str = "") -> None:
        self.lab = DaemonLab(OwnNetwork(f"ucidt{os.getpid()}x{next(_numbers)}"), engine=engine)
        self.outside = OwnNetwork(f"{self.lab.network.name}o")
        router = self.lab.network
        router.run(
            "ip", "link", "add", "eth1", "type", "veth", "peer", "name", "e", "netns", self.outside.name
        )
        for where, device, number in ((router, "eth1", 1), (self.outside, "e", 2)):
            where.run("ip", "addr", "add", f"192.0.2.{number}/24", "dev", device)
            where.run("ip", "link", "set", device, "up")
        self.outside.run("ip", "route", "add", "default", "via", "192.0.2.1")
        router.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        httpd = self.outside.words("busybox", "httpd", "-f", "-p", "80", "-h", "/run/netns")
        self._server = subprocess.Popen(httpd)
        self._agent: subprocess.Popen[bytes] | None = None

    def boot(self, globals_: str = "", firewall: str = STOCK) -> None:
        """dockerd and the agent with these settings, and a container with port 8080:80."""
        options = self.lab.options
        self.lab.write(globals_, firewall)
        words = [f"--config-dir={options.config_dir}", f"--override-dir={options.override_dir}"]
        words += [f"--state-dir={options.state_dir}", f"--socket={options.socket}"]
        words += [f"--docker-host={options.docker_host}"]
        command = self.lab.network.words(sys.executable, "-m", "agent", "run", *words)
        self._agent = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        wait_for(self.lab.probe.answers, 60)
        self.lab.run_container("web", command="httpd -f -p 80 -h /etc", ports={"80/tcp": 8080})

    def apply(self, globals_: str = "", firewall: str = STOCK) -> None:
        assert self._agent is not None
        self.lab.write(globals_, firewall)
        self._agent.send_signal(signal.SIGHUP)

    def container_reaches_outside(self) -> bool:
        with closing(self.lab.client()) as client:
            asked = client.containers.get("web").exec_run(["sh", "-c", "nc -w 2 192.0.2.2 80 </dev/null"])
            return bool(asked.exit_code == 0)

    def outside_reaches(self, port: int) -> bool:
        words = ("busybox", "nc", "-w", "2", "192.0.2.1", str(port))
        done = subprocess.run(
            self.outside.words(*words), stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False
        )
        return done.returncode == 0

    def address(self) -> str:
        with closing(self.lab.client()) as client:
            networks = client.containers.get("web").attrs["NetworkSettings"]["Networks"]
            return str(networks["bridge"]["IPAddress"])

    def close(self) -> None:
        self._server.kill()
        self._server.wait(5)
        if self._agent is not None:
            self._agent.send_signal(signal.SIGTERM)
            self._agent.wait(20)
        self.lab.stop()
        self.lab.close()
        self.outside.close()


@contextmanager
def router_with(version: str = "") -> Iterator[Router]:
    try:
        made = Router(programs(version) if version else "")
    except CannotFetchError as exc:
        pytest.skip(f"no dockerd {version}: {exc}")
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("version", ["", pytest.param("29", marks=pytest.mark.long)])
def test_the_stock_section_closes_ports_and_leaves_the_internet(version: str) -> None:
    with router_with(version) as router:
        router.boot(firewall="")
        assert router.outside_reaches(8080)
        assert router.container_reaches_outside()
        router.apply()
        wait_for(lambda: in_force(router.lab.network) == ["eth1>docker0"], 10)
        assert not router.outside_reaches(8080)
        assert router.container_reaches_outside()


def test_with_iptables_0_rules_of_the_users_own_go_on_until_enforce_is_asked_for() -> None:
    with router_with() as router:
        router.boot("option iptables '0'\n")
        router.lab.network.run(
            "sh", "-c", f"nft -f - <<'E'\n{BY_NFT.replace('CONTAINER', router.address())}E"
        )
        assert router.container_reaches_outside()
        assert router.outside_reaches(8081)
        assert in_force(router.lab.network) == []
        router.apply("option iptables '0'\n", STOCK + "\toption enforce '1'\n")
        wait_for(lambda: in_force(router.lab.network) == ["eth1>docker0"], 10)
        assert not router.outside_reaches(8081)
        assert router.container_reaches_outside()


@pytest.mark.long
def test_with_dockerds_nftables_the_rules_are_in_a_table_of_their_own() -> None:
    with router_with("29") as router:
        router.boot("option firewall_backend 'nftables'\n")
        wait_for(lambda: nft_in_force(router.lab.network) == ["eth1>docker0"], 10)
        assert in_force(router.lab.network) == []
        assert not router.outside_reaches(8080)
        assert router.container_reaches_outside()
        router.apply("option firewall_backend 'nftables'\n", "")
        wait_for(lambda: nft_in_force(router.lab.network) == [], 10)
        assert router.outside_reaches(8080)
