# SPDX-License-Identifier: GPL-2.0-or-later
"""Backups of `config backup` sections: one archive per volume, into a folder or a command, on a schedule or on request.

An archive in a folder is written under a temporary name, synced, read back and compared, and only then renamed; its sha256
is stored beside it for `sha256sum -c`. Only one backup or restore runs at a time, because routers have one slow disk.

A restore replaces the files of a volume, all or none: from an archive, or by those saved before an update. The new files
go into another volume first. Only when that is complete the containers stop, two folders are swapped
(`places.exchange`), and the containers start again. So a damaged archive, a full disk or a killed agent does no harm,
and containers are down only as long as they take to stop and to start.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from agent.data import places
from agent.data.places import EngineVolume
from agent.data.volumes import Volumes, finished
from agent.errors import ConfigError, ConflictError, DataError, EngineError, PathError, Reason, UcidockdError
from agent.files.atomic import atomic_write
from agent.files.user_paths import PATHS, space_of
from agent.model.identity import LABEL_SAVED, Key
from agent.model.resources import Backup, Desired
from agent.model.secrets import hidden_text
from agent.model.updates import is_due
from agent.status.board import StatusBoard
from agent.status.conditions import ConditionType
from agent.wire.bodies import TarError, TarReader
from agent.wire.record_lines import json_object

if TYPE_CHECKING:
    from agent.data.targets import Archive, CommandTarget, FolderTarget

Value = TypeVar("Value")
Pairs = Sequence[tuple[EngineVolume, EngineVolume]]  # (volume with the new files, volume that gets them)


class Restores:
    """Belongs to one event loop. Methods that are not `async` block, and are for threads that apply plans."""

    def __init__(self, volumes: Volumes) -> None:
        self.volumes = volumes
        self._loop: asyncio.AbstractEventLoop | None = None
        self._busy: set[str] = set()  # volumes whose files are about to be exchanged

    def begin(self) -> None:
        """Call in the event loop; only after that threads may save and restore."""
        self._loop = asyncio.get_running_loop()

    async def into_new(self, name: str, body: AsyncIterable[bytes], size: int = 0) -> int:
        """Creates a volume of the local driver and fills it from an archive of `size` bytes (0: not known); returns the
        number of members.

        Raises ConflictError if the name is taken, DataError, EngineError. The new volume is then removed.
        """
        # a partly filled volume would be mistaken for a restored one
        async with self.volumes.new(name) as made:
            await self.volumes.check_room(made, size)
            return (await self.volumes.put(name, body)).members

    async def replace(self, name: str, body: AsyncIterable[bytes], size: int = 0) -> int:
        """Replaces the files of a volume by those of an archive of `size` bytes (0: not known); returns the number of
        members.

        Raises DataError, ConflictError, EngineError. The volume is then unchanged.
        """
        volume = await self._exchangeable(name)
        await self.volumes.check_room(volume, size)
        with self._alone([name]):
            # into a temporary volume first: the archive may be damaged at its end, and until then nothing is stopped
            async with self.volumes.temporary(name) as new:
                members = (await self.volumes.put(new.name, body)).members
                await finished(self._exchange_stopped([(new, volume)]))
        return members

    def check(self, names: Iterable[str]) -> None:
        """Raises DataError if a volume could not be restored: it is not of the local driver, or the engine is elsewhere."""

        async def check() -> None:
            for name in names:
                await self._exchangeable(name)

        self._wait(check())

    def save(self, names: Iterable[str], key: str) -> None:
        """Copies volumes under a new key. To save a database consistently, stop it first.

        Raises DataError and EngineError; nothing is saved then.
        """
        self._wait(self._save(names, key))

    def lend(self, key: str) -> None:
        """Gives volumes the files that were saved under a key, until `take_back` or `keep_only`.

        Their containers must be stopped. Raises DataError if nothing is saved, ConflictError if a container still
        runs, EngineError. Then call `take_back` to undo what was done.
        """
        self._wait(self._lend(key))

    def take_back(self, key: str) -> None:
        """Undoes `lend`, also one that was interrupted because the agent was killed. Raises DataError, EngineError."""

        async def take_back() -> None:
            for copy, volume in await self._pairs(key):
                await asyncio.to_thread(places.take_back, copy, volume)

        self._wait(take_back())

    def keep_only(self, keys: Callable[[], Collection[str]]) -> None:
        """Removes what was saved under other keys. `keys` is called after the saved volumes were listed. Raises
        EngineError.
        """

        async def keep_only() -> None:
            # in this order: by then, what a swap saves in between is named by a record
            found = await self.volumes.all_saved()
            kept = keys()
            for copy in found:
                unused = copy.labels.get(LABEL_SAVED) not in kept
                if unused and await asyncio.to_thread(places.settle, copy):
                    await self.volumes.discard(copy.name)

        self._wait(keep_only())

    async def _save(self, names: Iterable[str], key: str) -> None:
        made: list[str] = []
        try:
            for name in names:
                copy = await self.volumes.create_saved(name, key)
                made.append(copy.name)
                async with await self.volumes.open(name) as response:
                    await self.volumes.put(copy.name, response.chunks())
        # all or none: a rollback restores what belongs together
        except BaseException:
            for each in made:
                await finished(self.volumes.discard(each))
            raise

    async def _lend(self, key: str) -> None:
        if not (pairs := await self._pairs(key)):
            raise DataError("the data that was saved is gone")
        # repeated after a kill, when its containers may run again
        pairs = [(copy, volume) for copy, volume in pairs if not places.is_lent(copy, volume)]
        names = [volume.name for _, volume in pairs]
        with self._alone(names):
            if using := await self.volumes.mounting(names):
                raise ConflictError(f"{', '.join(sorted(using.values()))} still uses the data")
            for copy, volume in pairs:
                await asyncio.to_thread(places.lend, copy, volume)

    async def _pairs(self, key: str) -> Pairs:
        return [(copy, await self._exchangeable(copy.copy_of)) for copy in await self.volumes.saved(key)]

    def _wait(self, work: Coroutine[object, object, Value]) -> Value:
        if self._loop is None:
            work.close()
            raise DataError("only a running agent saves and restores data: start it first")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _exchangeable(self, name: str) -> EngineVolume:
        volume = await self.volumes.inspect(name)
        # files are exchanged by renaming folders, which works only with the engine's own folders
        if not volume.is_plain:
            what = "has options of its driver" if volume.driver == "local" else f"is kept by {volume.driver}"
            raise DataError(
                f"volume {name} {what}, so its files cannot be exchanged: use a new volume instead"
            )
        if not await self.volumes.are_here():
            raise DataError(f"the files of volume {name} are on another machine: use a new volume instead")
        return volume

    @contextmanager
    def _alone(self, names: Iterable[str]) -> Iterator[None]:
        mine = set(names)
        if taken := sorted(mine & self._busy):
            raise ConflictError(f"volume {taken[0]} is being restored already")
        self._busy |= mine
        try:
            yield
        finally:
            self._busy -= mine

    async def _exchange_stopped(self, pairs: Pairs) -> None:
        """Exchanges the files while containers are stopped. If a container does not start with the new files, the old
        ones come back. If the engine goes away before that is known, the new ones stay.
        """
        names = [volume.name for _, volume in pairs]
        # stopped only for the renames, however long the copy took
        async with self.volumes.stopped(names, all_of_them=True) as pause:
            await self._exchange(pairs)
            containers = pause.containers
            if wrong := await pause.start():
                # containers that did start have written to the new files: stop them again before the old files come back
                await pause.stop(containers)
                await self._exchange(pairs)
                raise DataError(f"{wrong[0]}; the old files are back")

    async def _exchange(self, pairs: Pairs) -> None:
        done: list[tuple[EngineVolume, EngineVolume]] = []
        try:
            for new, volume in pairs:
                await asyncio.to_thread(places.exchange, new, volume)
                done.append((new, volume))
        except DataError:
            # in reverse: of several volumes none may keep the files of another point in time
            for new, volume in reversed(done):
                await asyncio.to_thread(places.exchange, new, volume)
            raise


logger = logging.getLogger(__name__)

LOOK_S = 60.0  # between checks for due backups
RETRY_S = 3600.0  # wait after a scheduled backup that failed
RESERVE = 16 * 1024 * 1024  # bytes that a backup leaves free

_NO_BACKUP = "there is no `config backup` section: one has a name, `list section 'CONTAINER'` and a folder, `option target`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How the last backup of a section ended, in unix seconds. `succeeded`: the time of the last success, 0 for never."""

    ended: float
    succeeded: float
    message: str = ""  # "" after a success
    no_space: bool = False
    archives: Mapping[str, Mapping[str, Any]] | None = None  # of the last success, by volume


