# SPDX-License-Identifier: GPL-2.0-or-later
"""The loop: triggers mark it dirty, a pass runs 100 ms after the first of them, one pass at a time.

A pass only begins what is to be done; the end of each work is a trigger again: what was just done has to hold.
Level-triggered: what a trigger says is a hint about what to inspect, never what to do.
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
from agent.files.watcher import UNSETTLED_LIMIT_S, FileWatcher
from agent.router.mounts import MountWatch
from agent.runtime.reconciler import Reconciler
from agent.runtime.triggers import Dirty
from agent.status.board import StatusBoard
from agent.status.conditions import ConditionType
from agent.status.metrics import PassCounters
from agent.threads import tell
from agent.uci.decode import PACKAGES

if TYPE_CHECKING:
    from agent.notices.gate import Notices
    from agent.observe.load import Loads
    from agent.storage.upkeep import Upkeep

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

COALESCE_S = 0.1
AGAIN_S = 1.0  # after the end of a container, for another look at it
RECONNECT_S = 2.0
POLL_S = 5.0  # how often to look for changed files where they cannot be watched
LOST_S = (
    10.0  # and where they can: the kernel drops events when its queue is full, and watchdog does not tell
)
_LOOK_AGAIN_S = 0.05
FIRST_RESYNC_S = 60.0  # while no configuration has been read
STUCK_RESYNCS = 2  # without the end of a pass, until that is a condition
PASSES_KEY = "agent:passes"
SETTLE_S = 2.5
PASS_THREAD = "pass"
_INTERESTING = frozenset({"container", "network", "volume", "image", "daemon"})
# exec and health probes come by the dozen and change nothing that we declare; health_status does
_NOISE = ("exec_", "top", "attach", "resize", "archive-", "export", "commit")


def begin_thread(run: Callable[[], None]) -> None:
    """Runs it in a thread that keeps nothing from ending."""
    threading.Thread(target=run, name="events", daemon=True).start()


class Loop:
    """Runs the passes of a reconciler. `upkeep`, `loads` and `notices` go along with them."""

    def __init__(
        self,
        reconciler: Reconciler,
        *,
        watch: tuple[Path, ...],
        watch_mounts: Callable[[Callable[[], None]], AbstractContextManager[object]] = MountWatch,
        begin_thread: Callable[[Callable[[], None]], None] = begin_thread,
        jitter: Callable[[], float] = random.random,
        upkeep: Upkeep | None = None,
        loads: Loads | None = None,
        notices: Notices | None = None,
    ) -> None:
        self.reconciler = reconciler
        self.board: StatusBoard = reconciler.board
        self.passes = PassCounters()
        self._dirty = Dirty(config=True, deep=True)
        self._wake = asyncio.Event()
        self._wake.set()
        self._one_pass = asyncio.Lock()
        # its own thread: whatever else uses up the shared ones, passes are running again
        self._pass_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=PASS_THREAD)
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._pass_ended = asyncio.Event()
        self._last_pass = self._last_deep = self._last_look = self.reconciler.monotonic()
        self._last_end = self._last_pass
        self._retries: dict[bool, asyncio.TimerHandle] = {}
        self.parked = False
        self._upkeep, self._loads, self._notices = upkeep, loads, notices
        self._watch_mounts, self._begin_thread, self._jitter = watch_mounts, begin_thread, jitter
        reconciler.triggers.follow(self)
        self._watcher = FileWatcher(watch, frozenset(PACKAGES), lambda: self.trigger_threadsafe(config=True))

    async def _in_pass(self, work: Callable[[], Value]) -> Value:
        """Runs what blocks in the passes' own thread. Under `_one_pass`."""
        thread = None if self._stop.is_set() else self._pass_thread  # which may have been shut down by then
        return await self._loop.run_in_executor(thread, work)

    async def in_pass(self, work: Callable[[], Value]) -> Value:
        """Runs what blocks while no pass runs."""
        async with self._one_pass:
            return await self._in_pass(work)

    async def settled_pass(self) -> None:
        """A full pass, and the end of what was under way before and of what it began. Raises EngineError."""

        def whole_pass() -> None:
            with self.counted():
                self.read_config()
                self.reconciler.begin_pass(deep=None)

        await self.ended()
        # What is still worked on would be left out of this pass, so it was waited for first.
        await self.in_pass(whole_pass)
        await self.ended()

    # triggers

    def trigger(self, *, config: bool = False, deep: bool = False, object_id: str = "") -> None:
        """Asks for a pass soon."""
        self._dirty.config |= config
        self._dirty.deep |= deep
        if object_id:
            self._dirty.ids.add(object_id)
        self._wake.set()

    def trigger_threadsafe(self, *, config: bool = False, deep: bool = False, object_id: str = "") -> None:
        """`trigger` from another thread."""
        tell(self._loop, lambda: self.trigger(config=config, deep=deep, object_id=object_id))

    def trigger_after(self, seconds: float) -> None:
        """A trigger in a while; from any thread."""
        tell(self._loop, lambda: self._loop.call_later(seconds, self.trigger))

    def stop(self) -> None:
        """Ends `run`: the operation under way is finished first."""
        self.reconciler.stopping.set()
        self._stop.set()
        self._wake.set()

    async def ended(self) -> None:
        """Returns when nothing is under way that was so when it was called."""
        # Not what begins meanwhile: on a busy router that would never end.
        for run in self.reconciler.under_way.runs():
            await asyncio.to_thread(run.wait)

    async def settled_files(self) -> None:
        """Waits while a file is being written in place, no longer than a pass would take."""
        # There is a limit since a program may keep a file open for writing for ever.
        for _ in range(round(UNSETTLED_LIMIT_S / _LOOK_AGAIN_S)):
            if not self._watcher.unsettled():
                return
            await asyncio.sleep(_LOOK_AGAIN_S)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Counts a pass and the time that it takes."""
        begin, ok = self.reconciler.monotonic(), False
        try:
            yield
            ok = True
        finally:
            self.passes.add(self.reconciler.monotonic() - begin, ok=ok)

    # the loop

    async def run(self) -> None:
        """Runs until `stop`. Afterwards `parked` says whether something is still under way in a thread."""
        # before the first pass: what changes while that reads must not be missed
        self._look_at_files()
        # a path that did not answer may answer now: what waited for it is looked at again
        PATHS.wake_by(lambda: self.trigger_threadsafe(config=True, deep=True))
        try:
            with self._watch_mounts(self.trigger):
                await self._run()
        finally:
            self._watcher.stop()
            if self._notices is not None:
                self._notices.stop()
            # A pass may hang on a dead mount; the end of the agent does not wait for it.
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
            # Waits for what is under way, not for ever: threads cannot be cancelled, and what a swap leaves half done
            # the next start mends.
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
            except StorageError as exc:  # the next start reads what there is
                logger.warning("%s", exc)

    async def _passes(self) -> None:
        while True:
            await self._wake.wait()
            if self._stop.is_set():
                return
            # an editor writes several files, and an engine sends several events for one change
            await asyncio.sleep(COALESCE_S)
            self._wake.clear()
            if self._stop.is_set():  # it woke us up to end, and that must not get lost in the line above
                self._wake.set()
                return
            dirty, self._dirty = self._dirty, Dirty()
            async with self._one_pass:
                # its begin: what became due during the pass has not been tried by it
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
        """Says so when passes have stopped: nothing else on the board would, as only a pass changes it."""
        while True:
            known = self.reconciler.desired is not None  # before, the first pass may be waiting for dockerd
            limit_s = STUCK_RESYNCS * (self._settings()[0] if known else FIRST_RESYNC_S)
            late_s = self.reconciler.monotonic() - self._last_end
            if late_s < limit_s:
                await asyncio.sleep(limit_s - late_s)
                continue
            hung = ", ".join(PATHS.hung())
            message = f"no pass has ended for {late_s:.0f} s" + (f"; {hung} does not answer" if hung else "")
            self.board.ensure(PASSES_KEY, "ucidockd", section="agent")
            if self.board.flag(PASSES_KEY, ConditionType.PASS_STUCK, "NoPass", message):
                logger.error("%s: what is declared is not followed", message)
            await asyncio.sleep(limit_s)

    def _body(self, dirty: Dirty) -> None:
        """One pass. Blocks."""
        # whatever happens, the loop goes on: the next trigger or resync tries again
        try:
            with self.counted():
                self._pass(dirty)
        except EngineError as exc:
            logger.warning("engine: %s", exc)
            self.reconciler.engine_failed(exc)
            self._later(RECONNECT_S, config=False)
        # Not shown as the engine's failure: the engine answers, and only this pass did not get through.
        except UcidockdError:
            logger.exception("pass failed")
        except Exception:
            # the agent stays up whatever a pass runs into; the resync tries again
            logger.exception("pass failed")

    def _pass(self, dirty: Dirty) -> None:
        if dirty.config or self.reconciler.is_incomplete():
            self.read_config()
        # The ids of a trigger say where to look closely; all others are seen by the list calls anyway.
        self.reconciler.begin_pass(deep=None if dirty.deep else frozenset(dirty.ids))
        if self._upkeep is not None:
            self._upkeep.tick()
        # a device that was just plugged in counts only once it stayed: nothing else would ask for that look
        settles_in = self.reconciler.usb.settles_in()
        if settles_in is not None:
            delay_s = settles_in
            tell(self._loop, lambda: self._loop.call_later(delay_s, self._wake.set))

    def read_config(self) -> None:
        """Not while a file is being written in place; its closing is a trigger, and so is the end of our patience."""
        self._look_at_files()
        # half a file would be a configuration without its last sections, whose containers would be removed
        if not self._watcher.unsettled():
            self.reconciler.read_config(unless=self._watcher.unsettled)
            if self._notices is not None and self.reconciler.desired is not None:
                self._notices.want(self.reconciler.desired.notices, self.reconciler.desired.broken)
        if self._watcher.unsettled():
            self._later(UNSETTLED_LIMIT_S, config=True)

    def _look_at_files(self) -> bool:
        """Mends the watches. True when files are not what they were."""
        self._last_look = self.reconciler.monotonic()
        changed = self._watcher.look_again()
        self.board.set_agent(watch=self._watcher.state())
        return changed

    def _later(self, delay_s: float, *, config: bool) -> None:
        def put_off() -> None:
            # one of a kind: each pass that fails asks for another, and those that others trigger would multiply
            before = self._retries.pop(config, None)
            if before is not None:
                before.cancel()
            self._retries[config] = self._loop.call_later(delay_s, lambda: self.trigger(config=config))

        tell(self._loop, put_off)

    async def _timers(self) -> None:
        """Resync, deep resync, back-off and, where files cannot be watched, polling: sleeps until the first is due."""
        while True:
            self._pass_ended.clear()
            due = self._due()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, due - self.reconciler.monotonic())):
                    await self._pass_ended.wait()  # which may have moved everything
            now = self.reconciler.monotonic()
            if now < due:  # a pass ended and moved what is due
                continue
            # a look at the files is cheap, and does for the poll; the pass is asked for only where something is due
            files = self._look_at_files()
            deep = now >= self._last_deep + self._settings()[1]
            if files or deep or now >= self._due(polls=False):
                self._pass_ended.clear()
                self.trigger(config=files or deep, deep=deep)
                await self._pass_ended.wait()

    def _due(self, *, polls: bool = True) -> float:
        resync_s, deep_s = self._settings()
        times = [self._last_pass + resync_s, self._last_deep + deep_s]
        # Counted from the begin of the last pass: what became due while it ran has not been tried.
        times.append(self.reconciler.backoff.next_try(self._last_pass) or float("inf"))
        if polls:
            times.append(self._last_look + (POLL_S if self._watcher.is_blind() else LOST_S))
        return min(times)

    def _settings(self) -> tuple[float, float]:
        desired = self.reconciler.desired
        return (desired.agent.resync_s, desired.agent.resync_deep_s) if desired else (5.0, 600.0)

    def _follow_events(self) -> None:
        """Blocks in its own thread: the engine drops subscribers that do not read within 100 ms."""
        while not self._stop.is_set():
            try:
                # From now on, not from the last event seen: the deep look below makes up for whatever was missed, also
                # across a restart of the engine, whose clock may have been set meanwhile.
                stream = self.reconciler.engine.events(None)
                self.trigger_threadsafe(deep=True)  # whatever happened while the stream was down
                try:
                    for event in stream:
                        self._on_event(event)
                        if self._stop.is_set():
                            return
                finally:
                    self.trigger_threadsafe()  # the engine may be away: status has to say so
            except EngineError as exc:
                logger.debug("event stream: %s", exc)
            if not self._stop.is_set():
                self.reconciler.stopping.wait(RECONNECT_S * (0.5 + self._jitter()))

    def _on_event(self, event: dict[str, object]) -> None:
        action = str(event.get("Action") or event.get("status") or "")
        if event.get("Type") not in _INTERESTING or action.startswith(_NOISE):
            return
        # What an event says is only where to look: events may be lost, doubled and late, so nothing is ever done
        # because of what is in them.
        actor = event.get("Actor")
        object_id = str(actor.get("ID", "")) if isinstance(actor, dict) else ""
        # an event of a network names the network: the container that was connected or not is an attribute
        if event.get("Type") == "network" and isinstance(actor, dict):
            object_id = str((actor.get("Attributes") or {}).get("container", ""))
        # a tag that moves or an image that is gone may concern any container
        self.trigger_threadsafe(deep=event.get("Type") == "image", object_id=object_id)
        if action == "die":  # the engine says so before all that it shows is up to date
            tell(
                self._loop, lambda: self._loop.call_later(AGAIN_S, lambda: self.trigger(object_id=object_id))
            )
