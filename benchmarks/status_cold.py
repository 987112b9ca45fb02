# SPDX-License-Identifier: GPL-2.0-or-later
"""`ucidockd status` of 100 containers, from the start of the process to its end. Peer: `docker ps` of the same."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.lab import Lab
from benchmarks.result import Result, interleave

COUNT = 100
ROUNDS = 20
LIMIT_MS = 150.0


def run(lab: Lab) -> Iterator[Result]:
    """status-cold."""
    fleet = lab.fleet(COUNT)
    docker = shutil.which("docker")
    if docker is None:
        raise RuntimeError("there is no `docker` command to compare with (package docker.io or docker-cli)")
    program = Path(sys.executable).with_name("ucidockd")
    with fleet.agent():
        mine, peer = interleave(
            lambda: _run([str(program), "status", f"--socket={fleet.options().socket}"]),
            lambda: _run([docker, "-H", lab.engine.host, "ps", "-a"]),
            rounds=ROUNDS,
        )
    yield Result(
        name="status-cold",
        ours=mine,
        peer=peer,
        unit="ms",
        goal=f"under {LIMIT_MS:.0f} ms",
        met=mine < LIMIT_MS,
    )


def _run(command: list[str]) -> float:
    begun = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    taken = time.perf_counter() - begun
    if len(done.stdout.splitlines()) < COUNT:
        raise RuntimeError(f"{command[0]} did not show {COUNT} containers")
    return taken * 1000
