# SPDX-License-Identifier: GPL-2.0-or-later
"""The loop: triggers mark it dirty, a pass runs 100 ms after the first of them, one pass at a time.

A pass only begins what is to be done; the end of each work is a trigger again: what was just done has to hold.
Level-triggered: what a trigger says is a hint about what to inspect, never what to do.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agent.apply.crew import Run
from agent.apply.ports import Engine
from agent.clients.file_watcher import FileWatcher
from agent.errors import EngineError, UcidockdError
from agent.model.issues import issue_as_json
from agent.model.resources import RegistryAuth
from agent.plan.operations import Plan
from agent.runtime.adopt import AdoptRequest
from agent.runtime.config import PACKAGES
from agent.runtime.differ import diff
from agent.runtime.reconciler import Reconciler, engine_failure, outcomes_as_json, plan_as_json
from agent.status.board import StatusBoard
from agent.status.counters import PassCounters

logger = logging.getLogger(__name__)

COALESCE_S = 0.1
RECONNECT_S = 2.0
_INTERESTING = frozenset({"container", "network", "volume", "image", "daemon"})
# exec and health probes come by the dozen and change nothing that we declare; health_status does
_NOISE = ("exec_", "top", "attach", "resize", "archive-", "export", "commit")


@dataclass(slots=True)
class Dirty:
    """What the triggers asked for since the last pass."""

    config: bool = False
    deep: bool = False
    ids: set[str] = field(default_factory=set)


class Loop:
    """Implements `agent.controller.port.AgentPort` on top of the reconciler."""

    def __init__(self, reconciler: Reconciler, *, watch: tuple[Path, ...]) -> None:
        self.reconciler = reconciler
        self.board: StatusBoard = reconciler.board
        self.passes = PassCounters()
        self._dirty = Dirty(config=True, deep=True)
        self._wake = asyncio.Event()
        self._wake.set()
        self._one_pass = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        reconciler.work_ended = self.trigger_threadsafe
        self._watcher = FileWatcher(watch, frozenset(PACKAGES), lambda: self.trigger_threadsafe(config=True))

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
        self._loop.call_soon_threadsafe(lambda: self.trigger(config=config, deep=deep, object_id=object_id))

    def stop(self) -> None:
        """Ends `run`: the operation under way is finished first."""
        self.reconciler.stopping.set()
        self._stop.set()
        self._wake.set()

    # the port for the controller

    async def plan(self) -> dict[str, object]:
        """What a pass would do now."""
        async with self._one_pass:
            plan = await asyncio.to_thread(self._plan_now)
        return {**plan_as_json(plan), "issues": self.config_issues()}

    def _plan_now(self) -> Plan:
        self.reconciler.read_config()
        return self.reconciler.make_plan(deep=None)

    async def reconcile(self) -> dict[str, object]:
        """Does a full pass now, without regard to back-off."""
        self.reconciler.backoff.clear()
        self.reconciler.holds.clear()
        async with self._one_pass:
            plan, run = await asyncio.to_thread(self._reconcile_now)
        outcomes = await asyncio.to_thread(run.wait) if run is not None else ()
        return {**outcomes_as_json(plan, outcomes), "issues": self.config_issues()}

    def _reconcile_now(self) -> tuple[Plan, Run | None]:
        with self._counted():
            self.reconciler.read_config()
            return self.reconciler.begin_pass(deep=None)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Counts a pass and the time that it takes."""
        begin, ok = time.monotonic(), False
        try:
            yield
            ok = True
        finally:
            self.passes.add(time.monotonic() - begin, ok=ok)

    async def validate(self, texts: Mapping[str, str]) -> list[dict[str, object]]:
        """The mistakes of the configuration, were `texts` the files of the packages that they are for."""
        issues = await asyncio.to_thread(self.reconciler.check, texts)
        return [issue_as_json(issue) for issue in issues]

    def auths(self) -> Sequence[RegistryAuth]:
        """The registry logins that UCI has now."""
        desired = self.reconciler.desired
        return desired.auths if desired is not None else ()

    async def adopt(
        self, container: str, *, section: str, commit: bool, show_secrets: bool
    ) -> dict[str, object]:
        """A container that is not ours as UCI sections; the commit is seen as any other."""
        request = AdoptRequest(container=container, section=section, commit=commit, show_secrets=show_secrets)
        return await asyncio.to_thread(self.reconciler.adopt, request)

    async def diff(self, name: str) -> dict[str, object]:
        """One container section against what the engine shows."""
        async with self._one_pass:
            return await asyncio.to_thread(self._diff_now, name)

    def _diff_now(self, name: str) -> dict[str, object]:
        self.reconciler.read_config()
        return diff(self.reconciler, name)

    async def manual(self, container: str, action: str) -> None:
        """Holds a managed container as a manual action leaves it; others are nobody's business. Before the action."""
        if await asyncio.to_thread(self.reconciler.hold, container, action):
            self.trigger()

    async def manual_failed(self, container: str) -> None:
        """The engine refused the action: nothing is held for it."""
        await asyncio.to_thread(self.reconciler.release, container)
        self.trigger()

    def config_issues(self) -> list[dict[str, object]]:
        """The mistakes of the last read."""
        return [{"severity": i.severity, "text": i.text()} for i in self.reconciler.last.issues]

    # the loop

    async def run(self) -> None:
        """Runs until `stop`."""
        self._watcher.start()
        try:
            async with asyncio.TaskGroup() as group:
                follower = threading.Thread(target=self._follow_events, name="events", daemon=True)
                follower.start()
                timers = group.create_task(self._timers(), name="timers")
                await self._passes()
                timers.cancel()
        finally:
            self._watcher.stop()

    async def _passes(self) -> None:
        while True:
            await self._wake.wait()
            if self._stop.is_set():
                return
            await asyncio.sleep(COALESCE_S)
            self._wake.clear()
            if self._stop.is_set():  # it woke us up to end, and that must not get lost in the line above
                return
            dirty, self._dirty = self._dirty, Dirty()
            async with self._one_pass:
                await asyncio.to_thread(self._body, dirty)

    def _body(self, dirty: Dirty) -> None:
        """One pass. Blocks."""
        try:
            with self._counted():
                self._pass(dirty)
        except EngineError as exc:
            logger.warning("engine: %s", exc)
            engine_failure(self.board, exc, time.time())
            self._loop.call_soon_threadsafe(self._loop.call_later, RECONNECT_S, self._wake.set)
        except UcidockdError:
            logger.exception("pass failed")
        except Exception:
            # the agent stays up whatever a pass runs into; the resync tries again
            logger.exception("pass failed")

    def _pass(self, dirty: Dirty) -> None:
        if dirty.config and self._watcher.unsettled():
            self.trigger_threadsafe(config=True)
        elif dirty.config or self.reconciler.desired is None:
            self.reconciler.read_config()
        self.reconciler.begin_pass(deep=None if dirty.deep else frozenset(dirty.ids))
        settles_in = self.reconciler.usb.settles_in()
        if settles_in is not None:
            self._loop.call_soon_threadsafe(self._loop.call_later, settles_in, self._wake.set)

    async def _timers(self) -> None:
        """Resync, deep resync and back-off; sleeps until the first of them is due."""
        deep_at = time.monotonic() + self._settings()[1]
        while True:
            resync_s, deep_s = self._settings()
            due = min(
                time.monotonic() + resync_s, deep_at, self.reconciler.backoff.next_try() or float("inf")
            )
            await asyncio.sleep(max(0.5, due - time.monotonic()))
            now = time.monotonic()
            if now >= deep_at:
                deep_at = now + deep_s
                self.trigger(config=True, deep=True)
            else:
                self.trigger(config=self._watcher.look_again())

    def _settings(self) -> tuple[float, float]:
        desired = self.reconciler.desired
        return (desired.agent.resync_s, desired.agent.resync_deep_s) if desired else (5.0, 600.0)

    def _follow_events(self) -> None:
        """Blocks in a thread of its own: the engine drops subscribers that do not read within 100 ms."""
        jitter = random.Random()
        while not self._stop.is_set():
            try:
                stream = self._engine().events(None)
                self.trigger_threadsafe(deep=True)  # whatever happened while nobody listened
                for event in stream:
                    self._on_event(event)
                    if self._stop.is_set():
                        return
            except EngineError as exc:
                logger.debug("event stream: %s", exc)
            if not self._stop.is_set():
                self.reconciler.stopping.wait(RECONNECT_S * (0.5 + jitter.random()))

    def _engine(self) -> Engine:
        return self.reconciler.engine

    def _on_event(self, event: dict[str, object]) -> None:
        action = str(event.get("Action") or event.get("status") or "")
        if event.get("Type") not in _INTERESTING or action.startswith(_NOISE):
            return
        actor = event.get("Actor")
        object_id = str(actor.get("ID", "")) if isinstance(actor, dict) else ""
        if event.get("Type") == "network" and isinstance(actor, dict):
            object_id = str((actor.get("Attributes") or {}).get("container", ""))
        self.trigger_threadsafe(deep=event.get("Type") == "image", object_id=object_id)
