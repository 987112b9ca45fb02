# SPDX-License-Identifier: GPL-2.0-or-later
"""The records on disk: several threads at once, one write for those that wait, and a disk that takes no more."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from agent.errors import StorageError
from agent.files import state as module
from agent.files.atomic import atomic_write
from agent.files.state import StateFile
from agent.model.identity import spec_hash
from agent.model.observed import Record
from agent.wire import record_lines

DATA = Path(__file__).parent.parent / "data"


def record(number: int, **more: Any) -> Record:
    return Record(kind="container", section=f"s{number}", nonce=f"n{number}", name=f"c{number}", **more)


class Disk:
    """Stands between the file and the disk: holds writes up until `go`, counts them and their bytes, and refuses what
    is too large.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.writes = self.bytes = 0
        self.limit = 10**9
        self.held, self.go = threading.Event(), threading.Event()
        self.go.set()
        append = module._write_all

        def write_all(descriptor: int, data: bytes) -> None:
            self._take(data)
            append(descriptor, data)

        def write_whole(path: Path, data: bytes, **how: Any) -> None:
            self._take(data)
            atomic_write(path, data, **how)

        monkeypatch.setattr(module, "_write_all", write_all)
        monkeypatch.setattr(module, "atomic_write", write_whole)

    def _take(self, data: bytes) -> None:
        self.held.set()
        assert self.go.wait(20)
        self.writes += 1
        self.bytes += len(data)
        if len(data) > self.limit:
            raise OSError(errno.ENOSPC, "No space left on device")


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
    again.fold()
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
    disk.limit = 600  # room for the one that is held up, and none for a long one
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


# what a change costs, and what the power leaves of it


def a_record(number: int) -> Record:
    """As large as a common section makes one."""
    spec = {
        "image": "docker.io/library/nginx:1.27",
        "env": [[f"NAME_{n}", "sha256:0123456789abcdef"] for n in range(5)],
        "mounts": [
            {"source": "/mnt/sda1/data", "target": f"/data/{n}", "read_only": False} for n in range(2)
        ],
        "ports": [
            {"container_port": 80, "host_port": 8000 + n, "protocol": "tcp", "host_ip": ""} for n in range(2)
        ],
        "memory": 67108864,
    }
    return record(number, spec=spec, spec_hash=spec_hash(spec), image_id="sha256:" + "0" * 64)


@pytest.mark.parametrize("before", [0, 100, 1000])
def test_a_container_costs_the_flash_4_kb_at_most_however_many_there_are(
    tmp_path: Path, disk: Disk, before: int
) -> None:
    path = tmp_path / "state.json"
    file = StateFile(path)
    file.put(*(a_record(number) for number in range(before)))
    disk.bytes, count = 0, 300
    for number in range(before, before + count):
        file.put(a_record(number))
        file.change(f"n{number}", lasting=False, object_id=f"{number:064d}")
    assert disk.bytes / count <= 4096
    disk.bytes = 0
    StateFile(path).put(record(5000))  # the first change of an agent that was started again
    assert disk.bytes <= 4096
    assert len(on_disk(path)) == before + count + 1


def test_only_what_has_to_last_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = StateFile(tmp_path / "state.json")
    file.put(record(0))
    synced: list[int] = []
    monkeypatch.setattr("os.fsync", synced.append)
    file.put(record(1))
    assert len(synced) == 1
    file.change("n1", lasting=False, object_id="id1")
    file.drop("n0", lasting=False)
    assert len(synced) == 1
    file.change("n1", object_id="id1")  # nothing new, and what there is has to last now
    assert len(synced) == 2
    file.change("n1", object_id="id1")
    assert len(synced) == 2


def some_changes(path: Path) -> list[tuple[int, dict[str, Record]]]:
    """Makes a file by changes; after each of them, its size and what it says."""
    file, found = StateFile(path), []
    steps: list[Callable[[], Any]] = [
        lambda: file.put(record(1)),
        lambda: file.put(record(2), record(3)),
        lambda: file.change("n1", object_id="id1"),
        lambda: file.put(record(4, swap="new", partner="n1"), record(1, object_id="id1")),
        lambda: file.put(record(4), record(1, object_id="id1", swap="retired")),
        lambda: file.drop("n1"),
    ]
    for step in steps:
        step()
        found.append((path.stat().st_size, {each.nonce: each for each in file.records()}))
    return found


@pytest.mark.parametrize("tail", [b"", b"\0" * 700, b"\xff" * 5], ids=["cut", "zeros", "junk"])
def test_a_change_that_the_power_cut_short_does_not_count_and_all_before_it_does(
    tmp_path: Path, tail: bytes
) -> None:
    path = tmp_path / "state.json"
    states = some_changes(path)
    data, first = path.read_bytes(), states[0][0]
    for size in range(first, len(data)):
        path.write_bytes(data[:size] + tail)
        expected = [state for end, state in states if end <= size][-1]
        assert on_disk(path) == expected, size
        StateFile(path).put(record(9))
        assert on_disk(path) == {**expected, "n9": record(9)}, size
    assert [item.name for item in tmp_path.iterdir()] == ["state.json"]


def test_changes_behind_a_damaged_one_do_not_count_and_a_copy_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    states = some_changes(path)
    data = bytearray(path.read_bytes())
    data[states[1][0] + 20] ^= 1  # in the third change
    path.write_bytes(data)
    assert on_disk(path) == states[1][1]
    assert path.with_name("state.json.bad").read_bytes() == data
    StateFile(path).put(record(9))
    assert on_disk(path) == {**states[1][1], "n9": record(9)}


def test_a_file_of_version_0_1_0_is_read_and_goes_on(tmp_path: Path) -> None:
    """As that version wrote it: every field, one record a line."""
    path = tmp_path / "state.json"
    path.write_bytes((DATA / "state-0.1.0.json").read_bytes())
    file = StateFile(path)
    assert file.instance == "4f1c0a9b72de"
    assert [(r.section, r.kind, r.object_id[:4], r.spec_hash[:8]) for r in file.records()] == [
        ("web", "container", "8c41", "v1:a138a"),
        ("lan", "network", "5d3e", "v1:cdc97"),
        ("data", "volume", "data", "v1:44136"),
    ]
    before = path.read_bytes()
    file.change(file.records()[0].nonce, failed_hash="v1:0")
    assert path.read_bytes().startswith(before)
    assert StateFile(path).records() == file.records()


def test_what_a_stopped_agent_leaves_version_0_1_0_reads(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    some_changes(path)
    StateFile(path).fold()
    found = json.loads(path.read_bytes())  # that version takes the file as one JSON document
    assert [item["nonce"] for item in found["records"]] == ["n2", "n3", "n4"]
    before = path.stat().st_ino
    StateFile(path).fold()  # nothing to fold, nothing written
    assert path.stat().st_ino == before


def test_a_file_that_somebody_put_in_its_place_is_not_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    file = StateFile(path)
    file.put(record(1))
    for replace_it in (lambda: path.write_text("{}"), path.unlink, lambda: path.write_bytes(b"")):
        replace_it()
        file.put(record(2))
        file.drop("n2")
        assert on_disk(path) == {"n1": record(1)}


def test_every_field_of_a_record_is_looked_at_when_it_is_read() -> None:
    assert {str(each.type) for each in fields(Record)} <= record_lines._IS.keys()
