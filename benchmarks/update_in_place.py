# SPDX-License-Identifier: GPL-2.0-or-later
"""A changed memory limit or restart policy: from noticing the commit (after coalescing) to the completed update.

Peer: `docker-compose up -d` after the same change, which recreates the container. Ten containers on both sides.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.bare import Bare
from benchmarks.compose import Project
from benchmarks.lab import Lab, must_be_fine, name_of, services
from benchmarks.result import Result, interleave

COUNT = 10
ROUNDS = 10
LIMIT_MS = 50.0
_CHANGES = (
    ({"memory": "32m"}, {"mem_limit": "32m"}),
    ({"memory": "32m", "restart": "always"}, {"mem_limit": "32m", "restart": "always"}),
    ({"memory": "48m", "restart": "always"}, {"mem_limit": "48m", "restart": "always"}),
    ({"memory": "48m", "restart": "no"}, {"mem_limit": "48m", "restart": "no"}),
)


def run(lab: Lab) -> Iterator[Result]:
    """update-in-place."""
    lab.empty()
    fleet = lab.fresh()
    fleet.commit(COUNT, memory="40m")
    fleet.apply()
    reconciler = fleet.reconciler()
    project = Project(lab.folder, lab.engine.host, "update")
    project.write(services(COUNT, mem_limit="40m"))
    project.up()
    connection = Bare(str(lab.engine.socket))
    process = _process(connection, name_of(0))
    our_changes = itertools.cycle(ours for ours, _ in _CHANGES)
    their_changes = itertools.cycle(theirs for _, theirs in _CHANGES)

    def ours() -> float:
        options = next(our_changes)
        fleet.commit(COUNT, **options)
        begun = time.perf_counter()
        reconciler.read_config()
        plan, outcomes = reconciler.run_pass(deep=frozenset())
        taken = time.perf_counter() - begun
        must_be_fine([outcome.error for outcome in outcomes])
        if [operation.verb for operation in plan.operations] != ["update"]:
            raise RuntimeError(f"not an update in place: {plan}")
        _check(connection, options)
        return taken * 1000

    def theirs() -> float:
        project.write(services(COUNT, **next(their_changes)))
        return project.up() * 1000

    mine, peer = interleave(ours, theirs, rounds=ROUNDS)
    same = _process(connection, name_of(0)) == process
    lab.empty()
    yield Result(
        name="update-in-place",
        ours=mine,
        peer=peer,
        unit="ms",
        goal=f"under {LIMIT_MS:.0f} ms, the process not restarted",
        met=mine < LIMIT_MS and same,
        note=f"the process was {'the same' if same else 'RESTARTED'}; docker-compose {project.version()}",
    )


def _process(connection: Bare, name: str) -> tuple[str, int, str]:
    seen = connection.call("GET", f"/containers/{name}/json")
    return seen["Id"], seen["State"]["Pid"], seen["State"]["StartedAt"]


def _check(connection: Bare, options: dict[str, Any]) -> None:
    host = connection.call("GET", f"/containers/{name_of(0)}/json")["HostConfig"]
    wanted = int(options["memory"].removesuffix("m")) << 20, options.get("restart", "no")
    found = host["Memory"], host["RestartPolicy"]["Name"] or "no"
    if found != wanted:
        raise RuntimeError(f"the engine has {found}, committed was {wanted}")
