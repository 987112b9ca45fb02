# SPDX-License-Identifier: GPL-2.0-or-later
"""Parses bodies that the engine sends or takes: error messages, JSON by its media type, tar archives, framed output.

A tar archive is read while it streams by (POSIX.1-2001 ustar and pax, GNU): its members, and whether it is complete.
Contents of members are not kept.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass, field
from posixpath import normpath
from typing import Any

LIMIT = 1024  # characters: a body may quote what it was sent
# The layers through which containerd, runc and libnetwork hand the cause of a failed start, each with words of its own.
# The id of an endpoint is another one at each try, so that its failures would not be the same.
_LAYERS = re.compile(
    r"(?:failed to create (?:shim )?task(?: for container)?: |OCI runtime create failed: |runc create failed: "
    r"|unable to start container process: |container_linux\.go:\d+: |starting container process caused: "
    r"|error during container init: |failed to set up container networking: |Error starting userland proxy: "
    r"|driver failed programming external connectivity on endpoint \S+ \([0-9a-f]{64}\): )+"
)
# of a name server that does not answer; the port is another one at each try
_OWN_PORT = re.compile(r"read (?:udp|tcp) \S+->\S+: ", re.ASCII)


def error_message(body: bytes, status: int, *, who: str = "the engine", limit: int = LIMIT) -> str:
    """The cause in the body's `message`, or a body that is not JSON (from a proxy) as text, cut to `limit` characters;
    without either, a sentence with the status.
    """
    # a proxy in front of the engine answers in HTML or plain text, which says more than the status alone
    try:
        found = json.loads(body)
        text = str(found.get("message", "")) if isinstance(found, dict) else ""
    except RecursionError:
        text = ""
    except ValueError:
        text = body.decode("utf-8", "replace").strip()
    if not text:
        return f"{who} answered {status}"
    text = _cause(text)
    return text if len(text) <= limit else text[:limit] + "..."


def _cause(text: str) -> str:
    """`exec: "sh": executable file not found in $PATH` of the chain of words that ends with it. An inspected container
    has the whole.
    """
    layers = _LAYERS.match(text)
    cause = text[layers.end() :].removesuffix(": unknown") or text if layers else text
    return _OWN_PORT.sub("", cause)


JSON = "application/json"
JSON_LINES = frozenset({"application/jsonl", "application/x-ndjson", "application/json-seq"})
_RECORD_SEPARATOR = "\x1e"  # before each text of a json-seq


def essence(content_type: str) -> str:
    """The media type without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def decoded(content_type: str, data: bytes) -> Any:
    """A JSON value; a list of values if the data has one per line; or text."""
    kind, text = essence(content_type), data.decode("utf-8", "replace")
    if not data or (kind != JSON and kind not in JSON_LINES):
        return text
    if kind == JSON:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass  # old engines use this type for JSON lines too
    try:
        lines = (line.strip().lstrip(_RECORD_SEPARATOR) for line in text.split("\n"))
        return [json.loads(line) for line in lines if line]
    except (ValueError, RecursionError):
        return text


BLOCK = 512  # bytes of a tar's block


@dataclass(frozen=True, slots=True)
class TarHeader:
    """The header of a tar entry. `kind` is its type flag: 0 (a file), 5 (a folder), x (records about the next entry)
    and others.
    """

    kind: str
    size: int

    @classmethod
    def of(cls, block: bytes) -> TarHeader:
        """Parses a header. A size that is too large for octal digits is binary, with the highest bit set (GNU, star)."""
        field = block[124:136]
        if field[0] & 0x80:
            size = int.from_bytes(field[1:], "big")
        else:
            digits = field.strip(b"\0 ")
            size = int(digits, 8) if digits.isdigit() else 0
        return cls(chr(block[156]), size)

    @property
    def is_records(self) -> bool:
        """Whether the entry describes other entries: pax records, or GNU's long names."""
        return self.kind in ("x", "g", "L", "K")


def size_of_records(records: bytes) -> int | None:
    """The size in pax records (POSIX.1-2001, lines of `<length> size=<bytes>`), None if they have none."""
    for line in records.split(b"\n"):
        _, _, record = line.partition(b" ")
        if record.startswith(b"size=") and record[5:].isdigit():
            return int(record[5:])
    return None


