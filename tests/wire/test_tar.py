# SPDX-License-Identifier: GPL-2.0-or-later
"""Tar archives as they stream by, against Python's own reader and writer."""

from __future__ import annotations

import gzip
import io
import random
import tarfile

import pytest

from agent.wire.bodies import Member, TarError, TarReader, folder_archive, rooted

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


@pytest.mark.parametrize("uid", [0, 999, 2**21, 2**31])
def test_the_archive_of_one_folder_is_one_for_others_too(uid: int) -> None:
    root = Member(name="./", kind="5", size=0, mode=0o2711, uid=uid, gid=44, modified=1.5e9)
    with tarfile.open(fileobj=io.BytesIO(folder_archive(root, "volume/"))) as tar:
        (found,) = tar.getmembers()
    assert (found.name, found.isdir(), found.mode, found.uid, found.gid, found.mtime) == (
        *("volume", True, 0o2711, uid, 44),
        1.5e9,
    )


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


def one_member(name: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as made:
        made.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()


def test_a_short_packed_archive_is_told_too() -> None:
    reader = TarReader()
    reader.feed(gzip.compress(one_member("a"))[:100])
    with pytest.raises(TarError, match="packed with gzip"):
        reader.end()
