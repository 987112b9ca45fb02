# SPDX-License-Identifier: GPL-2.0-or-later
"""The copy of Docker's data: all that an engine keeps is in it, however it was cut."""

from __future__ import annotations

import os
import random
import socket
import stat
import struct
import subprocess
import time
from pathlib import Path

import pytest

from agent.errors import DataError
from agent.storage.copying import MARGIN_S, NOTE, TreeCopy, measure, unfit, written

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="owners and device nodes need root")
NOW = 1e12  # later than any change: only what differs is copied again


def copied(
    source: Path, target: Path, *, since: float = NOW, live: bool = False, thorough: bool = False
) -> TreeCopy:
    target.mkdir(exist_ok=True)
    made = TreeCopy(source=source, target=target, since=since, live=live, thorough=thorough)
    made.run()
    return made


def fill(root: Path) -> None:
    """One of each kind of thing that layers, volumes and engines keep."""
    root.mkdir()
    (root / "overlay2" / "a" / "diff").mkdir(parents=True)
    diff = root / "overlay2" / "a" / "diff"
    (diff / "program").write_bytes(b"x" * 70_000)
    (diff / "program").chmod(0o4755)
    os.link(diff / "program", root / "overlay2" / "program-too")
    os.symlink("/etc/passwd", diff / "link")
    os.symlink("nowhere", diff / "dangling")
    os.mkfifo(diff / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "s"))
    os.rename(root / "s", diff / "socket")
    with (diff / "sparse").open("wb") as file:
        file.write(b"head")
        file.seek(8 * 1024 * 1024)
        file.write(b"tail")
        file.truncate(16 * 1024 * 1024)
    (diff / os.fsdecode(b"not-utf8-\xff\n")).write_bytes(b"name")
    (diff / "empty").touch()
    (root / "volumes" / "v" / "_data").mkdir(parents=True, mode=0o750)
    os.utime(diff / "empty", ns=(1, 123_456_789_012_345_678))
    if os.geteuid() == 0:
        os.mknod(diff / "whiteout", stat.S_IFCHR | 0o600, 0)
        os.mknod(diff / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.setxattr(diff, "trusted.overlay.opaque", b"y")
        os.setxattr(diff / "program", "user.note", b"text")
        capability = bytes.fromhex(
            "0100000200040000000000000000000000000000"
        )  # net_bind_service, permitted and effective
        os.setxattr(diff / "empty", "security.capability", capability)
        os.setxattr(diff / "link", "trusted.overlay.origin", b"of a link", follow_symlinks=False)
        os.chown(diff / "sparse", 1000, 1001)
        os.chown(diff / "link", 7, 8, follow_symlinks=False)
        # version 2, then tag, rights and id of each: owner, user 33, group, mask, others (linux/posix_acl_xattr.h)
        entries = ((1, 7, -1), (2, 7, 33), (4, 5, -1), (16, 7, -1), (32, 0, -1))
        access = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
        os.setxattr(root / "volumes" / "v" / "_data", "system.posix_acl_access", access)


def listing(root: Path) -> dict[str, tuple[object, ...]]:
    """All that has to be the same, seen by the tools of the standard library and not by what is tested."""
    found = {}
    numbers: dict[int, str] = {}
    for folder, folders, files in os.walk(root):
        for name in sorted([*folders, *files]):
            path = Path(folder, name)
            entry = path.lstat()
            attributes = {
                k: os.getxattr(path, k, follow_symlinks=False)
                for k in os.listxattr(path, follow_symlinks=False)
            }
            relative = str(path.relative_to(root))
            first = numbers.setdefault(entry.st_ino, relative)
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            link = os.readlink(path) if path.is_symlink() else ""
            device = entry.st_rdev if stat.S_ISCHR(entry.st_mode) else 0
            time_ns = entry.st_mtime_ns
            found[relative] = (
                entry.st_mode,
                entry.st_uid,
                entry.st_gid,
                time_ns,
                device,
                link,
                content,
                attributes,
                first,
            )
    return found


def test_everything_is_in_the_copy(tmp_path: Path) -> None:
    source, target = tmp_path / "docker", tmp_path / "disk"
    fill(source)
    copied(source, target)
    assert listing(target) == listing(source)
    assert measure(target) == measure(source)
    assert (target / "overlay2/a/diff/sparse").stat().st_blocks * 512 < 1024 * 1024, "holes stay holes"


def test_what_is_there_is_not_copied_again_but_what_changed_is(tmp_path: Path) -> None:
    source, target = tmp_path / "docker", tmp_path / "disk"
    fill(source)
    copied(source, target)
    program = target / "overlay2/a/diff/program"
    before, wrong = program.stat().st_ino, target / "overlay2/a/diff/more"
    wrong.mkdir()
    (wrong / "file").touch()
    (target / "lost+found").mkdir()
    (target / NOTE).touch()
    changed = source / "overlay2/a/diff/empty"
    changed.unlink()
    changed.mkdir()
    same = source / "overlay2/a/diff/sparse"
    entry = same.stat()
    copied(source, target)
    assert program.stat().st_ino == before
    assert (target / NOTE).exists()
    assert (target / "lost+found").exists()
    (target / NOTE).unlink()
    (target / "lost+found").rmdir()
    assert listing(target) == listing(source)

    # as a package manager does: other content, the same size and time; only its ctime tells
    since = time.time() - 1
    with same.open("r+b") as file:
        file.write(b"HEAD")
    os.utime(same, ns=(entry.st_atime_ns, entry.st_mtime_ns))
    copied(source, target, since=since)
    assert listing(target) == listing(source)


def test_what_a_power_cut_lost_of_a_copy_is_found_by_reading(tmp_path: Path) -> None:
    source, target = tmp_path / "docker", tmp_path / "disk"
    fill(source)
    copied(source, target)
    lost = target / "overlay2/a/diff/program"
    entry = lost.stat()
    lost.write_bytes(b"\0" * entry.st_size)
    os.utime(lost, ns=(entry.st_atime_ns, entry.st_mtime_ns))
    copied(source, target)
    assert listing(target) != listing(source)
    copied(source, target, thorough=True)
    assert listing(target) == listing(source)


@pytest.mark.parametrize("seed", range(6))
def test_a_copy_that_is_cut_anywhere_is_completed(tmp_path: Path, seed: int) -> None:
    source, target = tmp_path / "docker", tmp_path / "disk"
    fill(source)
    choice = random.Random(seed)
    target.mkdir()
    for _ in range(3):
        left = choice.randrange(30)

        def check() -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt

        try:
            TreeCopy(source=source, target=target, since=NOW).run(check)
        except KeyboardInterrupt:
            name = choice.choice(["x", "overlay2/a/diff/y", "overlay2/a/diff/program"])
            (source / name).write_bytes(choice.randbytes(choice.randrange(9)))
    copied(source, target, since=time.time() - MARGIN_S)
    assert listing(target) == listing(source)


def test_hard_links_that_moved_are_followed(tmp_path: Path) -> None:
    source, target = tmp_path / "docker", tmp_path / "disk"
    source.mkdir()
    for name in "abc":
        (source / name).write_text("same")
        os.utime(source / name, ns=(5, 5))
    os.link(source / "a", source / "d")
    copied(source, target)
    (source / "d").unlink()
    os.link(source / "b", source / "d")
    copied(source, target)
    assert listing(target) == listing(source)


def test_links_of_containers_lead_nowhere(tmp_path: Path) -> None:
    """A container can exchange a folder of its volume for a link at any moment."""
    source, target, secret = tmp_path / "docker", tmp_path / "disk", tmp_path / "secret"
    (secret / "inside").mkdir(parents=True)
    (secret / "inside" / "shadow").write_text("root")
    (source / "v").mkdir(parents=True)
    (source / "v" / "file").touch()
    swapped = False

    def check() -> None:
        nonlocal swapped
        if not swapped:
            swapped = True
            os.rename(source / "v", source / "w")
            os.symlink(secret / "inside", source / "v")

    target.mkdir()
    TreeCopy(source=source, target=target, since=NOW, live=True).run(check)
    assert not [path for path in target.rglob("*") if path.name == "shadow" and not path.is_symlink()]
    assert sorted(os.listdir(secret / "inside")) == ["shadow"]
    copied(source, target)
    assert listing(target) == listing(source)


@root_only
def test_a_mount_inside_is_left_out_while_containers_run_and_refused_afterwards(tmp_path: Path) -> None:
    source, target = tmp_path / "docker", tmp_path / "disk"
    (source / "merged").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", source / "merged"], check=True)
    try:
        (source / "merged" / "file").touch()
        copied(source, target, live=True)
        assert list(target.iterdir()) == []
        with pytest.raises(DataError, match="merged is a separate mount"):
            copied(source, target)
    finally:
        subprocess.run(["umount", source / "merged"], check=True)


@root_only
def test_a_file_system_is_tried_before_anything_is_copied(tmp_path: Path) -> None:
    assert unfit(str(tmp_path)) == ""
    written(tmp_path)
    assert list(tmp_path.iterdir()) == []
