# SPDX-License-Identifier: GPL-2.0-or-later
"""Volumes as tar archives, out and in, as they stream by: nothing is held in memory, and nothing of a volume is run.

The engine has no call for a volume's files, but its calls for a container's archive (Engine API, /containers/{id}/archive)
work on a container that was created and never started. So a helper is made: a container of an image without any file, with
the volume mounted. That works with each volume driver and with an engine on another machine, and it is the engine that
follows links, never we: what a container left in its volume cannot lead us anywhere. Helpers carry a label and go at once;
those of an agent that was killed go when the next one starts.

Files are touched directly only where that is safe: see `agent.data.places`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from agent.data import places
from agent.data.places import Listing, Volume
from agent.engine.stream import DockerStream, EngineResponse, SourceError
from agent.errors import ConflictError, DataError, EngineError
from agent.files.atomic import atomic_write
from agent.model.identity import LABEL_COPY_OF, LABEL_HELPER, LABEL_OWNER, LABEL_SAVED, OWNER
from agent.wire.tar import Member, TarError, TarReader, folder_archive, rooted

logger = logging.getLogger(__name__)

_AT = "volume"  # where a helper has it
_HEAD_S = 600.0  # a slow disk, a large folder, a container that stops slowly
_EMPTY = bytes(1024)  # a tar archive without members
_SAVED = "saved"  # in the place of a run, of what outlives it
_MOUNTING = frozenset({"running", "restarting", "paused"})
_NAME_LIMIT = 4096


class Manual(Protocol):
    """Who keeps containers as a copy needs them. `agent.runtime.loop` implements it."""

    async def begin_copy(self, volumes: Iterable[str]) -> frozenset[str]:
        """Leaves the sections that mount one of them alone from now on, once nothing is being done to them.

        For `end_copy`. Raises ConflictError where that takes too long.
        """
        ...

    async def end_copy(self, keys: frozenset[str]) -> None:
        """They are the reconciler's again."""

    def managed(self, containers: Iterable[str]) -> frozenset[str]:
        """Those ids that are ours."""
        ...


