# SPDX-License-Identifier: GPL-2.0-or-later
"""Replaces the files of a volume, all or none: from an archive, or by those saved before an update.

The new files go into another volume first. Only when that is complete the containers stop, two folders are swapped
(`places.exchange`), and the containers start again. So a damaged archive, a full disk or a killed agent does no harm,
and containers are down only as long as they take to stop and to start.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Collection, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from agent.data import places
from agent.data.places import EngineVolume
from agent.data.volumes import Volumes, finished
from agent.errors import ConflictError, DataError
from agent.model.identity import LABEL_SAVED

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
        made = await self.volumes.create(name)
        try:
            await self.volumes.check_room(made, size)
            return (await self.volumes.put(name, body)).members
        # also when cancelled: a partly filled volume would be mistaken for a restored one
        except BaseException:
            await finished(self.volumes.discard(name))
            raise

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
        ones come back.
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
