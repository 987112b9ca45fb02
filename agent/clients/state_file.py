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
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from agent.clients.files import atomic_write
from agent.errors import StorageError
from agent.model.identity import SPEC_VERSION, spec_hash, version_of
from agent.model.observed import SWAPS, Record
from agent.wire.own_json import json_object

logger = logging.getLogger(__name__)

VERSION = 1


class StateFile:
    """The records by nonce, in memory and on disk. Safe to call from several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._written = b""
        self.instance, self._records = self._load()

    def records(self) -> tuple[Record, ...]:
        """All records, sorted by kind and section."""
        with self._lock:
            return tuple(sorted(self._records.values(), key=lambda r: (r.kind, r.section, r.nonce)))

    def get(self, nonce: str) -> Record | None:
        """The record of that nonce."""
        with self._lock:
            return self._records.get(nonce)

    def put(self, *records: Record) -> None:
        """Adds or replaces records and writes the file once. Raises StorageError when it cannot be written."""
        with self._lock:
            self._save({**self._records, **{record.nonce: record for record in records}})

    def change(self, nonce: str, **changes: Any) -> Record:
        """Replaces fields of one record and writes the file."""
        with self._lock:
            record = replace(self._records[nonce], **changes)
            self._save({**self._records, nonce: record})
            return record

    def drop(self, nonce: str) -> None:
        """Forgets a record."""
        with self._lock:
            if nonce in self._records:
                self._save({key: record for key, record in self._records.items() if key != nonce})

    def _load(self) -> tuple[str, dict[str, Record]]:
        try:
            data = json_object(self._path.read_bytes())
            records = [_record(item) for item in data["records"]]
            return str(data["instance"]), {record.nonce: record for record in records}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
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
        items = [asdict(records[nonce]) for nonce in sorted(records)]
        data = {"version": VERSION, "instance": self.instance, "records": items}
        text = json.dumps(data, indent=1, sort_keys=True).encode() + b"\n"
        if text != self._written:
            try:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                atomic_write(self._path, text, mode=0o600)
            except OSError as exc:
                full = exc.errno in {errno.ENOSPC, errno.EDQUOT}
                raise StorageError(f"{self._path} cannot be written: {exc.strerror}", full=full) from exc
            self._written = text
        self._records = records


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
    "float": _is_number,
    "float | None": lambda value: value is None or _is_number(value),
    "dict[str, Any]": lambda value: isinstance(value, dict),
    "tuple[str, ...]": lambda value: isinstance(value, tuple) and all(isinstance(v, str) for v in value),
}
