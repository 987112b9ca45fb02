# SPDX-License-Identifier: GPL-2.0-or-later
"""Wiring of the running agent: lock, state, engine, loop, control socket, signals."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import logging
import os
import random
import re
import secrets
import signal
import socket as socketlib
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from agent.api.local_access import TokenFile
from agent.apply.ports import Clock, SavedData
from agent.apply.worker_pool import BackOff
from agent.dockerd.stage import Tools, make_stage
from agent.dockerd.unmanaged import settings_source
from agent.engine import process as daemon_process
from agent.engine.client import DockerEngine
from agent.engine.transport import EngineTls
from agent.errors import AlreadyRunningError
from agent.files.atomic import remove_leftovers
from agent.files.config import load, load_given, open_store, remember_agent
from agent.files.options import RuntimeOptions
from agent.files.state import SettingsHistory, StateFile
from agent.model.issues import plain
from agent.model.resources import AgentSettings, Desired, PruneImages
from agent.model.secrets import hidden_text
from agent.notices import Notices
from agent.observe.snapshot import EngineRecords
from agent.observe.waiting import UsbDevices
from agent.router.addresses import host_routes
from agent.router.hazards import make_hazards
from agent.router.listening import machine_of
from agent.runtime.holds import Holds
from agent.runtime.loop import PASS_THREAD, Loop, begin_thread
from agent.runtime.reconciler import Reconciler
from agent.runtime.router_integration import make_router
from agent.runtime.triggers import Triggers
from agent.status.board import StatusBoard
from agent.storage import PruneScheduler
from agent.tls.certificates import Certificates

if TYPE_CHECKING:
    from agent.engine.registry import RegistryClient
    from agent.runtime.requests.moving import Mover
    from agent.runtime.update_checks import UpdateChecks
    from agent.storage.space import PullSpace

logger = logging.getLogger(__name__)

# The agent's log: information goes to standard output, warnings and errors to standard error; procd maps them to
# `daemon.info` and `daemon.err`. Plain text without secrets; repeated messages are logged rarely.


AGAIN_S = 600.0  # a lasting warning is logged again after this time, then after twice as long
AGAIN_LIMIT_S = 6 * 3600.0
QUIET_S = 90.0  # a message that was not logged for this long counts as new; back-off retries more often
_KEPT = 64
_NUMBER = re.compile(r"\d+")
# these log from warnings on, whatever our level
_QUIET_LIBRARIES = ("urllib3", "watchdog", "asyncio", "docker", "requests", "websockets", "concurrent")
_WORK = "work"  # threads that run blocking requests of clients
_THREADS_S, _LOOK_S = 1.0, 0.02
END_S = 8.0  # procd waits for 10 s (init.d/ucidockd), systemd for 15 s
_FORMAT = "%(levelname)s %(name)s: %(message)s"


class PlainFormatter(logging.Formatter):
    """One line per record. Lines of a traceback begin with `| `, so that none looks like a record."""

    def __init__(self) -> None:
        super().__init__(_FORMAT)

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if again := getattr(record, "again", 0):
            message = f"{message} ({again} more times since it was told)"
        lines = [plain(hidden_text(f"{record.levelname} {record.name}: {message}"))]
        if record.exc_info:
            told = hidden_text(self.formatException(record.exc_info))
            lines += [f"| {plain(line)}" for line in told.split("\n")]
        return "\n".join(lines)


class RepeatFilter(logging.Filter):
    """Limits repeated warnings and errors: logs the first one, later ones rarely, with the number of repeats.

    Numbers in messages are ignored. A message that has not come for a while counts as new. `clock`: monotonic,
    seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        # (logger, text without numbers), the oldest first
        self._known: OrderedDict[tuple[str, str], _Repeat] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        # times, ports and ids differ from line to line although the problem is the same
        key, now = (record.name, _NUMBER.sub("#", record.getMessage())), self._clock()
        with self._lock:
            known = self._known.get(key)
            if known is None or now - known.seen_at >= QUIET_S:
                self._known[key] = _Repeat(now)
                self._known.move_to_end(key)
                if len(self._known) > _KEPT:
                    self._known.popitem(last=False)
                return True
            known.seen_at = now
            if now - known.logged_at < known.wait_s:
                known.count += 1
                return False
            record.again = known.count
            known.logged_at, known.count = now, 0
            known.wait_s = min(2 * known.wait_s, AGAIN_LIMIT_S)
            return True


class _Repeat:
    def __init__(self, now: float) -> None:
        self.logged_at = self.seen_at = now
        self.wait_s, self.count = AGAIN_S, 0


