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
import secrets
import threading
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from agent.clients.files import atomic_write
from agent.errors import StorageError
from agent.model.observed import Record

logger = logging.getLogger(__name__)

VERSION = 1


class StateFile:
    """The records by nonce, in memory and on disk. Safe to call from several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._written = b""
        self.instance, self._records = self._load()
        self._sorted: tuple[Record, ...] | None = None  # the same, sorted when somebody wants them

    def records(self) -> tuple[Record, ...]:
        """All records, sorted by kind and section."""
        with self._lock:
            if self._sorted is None:
                self._sorted = tuple(
                    sorted(self._records.values(), key=lambda r: (r.kind, r.section, r.nonce))
                )
            return self._sorted

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
            data = json.loads(self._path.read_bytes())
            return str(data["instance"]), {item["nonce"]: _record(item) for item in data["records"]}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
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
        self._records, self._sorted = records, None


def _record(item: dict[str, Any]) -> Record:
    known = {f.name for f in fields(Record)}
    values: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in item.items()}
    return Record(**{name: value for name, value in values.items() if name in known})
