# SPDX-License-Identifier: GPL-2.0-or-later
"""The folder of certificates. Each pair has its own folder, which is renamed into place complete. Renaming
`index.json` puts a new pair into effect, so a crash leaves the old pair or the new one, never half of each.

 index.json                              the current pairs, their ends and names, and the files' SHA-256
 ca-1f2e3d4c/     ca.pem ca-key.pem
 server-5a6b7c8d/ ca.pem cert.pem key.pem
 server-....bad/                         a damaged pair, kept for inspection

The SHA-256 shows that the files are still those that were checked when the pair was made, so that reading them needs
no check of keys and signatures. The index contains no secret. `certificates` decides what to make; this module only
stores it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.files.atomic import atomic_write, sync_directory

logger = logging.getLogger(__name__)

INDEX = "index.json"
_VERSION = 1
_BAD = ".bad"
_NEW = ".new-"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPair:
    """A pair in its folder. Times are unix seconds; `files` are names with the SHA-256 of their content."""

    folder: str
    not_before: float
    expires: float
    sans: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """The current pairs. `older`: folders of earlier server pairs, newest first."""

    ca: StoredPair | None = None
    server: StoredPair | None = None
    older: tuple[str, ...] = ()


class CertificateStore:
    """Reads and writes the folder. Methods raise OSError on failure; the current pairs then stay in use."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Creates the directory and locks other processes out: two at once would make two CAs."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if stat.S_IMODE(os.fstat(descriptor).st_mode) != 0o700:
                # not always, because it may be read-only now
                os.fchmod(descriptor, 0o700)
            yield
        finally:
            os.close(descriptor)

    def read_index(self) -> Index:
        """The index; empty if there is none. An unreadable index is renamed."""
        path = self.directory / INDEX
        try:
            data = json.loads(path.read_bytes())
            if data["version"] != _VERSION:
                raise ValueError(f"version {data['version']!r}, expected {_VERSION}")
            ca, server = (_part(kind, data[kind]) for kind in ("ca", "server"))
            return Index(ca=ca, server=server, older=tuple(map(str, data["older"])))
        except FileNotFoundError:
            return Index()
        except (ValueError, KeyError, TypeError) as exc:
            bad = path.with_name(INDEX + _BAD)
            # kept for inspection: a deleted key cannot be recovered
            path.replace(bad)
            logger.error("%s is not readable (%s): kept as %s, rebuilt from the certificates", path, exc, bad)
            return Index()

    def write_index(self, index: Index) -> None:
        """Puts the index into effect, then removes folders that nothing refers to any more."""
        text = json.dumps({"version": _VERSION, **asdict(index)}, indent=1) + "\n"
        atomic_write(self.directory / INDEX, text.encode(), mode=0o600)
        self.clean(index)

    def intact(self, part: StoredPair) -> bool:
        """Whether the files are those that were checked. Also closes keys that others could read."""
        content = self.read(part.folder)
        if tuple(sorted((name, _hash(data)) for name, data in content.items())) != part.files:
            return False
        for name in content:
            path = self.directory / part.folder / name
            if path.stat().st_mode & 0o077:
                path.chmod(0o600)
                logger.warning(
                    "%s was open to others: it is 0600 again; make a new one if it may have been read", path
                )
        return True

    def read(self, folder: str) -> dict[str, bytes]:
        """The PEM files in a folder by name; empty if the folder does not exist."""
        return {path.name: path.read_bytes() for path in (self.directory / folder).glob("*.pem")}

    def add(self, kind: str, content: Mapping[str, str], facts: Mapping[str, Any]) -> StoredPair:
        """Writes a new folder. It is used once `write_index` has named it."""
        folder = f"{kind}-{secrets.token_hex(4)}"
        # under a name that no index can contain: leftovers of a crash are never taken for a pair
        new = self.directory / (_NEW + folder)
        new.mkdir(mode=0o700)
        try:
            for name, text in content.items():
                atomic_write(new / name, text.encode(), mode=0o600)
            new.rename(self.directory / folder)
        except OSError:
            shutil.rmtree(new, ignore_errors=True)
            raise
        # the index may name only what survives a power failure
        sync_directory(self.directory)
        return self.part(folder, {name: text.encode() for name, text in content.items()}, facts)

    @staticmethod
    def part(folder: str, content: Mapping[str, bytes], facts: Mapping[str, Any]) -> StoredPair:
        """`facts` has `not_before`, `expires` and `sans` as `tls.maker` returns them."""
        return StoredPair(
            folder=folder,
            not_before=facts["not_before"],
            expires=facts["expires"],
            sans=tuple(facts["sans"]),
            files=tuple(sorted((name, _hash(data)) for name, data in content.items())),
        )

    def folders(self, kind: str) -> list[str]:
        """All folders of a kind that were not set aside, newest first."""
        found = [path for path in self.directory.glob(f"{kind}-*") if path.suffix != _BAD and path.is_dir()]
        return [path.name for path in sorted(found, key=lambda path: (-path.stat().st_mtime_ns, path.name))]

    def set_aside(self, folder: str) -> str:
        """Renames a damaged folder to `*.bad` and returns that name. Of each kind only the last one is kept."""
        kind, bad = folder.partition("-")[0], folder + _BAD
        for path in self.directory.glob(f"{kind}-*{_BAD}"):
            shutil.rmtree(path)
        (self.directory / folder).rename(self.directory / bad)
        return bad

    def clean(self, index: Index) -> None:
        """Removes folders that the index does not name: replaced ones, and leftovers of a crash."""
        named = {part.folder for part in (index.ca, index.server) if part is not None} | set(index.older)
        for path in [*self.directory.glob("ca-*"), *self.directory.glob("server-*")]:
            if path.name not in named and path.suffix != _BAD:
                shutil.rmtree(path)
        for path in self.directory.glob(f"{_NEW}*"):
            shutil.rmtree(path)
        for path in self.directory.glob(f".{INDEX}.*"):  # temporary files that `atomic_write` did not rename
            path.unlink()


def _part(kind: str, data: dict[str, Any] | None) -> StoredPair | None:
    if data is None:
        return None
    if not re.fullmatch(f"{kind}-[0-9a-f]{{8}}", data["folder"]):
        raise ValueError(f"{data['folder']!r} is not a folder of ours")
    return StoredPair(
        folder=data["folder"],
        not_before=float(data["not_before"]),
        expires=float(data["expires"]),
        sans=tuple(map(str, data["sans"])),
        files=tuple((str(name), str(digest)) for name, digest in data["files"]),
    )


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