def is_plain_tar(block: bytes) -> bool:
    """Whether a tar archive starts with this block: a header with a valid checksum, or the end mark of an empty archive."""
    if len(block) < BLOCK:
        return False
    block = block[:BLOCK]
    if not any(block):
        return True
    field = block[148:156].strip(b"\0 ")
    try:
        stated = int(field, 8)
    except ValueError:
        return False
    # the checksum counts its own field as blanks
    return stated == sum(block[:148]) + 8 * 0x20 + sum(block[156:])


# The engine's multiplexed output of containers without a terminal (Engine API, "Attach to a container", stream format).
#
# A frame is `type, 0, 0, 0, length (4 bytes, big endian)`, followed by that many bytes of one stream. The length is
# untrusted: payload is passed on as it arrives and never collected.


STREAMS = ("stdin", "stdout", "stderr")
HEADER = 8  # bytes in front of each frame: the stream, and the length


class FrameError(ValueError):
    """These bytes are not a frame."""


class FrameDecoder:
    """Takes pieces of any size. Holds at most an incomplete header."""

    def __init__(self) -> None:
        self._head = b""  # of the next frame, as far as it has come
        self._stream = ""
        self._left = 0  # bytes of the frame that are still to come

    def feed(self, data: bytes) -> list[tuple[str, bytes]]:
        """The payload in these bytes, in order, as (stream, bytes). Raises FrameError."""
        pieces: list[tuple[str, bytes]] = []
        position = 0
        while position < len(data):
            # a header too may be split over two pieces
            if self._left == 0:
                wanted = HEADER - len(self._head)
                self._head += data[position : position + wanted]
                position += wanted
                if len(self._head) < HEADER:
                    break
                self._open(self._head)
                self._head = b""
                continue
            piece = data[position : position + self._left]
            position += len(piece)
            self._left -= len(piece)
            pieces.append((self._stream, piece))
        return pieces

    def end(self) -> None:
        """Call at the end of the input. Raises FrameError if a frame is incomplete."""
        if self._head or self._left:
            raise FrameError(f"the output ended inside a frame ({self._left} bytes are missing)")

    def _open(self, head: bytes) -> None:
        kind, padding, length = struct.unpack(">B3sI", head)
        if kind >= len(STREAMS) or padding != b"\0\0\0":
            raise FrameError(f"no frame header: {head.hex()}")
        self._stream, self._left = STREAMS[kind], length


def encode_frame(stream: str, data: bytes) -> bytes:
    """One frame."""
    return struct.pack(">B3xI", STREAMS.index(stream), len(data)) + data


RECORDS_LIMIT = 1024 * 1024  # bytes of pax records or of a long name for one member
_LONG = {"L": "path", "K": "linkpath"}  # GNU's long names
_SPARSE = "S"  # GNU: blocks with a map of the holes follow the header; each says whether another one follows
_IS_EXTENDED, _IS_EXTENDED_MORE = 482, 504
_FOLDERS = "5"
_SHOWN = 100  # characters of a member's name in a message
# links, devices, folders and pipes have no content, whatever size their header states
_WITHOUT_CONTENT = frozenset("123456")

# how packed archives begin
_PACKED = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd", "xz": b"\xfd7zXZ\0", "bzip2": b"BZh"}


class TarError(ValueError):
    """These bytes are not a tar archive, or it is incomplete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One file, folder, link or device. `kind` is its type flag, `modified` is in unix seconds."""

    name: str
    kind: str
    size: int
    mode: int
    uid: int
    gid: int
    modified: float
    link: str = ""

    @property
    def is_folder(self) -> bool:
        return self.kind == _FOLDERS