def set_up_logging(level: str, *, out: TextIO | None = None, err: TextIO | None = None) -> None:
    """Sets up logging for the whole process. `level`: debug, info, warning or error."""
    information = logging.StreamHandler(out or sys.stdout)
    information.addFilter(lambda record: record.levelno < logging.WARNING)
    wrong = logging.StreamHandler(err or sys.stderr)
    wrong.setLevel(logging.WARNING)
    wrong.addFilter(RepeatFilter())
    for handler in (information, wrong):
        handler.setFormatter(PlainFormatter())
    logging.basicConfig(level=level.upper(), handlers=[information, wrong], force=True)
    for name in _QUIET_LIBRARIES:  # watchdog's debug level would report each write to our own log
        logging.getLogger(name).setLevel(logging.WARNING)
    # messages of watchdog's threads about files that change while they end are not errors
    watching = logging.getLogger("watchdog.observers.inotify")
    watching.addFilter(lambda record: "thread is inactive" not in record.msg)


def run(options: RuntimeOptions) -> int:
    """Runs the agent until SIGTERM or SIGINT. Returns the exit code: 0, or 3 if another agent is running."""
    # The agent section decides where to listen and how much to log. A broken configuration does not keep the agent
    # from starting. The first pass reads the configuration again.
    loaded = load(options)
    settings = (loaded.desired or loaded.readable).agent
    set_up_logging(options.log_level or settings.log_level)
    socket = Path(options.socket or settings.socket)
    try:
        with locked(socket.parent / "agent.lock") as lock:
            remove_leftovers(options.state_dir / "state.json")
            asyncio.run(_run(options, settings, socket, lock))
    except AlreadyRunningError as exc:
        print(plain(f"ucidockd: {exc}"), file=sys.stderr)
        return 3
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentServices:
    """What the running agent provides to its passes; a pass of the command line has none of it. See `Reconciler`.

    `triggers`: None without a loop. `ask`: a ubus call through the agent's connection.
    """

    triggers: Triggers | None = None
    ask: Callable[[str, str], Mapping[str, Any] | None] | None = None
    restores: Callable[[], SavedData | None] = lambda: None
    deletions_held: Callable[[], str] = str
    settings_read: Callable[[AgentSettings], None] = lambda _: None


def make_board() -> StatusBoard:
    """An empty board. It starts with a random version, so that clients of an earlier agent cannot resume its events
    here."""
    return StatusBoard(time.time, first=secrets.randbelow(2**40))


def make_reconciler(
    options: RuntimeOptions,
    settings: AgentSettings,
    board: StatusBoard | None = None,
    around: AgentServices | None = None,
) -> Reconciler:
    """Everything that a pass needs, on the real engine."""
    source = random.Random()
    board, around = board or make_board(), around or AgentServices()
    triggers = around.triggers or Triggers()
    certificates = Certificates(options.state_dir / "tls")
    engine_at = options.engine_address(settings)
    engine = DockerEngine(str(engine_at), tls=_engine_tls(options, settings))
    records = StateFile(options.state_dir / "state.json")
    engine_records = EngineRecords(engine=engine, records=records, mark=lambda: daemon.mark())
    daemon = make_stage(
        options,
        settings,
        board,
        Tools(certificates=certificates),
        wake=triggers.after,
        has_ours=engine_records.has_ours,
        restarted=engine_records.doubt,
    )
    # Only for a local engine, because the free space of a remote disk is unknown. Created on the first pull, because
    # the registry client is large.
    room = functools.cache(lambda: make_room(reconciler, options))
    pulls: dict[str, Any] = {}
    if engine_at.is_local:
        pulls["room"] = lambda image, platform, check: room().for_pull(image, platform, check)
        pulls["foresee_pull"] = lambda image, platform, frees: room().foresee(image, platform, frees)
    reconciler = Reconciler(
        usb=UsbDevices(monotonic=time.monotonic),
        engine=engine,
        engine_is_here=engine_at.is_local,
        records=records,
        engine_records=engine_records,
        board=board,
        load=lambda: load(options),
        remember_agent=lambda text: remember_agent(options, text),
        load_given=lambda given: load_given(options, given, machine_of(options, str(engine_at))),
        store=open_store(options),
        daemon=daemon,
        certificates=certificates,
        routes=host_routes if engine_at.is_local else tuple,
        router=make_router(
            options,
            board,
            settings_source(options, daemon.files.config_file),
            ask=around.ask,
            # a single pass watches nothing, because it ends immediately
            wake=triggers.now if around.triggers is not None else None,
        ),
        hazards=make_hazards(options, board, Path(options.socket or settings.socket)),
        backoff=BackOff(jitter=lambda: 0.8 + 0.4 * source.random()),
        holds=Holds(Path(options.socket or settings.socket).parent / "holds.json"),
        make_updates=lambda reconciler: _make_updates(reconciler, options, settings),
        history=SettingsHistory(options.state_dir / "history"),
        triggers=triggers,
        restores=around.restores,
        deletions_held=around.deletions_held,
        settings_read=around.settings_read,
        **pulls,
    )
    return reconciler


