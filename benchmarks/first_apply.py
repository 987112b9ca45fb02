# SPDX-License-Identifier: GPL-2.0-or-later
"""The first apply of N containers: configuration read, planned, created, started.

Peers: the bare create and start calls with as many workers as the agent has (http.client, the bodies made before), and
`docker-compose up -d`. Network mode is none for all, since setting up iptables would hide any difference.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from agent.model.resources import AgentSettings
from benchmarks.bare import Bare, create_and_start
from benchmarks.compose import Project
from benchmarks.lab import Fleet, Lab, name_of, services
from benchmarks.result import Result, interleave
from tests.support.dockerd import BUSYBOX

ROUNDS = {10: 5, 50: 3, 100: 3}


def run(lab: Lab, count: int) -> Iterator[Result]:
    """first-apply-N and first-apply-N-compose."""
    project = Project(lab.folder, lab.engine.host, f"first{count}")
    project.write(services(count))

    def ours() -> float:
        lab.empty()
        fleet = lab.fresh()
        fleet.commit(count)
        begun = time.perf_counter()
        fleet.apply()
        return _checked(lab, count, time.perf_counter() - begun)

    def bare() -> float:
        lab.empty()
        bodies = _bodies(count)
        begun = time.perf_counter()
        create_and_start(str(lab.engine.socket), bodies, workers=AgentSettings().workers)
        return _checked(lab, count, time.perf_counter() - begun)

    def theirs() -> float:
        lab.empty()
        return _checked(lab, count, project.up())

    _warm_up(lab)
    mine, floor, peer = interleave(ours, bare, theirs, rounds=ROUNDS[count])
    lab.empty()
    yield Result(
        name=f"first-apply-{count}",
        ours=mine,
        peer=floor,
        unit="s",
        goal="at most 1.15x the bare create and start calls",
        met=mine <= 1.15 * floor,
    )
    yield Result(
        name=f"first-apply-{count}-compose",
        ours=mine,
        peer=peer,
        unit="s",
        goal="not slower than `docker-compose up -d`",
        met=mine <= peer,
        note=f"docker-compose {project.version()}",
    )


def _warm_up(lab: Lab) -> None:
    """The schema library is in memory in an agent that runs, and the engine has started something before."""
    lab.empty()
    fleet: Fleet = lab.fresh()
    fleet.commit(1)
    fleet.apply()


def _bodies(count: int) -> dict[str, Any]:
    body = {
        "Image": BUSYBOX,
        "Cmd": ["sleep", "100000"],
        "Env": ["A=b"],
        "StopTimeout": 0,
        "HostConfig": {"NetworkMode": "none"},
    }
    return {name_of(number): body for number in range(count)}


def _checked(lab: Lab, count: int, taken: float) -> float:
    connection = Bare(str(lab.engine.socket))
    running = len(connection.call("GET", "/containers/json"))
    connection.close()
    if running != count:
        raise RuntimeError(f"{running} containers run, {count} expected")
    return taken
