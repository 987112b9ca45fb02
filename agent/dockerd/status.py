# SPDX-License-Identifier: GPL-2.0-or-later
"""dockerd's conditions on the status board, under `daemon:dockerd`."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from agent.errors import DaemonError, Reason
from agent.model.dockerd.settings import DAEMON_KEY, DaemonRecord, DaemonTarget, NotOurs, Process
from agent.plan.daemon import Rendered
from agent.status.board import StatusBoard
from agent.status.conditions import ConditionType

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class DaemonStatus:
    """Writes the conditions; logs each warning once for as long as it lasts."""

    board: StatusBoard
    _warned: frozenset[str] = field(default_factory=frozenset)
    _wrong: tuple[str, ...] = ()  # UCI options that are invalid and not in force

    def drop(self) -> None:
        """No section is about dockerd: removes its conditions."""
        self.board.drop(DAEMON_KEY)

    def set_ownership(self, *, starts: bool, settings: bool, why: NotOurs | None) -> None:
        """Sets the agent's fact `dockerd`. `starts`: whether users can have us start, stop and restart dockerd.
        `settings`: whether its options in /etc/config/dockerd apply."""
        self.board.set_agent(dockerd={"starts": starts, "settings": settings, "why": why or ""})

    def begin(self, mistakes: tuple[str, ...]) -> None:
        """The settings were read; shows their mistakes."""
        self.board.ensure(DAEMON_KEY)
        self._wrong = mistakes
        text = "; ".join(mistakes)
        self._set(
            ConditionType.ACCEPTED,
            status=not mistakes,
            reason="Invalid" if mistakes else "Valid",
            message=text,
        )

    def unmanaged(self, why: str, *, started: bool = False) -> None:
        """Shows why dockerd's settings are not ours, and clears everything about such settings. `started`: we still
        start it."""
        if not why:
            self._clear(ConditionType.DAEMON_UNMANAGED)
            return
        self._set(ConditionType.DAEMON_UNMANAGED, status=True, reason="ConfiguredElsewhere", message=why)
        # conditions about our settings do not apply to the user's settings
        of_running = (
            ConditionType.SYNCED,
            ConditionType.DEGRADED,
            ConditionType.WAITING,
            ConditionType.RUNNING,
        )
        for condition in (
            ConditionType.ROLLED_BACK,
            ConditionType.INSECURE_API,
            ConditionType.ENGINE_CHANGED,
            ConditionType.ENGINE_STORAGE_LOST,
            ConditionType.ENGINE_IMPAIRED,
            ConditionType.STORAGE_UNSUITABLE,
            ConditionType.RESTART_NEEDED,
            *(() if started else of_running),
        ):
            self._clear(condition)

    def user_dockerd_runs(self, process: Process | None) -> None:
        """A dockerd that follows a file of the user's is running. `process` is None if only its socket shows that."""
        self._clear(ConditionType.SYNCED)
        self._clear(ConditionType.DEGRADED)
        self._clear(ConditionType.WAITING)
        message = f"pid {process.pid}" if process is not None else ""
        self._set(ConditionType.RUNNING, status=True, reason="Running", message=message)

    def user_dockerd_silent(self, message: str) -> None:
        """dockerd runs, but does not listen on our socket."""
        self._clear(ConditionType.WAITING)
        self._set(ConditionType.RUNNING, status=False, reason="NotListening", message=message)

    def found(self, rendered: Rendered) -> None:
        """Shows the findings of rendering."""
        for finding in rendered.findings:
            self._set(
                ConditionType(finding.type),
                status=finding.status,
                reason=finding.reason,
                message=finding.message,
            )
            if finding.status:
                self._warn(finding.message)
        left_out = tuple(map(str, rendered.left_out))
        said = (*left_out, *rendered.warnings)
        for warning in said:
            self._warn(warning)
        # a warning that is gone may be logged again when it comes back
        self._warned &= {*said, *(finding.message for finding in rendered.findings)}
        self._wrong = (*self._wrong, *left_out)

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            logger.warning("%s", text)
            self._warned |= {text}

    def synced(self, reason: Reason, message: str) -> None:
        """Shows that dockerd is not in sync, and why."""
        self._set(ConditionType.SYNCED, status=False, reason=reason, message=message)

    def degraded(self, reason: Reason, message: str) -> None:
        self._set(ConditionType.DEGRADED, status=True, reason=reason, message=message)

    def waiting(self, message: str) -> None:
        self._set(ConditionType.WAITING, status=True, reason="Missing", message=message)

    def running(self, process: Process | None, *, listens: bool = True) -> None:
        """Shows whether dockerd runs. `listens`: False if it is about to end or to come up; it may stop containers for
        seconds."""
        if process is None:
            self._set(ConditionType.RUNNING, status=False, reason="Stopped")
            return
        # if there is a process, nothing is being waited for, whether or not it listens yet
        self._clear(ConditionType.WAITING)
        if not listens:
            message = f"pid {process.pid} does not listen: it is stopping, or not up yet"
            self._set(ConditionType.RUNNING, status=False, reason="NotListening", message=message)
            return
        self._set(ConditionType.RUNNING, status=True, reason="Running", message=f"pid {process.pid}")

    def engine_changed(self, message: str, *, reason: Reason = "DataRoot") -> None:
        """`message`: "" if it is the same engine as before."""
        self.board.flag(DAEMON_KEY, ConditionType.ENGINE_CHANGED, reason, message)

    def impaired(self, message: str) -> None:
        """Shows what dockerd lacks even after a restart; "" if nothing."""
        self.board.flag(DAEMON_KEY, ConditionType.ENGINE_IMPAIRED, "RestartDidNotHelp", message)

    def storage_lost(self, message: str, *, reason: Reason = "Unmounted") -> None:
        """Shows that the data's file system is unmounted or read-only while dockerd runs; "" if it is available."""
        self.board.flag(DAEMON_KEY, ConditionType.ENGINE_STORAGE_LOST, reason, message)

    def unsuitable(self, message: str) -> None:
        """Shows that containers cannot be created on the data's file system; "" if they can."""
        self.board.flag(DAEMON_KEY, ConditionType.STORAGE_UNSUITABLE, "FileSystem", message)
        if message:
            self._warn(message)

    def restart_needed(self, reason: Reason | None, message: str) -> None:
        """Shows that an external dockerd does not follow its file; `reason` is None if it does."""
        if reason is None:
            self._clear(ConditionType.RESTART_NEEDED)
            self._applied()
            return
        self._set(ConditionType.RESTART_NEEDED, status=True, reason=reason, message=message)
        self._set(ConditionType.SYNCED, status=False, reason="RestartNeeded", message=message)

    def outcome(self, record: DaemonRecord, wanted: DaemonTarget | None, trouble: DaemonError | None) -> None:
        """Shows the state after a pass: whether UCI's settings run, or which others and why."""
        failed = wanted is not None and record.failed == wanted.digest
        reason: Reason = "Refused" if failed and not record.fallback else "RolledBack"
        if failed and record.fallback:
            self._set(ConditionType.ROLLED_BACK, status=True, reason="Failed", message=record.why)
        else:
            self._clear(ConditionType.ROLLED_BACK)
        # UCI still holds the failed settings: trying them again would take dockerd down again
        if failed:
            self.degraded(reason, record.why)
            self.synced(reason, f"not tried again until the configuration changes: {record.why}")
            return
        if trouble is not None:
            self.degraded(trouble.reason, str(trouble))
        else:
            self._clear(ConditionType.DEGRADED)
        if wanted is None or record.running != wanted:
            return
        if trouble is not None:
            self.synced(trouble.reason, str(trouble))
        else:
            self._applied()

    def _applied(self) -> None:
        """dockerd follows its file. It is in sync only if no option of UCI was left out."""
        wrong = bool(self._wrong)
        message = f"the rest is applied: {'; '.join(self._wrong)}" if wrong else ""
        self._set(
            ConditionType.SYNCED, status=not wrong, reason="LeftOut" if wrong else "Applied", message=message
        )

    def note(self, verb: str, cause: str, *, error: str) -> None:
        """Adds a completed operation to the history."""
        self.board.note(DAEMON_KEY, verb, cause=cause, ok=not error, error=error)

    def _set(self, condition: ConditionType, *, status: bool, reason: Reason, message: str = "") -> None:
        self.board.set(DAEMON_KEY, condition, status=status, reason=reason, message=message)

    def _clear(self, condition: ConditionType) -> None:
        self.board.clear(DAEMON_KEY, condition)
