# SPDX-License-Identifier: GPL-2.0-or-later
"""Says which containers write to a directory whose file system takes no writing: a disk with errors is remounted so.

They are left running: to stop them would help nobody, and some only read what they could write.
"""

from __future__ import annotations

from agent.model.resources import Container, Desired
from agent.plan.draft import key_of
from agent.runtime.daemon_mounts import is_read_only
from agent.status.board import StatusBoard
from agent.status.conditions import ConditionType


def show_read_only(desired: Desired, board: StatusBoard, *, now: float) -> None:
    """The condition `StorageReadOnly` of each container. For an engine on this machine."""
    for container in desired.containers:
        key = key_of("container", container.section)
        found = _read_only_sources(container) if container.policy.enabled else ()
        if not found:
            board.clear(key, ConditionType.STORAGE_READ_ONLY, now=now)
            continue
        board.ensure(key, kind="container", section=container.section, name=container.name, now=now)
        text = f"{', '.join(found)}: the file system is mounted read-only; `:ro` in `volume` says that it may be"
        board.set(
            key, ConditionType.STORAGE_READ_ONLY, status=True, reason="ReadOnly", message=text, now=now
        )


def _read_only_sources(container: Container) -> tuple[str, ...]:
    mounts = (mount for mount in container.spec.mounts if mount.is_bind and not mount.read_only)
    return tuple(mount.source for mount in mounts if is_read_only(mount.source))
