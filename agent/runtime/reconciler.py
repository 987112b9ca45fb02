# SPDX-License-Identifier: GPL-2.0-or-later
"""One pass: load, observe, plan, begin to apply. Blocking; the loop runs it in a thread, one at a time.

What a pass began goes on after it: the next pass leaves the resources that are still being worked on (`busy`) alone.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from agent.apply.failures import LastOutputs
from agent.apply.images import MakeRoom
from agent.apply.ports import Clock, Engine, Records, SavedData
from agent.apply.swap import recover
from agent.apply.volumes import names
from agent.apply.worker_pool import Outcome, Run, WorkerPool
from agent.dockerd.stage import DaemonStage
from agent.errors import (
    ConfigError,
    ConflictError,
    EngineError,
    EngineUnreachableError,
    StorageError,
    UcidockdError,
)
from agent.files.config import LoadResult
from agent.files.history import History
from agent.files.uci_store import UciStore
from agent.model.addresses import Interface, Route
from agent.model.identity import Key
from agent.model.issues import Given
from agent.model.observed import Observed, ObservedContainer, Record
from agent.model.resources import AgentSettings, Container, Desired
from agent.model.updates import Available, UpdateCheck
from agent.observe.endings import Ages, Endings, Ends, Sharing
from agent.observe.snapshot import KnownImages, Standing, observe
from agent.observe.waiting import (
    applied_names,
    lost,
    usb_names,
    waiting,
    waiting_elsewhere,
    with_plugged,
)
from agent.plan import operations as ops
from agent.plan.backoff import BackOff
from agent.plan.container.meaning import newly_stated
from agent.plan.container.renames import moved
from agent.plan.draft import Context, Missing, desired_spec, shared_names
from agent.plan.reconcile import reconcile
from agent.router.devices import Plugged, UsbDevices
from agent.router.hazards import Hazards
from agent.runtime.holds import Holds, ManualActions
from agent.runtime.router_integration import RouterIntegration
from agent.runtime.status_writer import GraceWatch, StatusWriter, declared
from agent.runtime.triggers import Triggers
from agent.runtime.under_way import UnderWay
from agent.status.board import StatusBoard
from agent.status.conditions import ConditionType
from agent.tls.certificates import Certificates

if TYPE_CHECKING:
    from agent.runtime.update_checks import UpdateChecks

logger = logging.getLogger(__name__)


_MENDING = "mend "  # before a key: the back-off of what a crash or a broken rollback left to do
_NEW_OPERATIONS = (
    *(ops.CreateContainer, ops.AdoptContainer, ops.CreateNetwork, ops.AdoptNetwork),
    *(ops.CreateVolume, ops.AdoptVolume, ops.Forget),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What planning works on, and where the USB devices in it were found."""

    desired: Desired
    usb: dict[str, Plugged]
    observed: Observed
    context: Context
    ids: frozenset[str] | None  # of the containers that were looked at deeply, None for all


