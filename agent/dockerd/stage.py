# SPDX-License-Identifier: GPL-2.0-or-later
"""The dockerd part of a pass, before containers are handled: brings dockerd to the settings in /etc/config/dockerd.

`reconcile` says whether containers may be handled: not while dockerd is down or about to be restarted, and not on
another engine that the user did not ask for. The status board shows every result under `daemon:dockerd`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from agent.dockerd.change import Certificates, DaemonChange, Limits, Supervisor
from agent.dockerd.files import DaemonFiles, material_of
from agent.dockerd.health import DaemonHealth, DaemonWatch, EngineRecognition, RunningEngine
from agent.dockerd.status import DaemonStatus
from agent.dockerd.supervisor import (
    ChildSupervisor,
    ProcdSupervisor,
    UserChildSupervisor,
    UserScriptSupervisor,
)
from agent.dockerd.target import Renderer, ServerIdentities, checker, refusal, refused_keys, target_of
from agent.dockerd.unmanaged import (
    DEFAULT_FILE,
    INIT_SCRIPT,
    ExternalDockerd,
    ManualControl,
    OwnSupervisor,
    Runner,
    UserDockerd,
    UserSettings,
    configured,
    exists,
    has_package,
    not_ours,
    runner_of,
    user_arguments,
    user_settings,
    version_of,
)
from agent.engine import process as daemon_process
from agent.engine.probe import DaemonProbe
from agent.errors import ConflictError, DaemonError, Reason, UcidockdError
from agent.files.options import RuntimeOptions
from agent.files.user_paths import file_system_of
from agent.files.watcher import declared_mount, missing_mount, read_only_or_silent
from agent.model.addresses import Route
from agent.model.dockerd.settings import (
    ChangeStep,
    DaemonAction,
    DaemonRecord,
    DaemonSettings,
    DaemonTarget,
    Document,
    Effect,
    Json,
    NotOurs,
    Process,
    data_root,
)
from agent.model.dockerd.table import value_at
from agent.model.resources import AgentSettings, Desired, Network
from agent.plan.daemon import DaemonPlan, LeftOut, Rendered, apply_live_restore, classify
from agent.plan.router.bridges import bridges_of
from agent.router.addresses import host_routes, local_server_names
from agent.status.board import StatusBoard

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What the stage needs from outside; tests replace it. Without `certificates` none are created."""

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
class DataLocation:
    """Where a dockerd keeps its data. `root`: its data_root; `store`: see `DaemonProbe.store`."""

    root: str
    document: Document
    store: str
    version: tuple[int, int]
    probe: DaemonProbe


