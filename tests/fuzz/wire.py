# SPDX-License-Identifier: GPL-2.0-or-later
"""What comes over sockets: ubus messages, the engine's frames, chunks and lines, heads of requests, keys and archives.

For streams: any cut of the input gives the same output, and what is held back has a bound.
"""

from __future__ import annotations

import asyncio
import json
import random
import zlib
from collections.abc import AsyncIterator, Callable, Iterable
from functools import cache
from typing import TypeVar

from agent.api.access import tcp
from agent.api.streams.engine_streams import json_lines
from agent.apply.images import PullProgress
from agent.errors import EngineError
from agent.status.progress import Progress
from agent.wire import blobmsg, bodies, http_head, registry
from agent.wire.blobmsg import BlobError
from agent.wire.bodies import FrameDecoder, FrameError, encode_frame
from agent.wire.http_head import LAST, ChunkDecoder, ChunkError, encode_chunk
from agent.wire.ubus_message import Attr, Decoder, MessageError, encode_message
from tests.fuzz.target import DATA, Target

T = TypeVar("T")


def pieces(data: bytes) -> list[bytes]:
    """The input in pieces of some sizes, the same ones for the same input."""
    chance, found, position = random.Random(zlib.crc32(data)), [], 0
    while position < len(data):
        size = chance.choice((1, 1, 2, 7, 64, 1000))
        found.append(data[position : position + size])
        position += size
    return found


def _outcome(
    feed: Callable[[bytes], Iterable[T]], parts: Iterable[bytes], error: type[Exception]
) -> tuple[list[T], str]:
    """What came out before the end, or before the error."""
    out: list[T] = []
    try:
        for part in parts:
            out += feed(part)
    except error as exc:
        return out, str(exc)
    return out, ""


# ubus


@cache
def _frames() -> tuple[bytes, ...]:
    lines = (DATA / "ubus" / "conversations.jsonl").read_text(encoding="utf-8").splitlines()
    frames = {bytes.fromhex(frame) for line in lines for _, frame in json.loads(line)["frames"]}
    return tuple(sorted(frame for frame in frames if len(frame) <= 2048))


def check_ubus(data: bytes) -> None:
    decoder = Decoder()
    cut, cut_error = _outcome(decoder.feed, pieces(data), MessageError)
    whole, error = _outcome(Decoder().feed, [data], MessageError)
    # a broken message in one read costs the whole read: the connection is worth nothing any more
    assert bool(error) == bool(cut_error)
    assert error or whole == cut
    for message in cut:
        again = Decoder().feed(encode_message(message))
        assert again == [message]
        for attr in (Attr.DATA, Attr.SIGNATURE):
            value = message.attributes.get(attr)
            if isinstance(value, bytes):
                _check_blob(value)


def _check_blob(data: bytes) -> None:
    try:
        table = blobmsg.decode(data)
    except BlobError:
        return
    # a NaN is not equal to itself, so the bytes are compared; their first form may be longer (INT16, fields twice)
    once = blobmsg.encode(table)
    assert blobmsg.encode(blobmsg.decode(once)) == once


# the engine's streams


def check_frames(data: bytes) -> None:
    """The multiplexed output of a container, and HTTP's chunks; the first byte chooses."""
    (check_chunks if data[:1] == b"c" else _check_log_frames)(data[1:])


def _check_log_frames(data: bytes) -> None:
    whole, error = _outcome(FrameDecoder().feed, [data], FrameError)
    cut, cut_error = _outcome(FrameDecoder().feed, pieces(data), FrameError)
    assert bool(error) == bool(cut_error)
    if not error:
        assert _joined(whole) == _joined(cut)
        again = FrameDecoder().feed(b"".join(encode_frame(*piece) for piece in cut))
        assert _joined(again) == _joined(cut)


