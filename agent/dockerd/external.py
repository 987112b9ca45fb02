# SPDX-License-Identifier: GPL-2.0-or-later
"""A dockerd that somebody else runs: its file is written, and a restart that it needs is reported, never done."""

from __future__ import annotations

from dataclasses import replace

from agent.dockerd.files import DaemonFiles
from agent.dockerd.status import DaemonStatus
from agent.engine import process as daemon_process
from agent.model.dockerd.settings import Effect, Target
from agent.plan.daemon import classify


class External:
    """Remembers what the running dockerd was started with."""

    def __init__(self, files: DaemonFiles, status: DaemonStatus) -> None:
        self._files, self._status = files, status

    def report(self, target: Target) -> str:
        """Writes daemon.json and shows whether the dockerd that uses it follows it; why none does. Raises OSError."""
        before = self._files.load()
        process, running = before.process, before.running
        if process is None or not daemon_process.is_alive(process):
            process = daemon_process.find_with_config(self._files.config_file)
            running = (
                before.target
                if process is not None and daemon_process.began_after(process, self._files.config_file)
                else None
            )
        if self._files.current() != target.text:
            self._files.write_current(target.text)
        record = replace(before, process=process, running=running, target=target)
        if record != before:
            self._files.save(record)
        if process is None:
            path = self._files.config_file
            return f"no dockerd here runs with --config-file={path}: somebody else's settings hold"
        self._say(running, target)
        return ""

    def _say(self, running: Target | None, target: Target) -> None:
        change = classify(running, target)
        match change.effect:
            case Effect.NOTHING:
                self._status.restart_needed(None, "")
            case Effect.RELOAD:
                self._status.restart_needed("Reload", f"dockerd has to be sent SIGHUP: {change.cause}")
            case Effect.RESTART:
                self._status.restart_needed("Restart", f"dockerd has to be restarted: {change.cause}")