@dataclass(slots=True, kw_only=True)
class Reconciler:
    """Holds what outlives a pass. `wall`, `monotonic` and `sleep` are the clocks, in seconds (see `Clock`)."""

    engine: Engine
    records: Records
    board: StatusBoard
    load: Callable[[], LoadResult]
    load_given: Callable[[Given], LoadResult]
    store: UciStore
    backoff: BackOff
    holds: Holds
    usb: UsbDevices
    standing: Standing
    daemon: DaemonStage | None = None
    certificates: Certificates | None = None
    router: RouterIntegration | None = None
    hazards: Hazards | None = None
    history: History | None = None
    engine_is_here: bool = True  # on this machine; else its paths and devices are not ours to look at
    routes: Callable[[], tuple[Route, ...]] = tuple  # of the machine that the engine is on
    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    make_pool: Callable[[int], WorkerPool] = WorkerPool  # of so many workers
    # what saves volumes and puts them back, asked for when it is needed; a pass asked for alone has none
    restores: Callable[[], SavedData | None] = lambda: None
    stopping: threading.Event = field(default_factory=threading.Event)
    last: LoadResult = field(default_factory=lambda: LoadResult(desired=None))
    desired: Desired | None = None
    triggers: Triggers = field(default_factory=Triggers)
    deletions_held: Callable[[], str] = lambda: (
        ""
    )  # why they wait; asked only where something waits to be deleted
    settings_read: Callable[[AgentSettings], None] = lambda _: None
    remember_agent: Callable[[str], None] = lambda _: None
    make_updates: Callable[[Reconciler], UpdateChecks] | None = None
    updates: UpdateChecks | None = None  # once they are wanted
    room: MakeRoom = lambda image, platform, check: contextlib.nullcontext()
    foresee_pull: Callable[[str, str, int], str] = lambda image, platform, frees: ""
    _ages: Ages = field(default_factory=Ages)
    _grace: GraceWatch = field(default_factory=GraceWatch)
    _to_look: set[str] = field(default_factory=set)  # ids of containers that something was heard of
    _paused: str = ""  # why no container is to run for now
    _unsure: bool = False  # something failed half-way since the last deep look
    # what the last shallow look asked and needed no work
    _settled: tuple[Desired, dict[str, Plugged], Observed, Context] | None = None
    _status: StatusWriter = field(init=False)
    under_way: UnderWay = field(init=False)
    manual: ManualActions = field(init=False)
    images: KnownImages = field(init=False)
    _outputs: LastOutputs = field(init=False)
    _endings: Endings = field(init=False)
    _sharing: Sharing = field(init=False)

    def __post_init__(self) -> None:
        # the clock is looked up at each call: it can be replaced
        self._endings, self._sharing = Endings(engine=self.engine), Sharing(engine=self.engine)
        self._status = StatusWriter(board=self.board, records=self.records)
        self.images = KnownImages(engine=self.engine)
        self._outputs = LastOutputs(self.engine, self.records)
        self.under_way = UnderWay(
            engine=self.engine,
            records=self.records,
            status=self._status,
            backoff=self.backoff,
            images=self.images,
            clock=Clock(wall=lambda: self.wall(), monotonic=lambda: self.monotonic(), sleep=self.sleep),
            stopping=self.stopping,
            desired=lambda: self.desired,
            history=self.history,
            restores=self.restores,
            make_pool=self.make_pool,
            room=self.room,
            foresee_pull=self.foresee_pull,
            failed=self._doubt,
            moved=self._ask_again,
            ended=self.triggers.now,
        )
        self.manual = ManualActions(
            holds=self.holds, engine=self.engine, records=self.records, desired=lambda: self.desired
        )

    def read_config(self, *, unless: Callable[[], bool] = lambda: False) -> None:
        """Reads UCI. A configuration that does not parse leaves the last good one in force.

        What was read while `unless` holds, a file in the middle of being written, is not looked at.
        """
        last = self.load()
        if unless():
            return
        # A file with a mistake is read again at each trigger: its mistakes are logged when they change, not each time.
        told, self.last = self.last.issues, last
        for issue in last.issues if last.issues != told else ():
            logger.log(logging.ERROR if issue.severity == "error" else logging.WARNING, "%s", issue.text())
        fresh = last.desired
        if fresh is None:
            self._status.invalid(last.issues)
            return
        if fresh.daemon is not None and fresh.daemon.unreadable:
            # An unreadable file must not look like one without options: dockerd would be restarted with its defaults.
            # What it said before is in force, or what dockerd ran with last.
            before = self.desired
            if before is not None:
                fresh = replace(fresh, daemon=before.daemon, auths=before.auths)
            elif self.daemon is not None:
                fresh = self.daemon.as_before(fresh)
        # an edit may be the cure for anything, also for what another section waits for
        if self.desired is None or fresh.generation != self.desired.generation:
            self.backoff.clear()
        # Mistakes in single sections are in `desired.broken`: the other sections of the file are followed all the same.
        self.desired = fresh
        self.settings_read(fresh.agent)
        self._status.config(fresh, last.issues)
        # with an unreadable file a new agent has to know where to listen all the same
        try:
            self.remember_agent(last.agent)
        except (OSError, UnicodeError) as exc:
            logger.warning("the agent section cannot be kept for a start without the configuration: %s", exc)

    def declared(self) -> Desired:
        """What is declared. Raises ConfigError where that cannot be read, ConflictError where it has not been read yet."""
        if self.desired is not None:
            return self.desired
        if self.last.issues:
            raise ConfigError("the configuration cannot be read: `ucidockd check` shows every mistake")
        raise ConflictError(
            "the agent has just started and reads the configuration: try again in a few seconds"
        )

    def is_incomplete(self) -> bool:
        """Whether the configuration was not read yet, or a file that it names could not be: it is to be read again."""
        return self.desired is None or any(c.unread for c in self.desired.containers)

    def pause(self, why: str) -> None:
        """From the next pass on no container runs, while `why` is not ""."""
        self._paused = why

    def make_plan(self, *, deep: frozenset[str] | None) -> ops.Plan:
        """Observes and plans, changing nothing. `deep`: ids to inspect, None for all. Raises EngineError."""
        self.standing.look(thoroughly=deep is None)
        return self._make_plan(None if self._unsure else deep, {})

    def _make_plan(self, deep: frozenset[str] | None, unmended: dict[str, str]) -> ops.Plan:
        desired = self.desired
        if desired is None:
            return ops.Plan()
        look = self.look(desired, deep, unmended, committed=True)
        self._status.restarts(look.observed.containers)
        # A shallow look at which nothing was heard of is the rule on an idle router: the same question again is not planned
        # again. Times are left out of the question, as they always differ.
        if look.ids != frozenset():
            return self._told(reconcile(look.desired, look.observed, look.context))
        # Two looks at the same things differ in the time of day at least.
        timeless = replace(look.context, now=0.0, orphaned_s={})
        question = (look.desired, look.usb, look.observed, timeless)
        if question == self._settled:
            return ops.Plan()  # same input, same plan; the board shows its findings already
        plan = self._told(reconcile(look.desired, look.observed, look.context))
        timed = any(record.removed_at is not None for record in look.context.records)
        # it may be made by itself later
        timed = timed or any(f.type == ConditionType.UPDATE_AVAILABLE and f.status for f in plan.findings)
        self._settled = None if plan.works or timed or _is_unreached(plan) else question
        return plan

    def _doubt(self) -> None:
        """Something may be half done, which no list of the engine shows: the next pass inspects every container."""
        self._unsure = True

    def _ask_again(self) -> None:
        """What the board shows is not what the last look led to any more: the same question gets an answer again."""
        self._settled = None

    def _told(self, plan: ops.Plan) -> ops.Plan:
        """The plan, once it is logged what went wrong in making it."""
        for key, defect in plan.defects:
            logger.error("%s: planning failed", key, exc_info=defect)
        self._unsure = self._unsure or bool(plan.defects)
        return plan

    def look(
        self, desired: Desired, deep: frozenset[str] | None, unmended: dict[str, str], *, committed: bool
    ) -> Look:
        """All that planning works on. `committed`: `desired` is in force, else nothing is remembered of it."""
        # before looking: what ends while we look was seen half done, and its end asks for another pass
        busy = self.under_way.keys()
        records = _with(self.records.records(), moved(desired, self.records.records(), busy))
        names = {*usb_names(desired), *applied_names(desired, records)} if self.engine_is_here else set()
        usb = {name: self.usb.resolve(name) for name in sorted(names)}
        desired = with_plugged(desired, usb) if usb else desired
        held = self.holds.current(desired, keep=not committed)
        ids = deep
        if ids is not None:  # looking at what may not be touched would be for nothing
            failed = self.backoff.blocked(self.monotonic()).keys() - self.under_way.changing
            blocked = busy | failed | unmended.keys() | held.keys()
            ids = (ids | _unclear(desired, records)) - {r.object_id for r in records if r.key in blocked}
        snapshot = observe(self.engine, desired, records, instance=self.records.instance, deep=ids)
        # A preview must not teach the next pass anything: it works on copies.
        images = self.images if committed else replace(self.images)
        if deep is None:
            images.look(desired, records)
        observed = replace(
            snapshot.observed, containers=self._ages.dated(snapshot.observed.containers, now=self.wall())
        )
        # After the containers: only what is seen not to run has an end to be asked about.
        ends = self._look_at_ends(desired, records, observed, stale=deep or frozenset())
        unmended = {**unmended, **snapshot.unseen, **ends.unseen}
        # Once a pass: each answer is a call to netifd, and all containers wait for the same interfaces.
        interfaces = self.router.interfaces() if self.router is not None and self.engine_is_here else None
        silent = self.router.silent if self.router is not None else ""
        waits = self._waiting(desired, usb, interfaces, silent)
        gone: Mapping[str, Missing] = {}
        if self._paused:
            gone = waits
        elif self.engine_is_here:
            gone = lost(
                desired,
                records,
                waits,
                now=self.wall(),
                usb=usb,
                interfaces=interfaces,
                silent=silent,
            )
        context = Context(
            now=self.wall(),
            records=records,
            foreign=snapshot.foreign,
            waiting=waits,
            lost=gone,
            # a new configuration is tried at once
            backoff={**self.backoff.blocked(self.monotonic()), **unmended} if committed else {},
            changing=frozenset(self.under_way.changing),
            held=held,
            held_back=self.under_way.held_back() if committed else {},
            completed=ends.completed,
            left_behind=(self._left_behind(desired, records, observed) if committed else frozenset()),
            image_ids=images.ids,
            image_defaults=images.defaults,
            image_digests=images.digests,
            offered=self._offered(desired),
            busy=busy,
            routes=self.routes() if desired.networks else (),
            orphaned_s=self._grace.look(desired, records, now=self.monotonic()) if committed else {},
            router_devices=frozenset(
                each.l3_device or each.device for each in (interfaces or {}).values() if each.addresses
            ),
            deletions_held=(self.deletions_held() if any(r.removed_at is not None for r in records) else ""),
            api=self.engine.api_version(),
        )
        return Look(desired=desired, usb=usb, observed=observed, context=context, ids=ids)

    def _look_at_ends(
        self, desired: Desired, records: tuple[Record, ...], observed: Observed, *, stale: frozenset[str]
    ) -> Ends:
        """How what does not run has ended. One that was stopped by hand did not end soon of its own."""
        seen = {c.id: c for c in observed.containers}
        own = {r.section: r for r in records if r.kind == "container" and not r.swap and r.object_id in seen}
        found: dict[str, tuple[Container, Record, ObservedContainer]] = {
            Key("container", c.section): (c, own[c.section], seen[own[c.section].object_id])
            for c in desired.containers
            if c.section in own
        }
        # How an end came about is a call for the engine's events. It is asked only of those that were just started
        # again and would be put into back-off for ending.
        counted = self.backoff.started()
        ends = self._endings.look(found, stale=stale, counted=counted)
        for key, (_, _, container) in found.items():
            if key in counted and container.id in ends.stopped:
                self.backoff.stopped(key)
        return ends

    def _left_behind(
        self, desired: Desired, records: tuple[Record, ...], observed: Observed
    ) -> frozenset[str]:
        sharing = {c.section for c in desired.containers if shared_names(c)}
        # A container that shares the network of another one keeps the old one's when that is made again, and has no
        # connection. The engine says nothing of it; it shows only in the ids.
        own = {
            r.object_id: r
            for r in records
            if r.kind == "container" and not r.swap and (r.section in sharing or r.joined)
        }
        return self._sharing.left_behind({c.id: (own[c.id], c) for c in observed.containers if c.id in own})

    def _waiting(
        self,
        desired: Desired,
        usb: Mapping[str, Plugged],
        interfaces: Mapping[str, Interface] | None,
        silent: str,
    ) -> dict[str, Missing]:
        # While data is moved nothing may write to it: all containers wait, whatever else they wait for.
        if self._paused:
            missing = Missing(reason=self._paused, stop=True)
            return {Key("container", c.section): missing for c in desired.containers}
        if not self.engine_is_here:
            return waiting_elsewhere(desired, now=self.wall())
        return waiting(desired, now=self.wall(), usb=usb, interfaces=interfaces, silent=silent)

    def begin_pass(self, *, deep: frozenset[str] | None) -> tuple[ops.Plan, Run | None]:
        """Plans and begins to apply. Raises EngineError when the engine could not even be looked at."""
        desired = self.desired
        # Kept until a pass could act on it: this one may end early, with dockerd down.
        self._to_look |= deep or set()
        if desired is None and self.daemon is not None:
            self.daemon.keep_up(self.last.readable)
        if desired is None or not desired.agent.enabled:
            return ops.Plan(), None
        if not self._router_and_dockerd(desired):
            self._show_why_not(desired)
            self._unsure = self._unsure or deep is None
            return ops.Plan(), None
        # the pass after a failure inspects every container: a work that failed half-way is not in the engine's lists
        unsure, self._unsure = self._unsure or deep is None, False
        try:
            api = self.engine.api_version()
            plan = self._plan_here(desired, None if unsure else frozenset(self._to_look))
            # an engine that lacks everything may be another one, with another data_root: look before filling it
            brings_new = any(isinstance(operation, _NEW_OPERATIONS) for operation in plan.operations)
            if brings_new and self.standing.is_another():
                plan = self._plan_here(desired, None)
        except UcidockdError:
            self._unsure = self._unsure or unsure
            raise
        self._keep_for_later(desired, plan, every=unsure)
        self._endings.remember(self.records)
        self._sharing.remember(self.records)
        self.images.note(desired, self.records, self.under_way.keys(), now=self.wall())
        self._show(desired, plan, api)
        if not plan.works:
            unreached = self.under_way.is_busy() or self.backoff.any() or _is_unreached(plan)
            self._status.nothing_to_do(None if unreached else desired.generation)
            return plan, None
        return plan, self.under_way.begin(plan, desired, api)

    def _router_and_dockerd(self, desired: Desired) -> bool:
        """Brings both to their settings; whether the engine may be worked on now."""
        # before dockerd's stage: what is to be blocked must be so before dockerd opens the published ports
        if self.router is not None:
            self.router.reconcile(desired)
        if self.hazards is not None:
            self.hazards.show(desired)
        ready = self.daemon is None or self.daemon.reconcile(desired, busy=self.under_way.is_busy())
        # and after it: a dockerd that starts makes its chains again
        if self.router is not None:
            self.router.put_rules_back()
        return ready

    def _show(self, desired: Desired, plan: ops.Plan, api: tuple[int, int]) -> None:
        """Puts what this pass found into status, and what people may go back to into the history."""
        self._status.drop_undeclared(desired, self.under_way.keys())
        self._status.engine(api)
        self._status.plan(self.with_outputs(plan, desired))
        self._status.losses()
        self._status.retries(self.backoff.retry_in(self.monotonic()))
        if self.updates is not None:  # begins a check that is due, and shows what the last one found
            self.updates.tick(desired)
            self._status.updates(desired, self.updates.results(desired))
        if self.history is not None and self.last.desired is desired:
            # a file that says something else by now is not what was applied
            self.history.keep_applied(
                desired, self.last.texts, self.records.records(), self.under_way.keys(), at=self.wall()
            )

    def update_checks(self) -> UpdateChecks:
        """Raises ConflictError where this agent makes none."""
        if self.updates is None:
            if self.make_updates is None:
                raise ConflictError("this agent does not ask registries")
            self.updates = self.make_updates(self)
        return self.updates

    def _offered(self, desired: Desired) -> Mapping[str, Available]:
        """What registries have that does not run, by the last check. Raises EngineError."""
        # Not before somebody wants it: most routers never check, and do without what it loads.
        if self.updates is None and desired.agent.update_check is not UpdateCheck.OFF and self.make_updates:
            self.update_checks()  # it remembers what was known before the agent was started
        return self.updates.offered(desired) if self.updates is not None else {}

    def _plan_here(self, desired: Desired, deep: frozenset[str] | None) -> ops.Plan:
        """Plans for the engine that answers, with its records."""
        other = self.standing.look(thoroughly=deep is None)
        if other:  # what failed, and what was seen, was on the one before
            self._ask_again()
            deep = None
            self.backoff.clear()
        # Mended first: planning must not take a half-done swap for what the user wants.
        return self._make_plan(deep, {**self._recover(), **self._move_records(desired)})

    def _move_records(self, desired: Desired) -> dict[str, str]:
        """Sections that were renamed: what they are about stays theirs. Where that cannot be written down (a full disk),
        key -> why it cannot be planned for yet."""
        changed = moved(desired, self.records.records(), self.under_way.keys())
        if not changed:
            return {}
        before = {record.nonce: record.section for record in self.records.records()}
        keys = {Key(r.kind, section) for r in changed for section in (r.section, before[r.nonce])}
        # in one write: sections that exchanged their names must not be half exchanged after a power cut
        try:
            self.records.put(*changed)
        except StorageError as exc:
            for key in keys:
                self.backoff.failed(_MENDING + key, str(exc), self.monotonic())
                self._status.failure(key, exc)
            self._doubt()
            return dict.fromkeys(keys, str(exc))
        for key in keys:
            self.backoff.succeeded(_MENDING + key)
        for record in changed:
            old = before[record.nonce]
            if record.kind == "container" and not record.swap and self.history is not None:
                self.history.move(old, record.section)
            logger.info(
                "%s %s is %s's now: section %s is renamed", record.kind, record.name, record.section, old
            )
        return {}

    def _keep_for_later(self, desired: Desired, plan: ops.Plan, *, every: bool) -> None:
        """What was heard of is forgotten once it was looked at by a pass that could act on it."""
        # A container in back-off or held is not looked at, and what was heard of it would be forgotten: then a change
        # that somebody made meanwhile would show at the next deep look only, minutes later.
        records = [r for r in self.records.records() if r.kind == "container" and r.object_id]
        keys = {r.object_id: r.key for r in records}
        known = declared(desired).keys() | desired.broken
        ids = keys.keys() | self._to_look if every else self._to_look
        self._to_look = {
            object_id
            for object_id in ids
            if (keys[object_id] in known - plan.looked if object_id in keys else self.under_way.is_busy())
        }

    def with_outputs(self, plan: ops.Plan, desired: Desired) -> ops.Plan:
        """With what the containers printed last that end again and again."""
        blocked = self.backoff.blocked(self.monotonic())
        findings = list(plan.findings)
        for i, finding in enumerate(findings):
            # one that ended once says nothing of a loop; what is in back-off has failed before
            ended = finding.reason == "Exited" and finding.key in blocked
            if finding.type == ConditionType.RUNNING and (finding.reason == "CrashLoop" or ended):
                output = self._outputs.of(finding.key, desired, now=self.monotonic())
                findings[i] = replace(finding, output=output)
        return replace(plan, findings=tuple(findings))

    def _show_why_not(self, desired: Desired) -> None:
        """An engine whose dockerd does not run is not reachable, and nobody asks it to find out."""
        if self.daemon is None:
            return
        if self.daemon.other_engine:
            # ids of the engine before would make every object look removed: the board shows what is held instead
            self._status.held(desired, self.daemon.other_engine)
            self._ask_again()
            self._doubt()
        elif not self.daemon.finds_dockerd():
            # Without this the board would go on saying that containers run.
            self.engine_failed(EngineUnreachableError(self.daemon.holding))

    def engine_failed(self, exc: UcidockdError) -> None:
        """Shows that the engine could not be looked at."""
        self._ask_again()
        self._status.engine_failure(exc)

    def _recover(self) -> dict[str, str]:
        """Mends what was cut short; key -> why it cannot be planned for yet. Has a back-off of its own: an old
        container must not stay down because a new one failed often."""
        open_keys: set[str] = {r.key for r in self.records.records() if r.swap or not r.object_id}
        if not open_keys:
            return {}
        # Without back-off a record that cannot be mended (a full disk, a container that cannot be removed) would be
        # tried in each pass.
        blocked = self.backoff.blocked(self.monotonic())
        waiting = {key: blocked[_MENDING + key] for key in open_keys if _MENDING + key in blocked}
        failed = recover(self.engine, self.records, self.under_way.keys() | waiting.keys(), self.restores())
        for key in open_keys - failed.keys() - waiting.keys():
            self.backoff.succeeded(_MENDING + key)
        for key, error in failed.items():
            self.backoff.failed(_MENDING + key, str(error), self.monotonic())
            self._status.failure(key, error)
            self._doubt()
        return {**waiting, **{key: str(error) for key, error in failed.items()}}

    def forget_failure(self, key: str) -> None:
        """It is tried again by the next pass."""
        self.backoff.succeeded(key)
        self.backoff.succeeded(_MENDING + key)
        self.backoff.stopped(key)  # one that ends again and again too
        self.under_way.forget(key)

    def forget_failures(self) -> None:
        """What failed or was rolled back is tried again by the next pass. Raises StorageError."""
        self.backoff.clear()
        # A person asks for a reconcile when the cause is gone: what failed for good counts no longer either.
        for record in self.records.records():
            self._forget_deleted_volumes(record)
            if record.failed_hash or record.lost:
                with contextlib.suppress(KeyError):  # a work that is under way may have dropped it by now
                    self.records.change(
                        record.nonce,
                        failed_hash="",
                        failed_why="",
                        failed_output="",
                        failed_digest="",
                        lost=(),
                    )
        self._endings.start_again(self.records)

    def _forget_deleted_volumes(self, record: Record) -> None:
        """Of those that nothing mounts any more: whoever deleted one knows."""
        try:
            left = tuple(
                word for word in record.left if self.engine.inspect_volume(*names([word])) is not None
            )
        # Unknown is not gone: they are looked at again by the next pass that comes here.
        except EngineError as exc:
            logger.info("%s: its volumes cannot be looked at now: %s", record.name, exc)
            return
        if left != record.left:
            # The record may have gone meanwhile, with its container.
            with contextlib.suppress(KeyError):
                self.records.change(record.nonce, left=left)

    def run_pass(self, *, deep: frozenset[str] | None) -> tuple[ops.Plan, tuple[Outcome, ...]]:
        """As `begin_pass`, and waits for the end of what it began."""
        plan, run = self.begin_pass(deep=deep)
        return plan, run.wait() if run is not None else ()


