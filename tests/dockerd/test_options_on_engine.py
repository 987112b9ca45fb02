# SPDX-License-Identifier: GPL-2.0-or-later
"""Every option of the table, by what a real dockerd says afterwards: its info, a reload event, a socket, a container."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.dockerd.unmanaged import version_of
from agent.model.dockerd.settings import Effect
from agent.model.dockerd.table import APART, TABLE
from tests.support.daemon_lab import DaemonLab, mode_of

RELOADS: dict[str, tuple[str, str, str]] = {
    # option: UCI lines, the reload event's attribute with them and without
    "debug": ("option debug '1'", "true", "false"),
    "labels": ("list labels 'site=attic'\nlist labels 'x=y'", '["site=attic","x=y"]', "[]"),
    "live_restore": ("option live_restore '1'", "true", "false"),
    "shutdown_timeout": ("option shutdown_timeout '20'", "20", "15"),
    "max_concurrent_downloads": ("option max_concurrent_downloads '2'", "2", "3"),
    "max_concurrent_uploads": ("option max_concurrent_uploads '4'", "4", "5"),
    "registry_mirrors": ("list registry_mirrors 'https://m.example.org'", '["https://m.example.org/"]', "[]"),
    "insecure_registries": ("list insecure_registries 'r.lan:5000'", '["r.lan:5000"]', "[]"),
    "default_shm_size": ("option default_shm_size '128m'", "134217728", "67108864"),
}

RESTARTS = """
option log_level 'info'
option log_driver 'local'
list log_opts 'max-size=3m'
option iptables '0'
option ip6tables '0'
option bip '10.216.3.1/24'
option fixed_cidr '10.216.3.128/25'
option ipv6 '1'
option fixed_cidr_v6 'fd00:216::/64'
option ip '127.0.0.1'
option storage_driver 'overlay2'
list dns '10.9.8.7'
list default_address_pools '10.217.0.0/16,26'
option userland_proxy '0'
option mtu '1410'
list default_ulimits 'nofile=211:322'
option ip_masq '0'
option icc '1'
list dns_opts 'ndots:3'
list dns_search 'attic.lan'
list exec_opts 'native.cgroupdriver=cgroupfs'
option default_cgroupns_mode 'host'
option no_new_privileges '1'
option host_gateway_ip '10.9.8.6'
option ip_forward '1'
option init '0'
option max_download_attempts '4'
option cgroup_parent 'ucidocktest'
"""
# what an engine of 29 alone knows, or what makes another engine of it: in test_new_options_on_engine
ELSEWHERE = {
    *("log_format", "firewall_backend", "ip_forward_no_drop", "allow_direct_routing", "bridge_accept_fwmark"),
    *("bip6", "storage_opts", "containerd_snapshotter", "features", "userns_remap", "seccomp_profile"),
}


@pytest.fixture
def started(any_lab: DaemonLab) -> DaemonLab:
    assert any_lab.apply("")
    return any_lab


def attributes_after(lab: DaemonLab, settings: str) -> dict[str, str]:
    """What the reload event of that change says; nothing may have been restarted."""
    before = lab.process
    with lab.probe.reload_events(10) as events:
        assert lab.apply(settings)
        attributes = events.wait(10)
    assert attributes is not None
    assert lab.process == before
    return dict(attributes)


def test_reloadable_options_are_in_force_after_sighup_and_gone_when_they_are_removed(
    started: DaemonLab,
) -> None:
    keys = {row.uci: row.key for row in TABLE if row.effect is Effect.RELOAD}
    assert set(RELOADS) == set(keys)
    attributes = attributes_after(started, "\n".join(lines for lines, _, _ in RELOADS.values()))
    assert {uci: in_order(attributes[keys[uci]]) for uci in RELOADS} == {
        uci: on for uci, (_, on, _) in RELOADS.items()
    }
    info = started.info()
    assert (info["Debug"], info["LiveRestoreEnabled"]) == (True, True)
    assert sorted(info["Labels"]) == ["site=attic", "x=y"], "the engine keeps labels in no order"
    assert info["RegistryConfig"]["Mirrors"] == ["https://m.example.org/"]
    attributes = attributes_after(started, "")
    assert {uci: attributes[keys[uci]] for uci in RELOADS} == {
        uci: off for uci, (_, _, off) in RELOADS.items()
    }


def in_order(said: str) -> str:
    """A list of the event with its items sorted, as the engine says labels in any order."""
    return json.dumps(sorted(json.loads(said)), separators=(",", ":")) if said.startswith("[") else said


def test_options_that_take_a_restart_are_in_force_after_it(started: DaemonLab) -> None:
    lab = started
    lab.run_container("before")
    moves = lab.probe.store() != "overlay2"  # engines from 29 on keep images with containerd
    assert lab.apply(RESTARTS) != moves
    if moves:
        assert lab.conditions()["EngineChanged"] == (True, "Store")
        lab.stage.accept_engine()
        assert lab.apply()
    assert lab.conditions()["Synced"] == (True, "Applied")
    lab.run_container("web", ports={"80/tcp": 8099})
    with contextlib.closing(lab.client()) as client:
        seen = Seen(lab, client.api.inspect_container("web"), client.networks)
    rows = {row.uci for row in TABLE if row.effect is Effect.RESTART and row.section == "globals"}
    assert set(CHECKS) == rows - ELSEWHERE
    wrong = {uci: check(seen) for uci, check in CHECKS.items() if check(seen) is not True}
    assert wrong == {}


class Seen:
    """What the engine shows after the restart."""

    def __init__(self, lab: DaemonLab, container: dict[str, Any], networks: Any) -> None:
        self.lab = lab
        self.info = lab.info()
        self.host: dict[str, Any] = container["HostConfig"]
        self.settings: dict[str, Any] = container["NetworkSettings"]
        self.bridge: dict[str, Any] = networks.list(names=["bridge"])[0].attrs
        pool = networks.create("pool")
        self.pool: str = pool.attrs["IPAM"]["Config"][0]["Subnet"] if pool.attrs["IPAM"]["Config"] else ""
        pool.reload()
        self.pool = pool.attrs["IPAM"]["Config"][0]["Subnet"]

    def inside(self, *command: str) -> str:
        with contextlib.closing(self.lab.client()) as client:
            return str(client.containers.get("web").exec_run(list(command)).output.decode())

    def out(self, *command: str) -> str:
        """What a command in the lab's network prints."""
        return self.lab.network.run(*command, check=False).stdout


