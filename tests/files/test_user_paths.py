# SPDX-License-Identifier: GPL-2.0-or-later
"""Looks at users' paths: each kind of path that fails or hangs costs its own question only."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.errors import PathError
from agent.files.user_paths import (
    FILE_LIMIT,
    UserPaths,
    file_bytes,
    is_mounted,
    is_read_only,
    mode_of,
    real_path,
)
from tests.support.hanging import HangingMount

DEADLINE_S = 0.3
QUESTIONS = [mode_of, is_mounted, is_read_only, real_path, file_bytes]


@pytest.fixture
def paths() -> UserPaths:
    return UserPaths(deadline_s=DEADLINE_S)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "not seen in time"
        time.sleep(0.02)


def _looks() -> int:
    return sum(thread.name == "paths" for thread in threading.enumerate())


def test_what_is_there_and_what_is_not(paths: UserPaths, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a=1\n")
    assert paths.ask(mode_of, str(tmp_path / "none")) is None
    assert paths.ask(mode_of, str(tmp_path / "file" / "below")) is None
    assert paths.ask(mode_of, str(tmp_path / "file"))
    assert paths.ask(is_mounted, "/proc") and not paths.ask(is_mounted, str(tmp_path))
    assert not paths.ask(is_mounted, str(tmp_path / "none"))
    assert paths.ask(is_read_only, "/sys/fs/cgroup/none/none") in (True, False)
    assert paths.read_text(str(tmp_path / "file")) == "a=1\n"
    (tmp_path / "link").symlink_to("file")
    assert paths.ask(real_path, str(tmp_path / "link")) == str(tmp_path / "file")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/srv/" + "a" * 300, "File name too long"),
        ("/" + "b/" * 3000, "File name too long"),
        ("/a\0b", "null"),
        ("/proc/1/task/1/fd/999999x/\udcff", ""),
        ("LOOP", "Too many levels of symbolic links"),
    ],
)
def test_a_path_that_cannot_be_has_a_reason(paths: UserPaths, tmp_path: Path, path: str, reason: str) -> None:
    if path == "LOOP":
        (tmp_path / "x").symlink_to("y")
        (tmp_path / "y").symlink_to("x")
        path = str(tmp_path / "x" / "z")
    view = paths.view((question, path) for question in QUESTIONS)
    for question in (mode_of, file_bytes):
        try:
            assert view(question, path) is None
        except PathError as exc:
            assert reason in str(exc)


@pytest.mark.parametrize(
    "kind", ["fifo", "endless", "device", "folder", "socket", "large", "absent", "binary"]
)
def test_only_a_regular_file_of_some_size_is_read(paths: UserPaths, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    kinds = {"fifo": "a named pipe", "folder": "a folder", "socket": "a socket"}
    wanted = f"is {kinds.get(kind, 'a character device')}, not a regular file"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "endless":
        path = Path("/dev/zero")
    elif kind == "device":
        path = Path("/dev/tty")
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    elif kind == "large":
        path.write_bytes(bytes(FILE_LIMIT + 1))
        wanted = "is larger than 1 MiB"
    elif kind == "absent":
        wanted = "No such file"
    else:
        path.write_bytes(b"a=\xff\n")
        wanted = "is not UTF-8 text (byte 2)"
    with pytest.raises(PathError, match=wanted.replace("(", r"\(").replace(")", r"\)")):
        paths.read_text(str(path))


def test_a_mount_that_hangs_costs_what_is_on_it_and_no_more_than_a_thread(tmp_path: Path) -> None:
    woken = threading.Event()
    paths = UserPaths(deadline_s=DEADLINE_S, woken=woken.set)
    (tmp_path / "here").write_text("fine")
    with HangingMount(tmp_path / "nas") as mount:
        (tmp_path / "link").symlink_to("nas/deep/../folder")
        inside = [
            str(tmp_path / name) for name in ("nas", "nas/a", "nas/b/../c", "link", "link/x", "./nas//d")
        ]
        for _ in range(3):
            began = time.monotonic()
            asked = [(question, path) for path in [*inside, str(tmp_path / "here")] for question in QUESTIONS]
            view = paths.view(asked)
            assert view(file_bytes, str(tmp_path / "here")) == b"fine"
            for path in inside:
                with pytest.raises(PathError, match="nas does not answer"):
                    view(mode_of, path)
        assert time.monotonic() - began < DEADLINE_S, "once it is known, it costs nothing"
        assert paths.hung() == (str(mount.path),)
        assert _looks() <= 4
        mount.die()
        assert woken.wait(10)
        with pytest.raises(PathError, match="Transport endpoint is not connected"):
            paths.ask(mode_of, str(tmp_path / "nas/a"))
    _until(lambda: not paths.hung() and not _looks())
    assert paths.ask(mode_of, str(tmp_path / "nas/a")) is None


def test_many_who_ask_at_once_do_not_multiply_threads_for_good(tmp_path: Path) -> None:
    paths = UserPaths(deadline_s=DEADLINE_S)
    with HangingMount(tmp_path / "nas"):
        failed: list[str] = []

        def ask() -> None:
            for _ in range(5):
                try:
                    paths.ask(mode_of, str(tmp_path / "nas/a"))
                except PathError as exc:
                    failed.append(str(exc))

        crowd = [threading.Thread(target=ask) for _ in range(10)]
        for one in crowd:
            one.start()
        for one in crowd:
            one.join(20)
        assert len(failed) == 50
        assert _looks() <= 20
    _until(lambda: not _looks())


def test_a_thousand_looks_are_one_thread(paths: UserPaths, tmp_path: Path) -> None:
    view = paths.view((mode_of, str(tmp_path / str(number))) for number in range(1000))
    before = threading.active_count()
    assert all(view(mode_of, str(tmp_path / str(number))) is None for number in range(1000))
    assert threading.active_count() <= before
