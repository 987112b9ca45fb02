# SPDX-License-Identifier: GPL-2.0-or-later
"""The files that must outlive everything, written while the disk fails or the power goes.

Each writer of ours changes a file that is there; what it asks of the kernel is recorded, refused, or cut off.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent.dockerd.files import DaemonFiles
from agent.errors import StorageError
from agent.files.atomic import atomic_write
from agent.files.state import StateFile
from agent.files.uci_store import TextUciStore
from agent.model.dockerd.settings import DaemonTarget
from agent.model.observed import Record
from agent.uci.edit import set_value, stage
from tests.support.dockerd import is_root


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """Puts a value into its file; `name` is the file's. `steps`: what it asks of the kernel."""

    name: str
    write: Callable[[Path, str], None]
    steps: tuple[str, ...] = ("open", "fsync", "rename")


def write_plain(folder: Path, value: str) -> None:
    atomic_write(folder / "file", value.encode())


def append_to_state(folder: Path, value: str) -> None:
    record = Record(kind="container", section="web", nonce="n", name=value)
    StateFile(folder / "state.json").put(record)


def write_state(folder: Path, value: str) -> None:
    state = StateFile(folder / "state.json")
    state._place = None  # as after an fsync that failed
    state.put(Record(kind="container", section="web", nonce="n", name=value))


def write_last_good(folder: Path, value: str) -> None:
    files = DaemonFiles(run_dir=folder / "run", state_dir=folder)
    files.write_last_good(DaemonTarget(document={"data-root": value}))


def write_uci(folder: Path, value: str) -> None:
    path = folder / "dockerd"
    if not path.exists():
        path.write_text("config globals 'globals'\n")
    store = TextUciStore(config_dir=folder, override_dir=folder / "override")
    store.commit(set_value(stage(store.load("dockerd")), "dockerd.globals.log_level", value).package)


WRITERS = {
    "any file": Writer(name="file", write=write_plain),
    "the record of what is ours": Writer(name="state.json", write=write_state),
    "a change of what is ours": Writer(name="state.json", write=append_to_state, steps=("fsync",)),
    "the last good daemon.json": Writer(name="daemon-last-good.json", write=write_last_good),
    "a commit to UCI": Writer(name="dockerd", write=write_uci),
}


@pytest.fixture(params=WRITERS.values(), ids=WRITERS.keys())
def writer(request: pytest.FixtureRequest, tmp_path: Path) -> Writer:
    found: Writer = request.param
    found.write(tmp_path, "before")
    return found


def litter(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


# fault 23: what the kernel refuses


STEPS = {"open": "tempfile.mkstemp", "fsync": "os.fsync", "rename": "pathlib.Path.replace"}


REFUSALS = (errno.EIO, errno.EROFS, errno.EDQUOT, errno.ENOSPC)


@pytest.mark.parametrize(
    ("writer", "step", "number"),
    [
        pytest.param(writer, step, number, id=f"{name}-{step}-{number}")
        for name, writer in WRITERS.items()
        for step in writer.steps
        for number in REFUSALS
    ],
)
def test_a_disk_that_refuses_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: Writer, step: str, number: int
) -> None:
    writer.write(tmp_path, "before")
    path = tmp_path / writer.name
    before = path.read_bytes()
    calls: list[object] = []

    def refuse(*words: object, **_: object) -> None:
        calls.append(words)
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(STEPS[step], refuse)
        with pytest.raises((OSError, StorageError), match=os.strerror(number)):
            writer.write(tmp_path, "after")
    assert path.read_bytes() == before
    assert litter(tmp_path) == []
    # after a failed fsync the kernel has dropped the pages: a second one on the same file would lie
    assert len(calls) == 1
    writer.write(tmp_path, "after")
    assert path.read_bytes() != before


