# SPDX-License-Identifier: GPL-2.0-or-later
"""`ucidockd move-data`: moves Docker's data to another directory, with everything in it, and keeps the same engine.

The order, and which data is valid after a kill or a power cut at that point:

  copy     containers keep running                                   the old data, in use
  stop     containers, then dockerd                                  the old data; dockerd starts again
  copy     what changed since; the copy is counted                   the same
  commit   `data_root` in UCI: the point of no return of a crash     the new data, complete
  start    engine id and containers must be the same, or `data_root` is set back

The old data stays. An interrupted copy is continued when the same move is requested again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shlex
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from agent.api.port import ProgressSink
from agent.dockerd.stage import DaemonStage
from agent.engine.probe import DaemonProbe
from agent.errors import ConflictError, DataError, UcidockdError
from agent.files.atomic import atomic_write
from agent.files.options import RuntimeOptions
from agent.model.quantities import size_words
from agent.runtime.requests.move_checks import (
    Move,
    check_room,
    checked_move,
    foreseen,
    with_data_root,
    write_note,
)
from agent.storage.copying import MARGIN_S, NOTE, TreeCopy, measure, written
from agent.wire.record_lines import json_object

if TYPE_CHECKING:
    from agent.runtime.reconciler import Reconciler

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

_LOOK_S = 0.5  # between two reports of the progress
_END_S = 5.0  # time limit for a cancelled copy to end; a hanging disk may delay it further
_PROVE_S, _PROVE_AGAIN_S = 60.0, 0.5
_RECOVER_S, _RECOVER_AGAIN_S = 300.0, 2.0


class Passes(Protocol):
    """What a move needs from the loop."""

    reconciler: Reconciler

    async def in_pass(self, work: Callable[[], Value]) -> Value:
        """Runs a blocking function while no pass runs."""

    async def settled_pass(self) -> None:
        """Runs a full pass and waits until all works have ended. Raises EngineError."""

    def trigger(self, *, config: bool = False, deep: bool = False, object_id: str = "") -> None: ...


class _CutError(UcidockdError):
    """The move was cancelled."""

    code = "cancelled"


class Mover:
    """Moves the data of the dockerd that `stage` runs, one move at a time. `memory`: the file that tells a new agent
    about an unfinished move."""

    def __init__(self, passes: Passes, stage: DaemonStage, options: RuntimeOptions, memory: Path) -> None:
        self._passes, self._stage, self._options, self._memory = passes, stage, options, memory
        self._under_way = ""

    # the preview

    async def preview(self, target: str) -> dict[str, Any]:
        """What a move to `target` would do. Raises ConflictError or ConfigError if it is not possible."""
        move = await self._checked(target)
        return await asyncio.to_thread(foreseen, move)

    async def _checked(self, target: str) -> Move:
        if self._under_way:
            raise ConflictError(f"the data is being moved to {self._under_way} already")
        reconciler = self._passes.reconciler
        if not reconciler.engine_is_here:
            raise ConflictError("the engine is on another machine: its data is moved there")
        # between two passes, because a pass may be about to restart dockerd with another data_root
        home = await self._passes.in_pass(lambda: self._stage.home(reconciler.desired))
        return await asyncio.to_thread(
            checked_move, home, target, reconciler.desired, reconciler.store, self._options
        )

    # the move

    async def move(self, target: str, progress: ProgressSink) -> None:
        """The whole move. Raises UcidockdError; then the old data is in use as before."""
        move = await self._checked(target)
        self._under_way = move.target
        try:
            await self._move(move, progress)
        finally:
            self._under_way = ""

    async def _move(self, move: Move, progress: ProgressSink) -> None:
        source, begin = Path(move.source), time.time()
        _say(progress, f"counting what is in {move.source}")
        contents = await _in_thread(lambda check: measure(source, check, live=True))
        await asyncio.to_thread(check_room, move, contents)
        progress.expect(contents.size)
        # stored in the target, so that the same move can find and continue the copy
        await asyncio.to_thread(write_note, move)
        _say(progress, f"copying {size_words(contents.size)} to {move.target}; containers keep running")
        await self._copy(move, progress, since=move.since, live=True, thorough=move.thorough)
        first_s = time.time() - begin
        logger.info("moving the data to %s: the first copy took %.0f s", move.target, first_s)
        # Containers ran until here. What they changed meanwhile is copied while they are stopped, which takes
        # seconds.
        down = time.monotonic()
        committed = False
        try:
            known = await self._stop(move, progress)
            _say(progress, "copying what changed meanwhile")
            await self._copy(move, progress, since=begin - MARGIN_S)
            _say(progress, "comparing the copy with the data")
            # everything is stopped by now, so both must be equal: names, types, owners and sizes of all entries
            data = await _in_thread(lambda check: measure(Path(move.source), check))
            copy = await _in_thread(lambda check: measure(Path(move.target), check))
            if (data.entries, data.files, data.digest) != (copy.entries, copy.files, copy.digest):
                raise DataError(
                    f"the copy differs from the data: {copy.entries} of {data.entries} entries in {copy.files} of"
                    f" {data.files} files"
                )
            _say(progress, f"dockerd starts with the data in {move.target}")
            # noted before the setting changes: after a kill the next agent knows what the new engine must have
            await asyncio.to_thread(self._remember, move, known)
            await asyncio.to_thread(self._commit, move.source, move.target)
            committed = True
            self._stage.hold_containers(
                f"dockerd's data was moved to {move.target}: waits until its engine is there"
            )
            self._stage.accept_next_engine()
            self._go_on()
            await self._passes.settled_pass()
            await self._prove(move, known)
        except BaseException:
            await asyncio.shield(self._go_back(move, committed=committed))
            raise
        finally:
            self._stage.hold_containers("")
            self._passes.trigger(config=True, deep=True)
        await asyncio.to_thread(self._forget)
        with contextlib.suppress(OSError):
            await asyncio.to_thread(Path(move.target, NOTE).unlink, missing_ok=True)
        progress.result = {
            "source": move.source,
            "target": move.target,
            "entries": contents.entries,
            "bytes": contents.size,
            "down_s": round(time.monotonic() - down, 1),
            "remove": removal(move.source),
        }
        _say(progress, f"done; the old data is still there, and is removed with: {removal(move.source)}")

    async def _copy(
        self, move: Move, progress: ProgressSink, *, since: float, live: bool = False, thorough: bool = False
    ) -> None:
        copy = TreeCopy(
            source=Path(move.source), target=Path(move.target), since=since, live=live, thorough=thorough
        )
        size = entries = 0

        def heard() -> None:
            nonlocal size, entries
            if live and (copy.size, copy.entries) != (size, entries):
                progress.sent(copy.size - size)
            elif copy.entries != entries:
                progress.sent(0)  # the second copy adds no size, but reports that it is alive
            size, entries = copy.size, copy.entries

        def run(check: Callable[[], None]) -> None:
            copy.run(check)
            written(copy.target)

        try:
            await _in_thread(run, heard)
        # name the file: "No space left" alone says little among thousands of files
        except OSError as exc:
            raise DataError(
                f"the data cannot be copied to {move.target}: {exc.strerror} ({exc.filename})"
            ) from exc

    async def _stop(self, move: Move, progress: ProgressSink) -> tuple[str, frozenset[str]]:
        """Stops containers, then dockerd. Returns the engine's id, and the ids of the containers that must exist
        afterwards."""
        known = await asyncio.to_thread(move.home.probe.inventory)
        folder = await asyncio.to_thread(move.home.probe.root)
        if known is None or not folder:
            raise ConflictError("the engine does not answer: nothing was stopped")
        text = f"Docker's data is being moved to {move.target}"
        _say(progress, "stopping containers, and then dockerd")
        # Containers first, in their own pass: dockerd would kill them after its own time-out, not as their sections
        # say.
        self._passes.reconciler.pause(text)
        await self._passes.settled_pass()
        self._stage.pause(text)
        await self._passes.settled_pass()
        if await asyncio.to_thread(self._stage.is_dockerd_running):
            raise ConflictError("dockerd did not end")
        return known[0], known[1] - await asyncio.to_thread(_removed_by_themselves, folder, known[1])

    async def _prove(self, move: Move, known: tuple[str, frozenset[str]]) -> None:
        """Raises DataError if the engine is not the same as before."""
        deadline, why = time.monotonic() + _PROVE_S, ""
        # an engine that has just started loads its containers one after the other: do not judge its first answer
        while time.monotonic() < deadline:
            why = await asyncio.to_thread(_difference, move.home.probe, move.target, known)
            if not why:
                return
            await asyncio.sleep(_PROVE_AGAIN_S)
        raise DataError(f"the engine that came up is not the same: {why}")

    async def _go_back(self, move: Move, *, committed: bool) -> None:
        """Goes back to the old data."""
        try:
            # the setting first: after a kill the next agent must start the old engine
            if committed:
                await asyncio.to_thread(self._commit, move.target, move.source)
                self._stage.accept_next_engine()
            await asyncio.to_thread(self._forget)
        except (UcidockdError, OSError) as exc:
            logger.error("dockerd.globals.data_root cannot be set back to %s: %s", move.source, exc)
        self._stage.hold_containers("")
        self._go_on()
        try:
            await self._passes.settled_pass()
        except UcidockdError as exc:
            logger.error("after a move that failed: %s", exc)

    def _go_on(self) -> None:
        """Allows dockerd and its containers to run from the next pass on."""
        self._stage.pause("")
        self._passes.reconciler.pause("")

    def _commit(self, before: str, after: str) -> None:
        store = self._passes.reconciler.store
        package, content_hash = with_data_root(store, before, after)
        store.commit(package, expected=content_hash)

    # what a new agent finds

    def _remember(self, move: Move, known: tuple[str, frozenset[str]]) -> None:
        found = {"source": move.source, "target": move.target, "id": known[0], "containers": sorted(known[1])}
        self._memory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        atomic_write(self._memory, json.dumps(found).encode(), mode=0o600)

    def _forget(self) -> None:
        self._memory.unlink(missing_ok=True)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Finishes a move that an earlier agent began."""
        task = None
        try:
            found = json_object(self._memory.read_bytes())
        except FileNotFoundError:
            found = None
        except (OSError, ValueError) as exc:
            logger.warning("%s cannot be read: %s", self._memory, exc)
            found = None
        if found is not None:
            # whichever engine starts, old or new, its data is valid
            self._stage.accept_next_engine()
            task = asyncio.create_task(self._recover(found), name="move-data")
        try:
            yield
        finally:
            if task is not None:
                task.cancel()
                await asyncio.wait({task})

    async def _recover(self, found: dict[str, Any]) -> None:
        """Finishes an interrupted move: the setting was committed, or was about to be. The engine that started decides
        whether it stays."""
        known, source, target = (
            (found["id"], frozenset(found["containers"])),
            found["source"],
            found["target"],
        )
        deadline = time.monotonic() + _RECOVER_S
        while time.monotonic() < deadline:
            await asyncio.sleep(_RECOVER_AGAIN_S)
            try:
                home = await self._passes.in_pass(lambda: self._stage.home(self._passes.reconciler.desired))
                if home.root == target and not await asyncio.to_thread(
                    _difference, home.probe, target, known
                ):
                    logger.info("the data is moved to %s; the old data in %s can be removed", target, source)
                    await asyncio.to_thread(Path(target, NOTE).unlink, missing_ok=True)
                    break
                if home.root == source:  # not committed, or dockerd did not start there
                    with contextlib.suppress(ConflictError):
                        await asyncio.to_thread(self._commit, target, source)
                    break
            except (UcidockdError, OSError) as exc:
                logger.debug("move-data: %s", exc)
        await asyncio.to_thread(self._forget)


