# SPDX-License-Identifier: GPL-2.0-or-later
"""Brings dockerd to a target, or back to the last target that worked.

`agent.plan.daemon` decides what a change requires. Every step is noted before it is done (`DaemonRecord`), so that
after a kill the next agent continues where this one stopped. The order of a restart:

  live-restore on by SIGHUP, so that containers outlive dockerd  (unless the change has to stop them)
  STOP   daemon.json is written, then dockerd ends by SIGTERM
  START  dockerd starts and answers; live-restore returns to the value in UCI
  WATCH  if dockerd dies now, the change has failed; afterwards its document is the last good one

After a failure these are tried in turn: the same document without the option that dockerd's last words name, the last
good document, and finally the minimal document, which keeps the same engine with only the unix socket. A target that
equals the last good one is not given up but retried with back-off.

The protocols at the top are what a change needs from the outside world. Their methods block: call them from threads.
"""

from __future__ import annotations

import functools
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from agent.errors import DaemonError
from agent.model.dockerd.settings import (
    ChangeStep,
    DaemonRecord,
    DaemonTarget,
    Document,
    Effect,
    Json,
    Process,
    format_document,
)
from agent.model.dockerd.table import suspects, value_at, without
from agent.plan.daemon import DaemonPlan, minimal, minimal_without_driver


class Supervisor(Protocol):
    """Starts, stops and signals the single dockerd that runs with our file."""

    def find(self) -> Process | None:
        """The dockerd that runs with our file, whoever started it."""

    def wait_end(self, process: Process, timeout_s: float) -> bool:
        """Whether it has ended within that time; 0 only checks."""

    def start(self, arguments: tuple[str, ...]) -> Process:
        """Starts dockerd with `--config-file` and these arguments. Raises DaemonError if it cannot be started."""

    def stop(self, process: Process, timeout_s: float) -> None:
        """Sends SIGTERM and waits; sends SIGKILL only after `timeout_s`."""

    def reload(self, process: Process) -> None:
        """Sends SIGHUP."""

    def exit_reason(self, process: Process) -> str:
        """Why it ended, as far as known; without secrets."""

    def tidy(self) -> None:
        """Keeps dockerd's log small, if we write it."""


class ReloadEvents(Protocol):
    """The engine's reload events from now on."""

    def wait(self, timeout_s: float) -> Mapping[str, str] | None:
        """The attributes of the next event (the values in force), None if none arrives in time."""


class Probe(Protocol):
    """What the engine on the unix socket reports. Methods raise nothing but InternalError."""

    def answers(self) -> bool: ...
    def running(self) -> tuple[str, ...]:
        """Names of the running containers, sorted."""

    def swarm(self) -> bool:
        """Whether the engine is part of a swarm, in which live-restore is not allowed."""

    def store(self) -> str:
        """The engine's storage driver, "" if not known."""

    def reload_events(self, timeout_s: float) -> AbstractContextManager[ReloadEvents]:
        """Subscribes to reload events. If the engine does not accept the request within that time, there are no events."""


class DaemonStore(Protocol):
    """Storage for daemon.json, the last good document and the record. Writing raises OSError."""

    def current(self) -> bytes | None: ...
    def write_current(self, data: bytes) -> None: ...
    def last_good(self) -> DaemonTarget | None: ...
    def write_last_good(self, target: DaemonTarget) -> None: ...
    def load(self) -> DaemonRecord: ...
    def save(self, record: DaemonRecord) -> None: ...


class ServerIdentity(Protocol):
    """The certificates that dockerd presents. `expires`: unix seconds."""

    @property
    def ca(self) -> Path: ...
    @property
    def cert(self) -> Path: ...
    @property
    def key(self) -> Path: ...
    @property
    def expires(self) -> float: ...
    @property
    def problem(self) -> str:
        """Why these are not the requested certificates, "" if they are."""


class Certificates(Protocol):
    """Creates and renews certificates. The bool says whether anything changed. Raises UcidockdError."""

    def ensure_server(
        self, *, sans: tuple[str, ...], days: int, renew_days: int, now: float
    ) -> tuple[ServerIdentity, bool]: ...


