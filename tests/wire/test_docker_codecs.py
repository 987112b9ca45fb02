# SPDX-License-Identifier: GPL-2.0-or-later
"""The engine's frames and HTTP's chunks: any cut of the input gives the same output."""

from __future__ import annotations

import gzip
import io
import tarfile

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.bodies import FrameDecoder, FrameError, encode_frame, is_plain_tar
from agent.wire.http_head import (
    LAST,
    BodyError,
    ChunkDecoder,
    ChunkError,
    Counted,
    UntilClosed,
    encode_chunk,
    payload,
)

frames = st.lists(st.tuples(st.sampled_from(("stdout", "stderr")), st.binary(max_size=300)), max_size=8)
cuts = st.lists(st.integers(1, 40), min_size=1, max_size=5)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces, position, turn = [], 0, 0
    while position < len(data):
        size = sizes[turn % len(sizes)]
        pieces.append(data[position : position + size])
        position, turn = position + size, turn + 1
    return pieces


@given(frames, cuts)
def test_frames_come_out_as_they_went_in(sent: list[tuple[str, bytes]], sizes: list[int]) -> None:
    decoder = FrameDecoder()
    got = [
        piece for part in cut(b"".join(encode_frame(*f) for f in sent), sizes) for piece in decoder.feed(part)
    ]
    decoder.end()
    for stream in ("stdout", "stderr"):
        assert b"".join(p for s, p in got if s == stream) == b"".join(p for s, p in sent if s == stream)


def test_a_frame_of_four_gigabytes_is_handed_on_and_not_collected() -> None:
    decoder = FrameDecoder()
    assert decoder.feed(b"\x01\0\0\0\xff\xff\xff\xffabc") == [("stdout", b"abc")]
    assert decoder.feed(b"def") == [("stdout", b"def")]
    with pytest.raises(FrameError, match="inside a frame"):
        decoder.end()


@pytest.mark.parametrize("head", [b"\x07\0\0\0\0\0\0\x01", b"\x01\0\x01\0\0\0\0\x01", b"plain te"])
def test_what_is_no_frame_is_an_error(head: bytes) -> None:
    with pytest.raises(FrameError, match="no frame header"):
        FrameDecoder().feed(head)


@given(st.lists(st.binary(min_size=1, max_size=400), max_size=8), cuts)
def test_chunks_decode_as_h11_decodes_them(bodies: list[bytes], sizes: list[int]) -> None:
    wire = b"".join(map(encode_chunk, bodies)) + LAST
    decoder = ChunkDecoder()
    mine = b"".join(payload(decoder, part) for part in cut(wire, sizes))
    assert decoder.done
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + wire)
    theirs = b""
    while not isinstance(event := client.next_event(), h11.EndOfMessage):
        theirs += bytes(event.data) if isinstance(event, h11.Data) else b""
    assert mine == theirs == b"".join(bodies)


def test_extensions_and_trailers_are_skipped() -> None:
    decoder = ChunkDecoder()
    assert payload(decoder, b"3;a=b\r\nabc\r\n0\r\nX-Y: z\r\n\r\n") == b"abc"
    assert decoder.done


@pytest.mark.parametrize(
    "data",
    [
        b"x\r\n",
        b"-1\r\n",
        b"0x3\r\nabc\r\n",
        b"3\nabc\r\n",
        b"3\r\nabcd\r\n",
        b"ffffffffffffffffff\r\n",
        b"0\r\n\r\nmore",
        b"1" * 5000,
        b"0\r\n" + b"a: b\r\n" * 4000,
    ],
)
def test_what_is_no_chunk_is_an_error(data: bytes) -> None:
    with pytest.raises(ChunkError):
        payload(ChunkDecoder(), data)


def test_a_counted_body_ends_where_it_says_and_knows_what_is_missing() -> None:
    body = Counted(5)
    assert (body.room(100), body.room(3), body.missing()) == (5, 3, "5 bytes are missing")
    assert payload(body, b"abc") == b"abc"
    assert (body.room(100), body.missing(), body.done) == (2, "2 bytes are missing", False)
    assert payload(body, b"de") == b"de"
    assert (body.room(100), body.missing(), body.done) == (0, "", True)
    with pytest.raises(BodyError, match="longer than it says"):
        payload(body, b"f")


def test_a_body_without_a_length_ends_with_its_connection() -> None:
    body = UntilClosed()
    assert payload(body, b"abc") == b"abc"
    assert (body.room(7), body.missing(), body.done) == (7, "", False)


def tar_of(name: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()


def test_a_tar_is_told_from_what_is_packed() -> None:
    plain = tar_of("hello")
    assert is_plain_tar(plain)
    assert is_plain_tar(tar_of("ü" * 120))
    assert is_plain_tar(bytes(1024))
    assert not is_plain_tar(gzip.compress(plain) + bytes(600))
    assert not is_plain_tar(b"\xfd7zXZ\0" + bytes(600))
    assert not is_plain_tar(plain[:500])
    assert not is_plain_tar(plain[:100] + b"!" + plain[101:])
