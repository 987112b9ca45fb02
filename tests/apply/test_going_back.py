# SPDX-License-Identifier: GPL-2.0-or-later
"""The way back from a replacement: in which order, what an error in it costs, and what each failing step has undone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.apply.executor import Executor
from agent.apply.images import Images
from agent.apply.ports import Clock
from agent.apply.steps import ORDER, Step, go_back
from agent.apply.worker_pool import WorkerPool
from agent.errors import EngineError
from agent.files.state import StateFile
from agent.model.resources import Container, Strategy
from agent.plan import operations as ops
from agent.uci.decode import decode
from agent.uci.syntax import parse
from tests.support.virtual.clock import VirtualTime
from tests.support.virtual.engine import FakeEngine
from tests.support.virtual.objects import FakeImage
from tests.support.virtual.taps import Fault, Plan, Process, tap

OLD, NEW = ["sleep", "1000000"], ["sleep", "2000000"]


@pytest.mark.parametrize("strategy", ORDER)
def test_each_step_is_undone_once_in_reverse(strategy: Strategy) -> None:
    undone: list[Step] = []
    assert go_back(strategy, undone.append) is None
    assert tuple(undone) == tuple(reversed(ORDER[strategy]))


@pytest.mark.parametrize("strategy", ORDER)
@pytest.mark.parametrize("broken", Step)
def test_an_error_ends_the_way_back_unless_the_rest_does_not_depend_on_it(
    strategy: Strategy, broken: Step
) -> None:
    undone: list[Step] = []
    error = EngineError("no")

    def undo(step: Step) -> None:
        undone.append(step)
        if step is broken:
            raise error

    order = list(reversed(ORDER[strategy]))
    if broken not in order:
        return
    with pytest.raises(EngineError):
        go_back(strategy, undo)
    assert undone == order[: order.index(broken) + 1]
    undone.clear()
    assert go_back(strategy, undo, later={broken}) is error
    assert undone == order


def container_of(strategy: str, command: list[str]) -> Container:
    text = (
        "config container 'web'\n\toption image 'app:1'\n\toption stop_timeout '0'\n\toption gate '2'\n"
        "\toption restart 'always'\n"
        f"\toption strategy '{strategy}'\n\toption command '{' '.join(command)}'\n"
    )
    desired = decode({"containers": parse(text, package="containers")}, paths={}).desired
    (found,) = desired.containers
    return found


class Bench:
    """The executor alone, on the engine in memory: one container runs, and each call that changes something is noted."""

    def __init__(self, folder: Path, strategy: str) -> None:
        self.time = VirtualTime()
        self.engine, self.plan = FakeEngine(self.time), Plan()
        self.records = StateFile(folder / "state.json")
        self.strategy = strategy
        self.calls: list[str] = []
        self.old: Any = None
        self.push()
        self.engine.images["app:1"] = self.engine.registry["app:1"]
        process = Process(lambda process: None)
        engine = tap(self.engine, "engine", process=process, plan=self.plan, before=self._note)
        self.pool = WorkerPool(1)
        self.executor = Executor(
            engine=engine,
            records=self.records,
            images=Images(engine=engine, clock=self.time.monotonic),
            pool=self.pool,
            clock=Clock(wall=self.time.wall, monotonic=self.time.monotonic, sleep=self.time.sleep),
        )
        container = container_of(strategy, OLD)
        create = ops.CreateContainer(key="container:web", cause="", container=container)
        assert self._do(create) is None
        assert self._do(ops.StartContainer(key="container:web", cause="", container=container)) is None
        self.old = self.engine.find("web")
        self.calls.clear()

    def push(self) -> None:
        image = FakeImage(id=f"sha256:{self.engine.new_id()}", config={}, number=len(self.engine.pushed))
        self.engine.registry["app:1"] = image
        self.engine.pushed[f"docker.io/library/app@{image.id}"] = image

    def _do(self, operation: ops.Operation) -> Exception | None:
        with self.pool.place():
            return self.executor._attempt(operation, set())

    def replace(self, *, refused: int = -1) -> Exception | None:
        """Replaces it; the engine refuses the call of that number."""
        if refused >= 0:
            self.plan.fault, self.plan.skip, self.plan.count = Fault.ERROR_500, refused, 1
        frees = self.strategy == "free-first"
        if frees:
            self.push()
        (record,) = self.records.records()
        container = container_of(self.strategy, OLD if frees else NEW)
        return self._do(
            ops.ReplaceContainer(
                key="container:web", cause="", container=container, record=record, frees=frees, fresh=frees
            )
        )

    def _note(self, name: str, args: tuple[Any, ...]) -> None:
        what = name.removeprefix("engine.")
        word = what.removesuffix("_container").replace("_", " ")
        if what in {"create_container", "remove_image", "pull"}:
            self.calls.append(word)
        elif what in {"stop", "start", "rename", "update", "remove_container"}:
            which = "old" if self.old is not None and args[0] == self.old.id else "new"
            if what == "rename":
                word = "name" if args[1] == "web" else "set aside"
            if what == "update":
                word = "no restart" if args[1]["RestartPolicy"]["Name"] == "no" else "restart policy"
            self.calls.append(f"{word} {which}")


# Each call of a replacement in its order, and what follows where the engine refuses it.
UNSTARTED = ["remove new", "restart policy old"]
SET_ASIDE = ["remove new", "name old", "restart policy old", "start old"]
SWAP = [
    ("create", ["restart policy old"]),
    ("no restart old", UNSTARTED),
    ("stop old", UNSTARTED),
    ("set aside old", ["remove new", "restart policy old", "start old"]),
    ("name new", SET_ASIDE),
    ("start new", SET_ASIDE),
]
HANDOVER = [
    ("create", ["restart policy old"]),
    ("start new", UNSTARTED),
    ("no restart old", UNSTARTED),
    ("stop old", UNSTARTED),
    ("set aside old", ["remove new", "restart policy old", "start old"]),
    ("name new", SET_ASIDE),
]


@pytest.mark.parametrize(("strategy", "table"), [("swap", SWAP), ("handover", HANDOVER)])
def test_what_is_undone_where_a_step_fails(
    tmp_path: Path, strategy: str, table: list[tuple[str, list[str]]]
) -> None:
    for number, (refused, back) in enumerate(table):
        folder = tmp_path / str(number)
        folder.mkdir()
        bench = Bench(folder, strategy)
        assert bench.replace(refused=number) is not None
        assert bench.calls == [name for name, _ in table[: number + 1]] + back, refused
        (one,) = bench.engine.containers.values()
        assert (one.id, one.name, one.state, one.config["Cmd"]) == (bench.old.id, "web", "running", OLD)
        (record,) = bench.records.records()
        assert (record.swap, record.object_id) == ("", one.id), refused


# An image has its name and its id taken away. By its name the engine may find another image: then it is made by id.
FREE_FIRST = [
    ("stop old", ["start old"]),
    ("remove old", ["start old"]),
    ("remove image", ["create", "start new"]),
    ("remove image", ["pull", "create", "create", "start new"]),
    ("pull", ["pull", "create", "create", "start new"]),
    ("create", ["remove image", "remove image", "pull", "create", "create", "start new"]),
    (
        "start new",
        ["remove new", "remove image", "remove image", "pull", "create", "create", "start new"],
    ),
]


def test_free_first_comes_back_to_the_old_image_from_each_step(tmp_path: Path) -> None:
    for number, (refused, back) in enumerate(FREE_FIRST):
        folder = tmp_path / str(number)
        folder.mkdir()
        bench = Bench(folder, "free-first")
        assert bench.replace(refused=number) is not None
        assert bench.calls == [name for name, _ in FREE_FIRST[: number + 1]] + back, refused
        (one,) = bench.engine.containers.values()
        assert (one.name, one.state, one.image_id) == ("web", "running", bench.old.image_id), refused
        (record,) = bench.records.records()
        assert (record.freed, record.object_id) == ((), one.id), refused
        here = {image.id for image in (*bench.engine.images.values(), *bench.engine.dangling.values())}
        assert here == {bench.old.image_id}, f"{refused}: the disk may not hold two"