Check = Callable[[DaemonTarget], None]
"""Checks a target before anything is disturbed; raises DaemonError with reason Refused."""


logger = logging.getLogger(__name__)

_STOP_MARGIN_S = 15.0  # for dockerd itself, after its containers had their time
_PAUSE_S = 0.05  # between looks at a dockerd that starts
_SUSPECTS = 3  # number of suspect options to try; each try is a start of dockerd while no dockerd runs
_SAME = 60  # two failures are the same if this many of their last characters are equal
_SIGNALS = 2  # the engine may lose an event: a reload that is not confirmed is requested twice


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Time limits in seconds: for the first answer after a start, for the confirmation of a reload, and for watching
    after a change."""

    start_s: float = 90.0
    reload_s: float = 5.0
    watch_s: float = 30.0


@dataclass(slots=True, kw_only=True)
class DaemonChange:
    """Carries out changes, one at a time. `clock`: monotonic seconds, the same for all processes since boot."""

    store: DaemonStore
    supervisor: Supervisor
    probe: Probe
    check: Check
    socket: str
    limits: Limits = field(default_factory=Limits)
    clock: Callable[[], float] = time.monotonic
    record: DaemonRecord = field(init=False)
    # the target that dockerd itself refused, until a reconcile is requested
    refused: DaemonTarget | None = None
    # keys that had to be left out for dockerd to start -> dockerd's words about them
    blamed: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.record = self.store.load()

    def carry_out(self, target: DaemonTarget, change: DaemonPlan) -> None:
        """Carries out one change. A target that fails is rolled back and noted in the record.

        Raises DaemonError if nothing was changed for a temporary reason (no space), or if dockerd is down and cannot
        be started.
        """
        # checked before anything is stopped: settings that dockerd refuses must not cause a restart
        try:
            self.check(target)
        except DaemonError as exc:
            if exc.reason != "Refused":
                raise
            logger.error("dockerd's new settings are refused: %s", exc)
            self.refused = target
            self._note(failed=target.digest, why=str(exc), fallback=False)
            # a running dockerd stays as it is; if none runs, one has to be started
            if self.supervisor.find() is None:
                self._roll_back(target, exc, way_back=False)
            return
        if change.effect is Effect.RELOAD:
            self._attempt(target, lambda: self._reload(target))
        else:
            self._attempt(target, lambda: self._restart(target, held=self._hold(change)))

    def resume(self) -> None:
        """Continues a change that an earlier agent began. Raises DaemonError like `carry_out`."""
        # finish it before anything new is decided: no plan expects a half-done change
        record = self.record
        target = record.target
        if target is None:
            self._note(step=ChangeStep.NONE)
            return
        logger.info("going on with a change of dockerd that was cut short (%s)", record.step)
        match record.step:
            case ChangeStep.RELOAD:
                self._attempt(target, lambda: self._reload(target))
            case ChangeStep.STOP:
                again = functools.partial(self._restart, target, held=record.held, fallback=record.fallback)
                self._attempt(target, again, way_back=record.fallback)
            case _:
                self._attempt(target, self._start, way_back=record.fallback)

    def roll_back_after_death(self) -> None:
        """dockerd ended while a change was being watched: the change is to blame. Raises DaemonError."""
        target, process = self.record.running, self.record.process
        words = self.supervisor.exit_reason(process) if process is not None else ""
        # nothing else can have changed since, so the settings that it was given last are the first suspect
        if target is not None:
            failure = DaemonError(f"dockerd died soon after the change{_tail(words)}", reason="Died")
            self._roll_back(target, failure, way_back=self.record.fallback)

    def end_watch(self) -> None:
        """The change has proved itself: its document becomes the last good one. Raises OSError if it cannot be stored."""
        running = self.record.running
        # stored on flash, and only now: a document with which dockerd died after ten seconds must never become a way
        # back
        if running is not None and self.store.last_good() != running:
            self.store.write_last_good(running)
        self._note(step=ChangeStep.NONE)

    def stop(self, shutdown_s: int | None = None) -> None:
        """Stops dockerd on request. It stays stopped, even if the agent restarts, until `released` is called.

        `shutdown_s`: seconds that dockerd gives its containers to stop, None for the value in the record.
        """
        # noted first: after a kill in between the next agent must not start dockerd again
        self._note(stopped=True, step=ChangeStep.NONE, target=None, must=True)
        process = self.supervisor.find()
        if process is not None and shutdown_s is not None:
            # the engine kills containers when their time is over; only after that may dockerd itself be killed
            self.supervisor.stop(process, shutdown_s + _STOP_MARGIN_S)
        elif process is not None:
            self._end(process, self.record.running)
        self._note(process=None)

    def pause(self) -> None:
        """Stops dockerd and all containers without noting a stop, so another agent would start it again. Raises OSError."""
        # the containers must not outlive dockerd: they would keep writing to the data while it is copied
        self._hold(DaemonPlan(effect=Effect.RESTART, stops=True))
        self._note(step=ChangeStep.NONE, target=None, must=True)
        process = self.supervisor.find()
        if process is not None:
            self._end(process, self.record.running)
        self._note(process=None)

    def abandon(self, process: Process | None) -> None:
        """dockerd's settings are not, or no longer, ours: ends any change of ours. If our file did not start this
        `process`, its settings are unknown."""
        # rolling back an open change would put our file where the user's file should be
        if process is not None and process != self.record.process:
            self.adopt(process, None)
        self._note(step=ChangeStep.NONE, target=None, held=False, failed="", why="", fallback=False)

    def released(self) -> None:
        """dockerd may run again after a requested stop."""
        self._note(stopped=False)

    def adopt(self, process: Process, running: DaemonTarget | None) -> None:
        """Notes a dockerd that another program started with our file."""
        self._note(process=process, running=running, stopped=False)

    def forget_failure(self) -> None:
        """Forgets an earlier failure: either UCI's settings run now, or they should be tried again."""
        self._note(failed="", why="", fallback=False)

    def remember(self, refused: Mapping[str, tuple[Json, str]]) -> None:
        """Notes the settings with which dockerd does not start, so that a later agent does not try them again."""
        self._note(refused=dict(refused))

    # steps

    def _attempt(self, target: DaemonTarget, action: Callable[[], None], *, way_back: bool = False) -> None:
        """Runs `action` and rolls back if it fails. `way_back`: this is already a rollback, and the failed change has
        been noted."""
        try:
            action()
        except DaemonError as exc:
            # it worked before, so something else is at fault (a slow containerd, for example)
            if target == self.store.last_good():
                self._note(step=ChangeStep.NONE, target=None, process=None)
                raise
            self._roll_back(target, exc, way_back=way_back)
        except OSError as exc:
            if self.record.step in {ChangeStep.STOP, ChangeStep.RELOAD}:
                self._note(step=ChangeStep.NONE, target=None)
            # a full disk says nothing about the settings: retry them instead of marking them as failed
            raise DaemonError(f"daemon.json cannot be written: {exc.strerror}", reason="StorageFull") from exc

    def _hold(self, change: DaemonPlan) -> bool:
        """Switches live-restore by SIGHUP, so that containers outlive the restart or not. True if they will."""
        running, process = self.record.running, self.supervisor.find()
        if process is None:
            # containers may still run after dockerd died; if no dockerd ran since boot, there are none to keep
            return self.record.process is not None and not change.stops and not self.record.swarm
        if running is None:
            return not change.stops and not self.probe.swarm()
        # without containers there is nothing to keep running, and switching would cost a reload
        keep = not change.stops and not self.probe.swarm() and bool(self.probe.running())
        if bool(running.document.get("live-restore")) is keep:
            return keep
        document = {**running.document, "live-restore": keep}
        self._note(step=ChangeStep.NONE, must=True)
        self.store.write_current(format_document(document))
        if self._confirmed(process, document):
            return keep
        logger.warning(
            "dockerd did not confirm live-restore: containers %s", "stop" if keep else "may keep running"
        )
        return False

    def _reload(self, target: DaemonTarget) -> None:
        # noted first: after a kill between the file and the signal, dockerd does not follow its file
        self._note(step=ChangeStep.RELOAD, target=target, must=True)
        process = self.supervisor.find()
        if process is None:
            self._restart(target, held=not self.record.swarm)
            return
        self.store.write_current(target.text)
        if self._confirmed(process, target.document):
            self._reached(target, process)
            return
        if self.supervisor.wait_end(process, 0):
            words = self.supervisor.exit_reason(process)
            raise DaemonError(f"dockerd died at the reload{_tail(words)}", reason="Died")
        words = self.supervisor.exit_reason(process)
        why = f"dockerd did not confirm the reload{_tail(words)}"
        logger.error("%s; it keeps its old settings", why)
        # the file must match what dockerd follows; otherwise its next start would use unconfirmed settings
        if self.record.running is not None:
            self.store.write_current(self.record.running.text)
            self.supervisor.reload(process)
        self._note(step=ChangeStep.NONE, target=None, failed=target.digest, why=why, fallback=True)

    def _confirmed(self, process: Process, document: Document) -> bool:
        """Sends SIGHUP and checks the engine's event on whether it follows the document."""
        for _ in range(_SIGNALS):
            # subscribe before sending the signal: the event arrives within milliseconds
            with self.probe.reload_events(self.limits.reload_s) as events:
                self.supervisor.reload(process)
                attributes = events.wait(self.limits.reload_s)
            if attributes is not None:
                wrong = disagreements(document, attributes)
                if wrong:
                    logger.warning("dockerd reloaded but does not follow %s", ", ".join(wrong))
                return not wrong
            if self.supervisor.wait_end(process, 0):
                break
        return False

    def _restart(self, target: DaemonTarget, *, held: bool, fallback: bool = False) -> None:
        self._note(step=ChangeStep.STOP, target=target, held=held, fallback=fallback, must=not fallback)
        # Containers outlive dockerd only if the dockerd that starts next takes them over, so it needs live-restore
        # too.
        document = {**target.document, "live-restore": True} if held else target.document
        self.store.write_current(format_document(document))
        process = self.supervisor.find()
        if process is not None:
            self._end(process, self.record.running or target)
        # no dockerd runs from here on: after a kill the next agent starts it
        self._note(step=ChangeStep.START, process=None)
        self._start()

    def _end(self, process: Process, running: DaemonTarget | None) -> None:
        """Stops dockerd, giving containers the time that the running settings allow."""
        patience = running.document.get("shutdown-timeout") if running is not None else None
        self.supervisor.stop(process, (patience if isinstance(patience, int) else 15) + _STOP_MARGIN_S)

    def _start(self) -> None:
        target = self.record.target
        if target is None:
            return
        # dockerd may already run: an earlier agent was killed after it had started dockerd
        process = self.supervisor.find() or self.supervisor.start(target.arguments)
        deadline = self.clock() + self.limits.start_s
        # a living process is not sufficient: with a broken network setup dockerd lives for a while and never listens
        while not self.probe.answers():
            if self.supervisor.wait_end(process, _PAUSE_S):
                words = self.supervisor.exit_reason(process)
                raise DaemonError(f"dockerd did not start{_tail(words)}", reason="NotStarted")
            if self.clock() > deadline:
                seconds = f"{self.limits.start_s:.0f} s"
                raise DaemonError(
                    f"dockerd does not answer on {self.socket} after {seconds}", reason="NoAnswer"
                )
        # live-restore was on only for the restart: switch it off after dockerd has found its containers again
        if self.record.held and not target.document.get("live-restore"):
            self.store.write_current(target.text)
            if not self._confirmed(process, target.document) and not self.record.fallback:
                raise DaemonError(
                    "dockerd did not confirm its settings after the start", reason="NotConfirmed"
                )
        self._reached(target, process)

    def _reached(self, target: DaemonTarget, process: Process) -> None:
        # a proven target is not watched again: if dockerd dies, no change is to blame
        step = ChangeStep.NONE if target == self.store.last_good() else ChangeStep.WATCH
        watch_until = self.clock() + self.limits.watch_s
        self._note(
            step=step,
            target=None,
            held=False,
            running=target,
            process=process,
            watch_until=watch_until,
            swarm=self.probe.swarm(),
        )

    def _roll_back(self, target: DaemonTarget, failure: DaemonError, *, way_back: bool) -> None:
        """Goes back to the last good document, or else to the minimal one. Raises DaemonError if dockerd does not start
        at all."""
        if not way_back:
            logger.error("%s; going back", failure)
            self._note(failed=target.digest, why=str(failure), fallback=True)
        if not way_back and self._runs_without_suspects(target, str(failure)):
            return
        # No dockerd at all is the worst outcome. An older configuration, or finally dockerd's defaults on the same
        # data, still runs containers.
        for way in self._ways_back(target):
            try:
                self._restart(way, held=not self.record.swarm, fallback=True)
            except (DaemonError, OSError) as exc:
                logger.error("dockerd does not come up with an older configuration either: %s", exc)
                continue
            return
        self._note(step=ChangeStep.NONE, target=None, process=None)
        raise DaemonError(f"dockerd is down: {failure}", reason="DaemonDown") from failure

    def _runs_without_suspects(self, failed: DaemonTarget, words: str) -> bool:
        """Whether dockerd runs with the failed settings minus the options that its last words name and that have never
        worked."""
        good = self.store.last_good()
        proven = good.document if good is not None else {}
        document, dropped, cleared = failed.document, dict[str, str](), set[str]()
        # each try starts dockerd while containers wait: try only a few keys, and only those that its words name
        for _ in range(_SUSPECTS):
            named = (key for key in suspects(document, words) if key not in cleared)
            key = next((k for k in named if value_at(document, k) != value_at(proven, k)), "")
            rest = without(document, key) if key else proven
            if not key or (rest == proven and self.record.running is not None):
                return False  # the previous settings are the way back
            try:
                self._restart(replace(failed, document=rest), held=not self.record.swarm, fallback=True)
            except (DaemonError, OSError) as exc:
                logger.error("dockerd does not come up without %s either: %s", key, exc)
                # the same failure again: this option was not to blame and stays
                if str(exc)[-_SAME:] == words[-_SAME:]:
                    cleared.add(key)
                    continue
                document, dropped[key], words = rest, words, str(exc)
                continue
            self.blamed = {**dropped, key: words}
            return True
        return False

    def _ways_back(self, failed: DaemonTarget) -> Iterator[DaemonTarget]:
        """The documents to fall back to: the last good one, then the minimal one of the same engine."""
        good = self.store.last_good()
        if good is not None and (good.document, good.arguments) != (failed.document, failed.arguments):
            yield good
        before = self.record.running
        base = before or good or failed
        # keep its arguments: without them dockerd would use other directories and could be another engine
        smallest = minimal(base.document, socket=self.socket)
        keeps = {"live-restore": not self.record.swarm}
        # same data_root and same socket: a dockerd with other data would look healthy but have none of the containers
        yield replace(base, document={**smallest, **keeps}, material="")
        if before is None and good is None:
            yield replace(
                base,
                document={**minimal_without_driver(base.document, socket=self.socket), **keeps},
                material="",
            )

    def _note(self, *, must: bool = False, **changes: Any) -> None:
        """Notes the state of the change. If nothing can be undone any more, a full disk must not stop the change (`must`
        False)."""
        record = replace(self.record, **changes)
        if record == self.record:
            return
        try:
            self.store.save(record)
        # `must`: without the note a later agent would undo what the user requested, so do not begin
        except OSError as exc:
            if must:
                raise
            logger.warning("cannot note where the change of dockerd stands: %s", exc)
        self.record = record


def disagreements(document: Document, attributes: Mapping[str, str]) -> tuple[str, ...]:
    """Keys of the document for which the engine's reload event reports another value, sorted."""
    # compare only keys in the event: engines report reloadable options, and each version reports other ones
    return tuple(
        key for key in sorted(document) if key in attributes and not _agrees(document[key], attributes[key])
    )


def _agrees(value: Json, said: str) -> bool:
    match value:
        case bool():
            return said == str(value).lower()
        case list():
            # the engine prints lists as JSON; its own loopback range is always one of the insecure registries
            try:
                items = json.loads(said)
            except ValueError:
                return not value
            return set(map(str, value)) <= set(map(str, items if isinstance(items, list) else ()))
        case dict():
            return True  # the engine prints objects in its own formats
        case _:
            return said == str(value)


def _tail(words: str) -> str:
    return f": {words}" if words else ""