@contextlib.contextmanager
def limited(what: int, number: int) -> Iterator[None]:
    """The kernel's own limit on this process."""
    soft, hard = resource.getrlimit(what)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(what, (number, hard))
    try:
        yield
    finally:
        resource.setrlimit(what, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_a_write_that_is_cut_short_leaves_the_old_file(writer: Writer, tmp_path: Path) -> None:
    before = (tmp_path / writer.name).read_bytes()
    with limited(resource.RLIMIT_FSIZE, 10), pytest.raises((OSError, StorageError), match="File too large"):
        writer.write(tmp_path, "after" * 10)
    assert (tmp_path / writer.name).read_bytes() == before
    assert litter(tmp_path) == []


def test_without_a_free_descriptor_the_old_file_stays(tmp_path: Path) -> None:
    """The other writers read their file first, which already fails."""
    write_plain(tmp_path, "before")
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    spare = []
    with contextlib.ExitStack() as stack:
        with limited(resource.RLIMIT_NOFILE, highest + 8), contextlib.suppress(OSError):
            while True:
                spare.append(stack.enter_context(Path("/dev/null").open("rb")))
        with (
            limited(resource.RLIMIT_NOFILE, highest + 8),
            pytest.raises(OSError, match="Too many open files"),
        ):
            write_plain(tmp_path, "after")
    assert spare
    assert (tmp_path / "file").read_text() == "before"
    assert litter(tmp_path) == []


@pytest.mark.skipif(not is_root(), reason="mounting needs root")
def test_a_file_system_that_was_remounted_read_only_leaves_the_old_file(tmp_path: Path) -> None:
    for name, writer in WRITERS.items():
        folder = tmp_path / name
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True)
        try:
            writer.write(folder, "before")
            before = (folder / writer.name).read_bytes()
            subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
            with pytest.raises((OSError, StorageError), match="Read-only"):
                writer.write(folder, "after")
            assert (folder / writer.name).read_bytes() == before
        finally:
            subprocess.run(["umount", folder], check=True)


# fault 24: the power goes


@dataclass
class Journal:
    """What was asked of the disk, in order: `("synced", path, content)`, `("renamed", from, to)`, `("kept", folder)`."""

    events: list[tuple[str, Path, Any]] = field(default_factory=list)

    def record(self, patch: pytest.MonkeyPatch) -> None:
        real_sync, real_replace = os.fsync, Path.replace

        def fsync(descriptor: int) -> None:
            real_sync(descriptor)
            path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            self.events.append(("kept", path, None) if path.is_dir() else ("synced", path, path.read_bytes()))

        def rename(path: Path, target: Path) -> Path:
            self.events.append(("renamed", path, Path(target)))
            return real_replace(path, target)

        patch.setattr(os, "fsync", fsync)
        patch.setattr("pathlib.Path.replace", rename)

    def survivors(self, target: Path, before: bytes, *, events: int) -> set[bytes]:
        """All that the disk may hold as `target` when the power goes after so many events.

        A rename may or may not have reached it until its folder was synced. A file that was renamed without having
        been synced may hold anything: b"".
        """
        synced: dict[Path, bytes] = {}
        sure = latest = before
        possible = {before}
        for kind, path, detail in self.events[:events]:
            if kind == "synced" and path == target:  # appended to; a part of that is as good as nothing of it
                sure = latest = detail
                possible = {detail}
            elif kind == "synced":
                synced[path] = detail
            elif kind == "renamed" and detail == target:
                latest = synced.get(path, b"")
                possible = {sure, latest}
            elif kind == "kept" and path == target.parent and len(possible) > 1:
                sure, possible = latest, {latest}
        return possible


def test_power_that_goes_at_any_moment_leaves_the_old_file_or_the_new_one(
    writer: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / writer.name
    before = path.read_bytes()
    journal = Journal()
    with monkeypatch.context() as patch:
        journal.record(patch)
        writer.write(tmp_path, "after")
    after = path.read_bytes()
    assert b"after" in after
    left = [journal.survivors(path, before, events=n) for n in range(len(journal.events) + 1)]
    assert left[0] == {before}
    assert set().union(*left) == {before, after}
    assert left[-1] == {after}, "who was told that it is written may rely on it"


def test_a_writer_that_does_not_sync_would_be_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal itself: without fsync an empty file is possible, without the folder's the old one."""
    path = tmp_path / "file"
    path.write_text("before")
    journal = Journal()
    with monkeypatch.context() as patch:
        journal.record(patch)
        (tmp_path / "new").write_text("after")
        (tmp_path / "new").replace(path)
    assert journal.survivors(path, b"before", events=1) == {b"before", b""}