class Backups:
    """Belongs to one event loop. `memory` is a file that survives a reboot; it is written once per backup."""

    def __init__(
        self,
        restores: Restores,
        board: StatusBoard,
        desired: Callable[[], Desired | None],
        memory: Path,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._restores = restores
        self._board = board
        self._desired = desired
        self._memory = memory
        self._wall = wall
        self._results: dict[str, Result] | None = None  # read at first use
        self._work: asyncio.Task[None] | None = None  # one at a time: each may stop containers
        self._doing: dict[str, Any] = {}  # what is in progress, for status
        self._restored: dict[str, Any] = {}  # how the last restore ended, for status
        self._tidying = asyncio.Lock()  # held while unfinished archives are removed
        self._tidied: set[str] = set()  # sections whose unfinished archives of an earlier agent are gone

    # requests

    def answer(self) -> dict[str, Any]:
        """Each section with its last result, the work in progress, and how the last restore ended."""
        results = self._known()
        return {
            "backups": [
                {
                    **_shown(section),
                    "last": asdict(results[section.name]) if section.name in results else None,
                }
                for section in self._sections()
            ],
            "running": dict(self._doing) or None,
            "restored": dict(self._restored) or None,
        }

    async def archives(self, name: str) -> list[dict[str, Any]]:
        """The archives of a section in its folder, newest first: `at` in unix seconds, `sha256` "" if it is not
        stored beside the archive.

        Raises ConfigError, PathError, DataError.
        """
        section = self._section(name)
        # only a folder can be listed; a command may have sent the archive anywhere
        if not section.target:
            raise DataError(f"the archives of {name} are where its command puts them")
        from agent.data.targets import FolderTarget

        found = await FolderTarget(section.target).archives(section.name, section.volumes)
        return [
            {"volume": a.volume, "file": str(a.path), "bytes": a.size, "at": a.at, "sha256": a.sha256}
            for a in found
        ]

    def start(self, names: tuple[str, ...] = ()) -> None:
        """Starts these backups; without names, all of them. Raises ConfigError, ConflictError."""
        sections = [self._section(name) for name in names] if names else self._sections()
        if not sections:
            raise ConfigError(_NO_BACKUP)
        # one after the other: two at once would stop twice as many containers, and share one disk
        self._begin(self._make_all(sections), {"what": "backup", "names": [s.name for s in sections]})

    def start_restore(self, name: str, *, volume: str = "", file: str = "", into: str = "") -> None:
        """Starts to restore a volume of a section from an archive in its folder, the newest unless `file` names one.

        `into` names a new volume for the files. Raises ConfigError, ConflictError.
        """
        section = self._section(name)
        # do not guess the volume: a restore replaces its current files
        if not volume and len(section.volumes) != 1:
            raise ConfigError(f"{name} saves {', '.join(section.volumes)}: say which volume")
        volume = volume or section.volumes[0]
        if volume not in section.volumes:
            raise ConfigError(
                f"{name} does not save a volume {volume}; it saves {', '.join(section.volumes)}"
            )
        if not section.target:
            raise ConfigError(
                f"the archives of {name} are where its command puts them: get one, then"
                f" `ucidockd restore {name} --from FILE`"
            )
        work = self._restore(section, volume, file, into)
        self._begin(work, {"what": "restore", "names": [name], "volume": volume})

    def metrics(self) -> dict[str, Result]:
        """The last result of each section."""
        return {s.name: self._known()[s.name] for s in self._sections() if s.name in self._known()}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Makes due backups until the block ends."""
        task = asyncio.create_task(self._follow(), name="backups")
        try:
            yield
        finally:
            # a running backup ends with the agent: half an archive must not look like a complete one
            tasks = {task} | ({self._work} if self._work is not None else set())
            for each in tasks:
                each.cancel()
            await asyncio.wait(tasks)

    # work

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                self._show()
                await self._tidy()
                # checked each time instead of with timers: the clock may be set, and sections come and go
                due = [section for section in self._sections() if self._is_due(section)]
                if due and not self._doing:
                    self._begin(self._make_all(due), {"what": "backup", "names": [s.name for s in due]})
            except Exception:  # the next check may work
                logger.exception("backups")

    async def _tidy(self) -> None:
        """Removes what a killed agent left unfinished, as soon as the folder is there: it may take the space of a disk
        until the next backup.
        """
        for section in self._sections():
            if section.target and section.name not in self._tidied:
                from agent.data.targets import FolderTarget  # only where there are backups

                target = FolderTarget(section.target)
                # its disk may come later
                async with self._tidying:
                    if self._doing:  # the archive that it makes is unfinished too
                        return
                    with contextlib.suppress(DataError, PathError, OSError):
                        await target.require()
                        await target.tidy(section.name)
                        self._tidied.add(section.name)

    def _is_due(self, section: Backup) -> bool:
        result, now = self._known().get(section.name), self._wall()
        # do not retry at each check: a failing backup stops its containers each time. A clock that was set back does
        # not count
        if result is not None and result.message and 0 <= now - result.ended < RETRY_S:
            return False
        local = time.localtime(now)
        return is_due(
            section.schedule,
            section.window,
            last=result.succeeded if result is not None and result.succeeded else None,
            now=now,
            second_of_day=local.tm_hour * 3600 + local.tm_min * 60 + local.tm_sec,
        )

    def _begin(self, work: Any, doing: dict[str, Any]) -> None:
        if self._doing:
            work.close()
            raise ConflictError(
                f"a {self._doing['what']} of {', '.join(self._doing['names'])} is in progress"
            )
        self._doing = {**doing, "began": self._wall(), "bytes": 0}
        self._work = asyncio.create_task(self._run(work), name=f"data-{doing['what']}")

    async def _run(self, work: Any) -> None:
        try:
            await work
        finally:
            self._doing = {}

    async def _make_all(self, sections: list[Backup]) -> None:
        for section in sections:
            await self._make_one(section)

    async def _make_one(self, section: Backup) -> None:
        message, no_space, made = "", False, {}
        try:
            made = await self._make(section)
        except (UcidockdError, OSError) as exc:
            # the command's output may repeat the password that it was given
            message = hidden_text(str(exc))
            no_space = isinstance(exc, _NoSpaceError)
        except Exception:
            logger.exception("backup %s", section.name)
            message = "internal error; see the log"
        before = self._known().get(section.name)
        now = self._wall()
        if message:
            logger.error("backup %s: %s", section.name, message)
            # keep the last good archives known: they can be restored
            kept = before.succeeded if before is not None else 0.0
            archives = before.archives if before is not None else None
            result = Result(ended=now, succeeded=kept, message=message, no_space=no_space, archives=archives)
        else:
            logger.info("backup %s: %d volumes are saved", section.name, len(made))
            result = Result(ended=now, succeeded=now, archives={v: _noted(a) for v, a in made.items()})
        await asyncio.to_thread(self._note, section.name, result)
        self._show()

    async def _make(self, section: Backup) -> dict[str, Archive]:
        from agent.data.targets import CommandTarget, FolderTarget

        target = FolderTarget(section.target) if section.target else CommandTarget(section.command)
        await target.require()
        if isinstance(target, FolderTarget):
            # in this order: an unfinished archive of a killed agent may take the very space that is missing
            async with self._tidying:
                await target.tidy(section.name)
            # before any container is stopped
            await self._check_space(section)
        # one time stamp for all volumes, so that the names show which archives belong together
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._wall()))
        made = {}
        async with contextlib.AsyncExitStack() as stack:
            if section.stop:
                await stack.enter_async_context(self._restores.volumes.stopped(section.volumes))
            for volume in section.volumes:
                self._doing["volume"] = volume
                made[volume] = await self._save(
                    section, volume, target, f"{section.name}-{volume}-{stamp}.tar"
                )
        # remove older archives only once all new ones are complete
        if isinstance(target, FolderTarget):
            await target.keep_only(section.name, section.volumes, section.keep)
        return made

    async def _save(
        self, section: Backup, volume: str, target: FolderTarget | CommandTarget, file: str
    ) -> Archive:
        reader = TarReader()

        # parsed while it streams: an archive that the engine cut short must not count as a backup
        async def pieces() -> AsyncIterator[bytes]:
            async for piece in response.chunks():
                reader.feed(piece)
                self._doing["bytes"] += len(piece)
                yield piece
            reader.end()

        try:
            async with await self._restores.volumes.open(volume) as response:
                names = {"UCIDOCKD_BACKUP": section.name, "UCIDOCKD_VOLUME": volume, "UCIDOCKD_FILE": file}
                return await target.take(volume, file, pieces(), names)
        except TarError as exc:
            raise DataError(f"volume {volume}: the engine's archive is damaged: {exc}") from exc
        except EngineError as exc:
            raise EngineError(f"volume {volume}: {exc}", status=exc.status) from exc

    async def _check_space(self, section: Backup) -> None:
        """Raises if the archives do not fit. A volume's size is known if its folder is on this machine."""
        needed = RESERVE
        last = self._known().get(section.name)
        sizes = last.archives or {} if last is not None else {}
        for name in section.volumes:
            volume = await self._restores.volumes.inspect(name)
            if volume.is_plain and await self._restores.volumes.are_here():
                needed += await asyncio.to_thread(places.archive_size, volume.place)
            else:
                # for an engine or a driver elsewhere the size of the last archive is the best estimate
                needed += int(sizes.get(name, {}).get("bytes", 0))
        space = await asyncio.to_thread(PATHS.ask, space_of, section.target)
        if space.free < needed:
            raise _NoSpaceError(
                f"{section.target} has {space.free // 2**20} MiB free, {-(-needed // 2**20)} MiB are needed"
            )

    async def _restore(self, section: Backup, volume: str, file: str, into: str) -> None:
        from agent.data.targets import FolderTarget

        ended: dict[str, Any] = {"name": section.name, "volume": into or volume, "file": file}
        try:
            target = FolderTarget(section.target)
            path = Path(file) if file else await target.newest(section.name, volume)
            ended["file"] = str(path)
            # read twice: a damaged archive must be found before any file of the volume is touched
            size = await target.verify(path)
            body = target.read(path)
            ended["members"] = await (
                self._restores.into_new(into, body, size)
                if into
                else self._restores.replace(volume, body, size)
            )
        except (UcidockdError, OSError) as exc:
            ended["error"] = hidden_text(str(exc))
            logger.error("restore of volume %s: %s", into or volume, exc)
        else:
            logger.info("volume %s is restored from %s", into or volume, ended["file"])
        self._restored = {**ended, "ended": self._wall()}

    # results

    def _show(self) -> None:
        """Shows on the board which sections failed last, also after a restart of the agent."""
        failed: dict[str, Result] = {
            Key("backup", name): found for name, found in self.metrics().items() if found.message
        }
        for key, found in failed.items():
            reason: Reason = "NoSpace" if found.no_space else "Failed"
            self._board.flag(key, ConditionType.BACKUP_FAILED, reason, found.message)
        # removed sections, and sections that have succeeded since
        for key in sorted(self._board.keys() - failed.keys()):
            if Key.parse(key).kind == "backup":
                self._board.drop(key)

    def _sections(self) -> list[Backup]:
        desired = self._desired()
        return [*desired.backups] if desired is not None else []

    def _section(self, name: str) -> Backup:
        sections = self._sections()
        found = next((section for section in sections if section.name == name), None)
        if found is None:
            there = ", ".join(section.name for section in sections)
            wish = f"there are: {there}" if there else _NO_BACKUP
            raise ConfigError(f"no backup section is named {name!r}; {wish}")
        return found

    def _known(self) -> dict[str, Result]:
        if self._results is None:
            self._results = _load(self._memory)
        return self._results

    def _note(self, name: str, result: Result) -> None:
        declared = {section.name for section in self._sections()}
        # drop results of removed sections, so that the file does not grow with every name ever used
        known = {n: r for n, r in self._known().items() if n in declared} | {name: result}
        self._results = known
        try:
            self._memory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            text = json.dumps({n: asdict(r) for n, r in known.items()}, indent=1, sort_keys=True)
            atomic_write(self._memory, text.encode(), mode=0o600)
        # the result is still in memory; only a restart would forget it
        except OSError as exc:
            logger.warning("%s cannot be written: %s", self._memory, exc.strerror)


class _NoSpaceError(DataError):
    pass


def _shown(section: Backup) -> dict[str, Any]:
    return {
        "name": section.name,
        "volumes": [*section.volumes],
        "schedule": section.schedule,
        "window": str(section.window or ""),
        "target": section.target,
        "exec": bool(section.command),  # the command may contain a password
        "keep": section.keep,
        "stop": section.stop,
    }


def _noted(archive: Archive) -> dict[str, Any]:
    return {"file": str(archive.path or ""), "bytes": archive.size, "sha256": archive.sha256}


def _load(path: Path) -> dict[str, Result]:
    try:
        return {
            name: Result(
                ended=float(item["ended"]),
                succeeded=float(item["succeeded"]),
                message=str(item.get("message", "")),
                no_space=bool(item.get("no_space")),
                archives=item.get("archives"),
            )
            for name, item in json_object(path.read_bytes()).items()
        }
    # results serve only the display and the schedule; what can be restored is found from the archives themselves
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        logger.warning("%s is not readable, no backup is known: %s", path, exc)
        return {}
