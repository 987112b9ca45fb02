# SPDX-License-Identifier: GPL-2.0-or-later
"""HTTP/1.1 heads and bodies (RFC 9112), and integers in text from a client. No I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol
from urllib.parse import unquote_to_bytes

END = b"\r\n\r\n"
HEADERS_LIMIT = 100
HEAD_LIMIT = 16 * 1024  # bytes
_LONG, _MANY = f"a head of more than {HEAD_LIMIT} bytes", f"more than {HEADERS_LIMIT} headers"
TOO_LARGE = frozenset({_LONG, _MANY})
"""Problems with the size of a head, for which HTTP has its own status (431, RFC 6585)."""

_METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS"})
# line ends that are not CR LF: servers disagree about them (RFC 9112 section 2.2)
_BARE = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)")
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")  # characters that no head may hold
_TARGET = re.compile(rb"/[\x21-\x7e]*")
_PATH = re.compile(rb"[!-~]*")
# forms of a path that another server may read as another path
_STRANGE = re.compile(rb"[%?#;\\]|//|/\.{1,2}(/|\Z)")
_NAMED = b"/docker/"
_STRANGE_IN_NAMES = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029]|%[0-9A-Fa-f]{2}|//|[/\\]\.{1,2}(?:[/\\]|\Z)"
)
# two of these would let two readers see two requests
_ONCE = frozenset({b"host", b"content-length", b"transfer-encoding", b"origin", b"authorization", b"upgrade"})


def head_problem(data: bytes) -> str | None:
    """What is wrong with the head at the start of `data`, None if nothing is. An incomplete head is checked as far as
    it goes.
    """
    end = data.find(END)
    head = data if end < 0 else data[:end]
    # checked before the parser sees it: text that two programs parse differently allows request smuggling
    if len(head) > HEAD_LIMIT:
        return _LONG
    if _BARE.search(head):
        return "a line ends without CR LF"
    if _CONTROL.search(head):
        return "a control character in the head"
    lines = head.split(b"\r\n")
    if lines[0] == b"" and len(lines) > 1:
        return "an empty line before the request"
    if any(line[:1] in (b" ", b"\t") for line in lines[1:]):
        return "a folded header"
    return None if end < 0 else _problem(lines)


def path_problem(raw: bytes) -> str | None:
    """What is wrong with a path as it was sent, None if nothing is. It must mean the same decoded once, decoded
    twice, and normalized.

    After one decoding it must be printable ASCII without a `%`, which a second decoding would change, without
    delimiters (`?`, `#`, `;`, a backslash), and without empty segments, `.` or `..`. Under `/docker/` any text is
    allowed, except for control characters and what a second decoding or a normalization would change.
    """
    path = unquote_to_bytes(raw)
    # names of images and files are passed on to the engine unchanged; all other paths are our own and can be strict
    if path.startswith(_NAMED):
        try:
            plain = _STRANGE_IN_NAMES.search(path.decode()) is None
        except UnicodeDecodeError:
            plain = False
    else:
        plain = _PATH.fullmatch(path) is not None and _STRANGE.search(path) is None
    return None if plain else "the path has a character or a segment that is not allowed"


def _problem(lines: list[bytes]) -> str | None:
    words = lines[0].split(b" ")
    if len(words) != 3 or words[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
        return "no HTTP/1.1 request line"
    if words[0] not in _METHODS:
        return "this method is not supported"
    if not _TARGET.fullmatch(words[1]) or b"#" in words[1]:
        return "the target is not a path"
    if problem := path_problem(words[1].partition(b"?")[0]):
        return problem
    if len(lines) - 1 > HEADERS_LIMIT:
        return _MANY
    seen: set[bytes] = set()
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if not colon or name != name.strip() or not name:
            return "a header without a name"
        name = name.lower()
        # of two lengths or hosts we might use one, and a server behind us the other
        if name in seen and name in _ONCE:
            return f"two {name.decode('latin-1')} headers"
        if name == b"upgrade" and value.strip().lower() == b"websocket" and words[0] != b"GET":
            return "a WebSocket is opened by GET"
        if name == b"transfer-encoding" and value.strip().lower() != b"chunked":
            return "a transfer coding other than chunked"
        seen.add(name)
    # RFC 9112 section 6.3: treat this as an error, since it may be an attempt at request smuggling
    if {b"content-length", b"transfer-encoding"} <= seen:
        return "content-length and transfer-encoding together"
    return None


# Integers in text from a client: a cursor, an offset, a length.


# the limit of the engine and of JSON parsers; Python itself refuses more than 4300 digits
HIGHEST = 2**63 - 1


def natural(text: str, *, high: int = HIGHEST) -> int | None:
    """The integer from 0 to `high` that `text` spells in decimal digits; None for anything else."""
    if not (text.isascii() and text.isdigit()):
        return None
    digits = text.lstrip("0")
    if len(digits) > len(str(high)):
        return None
    number = int(digits or "0")
    return number if number <= high else None


# The framing of an HTTP/1.1 body: by its length, by the end of the connection (RFC 9112 section 6.3), or in chunks
# (`ChunkDecoder` below). Each finds the payload in received bytes, and tells what is missing if no more bytes come.


class BodyError(ValueError):
    """These bytes are not the announced body."""


class Framing(Protocol):
    """`done` is true when the body is complete."""

    @property
    def done(self) -> bool: ...

    def room(self, limit: int) -> int:
        """How many bytes may be read at once, at most `limit`: further bytes may belong to another message."""

    def split(self, buffer: bytes | bytearray, size: int) -> Sequence[memoryview]:
        """The payload in the first `size` bytes of `buffer`, without copying. Raises BodyError."""

    def missing(self) -> str:
        """What is missing if no more bytes come, "" if nothing is."""


def payload(framing: Framing, data: bytes) -> bytes:
    """The payload in `data`; returns `data` itself if all of it is payload. Raises BodyError."""
    parts = framing.split(data, len(data))
    if len(parts) == 1 and len(parts[0]) == len(data):
        return data
    return b"".join(parts)


class Counted:
    """A body of `length` bytes."""

    def __init__(self, length: int) -> None:
        self.left = length

    @property
    def done(self) -> bool:
        return self.left == 0

    def room(self, limit: int) -> int:
        return min(limit, self.left)

    def split(self, buffer: bytes | bytearray, size: int) -> Sequence[memoryview]:
        self.pass_by(size)
        return (memoryview(buffer)[:size],)

    def pass_by(self, size: int) -> None:
        """Counts bytes of the body that were moved elsewhere. Raises BodyError."""
        if size > self.left:
            raise BodyError("it is longer than it says")
        self.left -= size

    def missing(self) -> str:
        return f"{self.left} bytes are missing" if self.left else ""


class UntilClosed:
    """A body that ends with its connection."""

    done = False

    def room(self, limit: int) -> int:
        return limit

    def split(self, buffer: bytes | bytearray, size: int) -> Sequence[memoryview]:
        return (memoryview(buffer)[:size],)

    def missing(self) -> str:
        return ""


# HTTP/1.1 chunked coding (RFC 9112 section 7.1) for bodies of gigabytes. h11 makes an event of each chunk, and the
# engine sends chunks of 32 KiB at most; this decoder finds all chunks in a read at once, without copying.


_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?\r\n")
_LINE_LIMIT = 4096  # bytes of a chunk's line, with extensions that we ignore
_TRAILER_LIMIT = 16 * 1024  # bytes of fields after the last chunk

LAST = b"0\r\n\r\n"


class ChunkError(BodyError):
    """These bytes are not a chunk."""


class ChunkDecoder:
    """A `Framing`. Takes pieces of any size; holds at most an incomplete size line or trailer."""

    def __init__(self) -> None:
        self._line = b""
        self._left = 0  # bytes of the open chunk still to come
        self._at = "size"  # size | data | end of data | trailer | done
        self._trailer = 0

    @property
    def done(self) -> bool:
        """Whether the last chunk was seen."""
        return self._at == "done"

    def room(self, limit: int) -> int:
        return limit

    def missing(self) -> str:
        return "" if self.done else "it ended without its last chunk"

    def split(self, buffer: bytes | bytearray, size: int) -> Sequence[memoryview]:
        """The payload in the first `size` bytes, without copying. Raises ChunkError, also for bytes after the end."""
        view = memoryview(buffer)
        pieces: list[memoryview] = []
        position = 0
        while position < size:
            if self._at == "data":
                piece = view[position : min(position + self._left, size)]
                pieces.append(piece)
                position += len(piece)
                self._left -= len(piece)
                # the line end after the data must follow
                if self._left == 0:
                    self._at = "end of data"
                continue
            if self._at == "done":
                raise ChunkError("bytes after the last chunk")
            end = buffer.find(b"\n", position, size)
            stop = size if end < 0 else end + 1
            # a size line may arrive in many pieces, even byte by byte
            self._line += buffer[position:stop]
            position = stop
            if len(self._line) > _LINE_LIMIT:
                raise ChunkError("a size line or trailer is too long")
            if end >= 0:
                line, self._line = self._line, b""
                self._take(line)
        return pieces

    def _take(self, line: bytes) -> None:
        if self._at == "end of data":
            # anything else means that a program before us read the lengths differently: a request could be hidden in
            # it (RFC 9112, 11.2)
            if line != b"\r\n":
                raise ChunkError("a chunk is longer than it says")
            self._at = "size"
        elif self._at == "size":
            match = _SIZE.fullmatch(line)
            if match is None:
                raise ChunkError(f"no chunk size: {line[:32]!r}")
            self._left = int(match[1], 16)
            self._at = "data" if self._left else "trailer"
        else:
            self._trailer += len(line)
            if self._trailer > _TRAILER_LIMIT:
                raise ChunkError("the trailer is too long")
            if line == b"\r\n":
                self._at = "done"


def encode_chunk(data: bytes) -> bytes:
    """Encodes one chunk. b"" is refused, because it would be the last chunk."""
    if not data:
        raise ChunkError("an empty chunk ends the body")
    return b"%x\r\n%b\r\n" % (len(data), data)
