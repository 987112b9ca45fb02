# SPDX-License-Identifier: GPL-2.0-or-later
"""`GET /containers/json` with 100 containers: through the agent's API, and directly from dockerd.

Both on a keep-alive connection of http.client, with the body read and decoded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.bare import Bare
from benchmarks.lab import Lab
from benchmarks.processes import cpu_s
from benchmarks.result import Result, interleave

COUNT = 100
ROUNDS = 300
LIMIT_MS = 3.0


def run(lab: Lab) -> Iterator[Result]:
    """proxy-latency."""
    fleet = lab.fleet(COUNT)
    with fleet.agent() as process:
        ours = _call(Path(str(fleet.options().socket)), "/docker")
        direct = _call(lab.engine.socket, "")
        ours(), direct()
        used = cpu_s(process.pid)
        mine, floor = interleave(ours, direct, rounds=ROUNDS)
        used = cpu_s(process.pid) - used
    yield Result(
        name="proxy-latency",
        ours=mine,
        peer=floor,
        unit="ms",
        goal=f"adds less than {LIMIT_MS:g} ms",
        met=mine - floor < LIMIT_MS,
        note=f"adds {mine - floor:.2f} ms; {used / ROUNDS * 1000:.2f} ms of CPU time a request",
    )


def _call(socket: Path, prefix: str) -> Callable[[], float]:
    """A measure of one socket, in milliseconds."""
    connection = Bare(str(socket), prefix=prefix)

    def measure() -> float:
        begun = time.perf_counter()
        found = connection.call("GET", "/containers/json")
        taken = time.perf_counter() - begun
        if len(found) != COUNT:
            raise RuntimeError(f"{len(found)} containers were listed, {COUNT} expected")
        return taken * 1000

    return measure
