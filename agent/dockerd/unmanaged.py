# SPDX-License-Identifier: GPL-2.0-or-later
"""A dockerd that a user started, stopped or restarted; one whose settings are the user's; and one that other programs
run. Also who runs dockerd here and with which program.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import json
import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.dockerd.change import DaemonChange
from agent.dockerd.files import DaemonFiles
from agent.dockerd.status import DaemonStatus
from agent.dockerd.supervisor import UserChildSupervisor, UserScriptSupervisor, engine_version
from agent.engine import process as daemon_process
from agent.errors import ConflictError, DaemonError, PathError
from agent.files.config import open_store
from agent.files.options import RuntimeOptions
from agent.files.user_paths import PATHS, file_bytes, mode_of
from agent.model.dockerd.settings import DaemonAction, DaemonSettings, DaemonTarget, Document, Effect, Process
from agent.model.resources import AgentSettings, Desired
from agent.plan.daemon import DaemonPlan, classify

INIT_SCRIPT = Path("/etc/init.d/dockerd")
DEFAULT_SOCKET = "/var/run/docker.sock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """How dockerd is run. `kind` is procd, child or external; `socket`: the path on which dockerd listens in addition to
    UCI's hosts."""

    kind: str
    program: str
    arguments: tuple[str, ...]
    socket: str
    elsewhere: str = ""  # the address of an engine on another machine, "" if it is local


def runner_of(agent: AgentSettings, options: RuntimeOptions) -> Runner:
    """The runner according to the agent section; the command line takes precedence."""
    address = options.engine_address(agent)
    return Runner(
        # on other systems than OpenWrt the system starts dockerd and does not expect us to
        kind=agent.daemon or ("procd" if on_openwrt() else "external"),
        program=agent.dockerd,
        arguments=agent.dockerd_args,
        socket=address.path or DEFAULT_SOCKET,
        elsewhere="" if address.is_local else str(address),
    )


def version_of(program: str) -> tuple[int, int]:
    """The version of that program; queried again only if the file changes. Raises DaemonError."""
    try:
        found = PATHS.ask(shutil.which, program)
        stat = PATHS.ask(os.stat, found) if found else None
    except PathError as exc:
        raise DaemonError(str(exc), reason="NoProgram") from exc
    if not found or stat is None:
        raise DaemonError(f"there is no program {program}", reason="NoProgram")
    return _version(found, (stat.st_mtime_ns, stat.st_ino))


@functools.lru_cache(maxsize=4)
def _version(program: str, stamp: tuple[int, int]) -> tuple[int, int]:
    del stamp
    return engine_version(program)


def on_openwrt() -> bool:
    """Whether this system runs services with procd."""
    return INIT_SCRIPT.exists() and Path("/sbin/procd").exists()


# Whether ucidockd manages dockerd's settings, and dockerd's settings if it does not.


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerdSettings:
    """`values`: as in daemon.json. `managed`: the values come from UCI, and dockerd follows them."""

    values: Document
    managed: bool = True


def declared_settings(desired: Desired) -> DockerdSettings:
    """The settings according to UCI."""
    return DockerdSettings(values=desired.daemon.values if desired.daemon is not None else {})


def not_ours(
    settings: DaemonSettings | None, runner: Runner, config_file: Path, *, init_script: Path = INIT_SCRIPT
) -> str:
    """Why ucidockd does not manage dockerd's settings, "" if it does."""
    if runner.elsewhere:
        return f"the engine is on another machine, {runner.elsewhere}: configure dockerd there"
    if settings is None:
        decides = f": {init_script} sets its options" if runner.kind == "procd" else ""
        return f"no section in /etc/config/dockerd configures dockerd{decides}"
    # compare real paths: on OpenWrt /var is a link to /tmp
    given = settings.alt_config_file
    if given and PATHS.real(given) != PATHS.real(str(config_file)):
        if runner.kind == "procd" and not exists(given):
            return f"dockerd.globals.alt_config_file is {given}, which does not exist: {init_script} writes its own file"
        return f"dockerd.globals.alt_config_file is {given}: dockerd's settings are in that file"
    if runner.kind == "procd" and not given:
        ours = PATHS.real(str(config_file))
        return f"{init_script} writes its own file; set dockerd.globals.alt_config_file to {ours}"
    return ""


