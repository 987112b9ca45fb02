# SPDX-License-Identifier: GPL-2.0-or-later
"""state.json: which objects on the engine are ours. `agent.wire.record_lines` defines the format.

A change is appended. The file is rewritten only when the changes outgrow the records, so the wear on the flash per
change does not grow with the number of records. When the agent ends, it folds the changes into the document, which
every version of ucidockd can read.

Environment values are stored only as hashes. A corrupt file is renamed to `state.json.bad`. Without records nothing
on the engine counts as ours, so nothing is removed and users have to set `adopt`.

The history holds the settings that each container section has had, as UCI text: the last applied ones, and those before.
It has one file per section, written only when different settings are applied. The file contains what the section
contains, including passwords, so only root can read it (0600). It is deleted with the section and its container.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import secrets
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.errors import StorageError
from agent.files.atomic import atomic_write
from agent.model.identity import Key
from agent.model.observed import Record
from agent.model.resources import Desired
from agent.plan.records import Claims, Tags, visible
from agent.wire.record_lines import change_line, document, read

logger = logging.getLogger(__name__)

# bytes of changes that may follow the records; or as many as the records themselves take
_FOLD_BYTES = 64 * 1024


@dataclass(slots=True, eq=False)
class _PendingChange:
    """A change that waits to be written, and its result."""

    make: Callable[[dict[str, Record]], dict[str, Record]]
    lasting: bool = True
    done: bool = False
    error: StorageError | KeyError | TypeError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _WrittenFile:
    """The file as we wrote it last. If it was replaced or has another size, nothing is appended to it."""

    inode: int
    size: int
    folded: int  # size of the document at its start, in bytes

    def is_full(self, more: int) -> bool:
        return self.size - self.folded + more > max(_FOLD_BYTES, self.folded)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sorted:
    """The records of one engine in order, and the values that they were computed from."""

    records: Mapping[str, Record]
    tags: Tags | None
    found: tuple[Record, ...]


class _OtherFileError(OSError):
    """The file is not the one that we wrote."""


class StateFile:
    """The records by nonce, in memory and on disk. Thread-safe.

    Changes that arrive during a write are written together after it, because fsync takes long. Raises StorageError if
    the file exists but cannot be read; a damaged file is renamed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()  # held by the writer
        self._waiting: deque[_PendingChange] = deque()
        self._place: _WrittenFile | None = None  # None: the next change writes the whole file
        self._unsynced = False  # the last change is written and may not be on the disk
        self.instance, self._records = self._load()
        self._sorted: _Sorted | None = None  # see `records`
        self._tags: Tags | None = None

    def records(self) -> tuple[Record, ...]:
        """The records of the engine set by `select_engine` (before that, all), sorted by kind and section."""
        records, tags, known = self._records, self._tags, self._sorted
        if known is None or known.records is not records or known.tags is not tags:
            # Cached, because passes ask for it several times and it changes rarely. The cache is compared with its
            # sources, which another thread may have changed.
            found = tuple(sorted(_here(records, tags), key=lambda r: (r.kind, r.section, r.nonce)))
            known = self._sorted = _Sorted(records=records, tags=tags, found=found)
        return known.found

    def missed(self) -> tuple[Record, ...]:
        """The records of the same engine whose object was missed, the oldest first; `records` leaves them out."""
        tags = self._tags
        found = [r for r in self._records.values() if r.missed_at is not None]
        mine = (r for r in found if tags is None or tags.include(r))
        return tuple(sorted(mine, key=lambda r: (r.missed_at, r.nonce)))

    def everywhere(self) -> tuple[Record, ...]:
        """The records of all engines, also those whose object was missed."""
        return tuple(self._records.values())

    def select_engine(self, tags: Tags, claims: Claims, *, keep: bool) -> None:
        """Sets the engine: `records` returns its records, and new records belong to it. Raises StorageError.

        Without `keep` the claims are applied in memory only, for callers that must not write.
        """
        changed = {record.nonce: record for record in claims.changed}
        dropped = frozenset(claims.dropped)

        def make(old: dict[str, Record]) -> dict[str, Record]:
            return {nonce: record for nonce, record in (old | changed).items() if nonce not in dropped}

        # one-shot commands also run beside an agent, to which the file belongs
        if keep:
            self._write(make)
        else:
            self._records = make(self._records)
        self._tags = tags

    def _stamped(self, record: Record) -> Record:
        """The record, tagged with the current engine."""
        if record.engine or self._tags is None:
            return record
        return replace(record, engine=self._tags.of(record.kind))

    def get(self, nonce: str) -> Record | None:
        """The record with that nonce."""
        return self._records.get(nonce)

    def put(self, *records: Record, instead_of: Collection[str] = ()) -> None:
        """Adds or replaces records, and drops those with the nonces in `instead_of`: all or none.

        Raises StorageError if they cannot be written.
        """
        fresh = {record.nonce: self._stamped(record) for record in records}
        self._write(lambda old: {key: r for key, r in old.items() if key not in instead_of} | fresh)

    def change(self, nonce: str, *, lasting: bool = True, **changes: Any) -> Record:
        """Replaces fields of one record. Raises KeyError if it no longer exists.

        Without `lasting` a power failure may undo it, because it does not wait for the disk.
        """
        made: list[Record] = []

        # use the record under the lock: the caller may hold an older one
        def make(old: dict[str, Record]) -> dict[str, Record]:
            made.append(replace(old[nonce], **changes))
            return {**old, nonce: made[-1]}

        self._write(make, lasting=lasting)
        return made[-1]

    def drop(self, nonce: str, *, lasting: bool = True) -> None:
        """Drops a record. `lasting`: see `change`."""
        self._write(lambda old: {key: record for key, record in old.items() if key != nonce}, lasting=lasting)

    def fold(self) -> None:
        """Rewrites the file without change lines, so that version 0.1.0 can read it. Raises StorageError."""
        with self._lock:
            if self._place is not None and self._place.size > self._place.folded:
                try:
                    self._write_whole(self._records)
                except OSError as exc:
                    raise self._error(exc) from exc

    def _write(self, make: Callable[[dict[str, Record]], dict[str, Record]], *, lasting: bool = True) -> None:
        change = _PendingChange(make, lasting)
        # queued before taking the lock: the holder writes all waiting changes, so one fsync serves many
        self._waiting.append(change)
        with self._lock:
            if not change.done:
                others = [self._waiting.popleft() for _ in range(len(self._waiting))]
                self._write_batch([change, *(other for other in others if other is not change)])
        if change.error is not None:
            raise change.error

    def _write_batch(self, batch: list[_PendingChange]) -> None:
        """Writes all changes at once; if that fails, each alone, because a smaller write may fit. Called with the
        lock held.
        """
        records = self._records
        for change in batch:
            change.error = None
            try:
                records = change.make(records)
            except (KeyError, TypeError) as exc:  # no such record, or no such field
                change.error = exc
        try:
            self._save(records, lasting=any(change.lasting for change in batch))
        except StorageError as exc:
            # a full disk may still have room for smaller changes
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
            # an I/O error, or no free descriptor: the content may be fine, so it is kept
            raise StorageError(f"{self._path} cannot be read: {exc.strerror}") from exc
        try:
            found = read(data)
        except ValueError as exc:
            bad = self._bad()
            with contextlib.suppress(OSError):  # on a read-only file system it stays where it is
                self._path.replace(bad)
            logger.error(
                "%s is not readable (%s): kept as %s; existing containers count as foreign until adopted",
                self._path,
                exc,
                bad,
            )
            return secrets.token_hex(6), {}
        if found.damaged:
            # Changes after a lost one cannot be trusted: their objects count as foreign until adopted.
            with contextlib.suppress(OSError):
                atomic_write(self._bad(), data, mode=0o600)
            logger.error(
                "%s is damaged: changes are lost, and objects made by them count as foreign until adopted; a copy is %s",
                self._path,
                self._bad(),
            )
        elif found.is_whole:
            self._place = _WrittenFile(inode=self._path.stat().st_ino, size=len(data), folded=found.folded)
        elif found.folded:
            logger.info("%s: the last change was cut short and does not count", self._path)
        return found.instance, found.records

    def _bad(self) -> Path:
        return self._path.with_name(self._path.name + ".bad")

    def _save(self, records: dict[str, Record], *, lasting: bool) -> None:
        """Writes to disk first: what could not be written does not count in memory either."""
        # empty if nothing changed: then the flash is not written
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
        # append a line; rewrite the whole file only after many changes, because flash wears by the block
        if place is not None and not place.is_full(len(line)):
            try:
                self._append(place, line, lasting=lasting)
            except (_OtherFileError, FileNotFoundError):
                # another process has replaced or removed the file: write all records, so that nothing is lost
                pass
            else:
                return
        self._write_whole(records)

    def _append(self, place: _WrittenFile, line: bytes, *, lasting: bool) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            seen = os.fstat(descriptor)
            # a restored backup, or another agent's file: our line would belong to other records
            if (seen.st_ino, seen.st_size) != (place.inode, place.size):
                raise _OtherFileError
            # after a failed fsync a later one on this file may wrongly succeed: then a whole new file is written
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
                    with contextlib.suppress(OSError):
                        # otherwise the next start could find a change that was reported as failed
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
        self._place = _WrittenFile(inode=self._path.stat().st_ino, size=len(data), folded=len(data))
        self._unsynced = False


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _here(records: Mapping[str, Record], tags: Tags | None) -> Iterable[Record]:
    if tags is None:
        return [record for record in records.values() if record.missed_at is None]
    return visible(records.values(), tags)


