# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole agent on virtual time: its loop, its event follower and its crew before the engine in memory.

Only the doors are missing (HTTP, ubus), dockerd's stage, the router's, and the file watcher: `write` triggers as procd
does.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.clients.devices import UsbDevices
from agent.clients.state_file import StateFile
from agent.clients.uci_store import TextUciStore
from agent.runtime.backoff import BackOff
from agent.runtime.config import check_texts, load
from agent.runtime.holds import Holds
from agent.runtime.loop import Loop
from agent.runtime.options import RuntimeOptions
from agent.runtime.reconciler import Reconciler
from agent.status.board import StatusBoard
from tests.support.virtual.clock import VirtualTime
from tests.support.virtual.engine import FakeEngine
from tests.support.virtual.loop import VirtualLoop
from tests.support.virtual.objects import FakeImage
from tests.support.virtual.taps import CHANGING, Plan, Process, tap
from tests.support.virtual.threads import GuestCrew, GuestEvent

_CALL_S = (0.001, 0.03)  # what a call to the engine takes


class Trouble(logging.Handler):
    """Everything that the agent logs; exceptions of its own are trouble."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []
        self.exceptions: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        self.lines.append(text)
        if record.exc_info:
            self.exceptions.append(logging.Formatter().format(record))


class World:
    """`with a_world(folder, seed) as world:`"""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.time = VirtualTime(seed)
        self.engine = FakeEngine(self.time)
        self.loop = VirtualLoop(self.time)
        self.trouble = Trouble()
        self.plan = Plan()
        self.writes: list[str] = []  # the agent's calls to the engine that change something
        self.watch: Callable[[str, tuple[Any, ...]], None] = lambda name, args: None
        self.config = folder / "config"
        self.config.mkdir()
        self.options = RuntimeOptions(
            config_dir=self.config,
            override_dir=folder / "override",
            state_dir=folder / "state",
            socket=str(folder / "run" / "agent.sock"),
        )
        self.write("")
        self.agent: Loop | None = None
        self._process: Process | None = None
        self._task: asyncio.Task[None] | None = None
        for tag in ("app:1", "app:2"):
            self.engine.images[tag] = self.engine.registry[tag] = self.an_image()

    def an_image(self, **config: Any) -> FakeImage:
        return FakeImage(id=f"sha256:{self.engine.new_id()}", config=config)

    # the agent

    def start_agent(self) -> None:
        """A new life of it; the files of the last are there."""
        process = self._process = Process(self._died)
        self.loop.group = process
        engine = tap(self.engine, "engine", process=process, plan=self.plan, before=self._before)
        state = StateFile(self.options.state_dir / "state.json")
        records = tap(state, "records", process=process, plan=self.plan)
        jitter = self.time.random
        reconciler = Reconciler(
            engine=engine,
            records=records,
            board=StatusBoard(first=0),
            load=lambda: load(self.options),
            check=lambda texts: check_texts(self.options, texts),
            store=TextUciStore(config_dir=self.config, override_dir=self.options.override_dir),
            backoff=BackOff(jitter=lambda: 0.8 + 0.4 * jitter.random()),
            holds=Holds(Path(self.options.socket or "").parent / "holds.json"),
            usb=UsbDevices(monotonic=self.time.monotonic),
            wall=self.time.wall,
            monotonic=self.time.monotonic,
            sleep=self.time.sleep,
            make_crew=lambda workers: GuestCrew(workers, self.time, process),
            stopping=GuestEvent(self.time),
        )
        self._task = self.loop.create_task(self._live(reconciler, process))
        self.run(0)

    async def _live(self, reconciler: Reconciler, process: Process) -> None:
        self.agent = Loop(
            reconciler,
            watch=(),
            begin_thread=lambda run: self.time.spawn(run, process),
            jitter=self.time.random.random,
        )
        await self.agent.run()

    def _before(self, name: str, args: tuple[Any, ...]) -> None:
        if name == "engine.events":
            return
        self.time.sleep(self.time.random.uniform(*_CALL_S))
        if name in CHANGING:
            self.writes.append(f"{name[7:]} {args[0] if isinstance(args[0], str) else args[0].get('Name')}")
        self.watch(name, args)

    def _died(self, process: Process) -> None:
        self.time.kill(process)
        if self._task is not None:
            self._task.cancel()
        self.agent = self._task = self._process = None

    def kill_agent(self) -> None:
        """SIGKILL, if it lives."""
        process = self._process
        if process is not None:
            process.dead = True
            self._died(process)

    def end_agent(self) -> None:
        """SIGTERM; it is waited for as procd does, then killed."""
        if self.agent is None or self._task is None:
            return
        self.agent.stop()
        self.loop.run_until_complete(asyncio.wait({self._task}, timeout=5))
        self.kill_agent()

    @property
    def alive(self) -> bool:
        return self.agent is not None

    # what happens

    def write(self, text: str) -> None:
        """Commits a configuration; the agent is not told."""
        (self.config / "containers").write_text(text)

    def tell(self) -> None:
        """What procd's reload does."""
        if self.agent is not None:
            self.agent.trigger(config=True, deep=True)

    def run(self, seconds: float) -> None:
        """Lets time pass."""
        self.loop.run_until_complete(asyncio.sleep(seconds))
        task = self._task
        if task is not None and task.done() and task.exception() is not None:
            raise AssertionError("the agent ended by itself") from task.exception()

    def reconcile(self) -> None:
        """`ucidockd reconcile`, as the controller does it; its end is not waited for."""
        if self.agent is not None:
            self.loop.create_task(self.agent.reconcile())

    def plan_text(self) -> str:
        """What a pass would do now."""
        assert self.agent is not None
        plan: dict[str, Any] = self.loop.run_until_complete(self.agent.plan())
        return str(plan["text"])

    def snapshot(self) -> dict[str, Any]:
        """The status that users see."""
        assert self.agent is not None
        return self.agent.board.snapshot()

    def close(self) -> None:
        self.kill_agent()
        self.run(0)
        self.loop.close()


@contextmanager
def a_world(folder: Path, seed: int = 0) -> Iterator[World]:
    """A world in which even what should be random is the same for the same seed."""
    numbers = itertools.count()
    real = secrets.token_hex
    world = World(folder, seed)
    logger = logging.getLogger("agent")
    level = logger.level
    secrets.token_hex = lambda size=8: hashlib.sha256(f"{seed} {next(numbers)}".encode()).hexdigest()[
        : 2 * size
    ]
    logger.addHandler(world.trouble)
    logger.setLevel(logging.INFO)
    try:
        yield world
    finally:
        logger.removeHandler(world.trouble)
        logger.setLevel(level)
        secrets.token_hex = real
        world.close()
