# SPDX-License-Identifier: GPL-2.0-or-later
"""Brings dockerd to a target, or back to the last one that worked.

Before it comes `agent.plan.daemon`, which says what a change takes. Every step is written down before it is done
(`DaemonRecord`), so that an agent that was killed in between goes on where the old one stood. The order of a restart:

    live-restore on by SIGHUP, so that containers outlive it     (unless it has to stop them)
    STOP   daemon.json is written, then dockerd ends by SIGTERM
    START  dockerd starts and answers; live-restore goes back to what UCI says
    WATCH  dying now counts as a failure of the change; after it the document is the last good one

A failure takes the same document without the option that dockerd's last words are about, then the last good document, and
if that fails too the minimal one of the same engine with nothing but the unix socket. What is proven (it equals the last
good one) is not given up: it is tried again, slower and slower.
"""

from __future__ import annotations

import functools
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agent.dockerd.ports import Check, DaemonStore, Probe, Supervisor
from agent.errors import DaemonError
from agent.model.dockerd.settings import (
    DaemonRecord,
    Document,
    Effect,
    Json,
    Process,
    Step,
    Target,
    format_document,
)
from agent.model.dockerd.table import suspects, value_at, without
from agent.plan.daemon import Change, bare, minimal

logger = logging.getLogger(__name__)

