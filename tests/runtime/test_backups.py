# SPDX-License-Identifier: GPL-2.0-or-later
"""When backups are due, what their targets promise, and what is remembered of them."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.data import targets
from agent.data.backups import RETRY_S, Backups, Result
from agent.data.targets import CommandTarget, FolderTarget
from agent.errors import ConfigError, DataError, PathError
from agent.model.resources import Backup, Desired
from agent.model.updates import parse_window
from agent.status.board import StatusBoard
from agent.status.conditions import ConditionType

HOUR = 3600.0


def backups(folder: Path, now: list[float], **options: Any) -> Backups:
    nothing: Any = None
    section = Backup(name="b", volumes=("v",), target=str(folder), **options)
    desired = Desired(backups=(section,))
    return Backups(
        nothing,
        StatusBoard(clock=lambda: now[0]),
        lambda: desired,
        folder / "memory.json",
        wall=lambda: now[0],
    )


def at(hour: int, day: int = 0) -> float:
    """Local time."""
    return time.mktime((2026, 6, 3 + day, hour, 30, 0, 0, 0, -1))


def test_a_daily_backup_is_due_once_in_its_window_and_again_after_a_failure(tmp_path: Path) -> None:
    now = [at(1)]
    made = backups(tmp_path, now, schedule="daily", window=parse_window("02:00-05:00"))
    (section,) = made._sections()
    assert not made._is_due(section)
    now[0] = at(2)
    assert made._is_due(section)
    made._note("b", Result(ended=now[0], succeeded=0, message="the disk is away"))
    assert not made._is_due(section)
    now[0] += RETRY_S
    assert made._is_due(section)
    made._note("b", Result(ended=now[0], succeeded=now[0]))
    now[0] = at(4)
    assert not made._is_due(section)
    now[0] = at(3, day=1)
    assert made._is_due(section)
    after_a_restart = backups(tmp_path, now, schedule="daily", window=parse_window("02:00-05:00"))
    assert after_a_restart._is_due(section)
    now[0] = at(4)
    assert not after_a_restart._is_due(section)


def test_a_failure_is_on_the_board_after_a_restart_and_goes_with_its_section(tmp_path: Path) -> None:
    now = [at(1)]
    backups(tmp_path, now)._note("b", Result(ended=1.0, succeeded=0.0, message="full", no_space=True))
    made = backups(tmp_path, now)
    made._show()
    assert made._board.reason("backup:b", ConditionType.BACKUP_FAILED) == "NoSpace"
    made._desired = Desired
    made._show()
    assert not made._board.keys()


def test_what_cannot_be_asked_is_told(tmp_path: Path) -> None:
    made = backups(tmp_path, [0.0])
    with pytest.raises(ConfigError, match="there are: b"):
        made.start(("c",))
    with pytest.raises(ConfigError, match="it saves v"):
        made.start_restore("b", volume="w")


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_an_archive_appears_when_it_is_whole(tmp_path: Path) -> None:
    target = FolderTarget(str(tmp_path))
    made = await target.take("v", "b-v-20260101T000000Z.tar", pieces(b"x" * 1000, b"y"), {})
    assert made.path is not None
    assert made.path.read_bytes() == b"x" * 1000 + b"y"
    assert stat.S_IMODE(os.stat(made.path).st_mode) == 0o600
    await target.verify(made.path)
    made.path.write_bytes(b"z")
    with pytest.raises(DataError, match="is damaged"):
        await target.verify(made.path)

    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise DataError("the engine went away")

    with pytest.raises(DataError, match="went away"):
        await target.take("v", "b-v-20260101T000001Z.tar", broken(), {})
    assert set(os.listdir(tmp_path)) == {made.path.name, f"{made.path.name}.sha256"}


async def test_archives_of_others_are_left_alone(tmp_path: Path) -> None:
    target = FolderTarget(str(tmp_path))
    for number in range(4):
        await target.take("v", f"b-v-2026010{number + 1}T000000Z.tar", pieces(b"x"), {})
    for name in ("b-v-2-20260101T000000Z.tar", "a-v-20260101T000000Z.tar", "b-v.tar", ".b-v.tar.partial"):
        (tmp_path / name).write_bytes(b"")
    await target.keep_only("b", ["v"], 2)
    await target.tidy("b")
    found = await target.archives("b", ["v"])
    assert [each.path.name for each in found if each.path] == [
        "b-v-20260104T000000Z.tar",
        "b-v-20260103T000000Z.tar",
    ]
    assert [(each.at, each.sha256) for each in found] == [
        (at, hashlib.sha256(b"x").hexdigest()) for at in (1767484800.0, 1767398400.0)
    ]
    left = {name for name in os.listdir(tmp_path) if not name.endswith(".sha256")}
    assert left == {
        *(each.path.name for each in found if each.path),
        *("b-v-2-20260101T000000Z.tar", "a-v-20260101T000000Z.tar", "b-v.tar"),
    }


async def test_what_stands_in_the_place_of_an_archive_or_its_sum_costs_only_itself(tmp_path: Path) -> None:
    target = FolderTarget(str(tmp_path))
    made = await target.take("v", "b-v-20260101T000000Z.tar", pieces(b"x"), {})
    assert made.path is not None
    os.mkfifo(
        tmp_path / "b-v-20260102T000000Z.tar"
    )  # none of these is an archive, or counts as one that is kept
    (tmp_path / "b-v-20260103T000000Z.tar").mkdir()
    (tmp_path / "b-v-20260104T000000Z.tar").symlink_to("/dev/zero")
    (tmp_path / "b-v-20260105T000000Z.tar").symlink_to("b-v-20260105T000000Z.tar")
    digest = made.path.with_name(f"{made.path.name}.sha256")
    for bad in ("fifo", "/dev/zero", "loop", "folder", "gone", "text"):
        digest.unlink()
        match bad:
            case "fifo":
                os.mkfifo(digest)
            case "loop":
                digest.symlink_to(digest.name)
            case "folder":
                digest.mkdir()
            case "gone":
                digest.symlink_to(digest.with_name("nothing"))
            case "text":
                digest.write_bytes(b"\xff" * 70)
            case _:
                digest.symlink_to(bad)
        await target.keep_only("b", ["v"], 1)
        assert [each.path for each in await target.archives("b", ["v"])] == [made.path], bad
        if bad == "gone":
            await target.verify(made.path)  # as if there were none
        else:
            with pytest.raises((DataError, PathError)):
                await target.verify(made.path)
        if bad == "folder":
            digest.rmdir()
            digest.touch()


async def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises((DataError, PathError), match="mounted"):
        await FolderTarget(str(tmp_path / "usb")).require()
    assert not (tmp_path / "usb").exists()
    (tmp_path / "file").touch()
    for target in ("file", "file/below"):
        with pytest.raises(DataError) as told:
            await FolderTarget(str(tmp_path / target)).require()
        assert str(told.value) == f"{tmp_path}/file is a file, not a folder"
    (tmp_path / "db.tar").mkdir()
    with pytest.raises(DataError, match=r"db\.tar is a folder, not an archive"):
        await FolderTarget(str(tmp_path)).verify(tmp_path / "db.tar")


async def test_a_command_that_fails_or_hangs_is_told_and_ended() -> None:
    with pytest.raises(DataError, match="ended with 4: no repository"):
        await CommandTarget("echo no repository >&2; exit 4").take("v", "f", pieces(b"x" * 10**6), {})
    for size in (10, 100_000, 10**6):  # in the pipe, in our buffer too, more than both hold
        hangs = CommandTarget("exec sleep 60", stall_s=0.2)
        with pytest.raises(DataError, match="did nothing for"):
            await asyncio.wait_for(hangs.take("v", "f", pieces(b"x" * size), {}), 10)
    took = await CommandTarget('test "$N" = n && test $(wc -c) = 7').take(
        "v", "f", pieces(b"1234567"), {"N": "n"}
    )
    assert (took.size, took.path) == (7, None)


async def test_what_a_command_leaves_running_does_not_hold_the_backup_up() -> None:
    leaves = CommandTarget("sleep 60 & echo saved; cat >/dev/null; exit 3")
    with pytest.raises(DataError, match="ended with 3: saved"):
        await asyncio.wait_for(leaves.take("v", "f", pieces(b"x"), {}), 10)


async def test_a_folder_that_hangs_ends_the_backup_and_keeps_no_agent_from_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "STALL_S", 0.1)
    answers = threading.Event()
    monkeypatch.setattr(targets, "_created", lambda path: answers.wait())
    with pytest.raises(DataError, match="has not answered"):
        await FolderTarget(str(tmp_path)).take("v", "b-v-20260101T000000Z.tar", pieces(b"x"), {})
    hanging = [thread for thread in threading.enumerate() if thread.name == "backup"]
    assert hanging
    assert all(thread.daemon for thread in hanging)
    answers.set()


async def test_what_a_killed_agent_left_unfinished_goes_without_a_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.data.backups.LOOK_S", 0.01)
    folder = tmp_path / "disk"
    made = backups(folder, [at(1)])
    left = folder / ".b-v-20260101T000000Z.tar.partial"
    async with made.running():
        await asyncio.sleep(0.05)  # the disk is not there yet
        async with made._tidying:  # as a backup does
            made._doing = {"what": "backup", "names": ["b"]}
            folder.mkdir()
            left.write_bytes(b"x")
        await asyncio.sleep(0.05)
        assert left.exists(), "it may be the one that is being written"
        made._doing = {}
        async with asyncio.timeout(10):
            while left.exists():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        left.write_bytes(b"x")
        await asyncio.sleep(0.05)
        assert left.exists(), "looked for once, not at each look"