@dataclass(slots=True)
class TarReader:
    """Takes pieces of any size. `members` counts the members so far."""

    members: int = 0
    ended: bool = False
    _head: bytearray = field(default_factory=bytearray)  # of the next member, as far as it has come
    _skip: int = 0  # bytes of contents still to come
    _records: TarHeader | None = None  # the entry whose bytes are collected in `_head`
    _said: dict[str, str] = field(default_factory=dict)  # records for the next member
    _map: bool = False  # blocks of a sparse member's map follow

    def feed(self, data: bytes) -> list[Member]:
        """The members whose headers were completed by these bytes. Raises TarError."""
        found: list[Member] = []
        view = memoryview(data)
        while len(view) and not self.ended:
            # skip contents as they come: a member may be larger than the memory
            if self._skip and not self._map:
                passed = min(self._skip, len(view))
                self._pass(view[:passed])
                self._skip -= passed
                view = view[passed:]
                continue
            wanted = self._wanted() - len(self._head)
            self._head += view[:wanted]
            view = view[wanted:]
            # a header may arrive in several pieces
            if len(self._head) < self._wanted():
                break
            block = bytes(self._head)
            self._head.clear()
            found += self._take(block)
        return found

    def end(self) -> None:
        """Call at the end of the stream. Raises TarError if the archive is incomplete."""
        if not self.ended:
            packed = "" if self.members else _packed(bytes(self._head))  # may be shorter than one block
            raise TarError(
                f"this is not a tar archive{packed}"
                if packed
                else "the archive is not complete: its end is missing"
            )

    def _wanted(self) -> int:
        return BLOCK if self._records is None else _padded(self._records.size)

    def _take(self, block: bytes) -> list[Member]:
        if self._map:
            self._map = bool(block[_IS_EXTENDED_MORE])
            self._pass(block)
            return []
        if self._records is not None:
            entry, self._records = self._records, None
            self._note(entry, block[: entry.size])
            return []
        # two blocks of zeros end the archive; what follows the first one is meaningless
        if not any(block):
            self.ended = True
            self._pass(bytes(2 * BLOCK))
            return []
        if not is_plain_tar(block):
            raise TarError(
                f"this is not a tar archive{_packed(block)}"
                if not self.members
                else f"the archive is damaged after member {self.members}"
            )
        entry = TarHeader.of(block)
        if entry.is_records:
            if entry.size > RECORDS_LIMIT:
                raise TarError(f"more than {RECORDS_LIMIT} bytes of records about one member")
            self._records = entry if entry.size else None
            return []
        return [self._member(block, entry)]

    def _pass(self, data: bytes | memoryview) -> None:
        """Called with what is not about a member's name: contents, maps of sparse files, the end."""

    def _note(self, entry: TarHeader, data: bytes) -> None:
        if entry.kind in _LONG:
            self._said[_LONG[entry.kind]] = _text(data)
        elif entry.kind == "x":  # global records (g) do not describe a single member
            self._said |= {_text(key): _text(value) for key, value in _pax(data).items()}

    def _member(self, block: bytes, entry: TarHeader) -> Member:
        said, self._said = self._said, {}
        # octal sizes end at 8 GiB: then the pax records have the true size
        stated = said.get("size", "")
        size = int(stated) if stated.isdigit() else entry.size
        self._skip = 0 if entry.kind in _WITHOUT_CONTENT else _padded(size)
        self._map = entry.kind == _SPARSE and bool(block[_IS_EXTENDED])
        self.members += 1
        # GNU's own form has other fields in the place of ustar's prefix
        prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else ""
        name = _text(block[:100])
        try:
            modified = float(said.get("mtime", ""))
        except ValueError:
            modified = float(_number(block[136:148]))
        # of a file with holes `path` is a name for programs that know of none (GNU)
        name = said.get("GNU.sparse.name") or said.get("path", f"{prefix}/{name}" if prefix else name)
        # the engine refuses these too, as a failure of its own
        if normpath(name).split("/")[0] == "..":
            raise TarError(f"member {self.members} leads out of the archive: {name[:_SHOWN]!r}")
        return Member(
            name=name,
            kind=entry.kind if entry.kind not in "\x007" else "0",
            size=size,
            mode=_number(block[100:108]),
            uid=_stated(said, "uid", block[108:116]),
            gid=_stated(said, "gid", block[116:124]),
            modified=modified,
            link=said.get("linkpath", _text(block[157:257])),
        )


_MOVED = frozenset({b"path", b"linkpath", b"GNU.sparse.name"})  # pax records with names of members


