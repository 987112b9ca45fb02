# SPDX-License-Identifier: GPL-2.0-or-later
"""Direct access to the folders of volumes. Blocks.

Used only where it is safe: for a volume of the local driver without options, whose files the engine keeps in its own
folder (`volumes/NAME/_data` below its data root), on this machine. Only root can write to the folders above it. Below
it no link is followed and no file is opened; only names and `stat` results are read.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import DataError
from agent.files.atomic import sync_directory
from agent.model.identity import LABEL_COPY_OF
from agent.wire.bodies import BLOCK, Member, rooted

LISTED = 5000  # entries of a folder
_DATA, _OLD = "_data", "_data.old"
# tar's type flags, as in the listings of archives
_KINDS = {stat.S_IFDIR: "5", stat.S_IFLNK: "2", stat.S_IFCHR: "3", stat.S_IFBLK: "4", stat.S_IFIFO: "6"}
_WORDS = {"2": "link", "3": "device", "4": "device", "5": "folder", "6": "pipe"}
# without following links: a container may put one where a folder was a moment ago
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineVolume:
    """A volume as the engine describes it. `is_plain`: its files are in `place`, a folder of the engine."""

    name: str
    driver: str
    place: Path
    is_plain: bool
    labels: Mapping[str, str]

    @property
    def copy_of(self) -> str:
        """The volume that this one is a copy of."""
        return self.labels.get(LABEL_COPY_OF, "")


def volume_of(body: Any) -> EngineVolume:
    """The volume in an answer to GET /volumes/{name}."""
    name, place, options = str(body["Name"]), Path(str(body.get("Mountpoint") or "")), body.get("Options")
    # only a folder of the engine for that name: with driver options it may be a mount from another machine
    plain = body["Driver"] == "local" and not options and place.parts[-2:] == (name, _DATA)
    return EngineVolume(
        name=name,
        driver=str(body["Driver"]),
        place=place,
        is_plain=plain,
        labels=dict(body.get("Labels") or {}),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderListing:
    """The entries of a folder, sorted by name. `more`: there are further ones."""

    path: str
    entries: tuple[Member, ...]
    more: bool

    def as_json(self) -> dict[str, Any]:
        """For HTTP, ubus and the command line."""
        return {"path": self.path, "entries": [_shown(entry) for entry in self.entries], "more": self.more}


def _shown(entry: Member) -> dict[str, Any]:
    return {
        "name": rooted(entry.name),
        "kind": _WORDS.get(entry.kind, "file"),
        "size": entry.size,
        "mode": f"{entry.mode & 0o7777:04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "modified": int(entry.modified),
        "link": entry.link,
    }


def sorted_listing(path: str, found: Mapping[str, Member]) -> FolderListing:
    """A listing of at most LISTED entries; `found` may hold one more, which shows that there are further ones."""
    names = sorted(found)
    entries = tuple(found[name] for name in names[:LISTED])
    return FolderListing(path=path, entries=entries, more=len(names) > LISTED)


def listing(place: Path, inside: str) -> FolderListing:
    """The entries of a folder in a volume. Raises DataError."""
    found: dict[str, Member] = {}
    with _opened(place, inside) as folder, os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                found[entry.name] = _member(entry, folder)
            # a folder may have millions of entries: one more than is shown proves that there are further ones
            if len(found) > LISTED:
                break
    return sorted_listing(inside, found)


@contextlib.contextmanager
def _opened(place: Path, inside: str) -> Iterator[int]:
    descriptors = []
    # opened folder by folder, so that a link that a container puts into the path leads nowhere
    try:
        descriptors.append(os.open(place, _FOLDER))
        for part in rooted(inside).split("/") if inside else ():
            descriptors.append(os.open(part, _FOLDER, dir_fd=descriptors[-1]))
        yield descriptors[-1]
    except OSError as exc:
        why = "is not a folder" if exc.errno in (errno.ENOTDIR, errno.ELOOP) else exc.strerror
        raise DataError(f"/{inside}: {why}") from exc
    finally:
        for descriptor in reversed(descriptors):
            os.close(descriptor)


def _member(entry: os.DirEntry[str], folder: int) -> Member:
    # links are listed but never followed: a link made by a container may lead out of the volume
    found = entry.stat(follow_symlinks=False)
    kind = _KINDS.get(stat.S_IFMT(found.st_mode), "0")
    return Member(
        name=entry.name,
        kind=kind,
        size=found.st_size if kind == "0" else 0,
        mode=stat.S_IMODE(found.st_mode),
        uid=found.st_uid,
        gid=found.st_gid,
        modified=found.st_mtime,
        link=os.readlink(entry.name, dir_fd=folder) if kind == "2" else "",
    )


def archive_size(place: Path) -> int:
    """An upper estimate of the size in bytes of a volume's tar archive. Raises DataError."""
    total, seen = 4 * BLOCK, set()
    try:
        for _, folders, files, descriptor in os.fwalk(place, follow_symlinks=False):
            total += 2 * BLOCK * len(folders)
            for name in files:
                with contextlib.suppress(FileNotFoundError):
                    found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                    total += 2 * BLOCK
                    # tar stores a file with several names once, and a link for each other name
                    if stat.S_ISREG(found.st_mode) and (found.st_nlink == 1 or found.st_ino not in seen):
                        total += -(-found.st_size // BLOCK) * BLOCK
                        if found.st_nlink > 1:
                            seen.add(found.st_ino)
    except OSError as exc:
        raise DataError(f"{exc.filename or place}: {exc.strerror}") from exc
    return total


def exchange(copy: EngineVolume, volume: EngineVolume) -> None:
    """Swaps the files of a volume and of a copy. No container may have either mounted.

    Makes two renames. If the agent is killed in between, `undo_exchange` undoes the first one. Raises DataError, with
    nothing changed.
    """
    new, old, place = copy.place, copy.place.with_name(_OLD), volume.place
    try:
        place.rename(old)
    except OSError as exc:
        raise DataError(f"the files of volume {volume.name} cannot be exchanged: {exc.strerror}") from exc
    try:
        new.rename(place)
    except OSError as exc:
        old.rename(place)
        raise DataError(f"the files of volume {volume.name} cannot be exchanged: {exc.strerror}") from exc
    with contextlib.suppress(OSError):
        # the exchange is done; only its survival of a power failure is in question
        old.rename(new)
        sync_directory(place.parent)
        sync_directory(new.parent)


def lend(copy: EngineVolume, volume: EngineVolume) -> None:
    """Gives a volume the files of a copy; the old files are kept beside them for `take_back` or `settle`. Can be repeated.

    The existing folders show how far it came, so it can be undone after any interruption: the old files are in `_data.old`
    of the copy, and once the copy's `_data` is missing, the volume has it. Raises DataError, with nothing changed.
    """
    new, old, place = copy.place, copy.place.with_name(_OLD), volume.place
    if is_lent(copy, volume):
        return
    try:
        # two renames with a sync after each: a power failure leaves one of three states, which the names distinguish
        if not old.exists():
            place.rename(old)
            sync_directory(old.parent)
        new.rename(place)
        sync_directory(place.parent)
    except OSError as exc:
        take_back(copy, volume)
        raise DataError(f"the files of volume {volume.name} cannot be exchanged: {exc.strerror}") from exc


def is_lent(copy: EngineVolume, volume: EngineVolume) -> bool:
    """Whether `lend` has done all of it."""
    return copy.place.with_name(_OLD).exists() and volume.place.exists()


def take_back(copy: EngineVolume, volume: EngineVolume) -> None:
    """Undoes `lend`, however far that came. Can be repeated. Raises DataError."""
    new, old, place = copy.place, copy.place.with_name(_OLD), volume.place
    # without the old folder nothing was exchanged, or everything was undone already
    if not old.exists():
        return
    try:
        # in the reverse order of `lend`, with a sync after each rename: after a power failure this function can continue
        if place.exists() and not new.exists():
            place.rename(new)
            sync_directory(new.parent)
        old.rename(place)
        sync_directory(place.parent)
    except OSError as exc:
        raise DataError(f"volume {volume.name} cannot get its files back: {exc.strerror}") from exc


def settle(copy: EngineVolume) -> bool:
    """Makes `lend` final: the copy gets the old files. Returns whether the copy can now be removed. Raises DataError."""
    old = copy.place.with_name(_OLD)
    try:
        if old.exists() and not copy.place.exists():
            old.rename(copy.place)
        return not old.exists()
    except OSError as exc:
        raise DataError(f"the copy {copy.name} of volume {copy.copy_of}: {exc.strerror}") from exc


def undo_exchange(copy: EngineVolume) -> None:
    """Undoes an exchange that was interrupted because the agent was killed."""
    old = copy.place.with_name(_OLD)
    if not (copy.is_plain and copy.copy_of and old.is_dir()):
        return
    place = copy.place.parent.parent / copy.copy_of / _DATA
    # files that are in place are the same or newer; a volume that was removed since needs none
    if place.exists() or not place.parent.is_dir():
        return
    old.rename(place)
    sync_directory(place.parent)
