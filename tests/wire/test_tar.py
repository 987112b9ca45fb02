# SPDX-License-Identifier: GPL-2.0-or-later
"""Tar archives as they stream by, against Python's own reader and writer."""

from __future__ import annotations

import gzip
import io
import random
import subprocess
import tarfile
from pathlib import Path
from posixpath import normpath

import pytest

from agent.wire.bodies import Member, TarError, TarMover, TarReader, rooted

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def archive(seed: int, form: int) -> tuple[bytes, list[tarfile.TarInfo]]:
    source, buffer = random.Random(seed), io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for number in range(source.randrange(1, 12)):
            deep = 1 if form == tarfile.USTAR_FORMAT else 8
            name = "/".join(
                f"{number}ü{'x' * source.choice([1, 20, 60])}" for _ in range(source.randint(1, deep))
            )
            entry = tarfile.TarInfo(name)
            entry.type = source.choice([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE])
            entry.mode, entry.uid, entry.gid = source.randrange(0o7777), source.randrange(2**18), 7
            entry.mtime = source.randrange(2**31)
            if entry.type == tarfile.SYMTYPE:
                entry.linkname = "t" * source.choice([1, 90] if deep == 1 else [1, 200])
            entry.size = source.choice([0, 1, 511, 512, 513, 70000]) if entry.isreg() else 0
            tar.addfile(entry, io.BytesIO(source.randbytes(entry.size)))
    with tarfile.open(fileobj=io.BytesIO(buffer.getvalue())) as tar:
        return buffer.getvalue(), tar.getmembers()


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("seed", range(12))
def test_members_are_those_that_python_finds(seed: int, form: int) -> None:
    data, expected = archive(seed, form)
    source, reader = random.Random(seed), TarReader()
    found: list[Member] = []
    at = 0
    while at < len(data):
        step = source.choice([1, 100, 511, 512, 513, 5000])
        found += reader.feed(data[at : at + step])
        at += step
    reader.end()
    assert reader.members == len(expected)
    assert [
        (rooted(m.name), m.size, m.mode, m.uid, m.gid, m.modified, m.link, m.is_folder) for m in found
    ] == [(rooted(e.name), e.size, e.mode, e.uid, e.gid, e.mtime, e.linkname, e.isdir()) for e in expected]


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("seed", range(4))
def test_an_archive_that_is_cut_anywhere_is_not_whole(seed: int, form: int) -> None:
    data, _ = archive(seed, form)
    end = len(data.rstrip(b"\0"))  # of a content that ends so, less: any cut before it counts
    source = random.Random(seed)
    for cut in {0, 1, 512, end, *(source.randrange(end) for _ in range(50))}:
        reader = TarReader()
        with pytest.raises(TarError):
            reader.feed(data[:cut])
            reader.end()


def test_a_header_that_was_damaged_is_found() -> None:
    data, expected = archive(3, tarfile.PAX_FORMAT)
    source, found = random.Random(0), 0
    for _ in range(300):
        damaged = bytearray(data)
        damaged[source.randrange(512)] ^= 1 << source.randrange(8)
        reader = TarReader()
        try:
            reader.feed(bytes(damaged))
        except TarError:
            found += 1
    assert found >= 295  # two digits of the checksum's own field may be blanks
    assert expected


def test_records_without_end_are_refused() -> None:
    entry = tarfile.TarInfo("x")
    entry.pax_headers = {"comment": "y" * 2**20}
    with pytest.raises(TarError, match="records"):
        TarReader().feed(entry.tobuf(tarfile.PAX_FORMAT))