def settings_source(options: RuntimeOptions, config_file: Path) -> Callable[[Desired], DockerdSettings]:
    """Returns a function that gives dockerd's settings for each pass. `config_file`: the daemon.json that we write."""

    def found(desired: Desired) -> DockerdSettings:
        settings = desired.daemon
        runner = runner_of(desired.agent, options)
        if settings is not None and not not_ours(settings, runner, config_file):
            # an external dockerd may have been started with another file
            managed = runner.kind != "external" or daemon_process.find_with_config(config_file) is not None
            return DockerdSettings(values=settings.values if managed else {}, managed=managed)
        own = user_settings(settings, has_package=has_package(options))
        declared = settings.values if settings is not None else {}
        return DockerdSettings(
            values=_checked(own.document) if own.file is not None else declared, managed=False
        )

    return found


def has_package(options: RuntimeOptions) -> bool:
    """Whether the file /etc/config/dockerd exists."""
    return open_store(options).source_path("dockerd").exists()


def _checked(document: dict[str, Any]) -> Document:
    """The relevant options of a user's daemon.json."""
    kinds = {
        "iptables": bool,
        "userland-proxy": bool,
        "ip6tables": bool,
        "firewall-backend": str,
        "bridge": str,
    }
    values = {name: document[name] for name, kind in kinds.items() if isinstance(document.get(name), kind)}
    bip = document.get("bip")
    with contextlib.suppress(ValueError):  # dockerd does not start with an invalid value
        if isinstance(bip, str) and ipaddress.ip_interface(bip):
            values["bip"] = bip
    return values


# Requests of a user to start, stop or restart dockerd: a request is noted at once, and the next pass carries it out.
#
# A dockerd that a user stopped stays stopped, whatever else changes, until it is started (also outside of ucidockd),
# a reconcile is requested, or the router boots. Requests come from the API; `DaemonChange` carries them out.


BY_HAND = "requested manually"
_HELD = "dockerd was stopped manually: it stays down until you start it or run `ucidockd reconcile`"


def configured(desired: Desired | None) -> tuple[DaemonSettings | None, AgentSettings]:
    """The configuration; the settings are None if no section configures dockerd. Raises ConflictError if the agent does
    nothing."""
    if desired is None:
        raise ConflictError("the configuration cannot be read")
    if not desired.agent.enabled:
        raise ConflictError("the agent is switched off (option enabled of the agent section)")
    return desired.daemon, desired.agent


class ManualControl:
    """The latest request of a user. `acting` runs actions that stop or start dockerd on purpose; `runs`: whether a
    dockerd runs."""

    def __init__(
        self,
        status: DaemonStatus,
        *,
        acting: Callable[[Callable[[], None]], None],
        runs: Callable[[], bool],
    ) -> None:
        self._status = status
        self._acting = acting
        self._runs = runs
        self._wish: DaemonAction | None = None  # what a user asked for, until a pass carries it out

    def ask(self, wish: DaemonAction) -> None:
        """Notes a request, from any thread; it replaces a request that still waits."""
        self._wish = wish

    def check(self, wish: DaemonAction, *, kind: str, unmanaged: str) -> None:
        """Raises ConflictError if dockerd is not ours (`kind`: who runs it), or if the request would change nothing."""
        if kind == "external":
            raise ConflictError("ucidockd does not run this dockerd (option daemon is external)")
        if unmanaged:
            raise ConflictError(unmanaged)
        if self._wish is not None or wish is DaemonAction.RESTART:
            return  # another request is waiting, so the state after it is not known
        # refuse to stop a dockerd that does not run: it would stay down from then on, which the user did not ask for
        runs = self._runs()
        if runs is (wish is DaemonAction.START):
            raise ConflictError("dockerd runs already" if runs else "dockerd does not run")

    def hold(
        self, change: DaemonChange, process: Process | None, *, busy: bool, shutdown_s: int | None = None
    ) -> str:
        """Stops dockerd if requested. Returns why it is down or about to be, "" if it should run.

        `shutdown_s`: seconds that dockerd gives its containers to stop, if the record does not say. Raises OSError if
        a stop cannot be noted; then dockerd keeps running.
        """
        wish = self._wish
        # a swap that loses its engine half-way is repaired later, but until then its container is down
        if wish is DaemonAction.STOP and busy and process is not None:
            self._status.synced("Pending", "a stop was requested; waits for operations in progress")
            return "dockerd is about to be stopped"
        if wish is DaemonAction.STOP:
            self.begun(wish)
            self._stop(change, process, shutdown_s)
        elif wish is DaemonAction.START or (wish is DaemonAction.RESTART and process is None):
            self.begun(wish)
            change.released()
        # an earlier agent was killed while it stopped dockerd
        elif change.record.stopped and process is not None:
            self._stop(change, process, shutdown_s)
        if not change.record.stopped:
            return ""
        self._status.running(None)
        self._status.synced("Held", _HELD)
        return _HELD

    def wants_restart(self) -> bool:
        """Whether a restart was requested and has not begun."""
        return self._wish is DaemonAction.RESTART

    def _stop(self, change: DaemonChange, process: Process | None, shutdown_s: int | None) -> None:
        self._acting(lambda: change.stop(shutdown_s))
        if process is not None:
            self._status.note("stop", BY_HAND, error="")

    def step(self, found: DaemonPlan, process: Process | None) -> DaemonPlan:
        """Adds a requested restart to the change that is due anyway."""
        if self._wish is not DaemonAction.RESTART or process is None:
            return found
        return replace(found, effect=Effect.RESTART, causes=(*found.causes, BY_HAND))

    def begun(self, wish: DaemonAction = DaemonAction.RESTART) -> None:
        """The request is being carried out: a later one counts as a new request."""
        if self._wish is wish:
            self._wish = None