@dataclass(slots=True)
class TarMover(TarReader):
    """Moves the members of an archive into `folder`, as it streams by: `moved` has what `feed` made of its bytes.

    Contents, owners, times and other records pass as they are. The entry of the root itself becomes that of the folder.
    """

    folder: str = ""
    _out: list[bytes] = field(default_factory=list)
    _kept: dict[bytes, bytes] = field(default_factory=dict)  # other pax records about the next member

    def moved(self) -> bytes:
        """The bytes since the last call."""
        out = b"".join(self._out)
        self._out.clear()
        return out

    def _pass(self, data: bytes | memoryview) -> None:
        self._out.append(bytes(data))

    def _note(self, entry: TarHeader, data: bytes) -> None:
        # explicit class: a dataclass with slots is another one than `super()` without arguments knows
        super(TarMover, self)._note(entry, data)
        if entry.kind == "x":
            self._kept |= {key: value for key, value in _pax(data).items() if key not in _MOVED}

    def _member(self, block: bytes, entry: TarHeader) -> Member:
        records, self._kept = self._kept, {}
        has_holes = "GNU.sparse.name" in self._said
        member = super(TarMover, self)._member(block, entry)
        path = self._moved(member.name)
        # in the oldest form only the slash tells a folder from a file
        is_folder = member.is_folder or member.name.endswith("/")
        if path == _bytes(self.folder) and not is_folder:
            raise TarError(f"member {self.members} would replace the folder that all others are in")
        records[b"path"] = path + b"/" if is_folder else path
        if has_holes:
            records[b"GNU.sparse.name"] = path
        if member.kind == "1":  # the name of another member
            records[b"linkpath"] = self._moved(member.link)
        elif member.link:
            records[b"linkpath"] = _bytes(member.link)
        # records have precedence over the header, which stays as it is
        self._pass(_records(records))
        self._pass(block)
        return member

    def _moved(self, name: str) -> bytes:
        return _bytes("/".join(filter(None, (self.folder, rooted(normpath(name))))))


def _records(records: dict[bytes, bytes]) -> bytes:
    """An entry of pax records about the next one."""
    lines = []
    for key, value in records.items():
        rest = b" " + key + b"=" + value + b"\n"
        length = len(rest) + 1
        # the length includes its own digits
        while len(str(length)) + len(rest) != length:
            length = len(str(length)) + len(rest)
        lines.append(str(length).encode() + rest)
    data = b"".join(lines)
    head = bytearray(BLOCK)
    head[:11] = b"PaxHeaders/"
    head[100:148] = b"0000644\0" + 2 * b"0000000\0" + b"%011o\0" % len(data) + b"%011o\0" % 0
    head[156:157] = b"x"
    head[257:265] = b"ustar\x0000"
    head[148:156] = b" " * 8  # the checksum counts its own field as blanks
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + data + bytes(_padded(len(data)) - len(data))


def rooted(name: str) -> str:
    """A member's name as a path from the archive's root, "" for the root itself."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return "/".join(parts)


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _number(data: bytes) -> int:
    """A number in octal digits, or in binary with the highest bit set (GNU, star)."""
    if data[0] & 0x80:
        return int.from_bytes(data[1:], "big")
    digits = data.strip(b"\0 ")
    try:
        return int(digits, 8) if digits else 0
    except ValueError as exc:
        raise TarError("the archive is damaged: a header holds a number that is not one") from exc


def _stated(said: dict[str, str], name: str, data: bytes) -> int:
    text = said.get(name, "")
    return int(text) if text.isdigit() else _number(data)


def _pax(data: bytes) -> dict[bytes, bytes]:
    """Parses pax records: `<length> <key>=<value>` and a line feed; the length includes all of it."""
    found: dict[bytes, bytes] = {}
    while data:
        digits, space, _ = data.partition(b" ")
        # more digits than that are damage: no archive head is 10 MB long
        length = int(digits) if digits.isdigit() and len(digits) < 8 else 0
        if not space or length <= len(digits) + 1 or length > len(data):
            raise TarError("the archive is damaged: its records cannot be read")
        key, _, value = data[len(digits) + 1 : length - 1].partition(b"=")
        found[key] = value
        data = data[length:]
    return found


def _packed(block: bytes) -> str:
    name = next((name for name, magic in _PACKED.items() if block.startswith(magic)), "")
    return f": it is packed with {name}; unpack it first" if name else ""
