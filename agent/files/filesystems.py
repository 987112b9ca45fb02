# SPDX-License-Identifier: GPL-2.0-or-later
"""The file system that a path is on: proc_pid_mountinfo(5)."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from agent.errors import PathError
from agent.files.user_paths import PATHS, real_path

_MOUNTS = Path("/proc/self/mountinfo")
_ESCAPED = re.compile(r"\\([0-7]{3})")


def file_system_of(path: str, mounts: Path = _MOUNTS) -> str:
    """Its type, such as ext4 or overlay, links followed; "" when that cannot be known. The path need not be there."""
    try:
        real = PurePosixPath(PATHS.ask(real_path, path))
    except PathError:
        return ""
    found, depth = "", -1
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    for line in lines:
        mount, _, system = line.partition(" - ")
        point = PurePosixPath(_ESCAPED.sub(lambda match: chr(int(match[1], 8)), mount.split()[4]))
        # of two mounts on one point the later one hides the other
        if len(point.parts) >= depth and real.is_relative_to(point):
            found, depth = system.split()[0], len(point.parts)
    return found
