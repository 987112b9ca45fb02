# SPDX-License-Identifier: GPL-2.0-or-later
"""How soon the running agent sees what a container waits for, when no hotplug script tells it."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent_process import Agent, running, wait_for
from tests.support.box import Box
from tests.support.dockerd import is_root

pytestmark = pytest.mark.skipif(not is_root(), reason="an engine needs root")

WEB = """
config agent 'agent'
	option resync '{resync}'

config container 'web'
	option image 'IMAGE'
	option command 'sleep 1000'
	option stop_signal 'SIGKILL'
	option gate '0'
	{what}
"""


@pytest.fixture
def agent(box: Box) -> Iterator[Agent]:
    made = Agent(box)
    yield made
    made.close()


def waits(agent: Agent) -> bool:
    found = {item["key"]: item["conditions"] for item in agent.status().get("resources", ())}
    return any(c["type"] == "Waiting" and c["status"] for c in found.get("container:web", ()))


def test_a_mount_is_seen_at_once_long_before_the_next_resync(agent: Agent, box: Box, tmp_path: Path) -> None:
    target = tmp_path / "sda1"
    target.mkdir()
    agent.commit(WEB.format(resync="1h", what=f"list wait_for 'mount:{target}'"))
    agent.start()
    wait_for(lambda: waits(agent))
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", target], check=True)
    try:
        wait_for(lambda: running(box, "web"))
    finally:
        subprocess.run(["umount", target], check=True)
    wait_for(lambda: not running(box, "web"))


def test_a_device_of_which_nobody_tells_is_seen_at_the_next_resync(
    agent: Agent, box: Box, tmp_path: Path
) -> None:
    node = tmp_path / "ttyUSB0"
    agent.commit(WEB.format(resync="1", what=f"list device '{node}:/dev/ttyUSB0'"))
    agent.start()
    wait_for(lambda: waits(agent))
    os.mknod(node, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    wait_for(lambda: running(box, "web"))
    node.unlink()
    wait_for(lambda: not running(box, "web"))
