# SPDX-License-Identifier: GPL-2.0-or-later
"""Volumes as tar archives, exported and imported as streams. Nothing is held in memory, and no program of a volume is run.

The engine has no call for a volume's files, but its archive calls for containers (Engine API,
/containers/{id}/archive) work on a container that was created and never started. So we create a helper: a container
of an empty image, with the volume mounted. This works with every volume driver and with an engine on another machine.
The engine resolves links, not we, so a link in a volume cannot lead us anywhere. Helpers have a label and are removed
at once; what a killed agent or a lost engine leaves is removed later.

Files are accessed directly only where that is safe: see `agent.data.places`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import threading
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from agent.data import places
from agent.data.places import EngineVolume, FolderListing
from agent.engine.stream import DockerStream, EngineResponse, SourceError
from agent.errors import (
    ConflictError,
    DataError,
    EngineError,
    EngineUnreachableError,
    NoSpaceError,
    UcidockdError,
)
from agent.files.atomic import atomic_write
from agent.files.user_paths import PATHS, space_of
from agent.model.identity import LABEL_COPY_OF, LABEL_FILLED, LABEL_HELPER, LABEL_OWNER, LABEL_SAVED, OWNER
from agent.model.quantities import size_words
from agent.wire.bodies import Member, TarError, TarMover, TarReader, rooted
from agent.wire.record_lines import json_object

logger = logging.getLogger(__name__)

_AT = "volume"  # mount point of the volume in a helper
_HEAD_S = 600.0  # long enough for a slow disk, a large folder, a container that stops slowly
_EMPTY = bytes(1024)  # a tar archive without members
_SAVED = "saved"  # in place of a run's id, for what outlives the agent
_MOUNTING = frozenset({"running", "restarting", "paused"})
_NAME_LIMIT = 4096
_ROOM = ". `ucidockd prune --images unused` removes images that nothing needs"


class Manual(Protocol):
    """Keeps containers as a copy needs them. `agent.runtime.loop` implements it."""

    async def begin_copy(self, volumes: Iterable[str]) -> frozenset[str]:
        """Makes passes skip the sections that mount one of the volumes, once no operation on them is in progress.

        Returns their keys for `end_copy`. Raises ConflictError if that takes too long.
        """
        ...

    async def end_copy(self, keys: frozenset[str]) -> None:
        """Gives these sections back to the reconciler."""

    def managed(self, containers: Iterable[str]) -> frozenset[str]:
        """The container ids that we manage."""
        ...


class Volumes:
    """Belongs to one event loop. `instance` returns this agent's id. `journal` is a file that lists the containers stopped
    for a copy. It is in the run directory, which outlives the agent; after a power failure containers start anyway.
    `filling` lists the new volumes that are not complete yet, also after a power failure.
    """

    def __init__(
        self,
        engine: DockerStream,
        manual: Manual,
        *,
        instance: Callable[[], str],
        journal: Path,
        filling: Path,
    ) -> None:
        self._engine = engine
        self._manual = manual
        self._instance = instance
        self._journal = journal
        self._filling = filling
        self._one_note = threading.Lock()  # two volumes may be filled at the same time
        self._filled_now: set[str] = set()  # marks of the new volumes in progress
        self._run = secrets.token_hex(8)  # tells helpers of this agent from those that a killed one left
        self._one_pause = asyncio.Lock()
        self._one_image = asyncio.Lock()
        self._helpers = 0
        self._image = ""  # the image of helpers
        self.left = asyncio.Event()  # set if something of ours could not be removed; `recover` removes it
        self._left: dict[str, tuple[tuple[str, str], ...]] = {}  # path -> query of the DELETE
        self._here: bool | None = None

    # archives

    async def inspect(self, name: str) -> EngineVolume:
        """The volume. Raises EngineError, 404 if it does not exist."""
        return await self._engine.call("GET", f"/volumes/{name}", read=places.volume_of)

    async def open(self, name: str, path: str = "", *, stop: bool = False) -> EngineResponse:
        """A file or folder of a volume as tar, "" for the whole volume. Closing the response ends the copy.

        With `stop` the managed containers that mount it are stopped until then. Raises EngineError, DataError.
        """
        inside = checked_path(path)
        return await self._open(name, f"/{_AT}/{inside}" if inside else f"/{_AT}/.", stop=stop)

    async def _open(self, name: str, query: str, *, stop: bool = False) -> EngineResponse:
        # checked first, because the engine creates a missing volume that a new container mounts
        await self.inspect(name)
        ending = contextlib.AsyncExitStack()
        try:
            if stop:
                await ending.enter_async_context(self.stopped([name]))
            helper = await ending.enter_async_context(self._helper(name, read_only=True))
            response = await self._engine.open(
                "GET", f"/containers/{helper}/archive", query=[("path", query)], head_timeout_s=_HEAD_S
            )
            response.ends_with(ending.aclose)
            return await response.checked()
        except BaseException as exc:
            await finished(ending.aclose())
            if isinstance(exc, NoSpaceError):
                # of the helper: what the engine says names its files, not the volume
                raise NoSpaceError(
                    f"the disk with Docker's data is too full to read volume {name}{_ROOM}"
                ) from exc
            raise

    async def put(
        self, name: str, body: AsyncIterable[bytes], path: str = "", *, stop: bool = False
    ) -> TarReader:
        """Unpacks a plain tar into a folder of a volume, over existing files.

        If the archive is damaged, the files before the damage may have been unpacked: use `agent.data.backups` for
        all or nothing. Raises EngineError, DataError.
        """
        inside = checked_path(path)
        volume = await self.inspect(name)
        # The engine refuses a link that leads out of the folder into which it unpacks. Volumes may have such links, and
        # what was saved has to come back: a whole archive goes into the root, its members into the volume's folder.
        checked = Checked(body, "" if inside else _AT)
        try:
            async with contextlib.AsyncExitStack() as stack:
                if stop:
                    await stack.enter_async_context(self.stopped([name]))
                helper = await stack.enter_async_context(self._helper(name, read_only=False))
                await self._unpack(helper, f"/{_AT}/{inside}" if inside else "/", checked)
        except NoSpaceError as exc:
            raise NoSpaceError(
                f"the disk with Docker's data has no room for the files of volume {volume.copy_of or name}: it was full"
                f" after about {size_words(checked.passed)} of the archive{_ROOM}"
            ) from exc
        return checked.reader

    async def check_room(self, volume: EngineVolume, size: int) -> None:
        """Raises NoSpaceError if an archive of so many bytes does not fit on the disk of a volume. Where neither is known,
        the engine reports a full disk.
        """
        if not (size and volume.is_plain and await self.are_here()):
            return
        free = (await asyncio.to_thread(PATHS.ask, space_of, str(volume.place))).free
        if size > free:
            raise NoSpaceError(
                f"the disk with Docker's data has no room for the files of volume {volume.name}: the archive has"
                f" {size_words(size)}, and {size_words(free)} are free: {size_words(size - free)} are missing{_ROOM}"
            )

    async def list(self, name: str, path: str = "") -> FolderListing:
        """The entries of a folder. Raises EngineError, 404 if the path does not exist; DataError if it is not a folder."""
        inside = checked_path(path)
        volume = await self.inspect(name)
        if volume.is_plain and await self.are_here():
            return await asyncio.to_thread(places.listing, volume.place, inside)
        return await self._list_by_archive(name, inside)

    async def _list_by_archive(self, name: str, inside: str) -> FolderListing:
        """Lists by reading the folder's whole archive, of which only the first headers are kept."""
        found: dict[str, Member] = {}
        # read to the end: otherwise the engine would log an error
        reader = TarReader()
        async with await self._open(name, f"/{_AT}/{inside}/.") as response:
            async for piece in response.chunks():
                try:
                    members = reader.feed(piece)
                except TarError as exc:
                    raise EngineError(f"the engine sent a damaged archive: {exc}") from exc
                for member in members:
                    # one more than is shown proves that there are further ones
                    entry = rooted(member.name)
                    if entry and "/" not in entry and len(found) <= places.LISTED:
                        found[entry] = member
        return places.sorted_listing(inside, found)

    async def create(self, name: str, labels: Mapping[str, str] | None = None) -> EngineVolume:
        """Creates a volume of the local driver. Raises ConflictError if it exists, EngineError."""
        try:
            # checked first: creating an existing volume succeeds and returns it with all its files
            await self.inspect(name)
        except EngineError as exc:
            if exc.status != 404:
                raise
        else:
            raise ConflictError(f"a volume named {name} exists already")
        body = {"Name": name, "Driver": "local", "Labels": dict(labels or {})}
        return await self._engine.call("POST", "/volumes/create", body=body, read=places.volume_of)

    @asynccontextmanager
    async def new(self, name: str) -> AsyncIterator[EngineVolume]:
        """Creates a volume of the local driver that stays if the block succeeds. Otherwise it is removed, if need be by
        the next agent. Raises ConflictError if it exists, DataError, EngineError.
        """
        mark = secrets.token_hex(8)
        self._filled_now.add(mark)
        try:
            # noted before it exists: a killed agent must not leave a volume that looks complete
            await asyncio.to_thread(self._note_new, mark, name)
            yield await self.create(name, {LABEL_FILLED: mark})
            await finished(asyncio.to_thread(self._forget_new, mark))
        except BaseException:
            await finished(self._undo_new(mark, name))
            raise
        finally:
            self._filled_now.discard(mark)

    async def _undo_new(self, mark: str, name: str) -> None:
        try:
            await self._remove_new(mark, name)
        except EngineError as exc:
            logger.warning("volume %s is not complete, and removed later: %s", name, exc)
            self.left.set()

    async def _remove_new(self, mark: str, name: str) -> None:
        try:
            made = await self.inspect(name)
        except EngineError as exc:
            if exc.status != 404:
                raise
        else:
            # a user may have made one of that name since
            if made.labels.get(LABEL_FILLED) == mark:
                await self.remove(name)
        await asyncio.to_thread(self._forget_new, mark)

    def _new(self) -> dict[str, str]:
        """Mark -> name of the new volumes that are not complete."""
        try:
            return {mark: str(name) for mark, name in json_object(self._filling.read_bytes()).items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as exc:
            logger.warning("%s cannot be read: %s", self._filling, exc)
            return {}

    def _note_new(self, mark: str, name: str) -> None:
        try:
            self._filling.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._one_note:
                atomic_write(self._filling, json.dumps({**self._new(), mark: name}).encode(), mode=0o600)
        except OSError as exc:
            raise DataError(f"{self._filling}: {exc.strerror}") from exc

    def _forget_new(self, mark: str) -> None:
        with self._one_note:
            if left := {each: name for each, name in self._new().items() if each != mark}:
                atomic_write(self._filling, json.dumps(left).encode(), mode=0o600)
            else:
                self._filling.unlink(missing_ok=True)

    async def remove(self, name: str) -> None:
        """Removes a volume. Raises EngineError; a missing volume is fine."""
        await self._quietly("DELETE", f"/volumes/{name}", fine=(404,))

    async def discard(self, name: str) -> None:
        """Removes a volume that was created here; after a failure `recover` does it."""
        await self._tidied(f"/volumes/{name}")

    @asynccontextmanager
    async def temporary(self, copy_of: str) -> AsyncIterator[EngineVolume]:
        """A volume that is removed at the end of the block, or when the next agent starts."""
        labels = {LABEL_OWNER: OWNER, LABEL_HELPER: self._mark(), LABEL_COPY_OF: copy_of}
        name = f"ucidockd-{secrets.token_hex(6)}"
        with self._unknown(f"/volumes/{name}"):
            made = await self.create(name, labels)
        try:
            yield made
        finally:
            await finished(self.discard(made.name))

    async def create_saved(self, copy_of: str, key: str) -> EngineVolume:
        """Creates a volume that stays, for `saved`."""
        labels = {LABEL_OWNER: OWNER, LABEL_HELPER: f"{self._instance()}/{_SAVED}"}
        labels |= {LABEL_COPY_OF: copy_of, LABEL_SAVED: key}
        name = f"ucidockd-saved-{secrets.token_hex(6)}"
        with self._unknown(f"/volumes/{name}"):
            return await self.create(name, labels)

    async def saved(self, key: str) -> tuple[EngineVolume, ...]:
        """The volumes that this agent saved under a key."""
        return tuple(each for each in await self.all_saved() if each.labels.get(LABEL_SAVED) == key)

    async def all_saved(self) -> tuple[EngineVolume, ...]:
        """All volumes that this agent saved."""
        return await self._labelled(f"{LABEL_HELPER}={self._instance()}/{_SAVED}")

    async def _labelled(self, label: str) -> tuple[EngineVolume, ...]:
        return await self._engine.call(
            "GET",
            "/volumes",
            query=[("filters", json.dumps({"label": [label]}))],
            read=lambda body: tuple(map(places.volume_of, body.get("Volumes") or ())),
        )

    # containers that are stopped for a copy

    @asynccontextmanager
    async def stopped(self, volumes: Iterable[str], *, all_of_them: bool = False) -> AsyncIterator[Pause]:
        """Stops the managed containers that mount one of the volumes while the block runs. They start again after it,
        even if the agent is killed. With `all_of_them` no other container may use a volume.

        Raises ConflictError, EngineError.
        """
        names = frozenset(volumes)
        async with self._one_pause:
            # tell the passes first: they would take a container stopped here for drift, and start it
            keys = await self._manual.begin_copy(names)
            pause = Pause(self._engine, self._journal)
            try:
                mounting = await self.mounting(names)
                managed = self._manual.managed(mounting)
                # other containers may read a volume during a copy, but must not use it during an exchange: the caller
                # decides
                others = sorted(mounting[each] for each in mounting.keys() - managed)
                if others and all_of_them:
                    raise ConflictError(
                        f"{', '.join(others)} uses the volume, and ucidockd does not manage it: stop it first"
                    )
                await pause.stop(sorted(managed))
                yield pause
            finally:
                await finished(self._resume(pause, keys))

    async def _resume(self, pause: Pause, keys: frozenset[str]) -> None:
        try:
            for why in await pause.start():
                logger.warning("%s; it is tried again", why)
            if pause.is_waiting:
                self.left.set()
        finally:
            await self._manual.end_copy(keys)

    async def mounting(self, volumes: Iterable[str]) -> dict[str, str]:
        """Id -> name of the containers that have one of the volumes mounted now."""
        found: dict[str, str] = {}
        for volume in sorted(volumes):
            query = [("filters", json.dumps({"volume": [volume], "status": sorted(_MOUNTING)}))]
            found |= await self._engine.call("GET", "/containers/json", query=query, read=_names)
        return found

    # helper containers

    def _mark(self) -> str:
        return f"{self._instance()}/{self._run}"

    @asynccontextmanager
    async def _helper(self, volume: str, *, read_only: bool) -> AsyncIterator[str]:
        """The id of a container that has the volume at `/volume`."""
        async with self._helper_image() as image:
            # never started, so it needs no program: the engine mounts the volume for each archive call
            mount = {
                "Type": "volume",
                "Source": volume,
                "Target": f"/{_AT}",
                "ReadOnly": read_only,
                # otherwise files of the image would be copied into an empty volume
                "VolumeOptions": {"NoCopy": True},
            }
            body = {
                "Image": image,
                "Cmd": ["-"],
                "Labels": {LABEL_OWNER: OWNER, LABEL_HELPER: self._mark()},
                "HostConfig": {"NetworkMode": "none", "LogConfig": {"Type": "none"}, "Mounts": [mount]},
            }
            name = f"ucidockd-copies-{secrets.token_hex(6)}"
            with self._unknown(f"/containers/{name}", ("force", "1")):
                made = await self._engine.call(
                    "POST",
                    "/containers/create",
                    query=[("name", name)],
                    body=body,
                    read=lambda answer: str(answer["Id"]),
                )
            try:
                yield made
            finally:
                await finished(self._remove_container(made))

    @asynccontextmanager
    async def _helper_image(self) -> AsyncIterator[str]:
        # shared by all copies in progress, and removed after the last one
        async with self._one_image:
            self._image = self._image or await self._import()
            self._helpers += 1

        async def leave() -> None:
            async with self._one_image:
                self._helpers -= 1
                if not self._helpers:
                    image, self._image = self._image, ""
                    await self._remove_image(image)

        try:
            yield self._image
        finally:
            await finished(leave())

    async def _import(self) -> str:
        """Creates an empty image (POST /images/create with `fromSrc=-`, like `docker import`)."""
        # our own image, because pulling one would need a registry, and a router may be offline
        query = [("fromSrc", "-"), ("changes", f"LABEL {LABEL_HELPER}={self._mark()}")]
        headers = [("content-type", "application/x-tar")]
        response = await self._engine.open(
            "POST", "/images/create", query=query, headers=headers, body=_EMPTY
        )
        async with await response.checked():
            # the engine answers 200 before it starts: errors are in the lines
            said = [json.loads(line) for line in (await response.read()).splitlines() if line.strip()]
        wrong = next((str(line["error"]) for line in said if "error" in line), "")
        image = str(said[-1].get("status", "")) if said else ""
        if wrong or not image.startswith("sha256:"):
            raise EngineError(f"the engine made no image for a copy: {wrong or image[:100]}")
        return image

    async def _unpack(self, helper: str, path: str, body: Checked) -> None:
        try:
            response = await self._engine.open(
                "PUT",
                f"/containers/{helper}/archive",
                query=[("path", path)],
                headers=[("content-type", "application/x-tar")],
                body=body,
                head_timeout_s=_HEAD_S,
            )
            async with await response.checked():
                await response.read(65536)
            await body.to_the_end()
        except (SourceError, EngineError) as exc:
            # the engine only knows that the body broke off; we broke it off, and know why
            if body.wrong is not None:
                raise DataError(str(body.wrong)) from exc
            raise

    async def _remove_container(self, container: str) -> None:
        await self._tidied(f"/containers/{container}", ("force", "1"))

    async def _remove_image(self, image: str) -> None:
        await self._tidied(f"/images/{image}", ("force", "1"))

    async def _tidied(self, path: str, *query: tuple[str, str]) -> None:
        try:
            await self._quietly("DELETE", path, query=query, fine=(404,))
        except EngineError as exc:
            logger.warning("%s is left, and removed later: %s", path[:32], exc)
            self._left[path] = query
            self.left.set()

    @contextlib.contextmanager
    def _unknown(self, path: str, *query: tuple[str, str]) -> Iterator[None]:
        """Whether a call made something is not known if its answer does not come: `recover` removes it."""
        try:
            yield
        except (EngineUnreachableError, asyncio.CancelledError):
            self._left[path] = query
            self.left.set()
            raise

    async def _quietly(
        self, method: str, path: str, *, fine: tuple[int, ...], query: Iterable[tuple[str, str]] = ()
    ) -> None:
        response = await self._engine.open(method, path, query=query)
        if response.status in fine:
            await response.close()
            return
        async with await response.checked():
            pass

    async def are_here(self) -> bool:
        """Whether the engine's folders are on this machine: looks for the folder of a volume with a random name."""
        if self._here is None:
            # checks the file system instead of the address, because a unix socket may belong to a proxy
            async with self.temporary("") as made:
                self._here = made.is_plain and await asyncio.to_thread(made.place.is_dir)
        return self._here

    # leftovers of a killed agent, or of a copy that lost its engine

    async def recover(self) -> None:
        """Starts containers that were stopped for a copy, and removes helpers. Raises EngineError; call it again then."""
        self.left.clear()
        for path, left in list(self._left.items()):  # a container before the volume that it mounts
            await self._quietly("DELETE", path, query=left, fine=(404,))
            self._left.pop(path, None)
        # Containers first: they are down, while helpers only take space. Not those that a copy of now has stopped.
        async with self._one_pause:
            wrong = await Pause(self._engine, self._journal).start_left()
        query = [("all", "1"), ("filters", json.dumps({"label": [LABEL_HELPER]}))]
        for container in await self._engine.call("GET", "/containers/json", query=query, read=list):
            if self._is_left((container.get("Labels") or {}).get(LABEL_HELPER)):
                await self._remove_container(container["Id"])
        for volume in await self._labelled(LABEL_HELPER):
            mark = volume.labels[LABEL_HELPER]
            if self._is_left(mark):  # saved data is needed by the pass that restores its container
                await asyncio.to_thread(places.undo_exchange, volume)
                await self.discard(volume.name)
        for mark, name in (await asyncio.to_thread(self._new)).items():
            if mark not in self._filled_now:
                await self._remove_new(mark, name)
        query = [("filters", json.dumps({"label": [LABEL_HELPER]}))]
        for image in await self._engine.call("GET", "/images/json", query=query, read=list):
            if self._is_left((image.get("Labels") or {}).get(LABEL_HELPER)):
                await self._remove_image(image["Id"])
        if wrong:
            raise EngineError(wrong[0])

    def _is_left(self, mark: object) -> bool:
        """Whether an earlier run of this agent made it; other agents may work on the same engine."""
        instance, _, run = str(mark or "").partition("/")
        return instance == self._instance() and run not in (self._run, _SAVED)


class Pause:
    """Containers that are stopped for a copy."""

    def __init__(self, engine: DockerStream, journal: Path) -> None:
        self._engine = engine
        self._journal = journal
        self.containers: list[str] = []
        self.is_waiting = False  # some could not be started, because the engine is away: `start_left` does it

    async def stop(self, containers: Iterable[str]) -> None:
        """Stops containers, each within its own stop timeout. Raises EngineError."""
        ids = [*containers]
        if not ids:
            return
        # written before the first stop, so that a killed agent leaves no container stopped for good
        await asyncio.to_thread(self._note, ids, ())
        self.containers = ids
        for container in ids:
            response = await self._engine.open(
                "POST", f"/containers/{container}/stop", head_timeout_s=_HEAD_S
            )
            if response.status in (304, 404):  # it has stopped or was removed meanwhile
                await response.close()
                continue
            async with await response.checked():
                pass

    async def start(self) -> list[str]:
        """Starts the containers again; returns an error for each that did not start. What an engine that went away has
        not started is no error: it stays in the journal.
        """
        ids, self.containers = self.containers, []
        wrong = await self._start_all(ids)
        away = [each for each, exc in wrong.items() if isinstance(exc, EngineUnreachableError)]
        self.is_waiting = self.is_waiting or bool(away)
        if ids:
            await asyncio.to_thread(self._note, away, ids)
        return [_not_started(each, exc) for each, exc in wrong.items() if each not in away]

    async def start_left(self) -> list[str]:
        """Starts containers that a killed agent had stopped. Those that do not start stay in the journal."""
        noted = await asyncio.to_thread(self._noted)
        wrong = await self._start_all(noted)
        # the journal stays while one of them is down, and the next try starts from it
        if noted:
            await asyncio.to_thread(self._note, [*wrong], noted)
        return [_not_started(*each) for each in wrong.items()]

    async def _start_all(self, containers: Sequence[str]) -> dict[str, UcidockdError]:
        """The errors of those that did not start, last first."""
        started = {container: await self._start(container) for container in reversed(containers)}
        return {container: exc for container, exc in started.items() if exc is not None}

    async def _start(self, container: str) -> UcidockdError | None:
        try:
            # started by us and not by the pass, which would leave a container with `restart no` stopped
            response = await self._engine.open(
                "POST", f"/containers/{container}/start", head_timeout_s=_HEAD_S
            )
            # running already, or removed meanwhile: neither is a failure of the copy
            if response.status in (304, 404):
                await response.close()
                return None
            async with await response.checked():
                return None
        except (EngineError, ConflictError) as exc:
            return exc

    def _note(self, added: Iterable[str], gone: Iterable[str]) -> None:
        """Keeps what is noted already: an engine that was away has not started it yet."""
        noted = self._noted()
        kept = [*dict.fromkeys((*(each for each in noted if each not in gone), *added))]
        if not kept:
            self._journal.unlink(missing_ok=True)
        elif kept != noted:
            self._journal.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            atomic_write(self._journal, json.dumps(kept).encode(), mode=0o600)

    def _noted(self) -> list[str]:
        try:
            return [str(each) for each in json.loads(self._journal.read_bytes())]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError) as exc:
            logger.warning("%s cannot be read: %s", self._journal, exc)
            return []