class Volumes:
    """Belongs to one event loop. `instance`: of this agent. `journal`: a file that says which containers are stopped for
    a copy, in the run directory: it outlives the agent, and with a power cut they start anyway."""

    def __init__(
        self, engine: DockerStream, manual: Manual, *, instance: Callable[[], str], journal: Path
    ) -> None:
        self._engine = engine
        self._manual = manual
        self._instance = instance
        self._journal = journal
        self._run = secrets.token_hex(8)
        self._one_pause = asyncio.Lock()
        self._one_image = asyncio.Lock()
        self._helpers = 0
        self._image = ""  # that helpers are made of
        self._here: bool | None = None

    # archives

    async def inspect(self, name: str) -> Volume:
        """Raises EngineError: 404 for no such volume."""
        return await self._engine.call("GET", f"/volumes/{name}", read=places.volume_of)

    async def open(self, name: str, path: str = "", *, stop: bool = False) -> EngineResponse:
        """A file or folder of a volume as tar, "" for all of it. Closing the response ends the copy.

        `stop`: the managed containers that mount it are stopped until then. Raises EngineError, DataError.
        """
        inside = checked_path(path)
        return await self._open(name, f"/{_AT}/{inside}" if inside else f"/{_AT}/.", stop=stop)

    async def _open(self, name: str, query: str, *, stop: bool = False) -> EngineResponse:
        # asked for first: the engine makes each volume that a new container mounts, also one that nobody has
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
        except BaseException:
            await finished(ending.aclose())
            raise

    async def put(
        self, name: str, body: AsyncIterable[bytes], path: str = "", *, stop: bool = False
    ) -> TarReader:
        """Unpacks a plain tar into a folder of a volume, over what is there.

        Of an archive that is damaged, what comes before the damage may be there then: `agent.data.restore` is for what must
        be whole. Raises EngineError, DataError.
        """
        inside = checked_path(path)
        await self.inspect(name)
        async with contextlib.AsyncExitStack() as stack:
            if stop:
                await stack.enter_async_context(self.stopped([name]))
            helper = await stack.enter_async_context(self._helper(name, read_only=False))
            checked = Checked(body)
            await self._unpack(helper, f"/{_AT}/{inside}", checked)
            if checked.root is not None and not inside:
                # mode and owner of the root are passed over by the engine where it unpacks into that folder
                await self._unpack(helper, "/", folder_archive(checked.root, f"{_AT}/"))
            return checked.reader

    async def list(self, name: str, path: str = "") -> Listing:
        """The entries of a folder. Raises EngineError: 404 for no such path; DataError for what is not a folder."""
        inside = checked_path(path)
        volume = await self.inspect(name)
        if volume.is_plain and await self.are_here():
            return await asyncio.to_thread(places.listing, volume.place, inside)
        return await self._list_by_archive(name, inside)

    async def _list_by_archive(self, name: str, inside: str) -> Listing:
        """All of the folder's archive goes through here, of which only the first headers are kept."""
        found: dict[str, Member] = {}
        # Reading on to the end is the price: the connection could not be used again, and the engine would log an
        # error.
        reader = TarReader()
        async with await self._open(name, f"/{_AT}/{inside}/.") as response:
            async for piece in response.chunks():
                try:
                    members = reader.feed(piece)
                except TarError as exc:
                    raise EngineError(f"the engine sent a damaged archive: {exc}") from exc
                for member in members:
                    # One more than is shown tells that there is more.
                    entry = rooted(member.name)
                    if entry and "/" not in entry and len(found) <= places.LISTED:
                        found[entry] = member
        return places.sorted_listing(inside, found)

    async def create(self, name: str, labels: Mapping[str, str] | None = None) -> Volume:
        """A new volume of the local driver. Raises ConflictError where there is one, EngineError."""
        try:
            # Asked first, as creating one that is there succeeds, and gives the existing one with all its files.
            await self.inspect(name)
        except EngineError as exc:
            if exc.status != 404:
                raise
        else:
            raise ConflictError(f"a volume named {name} exists already")
        body = {"Name": name, "Driver": "local", "Labels": dict(labels or {})}
        return await self._engine.call("POST", "/volumes/create", body=body, read=places.volume_of)

    async def remove(self, name: str) -> None:
        """Raises EngineError; fine where there is no such volume."""
        await self._quietly("DELETE", f"/volumes/{name}", fine=(404,))

    async def discard(self, name: str) -> None:
        """Removes a volume that was made here; where that fails, the next agent does it."""
        try:
            await self.remove(name)
        except EngineError as exc:
            logger.warning("volume %s is left: %s", name, exc)

    @asynccontextmanager
    async def temporary(self, copy_of: str) -> AsyncIterator[Volume]:
        """A volume that goes at the end, or when the next agent starts."""
        labels = {LABEL_OWNER: OWNER, LABEL_HELPER: self._mark(), LABEL_COPY_OF: copy_of}
        made = await self.create(f"ucidockd-{secrets.token_hex(6)}", labels)
        try:
            yield made
        finally:
            await finished(self.discard(made.name))

    async def create_saved(self, copy_of: str, key: str) -> Volume:
        """A volume that stays, for `saved`."""
        labels = {LABEL_OWNER: OWNER, LABEL_HELPER: f"{self._instance()}/{_SAVED}"}
        labels |= {LABEL_COPY_OF: copy_of, LABEL_SAVED: key}
        return await self.create(f"ucidockd-saved-{secrets.token_hex(6)}", labels)

    async def saved(self, key: str) -> tuple[Volume, ...]:
        """What this agent saved under a key."""
        return tuple(each for each in await self.all_saved() if each.labels.get(LABEL_SAVED) == key)

    async def all_saved(self) -> tuple[Volume, ...]:
        """What this agent saved."""
        return await self._labelled(f"{LABEL_HELPER}={self._instance()}/{_SAVED}")

    async def _labelled(self, label: str) -> tuple[Volume, ...]:
        return await self._engine.call(
            "GET",
            "/volumes",
            query=[("filters", json.dumps({"label": [label]}))],
            read=lambda body: tuple(map(places.volume_of, body.get("Volumes") or ())),
        )

    # containers that wait for a copy

    @asynccontextmanager
    async def stopped(self, volumes: Iterable[str], *, all_of_them: bool = False) -> AsyncIterator[Pause]:
        """The managed containers that mount one of the volumes are stopped while the block runs, and start again after it,
        also when the agent is killed meanwhile. `all_of_them`: no other container may use it.

        Raises ConflictError, EngineError.
        """
        names = frozenset(volumes)
        async with self._one_pause:
            # passes are told first: they would take a container that was stopped here for drift, and start it
            keys = await self._manual.begin_copy(names)
            pause = Pause(self._engine, self._journal)
            try:
                mounting = await self.mounting(names)
                managed = self._manual.managed(mounting)
                # Read by others while it is copied is bearable, exchanged under them is not: that is for the caller to
                # say.
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
        finally:
            await self._manual.end_copy(keys)

    async def mounting(self, volumes: Iterable[str]) -> dict[str, str]:
        """Id -> name of the containers that have one of the volumes mounted now."""
        found: dict[str, str] = {}
        for volume in sorted(volumes):
            query = [("filters", json.dumps({"volume": [volume], "status": sorted(_MOUNTING)}))]
            found |= await self._engine.call("GET", "/containers/json", query=query, read=_names)
        return found

    # helpers

    def _mark(self) -> str:
        return f"{self._instance()}/{self._run}"

    @asynccontextmanager
    async def _helper(self, volume: str, *, read_only: bool) -> AsyncIterator[str]:
        """The id of a container that has the volume at `/volume`."""
        async with self._helper_image() as image:
            # never started, so it needs no program: the engine mounts the volume for each archive that is asked for
            mount = {
                "Type": "volume",
                "Source": volume,
                "Target": f"/{_AT}",
                "ReadOnly": read_only,
                "VolumeOptions": {"NoCopy": True},  # else files of the image go into an empty volume
            }
            body = {
                "Image": image,
                "Cmd": ["-"],
                "Labels": {LABEL_OWNER: OWNER, LABEL_HELPER: self._mark()},
                "HostConfig": {"NetworkMode": "none", "LogConfig": {"Type": "none"}, "Mounts": [mount]},
            }
            name = f"ucidockd-copies-{secrets.token_hex(6)}"
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
        # shared by all copies under way, and gone with the last
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
        """An image without any file (POST /images/create with `fromSrc=-`, as `docker import`)."""
        # An image of our own: pulling one would need a registry, and a router may have no internet.
        query = [("fromSrc", "-"), ("changes", f"LABEL {LABEL_HELPER}={self._mark()}")]
        headers = [("content-type", "application/x-tar")]
        response = await self._engine.open(
            "POST", "/images/create", query=query, headers=headers, body=_EMPTY
        )
        async with await response.checked():
            # Answered with 200 before the work: what failed is in the lines.
            said = [json.loads(line) for line in (await response.read()).splitlines() if line.strip()]
        wrong = next((str(line["error"]) for line in said if "error" in line), "")
        image = str(said[-1].get("status", "")) if said else ""
        if wrong or not image.startswith("sha256:"):
            raise EngineError(f"the engine made no image for a copy: {wrong or image[:100]}")
        return image

    async def _unpack(self, helper: str, path: str, body: bytes | Checked) -> None:
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
            if isinstance(body, Checked):
                await body.to_the_end()
        except (SourceError, EngineError) as exc:
            # the engine only knows that the body broke off; we broke it off, and know why
            if isinstance(body, Checked) and body.wrong is not None:
                raise DataError(str(body.wrong)) from exc
            raise

    async def _remove_container(self, container: str) -> None:
        await self._tidied(f"/containers/{container}", (("force", "1"),))

    async def _remove_image(self, image: str) -> None:
        await self._tidied(f"/images/{image}", (("force", "1"),))

    async def _tidied(self, path: str, query: Iterable[tuple[str, str]]) -> None:
        try:
            await self._quietly("DELETE", path, query=query, fine=(404,))
        except EngineError as exc:  # the next agent removes it
            logger.warning("%s is left: %s", path[:32], exc)

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
        """Whether the engine's folders are this machine's: a volume of a random name is looked for."""
        if self._here is None:
            # Asked of the file system and not of the address: an engine on a unix socket may be a proxy's.
            async with self.temporary("") as made:
                self._here = made.is_plain and await asyncio.to_thread(made.place.is_dir)
        return self._here

    # what a killed agent left

    async def recover(self) -> None:
        """Starts what was stopped for a copy, and removes what copies were made with. Raises EngineError, to be called
        again.
        """
        # Containers first: they are down, while helpers only take space.
        wrong = await Pause(self._engine, self._journal).start_left()
        query = [("all", "1"), ("filters", json.dumps({"label": [LABEL_HELPER]}))]
        for container in await self._engine.call("GET", "/containers/json", query=query, read=list):
            if self._is_left((container.get("Labels") or {}).get(LABEL_HELPER)):
                await self._remove_container(container["Id"])
        for volume in await self._labelled(LABEL_HELPER):
            mark = volume.labels[LABEL_HELPER]
            if self._is_left(mark):  # what is saved is for the pass that brings its container back
                await asyncio.to_thread(places.put_right, volume)
                await self.discard(volume.name)
        query = [("filters", json.dumps({"label": [LABEL_HELPER]}))]
        for image in await self._engine.call("GET", "/images/json", query=query, read=list):
            if self._is_left((image.get("Labels") or {}).get(LABEL_HELPER)):
                await self._remove_image(image["Id"])
        if wrong:
            raise EngineError(wrong[0])

    def _is_left(self, mark: object) -> bool:
        """Made by this agent in an earlier life; others may be at work on the same engine."""
        instance, _, run = str(mark or "").partition("/")
        return instance == self._instance() and run not in (self._run, _SAVED)


