# SPDX-License-Identifier: GPL-2.0-or-later
"""A volume's files exchanged for others, all of them or none: from an archive, or as they were saved before an update.

The new files go into another volume first. Only when they are all there, the containers stop, two folders change places
(`places.exchange`), and the containers start again. So an archive that is damaged, a disk that is full and an agent that
is killed cost nothing, and the containers are down for as long as they take to stop and to start.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from agent.data import places
from agent.data.places import Volume
from agent.data.volumes import Pause, Volumes, finished
from agent.errors import ConflictError, DataError

Value = TypeVar("Value")
Pairs = Sequence[tuple[Volume, Volume]]  # the one with the new files, and the one that gets them


class Restores:
    """Belongs to one event loop; what ends in `_blocking` is for other threads."""

    def __init__(self, volumes: Volumes) -> None:
        self.volumes = volumes
        self.loop: asyncio.AbstractEventLoop | None = None
        self._busy: set[str] = set()  # volumes whose files are about to be exchanged

    async def into_new(self, name: str, body: AsyncIterable[bytes]) -> int:
        """A new volume of the local driver, filled from an archive; how many members that has.

        Raises ConflictError where there is one of that name, DataError, EngineError. Then there is no new volume.
        """
        await self.volumes.create(name)
        try:
            return (await self.volumes.put(name, body)).members
        except BaseException:
            await finished(self.volumes.discard(name))
            raise

    async def replace(self, name: str, body: AsyncIterable[bytes]) -> int:
        """The files of a volume become those of an archive; how many members that has.

        Raises DataError and ConflictError, which say why not, EngineError. Then all is as it was.
        """
        volume = await self._exchangeable(name)
        with self._alone([name]):
            async with self.volumes.temporary(name) as new:
                members = (await self.volumes.put(new.name, body)).members
                await finished(self._exchange_stopped([(new, volume)]))
        return members

    async def save(self, names: Iterable[str], key: str) -> None:
        """Copies volumes, so that `put_back` of that key undoes what happens to them from now on.

        What was saved under the key before is given up once the new copies are complete. Containers are not stopped: a
        caller that wants a database whole stops it first. Raises DataError for a volume that could not be put back (not of
        the local driver, an engine elsewhere), EngineError. Then what was saved before is still there.
        """
        before = await self.volumes.saved(key)
        made: list[str] = []
        try:
            for name in names:
                await self._exchangeable(name)
                copy = await self.volumes.create_saved(name, key)
                made.append(copy.name)
                async with await self.volumes.open(name) as response:
                    await self.volumes.put(copy.name, response.chunks())
        except BaseException:
            for each in made:
                await finished(self.volumes.discard(each))
            raise
        for old in before:
            await self.volumes.discard(old.name)

    async def put_back(self, key: str, *, stop: bool) -> tuple[str, ...]:
        """Gives the volumes that were saved under a key their files of then; their names. What was written since is lost.

        `stop`: the containers that use them are stopped meanwhile; else the caller has stopped them. Raises DataError where
        nothing is saved, ConflictError, EngineError. Then all is as it was.
        """
        copies = await self.volumes.saved(key)
        if not copies:
            raise DataError(f"no data is saved for {key}")
        pairs = [(copy, await self._exchangeable(copy.copy_of)) for copy in copies]
        names = tuple(volume.name for _, volume in pairs)
        with self._alone(names):
            if not stop and (using := await self.volumes.mounting(names)):
                raise ConflictError(f"{', '.join(sorted(using.values()))} still uses the data")
            await finished(self._exchange_stopped(pairs) if stop else self._exchange(pairs))
        await self.forget(key)
        return names

    async def forget(self, key: str) -> None:
        """Removes what was saved under a key."""
        for copy in await self.volumes.saved(key):
            await self.volumes.discard(copy.name)

    def save_blocking(self, names: Iterable[str], key: str) -> None:
        """`save` for a thread that applies plans. For `backup_before_update`, with the container's section as the key."""
        self._wait(self.save(names, key))

    def put_back_blocking(self, key: str) -> tuple[str, ...]:
        """`put_back` for a thread that applies plans and has stopped the containers. For `rollback --with-data`."""
        return self._wait(self.put_back(key, stop=False))

    def forget_blocking(self, key: str) -> None:
        """`forget` for a thread that applies plans: the update is final, or its section is gone."""
        self._wait(self.forget(key))

    def _wait(self, work: Coroutine[object, object, Value]) -> Value:
        if self.loop is None:
            work.close()
            raise DataError("data can be saved and put back by a running agent only")
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    async def _exchangeable(self, name: str) -> Volume:
        volume = await self.volumes.inspect(name)
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
        names = [volume.name for _, volume in pairs]
        async with self.volumes.stopped(names, all_of_them=True) as pause:
            await self._exchange(pairs)
            await self._start(pause, pairs)

    async def _start(self, pause: Pause, pairs: Pairs) -> None:
        """With the new files; where a container does not start with them, with the old ones."""
        containers = pause.containers
        if not (wrong := await pause.start()):
            return
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
            for new, volume in reversed(done):
                await asyncio.to_thread(places.exchange, new, volume)
            raise
