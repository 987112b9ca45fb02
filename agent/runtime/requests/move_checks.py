# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks before Docker's data is moved: whether it may go there, whether there is room, and how long it will take.

`agent.runtime.requests.moving` does the move.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.dockerd.stage import DataLocation
from agent.dockerd.target import prior_drivers
from agent.errors import ConfigError, ConflictError, DataError, NoSpaceError
from agent.files.atomic import atomic_write
from agent.files.config import decode_edited
from agent.files.options import RuntimeOptions
from agent.files.uci_store import UciStore, load_for_edit
from agent.files.user_paths import PATHS, file_system_of, is_read_only, real_path
from agent.files.watcher import missing_mount
from agent.model.quantities import size_words
from agent.model.resources import Desired
from agent.plan.daemon import move_trouble, store_trouble
from agent.storage.copying import MARGIN_S, NOTE, FolderContents, measure, unfit
from agent.uci import edit
from agent.uci.syntax import Package
from agent.wire.record_lines import json_object

PACKAGE, OPTION = "dockerd", "data_root"
RESERVE = 64 * 1024**2  # kept free on the new disk
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_MEASURE_S = 10.0  # time limit for measuring in a preview; the move itself has no limit
_RESTART_S = 15.0  # estimated restart time of an engine
_LOOKS = 4  # how often the trees are traversed while containers are stopped: each tree is copied and counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A move that passed its checks."""

    home: DataLocation
    target: str
    resumes: bool  # an interrupted copy exists
    since: float  # unix seconds: everything changed since then is copied again
    thorough: bool  # the existing copy may have lost data
    file_system: str
    notes: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """The directory that dockerd uses now."""
        return self.home.root


def checked_move(
    home: DataLocation, asked: str, desired: Desired | None, store: UciStore, options: RuntimeOptions
) -> Move:
    """All checks that are possible before the move. Raises ConflictError, ConfigError, DataError."""
    target = os.path.normpath(asked) if asked.startswith("/") else ""
    if not target.strip("/"):
        raise ConfigError(f"{asked or 'the target'}: expected an absolute path, such as /mnt/sda1/docker")
    # checked before hours of copying: the option itself may not accept such a path
    edited, _ = with_data_root(store, home.root, target)
    for issue in decode_edited(store, edited).issues:
        if issue.severity == "error" and issue.option == OPTION:
            raise ConfigError(issue.text())
    try:
        notes = _check_place(home, target, options)
        note = PATHS.ask(_note_in, target)
    except OSError as exc:  # a PathError explains itself
        raise DataError(f"{target} cannot be used: {exc.strerror}") from exc
    # only a copy of the same data is continued; other content belongs to someone else
    resumes = note is not None and note.get("source") == home.root
    # the root of an ext4 file system has `lost+found` from the start and still counts as empty
    names = [] if note is not None else sorted(set(PATHS.ask(os.listdir, target)) - {"lost+found", NOTE})
    if names:
        raise ConflictError(f"{target} is not empty: it has {', '.join(names[:3])}; give an empty folder")
    if note is not None and not resumes:
        raise ConflictError(f"{target} has a part of {note.get('source')}, of another move: empty it first")
    if desired is not None:
        # bind mounts belong to the containers' sections: list them, but do not change them
        notes += tuple(
            sorted(
                f"{container.section} mounts {mount.source}: change that to the new folder afterwards"
                for container in desired.containers
                for mount in container.spec.mounts
                if mount.is_bind and f"{mount.source}/".startswith(f"{home.root.rstrip('/')}/")
            )
        )
    return Move(
        home=home,
        target=target,
        resumes=resumes,
        since=float(note["since"]) if note is not None else time.time() - MARGIN_S,
        # after a power cut, files that were complete may be empty
        thorough=note is not None and note.get("boot") != _boot(),
        file_system=file_system_of(target),
        notes=notes,
    )