def command_lines() -> Iterator[bytes]:
    """Those of all processes, as the kernel has them."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            yield (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""


CHECKS: dict[str, Callable[[Seen], Any]] = {
    "data_root": lambda s: s.info["DockerRootDir"] == f"{s.lab.root}/data",
    "log_level": lambda s: "level=info" in (s.lab.root / "run" / "dockerd.log").read_text(),
    "log_driver": lambda s: s.info["LoggingDriver"] == "local",
    "log_opts": lambda s: s.host["LogConfig"]["Config"] == {"max-size": "3m"},
    "iptables": lambda s: "8099" not in s.out("iptables", "-t", "nat", "-S"),
    "ip6tables": lambda s: "DOCKER" not in s.out("ip6tables", "-S"),
    "bip": lambda s: "10.216.3.1/24" in s.out("ip", "addr", "show", "docker0"),
    "fixed_cidr": lambda s: int(s.settings["Networks"]["bridge"]["IPAddress"].rpartition(".")[2]) >= 128,
    "fixed_cidr_v6": lambda s: s.settings["Networks"]["bridge"]["GlobalIPv6Address"].startswith("fd00:216:"),
    "ipv6": lambda s: s.bridge["EnableIPv6"] is True,
    "ip": lambda s: s.settings["Ports"]["80/tcp"][0]["HostIp"] == "127.0.0.1",
    "storage_driver": lambda s: s.info["Driver"] == "overlay2",
    "dns": lambda s: "10.9.8.7" in s.inside("cat", "/etc/resolv.conf"),
    "default_address_pools": lambda s: bool(re.fullmatch(r"10\.217\.\d+\.\d+/26", s.pool)),
    "userland_proxy": lambda s: not any(b"-host-port\x008099" in line for line in command_lines()),
    "mtu": lambda s: s.bridge["Options"]["com.docker.network.driver.mtu"] == "1410",
    "ip_masq": lambda s: s.bridge["Options"]["com.docker.network.bridge.enable_ip_masquerade"] == "false",
    "icc": lambda s: s.bridge["Options"]["com.docker.network.bridge.enable_icc"] == "true",
    "dns_opts": lambda s: "ndots:3" in s.inside("cat", "/etc/resolv.conf"),
    "dns_search": lambda s: "search attic.lan" in s.inside("cat", "/etc/resolv.conf"),
    "exec_opts": lambda s: s.info["CgroupDriver"] == "cgroupfs",
    "default_cgroupns_mode": lambda s: s.host["CgroupnsMode"] == "host",
    "no_new_privileges": lambda s: "NoNewPrivs:\t1" in s.inside("cat", "/proc/1/status"),
    "cgroup_parent": lambda s: "ucidocktest" in Path("/proc", str(s.lab.pid_of()), "cgroup").read_text(),
    # not to be seen from outside: dockerd took the file with them
    "host_gateway_ip": lambda s: s.lab.document()["host-gateway-ip"] == "10.9.8.6",
    "ip_forward": lambda s: s.lab.document()["ip-forward"] is True,
    "init": lambda s: s.lab.document()["init"] is False,
    "max_download_attempts": lambda s: s.lab.document()["max-download-attempts"] == 4,
    "default_ulimits": lambda s: (
        re.search(
            r"Max open files\s+211\s+322", s.lab.network.run("cat", f"/proc/{s.lab.pid_of()}/limits").stdout
        )
        is not None
    ),
}


@pytest.mark.long
def test_several_hosts_answer_each_on_its_own_and_go_away_again(started: DaemonLab) -> None:
    lab = started
    lab.network.add_address("192.168.77.1/24")
    lab.network.add_address("fd00:77::1/64")
    pid = lab.run_container()
    hosts = ("tcp://[::1]:2376", "tcp://192.168.77.1:2377", "tcp://[fd00:77::1]:2378")
    lines = "\n".join(f"list hosts '{host}'" for host in hosts)
    with addresses_of(lab):
        assert lab.apply(
            f"{lines}\nlist hosts 'unix://{lab.root}/other.sock'\noption allow_insecure_tcp '1'\n"
        )
    assert lab.conditions()["InsecureAPI"] == (True, "Allowed")
    assert [host for host in hosts if not answers(lab, host)] == []
    assert (lab.root / "other.sock").is_socket()
    assert lab.apply(f"{lines}\n")
    assert lab.conditions()["InsecureAPI"] == (True, "Refused")
    assert [host for host in hosts if answers(lab, host)] == [hosts[0]]
    assert lab.probe.answers()
    assert lab.pid_of() == pid


@contextlib.contextmanager
def addresses_of(lab: DaemonLab) -> Any:
    """The stage looks for free ports where the tests run; dockerd listens in the lab's network."""
    from agent.dockerd import target as daemon_target

    del lab
    original = daemon_target.unavailable_hosts
    daemon_target.unavailable_hosts = lambda hosts: {}
    try:
        yield
    finally:
        daemon_target.unavailable_hosts = original


