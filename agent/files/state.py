# SPDX-License-Identifier: GPL-2.0-or-later
"""state.json: which objects on the engine are ours. The format is in `agent.wire.record_lines`.

A change is appended; only when the changes outgrow the records is the file rewritten, so that what a change costs
the flash does not grow with the number of records. When the agent ends, the changes are folded into the document, which
every version of us reads.

Environment values are in it as hashes only. A corrupt file is set aside as `state.json.bad`; without it nothing on
the engine counts as ours, so nothing is removed and `adopt` is asked for.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.errors import StorageError
from agent.files.atomic import atomic_write
from agent.model.observed import Record
from agent.plan.records import Claims, Tags, visible
from agent.wire.record_lines import change_line, document, read

logger = logging.getLogger(__name__)

# changes of so many bytes may follow the records, or as many as the records themselves have
_FOLD_BYTES = 64 * 1024


@dataclass(slots=True, eq=False)
class _Change:
    """A change that waits to be written, and what became of it."""

    make: Callable[[dict[str, Record]], dict[str, Record]]
    lasting: bool = True
    done: bool = False
    error: StorageError | KeyError | TypeError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """The file as we left it. Another one in its place, or other bytes at its end, are not appended to."""

    inode: int
    size: int
    folded: int  # bytes of the document at its begin

    def is_full(self, more: int) -> bool:
        return self.size - self.folded + more > max(_FOLD_BYTES, self.folded)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sorted:
    """The records of one engine in order, and what they were made of."""

    records: Mapping[str, Record]
    tags: Tags | None
    found: tuple[Record, ...]


class _OtherFileError(OSError):
    """What is at the path is not what we wrote."""


class StateFile:
    """The records by nonce, in memory and on disk. Safe to call from several threads.

    Changes that come while one is being written are written together after it: a disk's fsync takes long.
    Raises StorageError when there is a file that the disk does not give; one that is damaged is set aside.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()  # held by who writes
        self._waiting: deque[_Change] = deque()
        self._place: _Place | None = None  # None: the next change writes the whole file
        self._unsynced = False
        self.instance, self._records = self._load()
        self._sorted: _Sorted | None = None
        self._tags: Tags | None = None

    def records(self) -> tuple[Record, ...]:
        """The records of the engine that `stand_on` named, all before that, sorted by kind and section."""
        records, tags, known = self._records, self._tags, self._sorted
        if known is None or known.records is not records or known.tags is not tags:
            # kept with what it was made of: another thread may have changed that by now
            # Asked for several times in each pass, and changed seldom.
            found = tuple(sorted(_here(records, tags), key=lambda r: (r.kind, r.section, r.nonce)))
            known = self._sorted = _Sorted(records=records, tags=tags, found=found)
        return known.found

    def everywhere(self) -> tuple[Record, ...]:
        """The records of all engines."""
        return tuple(self._records.values())

    def stand_on(self, tags: Tags, claims: Claims, *, keep: bool) -> None:
        """From now on `records` are those of this engine, and new ones are its. Raises StorageError.

        Without `keep` the claims are believed and not written, by who may not write.
        """
        changed = {record.nonce: record for record in claims.changed}
        dropped = frozenset(claims.dropped)

        def make(old: dict[str, Record]) -> dict[str, Record]:
            return {nonce: record for nonce, record in (old | changed).items() if nonce not in dropped}

        # one-shot commands look while an agent runs: the file is that one's
        if keep:
            self._write(make)
        else:
            self._records = make(self._records)
        self._tags = tags

    def _stamped(self, record: Record) -> Record:
        """With the engine that it is on."""
        if record.engine or self._tags is None:
            return record
        return replace(record, engine=self._tags.of(record.kind))

    def get(self, nonce: str) -> Record | None:
        """The record of that nonce."""
        return self._records.get(nonce)

    def put(self, *records: Record, instead_of: Collection[str] = ()) -> None:
        """Adds or replaces records, and forgets those of the nonces `instead_of`: all or none.

        Raises StorageError when that cannot be written.
        """
        fresh = {record.nonce: self._stamped(record) for record in records}
        self._write(lambda old: {key: r for key, r in old.items() if key not in instead_of} | fresh)

    def change(self, nonce: str, *, lasting: bool = True, **changes: Any) -> Record:
        """Replaces fields of one record. Raises KeyError when it is gone.

        Not `lasting`: a power cut may take it back, as nothing waits for the disk.
        """
        made: list[Record] = []

        # In here the record is the one that the lock protects; the caller may hold an older one.
        def make(old: dict[str, Record]) -> dict[str, Record]:
            made.append(replace(old[nonce], **changes))
            return {**old, nonce: made[-1]}

        self._write(make, lasting=lasting)
        return made[-1]

    def drop(self, nonce: str, *, lasting: bool = True) -> None:
        """Forgets a record. `lasting`: see `change`."""
        self._write(lambda old: {key: record for key, record in old.items() if key != nonce}, lasting=lasting)

    def fold(self) -> None:
        """Writes the records without the changes that led to them, as version 0.1.0 reads them. Raises StorageError."""
        with self._lock:
            if self._place is not None and self._place.size > self._place.folded:
                try:
                    self._write_whole(self._records)
                except OSError as exc:
                    raise self._error(exc) from exc

    def _write(self, make: Callable[[dict[str, Record]], dict[str, Record]], *, lasting: bool = True) -> None:
        change = _Change(make, lasting)
        # appended before the lock is asked for: who has it takes all that wait, so one fsync serves many
        self._waiting.append(change)
        with self._lock:
            if not change.done:
                others = [self._waiting.popleft() for _ in range(len(self._waiting))]
                self._write_batch([change, *(other for other in others if other is not change)])
        if change.error is not None:
            raise change.error

    def _write_batch(self, batch: list[_Change]) -> None:
        """Writes once for all of them; if that fails, once for each, since less may fit. Holds the lock."""
        records = self._records
        for change in batch:
            change.error = None
            try:
                records = change.make(records)
            except (KeyError, TypeError) as exc:  # there is no such record, or field
                change.error = exc
        try:
            self._save(records, lasting=any(change.lasting for change in batch))
        except StorageError as exc:
            # a full disk may still have room for the smaller ones
            if len(batch) == 1:
                batch[0].error = exc
            else:
                for change in batch:
                    self._write_batch([change])
        for change in batch:
            change.done = True

    def _load(self) -> tuple[str, dict[str, Record]]:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return secrets.token_hex(6), {}
        except OSError as exc:
            # the disk, or no descriptor left: what is in it may be good, so it is not disowned
            raise StorageError(f"{self._path} cannot be read: {exc.strerror}") from exc
        try:
            found = read(data)
        except ValueError as exc:
            bad = self._bad()
            with contextlib.suppress(OSError):  # on a file system that is read-only it stays where it is
                self._path.replace(bad)
            logger.error(
                "%s is not readable (%s): kept as %s; what runs now is not ours until adopted",
                self._path,
                exc,
                bad,
            )
            return secrets.token_hex(6), {}
        if found.damaged:
            # later changes cannot be trusted where one before them is lost; what they made is not ours until adopted
            with contextlib.suppress(OSError):
                atomic_write(self._bad(), data, mode=0o600)
            logger.error(
                "%s is damaged: changes are lost and what they made is not ours until adopted; a copy is %s",
                self._path,
                self._bad(),
            )
        elif found.is_whole:
            self._place = _Place(inode=self._path.stat().st_ino, size=len(data), folded=found.folded)
        elif found.folded:
            logger.info("%s: the last change was cut short and does not count", self._path)
        return found.instance, found.records

    def _bad(self) -> Path:
        return self._path.with_name(self._path.name + ".bad")

    def _save(self, records: dict[str, Record], *, lasting: bool) -> None:
        """The disk first: what could not be written does not count in memory either."""
        # Empty where nothing changed: flash is not written for it.
        line = change_line(self._records, records)
        try:
            if line or (lasting and self._unsynced):
                self._to_disk(line, records, lasting=lasting)
        except OSError as exc:
            raise self._error(exc) from exc
        if line:
            self._records = records

    def _error(self, exc: OSError) -> StorageError:
        full = exc.errno in {errno.ENOSPC, errno.EDQUOT}
        return StorageError(f"{self._path} cannot be written: {exc.strerror}", full=full)

    def _to_disk(self, line: bytes, records: dict[str, Record], *, lasting: bool) -> None:
        place = self._place
        # A change is a line at the end; only when there are many, the whole is written: flash wears by the block.
        if place is not None and not place.is_full(len(line)):
            try:
                self._append(place, line, lasting=lasting)
            except (_OtherFileError, FileNotFoundError):
                # another process has put a file in its place, or removed it: the whole is written, and nothing is lost
                pass
            else:
                return
        self._write_whole(records)

    def _append(self, place: _Place, line: bytes, *, lasting: bool) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            seen = os.fstat(descriptor)
            # a restored backup, or another agent: what we would append belongs to other records
            if (seen.st_ino, seen.st_size) != (place.inode, place.size):
                raise _OtherFileError
            # of a file whose fsync failed a later one would lie: then a whole one is written
            self._place = None
            try:
                _write_all(descriptor, line)
            except OSError:
                # half a line at the end would make the next one unreadable too
                os.ftruncate(descriptor, place.size)
                self._place = place
                raise
            if lasting:
                try:
                    os.fsync(descriptor)
                except OSError:
                    with contextlib.suppress(OSError):  # else the next start may find what was refused
                        os.ftruncate(descriptor, place.size)
                    raise
        finally:
            os.close(descriptor)
        self._place = replace(place, size=place.size + len(line))
        self._unsynced = not lasting

    def _write_whole(self, records: Mapping[str, Record]) -> None:
        self._place = None
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        here = {record.nonce: record for record in _here(records, self._tags)}
        data = document(self.instance, here.values(), [r for n, r in records.items() if n not in here])
        atomic_write(self._path, data, mode=0o600)
        self._place = _Place(inode=self._path.stat().st_ino, size=len(data), folded=len(data))
        self._unsynced = False


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _here(records: Mapping[str, Record], tags: Tags | None) -> Iterable[Record]:
    return records.values() if tags is None else visible(records.values(), tags)
