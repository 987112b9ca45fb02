# SPDX-License-Identifier: GPL-2.0-or-later
"""The loop: triggers mark it dirty, and a pass runs 100 ms after the first trigger, one pass at a time.

A pass only begins work; the end of each work triggers another pass, which checks the result. Triggers are
level-triggered: they say what to inspect, never what to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from agent.errors import EngineError, StorageError, UcidockdError
from agent.files.user_paths import PATHS
from agent.files.watcher import UNSETTLED_LIMIT_S, FileWatcher, MountWatch
from agent.runtime.reconciler import Reconciler
from agent.runtime.triggers import PassRequest
from agent.status.board import StatusBoard
from agent.status.conditions import ConditionType
from agent.status.metrics import PassCounters
from agent.threads import tell
from agent.uci.decode import PACKAGES

if TYPE_CHECKING:
    from agent.notices import Notices
    from agent.observe.load import Loads
    from agent.storage import PruneScheduler


logger = logging.getLogger(__name__)

Value = TypeVar("Value")

COALESCE_S = 0.1  # a change of several files becomes one pass
AGAIN_S = 1.0  # delay after a container's end, before it is inspected again
RECONNECT_S = 2.0
POLL_S = 5.0  # interval of checks for changed files if they cannot be watched
# interval of such checks if files are watched: the kernel drops events when its queue is full, and watchdog does not
# report that
LOST_S = 10.0
_LOOK_AGAIN_S = 0.05  # between looks whether a file is complete
FIRST_RESYNC_S = 60.0  # interval while no configuration has been read
STUCK_RESYNCS = 2  # resync intervals without the end of a pass, after which a condition is set
PASSES_KEY = "agent:passes"
SETTLE_S = 2.5  # for works in progress at the end: procd kills the agent after 5 s
PASS_THREAD = "pass"
# types of events that can change what a pass sees
_INTERESTING = frozenset({"container", "network", "volume", "image", "daemon"})
# exec and health probes come by the dozen and change nothing that sections declare; health_status is kept
_NOISE = ("exec_", "top", "attach", "resize", "archive-", "export", "commit")


def begin_thread(run: Callable[[], None]) -> None:
    """Runs a function in a daemon thread, which does not keep the process from ending."""
    threading.Thread(target=run, name="events", daemon=True).start()


class Loop:
    """Runs the passes of a reconciler. `pruning`, `loads` and `notices` run alongside the passes."""

    def __init__(
        self,
        reconciler: Reconciler,
        *,
        watch: tuple[Path, ...],
        watch_mounts: Callable[[Callable[[], None]], AbstractContextManager[object]] = MountWatch,
        begin_thread: Callable[[Callable[[], None]], None] = begin_thread,
        jitter: Callable[[], float] = random.random,
        pruning: PruneScheduler | None = None,
        loads: Loads | None = None,
        notices: Notices | None = None,
    ) -> None:
        self.reconciler = reconciler
        self.board: StatusBoard = reconciler.board
        self.passes = PassCounters()
        self._dirty = PassRequest(config=True, deep=True)  # what was requested since the last pass
        self._wake = asyncio.Event()  # something was requested, or the agent ends
        self._wake.set()
        self._one_pass = asyncio.Lock()
        # its own thread, so that passes still run if something exhausts the shared threads
        self._pass_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=PASS_THREAD)
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._pass_ended = asyncio.Event()
        self._last_pass = self._last_deep = self._last_look = self.reconciler.monotonic()
        self._last_end = self._last_pass
        self._retries: dict[bool, asyncio.TimerHandle] = {}  # with or without the configuration -> its timer
        self.parked = False
        self._pruning, self._loads, self._notices = pruning, loads, notices
        self._watch_mounts, self._begin_thread, self._jitter = watch_mounts, begin_thread, jitter
        reconciler.triggers.follow(self)
        self._watcher = FileWatcher(watch, frozenset(PACKAGES), lambda: self.trigger_threadsafe(config=True))

    async def _in_pass(self, work: Callable[[], Value]) -> Value:
        """Runs a blocking function in the thread of the passes. The caller holds `_one_pass`."""
        # after `stop` the thread may have been shut down
        thread = None if self._stop.is_set() else self._pass_thread
        return await self._loop.run_in_executor(thread, work)

    async def in_pass(self, work: Callable[[], Value]) -> Value:
        """Runs a blocking function while no pass runs."""
        async with self._one_pass:
            return await self._in_pass(work)

    async def settled_pass(self) -> None:
        """Runs a full pass; waits for works in progress before it, and for the works that it begins. Raises EngineError."""

        def whole_pass() -> None:
            with self.counted():
                self.read_config()
                self.reconciler.begin_pass(deep=None)

        await self.ended()
        # the pass would leave out resources that are still worked on, so wait for them first
        await self.in_pass(whole_pass)
        await self.ended()

    # triggers

    def trigger(self, *, config: bool = False, deep: bool = False, object_id: str = "") -> None:
        """Requests a pass soon."""
        self._dirty.config |= config
        self._dirty.deep |= deep
        if object_id:
            self._dirty.ids.add(object_id)
        self._wake.set()

    def trigger_threadsafe(self, *, config: bool = False, deep: bool = False, object_id: str = "") -> None:
        """`trigger` for other threads."""
        tell(self._loop, lambda: self.trigger(config=config, deep=deep, object_id=object_id))

    def trigger_after(self, seconds: float) -> None:
        """Requests a pass after some seconds; may be called from any thread."""
        tell(self._loop, lambda: self._loop.call_later(seconds, self.trigger))

    def stop(self) -> None:
        """Ends `run`; operations in progress are finished first."""
        self.reconciler.stopping.set()
        self._stop.set()
        self._wake.set()

    async def ended(self) -> None:
        """Waits for all runs that are in progress at the time of the call."""
        # not for runs that begin later: on a busy router that would never end
        for run in self.reconciler.under_way.runs():
            await asyncio.to_thread(run.wait)

    async def settled_files(self) -> None:
        """Waits while a file is being written in place, but not longer than a pass would wait."""
        # limited, because a program may keep a file open for writing for ever
        for _ in range(round(UNSETTLED_LIMIT_S / _LOOK_AGAIN_S)):
            if not self._watcher.unsettled():
                return
            await asyncio.sleep(_LOOK_AGAIN_S)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Counts a pass and its duration."""
        begin, ok = self.reconciler.monotonic(), False
        try:
            yield
            ok = True
        finally:
            self.passes.add(self.reconciler.monotonic() - begin, ok=ok)

    # the loop

    async def run(self) -> None:
        """Runs until `stop`. Afterwards `parked` says whether something is still in progress in a thread."""
        # before the first pass, so that changes during its reading are not missed
        self._look_at_files()
        # a path that did not answer may answer now: check again what waited for it
        PATHS.wake_by(lambda: self.trigger_threadsafe(config=True, deep=True))
        try:
            with self._watch_mounts(self.trigger):
                await self._run()
        finally:
            self._watcher.stop()
            if self._notices is not None:
                self._notices.stop()
            # a pass may hang on a dead mount; the end of the agent does not wait for it
            self._pass_thread.shutdown(wait=False)
            if self.reconciler.router is not None:
                self.reconciler.router.stop()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._begin_thread(self._follow_events)
            timers = group.create_task(self._timers(), name="timers")
            watchdog = group.create_task(self._watch_passes(), name="watchdog")
            passes = group.create_task(self._passes(), name="passes")
            sampling = group.create_task(self._loads.run(), name="load") if self._loads is not None else None
            await self._stop.wait()
            if sampling is not None:
                sampling.cancel()
            timers.cancel()
            watchdog.cancel()
            # Wait for works in progress, but not for ever: threads cannot be cancelled, and the next start finishes
            # or rolls back a half-done swap.
            try:
                async with asyncio.timeout(SETTLE_S):
                    await passes
                    while self.reconciler.under_way.is_busy():
                        self._wake.clear()
                        await self._wake.wait()
            except TimeoutError:
                self.parked = True
                logger.warning("something is still in progress: the next start continues it")
            try:
                await asyncio.to_thread(self.reconciler.records.fold)
            except StorageError as exc:  # the next start reads the file as it is
                logger.warning("%s", exc)

    async def _passes(self) -> None:
        while True:
            await self._wake.wait()
            if self._stop.is_set():
                return
            # an editor writes several files, and an engine sends several events, for a single change
            await asyncio.sleep(COALESCE_S)
            self._wake.clear()
            # the wake-up was meant for the end, and the line above must not swallow it
            if self._stop.is_set():
                self._wake.set()
                return
            dirty, self._dirty = self._dirty, PassRequest()
            async with self._one_pass:
                # the time of its beginning: whatever became due during the pass was not handled by it
                self._last_pass = self.reconciler.monotonic()
                await self._in_pass(functools.partial(self._body, dirty))
                self._last_end = self.reconciler.monotonic()
                if self.board.message(PASSES_KEY, ConditionType.PASS_STUCK):
                    logger.info("passes are running again")
                    self.board.drop(PASSES_KEY)
            if dirty.deep:
                self._last_deep = self._last_pass
            self._pass_ended.set()

    async def _watch_passes(self) -> None:
        """Sets a condition when passes have stopped: only passes change the rest of the board, so nothing else would
        show it."""
        while True:
            # before that, the first pass may be waiting for dockerd
            known = self.reconciler.desired is not None
            limit_s = STUCK_RESYNCS * (self._settings()[0] if known else FIRST_RESYNC_S)
            late_s = self.reconciler.monotonic() - self._last_end
            if late_s < limit_s:
                await asyncio.sleep(limit_s - late_s)
                continue
            hung = ", ".join(PATHS.hung())
            message = f"no pass has ended for {late_s:.0f} s" + (f"; {hung} does not answer" if hung else "")
            self.board.ensure(PASSES_KEY, "ucidockd", section="agent")
            if self.board.flag(PASSES_KEY, ConditionType.PASS_STUCK, "NoPass", message):
                logger.error("%s: changes are not applied", message)
            await asyncio.sleep(limit_s)

    def _body(self, dirty: PassRequest) -> None:
        """One pass. Blocks."""
        # the loop survives any error: the next trigger or resync tries again
        try:
            with self.counted():
                self._pass(dirty)
        except EngineError as exc:
            logger.warning("engine: %s", exc)
            self.reconciler.engine_failed(exc)
            self._later(RECONNECT_S, config=False)
        # not shown as an engine failure: the engine answers, and only this pass failed
        except UcidockdError:
            logger.exception("pass failed")
        except Exception:
            # the agent survives any error of a pass; the resync tries again
            logger.exception("pass failed")

    def _pass(self, dirty: PassRequest) -> None:
        if dirty.config or self.reconciler.is_incomplete():
            self.read_config()
        # the ids of triggers say which containers to inspect; the list calls cover all others
        self.reconciler.begin_pass(deep=None if dirty.deep else frozenset(dirty.ids))
        if self._pruning is not None:
            self._pruning.tick()
        # a device that was just plugged in only counts after it has stayed; nothing else would trigger that check
        settles_in = self.reconciler.usb.settles_in()
        if settles_in is not None:
            delay_s = settles_in
            tell(self._loop, lambda: self._loop.call_later(delay_s, self._wake.set))

    def read_config(self) -> None:
        """Reads the configuration, unless a file is being written in place. Both its closing and the end of the waiting
        time trigger another read."""
        self._look_at_files()
        # half a file would be a configuration without its last sections, whose containers would be removed
        if not self._watcher.unsettled():
            self.reconciler.read_config(unless=self._watcher.unsettled)
            if self._notices is not None and self.reconciler.desired is not None:
                self._notices.want(self.reconciler.desired.notices, self.reconciler.desired.broken)
        if self._watcher.unsettled():
            self._later(UNSETTLED_LIMIT_S, config=True)

    def _look_at_files(self) -> bool:
        """Repairs the file watches. True if files have changed."""
        self._last_look = self.reconciler.monotonic()
        changed = self._watcher.look_again()
        self.board.set_agent(watch=self._watcher.state())
        return changed

    def _later(self, delay_s: float, *, config: bool) -> None:
        def put_off() -> None:
            # only one timer of each kind: every failed pass requests one, and they would multiply
            before = self._retries.pop(config, None)
            if before is not None:
                before.cancel()
            self._retries[config] = self._loop.call_later(delay_s, lambda: self.trigger(config=config))

        tell(self._loop, put_off)

    async def _timers(self) -> None:
        """Timers for resync, deep resync, back-off and, if files cannot be watched, polling. Sleeps until the first is
        due."""
        while True:
            self._pass_ended.clear()
            due = self._due()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, due - self.reconciler.monotonic())):
                    await self._pass_ended.wait()  # a pass may have changed every due time
            now = self.reconciler.monotonic()
            if now < due:  # a pass ended and changed the due time
                continue
            # checking the files is cheap and covers polling; a pass is triggered only if something is due
            files = self._look_at_files()
            deep = now >= self._last_deep + self._settings()[1]
            if files or deep or now >= self._due(polls=False):
                self._pass_ended.clear()
                self.trigger(config=files or deep, deep=deep)
                await self._pass_ended.wait()

    def _due(self, *, polls: bool = True) -> float:
        resync_s, deep_s = self._settings()
        times = [self._last_pass + resync_s, self._last_deep + deep_s]
        # counted from the beginning of the last pass: whatever became due while it ran was not handled
        waits = (self.reconciler.backoff.next_try, self.reconciler.under_way.next_question)
        times.extend(wait(self._last_pass) or float("inf") for wait in waits)
        if polls:
            times.append(self._last_look + (POLL_S if self._watcher.is_blind() else LOST_S))
        return min(times)

    def _settings(self) -> tuple[float, float]:
        desired = self.reconciler.desired
        return (desired.agent.resync_s, desired.agent.resync_deep_s) if desired else (5.0, 600.0)

    def _follow_events(self) -> None:
        """Reads the engine's events. Blocks in its own thread: the engine drops subscribers that do not read within 100
        ms."""
        while not self._stop.is_set():
            try:
                # Subscribe from now on, not from the last event: the deep pass below covers whatever was missed, even
                # across a restart of the engine, whose clock may have been set meanwhile.
                stream = self.reconciler.engine.events(None)
                self.trigger_threadsafe(deep=True)  # covers what happened while the stream was interrupted
                try:
                    for event in stream:
                        self._on_event(event)
                        if self._stop.is_set():
                            return
                finally:
                    self.trigger_threadsafe()  # the engine may be unreachable, which status has to show
            except EngineError as exc:
                logger.debug("event stream: %s", exc)
            if not self._stop.is_set():
                self.reconciler.stopping.wait(RECONNECT_S * (0.5 + self._jitter()))

    def _on_event(self, event: dict[str, object]) -> None:
        action = str(event.get("Action") or event.get("status") or "")
        if event.get("Type") not in _INTERESTING or action.startswith(_NOISE):
            return
        # An event only says where to look: events may be lost, duplicated or late, so their content never causes an
        # action.
        actor = event.get("Actor")
        object_id = str(actor.get("ID", "")) if isinstance(actor, dict) else ""
        # a network event names the network; the container that was connected or disconnected is an attribute
        if event.get("Type") == "network" and isinstance(actor, dict):
            object_id = str((actor.get("Attributes") or {}).get("container", ""))
        # a tag that moved or an image that was removed may affect any container
        self.trigger_threadsafe(deep=event.get("Type") == "image", object_id=object_id)
        if action == "die":  # the engine sends this event before its own state is up to date
            tell(
                self._loop, lambda: self._loop.call_later(AGAIN_S, lambda: self.trigger(object_id=object_id))
            )