def _make_updates(reconciler: Reconciler, options: RuntimeOptions, settings: AgentSettings) -> UpdateChecks:
    from agent.engine.registry import registry_client  # imported here because few users need it
    from agent.runtime.update_checks import UpdateChecks

    return UpdateChecks(
        engine=reconciler.engine,
        records=reconciler.records,
        memory=options.state_dir / "updates.json",
        run_file=Path(options.socket or settings.socket).parent / "updates.json",
        spread=random.random(),
        make_client=functools.partial(registry_client, is_here=reconciler.engine_is_here),
        begin_thread=begin_thread,
        wake=reconciler.triggers.now,
    )


def make_room(reconciler: Reconciler, options: RuntimeOptions) -> PullSpace:
    """Checks whether pulls fit on the disk of an engine on this machine."""
    from agent.storage.space import PullSpace  # imported on the first pull

    def client() -> RegistryClient:
        from agent.engine.registry import registry_client  # few pulls need it

        return registry_client(reconciler.engine, reconciler.desired or Desired(), is_here=True)

    def freeable() -> int:
        from agent.storage.space import PruneRequest

        request = PruneRequest(images=PruneImages.UNUSED, dry_run=True)
        return int(make_prune_scheduler(reconciler, options).prune(request)["bytes"])

    def sized(image: str, size: int) -> None:
        if reconciler.updates is not None:
            reconciler.updates.learn_size(image, size)

    return PullSpace(engine=reconciler.engine, client=client, freeable=freeable, sized=sized)


def make_prune_scheduler(reconciler: Reconciler, options: RuntimeOptions) -> PruneScheduler:
    """Watches the disk of the engine's data. While the configuration cannot be read, nothing is removed."""
    return PruneScheduler(
        engine=reconciler.engine,
        records=reconciler.records,
        board=reconciler.board,
        # with an unreadable file, the last good sections must not decide what may be removed
        desired=lambda: reconciler.desired if reconciler.last.desired is not None else None,
        memory=options.state_dir / "unused.json",
        is_here=reconciler.engine_is_here,
        clock=Clock(wall=lambda: reconciler.wall(), monotonic=lambda: reconciler.monotonic()),
    )


