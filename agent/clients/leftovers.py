# SPDX-License-Identifier: GPL-2.0-or-later
"""Ends what a killed engine left behind, where the engine is local.

An engine that is killed in the middle of a start (seen with 20.10) does not know of the task that containerd began for
it, and refuses every later start of that container: "task ID: already exists". The Engine API has no call for it; once
the task's processes have ended, the next start clears it away.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import time
from pathlib import Path

_TASK = re.compile(r"task ([0-9a-f]{64}): already exists")
_LIMIT_S = 5.0


def end_leftover(message: str) -> bool:
    """Kills the processes of the task that the engine's `message` names; False when it names none, or none is here.

    A process belongs to the task when its control group carries the container's id. Blocks for up to 5 s.
    """
    found = _TASK.search(message)
    if found is None:
        return False
    left = [descriptor for pid in _pids() if (descriptor := _open(pid, found[1])) is not None]
    try:
        for descriptor in left:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        return bool(left) and _all_exited(left)
    finally:
        for descriptor in left:
            os.close(descriptor)


def _pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def _open(pid: int, container: str) -> int | None:
    """A descriptor of the process if it is the container's; the number alone could become somebody else's."""
    if not _belongs(pid, container):
        return None
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if _belongs(pid, container):
        return descriptor
    os.close(descriptor)
    return None


def _belongs(pid: int, container: str) -> bool:
    try:
        return container in Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return False


def _all_exited(descriptors: list[int]) -> bool:
    deadline = time.monotonic() + _LIMIT_S
    for descriptor in descriptors:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)  # readable once its process has ended
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            return False
    return True
