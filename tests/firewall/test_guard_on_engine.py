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

from agent.clients.kernel_events import KernelEvents
from tests.support.daemon_lab import DaemonLab, wait_for
from tests.support.dockerd import is_root
from tests.support.iptables import in_force
from tests.support.netns import OwnNetwork

pytestmark = pytest.mark.skipif(not is_root(), reason="a dockerd needs root")

_numbers = itertools.count()
BACK_S = 2.0
BLOCKING = "config firewall 'firewall'\n\tlist blocked_interfaces 'lo'\n"
RULES = ["lo>docker0"]


@pytest.fixture
def lab() -> Iterator[DaemonLab]:
    made = DaemonLab(OwnNetwork(f"ucidg{os.getpid()}x{next(_numbers)}"))
    yield made
    made.close()


@pytest.fixture
def agent(lab: DaemonLab) -> Iterator[subprocess.Popen[bytes]]:
    """Runs in the network namespace of its dockerd, as on a router."""
    options = lab.options
    lab.write("", BLOCKING)
    words = [f"--config-dir={options.config_dir}", f"--override-dir={options.override_dir}"]
    words += [f"--state-dir={options.state_dir}", f"--socket={options.socket}"]
    words += [f"--docker-host={options.docker_host}"]
    command = lab.network.words(sys.executable, "-m", "agent", "run", *words)
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    yield process
    process.send_signal(signal.SIGTERM)
    process.wait(20)


def seconds_until(check: Callable[[], bool]) -> float:
    begun = time.monotonic()
    wait_for(check, 10)
    return time.monotonic() - begun


def test_rules_are_there_before_dockerd_and_back_within_two_seconds(
    lab: DaemonLab, agent: subprocess.Popen[bytes]
) -> None:
    wait_for(lab.probe.answers, 40)
    assert in_force(lab.network) == RULES

    # the router's firewall was restarted; the init script says so by SIGHUP
    for harm in (("-F", "DOCKER-USER"), ("-F", "FORWARD")):
        lab.network.run("iptables", *harm)
        agent.send_signal(signal.SIGHUP)
        assert seconds_until(lambda: is_guarded(lab)) < BACK_S

    # dockerd starts anew, and puts its own chains in order
    lab.network.run("iptables", "-F", "DOCKER-USER")
    before = lab.process
    lab.kill()
    wait_for(lambda: lab.probe.answers() and lab.process != before, 30)
    assert seconds_until(lambda: is_guarded(lab)) < BACK_S

    # unset: they go
    lab.write("")
    agent.send_signal(signal.SIGHUP)
    wait_for(lambda: in_force(lab.network) == [], 10)


def is_guarded(lab: DaemonLab) -> bool:
    """Whether our rule is there, and asked first."""
    forward = lab.network.run("iptables", "-S", "FORWARD").stdout.splitlines()
    return in_force(lab.network) == RULES and forward[1:2] == ["-A FORWARD -j DOCKER-USER"]


def test_the_kernel_tells_of_a_lost_bridge_and_of_flushed_rules(
    lab: DaemonLab, agent: subprocess.Popen[bytes]
) -> None:
    wait_for(lambda: lab.probe.answers() and is_guarded(lab), 40)
    assert agent.poll() is None
    before = lab.process
    lab.network.run("ip", "link", "del", "docker0")
    wait_for(lambda: "docker0" in lab.network.run("ip", "-o", "link").stdout, 20)
    wait_for(lab.probe.answers, 20)
    assert lab.process != before
    if "nf_tables" not in lab.network.run("iptables", "--version").stdout or shutil.which("nft") is None:
        return  # iptables-legacy tells nobody of its changes
    wait_for(lambda: is_guarded(lab), 5)
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
