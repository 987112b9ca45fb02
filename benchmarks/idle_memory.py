# SPDX-License-Identifier: GPL-2.0-or-later
"""What the idle agent with 100 containers keeps in memory. Peer: an interpreter with its third-party imports and no more."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.lab import Lab
from benchmarks.processes import rollup
from benchmarks.result import Result

COUNT = 100
LIMIT_KIB = 48 * 1024
_PEER = "import docker, jsonschema, watchdog; print(flush=True); input()"


def run(lab: Lab) -> Iterator[Result]:
    """idle-memory (resident set) and idle-memory-pss (shared pages divided among those that share them)."""
    fleet = lab.fleet(COUNT)
    with fleet.agent() as process:
        # the start is behind it, and a few commits, as in the life of a router
        for number in range(5):
            fleet.commit_again(str(number))
            time.sleep(1)
        mine = rollup(process.pid)
    peer = _bare_interpreter()
    for name, field in (("idle-memory", "Rss"), ("idle-memory-pss", "Pss")):
        yield Result(
            name=name,
            ours=mine[field],
            peer=peer[field],
            unit="KiB",
            goal=f"under {LIMIT_KIB} KiB",
            met=mine[field] < LIMIT_KIB,
        )


def _bare_interpreter() -> dict[str, int]:
    with subprocess.Popen(
        [sys.executable, "-c", _PEER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = rollup(process.pid)
        process.communicate(b"\n")
    return found
