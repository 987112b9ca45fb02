# SPDX-License-Identifier: GPL-2.0-or-later
"""A dockerd that somebody else runs: its file is written, and a restart that it needs is reported, never done."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace

from agent.clients import daemon_process
from agent.clients.daemon_files import DaemonFiles
from agent.model.daemon import Effect, Process, Target
from agent.plan.daemon import classify
from agent.runtime.daemon_status import DaemonStatus


class External:
    """Remembers what the running dockerd was started with."""

    def __init__(self, files: DaemonFiles, status: DaemonStatus, wall: Callable[[], float]) -> None:
        self._files, self._status, self._wall = files, status, wall

    def report(self, target: Target) -> None:
        """Writes daemon.json and says whether the dockerd that uses it follows it. Raises OSError."""
        record = self._files.load()
        process = record.process
        if process is None or not daemon_process.is_alive(process):
            process = daemon_process.find_with_config(self._files.config_file)
            if process is not None:
                known = record.target if self._began_after_file(process) else None
                record = replace(record, process=process, running=known)
        if self._files.current() != target.text:
            self._files.write_current(target.text)
        if record.target != target or record != self._files.load():
            self._files.save(replace(record, target=target))
        if process is None:
            path = self._files.config_file
            self._status.unmanaged(
                f"no dockerd here runs with --config-file={path}: somebody else's settings hold"
            )
            return
        self._say(record.running, target)

    def _say(self, running: Target | None, target: Target) -> None:
        change = classify(running, target)
        match change.effect:
            case Effect.NOTHING:
                self._status.restart_needed("", "")
            case Effect.RELOAD:
                self._status.restart_needed("Reload", f"dockerd has to be sent SIGHUP: {change.cause}")
            case Effect.RESTART:
                self._status.restart_needed("Restart", f"dockerd has to be restarted: {change.cause}")

    def _began_after_file(self, process: Process) -> bool:
        """Whether it began after the last change of the file; only then is it known what it read."""
        booted = self._wall() - time.clock_gettime(time.CLOCK_BOOTTIME)
        try:
            written = self._files.config_file.stat().st_mtime
        except OSError:
            return False
        return booted + process.started / os.sysconf("SC_CLK_TCK") >= written
