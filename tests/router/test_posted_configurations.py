# SPDX-License-Identifier: GPL-2.0-or-later
"""First boot on what people have: uci-defaults under busybox with the real `uci`, then the agent's stage on a real dockerd.

Each ends with dockerd running, one zone and one device for docker0, and a status that tells what was left out.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.dockerd.unmanaged import declared_settings, version_of
from agent.files.config import load, open_store
from agent.model.addresses import Route
from agent.plan import daemon as plan_daemon
from agent.runtime.router_integration import RouterIntegration, RouterTools
from agent.uci.router import text
from agent.uci.syntax import parse
from tests.dockerd import conftest as daemon_conftest
from tests.router.posted import POSTED, Posted
from tests.router.rootfs import PROJECT, Router
from tests.support.daemon_lab import DaemonLab
from tests.support.iptables import filter_in, in_force
from tests.support.netns import OwnNetwork
from tests.support.router import FakeNetifd
from tests.support.stock_script import StockScript

lab = daemon_conftest.lab
# `logread -l 200 -e PATTERN`: what procd has passed on of the dockerd that it started last
_LOGREAD = """#!/bin/sh
sed "s/^/Sun Nov 29 12:00:00 2026 daemon.err dockerd[$(cat {root}/procd.pid)]: /" {root}/script.log | grep -e "$4"
"""
NAMES = ("dockerd", "network", "firewall", "fstab", "dockerman")


@pytest.fixture
def script(lab: DaemonLab, monkeypatch: pytest.MonkeyPatch) -> Iterator[StockScript]:
    made = StockScript.make(lab, default=lab.root / "own.json")
    (lab.root / "bin").mkdir()
    logread = lab.root / "bin" / "logread"
    logread.write_text(_LOGREAD.format(root=lab.root))
    logread.chmod(0o755)
    monkeypatch.setenv("PATH", str(logread.parent), prepend=":")
    lan = Route(device="br-lan", subnet="10.203.0.0/24", direct=True)
    lab.tools = {
        "init_script": made.path,
        "default_file": lab.root / "own.json",
        "routes": lambda: (lan,),
    }
    lab.restart_agent()
    yield made
    made.end()


def put(lab: DaemonLab, router: Router, row: Posted) -> None:
    """The row's files, as they are before our package is installed."""
    disk = lab.root / "disk"
    places = {
        "data": str(disk / "docker" if row.fstab else lab.root / "data"),
        "disk": str(disk),
        "own": str(lab.root / "own.json"),
        "socket": str(lab.socket),
    }
    if row.own:
        (lab.root / "own.json").write_text(row.own.format(**places))
    for name in NAMES:
        content = getattr(row, name)
        if content or (name == "dockerd" and content is not None):
            filled = re.sub(r"\{(\w+)\}", lambda found: places[found[1]], content)
            (router.root / "etc/config" / name).write_bytes(filled.encode())
    router.script("etc/init.d/dockerd", "#!/bin/ash\n")
    if row.fstab:
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(disk)], check=True)


def first_boot(lab: DaemonLab, router: Router) -> None:
    """uci-defaults, and what it made as the agent's configuration; only the place of our daemon.json is the lab's."""
    assert router.run("/etc/uci-defaults/60-ucidockd").returncode == 0
    for path in (router.root / "etc/config").iterdir():
        shutil.copy(path, lab.root / "config" / path.name)
    dockerd = lab.root / "config" / "dockerd"
    if dockerd.exists():
        ours = dockerd.read_bytes().replace(b"/etc/ucidockd/daemon.json", str(lab.daemon_json).encode())
        dockerd.write_bytes(ours)
    (lab.root / "config" / "containers").write_text(lab.agent_section("procd"))


def count(lab: DaemonLab, package: str, kind: str, option: str, value: str) -> int:
    content = (lab.root / "config" / package).read_text()
    return sum(s.type == kind and text(s, option) == value for s in parse(content, package=package).sections)