class DaemonStage:
    """Keeps dockerd as UCI says. `wake(seconds)` requests a pass after that time, from any thread.

    `has_ours`: whether the engine that answers has containers of ours. `restarted` is called when a new engine
    answers.
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
        self._watch = DaemonWatch(status, wake=wake, clock=self._tools.monotonic)
        self._runner: Runner | None = None  # how dockerd is run here, at the last pass
        self._change: DaemonChange | None = None  # of that runner; it has the record of the running dockerd
        self._retry = threading.Event()  # retry what failed
        self.holding = ""  # why the rest of a pass may not run, "" if it may
        self.other_engine = ""  # why the running engine is not the one that the containers belong to
        self._pausing = self._unproven = ""  # reasons, see `pause` and `hold_containers`
        self._renderer = Renderer(
            files=self.files,
            identities=ServerIdentities(
                certificates=self._tools.certificates,
                names=self._tools.names,
                wall=self._tools.wall,
            ),
            routes=self._tools.routes,
        )
        # key -> (the value that dockerd refused, why)
        self._refused: dict[str, tuple[Json, str]] = {}
        self._bridges: frozenset[str] = frozenset()  # devices of the networks that sections declare
        self._external = ExternalDockerd(self.files, status)
        self._manual = ManualControl(status, acting=self._watch.acting, runs=self.is_dockerd_running)
        self._own = UserDockerd(
            status=status,
            manual=self._manual,
            missing=self._not_there,
            backing_off=self._watch.backing_off,
            acting=self._watch.acting,
            watch=self._watch.watch,
        )
        self._own_script: OwnSupervisor | None = None  # set while dockerd follows a file of the user's
        self._engine = RunningEngine(
            EngineRecognition(self.files, status, on_disk=lambda root: bool(declared_mount(root, options))),
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
        """A reconcile was requested: the running engine is the right one, and what failed is tried again."""
        self._engine.accept()
        self._retry.set()
        self._watch.forget_backoff()
        # also start a dockerd that was stopped manually: the user asks for everything that is declared
        self._manual.ask(DaemonAction.START)

    def ask(self, wish: DaemonAction, desired: Desired | None) -> None:
        """Makes the next pass start, stop or restart dockerd. Raises ConflictError saying why that is not possible."""
        settings, agent = configured(desired)
        if self._pausing or self._unproven:
            raise ConflictError(self._pausing or self._unproven)
        runner = runner_of(agent, self._options)
        refused = "" if self._starts(settings, runner) else self._not_ours(settings, runner)
        self._manual.check(wish, kind=runner.kind, unmanaged=refused)
        # a dockerd that runs must not be stopped for a file with which it does not come back
        runs = wish is DaemonAction.RESTART and self.is_dockerd_running()
        trouble = self.trouble_with_own_file(desired) if runs and desired is not None else ""
        if trouble:
            raise ConflictError(f"dockerd would not start again: {trouble}")
        # a person who asks does not have to wait for the back-off
        self._watch.forget_backoff()
        self._manual.ask(wish)

    def reconcile(self, desired: Desired, *, busy: bool) -> bool:
        """Handles dockerd; True if containers may be reconciled. `busy`: operations on the engine are in progress.
        Blocks.

        `holding` says why containers may not be reconciled.
        """
        self.holding = self.other_engine = ""
        runner = runner_of(desired.agent, self._options)
        if desired.daemon is None and not self._starts(None, runner):
            self._show_whose(None, runner, self._not_ours(None, runner))
            self._status.drop()
            return True
        self._status.begin(desired.daemon_mistakes)
        # dockerd must not get a subnet that a network section will use; the bridges are known before, but visible
        # only after its start
        self._bridges = _devices(desired.networks)
        try:
            unmanaged = self._not_ours(desired.daemon, runner)
            # another program starts and stops this dockerd: only report what it needs
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
        """Shows who runs dockerd and whose settings it follows. `unmanaged`: why dockerd does not follow the file that
        we write."""
        starts = runner.kind != "external" and (not unmanaged or self._starts(settings, runner))
        # if the user's file does not exist, the script follows UCI in its own way
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
        self._status.set_ownership(starts=starts, settings=follows, why=why)

    def keep_running(self, readable: Desired) -> None:
        """Keeps dockerd running when /etc/config/containers cannot be read and its earlier content is unknown.
        `readable`: the agent section and dockerd's settings, as far as they can be read."""
        # The router was rebooted with a broken file, say. Containers cannot be planned, but those that run without us
        # need their dockerd.
        if readable.agent.enabled:
            mistakes = (*readable.daemon_mistakes, "the configuration cannot be read")
            self.reconcile(
                self.with_last_good_settings(replace(readable, daemon_mistakes=mistakes)), busy=False
            )

    def with_last_good_settings(self, desired: Desired) -> Desired:
        """The configuration with dockerd's last good settings if the present ones cannot be read. Without a last good
        document: as the stock script would start dockerd, or with its defaults."""
        settings = desired.daemon
        if settings is None or not settings.unreadable:
            return desired
        # from disk, not from memory: the agent may have started with the broken file
        ours, good = str(self.files.config_file), self.files.last_good()
        if good is not None:
            settings = replace(settings, alt_config_file=ours, values=good.document)
        elif runner_of(desired.agent, self._options).kind == "child":
            settings = replace(settings, alt_config_file=ours, unreadable=False)
        else:
            settings = None
        return replace(desired, daemon=settings)

    def _failed(self, exc: UcidockdError | OSError) -> None:
        """dockerd is down, or nothing was changed for a temporary reason: retried with back-off."""
        self._watch.failed(str(exc))
        reason: Reason = exc.reason if isinstance(exc, DaemonError) else "Failed"
        logger.error("dockerd: %s", exc)
        self._status.degraded(reason, str(exc))
        self._status.synced(reason, str(exc))
        # a dockerd that still answers keeps its containers: only the change of its settings has failed
        if self._change is not None and not self._change.probe.answers():
            self.holding = str(exc)

    def manages(self, desired: Desired) -> bool:
        """Whether we start dockerd and it follows our file."""
        runner = runner_of(desired.agent, self._options)
        return runner.kind != "external" and not self._not_ours(desired.daemon, runner)

    def pause(self, why: str) -> None:
        """While `why` is not "", the next pass stops dockerd and no pass starts it."""
        self._pausing = why

    def hold_containers(self, why: str) -> None:
        """While `why` is not "", dockerd runs but nothing is done with its containers."""
        self._unproven = why

    def accept_next_engine(self) -> None:
        """Accepts the next engine that starts, whatever its data_root is."""
        self._engine.accept()

    def home(self, desired: Desired | None) -> DataLocation:
        """The data of the running dockerd, and its storage driver. Raises ConflictError if we cannot move it."""
        settings, agent = configured(desired)
        runner = runner_of(agent, self._options)
        if runner.kind == "external" and not runner.elsewhere:
            raise ConflictError(
                "ucidockd does not run this dockerd (option daemon is external): move its data yourself"
            )
        # Moving means to stop dockerd, copy, and start it with another `data_root`. None of this is possible if
        # others write dockerd's settings.
        if settings is None or (refused := self._not_ours(settings, runner)):
            raise ConflictError(
                f"{refused if settings is not None else 'no section configures dockerd'}: move its data yourself"
            )
        if self.other_engine:
            raise ConflictError(
                f"another engine is running, not the one of these containers: {self.other_engine}"
            )
        change = self._change_of(runner)
        running, process = change.record.running, change.record.process
        if running is None or process is None or not change.probe.answers():
            raise ConflictError(
                "dockerd does not run: start it first, so that the copy can be checked against it"
            )
        return DataLocation(
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
    ) -> tuple[DaemonTarget, tuple[str, ...]]:
        """The file that would be written, and the remarks about it.

        `networks`: those of all sections. `make`: whether missing certificates may be created; otherwise they are
        named as if they existed. Raises DaemonError.
        """
        runner = runner_of(agent, self._options)
        # `ucidockd render` runs in another process than the agent, so it must not leave certificates behind
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
        """The settings that would not be applied here. Creates no certificates. Raises DaemonError."""
        rendered, _ = self._render(
            settings,
            runner_of(agent, self._options),
            self.files.load().running,
            renderer=self._renderer.foreseeing(),
            bridges=_devices(networks),
        )
        return rendered.left_out

    def trouble_with_own_file(self, desired: Desired) -> str:
        """Why dockerd will not accept the user's daemon.json that we start it with; "" if nothing is known."""
        runner = runner_of(desired.agent, self._options)
        starts = runner.kind != "external" and self._starts(desired.daemon, runner)
        if not starts or not self._not_ours(desired.daemon, runner):
            return ""
        own = self._own_settings(desired, runner)
        if own.file is None or own.trouble or not exists(str(own.file)):
            return own.trouble
        # before 23.0 dockerd cannot validate, and only its start shows a value of the wrong type
        try:
            said = refusal(runner.program, own.file, own.arguments[1:], version_of(runner.program))
        except DaemonError:  # no program
            return ""
        return f"dockerd refuses {own.file}: {said}" if said else ""

    def _own_settings(self, desired: Desired, runner: Runner) -> UserSettings:
        own = user_settings(
            desired.daemon, has_package=has_package(self._options), default_file=self._tools.default_file
        )
        return (
            replace(own, arguments=user_arguments(own, runner.arguments)) if runner.kind == "child" else own
        )

    def stopped_by(
        self, change: DaemonPlan, running: DaemonTarget | None, agent: AgentSettings
    ) -> tuple[str, ...]:
        """Names of the containers that a change would stop; empty if live-restore keeps them running."""
        if change.effect is not Effect.RESTART:
            return ()
        # live-restore does not work in swarm mode, and a dockerd that we did not start may run without it
        probe = DaemonProbe(runner_of(agent, self._options).socket)
        return probe.running() if running is None or change.stops or probe.swarm() else ()

    def is_dockerd_running(self) -> bool:
        """Whether a dockerd runs with our file, or with the user's file if that is the one we start."""
        if self._own_script is not None:
            return self._own_script.find() is not None
        # ask the process table, not the engine: a hanging dockerd runs as well
        return daemon_process.find_with_config(self.files.config_file) is not None

    # who runs dockerd

    def _not_ours(self, settings: DaemonSettings | None, runner: Runner) -> str:
        if runner.kind == "child" and self._names_nothing(settings):
            return ""  # as with the script, UCI's options apply
        return not_ours(settings, runner, self.files.config_file, init_script=self._tools.init_script)

    def _names_nothing(self, settings: DaemonSettings | None) -> bool:
        """Whether alt_config_file names a file that does not exist, although its disk is mounted."""
        # A file that does not exist decides nothing. If its disk is not mounted, the file may be on it.
        given = settings.alt_config_file if settings is not None else ""
        return bool(given) and not exists(given) and not missing_mount(given, self._options)

    def _starts(self, settings: DaemonSettings | None, runner: Runner) -> bool:
        """Whether we start dockerd, with our settings or not: we disabled its autostart, or were asked to start it."""
        if runner.elsewhere:
            return False
        if runner.kind == "child":
            return settings is not None
        # without the init script we cannot start it, for example on Debian, where systemd does
        return runner.kind == "procd" and self._tools.init_script.exists()

    def _keep_own(self, desired: Desired, runner: Runner, why: str, *, busy: bool) -> str:
        """Starts a dockerd that follows the user's settings, and nothing more. Returns like `_reconcile`."""
        if self._own_script is None:
            answers, start_s = DaemonProbe(runner.socket).answers, self._tools.limits.start_s
            if runner.kind == "child":
                child = ChildSupervisor(program=runner.program, config_file=self.files.config_file)
                self._own_script = UserChildSupervisor(
                    child, socket=runner.socket, answers=answers, start_s=start_s
                )
            else:
                self._own_script = UserScriptSupervisor(
                    script=self._tools.init_script, socket=runner.socket, answers=answers, start_s=start_s
                )
            self._change = None  # to be recreated with the other supervisor
        script = self._own_script
        change = self._change_of(runner, script)
        # our file would be misleading: this dockerd does not read it
        self.files.drop_current()
        own = self._own_settings(desired, runner)
        if own.trouble:
            why = f"{why}; {own.trouble}, so dockerd will not start with it"
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
        # an earlier agent found these, each by a dockerd that did not start
        self._refused = dict(self._change.record.refused)
        return self._change

    def _report_external(self, desired: Desired, runner: Runner) -> str:
        """Why the dockerd that another program runs does not use our file, "" if it does."""
        if desired.daemon is None or desired.daemon.unreadable:
            # without valid settings there is nothing to compare with
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
        """One pass. Returns why containers have to wait, "" if they do not."""
        if self._retry.is_set():
            self._retry.clear()
            self._refused.clear()
            change.remember({})
            change.forget_failure()
        # an agent was killed in the middle of a change; its target may differ from what UCI says now
        if change.record.step in {ChangeStep.RELOAD, ChangeStep.STOP, ChangeStep.START}:
            self._watch.acting(change.resume)
        change.supervisor.tidy()
        process = self._look(change)
        if held := self._paused(change, process, busy=busy) or self._manual.hold(change, process, busy=busy):
            return held
        if process is None and self._watch.backing_off():
            return "dockerd died and is started again in a moment"
        wanted, trouble = self._wanted(desired, change, runner)
        # None: UCI has no usable settings and none have worked before. A running dockerd stays as it is
        if wanted is not None:
            goal = self._goal(change, wanted)
            if process is not None and (lost := self._health.storage_lost(change.record.running, goal)):
                return lost
            found = self._manual.step(self._what_to_do(change, goal, process), process)
            step = apply_live_restore(found, desired.daemon)
            if step.effect is Effect.RESTART and (waits := self._why_not_now(goal, step, process, busy=busy)):
                return waits
            self._manual.begun()
            self._act(change, goal, step, process)
            self._learn(change, desired.daemon, wanted, runner)
        self._show(change, wanted, trouble)
        if change.record.process is None:
            return "dockerd does not run"
        self.other_engine = self._engine.why_another(change, desired, wanted)
        if held := self.other_engine or self._unproven:
            return held
        return self._engine.unsuitable(change, version_of(runner.program))

    def _paused(self, change: DaemonChange, process: Process | None, *, busy: bool) -> str:
        """Stops dockerd while its data is moved. Returns why it is down or about to be, "" if it is not to stop."""
        if not self._pausing:
            return ""
        # Let running operations on the engine end: they would fail half-way, and copying only begins after dockerd
        # has ended.
        if process is None or not busy:
            if process is not None:
                self._watch.acting(change.pause)
                self._status.note("stop", self._pausing, error="")
            self._status.running(None)
        self._status.synced("Pending", self._pausing)
        return self._pausing

    def _why_not_now(
        self, goal: DaemonTarget, step: DaemonPlan, process: Process | None, *, busy: bool
    ) -> str:
        """Why dockerd is not (re)started in this pass, "" if it may be."""
        # on the bare mount point dockerd would start with an empty engine and fill the router's flash
        if missing := self._disk_missing(goal):
            self._status.synced("Waiting", missing)
            return missing
        if process is not None and busy:
            self._status.synced("Pending", f"{step.cause}; waits for operations in progress")
            return f"dockerd is about to be restarted: {step.cause}"
        return ""

    def _look(self, change: DaemonChange) -> Process | None:
        """The running dockerd. If it died while a change was watched, it is first brought back."""
        record = change.record
        if record.process is not None and daemon_process.is_alive(record.process):
            return record.process
        found = change.supervisor.find()
        if found is not None:
            change.adopt(found, self._read_by(found, record))
            return found
        # back-off would only prolong the wrong configuration; it applies when the rollback dies as well
        watched = record.step is ChangeStep.WATCH and self._tools.monotonic() < record.watch_until
        blamed = watched and not (record.fallback and self._watch.backing_off())
        if blamed and record.running is not None and not self._disk_missing(record.running):
            self._watch.acting(change.roll_back_after_death)
            return change.record.process
        return None

    def _read_by(self, process: Process, record: DaemonRecord) -> DaemonTarget | None:
        """The settings of a dockerd that we did not see start, as far as they can be known."""
        # when in doubt return None: a wrong guess would mean that settings are never applied
        document = self.files.current_document()
        if record.running is not None and self.files.current() == record.running.text:
            return record.running
        # if our record was lost, the file is the best guess: we send a signal after every write
        if document is None or not (
            record == DaemonRecord() or daemon_process.began_after(process, self.files.config_file)
        ):
            return None
        arguments = self._runner.arguments if self._runner is not None else ()
        return DaemonTarget(document=document, material=material_of(document), arguments=arguments)

    def _disk_missing(self, target: DaemonTarget) -> str:
        """The reason if the file system of dockerd's data is not mounted, else ""."""
        return self._not_there(data_root(target.document))

    def _not_there(self, root: str) -> str:
        """What is wrong with the file system of a directory that dockerd needs; "" if nothing is."""
        # check for a hanging mount first: no other check would return
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
    ) -> tuple[DaemonTarget | None, DaemonError | None]:
        """What UCI asks for, without invalid parts. The error describes what is not available."""
        if desired.daemon is None or desired.daemon.unreadable:
            return change.record.running or change.store.last_good(), None
        # an invalid part costs only itself: dockerd gets the rest, and status shows what is missing
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
        running: DaemonTarget | None,
        *,
        renderer: Renderer | None = None,
        bridges: frozenset[str] | None = None,
    ) -> tuple[Rendered, DaemonError | None]:
        """Renders as `Renderer.render`, and decides whether to probe hosts: an unknown or external dockerd may be using
        them."""
        # a port that dockerd itself holds must not count as taken by another program
        known = running is not None or self._change is None or self._change.supervisor.find() is None
        probe = known and runner.kind != "external"
        process = self._change.record.process if self._change is not None else None
        # a refusal applies to the refused value only: after an edit the option is tried again
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

    def _goal(self, change: DaemonChange, wanted: DaemonTarget) -> DaemonTarget:
        """`wanted`, or the running (or last good) target if `wanted` has failed. A failed target is not retried until it
        changes.

        Exception: a target that worked before is retried, because something else made it fail.
        """
        # otherwise a setting that makes dockerd fail would restart it in every pass
        record = change.record
        if wanted.digest != record.failed or (record.process is None and wanted == change.store.last_good()):
            return wanted
        if record.running is not None:
            return record.running
        return change.store.last_good() or wanted

    def _what_to_do(self, change: DaemonChange, goal: DaemonTarget, process: Process | None) -> DaemonPlan:
        if process is None:
            return DaemonPlan(effect=Effect.RESTART, causes=("dockerd does not run",))
        # before comparing settings: a dockerd that lost its bridge follows its settings and is useless all the same
        repair = self._health.repair(process, goal, answers=change.probe.answers)
        if repair is not None:
            return repair
        running = change.record.running
        step = classify(running, goal)
        # the next start of dockerd, by anyone, would read our file, so it must be right
        if running is not None and change.store.current() != running.text:
            effect = Effect.RELOAD if step.effect is Effect.NOTHING else step.effect
            causes = (*step.causes, f"{self.files.config_file.name} was edited outside of ucidockd")
            return replace(step, effect=effect, causes=causes)
        return step

    def _act(
        self, change: DaemonChange, goal: DaemonTarget, step: DaemonPlan, process: Process | None
    ) -> None:
        if step.effect is Effect.NOTHING:
            if (
                change.record.step is ChangeStep.WATCH
                and self._tools.monotonic() >= change.record.watch_until
            ):
                self._watch.watch_passed()
                change.end_watch()
            return
        self._status.synced("Pending", step.cause)
        # log how long dockerd was away, because users notice that
        begun = self._tools.monotonic()
        self._watch.acting(lambda: change.carry_out(goal, step))
        taken = self._tools.monotonic() - begun
        verb = "start" if process is None else str(step.effect)
        reached = change.record.running == goal
        self._status.note(verb, step.cause, error="" if reached else change.record.why)
        logger.info("%s dockerd: %s (%.1f s)", verb, step.cause, taken)

    def _learn(
        self, change: DaemonChange, settings: DaemonSettings | None, wanted: DaemonTarget, runner: Runner
    ) -> None:
        """Finds the option that dockerd refuses. From the next pass on it is left out, and the rest is applied."""
        # otherwise one wrong option would block every other change of the settings
        found, change.blamed = change.blamed, {}
        if not found and change.refused == wanted:
            change.refused = None
            found = refused_keys(runner.program, wanted, self._run_dir, version_of(runner.program))
        if settings is None:
            return
        found = {key: why for key, why in found.items() if value_at(settings.values, key) is not None}
        if found:
            self._refused |= {key: (value_at(settings.values, key), why) for key, why in found.items()}
            change.remember(self._refused)
            self._wake(0)

    # results

    def _show(self, change: DaemonChange, wanted: DaemonTarget | None, trouble: DaemonError | None) -> None:
        if wanted is not None and change.record.failed and change.record.running == wanted:
            change.forget_failure()
        # dockerd removes its socket when it begins to stop; checking for it saves a call that would fail
        listens = self._runner is None or Path(self._runner.socket).exists()
        self._status.running(change.record.process, listens=listens)
        self._status.outcome(change.record, wanted, trouble)
        if change.record.process is not None:
            self._watch.watch(change.record.process)
        # new settings count as good when the watch ends, and nothing else would trigger a pass at that moment
        if change.record.step is ChangeStep.WATCH:
            self._wake(max(0.0, change.record.watch_until - self._tools.monotonic()) + 0.05)

    def mark(self) -> str:
        """Our mark on the disk of the running engine, "" if there is none."""
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
    """The stage of the running agent. Its files in /var/run are next to the control socket."""
    return DaemonStage(
        options=options,
        run_dir=Path(options.socket or settings.socket).parent,
        status=DaemonStatus(board=board),
        tools=tools,
        wake=wake,
        has_ours=has_ours,
        restarted=restarted,
    )
