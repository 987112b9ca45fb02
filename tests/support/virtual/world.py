# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole agent on virtual time: its loop, its event follower and its worker pool, with the engine in memory.

It has no HTTP and ubus interfaces, no stages for dockerd and the router, and no file watcher: a test calls `tell`
instead, as procd's reload trigger does.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import logging
import secrets
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.apply.ports import Clock
from agent.apply.worker_pool import BackOff
from agent.errors import DataError, EngineError, UcidockdError
from agent.files.config import load, load_given
from agent.files.options import RuntimeOptions
from agent.files.state import StateFile
from agent.files.uci_store import TextUciStore
from agent.model.notices import Event
from agent.model.resources import PruneImages
from agent.observe.snapshot import EngineRecords
from agent.observe.waiting import UsbDevices
from agent.runtime.holds import Holds
from agent.runtime.loop import Loop
from agent.runtime.reconciler import Reconciler
from agent.runtime.requests.agent import RunningAgent
from agent.status.alarms import DAEMON_START_S, Alarms
from agent.status.board import StatusBoard
from agent.storage import PruneScheduler
from tests.support.state import open_records, sections_of, state_of
from tests.support.virtual.clock import BEGIN, FIRST, Killed, VirtualTime
from tests.support.virtual.engine import FakeEngine
from tests.support.virtual.loop import VirtualLoop
from tests.support.virtual.objects import FakeContainer, FakeImage
from tests.support.virtual.taps import CHANGING, Fault, Plan, Process, tap
from tests.support.virtual.threads import GuestEvent, GuestPool

RESPAWN_S = 5.0
TROUBLE = set(Event) - {Event.RECOVERED, Event.UPDATE, Event.WAITING, Event.TEST}
_PATIENCE_S = 60.0  # how long the agent's client waits for an answer
_CALL_S = (0.001, 0.03)  # shortest and longest duration of a call to the engine, seconds


class Trouble(logging.Handler):
    """Collects the agent's log lines and, separately, the exceptions in them."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []
        self.exceptions: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        self.lines.append(text)
        if record.exc_info and record.exc_info[0] is not Killed:  # a killed process logs nothing in reality
            self.exceptions.append(logging.Formatter().format(record))


class SavedVolumes:
    """Copies of volumes from before updates. They are on the engine's disk, so they outlive the agent."""

    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine
        self.copies: dict[str, dict[str, int]] = {}  # key -> volume name -> data
        self.lent: dict[str, dict[str, int]] = {}  # key -> the data that the copy replaced for now

    def check(self, names: Iterable[str]) -> None:
        for name in names:
            if self._engine.inspect_volume(name) is None:
                raise DataError(f"there is no volume {name}")

    def save(self, names: Iterable[str], key: str) -> None:
        wanted = frozenset(names)
        self._engine.time.sleep(2.0)
        self.check(wanted)
        self.copies[key] = {name: self._engine.volumes[name].data for name in wanted}

    def lend(self, key: str) -> None:
        self._engine.list_volumes()  # raises EngineUnreachableError while the engine is down
        if key not in self.copies:
            raise DataError("the data that was saved is gone")
        if key not in self.lent:
            self.lent[key] = self._exchange(self.copies[key])

    def take_back(self, key: str) -> None:
        self._engine.list_volumes()
        self._exchange(self.lent.pop(key, {}))

    def keep_only(self, keys: Callable[[], Collection[str]]) -> None:
        self._engine.list_volumes()
        kept = keys()
        self.copies = {key: data for key, data in self.copies.items() if key in kept}
        self.lent = {key: data for key, data in self.lent.items() if key in kept}

    def _exchange(self, data: dict[str, int]) -> dict[str, int]:
        """Writes the data to the volumes. Returns the previous data."""
        volumes = self._engine.volumes
        before = {name: volumes[name].data for name in data if name in volumes}
        for name in before:
            volumes[name].data = data[name]
        return before


