# SPDX-License-Identifier: GPL-2.0-or-later
"""What a process has used, as proc(5) tells: CPU time of all its threads and resident memory."""

from __future__ import annotations

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """User and system time since its start, in seconds, to 10 ms. Threads that ended count too."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def rollup(pid: int) -> dict[str, int]:
    """proc(5), smaps_rollup: field -> KiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) for line in lines}


def resident_kib(pid: int) -> int:
    """Its resident set now."""
    return _status(pid, "VmRSS")


def begin_peak(pid: int) -> None:
    """From here on `peak_kib` counts."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_kib(pid: int) -> int:
    """Its largest resident set since `begin_peak`."""
    return _status(pid, "VmHWM")


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise RuntimeError(f"/proc/{pid}/status has no {name}")
