# SPDX-License-Identifier: GPL-2.0-or-later
"""A pass over 100 unchanged containers, as the running agent makes it on every resync.

Peers: the bare list call (http.client, the same filter, body read and decoded), and `docker-compose up -d` with
nothing to do on as many containers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

from agent.model.identity import LABEL_INSTANCE
from benchmarks.bare import Bare
from benchmarks.compose import Project
from benchmarks.lab import Fleet, Lab, services
from benchmarks.proxy import Recorder
from benchmarks.result import Result, interleave

COUNT = 100
ROUNDS = 40
COMPOSE_ROUNDS = 5


def run(lab: Lab) -> Iterator[Result]:
    """reconcile-noop, -calls, -compose."""
    fleet = lab.fleet(COUNT)
    reconciler = fleet.reconciler()
    connection = Bare(str(lab.engine.socket))
    filters = json.dumps({"label": [f"{LABEL_INSTANCE}={reconciler.records.instance}"]})

    def ours() -> float:
        begun = time.perf_counter()
        plan, _ = reconciler.run_pass(deep=frozenset())
        taken = time.perf_counter() - begun
        if plan.works:
            raise RuntimeError(f"the pass had something to do: {plan}")
        return taken * 1000

    def bare() -> float:
        begun = time.perf_counter()
        found = connection.call("GET", "/containers/json", all="1", filters=filters)
        taken = time.perf_counter() - begun
        if len(found) != COUNT:
            raise RuntimeError(f"{len(found)} containers were listed, {COUNT} expected")
        return taken * 1000

    ours(), bare()
    mine, floor = interleave(ours, bare, rounds=ROUNDS)
    yield Result(
        name="reconcile-noop",
        ours=mine,
        peer=floor,
        unit="ms",
        goal="at most 2x the bare list call",
        met=mine <= 2 * floor,
    )
    yield from _beside_compose(lab, fleet)


def _beside_compose(lab: Lab, fleet: Fleet) -> Iterator[Result]:
    project = Project(lab.folder, lab.engine.host, "noop")
    project.write(services(COUNT))
    project.up()
    reconciler = fleet.reconciler()
    reconciler.run_pass(deep=frozenset())

    def ours() -> float:
        begun = time.perf_counter()
        reconciler.run_pass(deep=frozenset())
        return (time.perf_counter() - begun) * 1000

    mine, theirs = interleave(ours, lambda: project.up() * 1000, rounds=COMPOSE_ROUNDS)
    yield Result(
        name="reconcile-noop-compose",
        ours=mine,
        peer=theirs,
        unit="ms",
        goal="at least 5x faster than `docker-compose up -d` with nothing to do",
        met=mine * 5 <= theirs,
        note=f"docker-compose {project.version()}",
    )
    yield _calls(lab, fleet, project)
    lab.empty()


def _calls(lab: Lab, fleet: Fleet, project: Project) -> Result:
    with Recorder(lab.folder / "noop.sock", lab.engine.socket) as recorder:
        reconciler = fleet.reconciler(recorder.host)
        reconciler.run_pass(deep=frozenset())
        begun = time.monotonic()
        reconciler.run_pass(deep=frozenset())
        mine = recorder.after(begun)
        begun = time.monotonic()
        project.up(recorder.host)
        theirs = recorder.after(begun)
    return Result(
        name="reconcile-noop-calls",
        ours=len(mine),
        peer=len(theirs),
        unit="calls",
        goal="one engine call",
        met=len(mine) == 1,
        note=", ".join(f"{call.method} {call.path.partition('?')[0]}" for call in mine),
    )
