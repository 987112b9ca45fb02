# SPDX-License-Identifier: GPL-2.0-or-later
"""The first apply of N containers: read the configuration, plan, create, start.

Peers: the bare create and start calls with as many workers as the agent has (http.client, with prepared bodies), and
`docker-compose up -d`. All use network mode none, because setting up iptables would hide any difference.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

from agent.model.resources import AgentSettings
from benchmarks.bare import Bare, create_and_start
from benchmarks.compose import Project
from benchmarks.lab import Fleet, Lab, must_be_fine, name_of, services
from benchmarks.proxy import Recorder
from benchmarks.result import Result, interleave
from tests.support.dockerd import BUSYBOX

ROUNDS = {10: 5, 50: 3, 100: 5}


def run(lab: Lab, count: int) -> Iterator[Result]:
    """first-apply-N and first-apply-N-compose."""
    project = Project(lab.folder, lab.engine.host, f"first{count}")
    project.write(services(count))
    cpu: list[float] = []

    def ours() -> float:
        lab.empty()
        fleet = lab.fresh()
        fleet.commit(count)
        begun, used = time.perf_counter(), time.process_time()
        fleet.apply()
        taken = time.perf_counter() - begun
        cpu.append(time.process_time() - used)
        return _checked(lab, count, taken)

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
    yield Result(
        name=f"first-apply-{count}",
        ours=mine,
        peer=floor,
        unit="s",
        goal="no slower than the bare create and start calls",
        met=mine <= floor,
        note=_effort(lab, count, statistics.median(cpu)),
    )
    yield Result(
        name=f"first-apply-{count}-compose",
        ours=mine,
        peer=peer,
        unit="s",
        goal="at most 0.95x `docker-compose up -d`",
        met=mine <= 0.95 * peer,
        note=f"docker-compose {project.version()}",
    )
    lab.empty()


def _effort(lab: Lab, count: int, cpu_s: float) -> str:
    """The agent's own effort for an apply, because wall time says little on a busy machine."""
    lab.empty()
    fleet = lab.fresh()
    fleet.commit(count)
    syncs: list[int] = []
    real = os.fsync

    def counted(descriptor: int) -> None:
        syncs.append(descriptor)
        real(descriptor)

    with (
        Recorder(fleet.folder / "proxy.sock", lab.engine.socket) as recorder,
        mock.patch.object(os, "fsync", counted),
    ):
        must_be_fine([outcome.error for outcome in fleet.reconciler(recorder.host).run_pass(deep=None)[1]])
    calls = len(recorder.calls) / count
    return f"a container: {cpu_s / count * 1000:.1f} ms CPU, {calls:.2f} engine calls, {len(syncs) / count:.2f} fsyncs"


def _warm_up(lab: Lab) -> None:
    """Loads what a running agent has in memory (the schema library), and makes the engine start something first."""
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
