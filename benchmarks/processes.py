# SPDX-License-Identifier: GPL-2.0-or-later
"""The resources that a process has used, from proc(5): CPU time of all its threads, and resident memory."""

from __future__ import annotations

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """User and system time since the process's start, in seconds, with a resolution of 10 ms. Includes threads that
    have ended.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def rollup(pid: int) -> dict[str, int]:
    """proc(5), smaps_rollup: field -> KiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) for line in lines}


def resident_kib(pid: int) -> int:
    """The current resident set in KiB."""
    return _status(pid, "VmRSS")


def begin_peak(pid: int) -> None:
    """Resets the peak that `peak_kib` reports."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_kib(pid: int) -> int:
    """The largest resident set since `begin_peak`, in KiB."""
    return _status(pid, "VmHWM")


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise RuntimeError(f"/proc/{pid}/status has no {name}")
