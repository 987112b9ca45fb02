# SPDX-License-Identifier: GPL-2.0-or-later
"""One pass: load, observe, plan, begin to apply. Blocking; the loop runs it in a thread, one at a time.

Works that a pass began continue after it: the next pass leaves the resources that are still being worked on (`busy`)
alone.
"""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from agent.apply.failures import LastOutputs
from agent.apply.images import MakeRoom
from agent.apply.ports import Clock, Engine, Records, SavedData
from agent.apply.recovery import recover
from agent.apply.steps import names
from agent.apply.worker_pool import BackOff, Outcome, Run, WorkerPool
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
from agent.files.state import SettingsHistory
from agent.files.uci_store import UciStore
from agent.model.addresses import Interface, Route
from agent.model.identity import Key
from agent.model.issues import GivenConfig
from agent.model.observed import Observed, ObservedContainer, Record
from agent.model.resources import AgentSettings, Container, Desired
from agent.model.updates import UpdateCheck
from agent.observe.exits import EndedContainers, ExitTracker, NamespaceSharing, StateTimes
from agent.observe.snapshot import EngineRecords, KnownImages, observe
from agent.observe.waiting import (
    Plugged,
    UsbDevices,
    applied_names,
    lost,
    usb_names,
    waiting,
    waiting_elsewhere,
    with_plugged,
)
from agent.plan import operations as ops
from agent.plan.container.meaning import newly_stated
from agent.plan.draft import Context, Missing, desired_spec, shared_names
from agent.plan.reconcile import reconcile
from agent.plan.records import renamed
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


