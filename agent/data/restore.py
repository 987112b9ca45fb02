# SPDX-License-Identifier: GPL-2.0-or-later
"""A volume's files exchanged for others, all of them or none: from an archive, or as they were saved before an update.

The new files go into another volume first. Only when they are all there, the containers stop, two folders change places
(`places.exchange`), and the containers start again. So an archive that is damaged, a disk that is full and an agent that
is killed cost nothing, and the containers are down for as long as they take to stop and to start.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Collection, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from agent.data import places
from agent.data.places import Volume
from agent.data.volumes import Volumes, finished
from agent.errors import ConflictError, DataError
from agent.model.identity import LABEL_SAVED

Value = TypeVar("Value")
Pairs = Sequence[tuple[Volume, Volume]]  # the one with the new files, and the one that gets them


class Restores:
    """Belongs to one event loop; what is not `async` blocks, and is for threads that apply plans."""

    def __init__(self, volumes: Volumes) -> None:
        self.volumes = volumes
        self._loop: asyncio.AbstractEventLoop | None = None
        self._busy: set[str] = set()  # volumes whose files are about to be exchanged

    def begin(self) -> None:
        """In its event loop: from now on threads may ask. Until then nothing is saved or put back."""
        self._loop = asyncio.get_running_loop()

    async def into_new(self, name: str, body: AsyncIterable[bytes]) -> int:
        """A new volume of the local driver, filled from an archive; how many members that has.

        Raises ConflictError if a volume has that name, DataError, EngineError. No new volume is left then.
        """
        await self.volumes.create(name)
        try:
            return (await self.volumes.put(name, body)).members
        # Also on cancellation, and to its end: a volume that is half full would be taken for a restored one.
        except BaseException:
            await finished(self.volumes.discard(name))
            raise

    async def replace(self, name: str, body: AsyncIterable[bytes]) -> int:
        """The files of a volume become those of an archive; how many members that has.

        Raises DataError and ConflictError, which say why not, EngineError. Then all is as it was.
        """
        volume = await self._exchangeable(name)
        with self._alone([name]):
            # Into a new volume first: the archive may be damaged at its end, and nothing has been stopped until
            # then.
            async with self.volumes.temporary(name) as new:
                members = (await self.volumes.put(new.name, body)).members
                await finished(self._exchange_stopped([(new, volume)]))
        return members

    def check(self, names: Iterable[str]) -> None:
        """Raises DataError for a volume that could not be put back: not of the local driver, or of an engine elsewhere."""

        async def check() -> None:
            for name in names:
                await self._exchangeable(name)

        self._wait(check())

    def save(self, names: Iterable[str], key: str) -> None:
        """Copies volumes, under a key that is new. Whoever wants a database whole has stopped it.

        Raises DataError and EngineError; then nothing is saved.
        """
        self._wait(self._save(names, key))

    def lend(self, key: str) -> None:
        """Gives the volumes that were saved under a key their files of then, until `take_back` or `keep_only`.

        Their containers are stopped. Raises DataError where nothing is saved, ConflictError where one still runs,
        EngineError. Then `take_back` is for what was done.
        """
        self._wait(self._lend(key))

    def take_back(self, key: str) -> None:
        """Undoes `lend`, also one that a killed agent did not complete. Raises DataError, EngineError."""

        async def take_back() -> None:
            for copy, volume in await self._pairs(key):
                await asyncio.to_thread(places.take_back, copy, volume)

        self._wait(take_back())

    def keep_only(self, keys: Callable[[], Collection[str]]) -> None:
        """Removes what was saved under other keys; they are asked for once it is known what there is. Raises EngineError."""

        async def keep_only() -> None:
            # in this order: what a swap saves between the two is named by a record by then
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
        # All of them or none: a rollback puts back what belongs together.
        except BaseException:
            for each in made:
                await finished(self.volumes.discard(each))
            raise

    async def _lend(self, key: str) -> None:
        if not (pairs := await self._pairs(key)):
            raise DataError("the data that was saved is gone")
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
            raise DataError("data is saved and put back by a running agent only: start it first")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _exchangeable(self, name: str) -> Volume:
        volume = await self.volumes.inspect(name)
        # Its files are exchanged by renaming folders, which only the engine's own folders allow.
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
        """Where a container does not start with the new files, the old ones come back."""
        names = [volume.name for _, volume in pairs]
        # Stopped only for the renames, however long the copy took.
        async with self.volumes.stopped(names, all_of_them=True) as pause:
            await self._exchange(pairs)
            containers = pause.containers
            if wrong := await pause.start():
                # Those that did start have written to the new files by now: they are stopped again before the old
                # ones come back.
                await pause.stop(containers)
                await self._exchange(pairs)
                raise DataError(f"{wrong[0]}; the old files are back")

    async def _exchange(self, pairs: Pairs) -> None:
        done: list[tuple[Volume, Volume]] = []
        try:
            for new, volume in pairs:
                await asyncio.to_thread(places.exchange, new, volume)
                done.append((new, volume))
        except DataError:
            # In reverse: of several volumes none may keep files of another point in time.
            for new, volume in reversed(done):
                await asyncio.to_thread(places.exchange, new, volume)
            raise
