# SPDX-License-Identifier: GPL-2.0-or-later
"""A ground on a real dockerd. It makes passes itself and moves the agent's clocks forward where a step waits for long."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.apply.worker_pool import BackOff
from agent.engine.client import DockerEngine
from agent.errors import EngineError, UcidockdError
from agent.files.config import load, load_given
from agent.files.options import RuntimeOptions
from agent.files.state import StateFile
from agent.files.uci_store import TextUciStore
from agent.model.resources import PruneImages
from agent.observe.snapshot import EngineRecords
from agent.observe.waiting import UsbDevices
from agent.runtime.holds import Holds
from agent.runtime.reconciler import Reconciler
from agent.runtime.requests.versions import ask
from agent.status.board import StatusBoard
from agent.storage.space import Pruner, PruneRequest
from tests.support.dockerd import PrivateDockerd
from tests.support.state import open_records, sections_of, state_of
from tests.support.virtual.clock import Killed
from tests.support.virtual.stand import RealStand
from tests.support.virtual.taps import CHANGING, Plan, Process, tap
from tests.support.virtual.world import RESPAWN_S, Trouble

_RESYNC_S = 600.0
_SLOWEST_SLEEP_S = 0.05
_PASSES = 4


class RealGround:
    """See `Ground`. It uses no events: each rest makes passes that inspect everything."""

    def __init__(self, folder: Path, dockerd: PrivateDockerd) -> None:
        self.stand = RealStand(dockerd)
        self.raw = self.stand.engine
        self.plan = Plan(later=self._create_late)
        # what the engine creates late, and when; 0: just before the agent creates something again
        self._late: list[tuple[float, Callable[[], object]]] = []
        self.writes: list[str] = []
        self.watch: Callable[[str, tuple[Any, ...]], None] = lambda name, args: None
        self.trouble = Trouble()
        self.faults: list[AssertionError] = []
        self.pulls = False  # no registry exists here
        self.config = folder / "config"
        self.config.mkdir()
        self.options = RuntimeOptions(
            config_dir=self.config,
            override_dir=folder / "override",
            state_dir=folder / "state",
            socket=str(folder / "run" / "agent.sock"),
        )
        self.bind, self.device = folder / "bind", folder / "device"
        for what in ("bind", "device"):
            self.plug(what, there=True)
        for tag in ("app:1", "app:2"):
            dockerd.import_busybox(tag)
        self._ahead = 0.0  # seconds by which the agent's clocks are ahead of the real clock
        self._wrong = 0.0
        self._told = True
        self._full = False
        self._reconciler: Reconciler | None = None
        self._process: Process | None = None
        self._begin_again_at = 0.0
        self._last_read = 0.0
        self._lock = threading.Lock()

    # the clocks

    def now(self) -> float:
        return time.monotonic() + self._ahead

    def _wall(self) -> float:
        return time.time() + self._ahead + self._wrong

    def _sleep(self, seconds: float) -> None:
        """The agent's sleep, at gates. A part of it is real time, so that containers that end at once can end."""
        time.sleep(min(seconds, _SLOWEST_SLEEP_S))
        with self._lock:
            self._ahead += max(0.0, seconds - _SLOWEST_SLEEP_S)

    # the agent

    @property
    def alive(self) -> bool:
        return self._reconciler is not None

    def start_agent(self) -> None:
        process = self._process = Process(lambda process: None)
        engine = tap(
            DockerEngine(self.stand.dockerd.host),
            "engine",
            process=process,
            plan=self.plan,
            before=self._before,
        )
        records = StateFile(self.options.state_dir / "state.json")
        tapped = tap(records, "records", process=process, plan=self.plan)
        self._reconciler = Reconciler(
            engine=engine,
            records=tapped,
            engine_records=EngineRecords(engine=engine, records=tapped),
            board=StatusBoard(self._wall),
            load=lambda: load(self.options),
            load_given=lambda given: load_given(self.options, given),
            store=TextUciStore(config_dir=self.config, override_dir=self.options.override_dir),
            backoff=BackOff(jitter=lambda: 1.0),
            holds=Holds(Path(self.options.socket or "").parent / "holds.json"),
            usb=UsbDevices(monotonic=self.now),
            wall=self._wall,
            monotonic=self.now,
            sleep=self._sleep,
        )
        self._told = True

    def _before(self, name: str, args: tuple[Any, ...]) -> None:
        if name.startswith("engine.create_"):
            self._finish(lambda when: not when)
        if name in CHANGING:
            self.writes.append(f"{name} {args[0] if isinstance(args[0], str) else args[0].get('Name')}")
        try:
            self.watch(name, args)
        except AssertionError as exc:
            self.faults.append(exc)

    def kill_agent(self) -> None:
        if self._process is not None:
            self._process.dead = True
        self._reconciler = self._process = None
        self._begin_again_at = self.now() + RESPAWN_S

    end_agent = kill_agent  # the agent is idle between passes, so both are the same

    def reconcile(self) -> None:
        self._full = True

    def renew(self, name: str, *, back: bool) -> None:
        if self._reconciler is not None:
            self._guarded(lambda: ask(self._reconciler, [name], back=back) if self._reconciler else None)

    def prune(self) -> None:
        """Prunes images without a name only: other images belong to other tests."""
        reconciler = self._reconciler
        if reconciler is not None and reconciler.desired is not None:
            desired = reconciler.desired
            pruner = Pruner(
                engine=reconciler.engine,
                records=reconciler.records,
                desired=lambda: desired,
                memory=self.options.state_dir.parent / "prune.json",
                now=self._wall,
            )
            self._guarded(lambda: pruner.run(PruneRequest(images=PruneImages.DANGLING)))

    def manual(self, name: str, action: str) -> None:
        if self._reconciler is not None:
            self._guarded(lambda: self._reconciler.manual.hold(name, action) if self._reconciler else None)

    def write(self, text: str) -> None:
        (self.config / "containers").write_text(text)

    def tell(self) -> None:
        self._told = True

    def rest(self, seconds: float) -> None:
        """Makes four passes, spread over that time."""
        for _ in range(_PASSES):
            self._ahead += seconds / _PASSES
            self._finish(lambda when: 0 < when <= self.now())
            if self._reconciler is None and self.now() >= self._begin_again_at:
                self.start_agent()
            if self._reconciler is not None:
                self._guarded(self._pass)
        if self.faults:
            raise self.faults[0]

    def _create_late(self, call: Callable[[], object], args: tuple[Any, ...]) -> None:
        del args
        self._late.append((self.plan.late_s and self.now() + self.plan.late_s, call))

    def _finish(self, is_due: Callable[[float], bool]) -> None:
        for item in [item for item in self._late if is_due(item[0])]:
            self._late.remove(item)
            with contextlib.suppress(EngineError):
                item[1]()

    def _pass(self) -> None:
        reconciler = self._reconciler
        assert reconciler is not None
        if self._full:
            self._full = False
            reconciler.holds.clear()
            reconciler.forget_failures()
            self._told = True
        if self._told or self.now() > self._last_read + _RESYNC_S:
            self._told, self._last_read = False, self.now()
            reconciler.read_config()
        reconciler.run_pass(deep=None)

    def _guarded(self, call: Callable[[], object]) -> None:
        """Makes a call of the agent. A kill in the call ends the agent; the agent survives errors of the engine."""
        process = self._process
        try:
            call()
        except UcidockdError as exc:
            logging.getLogger(__name__).debug("pass failed: %s", exc)
        except Killed:
            pass
        if process is not None and process.dead and process is self._process:
            self.kill_agent()

    # the surroundings

    def kill(self, name: str) -> None:
        self.stand.kill(name)

    def pause(self, name: str) -> None:
        self.stand.pause(name)

    def crash(self, name: str) -> None:
        """Kills the container's process."""
        seen = self.raw.inspect_container(name)
        pid = int((seen.inspect or {})["State"]["Pid"]) if seen is not None else 0
        if pid > 0:
            os.kill(pid, signal.SIGKILL)

    def retag(self, ref: str, *, gone: bool) -> None:
        del gone  # without a registry, a removed tag could not be pulled again
        self.stand.image(ref, {"Labels": {"made": str(time.monotonic_ns())}})

    def plug(self, what: str, *, there: bool) -> None:
        path = {"bind": self.bind, "device": self.device}[what]
        if path.is_symlink() or path.exists():
            path.unlink()
        if there:
            path.symlink_to({"bind": "/tmp", "device": "/dev/null"}[what])

    def engine_is_up(self) -> bool:
        return self.stand.dockerd.is_running()

    def stop_engine(self, *, live_restore: bool) -> None:
        """Stops the engine by SIGTERM, or by SIGKILL if the containers are to outlive it."""
        if live_restore:
            self.stand.dockerd.kill()
        else:
            self.stand.dockerd.stop()
        self._late.clear()  # requests end with the engine

    def start_engine(self) -> None:
        self.stand.dockerd.start()

    def exchange_engine(self, root: str) -> None:
        """The other data root gets the images, and nothing else."""
        self.stand.dockerd.exchange(root)

    def lose_events(self, how: str) -> None:
        del how

    def set_clock(self, offset: float) -> None:
        self._wrong = offset

    def heal(self) -> None:
        self.plan.clear()
        if not self.engine_is_up():
            self.exchange_engine("data")
            self.start_engine()
        self.set_clock(0)
        for what in ("bind", "device"):
            self.plug(what, there=True)
        self.rest(2 * RESPAWN_S)

    # the observations

    def _state(self) -> dict[str, Any]:
        return state_of(self.options.state_dir)

    def instance(self) -> str:
        return str(self._state()["instance"])

    def plan_text(self) -> str:
        assert self._reconciler is not None
        self._reconciler.read_config()
        return str(self._reconciler.make_plan(deep=None))

    def snapshot(self) -> dict[str, Any]:
        assert self._reconciler is not None
        return self._reconciler.board.snapshot()

    def sections(self) -> dict[str, str]:
        there = (self.options.state_dir / "state.json").exists()
        return sections_of(self.options.state_dir) if there else {}

    def is_in_network_of(self, name: str, other: str) -> bool:
        bodies = [self.stand.body(ref)["State"]["Pid"] for ref in (name, other)]
        return len({Path(f"/proc/{pid}/ns/net").readlink() for pid in bodies}) == 1

    def is_held(self, key: str) -> bool:
        path = Path(self.options.socket or "").parent / "holds.json"
        return path.exists() and key in json.loads(path.read_text())

    def open_records(self) -> list[str]:
        return open_records(self.options.state_dir, self.raw)

    def state_files(self) -> list[str]:
        return sorted(path.name for path in self.options.state_dir.iterdir())

    def exceptions(self) -> list[str]:
        return self.trouble.exceptions

    def everything_said(self) -> str:
        said = [*self.trouble.lines, json.dumps(self.snapshot()), self.plan_text()]
        return "\n".join([*said, json.dumps(self._state())])

    def close(self) -> None:
        self.kill_agent()
        if not self.engine_is_up():
            self.start_engine()
        self.stand.close()