DEFAULT_FILE = Path("/etc/docker/daemon.json")  # dockerd's default file without --config-file
_SCRIPTS_DATA_ROOT = "/opt/docker/"  # what the script writes if UCI sets no data_root
_DOCKERDS_DATA_ROOT = "/var/lib/docker"
_SHUTDOWN_S = 15  # dockerd's default for shutdown-timeout

OwnSupervisor = UserScriptSupervisor | UserChildSupervisor


@dataclass(frozen=True, slots=True, kw_only=True)
class UserSettings:
    """What the script starts dockerd with.

    `file`: the daemon.json that dockerd follows, None if the script creates one from UCI's options; `document`: its
    content; `trouble`: why dockerd will not accept it. `data_root`: a directory. `shutdown_s`: seconds that dockerd
    gives its containers to stop. `arguments`: for a dockerd without the script.
    """

    file: Path | None
    data_root: str
    document: dict[str, Any] = field(default_factory=dict)
    trouble: str = ""
    shutdown_s: int = _SHUTDOWN_S
    arguments: tuple[str, ...] = ()


def user_settings(
    settings: DaemonSettings | None, *, has_package: bool, default_file: Path = DEFAULT_FILE
) -> UserSettings:
    """The settings that the stock script chooses (openwrt/packages utils/dockerd/files/dockerd.init, process_config).

    `has_package`: the file /etc/config/dockerd exists. If alt_config_file names a file that does not exist, it is
    ignored.
    """
    given = Path(settings.alt_config_file) if settings is not None and settings.alt_config_file else None
    if given is not None and exists(str(given)):
        return _of_file(given)
    # without OpenWrt's package no script creates a file: dockerd reads its default file
    if not has_package:
        return _of_file(default_file)
    values = settings.values if settings is not None else {}
    return UserSettings(file=None, data_root=str(values.get("data-root") or _SCRIPTS_DATA_ROOT))


def user_arguments(own: UserSettings, arguments: tuple[str, ...]) -> tuple[str, ...]:
    """The arguments for a dockerd that we start ourselves. `arguments`: those of the agent section."""
    return (f"--config-file={own.file}", *arguments) if own.file is not None else arguments


def exists(path: str) -> bool:
    """Whether a regular file exists, as the script checks. Raises PathError if its mount does not answer."""
    mode = PATHS.ask(mode_of, path)
    return mode is not None and stat.S_ISREG(mode)


def _of_file(file: Path) -> UserSettings:
    document, trouble = _document_of(file)
    # Read only the options that matter to us, and only with the right type: dockerd itself reports the other
    # mistakes.
    root, seconds = document.get("data-root"), document.get("shutdown-timeout")
    return UserSettings(
        file=file,
        data_root=root if isinstance(root, str) and root else _DOCKERDS_DATA_ROOT,
        document=document,
        trouble=trouble,
        shutdown_s=seconds if isinstance(seconds, int) and seconds > 0 else _SHUTDOWN_S,
    )


def _document_of(path: Path) -> tuple[dict[str, Any], str]:
    """A daemon.json of the user's and its mistake; empty while it cannot be read (then dockerd's defaults apply)."""
    try:
        document = json.loads(PATHS.ask(file_bytes, str(path)))
    except json.JSONDecodeError as exc:
        return {}, f"{path} is not JSON (line {exc.lineno}: {exc.msg})"
    except (PathError, ValueError, RecursionError) as exc:
        return {}, "" if isinstance(exc, PathError) else f"{path} is not JSON"
    return (document, "") if isinstance(document, dict) else ({}, f"{path} is not a JSON object")