def _check_place(home: DataLocation, target: str, options: RuntimeOptions) -> tuple[str, ...]:
    """Checks the target and returns notes for people. Cheap checks come first; only the last one writes there."""
    # resolve links: two names of one directory would copy it into itself
    source, place = PATHS.ask(real_path, home.root), PATHS.ask(real_path, target)
    if place == source:
        raise ConflictError(f"Docker's data is in {target} already")
    if place.startswith(f"{source}/") or source.startswith(f"{place}/"):
        raise ConflictError(f"{target} and {home.root}: one is inside the other; choose a separate folder")
    # a disk in fstab that is not plugged in: copying into its mount point would fill the router's flash
    if mount := missing_mount(target, options):
        raise ConflictError(f"nothing is mounted on {mount}: mount the disk first")
    if not PATHS.ask(os.path.isdir, os.path.dirname(place)):
        raise ConflictError(
            f"there is no folder {os.path.dirname(target)}: mount the disk first, or create it"
        )
    if PATHS.ask(is_read_only, target):
        raise ConflictError(f"the file system of {target} is mounted read-only")
    kind = file_system_of(target)
    if trouble := move_trouble(home.store, kind):
        raise ConflictError(f"{target}: {trouble}")
    # judge it as the engine on the copy would: it must keep its storage driver, or it would show no images
    driver = home.store.removeprefix("containerd's ").partition(" ")[0]
    document = {**home.document, "data-root": target, "storage-driver": driver}
    if trouble := store_trouble(document, home.version, file_system=kind, prior=prior_drivers(home.root)):
        raise ConflictError(trouble)

    def make(path: str) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o710)  # the mode that dockerd uses

    PATHS.ask(make, target)
    if trouble := PATHS.ask(unfit, target):
        raise ConflictError(f"Docker's data cannot be in {target}: {trouble}")
    notes = []
    if PATHS.ask(os.stat, target).st_dev == PATHS.ask(os.stat, home.root).st_dev:
        notes.append(f"{target} is on the same file system as {home.root}")
    # copied as it is, the link would make the old and the new engine share its target
    links = [name for name in PATHS.ask(os.listdir, home.root) if os.path.islink(f"{home.root}/{name}")]
    if links:
        raise ConflictError(f"{home.root}/{links[0]} is a link to somewhere else: move its data yourself")
    if home.store.startswith("containerd's") and not os.path.isdir(f"{home.root}/containerd"):
        notes.append("images and containers are kept by another containerd, and stay where that keeps them")
    return tuple(notes)


# space


def foreseen(move: Move) -> dict[str, Any]:
    """What the move would do, for people. Raises NoSpaceError."""
    begin = time.monotonic()

    def leave() -> None:
        if time.monotonic() - begin > _MEASURE_S:
            raise TimeoutError

    # counting a large disk takes minutes: then answer without numbers
    found: FolderContents | None = None
    with contextlib.suppress(TimeoutError):
        found = measure(Path(move.source), leave, live=True)
    free = _free(move.target)
    if found is not None:
        # checked in the preview too, so that users learn about it before containers stop
        check_room(move, found)
    taken_s = time.monotonic() - begin
    return {
        "source": move.source,
        "target": move.target,
        "file_system": move.file_system,
        "resumes": move.resumes,
        "entries": found.entries if found is not None else None,
        "bytes": found.size if found is not None else None,
        "free": free,
        "containers": list(move.home.probe.running()),
        "down_s": round(_LOOKS * taken_s + _RESTART_S) if found is not None else None,
        "notes": list(move.notes),
    }


def check_room(move: Move, found: FolderContents) -> None:
    """Raises NoSpaceError. Space used by an interrupted copy counts as free."""
    need, free = found.size + RESERVE, _free(move.target)
    if move.resumes:
        free += measure(Path(move.target)).size
    place = os.statvfs(move.target)
    if need > free:
        raise NoSpaceError(
            f"{move.target} has {size_words(free)} free, and {size_words(need)} are needed:"
            f" {size_words(need - free)} are missing"
        )
    # an ext4 made for large files runs out of inodes before bytes; file systems without an inode limit report 0
    if place.f_files and not move.resumes and place.f_favail < found.entries:
        raise NoSpaceError(
            f"the file system of {move.target} has room for {place.f_favail} files, and there are {found.entries}:"
            " format it with more inodes (mkfs.ext4 -i 8192)"
        )


def _free(path: str) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


# the setting


def with_data_root(store: UciStore, before: str, after: str) -> tuple[Package, str]:
    """The package with the new data_root, and the hash of the present one. Raises ConfigError, ConflictError."""
    package, content_hash = load_for_edit(store, PACKAGE)
    section = next((each for each in package.sections if each.type == "globals"), None)
    if section is None:
        raise ConflictError(f"/etc/config/{PACKAGE} has no section globals")
    option = section.get(OPTION)
    # a setting that dockerd does not follow yet would be lost, or the wrong data would be moved
    if option is not None and os.path.normpath(str(option.value)) != os.path.normpath(before):
        raise ConflictError(
            f"data_root is {option.value} in UCI, and dockerd uses {before}: apply that first"
        )
    where = f"{PACKAGE}.{section.name}.{OPTION}"
    return edit.set_value(edit.stage(package), where, after).package, content_hash


# the note that an interrupted copy leaves in its target


def write_note(move: Move) -> None:
    """Writes the note, so that the same move can be continued."""
    note = {"source": move.source, "since": move.since, "boot": _boot()}
    atomic_write(Path(move.target, NOTE), json.dumps(note).encode(), mode=0o600)


def _note_in(path: str) -> dict[str, Any] | None:
    try:
        with open(os.path.join(path, NOTE), "rb") as file:
            found = json_object(file.read(65536))
        return {**found, "since": float(found["since"])}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        # an unreadable note is still a note: the directory is not ours to fill
        return {"source": "something unknown", "since": 0.0}


def _boot() -> str:
    with contextlib.suppress(OSError):
        return _BOOT.read_text().strip()
    return ""
