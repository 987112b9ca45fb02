# SPDX-License-Identifier: GPL-2.0-or-later
"""What a process sees and where it belongs: network devices, mounts of its open files, container (proc(5)).

/proc/PID/net shows the process's own network namespace, wherever the one who looks may be.
"""

from __future__ import annotations

import os
from pathlib import Path

_PROC = Path("/proc")


def network_devices(pid: int) -> frozenset[str] | None:
    """Names of the devices in its network namespace, None when it is gone."""
    try:
        lines = (_PROC / str(pid) / "net" / "dev").read_text().splitlines()
    except OSError:
        return None
    return frozenset(line.partition(":")[0].strip() for line in lines if ":" in line)


def has_files_on(pid: int, folder: str) -> bool | None:
    """Whether it has a file open on the mount that `folder` is on now. None when that cannot be known."""
    try:
        if os.readlink(_PROC / str(pid) / "ns" / "mnt") != os.readlink(_PROC / "self" / "ns" / "mnt"):
            return None  # other mounts have other numbers
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            wanted = _mount_of(Path("/proc/self/fdinfo", str(descriptor)))
        finally:
            os.close(descriptor)
        infos = sorted((_PROC / str(pid) / "fdinfo").iterdir())
    except OSError:
        return None
    return any(_mount_of(info) == wanted for info in infos)


def is_in_container(pid: int, container: str) -> bool:
    """Whether its control group carries that id (the full one). False when it has ended."""
    try:
        return bool(container) and container in (_PROC / str(pid) / "cgroup").read_text()
    except OSError:
        return False


def _mount_of(info: Path) -> str:
    """The `mnt_id` of an open file; "" when it was closed meanwhile."""
    try:
        lines = info.read_text().splitlines()
    except OSError:
        return ""
    return next((line.split()[1] for line in lines if line.startswith("mnt_id:")), "")