class World:
    """The agent and its surroundings. Use it as `with a_world(folder, seed) as world:`."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.time = VirtualTime(seed)
        self.engine = FakeEngine(self.time)
        self.saved = SavedVolumes(self.engine)
        self.loop = VirtualLoop(self.time)
        self.trouble = Trouble()
        self.faults: list[AssertionError] = []
        self.plan = Plan(later=self._create_late)
        self._late: list[Callable[[], None]] = []  # what the engine creates just before the next creation
        self.writes: list[str] = []  # the agent's calls that change something in the engine
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
        self.asked: RunningAgent | None = None  # the agent's handlers for client requests
        self._process: Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._begin_again_at = 0.0
        self._images = 0
        # key -> the trouble that was notified and has no recovery notice yet
        self.bad_news: dict[str, list[Event]] = {}
        self._alarms = Alarms(0.0)
        self._sections: tuple[object, dict[str, str]] = (
            None,
            {},
        )  # the version of the state file, and its sections
        for tag in ("app:1", "app:2"):
            self.engine.images[tag] = self.engine.registry[tag] = self.an_image()

        self.engine.registry["pulled:1"] = self.an_image()
        self.raw, self.pulls = self.engine, True
        self.bind, self.device = folder / "bind", folder / "device"
        for what in ("bind", "device"):
            self.plug(what, there=True)

    def an_image(self, **config: Any) -> FakeImage:
        self._images += 1
        return FakeImage(id=f"sha256:{self.engine.new_id()}", config=config, number=self._images)

    # the agent

    def start_agent(self) -> None:
        """Starts a new process of the agent, with the files of the previous process."""
        process = self._process = Process(self._died)
        self.loop.group = process
        engine = tap(self.engine, "engine", process=process, plan=self.plan, before=self._before)
        state = StateFile(self.options.state_dir / "state.json")
        self._alarms = Alarms(self.time.now, self._alarms.memory())
        records = tap(state, "records", process=process, plan=self.plan)
        jitter = self.time.random
        saved = tap(self.saved, "data", process=process, plan=self.plan, before=self._before)
        reconciler = Reconciler(
            engine=engine,
            records=records,
            engine_records=EngineRecords(engine=engine, records=records),
            board=StatusBoard(self.time.wall),
            load=lambda: load(self.options),
            load_given=lambda given: load_given(self.options, given),
            store=TextUciStore(config_dir=self.config, override_dir=self.options.override_dir),
            backoff=BackOff(jitter=lambda: 0.8 + 0.4 * jitter.random()),
            holds=Holds(Path(self.options.socket or "").parent / "holds.json"),
            usb=UsbDevices(monotonic=self.time.monotonic),
            wall=self.time.wall,
            monotonic=self.time.monotonic,
            sleep=self.time.sleep,
            make_pool=lambda workers: GuestPool(workers, self.time, process),
            stopping=GuestEvent(self.time),
            restores=lambda: saved,
        )
        self._task = self.loop.create_task(self._live(reconciler, process))

    async def _live(self, reconciler: Reconciler, process: Process) -> None:
        pruning = PruneScheduler(
            engine=reconciler.engine,
            records=reconciler.records,
            board=reconciler.board,
            desired=lambda: reconciler.desired if reconciler.last.desired is not None else None,
            memory=self.options.state_dir.parent / "prune.json",
            is_here=False,
            clock=Clock(wall=self.time.wall, monotonic=self.time.monotonic, sleep=self.time.sleep),
        )
        self.agent = Loop(
            reconciler,
            watch=(),
            watch_mounts=lambda trigger: contextlib.nullcontext(),
            begin_thread=lambda run: self.time.spawn(run, process),
            jitter=self.time.random.random,
            pruning=pruning,
        )
        self.asked = RunningAgent(self.agent, pruning=pruning)
        await self.agent.run()

    def _before(self, name: str, args: tuple[Any, ...]) -> None:
        if name == "engine.events":
            return
        self.time.sleep(self.time.random.uniform(*_CALL_S))
        while self._late and name.startswith("engine.create_"):
            self._late.pop()()
        if name in CHANGING and name.startswith("engine."):
            self.writes.append(f"{name[7:]} {args[0] if isinstance(args[0], str) else args[0].get('Name')}")
        try:
            self.watch(name, args)
        except AssertionError as exc:
            self.faults.append(exc)  # an exception here would look like an engine error to the agent

    def _create_late(self, call: Callable[[], object], args: tuple[Any, ...]) -> None:
        """The engine creates what it was asked for, but after the client has given up; it reserves the name of a
        container at once. A restart of the engine ends the request."""
        engine, run = self.engine, self.engine.runs
        name = args[0] if isinstance(args[0], str) else ""
        engine.reserved.add(name)

        def finish() -> None:
            if engine.up and engine.runs == run:
                engine.reserved.discard(name)
                with contextlib.suppress(EngineError):
                    call()

        patience_s = 0.0 if self.plan.fault is Fault.KILL_LATE else _PATIENCE_S
        if self.plan.late_s:
            self.time.call_at(self.time.now + patience_s + self.plan.late_s, finish)
        else:
            self._late.append(finish)
        self.time.sleep(patience_s)

    def _died(self, process: Process) -> None:
        self.time.kill(process)
        if self._task is not None:
            self._task.cancel()
            self._ending.add(self._task)
        self.agent = self.asked = self._task = self._process = None
        self._begin_again_at = self.time.now + RESPAWN_S

    def kill_agent(self) -> None:
        """Kills the agent as by SIGKILL, if it runs."""
        process = self._process
        if process is not None:
            process.dead = True
            self._died(process)

    def end_agent(self) -> None:
        """Stops the agent as by SIGTERM; kills it after 5 s, as procd does."""
        if self.agent is None or self._task is None:
            return
        self.agent.stop()
        self.loop.run_until_complete(asyncio.wait({self._task}, timeout=5))
        self.kill_agent()

    @property
    def alive(self) -> bool:
        return self.agent is not None

    # actions

    def write(self, text: str) -> None:
        """Commits a configuration without notifying the agent."""
        (self.config / "containers").write_text(text)

    def tell(self) -> None:
        """Notifies the agent of a new configuration, as procd's reload does."""
        if self.agent is not None:
            self.agent.trigger(config=True, deep=True)

    def declare(self, text: str, seconds: float = 20) -> None:
        """Commits a configuration, notifies the agent, and lets time pass."""
        self.write(text)
        self.tell()
        self.rest(seconds)

    def container(self, name: str = "web") -> FakeContainer:
        """The container with this name, which has to exist."""
        found = self.engine.find(name)
        assert found is not None, name
        return found

    def conditions(self, key: str = "container:web") -> dict[str, dict[str, Any]]:
        """What status shows of a section, by type."""
        (found,) = [r["conditions"] for r in self.snapshot()["resources"] if r["key"] == key]
        return {str(condition["type"]): condition for condition in found}

    def rest(self, seconds: float) -> None:
        """Lets time pass. A dead agent starts again after 5 s, as procd does it."""
        until = self.time.now + seconds
        while self._process is None and self._begin_again_at <= until:
            self.run(max(0.0, self._begin_again_at - self.time.now))
            self.start_agent()
            self.run(0)
        self.run(max(0.0, until - self.time.now))
        if self._process is None and self._begin_again_at <= until:
            self.rest(0)

    def run(self, seconds: float) -> None:
        """Lets time pass. Raises AssertionError if the agent ended or broke an invariant."""
        self.loop.run_until_complete(asyncio.sleep(seconds))
        task = self._task
        if task is not None and task.done() and not task.cancelled() and task.exception() is not None:
            raise AssertionError("the agent ended by itself") from task.exception()
        if self.faults:
            raise self.faults[0]
        if self.agent is not None:
            self._see_alarms()

    def _see_alarms(self) -> None:
        """Evaluates the alarms as the notifier does, but only at the end of each rest."""
        snapshot, now = self.snapshot(), self.time.now
        self._alarms.see_agent(snapshot["agent"], now)
        for resource in snapshot["resources"]:
            self._alarms.see(resource, now)
        if now >= self._alarms.now + DAEMON_START_S:  # the board is complete by then
            keys = {resource["key"] for resource in snapshot["resources"]}
            self._alarms.keep(keys, now)
            self.bad_news = {k: v for k, v in self.bad_news.items() if k in keys or k == "engine"}
        for news in self._alarms.due(now):
            if news.event is Event.RECOVERED:
                assert self.bad_news.pop(news.key, None), f"{news.key} recovered from nothing"
            elif news.event in TROUBLE:
                self.bad_news.setdefault(news.key, []).append(news.event)

    def reconcile(self) -> None:
        """Requests `ucidockd reconcile`, as the controller does, and does not wait for the result."""
        if self.asked is not None:
            self._ending.add(self.loop.create_task(_told(self.asked.reconcile())))

    def renew(self, name: str, *, back: bool, with_data: bool = False) -> None:
        """Requests `ucidockd update` or `rollback`, and does not wait for the result."""
        if self.asked is not None:
            call = self.asked.rollback(name, with_data=with_data) if back else self.asked.update([name])
            self._ending.add(self.loop.create_task(_told(call)))

    def prune(self) -> None:
        """Requests `ucidockd prune` of all unused images, and does not wait for the result."""
        if self.asked is not None:
            call = self.asked.prune({"images": PruneImages.UNUSED, "older_s": 0.0})
            self._ending.add(self.loop.create_task(_told(call)))

    def manual(self, name: str, action: str) -> None:
        """Announces a manual start or stop to the agent, as its own interfaces do before they execute it."""
        if self.asked is not None:
            self._ending.add(self.loop.create_task(_told(self.asked.manual(name, action))))
            self.run(0.2)

    def plan_text(self) -> str:
        """The actions of the next pass, as text."""
        assert self.asked is not None
        plan: dict[str, Any] = self.loop.run_until_complete(self.asked.plan())
        return str(plan["text"])

    def snapshot(self) -> dict[str, Any]:
        """The status that users see."""
        assert self.agent is not None
        return self.agent.board.snapshot()

    # the surroundings

    def kill(self, name: str) -> None:
        self.engine.kill(name)

    def pause(self, name: str) -> None:
        self.engine.pause(name)

    def crash(self, name: str) -> None:
        self.engine.crash(name)

    def retag(self, ref: str, *, gone: bool) -> None:
        """Moves a tag to a new image; with `gone`, removes the tag, so that the new image must be pulled."""
        image = self.an_image()
        self.engine.registry[ref] = image
        if gone:
            self.engine.untag(ref)
        else:
            self.engine.tag(image, ref)

    def plug(self, what: str, *, there: bool) -> None:
        """Creates or removes the bind mount's source or the device."""
        path = {"bind": self.bind, "device": self.device}[what]
        if path.is_symlink() or path.exists():
            path.unlink()
        if there:
            path.symlink_to({"bind": "/tmp", "device": "/dev/null"}[what])

    def engine_is_up(self) -> bool:
        return self.engine.up

    def stop_engine(self, *, live_restore: bool) -> None:
        self.engine.stop_engine(live_restore=live_restore)

    def start_engine(self) -> None:
        self.engine.start_engine()

    def exchange_engine(self, root: str) -> None:
        self.engine.exchange(root)

    def lose_events(self, how: str) -> None:
        """`cut` closes the streams; `mute` drops events silently until `hear`."""
        if how == "cut":
            self.engine.cut_streams()
        else:
            self.engine.mute = how == "mute"

    def set_clock(self, offset: float) -> None:
        """Sets the wall clock wrong by `offset` seconds; 0 sets it right again."""
        self.time.set_wall(BEGIN + self.time.now - FIRST + offset)

    def now(self) -> float:
        return self.time.now

    def heal(self) -> None:
        """Ends all faults and lets procd start the agent."""
        self.plan.clear()
        if not self.engine.up:
            self.engine.exchange("data")
            self.engine.start_engine()
        self.engine.mute = False
        self.engine.no_registry = ""
        self.set_clock(0)
        for what in ("bind", "device"):
            self.plug(what, there=True)
        self.rest(RESPAWN_S)

    # the observations

    def instance(self) -> str:
        return str(state_of(self.options.state_dir)["instance"])

    def sections(self) -> dict[str, str]:
        path = self.options.state_dir / "state.json"
        stat = path.stat() if path.exists() else None
        version = (stat.st_ino, stat.st_size, stat.st_mtime_ns) if stat is not None else None
        if version != self._sections[0]:
            self._sections = version, sections_of(self.options.state_dir) if stat is not None else {}
        return self._sections[1]

    def is_in_network_of(self, name: str, other: str) -> bool:
        one, owner = self.engine.find(name), self.engine.find(other)
        return one is not None and owner is not None and one.joined == (owner.id, owner.run)

    def is_held(self, key: str) -> bool:
        path = Path(self.options.socket or "").parent / "holds.json"
        return path.exists() and key in json.loads(path.read_text())

    def records(self) -> list[dict[str, Any]]:
        return list(state_of(self.options.state_dir)["records"])

    def open_records(self) -> list[str]:
        return open_records(self.options.state_dir, self.engine)

    def state_files(self) -> list[str]:
        return sorted(path.name for path in self.options.state_dir.iterdir())

    def exceptions(self) -> list[str]:
        return self.trouble.exceptions

    def everything_said(self) -> str:
        said = [*self.trouble.lines, json.dumps(self.snapshot()), self.plan_text()]
        return "\n".join([*said, (self.options.state_dir / "state.json").read_text()])

    def close(self) -> None:
        self.kill_agent()
        for task in self._ending:
            task.cancel()
        if self._ending:
            self.loop.run_until_complete(asyncio.wait(self._ending))
        self.loop.close()


async def _told(call: Coroutine[Any, Any, object]) -> None:
    with contextlib.suppress(UcidockdError):  # the client gets the error
        await call


@contextmanager
def a_world(folder: Path, seed: int = 0) -> Iterator[World]:
    """A world in which everything random depends on the seed only."""
    numbers = itertools.count()
    real = secrets.token_hex
    world = World(folder, seed)
    logger = logging.getLogger("agent")
    level = logger.level

    def token_hex(nbytes: int | None = None) -> str:
        return hashlib.sha256(f"{seed} {next(numbers)}".encode()).hexdigest()[: 2 * (nbytes or 32)]

    secrets.token_hex = token_hex
    logger.addHandler(world.trouble)
    logger.setLevel(logging.INFO)
    try:
        yield world
    finally:
        world.close()
        logger.removeHandler(world.trouble)
        logger.setLevel(level)
        secrets.token_hex = real