def answers(lab: DaemonLab, host: str) -> bool:
    url = host.replace("tcp://", "http://") + "/_ping"
    code = (
        "import sys, urllib.request; sys.exit(urllib.request.urlopen(sys.argv[1], timeout=5).status != 200)"
    )
    return lab.network.run(sys.executable, "-c", code, url, check=False).returncode == 0


def test_proxies_are_used_by_engines_that_know_them_and_left_out_for_others(started: DaemonLab) -> None:
    lab = started
    proxies = "config proxies 'proxies'\n"
    for name, value in (("http", "http://user:S3CRET@p.lan:1"), ("https", "http://p.lan:2")):
        proxies += f"\toption {name}_proxy '{value}'\n"
    assert lab.apply("", f"{proxies}\toption no_proxy 'localhost,.lan'\n")
    info = lab.info()
    if version_of(str(lab.program)) >= (23, 0):
        assert (info["HttpsProxy"], info["NoProxy"]) == ("http://p.lan:2", "localhost,.lan")
        assert info["HttpProxy"].endswith("@p.lan:1")
    else:
        assert "proxies" not in lab.document()
    assert "S3CRET" not in json.dumps(lab.board.snapshot())
    assert mode_of(lab.daemon_json) == 0o600


def test_options_apart_from_the_table_have_tests_of_their_own() -> None:
    assert {"hosts", "allow_insecure_tcp", "alt_config_file", "api_version", "ps_flags", "_luci_lan"} == APART
    assert {row.uci for row in TABLE if row.section == "proxies"} == {"http_proxy", "https_proxy", "no_proxy"}


class NobodyToAsk:
    """An engine's probe that fails the test when it is used."""

    def __getattr__(self, name: str) -> Callable[..., object]:
        def asked(*args: object, **named: object) -> object:
            raise AssertionError(f"the engine was asked: {name}")

        return asked


def test_an_unchanged_commit_asks_the_engine_nothing_and_writes_nothing(
    started: DaemonLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = started
    from agent.files.config import load

    desired = load(lab.options).desired
    assert desired is not None
    lab.stage.reconcile(desired, busy=False)
    assert lab.stage._change is not None
    monkeypatch.setattr(lab.stage._change, "probe", NobodyToAsk())
    written = lab.daemon_json.stat().st_mtime_ns
    for _ in range(3):
        assert lab.stage.reconcile(desired, busy=False)
    assert lab.daemon_json.stat().st_mtime_ns == written
    assert json.loads(lab.daemon_json.read_text())["debug"] is False
