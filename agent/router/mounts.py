# SPDX-License-Identifier: GPL-2.0-or-later
"""Mounts: the file system that dockerd's data is on, without which dockerd must not start, and a watch on all of them."""

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
    """The mount point that /etc/config/fstab has for that directory and where nothing is mounted; "" for none."""
    try:
        declared = _declared(root, options)
        return "" if not declared or PATHS.ask(is_mounted, declared) else declared
    except PathError:
        return root  # it does not answer: dockerd would hang on it


def read_only_or_silent(path: str) -> tuple[bool, str]:
    """Whether the file system of a path (or of the first of its parents that is there) takes no writing, and why that
    cannot be known: it does not answer, or its server is gone."""
    try:
        return PATHS.ask(user_paths.is_read_only, path), ""
    except PathError as exc:
        return False, str(exc)


def declared_mount(root: str, options: RuntimeOptions) -> str:
    """The deepest mount point of /etc/config/fstab above that directory, links followed; "" for none, and where
    that directory does not answer."""
    try:
        return _declared(root, options)
    except PathError:
        return ""


def _declared(root: str, options: RuntimeOptions) -> str:
    try:
        package = open_store(options).load("fstab")
    except UcidockdError:
        return ""  # no such file off OpenWrt, and a broken one is no reason to keep dockerd down
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


# Tells when something is mounted, unmounted or remounted, without hotplug (proc_pid_mountinfo(5): poll gives POLLPRI).
#
# An engine mounts several things for each container: those are not told of.


_MOUNTS = Path("/proc/self/mountinfo")
_OF_CONTAINERS = frozenset({"overlay", "nsfs", "mqueue", "proc", "sysfs", "devpts", "cgroup", "cgroup2"})
_SHM = "shm"  # the source of the tmpfs on a container's /dev/shm

Mounts = frozenset[tuple[str, str, str]]


class MountWatch:
    """A context in which `changed` is called, in the running loop, after each change."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._known: Mounts = frozenset()
        self._open = contextlib.ExitStack()

    def __enter__(self) -> MountWatch:
        """Quietly without effect where there is no /proc: the next resync looks anyway."""
        with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
            mounts = opened.enter_context(_MOUNTS.open("rb"))
            # asyncio waits for no POLLPRI, but an epoll is readable when it has news of any kind
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
    """Device, mount point and options of each line of mountinfo that is not a container's."""
    found = (line.partition(" - ")[::2] for line in text.splitlines())
    return frozenset(
        _told(mount.split(), system.split()) for mount, system in found if _counts(system.split())
    )


def _told(mount: list[str], system: list[str]) -> tuple[str, str, str]:
    """Of the options, those of the file system too: it may have become read-only by itself."""
    return mount[2], mount[4], f"{mount[5]} {system[-1]}"


def _counts(system: list[str]) -> bool:
    """By type and source."""
    return system[0] not in _OF_CONTAINERS and system[1] != _SHM
