# SPDX-License-Identifier: GPL-2.0-or-later
"""Mounts: the file system of dockerd's data, without which dockerd must not start, and a watch on all mounts."""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from agent.errors import PathError, UcidockdError
from agent.files import user_paths
from agent.files.config import open_store
from agent.files.options import RuntimeOptions
from agent.files.user_paths import PATHS, is_mounted, real_path
from agent.uci.router import is_on, text


def missing_mount(root: str, options: RuntimeOptions) -> str:
    """The mount point in /etc/config/fstab for that directory if nothing is mounted there, else ""."""
    try:
        declared = _declared(root, options)
        return "" if not declared or PATHS.ask(is_mounted, declared) else declared
    except PathError:
        return root  # does not answer: dockerd would hang on it


def read_only_or_silent(path: str) -> tuple[bool, str]:
    """(is read-only, why that is unknown) for the file system of a path, or of its nearest existing parent. Unknown if
    it does not answer, or its server is gone."""
    try:
        return PATHS.ask(user_paths.is_read_only, path), ""
    except PathError as exc:
        return False, str(exc)


def declared_mount(root: str, options: RuntimeOptions) -> str:
    """The deepest mount point in /etc/config/fstab above that directory, with links resolved. "" if there is none, or if
    the directory does not answer."""
    try:
        return _declared(root, options)
    except PathError:
        return ""


def _declared(root: str, options: RuntimeOptions) -> str:
    try:
        package = open_store(options).load("fstab")
    except UcidockdError:
        return ""  # the file only exists on OpenWrt, and a broken one is not a reason to keep dockerd stopped
    real = PurePosixPath(PATHS.ask(real_path, root))
    targets = (
        text(section, "target") for section in package.sections if section.type == "mount" and is_on(section)
    )
    above = [
        target
        for target in targets
        if target.strip("/") and real.is_relative_to(PATHS.ask(real_path, target))
    ]
    return max(above, key=len, default="")


# Notices mounts, unmounts and remounts without hotplug (proc_pid_mountinfo(5): poll returns POLLPRI).
#
# The engine's own mounts for containers are ignored.


_MOUNTS = Path("/proc/self/mountinfo")
_OF_CONTAINERS = frozenset({"overlay", "nsfs", "mqueue", "proc", "sysfs", "devpts", "cgroup", "cgroup2"})
_SHM = "shm"  # the source of the tmpfs on a container's /dev/shm

Mounts = frozenset[tuple[str, str, str]]


class MountWatch:
    """A context manager that calls `changed` in the running loop after each change."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._known: Mounts = frozenset()
        self._open = contextlib.ExitStack()

    def __enter__(self) -> MountWatch:
        """Starts watching. Has no effect without /proc, because the next resync checks anyway."""
        with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
            mounts = opened.enter_context(_MOUNTS.open("rb"))
            # asyncio cannot wait for POLLPRI, but an epoll becomes readable on any event
            poll = opened.enter_context(select.epoll())
            poll.register(mounts, select.EPOLLPRI)
            loop = asyncio.get_running_loop()
            loop.add_reader(poll.fileno(), self._look, poll)
            opened.callback(loop.remove_reader, poll.fileno())
            self._known = _mounts()
            self._open = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _look(self, poll: select.epoll) -> None:
        poll.poll(0)
        now = _mounts()
        if now != self._known:
            self._known = now
            self._changed()


def _mounts() -> Mounts:
    try:
        return mounts_in(_MOUNTS.read_text(errors="surrogateescape"))
    except OSError:
        return frozenset()


def mounts_in(text: str) -> Mounts:
    """(device, mount point, options) for each line of mountinfo that is not a container's."""
    found = (line.partition(" - ")[::2] for line in text.splitlines())
    return frozenset(
        _told(mount.split(), system.split()) for mount, system in found if _counts(system.split())
    )


def _told(mount: list[str], system: list[str]) -> tuple[str, str, str]:
    """Includes the options of the file system itself, because it may have become read-only by itself."""
    return mount[2], mount[4], f"{mount[5]} {system[-1]}"


def _counts(system: list[str]) -> bool:
    """Whether a mount is not a container's, by type and source."""
    return system[0] not in _OF_CONTAINERS and system[1] != _SHM