@dataclass(frozen=True, slots=True, kw_only=True)
class UserDockerd:
    """Keeps a dockerd with the user's settings running.

    `missing`: why a directory cannot be used yet (also shown on the board); `backing_off`: whether the back-off still
    delays a restart; `acting` runs actions that stop or start dockerd on purpose; `watch` waits for its end.
    """

    status: DaemonStatus
    manual: ManualControl
    missing: Callable[[str], str]
    backing_off: Callable[[], bool]
    acting: Callable[[Callable[[], None]], None]
    watch: Callable[[Process], None]

    def keep(
        self,
        change: DaemonChange,
        supervisor: OwnSupervisor,
        own: UserSettings,
        *,
        given: str,
        busy: bool,
    ) -> str:
        """One pass. Returns why containers have to wait, "" if they do not. `given`: alt_config_file, "" for none.

        Raises DaemonError if dockerd cannot be started, OSError if a stop cannot be noted.
        """
        # first: an open change of ours must not continue with a file that is not ours
        process = supervisor.find()
        change.abandon(process)
        if held := self.manual.hold(change, process, busy=busy, shutdown_s=own.shutdown_s):
            return held
        if process is not None and self.manual.wants_restart():
            if busy:
                self.status.synced("Pending", "a restart was requested; waits for operations in progress")
                return "dockerd is about to be restarted"
            self._restart(supervisor, process, own)
        # ask the engine too: another program may serve the socket, and a second dockerd on the same data would damage
        # it
        elif process is None and not change.probe.answers():
            if waits := self._why_not_started(supervisor, own, given):
                return waits
            self.acting(lambda: self._start(supervisor, own))
        process = supervisor.find()  # it may have been started or restarted above
        change.abandon(process)
        self.manual.begun()
        self.status.user_dockerd_runs(process)
        if process is not None:
            self.watch(process)
        return ""

    def _why_not_started(self, supervisor: OwnSupervisor, own: UserSettings, given: str) -> str:
        if self.backing_off():
            return "dockerd ended and is started again in a moment"
        # the file itself may be on the missing disk: without it the script would create an engine with other data
        for path in (given, own.data_root):
            if path and (missing := self.missing(path)):
                return missing
        if supervisor.runs():
            text = f"dockerd runs and does not listen on {supervisor.socket}"
            if own.file is not None:
                text += f": it is starting, or `hosts` in {own.file} lacks unix://{supervisor.socket}"
            self.status.user_dockerd_silent(text)
            return text
        return ""

    def _start(self, supervisor: OwnSupervisor, own: UserSettings) -> None:
        self.status.synced("Pending", "dockerd does not run")
        try:
            supervisor.start(own.arguments)
        except DaemonError as exc:
            if not own.trouble:
                raise
            # dockerd does not say which line is wrong
            raise DaemonError(f"{own.trouble}: {exc}", reason=exc.reason) from exc
        self.status.note("start", "dockerd does not run", error="")

    def _restart(self, supervisor: OwnSupervisor, process: Process, own: UserSettings) -> None:
        self.manual.begun(DaemonAction.RESTART)
        self.status.synced("Pending", BY_HAND)

        # allow the time of the containers, plus the default time for dockerd itself
        def again() -> None:
            supervisor.stop(process, own.shutdown_s + _SHUTDOWN_S)
            supervisor.start(own.arguments)

        self.acting(again)
        self.status.note("restart", BY_HAND, error="")


# A dockerd that another program runs: its file is written, and a restart that it needs is reported, never done.


class ExternalDockerd:
    """Handles an external dockerd and remembers what it was started with."""

    def __init__(self, files: DaemonFiles, status: DaemonStatus) -> None:
        self._files, self._status = files, status

    def report(self, target: DaemonTarget) -> str:
        """Writes daemon.json and shows whether the dockerd that uses it follows it. Returns why no dockerd uses it, ""
        if one does. Raises OSError."""
        before = self._files.load()
        process, running = before.process, before.running
        # a dockerd started after our last write has read that file; the settings of an older one are not known
        if process is None or not daemon_process.is_alive(process):
            process = daemon_process.find_with_config(self._files.config_file)
            running = (
                before.target
                if process is not None and daemon_process.began_after(process, self._files.config_file)
                else None
            )
        # written although we do not start dockerd, so that whoever does finds the present settings
        if self._files.current() != target.text:
            self._files.write_current(target.text)
        record = replace(before, process=process, running=running, target=target)
        if record != before:
            self._files.save(record)
        if process is None:
            path = self._files.config_file
            return f"no dockerd here runs with --config-file={path}: its settings come from elsewhere"
        self._say(running, target)
        return ""

    def _say(self, running: DaemonTarget | None, target: DaemonTarget) -> None:
        change = classify(running, target)
        match change.effect:
            case Effect.NOTHING:
                self._status.restart_needed(None, "")
            case Effect.RELOAD:
                self._status.restart_needed("Reload", f"reload dockerd yourself (SIGHUP): {change.cause}")
            case Effect.RESTART:
                self._status.restart_needed("Restart", f"restart dockerd yourself: {change.cause}")
