# SPDX-License-Identifier: GPL-2.0-or-later
"""state.json: which objects on the engine are ours. Written on create, in-place change and swap only (flash).

Environment values are in it as hashes only. A corrupt file is set aside as `state.json.bad`; without it nothing on
the engine counts as ours, so nothing is removed and `adopt` is asked for.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import re
import secrets
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from agent.clients.files import atomic_write
from agent.errors import StorageError
from agent.model.identity import SPEC_VERSION, spec_hash, version_of
from agent.model.observed import SWAPS, Record
from agent.wire.own_json import json_object

logger = logging.getLogger(__name__)

VERSION = 1


@dataclass(slots=True, eq=False)
class _Change:
    """A change that waits to be written, and what became of it."""

    make: Callable[[dict[str, Record]], dict[str, Record]]
    done: bool = False
    error: StorageError | KeyError | TypeError | None = None


class StateFile:
    """The records by nonce, in memory and on disk. Safe to call from several threads.

    Changes that come while one is being written are written together after it: a disk's fsync takes long.
    Raises StorageError when there is a file that the disk does not give; one that is damaged is set aside.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()  # held by who writes
        self._waiting: deque[_Change] = deque()
        self._texts: dict[str, tuple[Record, str]] = {}  # each record's JSON as it was written
        self.instance, self._records = self._load()
        self._sorted = _in_order(self._records)

    def records(self) -> tuple[Record, ...]:
        """All records, sorted by kind and section."""
        return self._sorted

    def get(self, nonce: str) -> Record | None:
        """The record of that nonce."""
        return self._records.get(nonce)

    def put(self, *records: Record) -> None:
        """Adds or replaces records and writes the file once. Raises StorageError when it cannot be written."""
        self._write(lambda old: {**old, **{record.nonce: record for record in records}})

    def change(self, nonce: str, **changes: Any) -> Record:
        """Replaces fields of one record and writes the file. Raises KeyError when it is gone."""
        made: list[Record] = []

        def make(old: dict[str, Record]) -> dict[str, Record]:
            made.append(replace(old[nonce], **changes))
            return {**old, nonce: made[-1]}

        self._write(make)
        return made[-1]

    def drop(self, nonce: str) -> None:
        """Forgets a record."""
        self._write(lambda old: {key: record for key, record in old.items() if key != nonce})

    def _write(self, make: Callable[[dict[str, Record]], dict[str, Record]]) -> None:
        change = _Change(make)
        self._waiting.append(change)
        with self._lock:
            if not change.done:
                others = [self._waiting.popleft() for _ in range(len(self._waiting))]
                self._write_batch([change, *(other for other in others if other is not change)])
        if change.error is not None:
            raise change.error

    def _write_batch(self, batch: list[_Change]) -> None:
        """Writes once for all of them; when that fails, for each, since a smaller file may fit. Holds the lock."""
        records = self._records
        for change in batch:
            change.error = None
            try:
                records = change.make(records)
            except (KeyError, TypeError) as exc:  # there is no such record, or field
                change.error = exc
        try:
            self._save(records)
        except StorageError as exc:
            if len(batch) == 1:
                batch[0].error = exc
            else:
                for change in batch:
                    self._write_batch([change])
        for change in batch:
            change.done = True

    def _load(self) -> tuple[str, dict[str, Record]]:
        try:
            data = json_object(self._path.read_bytes())
            records = [_record(item) for item in data["records"]]
            return str(data["instance"]), {record.nonce: record for record in records}
        except FileNotFoundError:
            pass
        except (
            OSError
        ) as exc:  # the disk, or no descriptor left: what is in it may be good, so it is not disowned
            raise StorageError(f"{self._path} cannot be read: {exc.strerror}") from exc
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            bad = self._path.with_name(self._path.name + ".bad")
            with contextlib.suppress(OSError):  # on a file system that is read-only it stays where it is
                self._path.replace(bad)
            logger.error(
                "%s is not readable (%s): kept as %s; what runs now is not ours until adopted",
                self._path,
                exc,
                bad,
            )
        return secrets.token_hex(6), {}

    def _save(self, records: dict[str, Record]) -> None:
        """The disk first: what could not be written does not count in memory either."""
        texts = {nonce: self._text(record) for nonce, record in records.items()}
        if texts != self._texts:
            try:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                atomic_write(self._path, self._file(texts), mode=0o600)
            except OSError as exc:
                full = exc.errno in {errno.ENOSPC, errno.EDQUOT}
                raise StorageError(f"{self._path} cannot be written: {exc.strerror}", full=full) from exc
            self._texts = texts
        self._records, self._sorted = records, _in_order(records)

    def _text(self, record: Record) -> tuple[Record, str]:
        known = self._texts.get(record.nonce)
        if known is not None and known[0] is record:
            return known
        return record, json.dumps({f.name: getattr(record, f.name) for f in fields(record)}, sort_keys=True)

    def _file(self, texts: Mapping[str, tuple[Record, str]]) -> bytes:
        """One record a line."""
        lines = ",\n".join(texts[nonce][1] for nonce in sorted(texts))
        head = f'{{"version": {VERSION}, "instance": {json.dumps(self.instance)}, "records": [\n'
        return f"{head}{lines}\n]}}\n".encode()


def _in_order(records: Mapping[str, Record]) -> tuple[Record, ...]:
    return tuple(sorted(records.values(), key=lambda r: (r.kind, r.section, r.nonce)))


def _record(item: dict[str, Any]) -> Record:
    """Raises ValueError for a value that no record of ours has; fields that we do not know are passed over."""
    values: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in item.items() if name in _FORMS
    }
    for name, value in values.items():
        if not _IS[_FORMS[name]](value):
            raise ValueError(f"{name} of a record: expected {_FORMS[name]}")
    for name, words in _CLOSED.items():
        if values.get(name, "") not in words:
            raise ValueError(f"{name} of a record: expected one of {', '.join(filter(None, words))}")
    for name in ("spec_hash", "failed_hash"):
        if not _HASH.fullmatch(values.get(name, "")):
            raise ValueError(f"{name} of a record: expected v<version>:<hash>")
    record = Record(**values)
    if _is_damaged(record):
        raise ValueError(
            f"the spec of {record.kind} {record.section} is not the one that its hash was made of"
        )
    return record


def _is_damaged(record: Record) -> bool:
    """Planning believes a spec; one that another version of us wrote is not read at all."""
    if not record.spec_hash:
        return bool(record.spec)
    return version_of(record.spec_hash) == SPEC_VERSION and spec_hash(record.spec) != record.spec_hash


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_FORMS = {f.name: str(f.type) for f in fields(Record)}
_CLOSED = {"kind": ("container", "network", "volume"), "swap": SWAPS}
_HASH = re.compile(r"|v[0-9]{1,9}:.*")
_IS: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str),
    "bool": lambda value: isinstance(value, bool),
    "bool | None": lambda value: value is None or isinstance(value, bool),
    "float": _is_number,
    "float | None": lambda value: value is None or _is_number(value),
    "dict[str, Any]": lambda value: isinstance(value, dict),
    "tuple[str, ...]": lambda value: isinstance(value, tuple) and all(isinstance(v, str) for v in value),
}