def _is_unreached(plan: ops.Plan) -> bool:
    """Whether a section says something that is not done, and that no work will do."""
    held_up = {"RolledBack", "Waiting"}
    return any(f.type == "Synced" and not f.status and f.reason in held_up for f in plan.findings)


def _with(records: tuple[Record, ...], changed: tuple[Record, ...]) -> tuple[Record, ...]:
    by_nonce = {record.nonce: record for record in changed}
    return tuple(by_nonce.get(record.nonce, record) for record in records) if by_nonce else records


def _unclear(desired: Desired, records: tuple[Record, ...]) -> frozenset[str]:
    """Ids of containers whose section now states what dockerd may have set otherwise: only the engine can tell."""
    edited = {
        container.section: container
        for container in desired.containers
        if Key("container", container.section) in desired.spec_hashes
    }
    found = set()
    for record in records:
        container = edited.get(record.section) if record.kind == "container" and not record.swap else None
        # Only where the section changed. An edit that states what dockerd has set anyway (`restart no`) must not make a
        # new container, and whether it does is known to the engine alone.
        if container is None or desired.spec_hashes[Key("container", record.section)] == record.spec_hash:
            continue
        if newly_stated(record.spec, desired_spec(container)):
            found.add(record.object_id)
    return frozenset(found)
