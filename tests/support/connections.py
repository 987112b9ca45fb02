# SPDX-License-Identifier: GPL-2.0-or-later
"""The number of connections to a dockerd, to prove that a request has ended."""

from __future__ import annotations

import gc
import time
from pathlib import Path

from tests.support.dockerd import PrivateDockerd

_CONNECTED = "03"


def connections(engine: PrivateDockerd) -> int:
    """The number of connections that dockerd has accepted: /proc/net/unix shows the path only on the accepting side."""
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return sum(row[5] == _CONNECTED and row[-1] == str(engine.socket) for row in rows)


def settled(engine: PrivateDockerd) -> int:
    """The number of connections once it has been stable for half a second: clients of earlier steps may still be
    closing."""
    gc.collect()  # clients that were never closed
    last, since = connections(engine), time.monotonic()
    while time.monotonic() - since < 0.5:
        time.sleep(0.05)
        if (seen := connections(engine)) != last:
            last, since = seen, time.monotonic()
    return last


def wait_connections(engine: PrivateDockerd, wanted: int, limit_s: float = 30) -> None:
    """Waits until at most `wanted` connections are left."""
    deadline = time.monotonic() + limit_s
    while (seen := connections(engine)) > wanted:
        assert time.monotonic() < deadline, f"{seen} connections to the engine are open, expected {wanted}"
        time.sleep(0.05)