_STOP_MARGIN_S = 15.0
_PAUSE_S = 0.05
_SUSPECTS = 3  # each is a start of dockerd, while nothing runs
_SAME = 60  # characters at the end of two failures that are the same
_SIGNALS = 2  # an event may be dropped by the engine: a reload that is not confirmed is asked for twice


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Seconds: for the first answer after a start, for the confirmation of a reload, and of watching after a change."""

    start_s: float = 90.0
    reload_s: float = 5.0
    watch_s: float = 30.0


@dataclass(slots=True, kw_only=True)
class DaemonChange:
    """Carries changes out, one at a time. `clock`: monotonic seconds, the same for every process since boot."""

    store: DaemonStore
    supervisor: Supervisor
    probe: Probe
    check: Check
    socket: str
    limits: Limits = field(default_factory=Limits)
    clock: Callable[[], float] = time.monotonic
    record: DaemonRecord = field(init=False)
    refused: Target | None = None  # what dockerd itself rejected, until a reconcile is asked for
    blamed: dict[str, str] = field(
        default_factory=dict
    )  # keys without which what failed runs -> dockerd's words

    def __post_init__(self) -> None:
        self.record = self.store.load()

    def carry_out(self, target: Target, change: Change) -> None:
        """One change. A target that fails is rolled back and noted in the record.

        Raises DaemonError when nothing was changed for a passing reason (no space), or when dockerd is down for good.
        """
        # Looked at before anything is stopped: settings that dockerd says no to must cost nobody a restart.
        try:
            self.check(target)
        except DaemonError as exc:
            if exc.reason != "Refused":
                raise
            logger.error("dockerd's new settings are refused: %s", exc)
            self.refused = target
            self._note(failed=target.digest, why=str(exc), fallback=False)
            # one that runs is left as it is; without any, something must run
            if self.supervisor.find() is None:
                self._roll_back(target, exc, way_back=False)
            return
        if change.effect is Effect.RELOAD:
            self._attempt(target, lambda: self._reload(target))
        else:
            self._attempt(target, lambda: self._restart(target, held=self._hold(change)))

    def resume(self) -> None:
        """Goes on with what an agent before us had begun. Raises DaemonError as `carry_out`."""
        # What was begun is finished before anything new is decided: half of a change is a state that no plan knows.
        record = self.record
        target = record.target
        if target is None:
            self._note(step=Step.NONE)
            return
        logger.info("going on with a change of dockerd that was cut short (%s)", record.step)
        match record.step:
            case Step.RELOAD:
                self._attempt(target, lambda: self._reload(target))
            case Step.STOP:
                again = functools.partial(self._restart, target, held=record.held, fallback=record.fallback)
                self._attempt(target, again, way_back=record.fallback)
            case _:
                self._attempt(target, self._start, way_back=record.fallback)

    def died(self) -> None:
        """dockerd ended while a change was watched: the change is to blame. Raises DaemonError."""
        target, process = self.record.running, self.record.process
        words = self.supervisor.last_words(process) if process is not None else ""
        # Nothing else may have changed since: the settings that it was last given are the first suspect.
        if target is not None:
            failure = DaemonError(f"dockerd died soon after the change{_tail(words)}", reason="Died")
            self._roll_back(target, failure, way_back=self.record.fallback)

    def end_watch(self) -> None:
        """The change has proved itself: its document is the last good one. Raises OSError when it cannot be kept."""
        running = self.record.running
        # Kept on flash, and only now: a document that dockerd died of after ten seconds must never be a way back.
        if running is not None and self.store.last_good() != running:
            self.store.write_last_good(running)
        self._note(step=Step.NONE)

    def stop(self, shutdown_s: int | None = None) -> None:
        """Stops dockerd on request. It stays down, even when the agent restarts, until `released`.

        `shutdown_s`: seconds that it gives its containers, None where that is as the record says.
        """
        # Noted before it is done: an agent that is killed in between must not start dockerd again.
        self._note(stopped=True, step=Step.NONE, target=None, must=True)
        process = self.supervisor.find()
        if process is not None and shutdown_s is not None:
            # The engine kills containers when its time is over; only then may dockerd itself be killed.
            self.supervisor.stop(process, shutdown_s + _STOP_MARGIN_S)
        elif process is not None:
            self._end(process, self.record.running)
        self._note(process=None)

    def pause(self) -> None:
        """Ends dockerd and every container. Another agent starts it again: nothing is noted of it. Raises OSError."""
        # Containers must not outlive dockerd here: they would go on writing to the data that is being copied.
        self._hold(Change(effect=Effect.RESTART, stops=True))
        self._note(step=Step.NONE, target=None, must=True)
        process = self.supervisor.find()
        if process is not None:
            self._end(process, self.record.running)
        self._note(process=None)

    def let_go(self, process: Process | None) -> None:
        """dockerd's settings are not ours (any more): no change of ours is under way. What a `process` that we did not
        start with our file follows is not known."""
        # The way back of a change that was under way would put our file where the user's is meant to be.
        if process is not None and process != self.record.process:
            self.adopt(process, None)
        self._note(step=Step.NONE, target=None, held=False, failed="", why="", fallback=False)

    def released(self) -> None:
        """dockerd is to run again."""
        self._note(stopped=False)

    def adopt(self, process: Process, running: Target | None) -> None:
        """Takes note of a dockerd that another program started with our file."""
        self._note(process=process, running=running, stopped=False)

    def forget_failure(self) -> None:
        """What failed before does not matter any more: what UCI says now runs, or is to be tried again."""
        self._note(failed="", why="", fallback=False)

    def remember(self, refused: Mapping[str, tuple[Json, str]]) -> None:
        """What dockerd does not start with: another agent is not to try it again."""
        self._note(refused=dict(refused))

    # steps

    def _attempt(self, target: Target, action: Callable[[], None], *, way_back: bool = False) -> None:
        """`way_back`: it is one already, and the change that it is about has been noted."""
        try:
            action()
        except DaemonError as exc:
            # this has worked before: something around it is at fault (a slow containerd, say)
            if target == self.store.last_good():
                self._note(step=Step.NONE, target=None, process=None)
                raise
            self._roll_back(target, exc, way_back=way_back)
        except OSError as exc:
            if self.record.step in {Step.STOP, Step.RELOAD}:
                self._note(step=Step.NONE, target=None)
            # A full disk says nothing about the settings: they are tried again and not marked as failed.
            raise DaemonError(f"daemon.json cannot be written: {exc.strerror}", reason="StorageFull") from exc

    def _hold(self, change: Change) -> bool:
        """Switches live-restore by SIGHUP so that containers outlive the restart, or do not. True when they will."""
        running, process = self.record.running, self.supervisor.find()
        if process is None:
            # what a dockerd that died has left alive; before there was one in this boot, there is nothing to keep
            return self.record.process is not None and not change.stops and not self.record.swarm
        if running is None:
            return not change.stops and not self.probe.swarm()
        # Without containers there is nothing to keep alive, and switching costs a reload.
        keep = not change.stops and not self.probe.swarm() and bool(self.probe.running())
        if bool(running.document.get("live-restore")) is keep:
            return keep
        document = {**running.document, "live-restore": keep}
        self._note(step=Step.NONE, must=True)
        self.store.write_current(format_document(document))
        if self._confirmed(process, document):
            return keep
        logger.warning(
            "dockerd did not confirm live-restore: containers %s", "stop" if keep else "may keep running"
        )
        return False

    def _reload(self, target: Target) -> None:
        # Noted first: an agent that is killed between the file and the signal leaves a dockerd that does not follow its
        # file.
        self._note(step=Step.RELOAD, target=target, must=True)
        process = self.supervisor.find()
        if process is None:
            self._restart(target, held=not self.record.swarm)
            return
        self.store.write_current(target.text)
        if self._confirmed(process, target.document):
            self._reached(target, process)
            return
        if self.supervisor.wait_end(process, 0):
            words = self.supervisor.last_words(process)
            raise DaemonError(f"dockerd died at the reload{_tail(words)}", reason="Died")
        words = self.supervisor.last_words(process)
        why = f"dockerd did not confirm the reload{_tail(words)}"
        logger.error("%s; it keeps its old settings", why)
        # the file must say what dockerd follows, or its next start would be with what it has not confirmed
        if self.record.running is not None:
            self.store.write_current(self.record.running.text)
            self.supervisor.reload(process)
        self._note(step=Step.NONE, target=None, failed=target.digest, why=why, fallback=True)

    def _confirmed(self, process: Process, document: Document) -> bool:
        """SIGHUP, and the engine's own word that it follows the document."""
        for _ in range(_SIGNALS):
            # Listening before the signal is sent: the event comes within milliseconds.
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

    def _restart(self, target: Target, *, held: bool, fallback: bool = False) -> None:
        self._note(step=Step.STOP, target=target, held=held, fallback=fallback, must=not fallback)
        # Containers outlive dockerd only if the dockerd that comes up takes them over, so the new one needs it too, for
        # its start.
        document = {**target.document, "live-restore": True} if held else target.document
        self.store.write_current(format_document(document))
        process = self.supervisor.find()
        if process is not None:
            self._end(process, self.record.running or target)
        # from here on no dockerd runs: an agent that is killed now leaves it to the next one to start it
        self._note(step=Step.START, process=None)
        self._start()

    def _end(self, process: Process, running: Target | None) -> None:
        """Gives containers the time that the running settings give them."""
        patience = running.document.get("shutdown-timeout") if running is not None else None
        self.supervisor.stop(process, (patience if isinstance(patience, int) else 15) + _STOP_MARGIN_S)

    def _start(self) -> None:
        target = self.record.target
        if target is None:
            return
        # One may run already: another agent, killed after it had started it.
        process = self.supervisor.find() or self.supervisor.start(target.arguments)
        deadline = self.clock() + self.limits.start_s
        # A process that lives is not enough: dockerd with a broken network setup lives for a while and never listens.
        while not self.probe.answers():
            if self.supervisor.wait_end(process, _PAUSE_S):
                words = self.supervisor.last_words(process)
                raise DaemonError(f"dockerd did not start{_tail(words)}", reason="NotStarted")
            if self.clock() > deadline:
                seconds = f"{self.limits.start_s:.0f} s"
                raise DaemonError(
                    f"dockerd does not answer on {self.socket} after {seconds}", reason="NoAnswer"
                )
        # live-restore was on for the restart alone: off again only once containers were found again
        if self.record.held and not target.document.get("live-restore"):
            self.store.write_current(target.text)
            if not self._confirmed(process, target.document) and not self.record.fallback:
                raise DaemonError(
                    "dockerd did not confirm its settings after the start", reason="NotConfirmed"
                )
        self._reached(target, process)

    def _reached(self, target: Target, process: Process) -> None:
        # one that has proved itself is not watched again: when it dies, no change is to blame
        step = Step.NONE if target == self.store.last_good() else Step.WATCH
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

    def _roll_back(self, target: Target, failure: DaemonError, *, way_back: bool) -> None:
        """The last good document, else the minimal one. Raises DaemonError when dockerd cannot be brought up at all."""
        if not way_back:
            logger.error("%s; going back", failure)
            self._note(failed=target.digest, why=str(failure), fallback=True)
        if not way_back and self._runs_without_suspects(target, str(failure)):
            return
        # Down is the worst of all: an older configuration, and at last dockerd's defaults on the same data, is still a
        # dockerd that runs containers.
        for way in self._ways_back(target):
            try:
                self._restart(way, held=not self.record.swarm, fallback=True)
            except (DaemonError, OSError) as exc:
                logger.error("dockerd does not come up with an older configuration either: %s", exc)
                continue
            return
        self._note(step=Step.NONE, target=None, process=None)
        raise DaemonError(f"dockerd is down: {failure}", reason="DaemonDown") from failure

    def _runs_without_suspects(self, failed: Target, words: str) -> bool:
        """Whether dockerd runs with the failed settings but for what its words are about, which has never worked."""
        good = self.store.last_good()
        proven = good.document if good is not None else {}
        document, dropped, cleared = failed.document, dict[str, str](), set[str]()
        # Each try is a start of dockerd, with containers waiting: few of them, and only keys that its own words name.
        for _ in range(_SUSPECTS):
            named = (key for key in suspects(document, words) if key not in cleared)
            key = next((k for k in named if value_at(document, k) != value_at(proven, k)), "")
            rest = without(document, key) if key else proven
            if not key or (rest == proven and self.record.running is not None):
                return False  # what ran before is the way back
            try:
                self._restart(replace(failed, document=rest), held=not self.record.swarm, fallback=True)
            except (DaemonError, OSError) as exc:
                logger.error("dockerd does not come up without %s either: %s", key, exc)
                if (
                    str(exc)[-_SAME:] == words[-_SAME:]
                ):  # the same failure: that option was not to blame, and stays
                    cleared.add(key)
                    continue
                document, dropped[key], words = rest, words, str(exc)
                continue
            self.blamed = {**dropped, key: words}
            return True
        return False

    def _ways_back(self, failed: Target) -> Iterator[Target]:
        """What to fall back to: the last good one, then the minimal one of the same engine."""
        good = self.store.last_good()
        if good is not None and (good.document, good.arguments) != (failed.document, failed.arguments):
            yield good
        before = self.record.running
        base = before or good or failed
        # with its arguments: without them it would be an engine in other directories, perhaps another one
        smallest = minimal(base.document, socket=self.socket)
        keeps = {"live-restore": not self.record.swarm}
        # Same data_root and same sockets: a dockerd elsewhere would look healthy and have none of the containers.
        yield replace(base, document={**smallest, **keeps}, material="")
        if before is None and good is None:
            yield replace(base, document={**bare(base.document, socket=self.socket), **keeps}, material="")

    def _note(self, *, must: bool = False, **changes: Any) -> None:
        """Writes down where we stand. After the point of no return a full disk must not stop us (`must` False)."""
        record = replace(self.record, **changes)
        if record == self.record:
            return
        try:
            self.store.save(record)
        # `must`: without the note a later agent would undo what was asked for, so nothing is begun.
        except OSError as exc:
            if must:
                raise
            logger.warning("cannot note where the change of dockerd stands: %s", exc)
        self.record = record


def disagreements(document: Document, attributes: Mapping[str, str]) -> tuple[str, ...]:
    """Keys of the document that the engine's reload event gives another value for, sorted."""
    # Only keys that the event mentions: engines tell of the reloadable ones, and each version of others.
    return tuple(
        key for key in sorted(document) if key in attributes and not _agrees(document[key], attributes[key])
    )


def _agrees(value: Json, said: str) -> bool:
    match value:
        case bool():
            return said == str(value).lower()
        case list():
            # the engine prints lists as JSON; its own loopback range is always among the insecure registries
            try:
                items = json.loads(said)
            except ValueError:
                return not value
            return set(map(str, value)) <= set(map(str, items if isinstance(items, list) else ()))
        case dict():
            return True  # objects are shown in forms of the engine's own
        case _:
            return said == str(value)


def _tail(words: str) -> str:
    return f": {words}" if words else ""
