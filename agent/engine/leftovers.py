# SPDX-License-Identifier: GPL-2.0-or-later
"""Ends what a killed engine left behind, where the engine is local.

An engine that is killed in the middle of a start (seen with 20.10) does not know of the task that containerd began for
it, or containerd keeps a shim or a directory without one; either way every later start of that container is refused.
The Engine API has no call for it. Once the processes have ended, containerd clears the rest away, all but the directory.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import time
from pathlib import Path

from agent.engine.process_view import is_in_container

_REFUSALS = re.compile(
    r"task [0-9a-f]{64}: already exists|id already in use"
    # the directory: as 20.10.24 and 26.1.5 say it, and as 28.5.2 does
    r"|failed to (?:start shim|create task for container): mkdir .*: file exists"
)
_LIMIT_S = 5.0


def tells_of_leftover(message: str) -> bool:
    """Whether the engine refused a start, with `message`, for what it left behind."""
    return _REFUSALS.search(message) is not None


def end_leftover(container: str) -> bool:
    """Kills the processes left of a `container` (full id); False when there is none here. Blocks for up to 5 s."""
    left = [descriptor for pid in _pids() if (descriptor := _open(pid, container)) is not None]
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
    """It is in the container, or is the container's shim."""
    return is_in_container(pid, container) or _is_shim(pid, container)


def _is_shim(pid: int, container: str) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"containerd-shim" in words[0] and container.encode() in words


def _all_exited(descriptors: list[int]) -> bool:
    deadline = time.monotonic() + _LIMIT_S
    for descriptor in descriptors:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)  # readable once its process has ended
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            return False
    return True
