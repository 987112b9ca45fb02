# SPDX-License-Identifier: GPL-2.0-or-later
"""Files about dockerd. In /var/run (memory): daemon.json and the record of the change in progress. In /etc/ucidockd
(kept over sysupgrade, written only when changed): the last good daemon.json, and the data_root that the containers
belong to. On OpenWrt daemon.json is a link to /etc/ucidockd/daemon.json, which init.d/ucidockd creates: if ucidockd
is removed, the stock script still starts dockerd with a file that opens no port without TLS.

All files have mode 0600, because proxies and log options hold passwords. A file of ours that does not parse is
renamed to `*.bad`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.errors import PathError
from agent.files.atomic import atomic_write
from agent.files.user_paths import PATHS, file_bytes
from agent.model.dockerd.settings import ChangeStep, DaemonRecord, DaemonTarget, Document, Process
from agent.wire.record_lines import json_object

logger = logging.getLogger(__name__)

_MATERIAL = ("tlscacert", "tlscert", "tlskey")  # keys that name files which dockerd reads only at its start


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineData:
    """Where an engine keeps its data: its data_root, our mark on that disk, and its storage driver.

    "" means not known.
    """

    data_root: str = ""
    mark: str = ""
    store: str = ""


class DaemonFiles:
    """Implements `agent.dockerd.change.DaemonStore`."""

    def __init__(self, *, run_dir: Path, state_dir: Path) -> None:
        self.config_file = run_dir / "daemon.json"
        self._record = run_dir / "daemon-record.json"
        self._last_good = state_dir / "daemon-last-good.json"
        self._engine = state_dir / "daemon-engine.json"

    def current(self) -> bytes | None:
        """The content of daemon.json, whether or not ucidockd wrote it."""
        try:
            return self.config_file.read_bytes()
        except OSError:
            return None

    def current_document(self) -> Document | None:
        """daemon.json as dockerd would parse it, None if it cannot be parsed."""
        try:
            return json_object(self.config_file.read_bytes())
        except (OSError, ValueError):
            return None

    def write_current(self, data: bytes) -> None:
        """Writes daemon.json. If the content is the same, only its modification time changes, because the file may be on
        flash."""
        if self.current() == data:
            # the time tells which dockerd has read the file: one that started earlier has not
            with contextlib.suppress(OSError):
                os.utime(self.config_file)
                return
        _write(self.config_file, data)

    def drop_current(self) -> None:
        """Removes our daemon.json because dockerd follows another file now: a later return to ours must not find stale
        settings."""
        self.config_file.resolve().unlink(missing_ok=True)

    def last_good(self) -> DaemonTarget | None:
        data = _read(self._last_good)
        if data is None:
            return None
        try:
            target = _target(data)
            # dockerd falls back to this document: an incomplete one could make an engine with other data
            if target is not None and target.document["data-root"] and target.document["hosts"]:
                return target
            raise ValueError("no configuration that we would write")
        except (KeyError, TypeError, ValueError, OverflowError) as exc:
            _set_aside(self._last_good, exc)
            return None

    def write_last_good(self, target: DaemonTarget) -> None:
        _write(self._last_good, json.dumps(asdict(target), indent=1, sort_keys=True).encode())

    def engine(self) -> EngineData:
        """The data that the containers were created on; empty if not known."""
        # "not known" does not mean another engine: the next engine that has our containers is noted as the right one
        data = _read(self._engine) or {}
        return EngineData(**{name: str(data.get(name) or "") for name in ("data_root", "mark", "store")})

    def write_engine(self, engine: EngineData) -> None:
        if engine != self.engine():
            _write(self._engine, json.dumps(asdict(engine)).encode())

    def load(self) -> DaemonRecord:
        data = _read(self._record)
        if data is None:
            return DaemonRecord()
        try:
            return _record(data)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as exc:
            _set_aside(self._record, exc)
            return DaemonRecord()

    def save(self, record: DaemonRecord) -> None:
        _write(self._record, json.dumps(asdict(record)).encode())


def material_of(document: Document) -> str:
    """A digest of the certificate files that the document names; an unreadable file counts as missing."""
    if not document.get("tls"):
        return ""
    # dockerd reads them only at its start: a renewed file under the same name needs a restart, like a changed name
    named = [path for key in _MATERIAL if isinstance(path := document.get(key), str) and path]
    view = PATHS.view((file_bytes, path) for path in named)
    digest = hashlib.sha256()
    for path in named:
        try:
            digest.update(hashlib.sha256(view(file_bytes, path)).digest())
        except PathError:
            digest.update(b"missing")
    return digest.hexdigest()[:16]


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    atomic_write(path, data, mode=0o600)


def _read(path: Path) -> Mapping[str, Any] | None:
    """A JSON object, None if there is none."""
    try:
        return json_object(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        _set_aside(path, exc)
        return None


def _set_aside(path: Path, exc: Exception) -> None:
    bad = path.with_name(path.name + ".bad")
    logger.error("%s cannot be read (%s): set aside as %s", path, exc, bad.name)
    try:
        path.replace(bad)
    except OSError as failure:
        logger.warning("%s cannot be set aside: %s", path, failure)


def _record(data: Mapping[str, Any]) -> DaemonRecord:
    # convert every field, so that a damaged file or one of another version fails here and counts as missing
    process = data["process"]
    return DaemonRecord(
        running=_target(data["running"]),
        process=Process(pid=int(process["pid"]), started=int(process["started"])) if process else None,
        step=ChangeStep(data["step"]),
        target=_target(data["target"]),
        fallback=bool(data["fallback"]),
        held=bool(data["held"]),
        failed=str(data["failed"]),
        why=str(data["why"]),
        watch_until=float(data["watch_until"]),
        swarm=bool(data.get("swarm")),
        stopped=bool(data.get("stopped")),
        refused={str(key): (value, str(why)) for key, (value, why) in (data.get("refused") or {}).items()},
    )


def _target(data: Mapping[str, Any] | None) -> DaemonTarget | None:
    if data is None:
        return None
    arguments = data["arguments"]
    if not isinstance(arguments, list) or not all(isinstance(word, str) for word in arguments):
        raise ValueError("arguments: expected a list of words")
    return DaemonTarget(
        document=dict(data["document"]), material=str(data["material"]), arguments=tuple(arguments)
    )
