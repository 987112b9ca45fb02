# SPDX-License-Identifier: GPL-2.0-or-later
"""How many connections a dockerd has: the proof that a request to it has ended."""

from __future__ import annotations

import gc
import time
from pathlib import Path

from tests.support.dockerd import PrivateDockerd

_CONNECTED = "03"


def connections(engine: PrivateDockerd) -> int:
    """Connections that dockerd has accepted: /proc/net/unix names the path on the accepting side only."""
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return sum(row[5] == _CONNECTED and row[-1] == str(engine.socket) for row in rows)


def settled(engine: PrivateDockerd) -> int:
    """The count once it has not changed for half a second: clients of earlier steps may still be leaving."""
    gc.collect()  # clients that nobody closed
    last, since = connections(engine), time.monotonic()
    while time.monotonic() - since < 0.5:
        time.sleep(0.05)
        if (seen := connections(engine)) != last:
            last, since = seen, time.monotonic()
    return last


def wait_connections(engine: PrivateDockerd, wanted: int, limit_s: float = 30) -> None:
    """Until no more than `wanted` are left."""
    deadline = time.monotonic() + limit_s
    while (seen := connections(engine)) > wanted:
        assert time.monotonic() < deadline, f"{seen} connections to the engine are open, expected {wanted}"
        time.sleep(0.05)
