# SPDX-License-Identifier: GPL-2.0-or-later
"""Engines of several versions: one takes another's place under the running agent, and what a killed one left is told in
the words of each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import docker
import pytest

from tests.support.agent_process import Agent, wait_for
from tests.support.box import Box
from tests.support.debian import CannotFetchError
from tests.support.dockerd import PrivateDockerd
from tests.support.engines import VERSIONS, programs

INSTALLED = "installed"
STOPPED = """
config container 'web'
	option image 'IMAGE'
	option command 'sleep 1000'
	option stop_timeout '0'
	option gate '0.1'
	option memory '64m'
	option restart 'always'
	list network 'lan'
	list volume 'data:/data'
	option state 'stopped'

config container 'worker'
	option image 'IMAGE'
	option command 'sleep 1000'
	option stop_timeout '0'
	option gate '0.1'
	option state 'stopped'

config network 'lan'

config volume 'data'
"""
RUNNING = STOPPED.replace("\toption state 'stopped'\n", "")


def use(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next dockerd that is started is of that version."""
    own = [part for part in os.environ["PATH"].split(":") if "/engines/" not in part]
    try:
        others = [] if version == INSTALLED else [programs(version)]
    except CannotFetchError as exc:
        pytest.skip(str(exc))
    monkeypatch.setenv("PATH", ":".join([*others, *own]))


@pytest.fixture
def lone() -> Iterator[PrivateDockerd]:
    """An engine that does not run yet."""
    dockerd = PrivateDockerd(subnet=3)
    yield dockerd
    dockerd.close()


@contextmanager
def a_box(lone: PrivateDockerd, folder: Path) -> Iterator[Box]:
    lone.start()
    lone.import_busybox()
    client = docker.DockerClient(base_url=lone.host, version="1.41")
    box = Box.make(folder, lone, client)
    yield box
    if not lone.is_running():
        lone.start()
    box.clean()
    client.close()


NEWER = [pytest.param(version, marks=pytest.mark.long) for version in VERSIONS]


@pytest.mark.parametrize("version", [INSTALLED, *NEWER])
def test_a_container_whose_start_an_engine_left_half_done_is_made_anew(
    lone: PrivateDockerd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """containerd's directory of the container is what stays when a killed engine was in the middle of a start."""
    use(version, monkeypatch)
    with a_box(lone, tmp_path) as box:
        assert box.errors(STOPPED) == []
        before = {name: box.get(name).id for name in box.names()}
        tasks = lone.root / "exec/containerd/daemon/io.containerd.runtime.v2.task/moby"
        (tasks / before["worker"]).mkdir(parents=True)
        assert box.errors(RUNNING) == []
        assert [box.get(name).status for name in ("web", "worker")] == ["running", "running"]
        assert box.get("web").id == before["web"]
        assert box.get("worker").id != before["worker"]
        assert box.names() == ["web", "worker"]


def settled(agent: Agent) -> bool:
    """The whole configuration is reached, and the engine answers."""
    facts = agent.status().get("agent", {})
    reached = facts.get("generation") and facts["generation"] == facts["desired_generation"]
    return bool(reached) and facts["engine"].get("reachable") is True


def has_memory(box: Box, mib: int) -> bool:
    return bool(box.get("web").attrs["HostConfig"]["Memory"] >> 20 == mib)


@pytest.mark.long
def test_an_engine_of_another_version_recreates_nothing(
    lone: PrivateDockerd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to 28 and 29, whose oldest API is not that of 20.10, and down to 26. On data that an older one left, 29 keeps
    that one's image store."""
    use(INSTALLED, monkeypatch)
    with a_box(lone, tmp_path) as box:
        agent = Agent(box)
        agent.commit(RUNNING)
        agent.start()
        try:
            wait_for(lambda: settled(agent))
            before = {name: box.get(name).id for name in ("web", "worker")}
            for number, version in enumerate(("28", "29", "26")):
                lone.stop()
                wait_for(lambda: not settled(agent))
                use(version, monkeypatch)
                lone.start()
                agent.commit(RUNNING.replace("64m", f"{70 + number}m"))
                wait_for(partial(has_memory, box, 70 + number), 30)
                wait_for(lambda: settled(agent), 30)
                assert {name: box.get(name).id for name in ("web", "worker")} == before
                assert [box.get(name).status for name in before] == ["running", "running"]
        finally:
            agent.close()
