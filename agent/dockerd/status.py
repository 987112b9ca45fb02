# SPDX-License-Identifier: GPL-2.0-or-later
"""dockerd's conditions on the status board, under `daemon:dockerd`."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from agent.errors import DaemonError, Reason
from agent.model.dockerd.settings import DAEMON_KEY, DaemonRecord, NotOurs, Process, Target
from agent.plan.daemon import Rendered
from agent.status.board import StatusBoard
from agent.status.conditions import ConditionType

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class DaemonStatus:
    """Writes conditions; says each warning once in the log, as long as it lasts."""

    board: StatusBoard
    _warned: frozenset[str] = field(default_factory=frozenset)
    _wrong: tuple[str, ...] = ()  # what of UCI is not in force because it is wrong

    def drop(self) -> None:
        """No section is about dockerd."""
        self.board.drop(DAEMON_KEY)

    def whose(self, *, starts: bool, settings: bool, why: NotOurs | None) -> None:
        """The fact `dockerd` about the agent. `starts`: whether people may have it started, stopped and restarted by
        us. `settings`: whether what /etc/config/dockerd says of it counts."""
        self.board.set_agent(dockerd={"starts": starts, "settings": settings, "why": why or ""})

    def begin(self, mistakes: tuple[str, ...]) -> None:
        """The settings were read."""
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
        """dockerd's settings are not ours: nothing else is said about them. `started`: whether it runs still is."""
        if not why:
            self._clear(ConditionType.DAEMON_UNMANAGED)
            return
        self._set(ConditionType.DAEMON_UNMANAGED, status=True, reason="ConfiguredElsewhere", message=why)
        # what was said of settings of ours is not true of the user's
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

    def own_runs(self, process: Process | None) -> None:
        """A dockerd that follows a file of the user's runs; None where only its socket shows that."""
        self._clear(ConditionType.SYNCED)
        self._clear(ConditionType.DEGRADED)
        self._clear(ConditionType.WAITING)
        message = f"pid {process.pid}" if process is not None else ""
        self._set(ConditionType.RUNNING, status=True, reason="Running", message=message)

    def own_silent(self, message: str) -> None:
        """It runs and does not listen where we look for it."""
        self._clear(ConditionType.WAITING)
        self._set(ConditionType.RUNNING, status=False, reason="NotListening", message=message)

    def found(self, rendered: Rendered) -> None:
        """What rendering found out."""
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
        # What is no longer wrong may be logged again when it comes back.
        self._warned &= {*said, *(finding.message for finding in rendered.findings)}
        self._wrong = (*self._wrong, *left_out)

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            logger.warning("%s", text)
            self._warned |= {text}

    def synced(self, reason: Reason, message: str) -> None:
        """Not synced, and why."""
        self._set(ConditionType.SYNCED, status=False, reason=reason, message=message)

    def degraded(self, reason: Reason, message: str) -> None:
        self._set(ConditionType.DEGRADED, status=True, reason=reason, message=message)

    def waiting(self, message: str) -> None:
        self._set(ConditionType.WAITING, status=True, reason="Missing", message=message)

    def running(self, process: Process | None, *, listens: bool = True) -> None:
        """`listens`: one that does not is about to end, or to come up; it stops its containers for seconds."""
        if process is None:
            self._set(ConditionType.RUNNING, status=False, reason="Stopped")
            return
        # With a process there is nothing to wait for, whether or not it listens yet.
        self._clear(ConditionType.WAITING)
        if not listens:
            message = f"pid {process.pid} does not listen: it is stopping, or not up yet"
            self._set(ConditionType.RUNNING, status=False, reason="NotListening", message=message)
            return
        self._set(ConditionType.RUNNING, status=True, reason="Running", message=f"pid {process.pid}")

    def engine_changed(self, message: str, *, reason: Reason = "DataRoot") -> None:
        """`message`: "" when it is the engine that it was."""
        self.board.flag(DAEMON_KEY, ConditionType.ENGINE_CHANGED, reason, message)

    def impaired(self, message: str) -> None:
        """dockerd lacks something that a restart did not bring back; "" when it has all."""
        self.board.flag(DAEMON_KEY, ConditionType.ENGINE_IMPAIRED, "RestartDidNotHelp", message)

    def storage_lost(self, message: str, *, reason: Reason = "Unmounted") -> None:
        """The file system of the data is away, or read-only, while dockerd runs; "" when it is there."""
        self.board.flag(DAEMON_KEY, ConditionType.ENGINE_STORAGE_LOST, reason, message)

    def unsuitable(self, message: str) -> None:
        """The file system of the data takes no containers; "" when it does."""
        self.board.flag(DAEMON_KEY, ConditionType.STORAGE_UNSUITABLE, "FileSystem", message)
        if message:
            self._warn(message)

    def restart_needed(self, reason: Reason | None, message: str) -> None:
        """An external dockerd does not follow its file; None when it does."""
        if reason is None:
            self._clear(ConditionType.RESTART_NEEDED)
            self._applied()
            return
        self._set(ConditionType.RESTART_NEEDED, status=True, reason=reason, message=message)
        self._set(ConditionType.SYNCED, status=False, reason="RestartNeeded", message=message)

    def outcome(self, record: DaemonRecord, wanted: Target | None, trouble: DaemonError | None) -> None:
        """The state after a pass: what UCI wants runs, or what else does and why."""
        failed = wanted is not None and record.failed == wanted.digest
        reason: Reason = "Refused" if failed and not record.fallback else "RolledBack"
        if failed and record.fallback:
            self._set(ConditionType.ROLLED_BACK, status=True, reason="Failed", message=record.why)
        else:
            self._clear(ConditionType.ROLLED_BACK)
        # UCI still says what failed: trying it again would take dockerd down again
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
        """dockerd follows its file; it is not what UCI says while something of that is left out."""
        wrong = bool(self._wrong)
        message = f"the rest is applied: {'; '.join(self._wrong)}" if wrong else ""
        self._set(
            ConditionType.SYNCED, status=not wrong, reason="LeftOut" if wrong else "Applied", message=message
        )

    def note(self, verb: str, cause: str, *, error: str) -> None:
        """One operation that was carried out."""
        self.board.note(DAEMON_KEY, verb, cause=cause, ok=not error, error=error)

    def _set(self, condition: ConditionType, *, status: bool, reason: Reason, message: str = "") -> None:
        self.board.set(DAEMON_KEY, condition, status=status, reason=reason, message=message)

    def _clear(self, condition: ConditionType) -> None:
        self.board.clear(DAEMON_KEY, condition)
