# SPDX-License-Identifier: GPL-2.0-or-later
"""The cost of measuring the load of 100 running containers: CPU time of a sample, memory of a whole day.

Peer: `docker stats --no-stream`, the cost of a sample without the agent: its own CPU time and dockerd's.
"""

from __future__ import annotations

import os
import subprocess
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import docker

from agent.observe.load import counters_of, files_of
from agent.status.metrics import SLOTS, STEP_S, Counters, LoadHistory
from benchmarks.lab import Lab, name_of
from benchmarks.result import Result

COUNT = 100
ROUNDS = 20
LIMIT_KIB = 6 * 1024
LIMIT_CPU = 1.0  # percent of a core
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def run(lab: Lab) -> Iterator[Result]:
    """load-history-cpu and load-history-memory."""
    fleet = lab.fleet(COUNT)
    client = docker.APIClient(base_url=fleet.engine.host)
    seen = {name: client.inspect_container(name) for name in map(name_of, range(COUNT))}
    files = {name: files_of(body["State"]["Pid"], body["Id"]) for name, body in seen.items()}
    began = time.process_time()
    for _ in range(ROUNDS):
        found = {name: counters_of(name, each) for name, each in files.items()}
    ours = (time.process_time() - began) / ROUNDS
    peer = _docker_stats(fleet.engine.host, int((fleet.engine.root / "dockerd.pid").read_text()))
    yield Result(
        name="load-history-cpu",
        ours=100 * ours / STEP_S,
        peer=100 * peer / STEP_S,
        unit="percent of a core at one look a minute",
        goal=f"under {LIMIT_CPU:g} % of a core",
        met=100 * ours / STEP_S < LIMIT_CPU,
        note=f"one look at {COUNT} containers: {1000 * ours:.1f} ms, docker stats {1000 * peer:.0f} ms",
    )
    mine = _memory(found) / 1024
    yield Result(
        name="load-history-memory",
        ours=mine,
        peer=LIMIT_KIB,
        unit="KiB",
        goal=f"under {LIMIT_KIB} KiB for a day of {COUNT} containers",
        met=mine < LIMIT_KIB,
        note="docker stats keeps nothing: the peer is the limit",
    )


def _memory(found: dict[str, Counters]) -> float:
    """The history of a whole day, in bytes."""
    tracemalloc.start()
    history = LoadHistory()
    for slot in (0, SLOTS - 1):
        history.add({name: replace(each, at=slot * STEP_S) for name, each in found.items()})
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size


def _docker_stats(host: str, dockerd: int) -> float:
    """CPU seconds of one `docker stats --no-stream`: its own and dockerd's."""
    before, children = _ticks(dockerd), os.times()
    subprocess.run(["docker", "--host", host, "stats", "--no-stream"], check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    own = after.children_user + after.children_system - children.children_user - children.children_system
    return own + (_ticks(dockerd) - before) * _TICK_S


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
