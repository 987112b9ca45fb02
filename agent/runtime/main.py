# SPDX-License-Identifier: GPL-2.0-or-later
"""Wiring of the running agent: lock, state, engine, loop, control socket, signals."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import random
import secrets
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.dockerd.runner import settings_source
from agent.dockerd.stage import Tools, make_stage
from agent.engine.client import DockerEngine
from agent.engine.remote_tls import EngineTls
from agent.errors import AlreadyRunningError
from agent.files.atomic import remove_leftovers
from agent.files.config import load, load_given, open_store
from agent.files.options import RuntimeOptions
from agent.files.state import StateFile
from agent.files.token import TokenFile
from agent.model.plain_text import plain
from agent.model.resources import AgentSettings
from agent.plan.backoff import BackOff
from agent.router.devices import UsbDevices
from agent.router.hazards import make_hazards
from agent.router.routes import host_routes
from agent.runtime.holds import Holds
from agent.runtime.logs import set_up_logging
from agent.runtime.loop import Loop
from agent.runtime.reconciler import Reconciler
from agent.runtime.router_integration import make_edges
from agent.status.board import StatusBoard
from agent.tls.certificates import Certificates

logger = logging.getLogger(__name__)


def run(options: RuntimeOptions) -> int:
    """Runs the agent until SIGTERM or SIGINT. Returns the exit code: 0, or 3 when another agent runs."""
    settings = _settings(options)
    set_up_logging(options.log_level or settings.log_level)
    socket = Path(options.socket or settings.socket)
    try:
        with locked(socket.parent / "agent.lock"):
            remove_leftovers(options.state_dir / "state.json")
            asyncio.run(_run(options, settings, socket))
    except AlreadyRunningError as exc:
        print(plain(f"ucidockd: {exc}"), file=sys.stderr)
        return 3
    return 0


def make_reconciler(options: RuntimeOptions, settings: AgentSettings) -> Reconciler:
    """Everything a pass needs, on the real engine."""
    source = random.Random()
    board = StatusBoard(first=secrets.randbelow(2**40))
    certificates = Certificates(options.state_dir / "tls")
    daemon = make_stage(options, settings, board, Tools(certificates=certificates))
    engine_at = options.engine_address(settings)
    return Reconciler(
        usb=UsbDevices(monotonic=time.monotonic),
        engine=DockerEngine(str(engine_at), tls=_engine_tls(options, settings)),
        engine_is_here=engine_at.is_local,
        records=StateFile(options.state_dir / "state.json"),
        board=board,
        load=lambda: load(options),
        load_given=lambda given: load_given(options, given),
        store=open_store(options),
        daemon=daemon,
        certificates=certificates,
        routes=host_routes if engine_at.is_local else tuple,
        edges=make_edges(options, board, settings_source(options, daemon.files.config_file)),
        hazards=make_hazards(options, board, Path(options.socket or settings.socket).parent),
        backoff=BackOff(jitter=lambda: 0.8 + 0.4 * source.random()),
        holds=Holds(Path(options.socket or settings.socket).parent / "holds.json"),
    )


def _settings(options: RuntimeOptions) -> AgentSettings:
    """The agent section at start; a broken configuration does not keep the agent from coming up."""
    desired = load(options).desired
    return desired.agent if desired is not None else AgentSettings()


def _engine_tls(options: RuntimeOptions, settings: AgentSettings) -> EngineTls | None:
    folder = options.certificates_of_engine(settings)
    return EngineTls(folder) if folder else None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the one-agent lock. flock, not a pid file: it ends with the process however that ends."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(descriptor)
        raise AlreadyRunningError(f"another agent is running ({path} is locked)") from exc
    try:
        yield
    finally:
        os.close(descriptor)


async def _run(options: RuntimeOptions, settings: AgentSettings, socket: Path) -> None:
    from agent.api.engine_guards import KeptNames, StorageGuard
    from agent.api.jobs.jobs import Jobs
    from agent.api.streams.consoles import Consoles
    from agent.api.streams.stream_sources import console_kind
    from agent.api.ubus.agent import AdoptionMethods, DaemonMethods, JobMethods, job_kinds
    from agent.engine.stream import DockerStream
    from agent.runtime.ubus import Bus
    from agent.runtime.web import Parts, Web

    agent = Loop(make_reconciler(options, settings), watch=(options.config_dir, options.override_dir))
    agent.board.set_agent(time.time(), options=options.given(settings))
    loop = asyncio.get_running_loop()
    engine = DockerStream(options.engine_address(settings), tls=_engine_tls(options, settings))
    engine.permit = StorageGuard(agent.board)
    engine.around = KeptNames(engine, agent.images)
    jobs = Jobs(engine)
    consoles = Consoles(engine)
    bus = Bus(options.ubus_socket)
    bus.kinds |= {"console": console_kind(consoles), **job_kinds(jobs)}
    bus.methods |= JobMethods(agent, jobs).methods() | AdoptionMethods(agent).methods()
    bus.methods |= DaemonMethods(agent).methods()
    sessions = bus.sessions(TokenFile(options.state_dir / "token"))
    parts = Parts(
        options=options, agent=agent, engine=engine, consoles=consoles, jobs=jobs, sessions=sessions
    )
    web = Web(parts, socket)

    def stop() -> None:
        agent.stop()
        web.close_soon()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, lambda: agent.trigger(config=True, deep=True))
    async with web, consoles, bus.serving(agent, engine):
        logger.info("ready on %s", socket)
        await agent.run()
        await jobs.close()
    if agent.parked:
        # to end properly means to wait for threads, and one of them waits for the engine
        logging.shutdown()
        os._exit(0)
