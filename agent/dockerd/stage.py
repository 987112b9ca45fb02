# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon's part of a pass, before the containers': what /etc/config/dockerd says is what dockerd runs with.

`reconcile` says whether containers may be looked at: not while dockerd is down or about to be restarted, and not on
another engine that the user did not ask for. Whatever happens is shown on the status board under `daemon:dockerd`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from agent.dockerd.change import DaemonChange, Limits
from agent.dockerd.files import DaemonFiles, material_of
from agent.dockerd.health import DaemonHealth, DaemonLife, EngineHome, RunningEngine
from agent.dockerd.ports import Certificates, Supervisor
from agent.dockerd.runner import INIT_SCRIPT, Runner, has_package, not_ours, runner_of, version_of
from agent.dockerd.status import DaemonStatus
from agent.dockerd.supervisor import (
    ChildSupervisor,
    OwnChildSupervisor,
    OwnScriptSupervisor,
    ProcdSupervisor,
)
from agent.dockerd.target import Renderer, ServerIdentities, checker, culprits, target_of
from agent.dockerd.unmanaged import (
    DEFAULT_FILE,
    External,
    ManualControl,
    OwnDockerd,
    OwnSupervisor,
    configured,
    exists,
    own_arguments,
    own_settings,
)
from agent.engine import process as daemon_process
from agent.engine.probe import DaemonProbe
from agent.errors import ConflictError, DaemonError, Reason, UcidockdError
from agent.files.options import RuntimeOptions
from agent.files.user_paths import file_system_of
from agent.model.addresses import Route
from agent.model.dockerd.settings import (
    DaemonAction,
    DaemonRecord,
    DaemonSettings,
    Document,
    Effect,
    Json,
    NotOurs,
    Process,
    Step,
    Target,
    data_root,
)
from agent.model.dockerd.table import value_at
from agent.model.resources import AgentSettings, Desired, Network
from agent.plan.daemon import Change, LeftOut, Rendered, as_wished, classify
from agent.plan.router.bridges import bridges_of
from agent.router.addresses import host_routes, local_server_names
from agent.router.mounts import declared_mount, missing_mount, read_only_or_silent
from agent.status.board import StatusBoard

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What the stage takes from outside and tests replace. Without `certificates` none are made."""

    certificates: Certificates | None = None
    names: Callable[[tuple[str, ...]], tuple[str, ...]] = local_server_names
    limits: Limits = field(default_factory=Limits)
    init_script: Path = INIT_SCRIPT
    default_file: Path = DEFAULT_FILE
    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    routes: Callable[[], tuple[Route, ...]] = host_routes
    file_system: Callable[[str], str] = file_system_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """Where a dockerd keeps its data: `root`, its data_root. `store`: as `DaemonProbe.store`."""

    root: str
    document: Document
    store: str
    version: tuple[int, int]
    probe: DaemonProbe


class DaemonStage:
    """Keeps dockerd as UCI says. `wake(seconds)` asks for a pass after that time; it may be called from a thread.

    Of the engine that answers, `has_ours` tells whether it has containers of ours; `restarted` hears that it is a new one.
    """

    def __init__(
        self,
        *,
        options: RuntimeOptions,
        run_dir: Path,
        status: DaemonStatus,
        tools: Tools | None = None,
        wake: Callable[[float], None] = lambda seconds: None,
        has_ours: Callable[[], bool] = lambda: False,
        restarted: Callable[[], None] = lambda: None,
    ) -> None:
        self._wake = wake
        self.files = DaemonFiles(run_dir=run_dir, state_dir=options.state_dir)
        self._options = options
        self._run_dir = run_dir
        self._status = status
        self._tools = tools or Tools()
        self._life = DaemonLife(status, wake=wake, clock=self._tools.monotonic)
        self._runner: Runner | None = None
        self._change: DaemonChange | None = None
        self._retry = threading.Event()  # what failed is to be tried once more
        self.holding = ""
        self.other_engine = ""  # why the engine that runs is not the one that the containers were meant for
        self._pausing = self._unproven = ""  # why, see `pause` and `distrust`
        self._renderer = Renderer(
            files=self.files,
            identities=ServerIdentities(
                certificates=self._tools.certificates,
                names=self._tools.names,
                wall=self._tools.wall,
            ),
            routes=self._tools.routes,
        )
        # key -> the value that dockerd has refused, and why
        self._refused: dict[str, tuple[Json, str]] = {}
        self._bridges: frozenset[str] = frozenset()  # devices of the networks that sections declare
        self._external = External(self.files, status)
        self._manual = ManualControl(status, acting=self._life.acting, runs=self.finds_dockerd)
        self._own = OwnDockerd(
            status=status,
            manual=self._manual,
            missing=self._not_there,
            backing_off=self._life.backing_off,
            acting=self._life.acting,
            watch=self._life.watch,
        )
        self._own_script: OwnSupervisor | None = None  # while dockerd follows a file of the user's
        self._engine = RunningEngine(
            EngineHome(self.files, status, on_disk=lambda root: bool(declared_mount(root, options))),
            status,
            has_ours=has_ours,
            restarted=restarted,
            file_system=self._tools.file_system,
        )
        self._health = DaemonHealth(
            status,
            missing_mount=lambda root: missing_mount(root, options),
            needs_mount=lambda root: bool(declared_mount(root, options)),
        )

    def accept_engine(self) -> None:
        """A reconcile was asked for: the engine that runs is the one that is meant, and what failed is tried again."""
        self._engine.accept()
        self._retry.set()
        self._life.forgive()
        # A dockerd that was stopped manually is started too: the user asks for all that is declared.
        self._manual.ask(DaemonAction.START)

    def ask(self, wish: DaemonAction, desired: Desired | None) -> None:
        """Has dockerd started, stopped or restarted by the next pass. Raises ConflictError, which says why not."""
        settings, agent = configured(desired)
        if self._pausing or self._unproven:
            raise ConflictError(self._pausing or self._unproven)
        runner = runner_of(agent, self._options)
        refused = "" if self._starts(settings, runner) else self._not_ours(settings, runner)
        self._manual.check(wish, kind=runner.kind, unmanaged=refused)
        # A person who asks does not wait for the back-off of what failed before.
        self._life.forgive()
        self._manual.ask(wish)

    def reconcile(self, desired: Desired, *, busy: bool) -> bool:
        """True when containers may be reconciled. `busy`: operations on the engine are under way. Blocks.

        `holding` says why they may not.
        """
        self.holding = self.other_engine = ""
        runner = runner_of(desired.agent, self._options)
        if desired.daemon is None and not self._starts(None, runner):
            self._show_whose(None, runner, self._not_ours(None, runner))
            self._status.drop()
            return True
        self._status.begin(desired.daemon_mistakes)
        # dockerd must not be given a subnet that a network of ours will have: known before it starts, seen only after.
        self._bridges = _devices(desired.networks)
        try:
            unmanaged = self._not_ours(desired.daemon, runner)
            # another program starts and stops this dockerd: what it needs is only reported
            if runner.kind == "external" and not unmanaged:
                unmanaged = self._report_external(desired, runner)
            self._show_whose(desired.daemon, runner, unmanaged)
            if unmanaged and self._starts(desired.daemon, runner):
                self.holding = self._keep_own(desired, runner, unmanaged, busy=busy)
                return not self.holding
            if self._own_script is not None:
                self._own_script = self._change = None
            self._status.unmanaged(unmanaged)
            if not unmanaged and runner.kind != "external":
                self.holding = self._reconcile(desired, self._change_of(runner), runner, busy=busy)
        except (UcidockdError, OSError) as exc:
            self._failed(exc)
        return not self.holding

    def _show_whose(self, settings: DaemonSettings | None, runner: Runner, unmanaged: str) -> None:
        """`unmanaged`: why dockerd does not follow the file that we write."""
        starts = runner.kind != "external" and (not unmanaged or self._starts(settings, runner))
        # without a file of the user's the script follows UCI in its own way
        named = settings.alt_config_file if settings is not None else ""
        own = settings is not None and (runner.kind == "external" or bool(named and exists(named)))
        why = None
        if runner.elsewhere:
            why = NotOurs.ELSEWHERE
        elif runner.kind == "external":
            why = NotOurs.EXTERNAL
        elif unmanaged and own:
            why = NotOurs.OWN_FILE
        elif not starts:
            why = NotOurs.NO_SECTION
        follows = not runner.elsewhere and not (unmanaged and own)
        self._status.whose(starts=starts, settings=follows, why=why)

    def keep_up(self, readable: Desired) -> None:
        """/etc/config/containers cannot be read, and nothing is known of what it said before. `readable`: the agent
        section and dockerd's settings, where theirs can."""
        # The router was rebooted with a broken file, say. Containers cannot be planned, but those that run without us
        # need their dockerd.
        if readable.agent.enabled:
            mistakes = (*readable.daemon_mistakes, "the configuration cannot be read")
            self.reconcile(self.as_before(replace(readable, daemon_mistakes=mistakes)), busy=False)

    def as_before(self, desired: Desired) -> Desired:
        """Where dockerd's settings cannot be read: those that were good; without such as the stock script would start it,
        or its defaults."""
        settings = desired.daemon
        if settings is None or not settings.unreadable:
            return desired
        # From the disk and not from memory: the agent may have started with the broken file.
        ours, good = str(self.files.config_file), self.files.last_good()
        if good is not None:
            settings = replace(settings, alt_config_file=ours, values=good.document)
        elif runner_of(desired.agent, self._options).kind == "child":
            settings = replace(settings, alt_config_file=ours, unreadable=False)
        else:
            settings = None
        return replace(desired, daemon=settings)

    def _failed(self, exc: UcidockdError | OSError) -> None:
        """Nothing was changed for a passing reason, or dockerd is down: tried again, slower and slower."""
        self._life.failed(str(exc))
        reason: Reason = exc.reason if isinstance(exc, DaemonError) else "Failed"
        logger.error("dockerd: %s", exc)
        self._status.degraded(reason, str(exc))
        self._status.synced(reason, str(exc))
        # A dockerd that still answers keeps its containers: only the change of its settings has failed.
        if self._change is not None and not self._change.probe.answers():
            self.holding = str(exc)

    def manages(self, desired: Desired) -> bool:
        """Whether dockerd follows our file and is started by us."""
        runner = runner_of(desired.agent, self._options)
        return runner.kind != "external" and not self._not_ours(desired.daemon, runner)

    def pause(self, why: str) -> None:
        """The next pass ends dockerd, and none starts it while `why` is not ""."""
        self._pausing = why

    def distrust(self, why: str) -> None:
        """dockerd runs, and nothing is done with its containers while `why` is not ""."""
        self._unproven = why

    def moved(self) -> None:
        """The next engine that comes up is the one that is meant, whatever its data_root."""
        self._engine.accept()

    def home(self, desired: Desired | None) -> Home:
        """The data of the dockerd that runs, and who keeps it. Raises ConflictError where it is not ours to move."""
        settings, agent = configured(desired)
        runner = runner_of(agent, self._options)
        if runner.kind == "external" and not runner.elsewhere:
            raise ConflictError(
                "ucidockd does not run this dockerd (option daemon is external): move its data yourself"
            )
        # Moving is stopping, copying and starting with another `data_root`: we can promise none of it where others
        # write dockerd's settings.
        if settings is None or (refused := self._not_ours(settings, runner)):
            raise ConflictError(
                f"{refused if settings is not None else 'no section is about dockerd'}: move its data yourself"
            )
        if self.other_engine:
            raise ConflictError(f"not the engine of these containers is running: {self.other_engine}")
        change = self._change_of(runner)
        running, process = change.record.running, change.record.process
        if running is None or process is None or not change.probe.answers():
            raise ConflictError(
                "dockerd does not run: start it first, so that the copy can be checked against it"
            )
        return Home(
            root=data_root(running.document),
            document=running.document,
            store=change.probe.store(),
            version=version_of(runner.program),
            probe=DaemonProbe(runner.socket),
        )

    def preview(
        self,
        settings: DaemonSettings,
        agent: AgentSettings,
        *,
        networks: tuple[Network, ...],
        make: bool = True,
    ) -> tuple[Target, tuple[str, ...]]:
        """What would be written, and what must be said about it.

        `networks`: those that sections declare. `make`: whether missing certificates may be made; else those that would
        be are named as if they were there. Raises DaemonError.
        """
        runner = runner_of(agent, self._options)
        # As `ucidockd render` runs in another process than the agent, it must leave no certificates behind.
        renderer = self._renderer if make else self._renderer.foreseeing()
        rendered, trouble = self._render(
            settings, runner, self.files.load().running, renderer=renderer, bridges=_devices(networks)
        )
        said = [finding.message for finding in rendered.findings if finding.status]
        said += [*map(str, rendered.left_out), *rendered.warnings, *([str(trouble)] if trouble else [])]
        return target_of(rendered.document, runner), tuple(said)

    def left_out(
        self, settings: DaemonSettings, agent: AgentSettings, *, networks: tuple[Network, ...]
    ) -> tuple[LeftOut, ...]:
        """What of them would not be applied here. Makes no certificates. Raises DaemonError."""
        rendered, _ = self._render(
            settings,
            runner_of(agent, self._options),
            self.files.load().running,
            renderer=self._renderer.foreseeing(),
            bridges=_devices(networks),
        )
        return rendered.left_out

    def stopped_by(self, change: Change, running: Target | None, agent: AgentSettings) -> tuple[str, ...]:
        """Names of the containers that a change would stop: none that live-restore can keep."""
        if change.effect is not Effect.RESTART:
            return ()
        # live-restore does not work in swarm mode, and a dockerd that we did not start may run without it.
        probe = DaemonProbe(runner_of(agent, self._options).socket)
        return probe.running() if running is None or change.stops or probe.swarm() else ()

    def finds_dockerd(self) -> bool:
        """Whether a dockerd runs with our file, or with the user's where that is the one that we start."""
        if self._own_script is not None:
            return self._own_script.find() is not None
        # Asked of the process table and not of the engine: a dockerd that hangs runs as well.
        return daemon_process.find_with_config(self.files.config_file) is not None

    # who runs dockerd

    def _not_ours(self, settings: DaemonSettings | None, runner: Runner) -> str:
        if runner.kind == "child" and self._names_nothing(settings):
            return ""  # as with the script, UCI's options count then
        return not_ours(settings, runner, self.files.config_file, init_script=self._tools.init_script)

    def _names_nothing(self, settings: DaemonSettings | None) -> bool:
        """Whether alt_config_file is one that does not exist, and not for its disk being away."""
        # A file that does not exist decides nothing. A disk that is away is another matter: the file may be on it.
        given = settings.alt_config_file if settings is not None else ""
        return bool(given) and not exists(given) and not missing_mount(given, self._options)

    def _starts(self, settings: DaemonSettings | None, runner: Runner) -> bool:
        """Whether we start dockerd, with settings of ours or not: its autostart has been taken, or we are asked to."""
        if runner.elsewhere:
            return False
        if runner.kind == "child":
            return settings is not None
        # Without the script there is nothing to start it with: a Debian, say, where systemd does that.
        return runner.kind == "procd" and self._tools.init_script.exists()

    def _keep_own(self, desired: Desired, runner: Runner, why: str, *, busy: bool) -> str:
        """A dockerd with settings of the user's is started, and no more. As `_reconcile`."""
        if self._own_script is None:
            answers, start_s = DaemonProbe(runner.socket).answers, self._tools.limits.start_s
            if runner.kind == "child":
                child = ChildSupervisor(program=runner.program, config_file=self.files.config_file)
                self._own_script = OwnChildSupervisor(
                    child, socket=runner.socket, answers=answers, start_s=start_s
                )
            else:
                self._own_script = OwnScriptSupervisor(
                    script=self._tools.init_script, socket=runner.socket, answers=answers, start_s=start_s
                )
            self._change = None  # another supervisor
        script = self._own_script
        change = self._change_of(runner, script)
        # Our file would mislead: it is not what this dockerd reads.
        self.files.drop_current()
        own = own_settings(
            desired.daemon, has_package=has_package(self._options), default_file=self._tools.default_file
        )
        if runner.kind == "child":
            own = replace(own, arguments=own_arguments(own, runner.arguments))
        given = desired.daemon.alt_config_file if desired.daemon is not None else ""
        self._status.unmanaged(f"{why}; ucidockd only starts it", started=True)
        held = self._own.keep(change, script, own, given=given, busy=busy)
        if change.record.running is not None and not held:
            text = f"{why}; it still runs with the settings from before, until it is restarted"
            self._status.unmanaged(text, started=True)
        return held

    def _change_of(self, runner: Runner, supervisor: Supervisor | None = None) -> DaemonChange:
        if self._change is not None and self._runner == runner:
            return self._change
        files = self.files
        self._runner = runner
        if supervisor is None:
            supervisor = (
                ProcdSupervisor(script=self._tools.init_script, config_file=files.config_file)
                if runner.kind == "procd"
                else ChildSupervisor(program=runner.program, config_file=files.config_file)
            )
        self._change = DaemonChange(
            store=files,
            supervisor=supervisor,
            probe=DaemonProbe(runner.socket),
            check=checker(runner.program, version=lambda: version_of(runner.program), run_dir=self._run_dir),
            socket=runner.socket,
            limits=self._tools.limits,
            clock=self._tools.monotonic,
        )
        # an agent before us found that out, each time by a dockerd that did not start
        self._refused = dict(self._change.record.refused)
        return self._change

    def _report_external(self, desired: Desired, runner: Runner) -> str:
        """Why the dockerd that another program runs does not use our file, "" when it does."""
        if desired.daemon is None or desired.daemon.unreadable:
            # Without settings of ours there is nothing to compare with.
            return ""
        known = self.files.load().running
        try:
            rendered, _ = self._renderer.render(desired.daemon, runner, running=known, bridges=self._bridges)
        except DaemonError as exc:
            return f"{exc}: another program runs this engine"
        self._status.found(rendered)
        return self._external.report(target_of(rendered.document, runner))

    # the pass

    def _reconcile(self, desired: Desired, change: DaemonChange, runner: Runner, *, busy: bool) -> str:
        """One pass; why containers have to wait, "" when they need not."""
        if self._retry.is_set():
            self._retry.clear()
            self._refused.clear()
            change.remember({})
            change.forget_failure()
        # an agent was killed in the middle of a change, and what it had in mind may differ from what UCI says now
        if change.record.step in {Step.RELOAD, Step.STOP, Step.START}:
            self._life.acting(change.resume)
        change.supervisor.tidy()
        process = self._look(change)
        if held := self._paused(change, process, busy=busy) or self._manual.hold(change, process, busy=busy):
            return held
        if process is None and self._life.backing_off():
            return "dockerd died and is started again in a moment"
        wanted, trouble = self._wanted(desired, change, runner)
        # None: UCI says nothing usable and nothing has worked before. What runs, if anything, is left as it is
        if wanted is not None:
            goal = self._goal(change, wanted)
            if process is not None and (lost := self._health.storage_lost(change.record.running, goal)):
                return lost
            found = self._manual.step(self._what_to_do(change, goal, process), process)
            step = as_wished(found, desired.daemon)
            if step.effect is Effect.RESTART and (waits := self._why_not_now(goal, step, process, busy=busy)):
                return waits
            self._manual.begun()
            self._act(change, goal, step, process)
            self._learn(change, desired.daemon, wanted, runner)
        self._show(change, wanted, trouble)
        if change.record.process is None:
            return "dockerd does not run"
        self.other_engine = self._engine.other(change, desired, wanted)
        if held := self.other_engine or self._unproven:
            return held
        return self._engine.unsuitable(change, version_of(runner.program))

    def _paused(self, change: DaemonChange, process: Process | None, *, busy: bool) -> str:
        """Ends dockerd while its data is moved. Why it is down or about to be."""
        if not self._pausing:
            return ""
        # Operations on the engine are let finish: they would fail half-way, and the data is not copied before dockerd
        # has ended.
        if process is None or not busy:
            if process is not None:
                self._life.acting(change.pause)
                self._status.note("stop", self._pausing, error="")
            self._status.running(None)
        self._status.synced("Pending", self._pausing)
        return self._pausing

    def _why_not_now(self, goal: Target, step: Change, process: Process | None, *, busy: bool) -> str:
        """Why dockerd is not (re)started in this pass."""
        # On the empty mount point dockerd would start with an empty engine, and fill the router's flash with it.
        if missing := self._disk_missing(goal):
            self._status.synced("Waiting", missing)
            return missing
        if process is not None and busy:
            self._status.synced("Pending", f"{step.cause}; waits for operations that are under way")
            return f"dockerd is about to be restarted: {step.cause}"
        return ""

    def _look(self, change: DaemonChange) -> Process | None:
        """The dockerd that runs; one that died under our eyes is brought back first."""
        record = change.record
        if record.process is not None and daemon_process.is_alive(record.process):
            return record.process
        found = change.supervisor.find()
        if found is not None:
            change.adopt(found, self._read_by(found, record))
            return found
        # back-off would only prolong the wrong configuration; it is for the way back that dies as well
        watched = record.step is Step.WATCH and self._tools.monotonic() < record.watch_until
        blamed = watched and not (record.fallback and self._life.backing_off())
        if blamed and record.running is not None and not self._disk_missing(record.running):
            self._life.acting(change.died)
            return change.record.process
        return None

    def _read_by(self, process: Process, record: DaemonRecord) -> Target | None:
        """What a dockerd follows that we did not see starting, as far as that can be known."""
        # Wrong here means settings that never arrive: what is not sure counts as unknown.
        document = self.files.current_document()
        if record.running is not None and self.files.current() == record.running.text:
            return record.running
        # without any memory (it was lost) the file is our own best guess: we signal after every write of it
        if document is None or not (
            record == DaemonRecord() or daemon_process.began_after(process, self.files.config_file)
        ):
            return None
        arguments = self._runner.arguments if self._runner is not None else ()
        return Target(document=document, material=material_of(document), arguments=arguments)

    def _disk_missing(self, target: Target) -> str:
        """What is missing, when the file system of dockerd's data is not mounted."""
        return self._not_there(data_root(target.document))

    def _not_there(self, root: str) -> str:
        """What is missing of the file system of a directory that dockerd needs."""
        # The silent one first: of a mount that does not answer nothing else can be asked.
        read_only, silent = read_only_or_silent(root)
        if silent:
            text = f"{silent}, and dockerd is to keep its data in {root}"
        elif mount := missing_mount(root, self._options):
            text = f"nothing is mounted on {mount}, where dockerd keeps its data"
        elif read_only:
            text = f"the file system of {root}, where dockerd keeps its data, is mounted read-only"
        else:
            return ""
        self._status.waiting(text)
        return text

    def _wanted(
        self, desired: Desired, change: DaemonChange, runner: Runner
    ) -> tuple[Target | None, DaemonError | None]:
        """What UCI asks for, without what is wrong in it. The error is what could not be had of it."""
        if desired.daemon is None or desired.daemon.unreadable:
            return change.record.running or change.store.last_good(), None
        # A part that is wrong costs only itself: dockerd gets the rest, and status says what it did not get.
        rendered, trouble = self._render(desired.daemon, runner, change.record.running)
        given = desired.daemon.alt_config_file
        if (
            given != str(self.files.config_file)
            and runner.kind == "child"
            and self._names_nothing(desired.daemon)
        ):
            text = f"dockerd.globals.alt_config_file is {given}, which does not exist: dockerd gets the options of UCI"
            rendered = replace(rendered, warnings=(*rendered.warnings, text))
        self._status.found(rendered)
        return target_of(rendered.document, runner), trouble

    def _render(
        self,
        settings: DaemonSettings,
        runner: Runner,
        running: Target | None,
        *,
        renderer: Renderer | None = None,
        bridges: frozenset[str] | None = None,
    ) -> tuple[Rendered, DaemonError | None]:
        """As `Renderer.render`. An unknown dockerd, or an external one, may be listening itself."""
        # A port that dockerd itself holds must not count as taken by another program.
        known = running is not None or self._change is None or self._change.supervisor.find() is None
        probe = known and runner.kind != "external"
        process = self._change.record.process if self._change is not None else None
        # A refusal holds for the value that was refused: once it is edited, it is tried again.
        refused = {
            key: why for key, (value, why) in self._refused.items() if value_at(settings.values, key) == value
        }
        return (renderer or self._renderer).render(
            settings,
            runner,
            running=running,
            probe=probe,
            bridges=self._bridges if bridges is None else bridges,
            refused=refused,
            lives=process is not None and daemon_process.is_alive(process),
        )

    def _goal(self, change: DaemonChange, wanted: Target) -> Target:
        """`wanted`, or what runs (or ran) instead when that has failed: it is not tried again until it changes.

        What has worked before is: it failed for something else.
        """
        # Without this a setting that makes dockerd fail would restart it in every pass.
        record = change.record
        if wanted.digest != record.failed or (record.process is None and wanted == change.store.last_good()):
            return wanted
        if record.running is not None:
            return record.running
        return change.store.last_good() or wanted

    def _what_to_do(self, change: DaemonChange, goal: Target, process: Process | None) -> Change:
        if process is None:
            return Change(effect=Effect.RESTART, causes=("dockerd does not run",))
        # Before the settings are compared: a dockerd that lost its bridge follows them and is of no use all the same.
        repair = self._health.repair(process, goal, answers=change.probe.answers)
        if repair is not None:
            return repair
        running = change.record.running
        step = classify(running, goal)
        # our file is what the next start of dockerd would read, whoever starts it
        if running is not None and change.store.current() != running.text:
            effect = Effect.RELOAD if step.effect is Effect.NOTHING else step.effect
            causes = (*step.causes, f"{self.files.config_file.name} was edited outside of ucidockd")
            return replace(step, effect=effect, causes=causes)
        return step

    def _act(self, change: DaemonChange, goal: Target, step: Change, process: Process | None) -> None:
        if step.effect is Effect.NOTHING:
            if change.record.step is Step.WATCH and self._tools.monotonic() >= change.record.watch_until:
                self._life.proved()
                change.end_watch()
            return
        self._status.synced("Pending", step.cause)
        # How long dockerd was away is what the user sees of it: it goes to the log.
        begun = self._tools.monotonic()
        self._life.acting(lambda: change.carry_out(goal, step))
        taken = self._tools.monotonic() - begun
        verb = "start" if process is None else str(step.effect)
        reached = change.record.running == goal
        self._status.note(verb, step.cause, error="" if reached else change.record.why)
        logger.info("%s dockerd: %s (%.1f s)", verb, step.cause, taken)

    def _learn(
        self, change: DaemonChange, settings: DaemonSettings | None, wanted: Target, runner: Runner
    ) -> None:
        """Which option dockerd refuses: it is left out from the next pass on, and the rest is applied."""
        # Without this one wrong option would keep every other change of the settings from being applied.
        found, change.blamed = change.blamed, {}
        if not found and change.refused == wanted:
            change.refused = None
            found = culprits(runner.program, wanted, self._run_dir, version_of(runner.program))
        if settings is None:
            return
        found = {key: why for key, why in found.items() if value_at(settings.values, key) is not None}
        if found:
            self._refused |= {key: (value_at(settings.values, key), why) for key, why in found.items()}
            change.remember(self._refused)
            self._wake(0)

    # what became of it

    def _show(self, change: DaemonChange, wanted: Target | None, trouble: DaemonError | None) -> None:
        if wanted is not None and change.record.failed and change.record.running == wanted:
            change.forget_failure()
        # dockerd takes its socket away when it begins to stop; to ask it each time would be a call for nothing
        listens = self._runner is None or Path(self._runner.socket).exists()
        self._status.running(change.record.process, listens=listens)
        self._status.outcome(change.record, wanted, trouble)
        if change.record.process is not None:
            self._life.watch(change.record.process)
        # The end of the watch is when new settings count as good: nothing else would ask for a pass at that moment.
        if change.record.step is Step.WATCH:
            self._wake(max(0.0, change.record.watch_until - self._tools.monotonic()) + 0.05)

    def mark(self) -> str:
        """Our mark on the disk of the engine that runs, "" where there is none."""
        return self._engine.mark()


def _devices(networks: tuple[Network, ...]) -> frozenset[str]:
    return frozenset(bridge.device for bridge in bridges_of(networks))


def make_stage(
    options: RuntimeOptions,
    settings: AgentSettings,
    board: StatusBoard,
    tools: Tools | None = None,
    *,
    wake: Callable[[float], None] = lambda seconds: None,
    has_ours: Callable[[], bool] = lambda: False,
    restarted: Callable[[], None] = lambda: None,
) -> DaemonStage:
    """The stage of the running agent. Its files in /var/run are beside the control socket."""
    return DaemonStage(
        options=options,
        run_dir=Path(options.socket or settings.socket).parent,
        status=DaemonStatus(board=board),
        tools=tools,
        wake=wake,
        has_ours=has_ours,
        restarted=restarted,
    )