def _engine_tls(options: RuntimeOptions, settings: AgentSettings) -> EngineTls | None:
    folder = options.certificates_of_engine(settings)
    return EngineTls(folder) if folder else None


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """Holds the lock that allows only one agent, and returns its descriptor. flock instead of a pid file: the lock ends
    with the process in any case.

    Exception: a killed process may keep its lock, because threads stuck on a dead mount stay in the kernel. They do
    nothing any more, so a new file replaces the locked one.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # if two agents start at the same time, only one of them may replace the file
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        descriptor = _lock(path)
        if descriptor is None and _is_held_by_the_dead(path):
            logger.warning(
                "a killed agent still hangs in the kernel, on a mount that does not answer; this one starts"
            )
            path.unlink()
            descriptor = _lock(path)
    finally:
        os.close(folder)
    if descriptor is None:
        raise AlreadyRunningError(f"another agent is running ({path} is locked)")
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(path: Path) -> int | None:
    # do not follow links: in a directory that others can write to, a link could make us lock or create any file
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _is_held_by_the_dead(path: Path) -> bool:
    """Whether the process that locked the file has ended, except for threads that are stuck in the kernel
    (proc_locks(5))."""
    inode = str(path.stat().st_ino)
    rows = [line.split() for line in Path("/proc/locks").read_text(encoding="ascii").splitlines()]
    holders = [int(row[4]) for row in rows if row[1] == "FLOCK" and row[5].rpartition(":")[2] == inode]
    return bool(holders) and all(daemon_process.process_of(pid) is None for pid in holders)


def tell_service_manager() -> None:
    """Tells systemd, if it started the agent, that the agent is ready (sd_notify(3), `Type=notify`)."""
    address = os.environ.pop("NOTIFY_SOCKET", "")  # removed so that hooks and scripts do not inherit it
    if not address:
        return
    with socketlib.socket(socketlib.AF_UNIX, socketlib.SOCK_DGRAM) as sender:
        try:
            sender.sendto(b"READY=1", address.replace("@", "\0", 1) if address[0] == "@" else address)
        except OSError as exc:
            logger.warning("systemd was not told that the agent is ready: %s", exc)


async def _run(options: RuntimeOptions, settings: AgentSettings, socket: Path, lock: int) -> None:
    from agent.api.engine_requests import DeclaredImageGuard, StorageGuard
    from agent.api.jobs.jobs import Jobs
    from agent.api.streams.consoles import Consoles
    from agent.api.streams.stream_sources import console_kind
    from agent.api.ubus.agent import (
        AdoptionMethods,
        DaemonMethods,
        DataMethods,
        JobMethods,
        UpdateMethods,
        job_kinds,
        log_methods,
    )
    from agent.data.parts import Data
    from agent.engine.stream import DockerStream
    from agent.observe.load import Loads
    from agent.runtime.requests.agent import RunningAgent
    from agent.runtime.servers import ApiParts, Bus, Web

    # lambdas refer to objects that are created further down: passes only begin when all of them exist
    triggers = Triggers()
    bus = Bus(options.ubus_socket, triggers)
    board = make_board()
    around = AgentServices(
        triggers=triggers,
        ask=bus.ask,
        restores=lambda: data.restores,
        deletions_held=bus.deletions_held,
        settings_read=lambda read: web.settings_read(read),
    )
    reconciler = make_reconciler(options, settings, board, around)
    engine = DockerStream(
        options.engine_address(settings),
        tls=_engine_tls(options, settings),
        permit=StorageGuard(board),
        around=lambda client: DeclaredImageGuard(client, lambda: agent.images()),
    )
    move = options.state_dir / "move.json"

    def make_mover() -> Mover:
        from agent.runtime.requests.moving import Mover  # imported here because it is needed once at most

        assert reconciler.daemon is not None
        return Mover(passes, reconciler.daemon, options, move)

    pruning = make_prune_scheduler(reconciler, options)
    loads = Loads(
        engine,
        board,
        wanted=lambda: reconciler.desired is None or reconciler.desired.agent.load_history,
        is_here=reconciler.engine_is_here,
    )
    notices = Notices(board, memory=options.state_dir / "notices.json", scripts=options.scripts_dir)
    watched = (options.config_dir, options.override_dir)
    passes = Loop(reconciler, watch=watched, pruning=pruning, loads=loads, notices=notices)
    agent = RunningAgent(
        passes,
        pruning=pruning,
        loads=loads,
        notices=notices,
        make_mover=make_mover if reconciler.daemon is not None else None,
    )
    board.set_agent(options=options.given(settings))
    jobs = Jobs(engine)
    consoles = Consoles(engine)
    data = Data(
        engine,
        agent,
        board,
        instance=lambda: reconciler.records.instance,
        desired=lambda: reconciler.desired,
        run_dir=socket.parent,
        state_dir=options.state_dir,
    )
    methods = {
        **JobMethods(agent, jobs).methods(),
        **AdoptionMethods(agent).methods(),
        **DaemonMethods(agent).methods(),
        **UpdateMethods(agent).methods(),
        **log_methods(agent, engine),
        **DataMethods(data).methods(),
    }
    serving = bus.serving(
        agent, engine, kinds={"console": console_kind(consoles), **job_kinds(jobs)}, methods=methods
    )
    sessions = bus.sessions(TokenFile(options.state_dir / "token"))
    parts = ApiParts(
        options=options,
        agent=agent,
        engine=engine,
        consoles=consoles,
        jobs=jobs,
        data=data,
        sessions=sessions,
    )
    web = Web(parts, socket)

    loop = asyncio.get_running_loop()
    threads = ThreadPoolExecutor(thread_name_prefix=_WORK)
    loop.set_default_executor(threads)

    def end_at_last() -> None:
        """Ends the process even if something still waits: procd would kill it 2 s later, and the next start continues
        half-done work."""
        time.sleep(END_S)
        logger.warning("not everything has ended %g s after the signal: the next start continues it", END_S)
        _leave(lock)

    def stop() -> None:
        begin_thread(end_at_last)
        passes.stop()
        web.close_soon()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, lambda: passes.trigger(config=True, deep=True))
    moving: AbstractAsyncContextManager[None] = contextlib.nullcontext()
    if reconciler.daemon is not None and move.exists():  # an agent was killed while it moved data
        moving = agent.mover().running()
    # what earlier agents left is repaired before clients can request more; the loop starts last and ends first
    async with data.running(), moving, web, consoles, serving:
        logger.info("ready on %s", socket)
        tell_service_manager()
        await passes.run()
        await jobs.close()
    threads.shutdown(wait=False, cancel_futures=True)
    # a regular exit waits for threads, and one of them may be waiting for the engine
    if passes.parked or not await _threads_end():
        _leave(lock)


async def _threads_end() -> bool:
    """Whether all requests of clients have ended in their threads, or end within a moment."""
    for _ in range(round(_THREADS_S / _LOOK_S)):
        if not any(thread.name.startswith((_WORK, PASS_THREAD)) for thread in threading.enumerate()):
            return True
        await asyncio.sleep(_LOOK_S)
    return False


def _leave(lock: int) -> None:
    """Ends the process without waiting for its threads. A thread that is stuck in the kernel, on a dead mount, keeps the
    process and its open files; the lock is closed first, so that the next agent can start."""
    logging.shutdown()
    os.close(lock)
    os._exit(0)
