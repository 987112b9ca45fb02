# SPDX-License-Identifier: GPL-2.0-or-later
"""What a running dockerd has lost: its bridge, after a network restart, or the file system of its data.

A lost bridge, and a disk that was mounted again under dockerd, are mended by one restart; what that does not mend is shown
and not tried again. While the disk is away nothing is created or removed: the engine would work on the bare mount point.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from agent.dockerd.status import DaemonStatus
from agent.engine.process import has_files_on, network_devices
from agent.errors import Reason
from agent.model.dockerd.settings import DEFAULT_BRIDGE, Document, Effect, Process, Target, data_root
from agent.plan.daemon import Change
from agent.router.mounts import read_only_or_silent

logger = logging.getLogger(__name__)

_UNMOUNTED: Reason = "Unmounted"


class DaemonHealth:
    """`missing_mount`: the mount point that a directory needs and that has nothing mounted; "" for none.

    `needs_mount`: whether the directory is declared to be on one at all.
    """

    def __init__(
        self,
        status: DaemonStatus,
        *,
        missing_mount: Callable[[str], str],
        needs_mount: Callable[[str], bool],
    ) -> None:
        self._status = status
        self._missing_mount = missing_mount
        self._needs_mount = needs_mount
        # the loss, and the dockerd that was to be restarted for it
        self._asked: tuple[str, Process] | None = None

    def storage_lost(self, running: Target | None, goal: Target) -> str:
        """Why nothing may be done with this engine; "" when its data is there, or it is to have others."""
        # About the root that it runs with, not the one that UCI names: what counts is on which files it works now.
        root = data_root(running.document) if running is not None else ""
        text, reason = "", _UNMOUNTED
        matters = bool(root) and root == data_root(goal.document)
        read_only, silent = read_only_or_silent(root) if matters else (False, "")
        if not matters:
            pass  # this engine's data does not matter any more
        elif silent:
            text = f"{silent}, and the data of the running dockerd is in {root}"
        elif mount := self._missing_mount(root):
            text = f"{mount} was unmounted under the running dockerd, whose data is in {root}"
        elif read_only:
            text, reason = f"the file system of dockerd's data in {root} has become read-only", "ReadOnly"
        self._status.storage_lost(text, reason=reason)
        return text

    def repair(self, process: Process, goal: Target, *, answers: Callable[[], bool]) -> Change | None:
        """A restart for what was lost, once. Containers stop for it: their ports and mounts are of what is gone.

        `answers`: whether the engine does; one that does not may be about to make what is missing.
        """
        lost = self._lost(process, goal)
        if lost and not answers():
            return None
        # one that was only starting may have it by the time that it answers
        if not lost or not (lost := self._lost(process, goal)):
            self._asked = None
            self._status.impaired("")
            return None
        # A second restart for the same loss would stop all containers again, each pass, and mend nothing.
        if self._asked is not None and self._asked[0] == lost and self._asked[1] != process:
            self._status.impaired(f"{lost}, and a restart of dockerd did not help")
            return None
        if self._asked != (lost, process):
            logger.warning("dockerd needs a restart: %s", lost)
        self._asked = (lost, process)
        return Change(effect=Effect.RESTART, causes=(lost,), stops=True)

    def _lost(self, process: Process, goal: Target) -> str:
        if bridge := lost_bridge(goal.document, goal.arguments, network_devices(process.pid)):
            return bridge
        # its open files are on the old mount while paths lead to the new one. None: the kernel does not tell
        # Only where a mount is declared: other paths may be on a mount by chance, and their dockerd is left alone.
        root = data_root(goal.document)
        if self._needs_mount(root) and has_files_on(process.pid, root) is False:
            return f"the file system of {root} was mounted again under dockerd"
        return ""


def lost_bridge(document: Document, arguments: Sequence[str], devices: frozenset[str] | None) -> str:
    """What a dockerd with these settings lacks among its network devices; "" for nothing.

    With `bridge` none, or a choice on its command line, there is nothing to be expected.
    """
    chosen = any(word.lstrip("-").partition("=")[0] in {"b", "bridge"} for word in arguments)
    bridge = str(document.get("bridge") or DEFAULT_BRIDGE)
    # None: it has ended by now, and is brought back with its bridge.
    if devices is None or chosen or bridge == "none" or bridge in devices:
        return ""
    return f"the bridge {bridge} was removed"
