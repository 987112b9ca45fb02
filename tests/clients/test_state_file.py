# SPDX-License-Identifier: GPL-2.0-or-later
"""The records on disk: several threads at once, one write for those that wait, and a disk that takes no more."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.clients import state_file as module
from agent.clients.files import atomic_write
from agent.clients.state_file import StateFile
from agent.errors import StorageError
from agent.model.identity import spec_hash
from agent.model.observed import Record


def record(number: int, **more: Any) -> Record:
    return Record(kind="container", section=f"s{number}", nonce=f"n{number}", name=f"c{number}", **more)


class Disk:
    """Stands between the file and the disk: holds writes up until `go`, counts them, and refuses what is too large."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.writes = 0
        self.limit = 10**9
        self.held, self.go = threading.Event(), threading.Event()
        self.go.set()
        monkeypatch.setattr(module, "atomic_write", self._write)

    def _write(self, path: Path, data: bytes, **how: Any) -> None:
        self.held.set()
        assert self.go.wait(20)
        self.writes += 1
        if len(data) > self.limit:
            raise OSError(errno.ENOSPC, "No space left on device")
        atomic_write(path, data, **how)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@contextmanager
def waiting(file: StateFile, disk: Disk, *changes: Callable[[], Any]) -> Iterator[list[Future[Any]]]:
    """All `changes` wait while another one is held up on its way to the disk, which goes on after the block."""
    disk.held.clear()
    disk.go.clear()
    with ThreadPoolExecutor(len(changes) + 1) as pool:
        pool.submit(file.put, record(0))
        assert disk.held.wait(20)
        asked = [pool.submit(change) for change in changes]
        while len(file._waiting) < len(changes):
            threading.Event().wait(0.001)
        disk.writes = 0
        yield asked
        disk.go.set()


def on_disk(path: Path) -> dict[str, Record]:
    return {found.nonce: found for found in StateFile(path).records()}


def test_what_was_written_is_read_again_whole(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    file = StateFile(path)
    spec: dict[str, Any] = {"env": {"A": "b"}, "ports": [1, 2]}
    more: dict[str, Any] = {"joined": ("x", "y"), "removed_at": 1.5, "swap": "new"}
    full = record(2, spec=spec, spec_hash=spec_hash(spec), **more)
    file.put(record(1), full)
    file.change("n1", object_id="id1")
    again = StateFile(path)
    assert again.instance == file.instance
    assert again.records() == file.records() == (record(1, object_id="id1"), full)
    assert path.stat().st_mode & 0o777 == 0o600
    again.drop("n2")
    again.drop("n1")
    assert (StateFile(path).instance, StateFile(path).records()) == (file.instance, ())
    json.loads(path.read_text())


def test_an_unchanged_record_is_not_written_again(tmp_path: Path, disk: Disk) -> None:
    file = StateFile(tmp_path / "state.json")
    file.put(record(1))
    for _ in range(2):
        file.put(record(1))
        file.change("n1", object_id="")
        file.drop("n7")
    assert disk.writes == 1


def test_changes_that_wait_for_a_write_are_written_together(tmp_path: Path, disk: Disk) -> None:
    path = tmp_path / "state.json"
    file = StateFile(path)
    file.put(*(record(number) for number in range(1, 5)))
    with waiting(
        file,
        disk,
        lambda: file.put(record(9)),
        lambda: file.change("n1", object_id="id1"),
        lambda: file.change("n2", object_id="id2"),
        lambda: file.drop("n3"),
    ) as asked:
        assert not any(each.done() for each in asked)
        assert file.get("n9") is None  # nothing counts before it is on the disk
    assert [each.exception() for each in asked] == [None] * 4
    assert disk.writes == 2  # the one that was held up, and one for all four
    assert on_disk(path) == {found.nonce: found for found in file.records()}
    assert {nonce: found.object_id for nonce, found in on_disk(path).items()} == {
        "n0": "",
        "n1": "id1",
        "n2": "id2",
        "n4": "",
        "n9": "",
    }


def test_of_changes_that_wait_together_each_fails_for_itself(tmp_path: Path, disk: Disk) -> None:
    path = tmp_path / "state.json"
    file = StateFile(path)
    file.put(record(1), record(2))
    disk.limit = len(path.read_bytes()) + 600  # room for the one that is held up, and none for a long one
    with waiting(
        file,
        disk,
        lambda: file.change("n1", failed_hash="x" * 1000),
        lambda: file.change("n2", object_id="id2"),
        lambda: file.change("gone", object_id="id3"),
    ) as (long, short, gone):
        pass
    error = long.exception()
    assert isinstance(error, StorageError)
    assert error.full
    assert short.result() == record(2, object_id="id2")
    assert isinstance(gone.exception(), KeyError)
    assert on_disk(path) == {"n0": record(0), "n1": record(1), "n2": record(2, object_id="id2")}


def test_a_defect_of_one_change_takes_no_other_with_it(tmp_path: Path, disk: Disk) -> None:
    path = tmp_path / "state.json"
    file = StateFile(path)
    file.put(record(1))
    changes = [lambda n=n: file.put(record(n)) for n in range(2, 6)]  # type: ignore[misc]
    with waiting(file, disk, lambda: file.change("n1", no_such_field=1), *changes) as (bad, *good):
        pass
    assert isinstance(bad.exception(), TypeError)
    assert [each.exception() for each in good] == [None] * 4
    assert set(on_disk(path)) == {f"n{number}" for number in range(6)}


def test_threads_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    file = StateFile(path)

    def live(number: int) -> None:
        file.put(record(number))
        file.change(f"n{number}", object_id=f"id{number}")
        if number % 3 == 0:
            file.drop(f"n{number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(live, range(60)))
    expected = {f"n{n}": record(n, object_id=f"id{n}") for n in range(60) if n % 3}
    assert on_disk(path) == expected
    assert file.records() == StateFile(path).records()


def test_a_file_that_the_disk_does_not_give_disowns_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.json"
    StateFile(path).put(record(1))
    before = path.read_bytes()
    with monkeypatch.context() as patch:

        def fails(_: Path) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

        patch.setattr(Path, "read_bytes", fails)
        with pytest.raises(StorageError, match=r"state\.json cannot be read: Input/output error"):
            StateFile(path)
    assert path.read_bytes() == before
    assert [item.section for item in StateFile(path).records()] == ["s1"]