_CLOCK_STEP_S = 30.0  # less is drift, or NTP at work
_MENDING = "mend "  # prefix of a key, for the back-off of recovering what a crash or a failed rollback left
_NEW_OPERATIONS = (
    *(ops.CreateContainer, ops.AdoptContainer, ops.CreateNetwork, ops.AdoptNetwork),
    *(ops.CreateVolume, ops.AdoptVolume, ops.Forget),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanInput:
    """The input of planning, and where its USB devices are plugged in."""

    desired: Desired
    usb: dict[str, Plugged]
    observed: Observed
    context: Context
    ids: frozenset[str] | None  # of the containers that were inspected, None for all


@dataclass(slots=True, kw_only=True)
class Reconciler:
    """State that outlives a pass. `wall`, `monotonic` and `sleep` are the clocks, in seconds (see `Clock`)."""

    engine: Engine
    records: Records
    board: StatusBoard
    load: Callable[[], LoadResult]
    load_given: Callable[[GivenConfig], LoadResult]
    store: UciStore
    backoff: BackOff
    holds: Holds
    usb: UsbDevices
    engine_records: EngineRecords
    daemon: DaemonStage | None = None
    certificates: Certificates | None = None
    router: RouterIntegration | None = None
    hazards: Hazards | None = None
    history: SettingsHistory | None = None  # None where no earlier settings are kept
    # on this machine; paths and devices of a remote engine cannot be checked here
    engine_is_here: bool = True
    routes: Callable[[], tuple[Route, ...]] = tuple  # of the machine that the engine runs on
    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    make_pool: Callable[[int], WorkerPool] = WorkerPool  # creates a pool with that many workers
    # saves and restores volumes, created when needed; None in a pass of the command line
    restores: Callable[[], SavedData | None] = lambda: None
    stopping: threading.Event = field(default_factory=threading.Event)
    # what was read last, with its mistakes
    last: LoadResult = field(default_factory=lambda: LoadResult(desired=None))
    desired: Desired | None = None  # what is in force: the last configuration that could be read
    triggers: Triggers = field(default_factory=Triggers)
    # why deletions wait; called only if something waits to be deleted
    deletions_held: Callable[[], str] = lambda: ""
    settings_read: Callable[[AgentSettings], None] = lambda _: None
    remember_agent: Callable[[str], None] = lambda _: None
    make_updates: Callable[[Reconciler], UpdateChecks] | None = None
    updates: UpdateChecks | None = None  # set on first use
    room: MakeRoom = lambda image, platform, check: contextlib.nullcontext()
    foresee_pull: Callable[[str, str, int], str] = lambda image, platform, frees: ""
    _ages: StateTimes = field(default_factory=StateTimes)  # since when containers are in their states
    _booted: float = field(init=False)  # when the machine started, by the wall clock
    _grace: GraceWatch = field(default_factory=GraceWatch)  # how long objects are without a section
    _to_look: set[str] = field(default_factory=set)  # ids of containers that triggers named
    _paused: str = ""  # why no container may run for now
    _unsure: bool = False  # something failed half-way since the last deep pass
    # the input of the last shallow pass, if it led to no work
    _settled: tuple[Desired, dict[str, Plugged], Observed, Context] | None = None
    _status: StatusWriter = field(init=False)
    under_way: UnderWay = field(init=False)
    manual: ManualActions = field(init=False)
    images: KnownImages = field(init=False)
    _outputs: LastOutputs = field(init=False)
    _exits: ExitTracker = field(init=False)  # how containers ended
    _sharing: NamespaceSharing = field(init=False)  # who has lost a namespace that it shares

    def __post_init__(self) -> None:
        self._booted = round(self.wall() - self.monotonic())
        # the clocks are looked up at each call, because tests replace them
        self._exits, self._sharing = ExitTracker(engine=self.engine), NamespaceSharing(engine=self.engine)
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
            board_changed=self._ask_again,
            ended=self.triggers.now,
            fetched=self._fetched,
            interfaces=lambda: [name for _, name in socket.if_nameindex()] if self.engine_is_here else (),
        )
        self.manual = ManualActions(
            holds=self.holds, engine=self.engine, records=self.records, desired=lambda: self.desired
        )

    def _fetched(self, reference: str, image_id: str) -> None:
        # without checks the file on flash may still hold what an earlier one found
        checks = self.updates or (self.make_updates(self) if self.make_updates else None)
        if checks is not None:
            checks.pulled(reference, image_id)

    def read_config(self, *, unless: Callable[[], bool] = lambda: False) -> None:
        """Reads UCI. If it does not parse, the last good configuration stays in force.

        The result is ignored while `unless` returns True: a file is being written.
        """
        last = self.load()
        if unless():
            return
        # a file with a mistake is read at each trigger: log its mistakes only when they change
        told, self.last = self.last.issues, last
        for issue in last.issues if last.issues != told else ():
            logger.log(logging.ERROR if issue.severity == "error" else logging.WARNING, "%s", issue.text())
        fresh = last.desired
        if fresh is None:
            self._status.invalid(last.issues)
            return
        if fresh.daemon is not None and fresh.daemon.unreadable:
            # An unreadable file must not look like a file without options: dockerd would be restarted with its
            # defaults. The settings from before stay in force, or those that dockerd last ran with.
            before = self.desired
            if before is not None:
                fresh = replace(fresh, daemon=before.daemon, auths=before.auths)
            elif self.daemon is not None:
                fresh = self.daemon.with_last_good_settings(fresh)
        # an edit may resolve any failure, also one that another section waits for
        if self.desired is None or fresh.generation != self.desired.generation:
            self.backoff.clear()
        # mistakes in single sections are in `desired.broken`; the other sections of the file are followed
        self.desired = fresh
        self.settings_read(fresh.agent)
        self._status.config(fresh, last.issues)
        # a new agent has to know where to listen even if the file is unreadable
        try:
            self.remember_agent(last.agent)
        except (OSError, UnicodeError) as exc:
            logger.warning("the agent section cannot be kept for a start without the configuration: %s", exc)

    def declared(self) -> Desired:
        """The configuration. Raises ConfigError if it cannot be read, ConflictError if it has not been read yet."""
        if self.desired is not None:
            return self.desired
        if self.last.issues:
            raise ConfigError("the configuration cannot be read: `ucidockd check` shows every mistake")
        raise ConflictError(
            "the agent has just started and reads the configuration: try again in a few seconds"
        )

    def is_incomplete(self) -> bool:
        """Whether the configuration, or a file that it names, has to be read again because it could not be read so far."""
        return self.desired is None or any(c.unread for c in self.desired.containers)

    def pause(self, why: str) -> None:
        """While `why` is not "", no container runs, from the next pass on."""
        self._paused = why

    def make_plan(self, *, deep: frozenset[str] | None) -> ops.Plan:
        """Observes and plans without changing anything. `deep`: ids to inspect, None for all. Raises EngineError."""
        self.engine_records.identify(thoroughly=deep is None)
        # after something failed half-way every container is looked at
        return self._make_plan(None if self._unsure else deep, {})

    def _make_plan(self, deep: frozenset[str] | None, unmended: dict[str, str]) -> ops.Plan:
        desired = self.desired
        if desired is None:
            return ops.Plan()
        look = self.plan_input(desired, deep, unmended, committed=True)
        self._status.restarts(look.observed.containers)
        # A shallow pass without triggered ids is the normal case on an idle router: if its input is unchanged, it is
        # not planned again. Times are excluded from the comparison, because they always differ.
        if look.ids != frozenset():
            return self._told(reconcile(look.desired, look.observed, look.context))
        # the present time always differs
        timeless = replace(look.context, now=0.0, orphaned_s={})
        question = (look.desired, look.usb, look.observed, timeless)
        if question == self._settled:
            return ops.Plan()  # the same input leads to the same plan, whose findings the board already shows
        plan = self._told(reconcile(look.desired, look.observed, look.context))
        timed = any(record.removed_at is not None for record in look.context.records)
        # an automatic update may become due
        timed = timed or any(f.type == ConditionType.UPDATE_AVAILABLE and f.status for f in plan.findings)
        self._settled = None if plan.works or timed or _is_unreached(plan) else question
        return plan

    def _doubt(self) -> None:
        """Something may be half done, which the engine's lists do not show: makes the next pass inspect every container."""
        self._unsure = True

    def _ask_again(self) -> None:
        """The board no longer matches the last pass: makes the next pass plan again even if its input is the same."""
        self._settled = None

    def _told(self, plan: ops.Plan) -> ops.Plan:
        """Logs the errors that occurred while planning, and returns the plan."""
        for key, defect in plan.defects:
            logger.error("%s: planning failed", key, exc_info=defect)
        self._unsure = self._unsure or bool(plan.defects)
        return plan

    def plan_input(
        self, desired: Desired, deep: frozenset[str] | None, unmended: dict[str, str], *, committed: bool
    ) -> PlanInput:
        """Collects the input of planning. `committed`: `desired` is in force; otherwise nothing about it is remembered."""
        # before observing: a work that ends meanwhile was seen half done, and its end triggers another pass
        busy = self.under_way.keys()
        records = _with(self.records.records(), renamed(desired, self.records.records(), busy))
        names = {*usb_names(desired), *applied_names(desired, records)} if self.engine_is_here else set()
        usb = {name: self.usb.resolve(name) for name in sorted(names)}
        desired = with_plugged(desired, usb) if usb else desired
        held = self.holds.current(desired, keep=not committed)
        ids = deep
        if ids is not None:  # do not inspect containers that may not be touched
            failed = self.backoff.blocked(self.monotonic()).keys() - self.under_way.changing
            blocked = busy | failed | unmended.keys() | held.keys()
            ids = (ids | _unclear(desired, records)) - {r.object_id for r in records if r.key in blocked}
        snapshot = observe(self.engine, desired, records, instance=self.records.instance, deep=ids)
        # a preview must not affect the next pass, so it works on copies
        images = self.images if committed else replace(self.images)
        if deep is None:
            images.refresh(desired, records)
        else:
            images.learn(desired)
        observed = replace(
            snapshot.observed,
            containers=self._ages.dated(
                snapshot.observed.containers,
                now=self.wall(),
                booted=self._booted if self.engine_is_here else -math.inf,
            ),
        )
        # after the containers, because only a stopped container has an end to look up
        ends = self._look_at_ends(desired, records, observed, stale=deep or frozenset())
        unmended = {**unmended, **snapshot.unseen, **ends.unseen}
        # once per pass: each answer is a call to netifd, and all containers wait for the same interfaces
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
        # created only when wanted: most routers never check, and this saves memory
        if self.updates is None and desired.agent.update_check is not UpdateCheck.OFF and self.make_updates:
            self.update_checks()  # it remembers results from before the start of the agent
        context = Context(
            now=self.wall(),
            records=records,
            foreign=snapshot.foreign,
            waiting=waits,
            lost=gone,
            # a preview ignores back-off, because a new configuration is tried at once
            backoff={**self.backoff.blocked(self.monotonic()), **unmended} if committed else {},
            changing=frozenset(self.under_way.changing),
            held=held,
            held_back=self.under_way.held_back() if committed else {},
            completed=ends.completed,
            left_behind=(self._left_behind(desired, records, observed) if committed else frozenset()),
            image_ids=images.ids,
            image_defaults=images.defaults,
            image_digests=images.digests,
            offered=self.updates.offered(desired) if self.updates is not None else {},
            busy=busy,
            routes=self.routes() if desired.networks else (),
            orphaned_s=self._grace.update(desired, records, now=self.monotonic()) if committed else {},
            router_devices=frozenset(
                each.l3_device or each.device for each in (interfaces or {}).values() if each.addresses
            ),
            deletions_held=(self.deletions_held() if any(r.removed_at is not None for r in records) else ""),
            api=self.engine.api_version(),
        )
        return PlanInput(desired=desired, usb=usb, observed=observed, context=context, ids=ids)

    def _look_at_ends(
        self, desired: Desired, records: tuple[Record, ...], observed: Observed, *, stale: frozenset[str]
    ) -> EndedContainers:
        """How stopped containers ended. A container that was stopped manually does not count as ending by itself."""
        seen = {c.id: c for c in observed.containers}
        own = {r.section: r for r in records if r.kind == "container" and not r.swap and r.object_id in seen}
        found: dict[str, tuple[Container, Record, ObservedContainer]] = {
            Key("container", c.section): (c, own[c.section], seen[own[c.section].object_id])
            for c in desired.containers
            if c.section in own
        }
        # Finding out how a container ended takes a call for the engine's events. So it is done only for containers
        # that were just restarted and would otherwise get a back-off for ending.
        counted = self.backoff.started()
        ends = self._exits.update(found, stale=stale, counted=counted)
        for key, (_, _, container) in found.items():
            if key in counted and container.id in ends.stopped:
                self.backoff.stopped(key)
        return ends

    def _left_behind(
        self, desired: Desired, records: tuple[Record, ...], observed: Observed
    ) -> frozenset[str]:
        sharing = {c.section for c in desired.containers if shared_names(c)}
        # If the container whose network another one shares is recreated, the other one keeps the old network and has
        # no connection. The engine does not report this; only the ids show it.
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
        # while data is moved, nothing may write to it: all containers wait, whatever else they wait for
        if self._paused:
            missing = Missing(reason=self._paused, stop=True)
            return {Key("container", c.section): missing for c in desired.containers}
        if not self.engine_is_here:
            return waiting_elsewhere(desired, now=self.wall())
        return waiting(desired, now=self.wall(), usb=usb, interfaces=interfaces, silent=silent)

    def begin_pass(self, *, deep: frozenset[str] | None) -> tuple[ops.Plan, Run | None]:
        """Plans and begins to apply. Raises EngineError if the engine could not be observed."""
        desired = self.desired
        # what began before NTP set the clock did not begin weeks, or 56 years, ago
        booted = round(self.wall() - self.monotonic())  # on Linux the monotonic clock begins with the machine
        if abs(booted - self._booted) >= _CLOCK_STEP_S:
            self.board.clock_stepped(booted - self._booted)
            self._booted = booted
        # keep the ids until a pass can act on them: this pass may end early because dockerd is down
        self._to_look |= deep or set()
        if desired is None and self.daemon is not None:
            self.daemon.keep_running(self.last.readable)
        if desired is None or not desired.agent.enabled:
            return ops.Plan(), None
        if not self._router_and_dockerd(desired):
            self._show_why_not(desired)
            self._unsure = self._unsure or deep is None
            return ops.Plan(), None
        # the pass after a failure inspects every container: the engine's lists do not show a half-done work
        unsure, self._unsure = self._unsure or deep is None, False
        try:
            api = self.engine.api_version()
            plan = self._plan_here(desired, None if unsure else frozenset(self._to_look))
            # an engine that lacks everything may be another one, with another data_root: check before creating
            # everything on it
            brings_new = any(isinstance(operation, _NEW_OPERATIONS) for operation in plan.operations)
            if brings_new and self.engine_records.is_another():
                plan = self._plan_here(desired, None)
        except UcidockdError:
            self._unsure = self._unsure or unsure
            raise
        self._keep_for_later(desired, plan, every=unsure)
        self._exits.remember(self.records)
        self._sharing.remember(self.records)
        self.images.update_records(desired, self.records, self.under_way.keys(), now=self.wall())
        self._show(desired, plan, api)
        if not plan.works:
            unreached = self.under_way.is_busy() or self.backoff.any() or _is_unreached(plan)
            self._status.nothing_to_do(None if unreached else desired.generation)
            return plan, None
        return plan, self.under_way.begin(plan, desired, api)

    def _router_and_dockerd(self, desired: Desired) -> bool:
        """Brings the router and dockerd to their settings; returns whether the engine may be worked on now."""
        # before dockerd's stage: blocking must be in force before dockerd opens the published ports
        if self.router is not None:
            self.router.reconcile(desired)
        if self.hazards is not None:
            self.hazards.show(desired)
        ready = self.daemon is None or self.daemon.reconcile(desired, busy=self.under_way.is_busy())
        # and again after it: a dockerd that starts recreates its chains
        if self.router is not None:
            self.router.put_rules_back()
        return ready

    def _show(self, desired: Desired, plan: ops.Plan, api: tuple[int, int]) -> None:
        """Writes the results of this pass to status, and applied settings to the history."""
        self._status.drop_undeclared(desired, self.under_way.keys())
        self._status.engine(api)
        self._status.plan(self.with_outputs(plan, desired))
        self._status.losses()
        # a change that was rolled back is not tried again by itself, though its back-off has not ended yet
        settled = {f.key for f in plan.findings if (f.type, f.reason) == ("Synced", "RolledBack")}
        retry_in_s = self.backoff.retry_in(self.monotonic())
        self._status.retries({key: s for key, s in retry_in_s.items() if key not in settled})
        if self.updates is not None:  # begins a check that is due, and shows the results of the last one
            self.updates.tick(desired)
            self._status.updates(desired, self.updates.results(desired))
        if self.history is not None and self.last.desired is desired:
            # skipped if the file has changed since: its text is not what was applied
            self.history.keep_applied(
                desired, self.last.texts, self.records.records(), self.under_way.keys(), at=self.wall()
            )

    def update_checks(self) -> UpdateChecks:
        """The update checks, created on first use. Raises ConflictError if this agent makes none."""
        if self.updates is None:
            if self.make_updates is None:
                raise ConflictError("this agent does not ask registries")
            self.updates = self.make_updates(self)
        return self.updates

    def _plan_here(self, desired: Desired, deep: frozenset[str] | None) -> ops.Plan:
        """Plans for the engine that answers, with its records."""
        other = self.engine_records.identify(thoroughly=deep is None)
        if other:  # failures and observations concerned the previous engine
            self._ask_again()
            deep = None
            self.backoff.clear()
        # recover first: planning must not take a half-done swap for the user's intention
        return self._make_plan(deep, {**self._recover(), **self._move_records(desired)})

    def _move_records(self, desired: Desired) -> dict[str, str]:
        """Moves the records of renamed sections to the new names. If that cannot be stored (a full disk), returns key ->
        why it cannot be planned for yet."""
        changed = renamed(desired, self.records.records(), self.under_way.keys())
        if not changed:
            return {}
        before = {record.nonce: record.section for record in self.records.records()}
        keys = {Key(r.kind, section) for r in changed for section in (r.section, before[r.nonce])}
        # in one write: after a power cut, sections that swapped names must not be half swapped
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
        """Keeps the ids that this pass could not act on, and forgets the others."""
        # A container in back-off or on hold is not inspected. If its id were forgotten, a change made meanwhile would
        # only be seen by the next deep pass, minutes later.
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
        """Adds the last output of containers that keep ending, how they ended, and since when a failure lasts."""
        failing_for_s = self.backoff.failing_for(self.monotonic())
        ends = {
            f.key: f.message
            for f in plan.findings
            if f.type == ConditionType.RUNNING and f.reason == "Exited"
        }
        findings = list(plan.findings)
        for i, finding in enumerate(findings):
            # a single end is not a loop; a container in back-off has failed before
            ended = finding.reason == "Exited" and finding.key in failing_for_s
            if finding.type == ConditionType.RUNNING and (finding.reason == "CrashLoop" or ended):
                output = self._outputs.of(finding.key, desired, now=self.monotonic())
                findings[i] = replace(finding, output=output)
            if finding.type == ConditionType.RUNNING and finding.reason == "CrashLoop":
                # it runs for a moment between two restarts
                wall = self.wall()
                ended_s = max(0.0, wall - (finding.since or wall))
                lasts_s = self.backoff.restarted_by_engine(finding.key, ended_s, self.monotonic())
                findings[i] = replace(findings[i], since=wall - lasts_s)
            elif finding.reason == "BackOff" and finding.key in failing_for_s:
                # Between two tries the condition is another one for a moment. What people ask is since when it fails.
                message = "; ".join(filter(None, (ends.get(finding.key), finding.message)))
                since = self.wall() - failing_for_s[finding.key]
                findings[i] = replace(finding, message=message, since=since)
        return replace(plan, findings=tuple(findings))

    def _show_why_not(self, desired: Desired) -> None:
        """Shows why containers are not handled. While dockerd does not run, the engine is unreachable and no call to it
        is needed."""
        if self.daemon is None:
            return
        if self.daemon.other_engine:
            # with the ids of the previous engine every object would look removed: the board shows why everything is
            # held instead
            self._status.held(desired, self.daemon.other_engine)
            self._ask_again()
            self._doubt()
        elif not self.daemon.is_dockerd_running():
            # otherwise the board would keep showing running containers
            self.engine_failed(EngineUnreachableError(self.daemon.holding))

    def engine_failed(self, exc: UcidockdError) -> None:
        """Shows that the engine could not be observed."""
        self._ask_again()
        self._status.engine_failure(exc)

    def _recover(self) -> dict[str, str]:
        """Recovers what was interrupted; returns key -> why it cannot be planned for yet. It has its own back-off: an
        old container must not stay down because a new one failed often."""
        open_keys: set[str] = {r.key for r in self.records.records() if r.swap or not r.object_id}
        open_keys |= {r.key for r in self.records.missed()}
        if not open_keys:
            return {}
        # without back-off, a record that cannot be recovered (a full disk, a container that cannot be removed) would
        # be tried in every pass
        blocked = self.backoff.blocked(self.monotonic())
        waiting = {key: blocked[_MENDING + key] for key in open_keys if _MENDING + key in blocked}
        busy = self.under_way.keys() | waiting.keys()
        failed = recover(self.engine, self.records, busy, self.restores(), clock=Clock(wall=self.wall))
        for key in open_keys - failed.keys() - waiting.keys():
            self.backoff.succeeded(_MENDING + key)
        for key, error in failed.items():
            self.backoff.failed(_MENDING + key, str(error), self.monotonic())
            self._status.failure(key, error)
            self._doubt()
        return {**waiting, **{key: str(error) for key, error in failed.items()}}

    def forget_failure(self, key: str) -> None:
        """Makes the next pass try this resource again."""
        self.backoff.succeeded(key)
        self.backoff.succeeded(_MENDING + key)
        self.backoff.stopped(key)  # also if it keeps ending
        self.under_way.forget(key)

    def forget_failures(self) -> None:
        """Makes the next pass retry everything that failed or was rolled back. Raises StorageError."""
        self.backoff.clear()
        # a person requests a reconcile after removing the cause, so permanent failures are forgotten too
        for record in self.records.records():
            self._forget_deleted_volumes(record)
            if record.failed_hash or record.lost:
                with contextlib.suppress(KeyError):  # a work in progress may have dropped the record
                    self.records.change(
                        record.nonce,
                        failed_hash="",
                        failed_why="",
                        failed_output="",
                        failed_digest="",
                        failed_others=(),
                        lost=(),
                    )
        self._exits.start_again(self.records)

    def _forget_deleted_volumes(self, record: Record) -> None:
        """Forgets unmounted volumes that were deleted: whoever deleted them knows about the loss."""
        try:
            left = tuple(
                word for word in record.left if self.engine.inspect_volume(*names([word])) is not None
            )
        # unknown does not mean deleted: they are checked again next time
        except EngineError as exc:
            logger.info("%s: its volumes cannot be looked at now: %s", record.name, exc)
            return
        if left != record.left:
            # the record may have been dropped meanwhile, together with its container
            with contextlib.suppress(KeyError):
                self.records.change(record.nonce, left=left)

    def run_pass(self, *, deep: frozenset[str] | None) -> tuple[ops.Plan, tuple[Outcome, ...]]:
        """Like `begin_pass`, but waits until all works that it began have ended."""
        plan, run = self.begin_pass(deep=deep)
        return plan, run.wait() if run is not None else ()


