# SPDX-License-Identifier: GPL-2.0-or-later
"""The folders of volumes, touched directly. Blocks.

Only where that is safe: a volume of the local driver without options, whose files the engine keeps in its own folder
(`volumes/NAME/_data` below its data root), on this machine. Folders above it belong to root alone. Below it no link is
followed and no file is opened; names and what `stat` tells are all that is read.
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
from agent.wire.bodies import BLOCK
from agent.wire.tar import Member, rooted

LISTED = 5000  # entries of a folder
_DATA, _OLD = "_data", "_data.old"
_KINDS = {stat.S_IFDIR: "5", stat.S_IFLNK: "2", stat.S_IFCHR: "3", stat.S_IFBLK: "4", stat.S_IFIFO: "6"}
_WORDS = {"2": "link", "3": "device", "4": "device", "5": "folder", "6": "pipe"}
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """What the engine says of one. `is_plain`: its files are in `place`, a folder of the engine's own."""

    name: str
    driver: str
    place: Path
    is_plain: bool
    labels: Mapping[str, str]

    @property
    def copy_of(self) -> str:
        """The volume that a copy is for."""
        return self.labels.get(LABEL_COPY_OF, "")


def volume_of(body: Any) -> Volume:
    """GET /volumes/{name}."""
    name, place, options = str(body["Name"]), Path(str(body.get("Mountpoint") or "")), body.get("Options")
    # Only what lies in the engine's own folder for that name: with options of the driver it may be a mount of
    # another machine.
    plain = body["Driver"] == "local" and not options and place.parts[-2:] == (name, _DATA)
    return Volume(
        name=name,
        driver=str(body["Driver"]),
        place=place,
        is_plain=plain,
        labels=dict(body.get("Labels") or {}),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The entries of a folder, by name. `more`: there are others."""

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


def sorted_listing(path: str, found: Mapping[str, Member]) -> Listing:
    """Of as many as may be listed, and one more where there are others."""
    names = sorted(found)
    entries = tuple(found[name] for name in names[:LISTED])
    return Listing(path=path, entries=entries, more=len(names) > LISTED)


def listing(place: Path, inside: str) -> Listing:
    """The entries of a folder of a volume. Raises DataError."""
    found: dict[str, Member] = {}
    with _opened(place, inside) as folder, os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # removed in between
                found[entry.name] = _member(entry, folder)
            # A folder may have millions of entries: one more than is shown tells that there are others.
            if len(found) > LISTED:
                break
    return sorted_listing(inside, found)


@contextlib.contextmanager
def _opened(place: Path, inside: str) -> Iterator[int]:
    descriptors = []
    # folder by folder, so that a link that a container puts into the path leads nowhere
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
    # Links are listed and never followed: one that a container made may lead out of the volume.
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
    """Bytes that a tar archive of a volume takes, or somewhat more. Raises DataError."""
    total, seen = 4 * BLOCK, set()
    try:
        for _, folders, files, descriptor in os.fwalk(place, follow_symlinks=False):
            total += 2 * BLOCK * len(folders)
            for name in files:
                with contextlib.suppress(FileNotFoundError):
                    found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                    total += 2 * BLOCK
                    # tar stores a file of several names once, and a link for each other name.
                    if stat.S_ISREG(found.st_mode) and (found.st_nlink == 1 or found.st_ino not in seen):
                        total += -(-found.st_size // BLOCK) * BLOCK
                        if found.st_nlink > 1:
                            seen.add(found.st_ino)
    except OSError as exc:
        raise DataError(f"{exc.filename or place}: {exc.strerror}") from exc
    return total


def exchange(copy: Volume, volume: Volume) -> None:
    """Gives a volume the files of a copy, and the copy its old files. No container may have either mounted.

    Two renames. Killed between them, `put_right` undoes the first one. Raises DataError; then nothing is changed.
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
    with contextlib.suppress(OSError):  # exchanged they are, whether that survives a power cut or not
        old.rename(new)
        sync_directory(place.parent)
        sync_directory(new.parent)


def lend(copy: Volume, volume: Volume) -> None:
    """Gives a volume the files of a copy; the old ones wait beside it, for `take_back` or `settle`. Safe to repeat.

    The folders that are there say how far it came, so it can be undone whenever it was cut short: in `_data.old` of the copy
    are the old files, and once the copy's `_data` is gone, the volume has it. Raises DataError; then nothing is changed.
    """
    new, old, place = copy.place, copy.place.with_name(_OLD), volume.place
    if old.exists() and place.exists():
        return
    try:
        # Two renames with a sync after each: whatever a power cut leaves is one of three states, which the names tell
        # apart.
        if not old.exists():
            place.rename(old)
            sync_directory(old.parent)
        new.rename(place)
        sync_directory(place.parent)
    except OSError as exc:
        take_back(copy, volume)
        raise DataError(f"the files of volume {volume.name} cannot be exchanged: {exc.strerror}") from exc


def take_back(copy: Volume, volume: Volume) -> None:
    """Undoes `lend`, however far that came. Safe to repeat. Raises DataError."""
    new, old, place = copy.place, copy.place.with_name(_OLD), volume.place
    # Without the old folder nothing was exchanged, or all was taken back already.
    if not old.exists():
        return
    try:
        # In the reverse order of `lend`, and each rename is on disk before the next: a power cut leaves a state
        # that this function continues from.
        if place.exists() and not new.exists():
            place.rename(new)
            sync_directory(new.parent)
        old.rename(place)
        sync_directory(place.parent)
    except OSError as exc:
        raise DataError(f"volume {volume.name} cannot get its files back: {exc.strerror}") from exc


def settle(copy: Volume) -> bool:
    """What was lent stays: the copy gets the old files. Whether it can be removed then as any volume. Raises DataError."""
    old = copy.place.with_name(_OLD)
    try:
        if old.exists() and not copy.place.exists():
            old.rename(copy.place)
        return not old.exists()
    except OSError as exc:
        raise DataError(f"the copy {copy.name} of volume {copy.copy_of}: {exc.strerror}") from exc


def put_right(copy: Volume) -> None:
    """Undoes an exchange that a killed agent left half done."""
    old = copy.place.with_name(_OLD)
    if not (copy.is_plain and copy.copy_of and old.is_dir()):
        return
    place = copy.place.parent.parent / copy.copy_of / _DATA
    # files that are in place are newer or the same; a volume that was removed since wants none
    if place.exists() or not place.parent.is_dir():
        return
    old.rename(place)
    sync_directory(place.parent)
