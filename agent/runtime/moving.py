# SPDX-License-Identifier: GPL-2.0-or-later
"""`ucidockd move-data`: Docker's data to another folder, with all that is in it, and the same engine on it afterwards.

The order, and what a kill or a power cut at that point leaves:

    copy     containers run meanwhile                                  the old data, in use
    stop     containers, then dockerd                                  the old data; dockerd starts again
    copy     what changed since; the copy is counted                   the same
    commit   `data_root` in UCI: the point of no return of a crash     the new data, complete
    start    the engine has to have the same id and containers, else `data_root` goes back

The old data stays. A copy that was cut is taken up again when the same move is asked for again.
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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from agent.api.port import Told
from agent.dockerd.stage import DaemonStage, Home
from agent.dockerd.target import prior_drivers
from agent.engine.probe import DaemonProbe
from agent.errors import ConfigError, ConflictError, DataError, NoSpaceError, UcidockdError
from agent.files.atomic import atomic_write
from agent.files.options import RuntimeOptions
from agent.files.uci_store import UciMissing, load_for_edit
from agent.files.user_paths import PATHS, file_system_of, is_read_only, real_path
from agent.model.quantities import size_words
from agent.model.resources import Desired
from agent.plan.daemon import move_trouble, store_trouble
from agent.router.mounts import missing_mount
from agent.storage.copying import MARGIN_S, NOTE, Contents, TreeCopy, measure, unfit, written
from agent.uci import edit
from agent.uci.decode import PACKAGES, decode
from agent.uci.syntax import Package
from agent.wire.record_lines import json_object

if TYPE_CHECKING:
    from agent.runtime.reconciler import Reconciler

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

PACKAGE, OPTION = "dockerd", "data_root"
RESERVE = 64 * 1024**2  # stays free on the new disk
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_MEASURE_S = 10.0  # of a look; the move itself takes the time that it needs
_LOOK_S = 0.5
_END_S = 5.0  # for a copy that is to end; a disk that hangs may keep it
_PROVE_S, _PROVE_AGAIN_S = 60.0, 0.5
_RECOVER_S, _RECOVER_AGAIN_S = 300.0, 2.0
_RESTART_S = 15.0  # of an engine, about
_LOOKS = 4  # as often the copy is gone through while containers are stopped: both trees, copied and counted


class Passes(Protocol):
    """What a move asks of the loop."""

    reconciler: Reconciler

    async def in_pass(self, work: Callable[[], Value]) -> Value:
        """Runs what blocks while no pass runs."""

    async def settled_pass(self) -> None:
        """A full pass, and the end of all that is under way. Raises EngineError."""

    def trigger(self, *, config: bool = False, deep: bool = False, object_id: str = "") -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Move:
    home: Home
    target: str
    resumes: bool  # a copy that was cut is there
    since: float  # unix seconds: what changed from then on is copied again
    thorough: bool  # the copy may have lost some of what it had
    file_system: str
    notes: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        return self.home.root


class _CutError(UcidockdError):
    """The move was cancelled."""

    code = "cancelled"


class Mover:
    """Moves the data of the dockerd that `stage` runs, one move at a time. `memory`: what a new agent has to know."""

    def __init__(self, passes: Passes, stage: DaemonStage, options: RuntimeOptions, memory: Path) -> None:
        self._passes, self._stage, self._options, self._memory = passes, stage, options, memory
        self._under_way = ""

    # the look

    async def look(self, target: str) -> dict[str, Any]:
        """What a move there would do. Raises ConflictError, ConfigError where it cannot be made."""
        move = await self._checked(target)
        return await asyncio.to_thread(self._foreseen, move)

    def _foreseen(self, move: _Move) -> dict[str, Any]:
        begin = time.monotonic()

        def check() -> None:
            if time.monotonic() - begin > _MEASURE_S:
                raise TimeoutError

        found: Contents | None = None
        with contextlib.suppress(TimeoutError):
            found = measure(Path(move.source), check, live=True)
        free = _free(move.target)
        if found is not None:
            self._check_room(move, found)
        taken_s = time.monotonic() - begin
        return {
            "source": move.source,
            "target": move.target,
            "file_system": move.file_system,
            "resumes": move.resumes,
            "entries": found.entries if found is not None else None,
            "bytes": found.size if found is not None else None,
            "free": free,
            "containers": list(move.home.probe.running()),
            "down_s": round(_LOOKS * taken_s + _RESTART_S) if found is not None else None,
            "notes": list(move.notes),
        }

    async def _checked(self, target: str) -> _Move:
        if self._under_way:
            raise ConflictError(f"the data is being moved to {self._under_way} already")
        reconciler = self._passes.reconciler
        if not reconciler.engine_is_here:
            raise ConflictError("the engine is on another machine: its data is moved there")
        home = await self._passes.in_pass(lambda: self._stage.home(reconciler.desired))
        return await asyncio.to_thread(self._check, home, target, reconciler.desired)

    def _check(self, home: Home, asked: str, desired: Desired | None) -> _Move:
        """All that can be known before. Raises ConflictError, ConfigError, DataError."""
        target = os.path.normpath(asked) if asked.startswith("/") else ""
        if not target.strip("/"):
            raise ConfigError(f"{asked or 'the target'}: expected an absolute path, such as /mnt/sda1/docker")
        _, package, _ = self._edited(home.root, target)
        self._check_config(package)
        try:
            notes = self._check_place(home, target)
            note = PATHS.ask(_note_in, target)
        except OSError as exc:  # PathError says by itself what
            raise DataError(f"{target} cannot be used: {exc.strerror}") from exc
        resumes = note is not None and note.get("source") == home.root
        if note is None and (names := PATHS.ask(_names_in, target)):
            raise ConflictError(f"{target} is not empty: it has {', '.join(names[:3])}; give an empty folder")
        if note is not None and not resumes:
            raise ConflictError(
                f"{target} has a part of {note.get('source')}, of another move: empty it first"
            )
        if desired is not None:
            notes += _binds_below(desired, home.root)
        return _Move(
            home=home,
            target=target,
            resumes=resumes,
            since=float(note["since"]) if note is not None else time.time() - MARGIN_S,
            thorough=note is not None and note.get("boot") != _boot(),
            file_system=file_system_of(target),
            notes=notes,
        )

    def _check_place(self, home: Home, target: str) -> tuple[str, ...]:
        source, place = PATHS.ask(real_path, home.root), PATHS.ask(real_path, target)
        if place == source:
            raise ConflictError(f"Docker's data is in {target} already")
        if place.startswith(f"{source}/") or source.startswith(f"{place}/"):
            raise ConflictError(
                f"{target} and {home.root}: one is inside of the other; give a folder beside it"
            )
        if mount := missing_mount(target, self._options):
            raise ConflictError(f"nothing is mounted on {mount}: mount the disk first")
        if not PATHS.ask(os.path.isdir, os.path.dirname(place)):
            raise ConflictError(
                f"there is no folder {os.path.dirname(target)}: mount the disk first, or create it"
            )
        if PATHS.ask(is_read_only, target):
            raise ConflictError(f"the file system of {target} is mounted read-only")
        kind = file_system_of(target)
        if trouble := move_trouble(home.store, kind):
            raise ConflictError(f"{target}: {trouble}")
        driver = home.store.removeprefix("containerd's ").partition(" ")[0]
        document = {**home.document, "data-root": target, "storage-driver": driver}
        if trouble := store_trouble(document, home.version, file_system=kind, prior=prior_drivers(home.root)):
            raise ConflictError(trouble)
        PATHS.ask(_make_folder, target)
        if trouble := PATHS.ask(unfit, target):
            raise ConflictError(f"Docker's data cannot be in {target}: {trouble}")
        return self._notes(home, target)

    def _notes(self, home: Home, target: str) -> tuple[str, ...]:
        found = []
        if PATHS.ask(_device_of, target) == PATHS.ask(_device_of, home.root):
            found.append(f"{target} is on the same file system as {home.root}")
        links = [name for name in PATHS.ask(os.listdir, home.root) if os.path.islink(f"{home.root}/{name}")]
        if links:
            raise ConflictError(f"{home.root}/{links[0]} is a link to somewhere else: move its data yourself")
        if home.store.startswith("containerd's") and not os.path.isdir(f"{home.root}/containerd"):
            found.append(
                "images and containers are kept by another containerd, and stay where that keeps them"
            )
        return tuple(found)

    def _check_room(self, move: _Move, found: Contents) -> None:
        """Raises NoSpaceError. What a cut copy holds counts as free."""
        need, free = found.size + RESERVE, _free(move.target)
        if move.resumes:
            free += measure(Path(move.target)).size
        place = os.statvfs(move.target)
        if need > free:
            raise NoSpaceError(
                f"{move.target} has {size_words(free)} free, and {size_words(need)} are needed:"
                f" {size_words(need - free)} are missing"
            )
        if place.f_files and not move.resumes and place.f_favail < found.entries:
            raise NoSpaceError(
                f"the file system of {move.target} has room for {place.f_favail} files, and there are {found.entries}:"
                " format it with more inodes (mkfs.ext4 -i 8192)"
            )

    # the move

    async def move(self, target: str, told: Told) -> None:
        """All of it. Raises UcidockdError; then the old data is in use as before."""
        move = await self._checked(target)
        self._under_way = move.target
        try:
            await self._move(move, told)
        finally:
            self._under_way = ""

    async def _move(self, move: _Move, told: Told) -> None:
        source, begin = Path(move.source), time.time()
        _say(told, f"counting what is in {move.source}")
        contents = await _in_thread(lambda check: measure(source, check, live=True))
        await asyncio.to_thread(self._check_room, move, contents)
        told.expect(contents.size)
        await asyncio.to_thread(_write_note, move)
        _say(told, f"copying {size_words(contents.size)} to {move.target}; containers keep running")
        await self._copy(move, told, since=move.since, live=True, thorough=move.thorough)
        first_s = time.time() - begin
        logger.info("moving the data to %s: the first copy took %.0f s", move.target, first_s)
        down = time.monotonic()
        committed = False
        try:
            known = await self._stop(move, told)
            _say(told, "copying what changed meanwhile")
            await self._copy(move, told, since=begin - MARGIN_S)
            _say(told, "comparing the copy with the data")
            await self._compare(move)
            _say(told, f"dockerd starts with the data in {move.target}")
            await asyncio.to_thread(self._remember, move, known)
            await asyncio.to_thread(self._commit, move.source, move.target)
            committed = True
            self._stage.unproven = (
                f"dockerd's data was moved to {move.target}: waits until its engine is there"
            )
            self._stage.moved()
            self._stage.paused = self._passes.reconciler.paused = ""
            await self._passes.settled_pass()
            await self._prove(move, known)
        except BaseException:
            await asyncio.shield(self._go_back(move, committed=committed))
            raise
        finally:
            self._stage.unproven = ""
            self._passes.trigger(config=True, deep=True)
        await asyncio.to_thread(self._done, move)
        told.result = {
            "source": move.source,
            "target": move.target,
            "entries": contents.entries,
            "bytes": contents.size,
            "down_s": round(time.monotonic() - down, 1),
            "remove": removal(move.source),
        }
        _say(told, f"done; the old data is still there, and is removed with: {removal(move.source)}")

    async def _copy(
        self, move: _Move, told: Told, *, since: float, live: bool = False, thorough: bool = False
    ) -> None:
        copy = TreeCopy(
            source=Path(move.source), target=Path(move.target), since=since, live=live, thorough=thorough
        )
        size = entries = 0

        def heard() -> None:
            nonlocal size, entries
            if live and (copy.size, copy.entries) != (size, entries):
                told.sent(copy.size - size)
            elif copy.entries != entries:
                told.sent(0)  # the second time it is not more, and goes on all the same
            size, entries = copy.size, copy.entries

        def run(check: Callable[[], None]) -> None:
            copy.check = check
            copy.run()
            written(copy.target)

        try:
            await _in_thread(run, heard)
        except OSError as exc:
            raise DataError(
                f"the data cannot be copied to {move.target}: {exc.strerror} ({exc.filename})"
            ) from exc

    async def _compare(self, move: _Move) -> None:
        source = await _in_thread(lambda check: measure(Path(move.source), check))
        target = await _in_thread(lambda check: measure(Path(move.target), check))
        if (source.entries, source.files, source.digest) != (target.entries, target.files, target.digest):
            raise DataError(
                f"the copy differs from the data: {target.entries} of {source.entries} entries in {target.files} of"
                f" {source.files} files"
            )

    async def _stop(self, move: _Move, told: Told) -> tuple[str, frozenset[str]]:
        """Containers, then dockerd. Returns the engine's id, and those of the containers that have to come back."""
        known = await asyncio.to_thread(move.home.probe.inventory)
        folder = await asyncio.to_thread(move.home.probe.root)
        if known is None or not folder:
            raise ConflictError("the engine does not answer: nothing was stopped")
        text = f"Docker's data is being moved to {move.target}"
        _say(told, "stopping containers, and then dockerd")
        self._passes.reconciler.paused = text
        await self._passes.settled_pass()
        self._stage.paused = text
        await self._passes.settled_pass()
        if await asyncio.to_thread(self._stage.finds_dockerd):
            raise ConflictError("dockerd did not end")
        return known[0], known[1] - await asyncio.to_thread(_removed_by_themselves, folder, known[1])

    async def _prove(self, move: _Move, known: tuple[str, frozenset[str]]) -> None:
        """Raises DataError where the engine is not the one that it was."""
        deadline, why = time.monotonic() + _PROVE_S, ""
        while time.monotonic() < deadline:
            why = await asyncio.to_thread(_difference, move.home.probe, move.target, known)
            if not why:
                return
            await asyncio.sleep(_PROVE_AGAIN_S)
        raise DataError(f"the engine that came up is not the same: {why}")

    async def _go_back(self, move: _Move, *, committed: bool) -> None:
        """The old data is used again."""
        try:
            if committed:
                await asyncio.to_thread(self._commit, move.target, move.source)
                self._stage.moved()
            await asyncio.to_thread(self._forget)
        except (UcidockdError, OSError) as exc:
            logger.error("dockerd.globals.data_root cannot be set back to %s: %s", move.source, exc)
        self._stage.paused = self._stage.unproven = self._passes.reconciler.paused = ""
        try:
            await self._passes.settled_pass()
        except UcidockdError as exc:
            logger.error("after a move that failed: %s", exc)

    def _done(self, move: _Move) -> None:
        self._forget()
        with contextlib.suppress(OSError):
            Path(move.target, NOTE).unlink(missing_ok=True)

    # the setting

    def _edited(self, before: str, after: str) -> tuple[Package, Package, str]:
        """The package as it is and with the other data_root, and its content hash. Raises ConfigError, ConflictError."""
        store = self._passes.reconciler.store
        package, content_hash = load_for_edit(store, PACKAGE)
        section = next((each for each in package.sections if each.type == "globals"), None)
        if section is None:
            raise ConflictError(f"/etc/config/{PACKAGE} has no section globals")
        option = section.get(OPTION)
        if option is not None and os.path.normpath(str(option.value)) != os.path.normpath(before):
            raise ConflictError(
                f"data_root is {option.value} in UCI, and dockerd uses {before}: apply that first"
            )
        where = f"{PACKAGE}.{section.name}.{OPTION}"
        return package, edit.set_value(edit.stage(package), where, after).package, content_hash

    def _check_config(self, package: Package) -> None:
        """Raises ConfigError for what the option does not take."""
        packages = {PACKAGE: package}
        for other in PACKAGES:
            if other != PACKAGE:
                with contextlib.suppress(UciMissing):
                    packages[other] = self._passes.reconciler.store.load(other)
        for issue in decode(packages, paths={}, read_file=PATHS.read_text).issues:
            if issue.severity == "error" and issue.option == OPTION:
                raise ConfigError(issue.text())

    def _commit(self, before: str, after: str) -> None:
        _, package, content_hash = self._edited(before, after)
        self._passes.reconciler.store.commit(package, expected=content_hash)

    # what a new agent finds

    def _remember(self, move: _Move, known: tuple[str, frozenset[str]]) -> None:
        found = {"source": move.source, "target": move.target, "id": known[0], "containers": sorted(known[1])}
        self._memory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        atomic_write(self._memory, json.dumps(found).encode(), mode=0o600)

    def _forget(self) -> None:
        self._memory.unlink(missing_ok=True)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Ends what an agent before us had begun."""
        task = None
        try:
            found = json_object(self._memory.read_bytes())
        except FileNotFoundError:
            found = None
        except (OSError, ValueError) as exc:
            logger.warning("%s cannot be read: %s", self._memory, exc)
            found = None
        if found is not None:
            self._stage.moved()
            task = asyncio.create_task(self._recover(found), name="move-data")
        try:
            yield
        finally:
            if task is not None:
                task.cancel()
                await asyncio.wait({task})

    async def _recover(self, found: dict[str, Any]) -> None:
        """The setting was committed, or was about to be. The engine that came up says whether it stays."""
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


def _say(told: Told, text: str) -> None:
    told.take({"status": text})


async def _in_thread(
    run: Callable[[Callable[[], None]], Value], heard: Callable[[], None] = lambda: None
) -> Value:
    """Its result. It is called with what raises once this is cancelled; a thread that hangs on a disk is left behind."""
    cut, ended = threading.Event(), Future[Value]()

    def check() -> None:
        if cut.is_set():
            raise _CutError("the move was cancelled")

    def work() -> None:
        try:
            ended.set_result(run(check))
        except BaseException as exc:  # noqa: BLE001 - the one who waits gets it
            ended.set_exception(exc)

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
    """What the engine that runs lacks, "" for nothing."""
    found, root = probe.inventory(), probe.root()
    if found is None or not root:
        return "it does not answer"
    if root != target and not root.startswith(f"{target}/"):
        return f"its data is in {root}"
    if found[0] != known[0]:
        return f"its id is {found[0]}, and was {known[0]}"
    missing = known[1] - found[1]
    return f"the container {min(missing)[:12]} is missing" if missing else ""


def _removed_by_themselves(folder: str, containers: frozenset[str]) -> frozenset[str]:
    """Those of `docker run --rm`: the engine removes them when it ends or starts (moby, container/hostconfig.json)."""
    found = set()
    for container in containers:
        try:
            settings = json_object(Path(folder, "containers", container, "hostconfig.json").read_bytes())
        except FileNotFoundError:
            found.add(container)
        except (OSError, ValueError):
            continue
        else:
            if settings.get("AutoRemove"):
                found.add(container)
    return frozenset(found)


def _binds_below(desired: Desired, root: str) -> tuple[str, ...]:
    found = sorted(
        f"{container.section} mounts {mount.source}: change that to the new folder afterwards"
        for container in desired.containers
        for mount in container.spec.mounts
        if mount.is_bind and f"{mount.source}/".startswith(f"{root.rstrip('/')}/")
    )
    return tuple(found)


def _make_folder(path: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o710)  # as dockerd makes it


def _device_of(path: str) -> int:
    return os.stat(path).st_dev


def _names_in(path: str) -> list[str]:
    return sorted(name for name in os.listdir(path) if name not in ("lost+found", NOTE))


def _free(path: str) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def _boot() -> str:
    with contextlib.suppress(OSError):
        return _BOOT.read_text().strip()
    return ""


def _note_in(path: str) -> dict[str, Any] | None:
    """What a move that was cut has noted in its target."""
    try:
        with open(os.path.join(path, NOTE), "rb") as file:
            found = json_object(file.read(65536))
        return {**found, "since": float(found["since"])}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return {"source": "something unknown", "since": 0.0}


def _write_note(move: _Move) -> None:
    note = {"source": move.source, "since": move.since, "boot": _boot()}
    atomic_write(Path(move.target, NOTE), json.dumps(note).encode(), mode=0o600)
