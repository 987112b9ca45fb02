# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a backup stores its archives: in a folder on this machine, or in a command that reads each from its standard input.

The folder may be on a disk or share that stops answering. Each piece is therefore written by a separate thread with a
deadline, so that only the backup waits.
"""

from __future__ import annotations

import asyncio
import calendar
import contextlib
import functools
import hashlib
import os
import re
import signal
import stat
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, BinaryIO, TypeVar

from agent.errors import DataError, PathError
from agent.files.atomic import atomic_write, sync_directory
from agent.files.user_paths import PATHS, file_bytes, kind_of, mode_of, no_folder
from agent.model.secrets import redactor, secrets_in

Value = TypeVar("Value")

STALL_S = 600.0  # for one piece: a disk that spins up, a command that uploads
_PIECE = 256 * 1024
_OUTPUT_LIMIT = 2000  # characters of a command's last output
_OUTPUT_S = 1.0  # for output still in transit when a command has ended
_STAMP = r"-(\d{8}T\d{6}Z)\.tar"
_PARTIAL = ".partial"


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """One archive. `path` is None if a command took it. `at`: the start of the backup in unix seconds, for an archive
    in a folder.
    """

    volume: str
    path: Path | None
    size: int
    sha256: str = ""
    at: float = 0.0


class FolderTarget:
    """A folder. It is never created: if its disk is not mounted, that would fill the router's flash."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    async def require(self) -> None:
        """Raises DataError if the folder does not exist, PathError if it does not answer."""
        # never created here: if its disk is not mounted, backups would fill the router's flash
        if wrong := await asyncio.to_thread(PATHS.ask, no_folder, str(self._folder)):
            raise DataError(wrong)
        if await asyncio.to_thread(PATHS.ask, mode_of, str(self._folder)) is None:
            raise DataError(f"the folder {self._folder} is not there; is its disk mounted?")

    async def take(
        self, volume: str, file: str, pieces: AsyncIterator[bytes], names: Mapping[str, str]
    ) -> Archive:
        """Writes an archive; it appears in the folder after it was read back. Raises DataError, and what
        the pieces raise.
        """
        del names
        path = self._folder / file
        # an incomplete archive must not look like a backup
        partial = path.with_name(f".{file}{_PARTIAL}")
        with _Files() as files:
            try:
                written = await files.do(_created, partial)
                digest, size = hashlib.sha256(), 0
                try:
                    async for piece in pieces:
                        await files.do(written.write, piece)
                        digest.update(piece)
                        size += len(piece)
                    await files.do(_synced, written)
                finally:
                    await files.do(written.close)
                found = await _digest(files, partial)
                if found != digest.hexdigest():
                    raise DataError(f"{path} does not read back as it was written: its disk is failing")
                await files.do(_in_place, partial, path, found)
            except BaseException:
                with contextlib.suppress(OSError, DataError):
                    await files.do(lambda: partial.unlink(missing_ok=True))
                raise
        return Archive(volume=volume, path=path, size=size, sha256=found)

    async def archives(self, backup: str, volumes: Iterable[str]) -> list[Archive]:
        """The archives of a backup, newest first. Raises DataError, PathError."""
        await self.require()
        with _Files() as files:
            return await files.do(self._archives, backup, tuple(volumes))

    def _archives(self, backup: str, volumes: tuple[str, ...]) -> list[Archive]:
        found = []
        for entry in os.scandir(self._folder):
            for volume in volumes:
                if name := re.fullmatch(re.escape(f"{backup}-{volume}") + _STAMP, entry.name):
                    path, state = Path(entry.path), entry.stat(follow_symlinks=False)
                    if not stat.S_ISREG(state.st_mode):
                        continue  # it would count as one of the archives to keep
                    digest = ""
                    with contextlib.suppress(PathError):  # reported when that archive is to be restored
                        digest = _stated(path)
                    found.append(
                        Archive(
                            volume=volume, path=path, size=state.st_size, sha256=digest, at=_begun(name[1])
                        )
                    )
        return sorted(found, key=lambda each: str(each.path)[-20:], reverse=True)

    async def newest(self, backup: str, volume: str) -> Path:
        """The newest archive of a volume. Raises DataError if there is none."""
        found = await self.archives(backup, [volume])
        if not found or found[0].path is None:
            raise DataError(f"{self._folder} holds no archive of volume {volume}")
        return found[0].path

    async def keep_only(self, backup: str, volumes: Iterable[str], count: int) -> None:
        """Removes all but the newest `count` archives of each volume."""
        # per volume: otherwise archives of a volume that was added later would push out the only one of another
        for volume in volumes:
            old = (await self.archives(backup, [volume]))[count:]
            with _Files() as files:
                for each in old:
                    await files.do(_remove, each.path)

    async def tidy(self, backup: str) -> None:
        """Removes archives that a killed agent left unfinished; call it while none is being made."""

        def remove_partial() -> None:
            for left in self._folder.glob(f".{backup}-*{_PARTIAL}"):
                left.unlink(missing_ok=True)

        with _Files() as files:
            await files.do(remove_partial)

    async def verify(self, path: Path) -> int:
        """Compares an archive with the sha256 beside it, if there is one; returns the archive's size in bytes.

        Raises DataError, PathError.
        """
        # checked before opening: opening a FIFO waits for a writer
        mode = await asyncio.to_thread(PATHS.ask, mode_of, str(path))
        if mode is None:
            raise DataError(f"there is no file {path}")
        if not stat.S_ISREG(mode):
            raise DataError(f"{path} is {kind_of(mode)}, not an archive")
        with _Files() as files:
            stated = await files.do(_stated, path)
            if stated and stated != await _digest(files, path):
                raise DataError(f"{path} is damaged: its sha256 has changed since it was made")
            return (await files.do(path.stat)).st_size

    async def read(self, path: Path) -> AsyncIterator[bytes]:
        """An archive in pieces. Raises DataError."""
        with _Files() as files:
            file: BinaryIO = await files.do(lambda: path.open("rb"))
            try:
                while piece := await files.do(file.read, _PIECE):
                    yield piece
            finally:
                await files.do(file.close)