class Pause:
    """Containers that are stopped for a copy."""

    def __init__(self, engine: DockerStream, journal: Path) -> None:
        self._engine = engine
        self._journal = journal
        self.containers: list[str] = []

    async def stop(self, containers: Iterable[str]) -> None:
        """Each in the time that it has for it. Raises EngineError."""
        ids = [*containers]
        if not ids:
            return
        # noted before the first stop: an agent that is killed leaves none down for good
        await asyncio.to_thread(self._note, ids)
        self.containers = ids
        for container in ids:
            response = await self._engine.open(
                "POST", f"/containers/{container}/stop", head_timeout_s=_HEAD_S
            )
            if response.status in (304, 404):  # it has stopped, or was removed, meanwhile
                await response.close()
                continue
            async with await response.checked():
                pass

    async def start(self) -> list[str]:
        """Starts them again; why one did not start."""
        ids, self.containers = self.containers, []
        wrong = {container: await self._start(container) for container in reversed(ids)}
        if ids:
            await asyncio.to_thread(self._journal.unlink, missing_ok=True)
        return [why for why in wrong.values() if why]

    async def start_left(self) -> list[str]:
        """Starts those that an agent which was killed has stopped; those that do not start stay noted."""
        noted = await asyncio.to_thread(self._noted)
        wrong = {container: why for container in reversed(noted) if (why := await self._start(container))}
        if wrong:
            await asyncio.to_thread(self._note, [*wrong])
        # The journal stays as long as one of them is down, and the next try begins with it.
        elif noted:
            await asyncio.to_thread(self._journal.unlink, missing_ok=True)
        return [*wrong.values()]

    async def _start(self, container: str) -> str:
        try:
            # Started by us and not left to the pass: a container with `restart no` would stay down.
            response = await self._engine.open(
                "POST", f"/containers/{container}/start", head_timeout_s=_HEAD_S
            )
            # Running already, or removed meanwhile: neither is a failure of the copy.
            if response.status in (304, 404):
                await response.close()
                return ""
            async with await response.checked():
                return ""
        except (EngineError, ConflictError) as exc:
            return f"container {container[:12]} did not start after a copy of its volume: {exc}"

    def _note(self, ids: list[str]) -> None:
        self._journal.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        atomic_write(self._journal, json.dumps(ids).encode(), mode=0o600)

    def _noted(self) -> list[str]:
        try:
            return [str(each) for each in json.loads(self._journal.read_bytes())]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError) as exc:
            logger.warning("%s cannot be read: %s", self._journal, exc)
            return []


