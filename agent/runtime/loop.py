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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from agent.apply.worker_pool import Outcome
from agent.errors import ConfigError, ConflictError, EngineError, StorageError, UcidockdError
from agent.files.user_paths import PATHS
from agent.files.watcher import UNSETTLED_LIMIT_S, FileWatcher
from agent.model.dockerd.settings import DaemonAction
from agent.model.identity import Key
from agent.model.issues import Given, issue_as_json
from agent.model.resources import RegistryAuth
from agent.router.mounts import MountWatch
from agent.runtime.reconciler import Reconciler
from agent.status.board import StatusBoard
from agent.status.conditions import ConditionType
from agent.status.metrics import Metric, PassCounters
from agent.threads import tell
from agent.uci.decode import PACKAGES

if TYPE_CHECKING:
    from agent.api.port import Told
    from agent.convert.requests import ImportRequest
    from agent.notices.gate import Notices
    from agent.observe.load import Loads
    from agent.plan.outlook import Outlook
    from agent.runtime.moving import Mover
    from agent.runtime.updating import Asked
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
_WAVES = 20  # passes of one `reconcile`: what comes back again and again does not keep it for ever
_LOOK_AGAIN_S = 0.05
FIRST_RESYNC_S = 60.0  # while no configuration has been read
STUCK_RESYNCS = 2  # without the end of a pass, until that is a condition
PASSES_KEY = "agent:passes"
COPY_WAITS_S = 60.0  # for what is being done to a container whose volume is to be copied
SETTLE_S = 2.5
PASS_THREAD = "pass"
_INTERESTING = frozenset({"container", "network", "volume", "image", "daemon"})
# exec and health probes come by the dozen and change nothing that we declare; health_status does
_NOISE = ("exec_", "top", "attach", "resize", "archive-", "export", "commit")


@dataclass(slots=True)
class Dirty:
    """What the triggers asked for since the last pass."""

    config: bool = False
    deep: bool = False
    ids: set[str] = field(default_factory=set)


def begin_thread(run: Callable[[], None]) -> None:
    """Runs it in a thread that keeps nothing from ending."""
    threading.Thread(target=run, name="events", daemon=True).start()