class CommandTarget:
    """A shell command that is run for each archive. Its output is reported if it fails."""

    def __init__(self, command: str, *, stall_s: float = STALL_S) -> None:
        self._command = command
        self._stall_s = stall_s

    async def require(self) -> None:
        """Nothing to check: the shell reports a command that does not exist."""

    async def take(
        self, volume: str, file: str, pieces: AsyncIterator[bytes], names: Mapping[str, str]
    ) -> Archive:
        """Feeds the command. Raises DataError if it exits with a code other than 0, or accepts nothing for too long."""
        del file
        said = _Output()
        # with asyncio's own pipe `wait` would return only after processes that the command leaves behind have closed it too
        try:
            process = await asyncio.create_subprocess_exec(
                *("/bin/sh", "-c", self._command),
                stdin=asyncio.subprocess.PIPE,
                stdout=said.into,
                stderr=said.into,
                env={**os.environ, **names},
                start_new_session=True,
            )
        except OSError as exc:
            said.close()
            raise DataError(f"the command cannot be run: {exc.strerror}") from exc
        reading = asyncio.create_task(said.read(), name="backup-output")
        digest, size = hashlib.sha256(), 0
        try:
            if process.stdin is None:
                raise DataError("the command has no input")
            with contextlib.suppress(ConnectionError):  # it has ended: its exit code tells why
                async for piece in pieces:
                    digest.update(piece)
                    size += len(piece)
                    process.stdin.write(piece)
                    # only as fast as the command reads, so that nothing of a volume is buffered in our memory
                    await asyncio.wait_for(process.stdin.drain(), self._stall_s)
                process.stdin.close()
                await asyncio.wait_for(process.stdin.wait_closed(), self._stall_s)
            code = await asyncio.wait_for(process.wait(), self._stall_s)
            await asyncio.wait({reading}, timeout=_OUTPUT_S)
        except TimeoutError as exc:
            raise DataError(f"the command did nothing for {self._stall_s:g} s") from exc
        finally:
            if process.returncode is None:  # kills all its children too, because it leads its own session
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            reading.cancel()
        words = redactor(secrets_in((self._command,)))(said.text.strip())
        if code != 0:
            raise DataError(f"the command ended with {code}" + (f": {words}" if words else ""))
        return Archive(volume=volume, path=None, size=size, sha256=digest.hexdigest())


