# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent as a process beside a real dockerd: rules and bridge that somebody takes away are soon back."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from agent.router.nftables import KernelEvents
from tests.support.daemon_lab import DaemonLab, wait_for
from tests.support.dockerd import is_root
from tests.support.iptables import in_force
from tests.support.netns import OwnNetwork

pytestmark = pytest.mark.skipif(not is_root(), reason="a dockerd needs root")

_numbers = itertools.count()
BACK_S = 2.0
BLOCKING = "config firewall 'firewall'\n\tlist blocked_interfaces 'lo'\n"
RULES = ["lo>docker0"]


@pytest.fixture(scope="module")
def lab() -> Iterator[DaemonLab]:
    made = DaemonLab(OwnNetwork(f"ucidg{os.getpid()}x{next(_numbers)}"))
    made.before = [f"iptables -S DOCKER-USER >{made.root}/at-start"]
    made.write_wrapper()
    yield made
    made.close()


@pytest.fixture(scope="module")
def agent(lab: DaemonLab) -> Iterator[subprocess.Popen[bytes]]:
    """Runs in the network namespace of its dockerd, as on a router."""
    options = lab.options
    lab.write("", BLOCKING)
    words = [f"--config-dir={options.config_dir}", f"--override-dir={options.override_dir}"]
    words += [f"--state-dir={options.state_dir}", f"--socket={options.socket}"]
    words += [f"--docker-host={options.docker_host}"]
    command = lab.network.words(sys.executable, "-m", "agent", "run", *words)
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    wait_for(lab.probe.answers, 40)
    yield process
    process.send_signal(signal.SIGTERM)
    process.wait(20)


def seconds_until(check: Callable[[], bool]) -> float:
    begun = time.monotonic()
    wait_for(check, 10)
    return time.monotonic() - begun


def is_guarded(lab: DaemonLab) -> bool:
    """Whether our rule is there, and asked first."""
    forward = lab.network.run("iptables", "-S", "FORWARD").stdout.splitlines()
    return in_force(lab.network) == RULES and forward[1:2] == ["-A FORWARD -j DOCKER-USER"]


@pytest.mark.parametrize("chain", ["DOCKER-USER", "FORWARD"])
def test_rules_are_back_within_two_seconds_of_a_word_of_the_init_script(
    lab: DaemonLab, agent: subprocess.Popen[bytes], chain: str
) -> None:
    wait_for(lambda: is_guarded(lab), 10)
    lab.network.run("iptables", "-F", chain)
    agent.send_signal(signal.SIGHUP)
    assert seconds_until(lambda: is_guarded(lab)) < BACK_S


def test_rules_are_there_before_dockerd_starts_and_after_it(
    lab: DaemonLab, agent: subprocess.Popen[bytes]
) -> None:
    assert agent.poll() is None
    before = lab.process
    (lab.root / "at-start").unlink()
    lab.network.run("iptables", "-F", "DOCKER-USER")
    lab.kill()
    wait_for(lambda: lab.probe.answers() and lab.process != before, 30)
    assert seconds_until(lambda: is_guarded(lab)) < BACK_S
    assert "ucidockd:" in (lab.root / "at-start").read_text()


def test_rules_that_are_unset_go(lab: DaemonLab, agent: subprocess.Popen[bytes]) -> None:
    for rest, rules in (("", []), (BLOCKING, RULES)):
        lab.write("", rest)
        agent.send_signal(signal.SIGHUP)
        wait_for(lambda rules=rules: in_force(lab.network) == rules, 10)


def test_a_bridge_that_a_network_restart_took_away_comes_back_and_its_containers_run(
    lab: DaemonLab, agent: subprocess.Popen[bytes]
) -> None:
    assert agent.poll() is None
    lab.run_container("kept", restart_policy={"Name": "always"})
    before = lab.process
    lab.network.run("ip", "link", "del", "docker0")
    wait_for(lambda: "docker0" in lab.network.run("ip", "-o", "link").stdout, 20)
    wait_for(lambda: lab.probe.answers() and lab.pid_of("kept") != 0, 20)
    assert lab.process != before


def test_rules_are_back_within_two_seconds_though_nobody_says_that_they_are_gone(
    lab: DaemonLab, agent: subprocess.Popen[bytes]
) -> None:
    if "nf_tables" not in lab.network.run("iptables", "--version").stdout or shutil.which("nft") is None:
        pytest.skip("iptables-legacy tells nobody of its changes")
    assert agent.poll() is None
    wait_for(lambda: is_guarded(lab), 10)
    lab.network.run("nft", "flush", "ruleset")
    assert seconds_until(lambda: in_force(lab.network) == RULES) < BACK_S


def test_events_of_the_kernel_are_told_once_they_pause() -> None:
    told = threading.Semaphore(0)
    events = KernelEvents(told.release)
    events.start()
    name = f"ucidv{os.getpid() % 10000}"
    try:
        for command in (("add", name, "type", "veth", "peer", "name", f"{name}p"), ("del", name)):
            subprocess.run(["ip", "link", *command], check=True)
        assert told.acquire(timeout=5)
    finally:
        events.stop()
    assert not events._thread.is_alive()