class Loop:
    """Implements `agent.api.port.AgentPort` on top of the reconciler."""

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
        make_mover: Callable[[Loop], Mover] | None = None,
    ) -> None:
        self.reconciler = reconciler
        self.board: StatusBoard = reconciler.board
        self.passes = PassCounters()
        self._dirty = Dirty(config=True, deep=True)
        self._wake = asyncio.Event()
        self._wake.set()
        self._one_pass = asyncio.Lock()
        self._one_client = asyncio.Lock()
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
        self._make_mover = functools.cache(make_mover) if make_mover is not None else None
        self._watch_mounts, self._begin_thread, self._jitter = watch_mounts, begin_thread, jitter
        reconciler.work_ended = self.trigger_threadsafe
        if reconciler.daemon is not None:
            reconciler.daemon.wake = self._trigger_after
        if reconciler.router is not None:
            reconciler.router.wake = lambda: self._trigger_after(0)
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
            with self._counted():
                self._read_config()
                self.reconciler.begin_pass(deep=None)

        await self._ended()
        await self.in_pass(whole_pass)
        await self._ended()

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

    def _trigger_after(self, seconds: float) -> None:
        """A trigger in a while; from any thread."""
        tell(self._loop, lambda: self._loop.call_later(seconds, self.trigger))

    def stop(self) -> None:
        """Ends `run`: the operation under way is finished first."""
        self.reconciler.stopping.set()
        self._stop.set()
        self._wake.set()

    # the port for the controller

    async def plan(self, given: Given | None = None) -> dict[str, Any]:
        """What a pass would do now, or would do were `given` committed."""
        from agent.runtime.planning import plan_answer  # an agent that nobody asks does without

        if given is not None:
            return await self._plan_of(given)
        await self._settled_files()

        def plan_now() -> Outlook:
            self._read_config()
            return self.reconciler.foresee()

        async with self._one_pass:
            found = await self._in_pass(plan_now)
        return plan_answer(found, self.config_issues())

    async def _plan_of(self, given: Given) -> dict[str, Any]:
        from agent.runtime.planning import plan_answer

        change = await asyncio.to_thread(self.reconciler.load_change, given)
        async with self._one_pass:
            found = await self._in_pass(lambda: self.reconciler.foresee_change(change))
        return plan_answer(found, [issue_as_json(issue) for issue in change.loaded.issues])

    async def reconcile(self, *, settle_s: float = 0.0) -> dict[str, Any]:
        """Does a full pass now, without regard to what failed before.

        Waits for that and for what was under way, and continues while something can be done at once: what they leave to
        do is a matter of this call too. What waits for something else is told. `settle_s`: seconds that what was
        started has to run before it counts as done.
        """
        from agent.runtime.planning import reconcile_answer

        def reconcile_now() -> None:
            with self._counted():
                self.reconciler.forget_failures()
                self._read_config()
                # what a person asks for is meant for the engine that is there
                if self.reconciler.daemon is not None:
                    self.reconciler.daemon.accept_engine()
                self.reconciler.begin_pass(deep=None)

        self.reconciler.holds.clear()
        await self._settled_files()
        with self.reconciler.under_way.collecting() as outcomes:
            async with self._one_pass:
                await self._in_pass(reconcile_now)
            found = await self._until_idle(outcomes, settle_s)
            return reconcile_answer(found, outcomes, self.config_issues())

    async def _until_idle(self, outcomes: Sequence[Outcome], settle_s: float = 0.0) -> Outlook:
        """Goes on while something can be done at once; returns what is then left."""
        from agent.runtime.planning import Settling

        settling, waves = Settling(settle_s, self.reconciler.monotonic), 0
        while True:
            await self._ended()
            async with self._one_pass:
                found = await self._in_pass(self._go_on)
            # what was begun may end well and be gone a second later (a service that exits): `settle_s` is that second
            waves += self.reconciler.under_way.is_busy()
            if waves >= _WAVES or not (self.reconciler.under_way.is_busy() or settling.lasts(outcomes)):
                return found
            if not self.reconciler.under_way.is_busy():
                await asyncio.sleep(Settling.LOOK_S)

    async def update(self, names: Sequence[str]) -> dict[str, object]:
        """Replaces containers by ones of the newest images; answers when that is done or waits for something."""
        return await self._renew(names, back=False)

    async def rollback(self, name: str, *, with_data: bool = False) -> dict[str, object]:
        """Takes a container back to the image before."""
        return await self._renew([name], back=True, with_data=with_data)

    async def _renew(self, names: Sequence[str], *, back: bool, with_data: bool = False) -> dict[str, object]:
        from agent.runtime.updating import answer, ask  # few need it

        def begin() -> tuple[Asked, ...]:
            self._read_config()
            asked = ask(self.reconciler, names, back=back, with_data=with_data)
            with self._counted():
                self.reconciler.begin_pass(deep=None)
            return asked

        await self._settled_files()
        with self.reconciler.under_way.collecting() as outcomes:
            async with self._one_pass:
                asked = await self._in_pass(begin)
            found = await self._until_idle(outcomes)
            return answer(self.reconciler, asked, found, outcomes)

    def _go_on(self) -> Outlook:
        """Begins what can be done by now. What it gives counts when nothing is."""
        found = self.reconciler.foresee()
        if found.plan.works and not self._stop.is_set():
            with self._counted():
                self.reconciler.begin_pass(deep=None)
        return found

    async def _ended(self) -> None:
        """Returns when nothing is under way that was so when it was called."""
        for run in self.reconciler.under_way.runs():
            await asyncio.to_thread(run.wait)

    async def _settled_files(self) -> None:
        """Waits while a file is being written in place, no longer than a pass would take."""
        for _ in range(round(UNSETTLED_LIMIT_S / _LOOK_AGAIN_S)):
            if not self._watcher.unsettled():
                return
            await asyncio.sleep(_LOOK_AGAIN_S)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Counts a pass and the time that it takes."""
        begin, ok = self.reconciler.monotonic(), False
        try:
            yield
            ok = True
        finally:
            self.passes.add(self.reconciler.monotonic() - begin, ok=ok)

    async def validate(self, texts: Mapping[str, str]) -> list[dict[str, object]]:
        """The mistakes of the configuration, were `texts` the files of the packages that they are for."""
        issues = await asyncio.to_thread(self.reconciler.mistakes, Given(texts=texts))
        return [issue_as_json(issue) for issue in issues]

    async def load(self, name: str = "", *, hours: float = 24.0) -> dict[str, Any]:
        """What all containers take now, or one of them in the last hours."""
        if self._loads is None:
            raise ConflictError("this agent measures no load")
        return self._loads.of(name, hours=hours) if name else await self._loads.now()

    def load_metrics(self) -> list[Metric]:
        """What containers took at the last sample."""
        return self._loads.metrics() if self._loads is not None else []

    def api_version(self) -> str:
        """`dockerd.globals.api_version`."""
        desired = self.reconciler.desired
        return desired.daemon.api_version if desired is not None and desired.daemon is not None else ""

    def images(self) -> frozenset[str]:
        """The images, references and ids, that no clean-up may take. Raises ConfigError, ConflictError."""
        from agent.plan.prune import needed_images

        return frozenset(needed_images(self.reconciler.declared(), self.reconciler.records.records()))

    def auths(self) -> Sequence[RegistryAuth]:
        """The registry logins that UCI has now."""
        desired = self.reconciler.desired
        return desired.auths if desired is not None else ()

    async def adopt(
        self, container: str, *, section: str, commit: bool, show_secrets: bool
    ) -> dict[str, object]:
        """A container that is not ours as UCI sections; the commit is seen as any other."""
        from agent.runtime.adopt import AdoptRequest  # a megabyte that few need

        request = AdoptRequest(container=container, section=section, commit=commit, show_secrets=show_secrets)
        return await asyncio.to_thread(self.reconciler.adopt, request)

    async def import_text(self, request: ImportRequest) -> dict[str, object]:
        """A docker run line or a compose file as UCI sections; the commit is seen as any other."""
        from agent.runtime.importer import Importer  # a megabyte that few need

        return await asyncio.to_thread(Importer(store=self.reconciler.store).run, request)

    def export_text(self, form: str, names: Sequence[str]) -> str:
        """Container sections as docker run lines or a compose file."""
        from agent.convert.requests import export  # as above

        return export(form, names, self.reconciler.declared())

    async def prune(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """See `agent.storage.pruner`."""
        from agent.storage.pruner import PruneRequest  # few need it

        if self._upkeep is None:
            raise ConflictError("this agent does not clean up")
        self.reconciler.declared()
        request = PruneRequest(**{"images": self._upkeep.images(), **asked})
        return await asyncio.to_thread(self._upkeep.prune, request)

    async def notify_test(self, name: str) -> dict[str, Any]:
        """Sends a test notice through one section."""
        if self._notices is None:
            raise ConflictError("this agent sends no notices")
        return await asyncio.to_thread(self._notices.test, name)

    async def diff(self, name: str) -> dict[str, object]:
        """One container section against what the engine shows."""

        def diff_now() -> dict[str, object]:
            from agent.runtime.planning import diff

            self.reconciler.read_config()
            return diff(self.reconciler, name)

        async with self._one_pass:
            return await self._in_pass(diff_now)

    async def describe(self, name: str) -> dict[str, object]:
        """Everything about one container section."""

        def describe_now() -> dict[str, object]:
            from agent.runtime.planning import describe

            self.reconciler.read_config()
            return describe(self.reconciler, name)

        async with self._one_pass:
            return await self._in_pass(describe_now)

    async def history(self, name: str) -> dict[str, object]:
        """The settings that a container section had."""
        return await asyncio.to_thread(self.reconciler.past().show, name)

    async def revert(self, name: str, number: int, *, commit: bool) -> dict[str, object]:
        """One of them as the section again; the commit is seen as any other."""
        return await asyncio.to_thread(self.reconciler.past().go_back, name, number, commit=commit)

    async def manual(self, container: str, action: str) -> None:
        """Holds a managed container as a manual action leaves it; others are not ours to hold. Before the action."""
        if await asyncio.to_thread(self.reconciler.hold, container, action):
            self.trigger()

    async def manual_failed(self, container: str) -> None:
        """The engine refused the action: nothing is held for it."""
        await asyncio.to_thread(self.reconciler.release, container)
        self.trigger()

    async def begin_copy(self, volumes: Iterable[str]) -> frozenset[str]:
        """See `agent.data.volumes.Manual`. Those that have a mistake in their section are left alone anyway."""
        keys = self.reconciler.mounting(frozenset(volumes))
        # passes leave them alone from here on; what an earlier one began is waited for below
        self.reconciler.holds.begin_copy(keys)
        for _ in range(round(COPY_WAITS_S / _LOOK_AGAIN_S)):
            async with self._one_pass:  # one that began before may still plan for them
                at_work = sorted(key for key in keys if self.reconciler.under_way.doing(key))
            if not at_work:
                return keys
            await asyncio.sleep(_LOOK_AGAIN_S)
        await self.end_copy(keys)
        raise ConflictError(f"{at_work[0]} is being changed; try again when that is done")

    async def end_copy(self, keys: frozenset[str]) -> None:
        """See `agent.data.volumes.Manual`."""
        self.reconciler.holds.end_copy(keys)
        self.trigger(deep=True)

    def managed(self, containers: Iterable[str]) -> frozenset[str]:
        """See `agent.data.volumes.Manual`."""
        ours = {r.object_id for r in self.reconciler.records.records() if r.kind == "container"}
        return frozenset(containers) & ours

    async def updates(self) -> dict[str, object]:
        """What the last checks of images found."""
        desired, checks = self.reconciler.desired, self.reconciler.updates
        if desired is None or checks is None:
            return {"checked_at": None, "checking": False, "containers": [], "registries": []}
        return await asyncio.to_thread(checks.answer, desired)

    async def check_updates(self, names: Sequence[str] = ()) -> dict[str, object]:
        """Asks the registries now; answers when they have been asked."""
        desired = self.reconciler.declared()
        # a section's name wins over the name that another one has in Docker
        by_name = {c.name: c.section for c in desired.containers}
        by_name |= {c.section: c.section for c in desired.containers}
        keys = [Key("container", by_name.get(name, name)) for name in names]
        under_way = await asyncio.to_thread(lambda: self.reconciler.update_checks().check(desired, keys))
        await asyncio.wrap_future(under_way)
        return await self.updates()

    async def tls_client(self, name: str, *, days: int) -> dict[str, object]:
        """A client's bundle, one at a time: each takes a child process. It is written nowhere."""
        maker = self.reconciler.certificates
        if maker is None:
            raise ConfigError("this agent makes no certificates")
        async with self._one_client:
            made = await asyncio.to_thread(maker.sign_client, name, days=days, now=self.reconciler.wall())
        return asdict(made)

    async def dockerd(self, wish: DaemonAction) -> None:
        """Has the next pass start, stop or restart dockerd."""
        stage = self.reconciler.daemon
        if stage is None:
            raise ConflictError("this agent does not run dockerd")
        await asyncio.to_thread(stage.ask, wish, self.reconciler.desired)
        self.trigger()

    async def look_at_move(self, target: str) -> dict[str, Any]:
        """What a move of dockerd's data there would do."""
        return await self.mover().look(target)

    async def move_data(self, target: str, told: Told) -> None:
        """Moves dockerd's data there."""
        await self.mover().move(target, told)

    def mover(self) -> Mover:
        """What moves dockerd's data. Raises ConflictError where this agent does not run dockerd."""
        if self._make_mover is None:
            raise ConflictError("this agent does not run dockerd")
        return self._make_mover(self)

    def config_issues(self) -> list[dict[str, object]]:
        """The mistakes of the last read, and why containers wait for dockerd."""
        # beside the mistakes, or a person who sees none would look for the cause elsewhere
        holding = self.reconciler.daemon.holding if self.reconciler.daemon is not None else ""
        found: list[dict[str, object]] = [
            {"severity": i.severity, "text": i.text()} for i in self.reconciler.last.issues
        ]
        return [*found, {"severity": "warning", "text": f"containers wait: {holding}"}] if holding else found

    # the loop

    async def run(self) -> None:
        """Runs until `stop`. Afterwards `parked` says whether something is still under way in a thread."""
        # before the first pass: what changes while that reads must not be missed
        self._look_at_files()
        # a path that did not answer may answer now: what waited for it is looked at again
        PATHS.woken = lambda: self.trigger_threadsafe(config=True, deep=True)
        try:
            with self._watch_mounts(self.trigger):
                await self._run()
        finally:
            self._watcher.stop()
            if self._notices is not None:
                self._notices.stop()
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
            with self._counted():
                self._pass(dirty)
        except EngineError as exc:
            logger.warning("engine: %s", exc)
            self.reconciler.engine_failed(exc)
            self._later(RECONNECT_S, config=False)
        except UcidockdError:
            logger.exception("pass failed")
        except Exception:
            # the agent stays up whatever a pass runs into; the resync tries again
            logger.exception("pass failed")

    def _pass(self, dirty: Dirty) -> None:
        if dirty.config or self.reconciler.is_incomplete():
            self._read_config()
        self.reconciler.begin_pass(deep=None if dirty.deep else frozenset(dirty.ids))
        if self._upkeep is not None:
            self._upkeep.tick()
        # a device that was just plugged in counts only once it stayed: nothing else would ask for that look
        settles_in = self.reconciler.usb.settles_in()
        if settles_in is not None:
            delay_s = settles_in
            tell(self._loop, lambda: self._loop.call_later(delay_s, self._wake.set))

    def _read_config(self) -> None:
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