class _Output:
    """Collects the end of a command's output. Processes that it leaves behind may keep the output open for ever."""

    def __init__(self) -> None:
        self._end, self.into = os.pipe()
        self.text = ""

    def close(self) -> None:
        """Closes the pipe if no process was started."""
        os.close(self.into)
        os.close(self._end)

    async def read(self) -> None:
        """Reads until all writers have closed the pipe, or the task is cancelled."""
        # close our copy of the writing end, or the reader would never see the end of the output
        os.close(self.into)
        stream = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(self._end, "rb", 0)
        )
        try:
            # keep only the end, where programs report why they failed
            while piece := await stream.read(4096):
                self.text = (self.text + piece.decode("utf-8", "replace"))[-_OUTPUT_LIMIT:]
        finally:
            transport.close()


class _Files:
    """A thread for the files of one archive. A thread that hangs is abandoned, and does not keep the agent from ending."""

    def __enter__(self) -> _Files:
        self._hangs = False
        self._asked: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        threading.Thread(target=_serve, args=(self._asked,), name="backup", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._asked.put(None)

    async def do(self, work: Callable[..., Value], *args: Any) -> Value:
        found: Future[Value] = Future()
        self._asked.put((found, functools.partial(work, *args)))
        try:
            # a share that does not answer would hold up each call: after the first one none is waited for
            async with asyncio.timeout(0 if self._hangs else STALL_S):
                return await asyncio.wrap_future(found)
        except TimeoutError as exc:
            self._hangs = True
            raise DataError(f"the folder of the backup has not answered for {STALL_S:g} s") from exc
        except OSError as exc:
            raise DataError(f"{exc.filename or 'the archive'}: {exc.strerror or exc}") from exc


def _serve(asked: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]) -> None:
    while (item := asked.get()) is not None:
        found, work = item
        if found.set_running_or_notify_cancel():
            try:
                found.set_result(work())
            except BaseException as exc:  # noqa: BLE001 - the caller gets the error
                found.set_exception(exc)


def _created(path: Path) -> BinaryIO:
    """Creates a file that only root can read, because a volume may hold passwords."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def _synced(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


async def _digest(files: _Files, path: Path) -> str:
    """The sha256 of a file, read from the disk and not from memory as far as the kernel allows."""
    digest = hashlib.sha256()

    def opened_cold() -> BinaryIO:
        file = path.open("rb")
        # otherwise a disk that lost the data would pass, because the pages just written are still in memory
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return file

    file: BinaryIO = await files.do(opened_cold)
    try:
        while piece := await files.do(file.read, _PIECE):
            digest.update(piece)
    finally:
        await files.do(file.close)
    return digest.hexdigest()


def _sum_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _in_place(partial: Path, path: Path, digest: str) -> None:
    atomic_write(_sum_file(path), f"{digest}  {path.name}\n".encode(), mode=0o600)
    partial.replace(path)
    sync_directory(path.parent)


def _begun(stamp: str) -> float:
    try:
        return calendar.timegm(time.strptime(stamp, "%Y%m%dT%H%M%SZ"))
    except ValueError:  # digits that are not a time: not a name of ours
        return 0.0


def _stated(path: Path) -> str:
    """The sha256 stored beside an archive, "" if there is none. Raises PathError if it is not a regular file."""
    path = _sum_file(path)
    try:
        if mode_of(str(path)) is None:
            return ""
        return file_bytes(str(path))[:64].decode("ascii", "replace").lower()
    except OSError as exc:
        raise PathError(f"{path}: {exc.strerror}") from exc


def _remove(path: Path | None) -> None:
    if path is not None:
        path.unlink(missing_ok=True)
        _sum_file(path).unlink(missing_ok=True)