def _is_unreached(plan: ops.Plan) -> bool:
    """Whether a section asks for something that no work of the plan will do."""
    held_up = {"RolledBack", "Waiting"}
    return any(f.type == "Synced" and not f.status and f.reason in held_up for f in plan.findings)


def _with(records: tuple[Record, ...], changed: tuple[Record, ...]) -> tuple[Record, ...]:
    by_nonce = {record.nonce: record for record in changed}
    return tuple(by_nonce.get(record.nonce, record) for record in records) if by_nonce else records


def _unclear(desired: Desired, records: tuple[Record, ...]) -> frozenset[str]:
    """Ids of containers whose section now sets an option that dockerd may have set differently; only an inspect can
    tell."""
    edited = {
        container.section: container
        for container in desired.containers
        if Key("container", container.section) in desired.spec_hashes
    }
    found = set()
    for record in records:
        container = edited.get(record.section) if record.kind == "container" and not record.swap else None
        # Only if the section changed. An edit that states what dockerd has set anyway (`restart no`) must not replace
        # the container, and only the engine knows whether it does.
        if container is None or desired.spec_hashes[Key("container", record.section)] == record.spec_hash:
            continue
        if newly_stated(record.spec, desired_spec(container)):
            found.add(record.object_id)
    return frozenset(found)
