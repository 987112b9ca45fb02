# SPDX-License-Identifier: GPL-2.0-or-later
"""Sends notices about problems and recoveries to web servers, brokers, commands and scripts.

Their code is loaded only when a section or a script needs it: most routers have neither.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import PathError
from agent.files.user_paths import PATHS
from agent.model.notices import NotifySection
from agent.status.board import StatusBoard

if TYPE_CHECKING:
    from agent.notices.notifier import Notifier


class Notices:
    """`scripts` is the folder of hotplug scripts, which is checked whenever the configuration is read."""

    def __init__(self, board: StatusBoard, *, memory: Path, scripts: Path) -> None:
        self._board, self._memory, self._scripts = board, memory, scripts
        self._lock = threading.Lock()
        # as last set: they may come before the notifier is loaded
        self._sections: Sequence[NotifySection] = ()
        self._broken: Collection[str] = ()
        self._notifier: Notifier | None = None  # loaded with the first receiver: most routers have none

    def want(self, sections: Sequence[NotifySection], broken: Collection[str]) -> None:
        """Sets the current sections, and the keys of sections with mistakes."""
        self._sections, self._broken = sections, broken
        try:
            has_scripts = bool(PATHS.ask(os.listdir, str(self._scripts)))
        except PathError:
            has_scripts = False
        # once loaded, it must also learn that the last section was removed
        if self._notifier is not None or sections or has_scripts:
            self._loaded().want(sections, broken)

    def test(self, name: str) -> dict[str, Any]:
        """See `Notifier.test`."""
        notifier = self._loaded()
        notifier.want(self._sections, self._broken)
        return notifier.test(name)

    def stop(self) -> None:
        """Stops sending notices."""
        if self._notifier is not None:
            self._notifier.stop()

    def _loaded(self) -> Notifier:
        with self._lock:
            if self._notifier is None:
                from agent.notices.notifier import Notifier

                self._notifier = Notifier(self._board, memory=self._memory, scripts=self._scripts)
                self._notifier.start()
            return self._notifier