def _joined(found: Iterable[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """Neighbours of one stream as one."""
    out: list[tuple[str, bytes]] = []
    for stream, piece in found:
        if out and out[-1][0] == stream:
            out[-1] = stream, out[-1][1] + piece
        elif piece:
            out.append((stream, piece))
    return out


def check_chunks(data: bytes) -> None:
    whole, error = _outcome(_fed(ChunkDecoder()), [data], ChunkError)
    decoder = ChunkDecoder()
    cut, cut_error = _outcome(_fed(decoder), pieces(data), ChunkError)
    assert bool(error) == bool(cut_error)
    if not error and decoder.done:
        body = b"".join(cut)
        assert b"".join(whole) == body
        again = _fed(ChunkDecoder())((encode_chunk(body) if body else b"") + LAST)
        assert b"".join(again) == body


def _fed(decoder: ChunkDecoder) -> Callable[[bytes], list[bytes]]:
    return lambda part: [bytes(piece) for piece in decoder.split(part, len(part))]


# lines of JSON


def check_lines(data: bytes) -> None:
    """The lines of a job or of the events, through both accounts of progress."""
    asyncio.run(_check_lines(data))


async def _check_lines(data: bytes) -> None:
    progress, reported, now = Progress(unpacks=True), [], [0.0]
    pulling = PullProgress(reported.append, lambda: now[0])
    percents: list[int] = []
    try:
        async for line in json_lines(_parts(data)):
            now[0] += 1
            progress.feed(line)
            pulling.step(line)
            shown = progress.as_json()
            json.dumps(shown).encode()
            shown["step"].encode()
            percents.append(shown["percent"] or 0)
            assert len(shown["step"]) <= 530
    except EngineError as exc:
        assert len(str(exc)) < 1024
        str(exc).encode()
    for numbers in (percents, reported):
        assert numbers == sorted(numbers)
        assert all(0 <= number <= 99 for number in numbers)


async def _parts(data: bytes) -> AsyncIterator[bytes]:
    for piece in pieces(data):
        yield piece


# heads of requests, keys, archives


def check_heads(data: bytes) -> None:
    """A head that is taken is judged the same when its first bytes are looked at before the rest."""
    problem = http_head.head_problem(data)
    assert problem is None or 0 < len(problem) < 200
    end = data.find(http_head.END)
    if problem is None and end >= 0:
        assert all(http_head.head_problem(data[:size]) is None for size in range(0, end, 7))
        target = data.split(b" ")[1].partition(b"?")[0]
        assert http_head.path_problem(target) is None


def check_files(data: bytes) -> None:
    """Keys and certificates as they are found on a router, and the first block of an upload."""
    for read in (tcp.certificate_pem, tcp.key_pem):
        try:
            text = read(data)
        except tcp.PemError:
            continue
        assert b"-----BEGIN " in text
        assert read(text) == text
    bodies.is_plain_tar(data)


def check_registries(data: bytes) -> None:
    """What registries answer: the first line as each header, the rest as each body."""
    head, _, body = data.partition(b"\n")
    text = head.decode("latin-1")
    names = ("docker-content-digest", "content-type", "ratelimit-remaining", "retry-after")
    headers = dict.fromkeys(names, text)
    registry.challenge(text)
    assert len(registry.digest_of(headers)) <= 256
    registry.is_index(headers)
    registry.limit(headers)
    assert 1 <= registry.retry_after(headers, 0) <= 24 * 3600
    assert len(registry.error_code(body)) <= 40
    for read in (registry.token_of, registry.members, registry.manifest, registry.diff_ids):
        try:
            read(body)
            registry.member_for(body, "linux/arm/v7")
        except registry.RegistryFormatError as exc:
            assert 0 < len(str(exc)) < 200


_ANSWERS = (
    (
        b'Bearer realm="https://auth.example/token",service="registry",scope="repository:a/b:pull"\n'
        b'{"schemaVersion":2,"config":{"digest":"sha256:00","size":7},"layers":[{"digest":"sha256:11","size":9}]}'
    ),
    b'100;w=21600\n{"manifests":[{"digest":"sha256:22","platform":{"os":"linux","architecture":"arm","variant":"v7"}}]}',
    b'Basic realm="x", Bearer realm="y"\n{"errors":[{"code":"DENIED"}],"token":"t","rootfs":{"diff_ids":["sha256:33"]}}',
)
_LINES = (
    (
        b'{"status":"Pulling from library/busybox","id":"latest"}\n{"status":"Downloading","progressDetail":{"current":10,'
        b'"total":100},"progress":"[=> ]","id":"4b35f584bb4f"}\n{"status":"Extracting","progressDetail":{"current":100,'
        b'"total":100},"id":"4b35f584bb4f"}\n{"status":"Pull complete","progressDetail":{},"id":"4b35f584bb4f"}\n'
    ),
    b'{"stream":"Step 1/2 : FROM x"}\n{"stream":"Step 2/2 : RUN y\\n"}\n{"error":"no","errorDetail":{"message":"no"}}\n',
    b'{"Type":"container","Action":"die","Actor":{"ID":"a","Attributes":{"exitCode":"0"}},"timeNano":1}\n',
)
_HEADS = (
    b"GET /v1/status HTTP/1.1\r\nHost: 192.168.1.1:2380\r\nAuthorization: Bearer 0\r\n\r\n",
    b"POST /docker/v1.41/containers/create?name=a%20b HTTP/1.1\r\nHost: r\r\nContent-Length: 2\r\n\r\n{}",
    b"GET /v1/exec/1/ws HTTP/1.1\r\nHost: r\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    b"PUT /v1/images/load HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
)
_TAR = b"a".ljust(100, b"\0") + b"0000644\0" * 3 + b"00000000000\0" * 2 + b"006024\0 0".ljust(364, b"\0")
_DER = bytes.fromhex("308204a40201000282010100") + b"\1" * 1192

UBUS = Target(
    name="ubus",
    check=check_ubus,
    seeds=_frames(),
    words=(
        b"\0\0\0\4",
        b"\x83\0\0\x0c",
        b"\x82\0\0\x08",
        b"\0\xff\xff\xff",
        b"\x7f\0\0\4",
        b"\0\5\0\1",
        b"\x88\0\0\x0c",
    ),
)
FRAMES = Target(
    name="frames",
    check=check_frames,
    seeds=(
        b"f"
        + encode_frame("stdout", b"hello\n")
        + encode_frame("stderr", b"x" * 300)
        + encode_frame("stdout", b""),
        b"c" + encode_chunk(b"hello") + encode_chunk(b"x" * 300) + LAST,
        b"c5;name=value\r\nhello\r\n0\r\nTrailer: x\r\n\r\n",
    ),
    words=(
        b"\1\0\0\0\0\0\0\5",
        b"\2\0\0\0\xff\xff\xff\xff",
        b"\r\n",
        b"0\r\n\r\n",
        b"ffffffffffffffff\r\n",
        b"5\r\n",
    ),
)
LINES = Target(
    name="lines",
    check=check_lines,
    seeds=_LINES,
    words=(
        b"[" * 3000,
        b'{"a":' * 800,
        b"\n",
        b'"status":"',
        b'"id":"',
        b'"total":',
        b"1e400",
        b'"\\ud800"',
        b"null",
        b"-",
    ),
)
HEADS = Target(
    name="heads",
    check=check_heads,
    seeds=_HEADS,
    words=(
        b"\r\n",
        b"\n",
        b"Content-Length: 1\r\n",
        b"transfer-encoding: gzip\r\n",
        b"%2e%2e",
        b"//",
        b"\0",
        b"HTTP/1.1",
        b"%",
    ),
)
FILES = Target(
    name="keys",
    check=check_files,
    seeds=(_TAR, _DER, b"-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n", bytes(512)),
    words=(b"\x30\x84\xff\xff\xff\xff", b"\x30\x80", b"\x02\x01\x00", b"-----BEGIN "),
)
REGISTRIES = Target(
    name="registries",
    check=check_registries,
    seeds=_ANSWERS,
    words=(
        b'Bearer realm="',
        b"Basic ",
        b";w=",
        b'"digest":',
        b'"size":',
        b'"manifests":[',
        b'"platform":{',
        b"sha256:",
    ),
    repeats=((b"Bearer ", b"a"), (b"Bearer ", b'a="'), (b"Bearer a", b" "), (b'x\n{"layers":', b"[")),
)
TARGETS = (UBUS, FRAMES, LINES, HEADS, FILES, REGISTRIES)