def removal(source: str) -> str:
    """The command that removes the old data."""
    path = shlex.quote(source.rstrip("/"))
    return f"rm -rf {path}/*" if os.path.ismount(source) else f"rm -rf {path}"


def _say(progress: ProgressSink, text: str) -> None:
    progress.take({"status": text})


async def _in_thread(
    run: Callable[[Callable[[], None]], Value], heard: Callable[[], None] = lambda: None
) -> Value:
    """Runs a function in a thread and returns its result. The function receives a callable that raises once this call is
    cancelled. A thread that hangs on a disk is left behind."""
    cut, ended = threading.Event(), Future[Value]()

    def check() -> None:
        if cut.is_set():
            raise _CutError("the move was cancelled")

    def work() -> None:
        try:
            ended.set_result(run(check))
        except BaseException as exc:  # noqa: BLE001 - the caller receives it
            ended.set_exception(exc)

    # not a thread of the pool: a thread that hangs on a disk would keep the agent from ending
    threading.Thread(target=work, name="move-data", daemon=True).start()
    waiting = asyncio.wrap_future(ended)
    try:
        while not waiting.done():
            await asyncio.wait({waiting}, timeout=_LOOK_S)
            heard()
        return waiting.result()
    finally:
        cut.set()
        if not waiting.done():
            await asyncio.wait({waiting}, timeout=_END_S)


def _difference(probe: DaemonProbe, target: str, known: tuple[str, frozenset[str]]) -> str:
    """How the running engine differs from what was there before, "" if it does not."""
    found, root = probe.inventory(), probe.root()
    if found is None or not root:
        return "it does not answer"
    # the id alone is not sufficient: 20.10 keeps it outside of data_root
    if root != target and not root.startswith(f"{target}/"):
        return f"its data is in {root}"
    if found[0] != known[0]:
        return f"its id is {found[0]}, and was {known[0]}"
    missing = known[1] - found[1]
    return f"the container {min(missing)[:12]} is missing" if missing else ""


def _removed_by_themselves(folder: str, containers: frozenset[str]) -> frozenset[str]:
    """Containers of `docker run --rm`: the engine removes them when it ends or starts (moby, container/hostconfig.json)."""
    found = set()
    for container in containers:
        try:
            settings = json_object(Path(folder, "containers", container, "hostconfig.json").read_bytes())
        except FileNotFoundError:
            # already gone: it was removed when it stopped for the move
            found.add(container)
        except (OSError, ValueError):
            # compared like any other container, so that a missing one is noticed
            continue
        else:
            if settings.get("AutoRemove"):
                found.add(container)
    return frozenset(found)