KEPT = 10  # versions of a section


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """`number` counts from 1 and is never reused. `at`: when the version was applied, in unix seconds."""

    number: int
    at: float
    text: str


class SettingsHistory:
    """The versions by section. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        # section -> hash of its newest text, so that most calls need no file
        self._newest: dict[str, int] = {}
        # section -> spec hash -> text of settings that were read but not applied yet
        self._asked: dict[str, dict[str, str]] = {}

    def versions(self, section: str) -> tuple[Version, ...]:
        """The versions, oldest first; empty if the file cannot be read."""
        try:
            rows = json.loads(self._path(section).read_bytes())["versions"]
            return tuple(_version(row) for row in rows)
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, KeyError, TypeError):
            # nothing depends on the history, so a damaged file is not an error
            return ()

    def keep_applied(
        self,
        desired: Desired,
        texts: Mapping[str, str],
        records: Iterable[Record],
        busy: Collection[str],
        *,
        at: float,
    ) -> None:
        """Keeps the text that each container was created from, so that people can go back to it.

        This need not be the section's current text: the section may have been edited again before the previous edit was
        applied.
        """
        # containers in the middle of a swap are not applied yet
        applied = {r.section: r.spec_hash for r in records if r.kind == "container" and not r.swap}
        for section, text in texts.items():
            key, made_of = Key("container", section), applied.get(section)
            wanted = desired.spec_hashes.get(key, "")
            asked = self._asked.pop(section, {})
            # settled: the running container was created from the current text
            if key not in busy and made_of == wanted:
                self.keep(section, text, at=at)
                continue
            # edited again during the creation: keep the text that was applied, not the newest one
            if key not in busy and made_of in asked:
                self.keep(section, asked.pop(made_of), at=at)
            asked.pop(wanted, None)
            # bounded, newest last: a section that is edited repeatedly without success must not fill the memory
            self._asked[section] = dict([*asked.items(), (wanted, text)][-KEPT:])

    def keep(self, section: str, text: str, *, at: float) -> None:
        """Records applied settings, unless they are the newest version already."""
        with self._lock, _for_people():
            # most passes change nothing and must not read the flash
            if self._newest.get(section) == hash(text):
                return
            # the number continues even if older versions were dropped
            known = self.versions(section)
            if not known or known[-1].text != text:
                number = known[-1].number + 1 if known else 1
                self._write(section, (*known, Version(number=number, at=at, text=text))[-KEPT:])
            self._newest[section] = hash(text)

    def move(self, old: str, new: str) -> None:
        """Moves the history of a renamed section."""
        with self._lock, _for_people():
            self._newest.pop(old, None)
            self._newest.pop(new, None)
            self._asked.pop(old, None)
            if self._path(old).exists():
                self._path(old).replace(self._path(new))

    def forget(self, section: str) -> None:
        """Deletes the history of a section that was removed with its container."""
        with self._lock, _for_people():
            self._newest.pop(section, None)
            self._asked.pop(section, None)
            self._path(section).unlink(missing_ok=True)

    def _path(self, section: str) -> Path:
        # safe as a file name: UCI allows only letters, digits and `_`
        return self._folder / f"{section}.json"

    def _write(self, section: str, versions: tuple[Version, ...]) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        rows = [{"number": each.number, "at": round(each.at), "text": each.text} for each in versions]
        data = json.dumps({"versions": rows}, ensure_ascii=True).encode()
        atomic_write(self._path(section), data, mode=0o600)


@contextlib.contextmanager
def _for_people() -> Iterator[None]:
    """Logs a write error: nothing depends on the history, so a full or read-only disk must not stop a pass."""
    try:
        yield
    except OSError as exc:
        logger.warning("earlier settings cannot be kept: %s", exc)


def _version(row: Mapping[str, Any]) -> Version:
    return Version(number=int(row["number"]), at=float(row["at"]), text=str(row["text"]))