@pytest.mark.variants(6)
@pytest.mark.parametrize("row", POSTED.values(), ids=POSTED)
def test_first_boot_ends_with_a_running_dockerd(
    lab: DaemonLab, script: StockScript, router: Router, row: Posted, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = [replace(r, default=f"{lab.root}/data") if r.uci == "data_root" else r for r in plan_daemon.TABLE]
    monkeypatch.setattr(plan_daemon, "TABLE", tuple(here))  # not this machine's /opt/docker
    left_out = row.left_out if version_of(str(lab.program)) < row.known_from else ()
    put(lab, router, row)
    first_boot(lab, router)
    assert count(lab, "firewall", "zone", "name", "docker") <= 1
    assert count(lab, "network", "device", "name", "docker0") <= 1
    lab.apply()  # what only a start of dockerd shows to be wrong is left out by the next pass
    assert lab.apply() is not row.stand_in, lab.conditions()
    assert lab.probe.answers()
    shown = lab.conditions()
    assert shown["Running"] == (True, "Running")
    managed = "DaemonUnmanaged" not in shown
    assert managed is not row.unmanaged
    if managed:
        assert shown["Synced"] == ((False, "LeftOut") if left_out else (True, "Applied")), lab.message(
            "Synced"
        )
    for option in left_out:
        assert option in lab.message("Synced")
    for key, value in row.rendered:
        assert lab.document()[key] == value
    assert (shown.get("InsecureAPI", (False, ""))[0]) is row.insecure
    lab.settle()
    assert lab.probe.answers(), "still"
    put_rules_in_force(lab)
    assert in_force(lab.network) == [f"{device}>docker0" for device in row.blocked]
    assert reaches_outside(lab) is not row.offline


def put_rules_in_force(lab: DaemonLab) -> None:
    """The firewall's part of a pass, in the network of that dockerd."""
    filters = {family: filter_in(lab.network, family, lab.root) for family in "46"}
    tools = RouterTools(
        netifd=FakeNetifd(),
        ipv4=filters["4"],
        ipv6=filters["6"],
        has_device=lambda name: name == "eth1",
        settings_of=lambda desired: replace(declared_settings(desired), managed=lab.stage.manages(desired)),
    )
    desired = load(lab.options).desired
    assert desired is not None
    router = RouterIntegration(open_store(lab.options), lab.board, tools)
    try:
        router.reconcile(desired)
    finally:
        router.stop()


def reaches_outside(lab: DaemonLab) -> bool:
    """Whether a container on docker0 gets an answer from another machine, which knows the router's address only."""
    outside = OwnNetwork(f"{lab.network.name}o")
    try:
        lab.network.run(
            "ip", "link", "add", "eth1", "type", "veth", "peer", "name", "eth0", "netns", outside.name
        )
        for network, device, address in ((lab.network, "eth1", "1"), (outside, "eth0", "2")):
            network.run("ip", "addr", "add", f"203.0.113.{address}/24", "dev", device)
            network.run("ip", "link", "set", device, "up")
        lab.network.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        server = subprocess.Popen(outside.words("busybox", "httpd", "-f", "-p", "80", "-h", "/run/netns"))
        lab.run_container("probe")
        with contextlib.closing(lab.client()) as client:
            # Debian 13's busybox has no nc, Debian 12's wget crashes
            ask = (
                "nc -w 5 203.0.113.2 80 </dev/null || case $(wget -T 5 -O - http://203.0.113.2/none 2>&1) in "
            )
            ask += "*404*) ;; *) exit 1 ;; esac"
            done = client.containers.get("probe").exec_run(["sh", "-c", ask])
        server.kill()
        server.wait(5)
        return bool(done.exit_code == 0)
    finally:
        outside.close()


def test_the_table_of_the_docs_has_each_of_them() -> None:
    table = Path(PROJECT, "docs/posted-configurations.md").read_text()
    rows = re.findall(r"^\| ([^|]+?) \|", table, re.MULTILINE)[1:]
    assert rows == list(POSTED)
    assert len(rows) >= 25
