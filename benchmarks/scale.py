# SPDX-License-Identifier: GPL-2.0-or-later
"""The cost of a thousand sections: memory, a pass with nothing to do, a status, and bytes written to flash per container.

The containers are created but not started: the agent's work is the same, and even a small machine can hold a thousand.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from agent.model.identity import LABEL_INSTANCE
from agent.wire import blobmsg
from agent.wire.ubus_message import MESSAGE_LIMIT
from benchmarks.bare import Bare
from benchmarks.lab import Fleet, Lab, wait_until_idle
from benchmarks.processes import resident_kib
from benchmarks.result import Result, interleave

COUNT = 1000
SIZES = (0, 100, COUNT)
_ADDED = 10
_ROUNDS = 11
_FLASH_LIMIT = 4096
_RESIDENT_LIMIT_KIB = 20


def flash_bytes(lab: Lab) -> Iterator[Result]:
    """flash-bytes-N: bytes per container when ten containers are added to N, one after the other."""
    lab.empty()
    fleet = lab.fresh()
    fleet.each = {"state": "stopped"}
    for size in SIZES:
        if size:
            fleet.commit(size)
            fleet.apply()
        written, dirtied = _added(fleet, size)
        file = (fleet.folder / "state" / "state.json").stat().st_size
        yield Result(
            name=f"flash-bytes-{size}",
            ours=written,
            peer=_FLASH_LIMIT,
            unit="B",
            goal="at most 4 KiB a container",
            met=written <= _FLASH_LIMIT,
            # depends on the file system: ext4 counts folios of up to 16 KiB, while UBIFS and jffs2 write only the
            # change, compressed
            note=f"write_bytes of the kernel {dirtied:.0f}, state.json has {file} bytes",
        )
    lab.empty()


def _added(fleet: Fleet, size: int) -> tuple[float, float]:
    """Bytes written, and bytes of the pages made dirty by that: the medians of single creations."""
    found = []
    for number in range(size + 1, size + _ADDED + 1):
        fleet.commit(number)
        reconciler = fleet.reconciler()
        before = _io()
        reconciler.run_pass(deep=None)
        after = _io()
        found.append(tuple(after[name] - before[name] for name in ("wchar", "write_bytes")))
    return statistics.median(w for w, _ in found), statistics.median(p for _, p in found)


def _io() -> dict[str, int]:
    """proc(5), io: `wchar` counts bytes passed to write(2), for files and pipes (sockets use send(2))."""
    os.sync()  # a page counts when it becomes dirty
    lines = Path("/proc/self/io").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) for line in lines}


def run(lab: Lab) -> Iterator[Result]:
    """scale-1000-noop, -memory and -status."""
    # with one section, because the first one loads what all need
    with _settled(lab.fleet(1, state="stopped")) as process:
        first = resident_kib(process.pid)
    fleet = lab.fleet(COUNT, state="stopped")
    yield _noop(lab, fleet)
    with _settled(fleet) as process:
        full = resident_kib(process.pid)
        yield Result(
            name="scale-1000-memory",
            ours=(full - first) / COUNT,
            peer=_RESIDENT_LIMIT_KIB,
            unit="KiB",
            goal=f"at most {_RESIDENT_LIMIT_KIB} KiB resident a container",
            met=full - first <= _RESIDENT_LIMIT_KIB * COUNT,
            note=f"{first} KiB with one, {full} KiB with {COUNT}",
        )
        yield _status(fleet)
    lab.empty()


@contextlib.contextmanager
def _settled(fleet: Fleet) -> Iterator[subprocess.Popen[bytes]]:
    """The agent after its start and a commit."""
    with fleet.agent() as process:
        fleet.commit_again("x")
        time.sleep(1)
        wait_until_idle(process.pid)
        yield process


def _noop(lab: Lab, fleet: Fleet) -> Result:
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
        if len(found) != COUNT:
            raise RuntimeError(f"{len(found)} containers were listed, {COUNT} expected")
        return (time.perf_counter() - begun) * 1000

    ours(), bare()
    mine, floor = interleave(ours, bare, rounds=_ROUNDS)
    connection.close()
    return Result(
        name="scale-1000-noop",
        ours=mine,
        peer=floor,
        unit="ms",
        goal="at most 2x the bare list call",
        met=mine <= 2 * floor,
    )


def _status(fleet: Fleet) -> Result:
    """The size of the largest status page as a ubus message."""
    connection = Bare(str(fleet.options().socket), api="")
    largest, count = 0, 0
    after: dict[str, str] = {}
    while True:
        page = connection.call("GET", "/v1/status", **after)
        largest = max(largest, len(blobmsg.encode(page)))
        count += len(page["resources"])
        if "next" not in page:
            break
        after = {"after": page["next"]}
    connection.close()
    if count != COUNT:
        raise RuntimeError(f"{count} sections in the status, {COUNT} expected")
    return Result(
        name="scale-1000-status",
        ours=largest,
        peer=MESSAGE_LIMIT,
        unit="B",
        goal="each page below what ubus carries",
        met=largest < MESSAGE_LIMIT,
    )