class Checked:
    """An archive on its way into the engine. One that is not whole never ends for the engine: the request breaks off."""

    def __init__(self, body: AsyncIterable[bytes]) -> None:
        self.reader = TarReader()
        self.root: Member | None = None
        self.wrong: TarError | None = None
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._body:
                for member in self.reader.feed(piece):
                    if member.is_folder and not rooted(member.name):
                        # The root's own entry holds the owner and mode of the whole volume.
                        self.root = member
                yield piece
            # An archive that is cut off ends without an error of the connection: only its own end mark tells.
            self.reader.end()
        except TarError as exc:
            self.wrong = exc
            raise SourceError(str(exc)) from exc

    async def to_the_end(self) -> None:
        """Reads what comes after the archive's end, which the engine does not wait for."""
        async for piece in self:
            del piece


def checked_path(path: str) -> str:
    """A path in a volume, without slashes at its ends. Raises DataError."""
    if len(path) > _NAME_LIMIT or "\0" in path or ".." in path.split("/"):
        raise DataError("path: expected a path in the volume, without `..`")
    return rooted(path)


def _names(answer: Any) -> dict[str, str]:
    return {str(c["Id"]): str((c.get("Names") or [c["Id"]])[0]).lstrip("/") for c in answer}


async def finished(work: Coroutine[Any, Any, None]) -> None:
    """Carries it out to its end, even where whoever waits for it is cancelled."""
    task = asyncio.ensure_future(work)
    try:
        # Tidying up must not be cut short by a client that goes away in the middle of it.
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