def contents(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    found = tar.extractfile(entry) if entry.isreg() else None
    return found.read() if found else b""


def shown(entry: tarfile.TarInfo) -> tuple[object, ...]:
    return entry.type, entry.mode, entry.uid, entry.gid, entry.mtime, entry.size


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("seed", range(12))
def test_a_moved_archive_has_the_same_members_in_the_folder(seed: int, form: int) -> None:
    buffer = io.BytesIO(archive(seed, form)[0])
    with tarfile.open(fileobj=buffer, mode="a", format=form) as tar:
        for name, kind, link in (
            ("./", tarfile.DIRTYPE, ""),
            ("./a/up", tarfile.SYMTYPE, "../../etc/passwd"),
            (".//a/../again", tarfile.LNKTYPE, "./a/up"),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.mode, entry.uid = kind, link, 0o2711, 2**18 - 1
            if form == tarfile.PAX_FORMAT:  # some have zeros in them, or bytes that are not a text
                entry.pax_headers = {"SCHILY.xattr.security.capability": "\0\udcff\n"}
            tar.addfile(entry)
    data, mover, out = buffer.getvalue(), TarMover(folder="volume"), b""
    source, at = random.Random(seed), 0
    while at < len(data):
        step = source.choice([1, 100, 511, 512, 513, 5000])
        mover.feed(data[at : at + step])
        out += mover.moved()
        at += step
    mover.end()
    with tarfile.open(fileobj=io.BytesIO(data)) as before, tarfile.open(fileobj=io.BytesIO(out)) as after:
        for old, new in zip(before, after, strict=True):
            assert shown(new) == shown(old)
            assert contents(after, new) == contents(before, old)
            assert new.name.split("/")[0] == "volume"
            assert rooted(normpath(old.name)) == new.name.removeprefix("volume").removeprefix("/")
            assert new.linkname == ("volume/a/up" if old.islnk() else old.linkname)
            extended = {key: value for key, value in new.pax_headers.items() if "xattr" in key}
            assert extended == {key: value for key, value in old.pax_headers.items() if "xattr" in key}


def test_a_sparse_file_is_moved_with_its_map(tmp_path: Path) -> None:
    with (tmp_path / "holes").open("wb") as made:
        for number in range(40):  # more than fit into its header
            made.seek(number * 100_000)
            made.write(b"x%d" % number)
    for form in ("gnu", "posix"):
        command = ["tar", "-c", "-S", f"--format={form}", "-C", str(tmp_path), "./holes"]
        data = subprocess.run(command, check=True, capture_output=True).stdout
        mover = TarMover(folder="volume")
        mover.feed(data)
        with tarfile.open(fileobj=io.BytesIO(mover.moved())) as tar:
            (entry,) = tar
            assert entry.name == "volume/holes"
            assert contents(tar, entry) == (tmp_path / "holes").read_bytes()


@pytest.mark.parametrize("name", [".", "a/.."])
def test_the_folder_itself_is_not_replaced_by_a_file(name: str) -> None:
    with pytest.raises(TarError, match="member 1 would replace the folder that all others are in"):
        TarMover(folder="volume").feed(one_member(name, "2"))


@pytest.mark.parametrize(
    ("begins", "name"),
    [(b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"\xfd7zXZ\0", "xz"), (b"BZh9", "bzip2")],
)
def test_a_packed_archive_is_told_from_something_else(begins: bytes, name: str) -> None:
    with pytest.raises(
        TarError, match=f"this is not a tar archive: it is packed with {name}; unpack it first"
    ):
        TarReader().feed(begins.ljust(512, b"x"))


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", ".."])
def test_a_member_that_leads_out_is_refused(name: str) -> None:
    with pytest.raises(TarError, match=f"member 1 leads out of the archive: '{name}'"):
        TarReader().feed(one_member(name))


@pytest.mark.parametrize("name", ["a/../b", "..a", "/../b"])
def test_a_member_that_stays_inside_is_read(name: str) -> None:
    assert [each.name for each in TarReader().feed(one_member(name))] == [name]


def one_member(name: str, kind: str = "0") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as made:
        entry = tarfile.TarInfo(name)
        entry.type = kind.encode()
        made.addfile(entry)
    return buffer.getvalue()


def test_a_short_packed_archive_is_told_too() -> None:
    reader = TarReader()
    reader.feed(gzip.compress(one_member("a"))[:100])
    with pytest.raises(TarError, match="packed with gzip"):
        reader.end()
