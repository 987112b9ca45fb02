# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk that can be plugged in and pulled out: a file, mounted through a loop device."""

from __future__ import annotations

import subprocess
from pathlib import Path


class LoopDisk:
    """`target` is its mount point. Raises OSError if there are no loop devices."""

    def __init__(self, image: Path, target: Path, *, size_mib: int = 64) -> None:
        self.image, self.target = image, target
        target.mkdir(parents=True, exist_ok=True)
        with image.open("wb") as file:
            file.truncate(size_mib * 1024 * 1024)
        _run("mkfs.ext4", "-q", "-F", str(image))

    def plug(self, *options: str) -> None:
        """Mounts it."""
        _run("mount", "-o", ",".join(("loop", *options)), str(self.image), str(self.target))

    def pull(self) -> None:
        """Pulls it out, as blockd does: unmounted from the tree, although files on it may be open."""
        _run("umount", "-l", str(self.target))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
