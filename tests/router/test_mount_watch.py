# SPDX-License-Identifier: GPL-2.0-or-later
"""Mounts are told of at once, by the kernel."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from agent.files.watcher import MountWatch, mounts_in
from tests.support.dockerd import is_root

pytestmark = pytest.mark.skipif(not is_root(), reason="mounting needs root")
LIMIT_S = 10


async def run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command)
    assert await process.wait() == 0


@pytest.fixture
def target(tmp_path: Path) -> Iterator[str]:
    made = tmp_path / "mnt"
    made.mkdir()
    yield str(made)
    with suppress(subprocess.CalledProcessError):
        while True:
            subprocess.run(["umount", made], check=True, stderr=subprocess.DEVNULL)


class Told:
    """What the watch says, and waiting for it to have said it."""

    def __init__(self) -> None:
        self._said = asyncio.Event()

    def __call__(self) -> None:
        self._said.set()

    async def after(self, *command: str, seen: Callable[[], bool]) -> None:
        """Runs it; returns once a call came after which `seen` holds (others may mount things here as well)."""
        self._said.clear()
        await run(*command)
        async with asyncio.timeout(LIMIT_S):
            while True:
                await self._said.wait()
                self._said.clear()
                if seen():
                    return


async def test_mount_remount_and_unmount_are_told(target: str) -> None:
    told = Told()

    def options() -> str:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        return next((line.split()[5] for line in lines if line.split()[4] == target), "")

    with MountWatch(told):
        await told.after("mount", "-t", "tmpfs", "tmpfs", target, seen=lambda: options().startswith("rw"))
        await told.after("mount", "-o", "remount,ro", target, seen=lambda: options().startswith("ro"))
        await told.after("umount", target, seen=lambda: options() == "")


LINES = """\
35 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
60 35 8:1 / /mnt/sda1 rw,relatime - ext4 /dev/sda1 rw
61 35 0:52 / /mnt/my\\040disk ro - vfat /dev/sdb1 ro
62 35 0:60 / /opt/docker/overlay2/3759/merged rw,relatime - overlay overlay rw,lowerdir=/l/A:/l/B
63 35 0:61 / /opt/docker/containers/1/mounts/shm rw,nosuid - tmpfs shm rw,size=65536k
64 24 0:4 net:[4026532281] /run/docker/netns/7ecd11ec8485 rw - nsfs nsfs rw
65 35 0:70 / /mnt/ram rw - tmpfs tmpfs rw
"""


def test_what_an_engine_mounts_for_containers_is_not_looked_at() -> None:
    assert mounts_in(LINES) == {
        ("254:0", "/", "rw,relatime rw,discard"),
        ("8:1", "/mnt/sda1", "rw,relatime rw"),
        ("0:52", "/mnt/my\\040disk", "ro ro"),
        ("0:70", "/mnt/ram", "rw rw"),
    }
