# SPDX-License-Identifier: GPL-2.0-or-later
"""Time from the rename of the configuration file to the agent's first engine call, with 100 containers.

The agent runs as a process behind a proxy that records its calls. Peer: a watchdog observer that sees the same kind
of rename and only waits the 100 ms of coalescing.
"""

from __future__ import annotations

import queue
import random
import time
from collections.abc import Iterator
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from agent.runtime.loop import COALESCE_S
from benchmarks.lab import Lab, wait_for
from benchmarks.proxy import Recorder
from benchmarks.result import Result, interleave

COUNT = 100
ROUNDS = 20
LIMIT_MS = 200.0
PAUSE_S = 0.7  # by then the previous pass has ended


class Echo(FileSystemEventHandler):
    """Waits for a rename in a directory, and then as long as the agent coalesces."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "file"
        self._file.write_text("")
        self._seen: queue.SimpleQueue[float] = queue.SimpleQueue()
        self._observer = Observer()
        self._observer.schedule(self, str(folder), recursive=False)
        self._observer.start()

    def on_moved(self, event: FileSystemEvent) -> None:
        del event
        time.sleep(COALESCE_S)
        self._seen.put(time.monotonic())

    def measure(self) -> float:
        """One measurement, in milliseconds."""
        temporary = self._file.with_name("temporary")
        temporary.write_text("")
        begun = time.monotonic()
        temporary.replace(self._file)
        return (self._seen.get(timeout=10) - begun) * 1000

    def stop(self) -> None:
        """Ends the observer."""
        self._observer.stop()
        self._observer.join()


def run(lab: Lab) -> Iterator[Result]:
    """commit-latency."""
    fleet = lab.fleet(COUNT)
    echo_folder = lab.folder / "echo"
    echo_folder.mkdir()
    echo = Echo(echo_folder)
    with Recorder(lab.folder / "commit.sock", lab.engine.socket) as recorder, fleet.agent(recorder.host):

        def ours() -> float:
            time.sleep(PAUSE_S + random.random() * 0.1)
            begun = fleet.commit_again(str(time.monotonic_ns()))
            wait_for(lambda: recorder.after(begun), "an engine call after a commit", 10)
            return (recorder.after(begun)[0].at - begun) * 1000

        mine, peer = interleave(ours, echo.measure, rounds=ROUNDS)
    echo.stop()
    yield Result(
        name="commit-latency",
        ours=mine,
        peer=peer,
        unit="ms",
        goal=f"under {LIMIT_MS:.0f} ms with the {COALESCE_S * 1000:.0f} ms of coalescing",
        met=mine < LIMIT_MS,
    )