def _not_started(container: str, exc: UcidockdError) -> str:
    return f"container {container[:12]} did not start after a copy of its volume: {exc}"


class Checked:
    """An archive on its way into the engine, its members moved into `folder` unless that is "". If it is incomplete or
    damaged, the request is broken off before its end.
    """

    def __init__(self, body: AsyncIterable[bytes], folder: str = "") -> None:
        self._mover = TarMover(folder=folder) if folder else None
        self.reader = self._mover or TarReader()
        self.passed = 0  # bytes
        self.wrong: TarError | None = None
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._body:
                self.reader.feed(piece)
                self.passed += len(piece)
                if self._mover is None:
                    yield piece
                elif moved := self._mover.moved():  # of a part of a header nothing passes yet
                    yield moved
            # a cut-off archive ends without a connection error: only its end mark shows that it is complete
            self.reader.end()
        except TarError as exc:
            self.wrong = exc
            raise SourceError(str(exc)) from exc

    async def to_the_end(self) -> None:
        """Reads the bytes after the archive's end, for which the engine does not wait."""
        async for piece in self:
            del piece


def checked_path(path: str) -> str:
    """A path in a volume, without leading or trailing slashes. Raises DataError."""
    if len(path) > _NAME_LIMIT or "\0" in path or ".." in path.split("/"):
        raise DataError("path: expected a path in the volume, without `..`")
    return rooted(path)


def _names(answer: Any) -> dict[str, str]:
    return {str(c["Id"]): str((c.get("Names") or [c["Id"]])[0]).lstrip("/") for c in answer}


async def finished(work: Coroutine[Any, Any, None]) -> None:
    """Runs the work to its end, even if the caller is cancelled."""
    task = asyncio.ensure_future(work)
    try:
        # a client that disconnects must not interrupt the cleaning up
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
