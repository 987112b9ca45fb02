# SPDX-License-Identifier: GPL-2.0-or-later
"""Says which containers write to a directory whose file system takes no writing: a disk with errors is remounted so.

They are left running: to stop them would help nobody, and some only read what they could write.
"""

from __future__ import annotations

from agent.errors import PathError
from agent.files.user_paths import PATHS, View, is_read_only
from agent.model.resources import Desired
from agent.plan.draft import key_of
from agent.status.board import StatusBoard
from agent.status.conditions import ConditionType


def show_read_only(desired: Desired, board: StatusBoard, *, now: float) -> None:
    """The condition `StorageReadOnly` of each container. For an engine on this machine."""
    sources = {
        container.section: tuple(m.source for m in container.spec.mounts if m.is_bind and not m.read_only)
        for container in desired.containers
        if container.policy.enabled
    }
    look = PATHS.view((is_read_only, path) for paths in sources.values() for path in paths)
    for container in desired.containers:
        key = key_of("container", container.section)
        found = [path for path in sources.get(container.section, ()) if _is_read_only(look, path)]
        if not found:
            board.clear(key, ConditionType.STORAGE_READ_ONLY, now=now)
            continue
        board.ensure(key, kind="container", section=container.section, name=container.name, now=now)
        text = (
            f"{', '.join(found)}: the file system is mounted read-only; `:ro` in `volume` says that it may be"
        )
        board.set(key, ConditionType.STORAGE_READ_ONLY, status=True, reason="ReadOnly", message=text, now=now)


def _is_read_only(look: View, path: str) -> bool:
    try:
        return look(is_read_only, path)
    except PathError:
        return False  # that nobody knows, `Waiting` says
