# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the structure of a tar archive while it streams by (POSIX.1-2001 ustar and pax, GNU): its members, and
whether it is complete. Contents of members are not kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from posixpath import normpath

from agent.wire.bodies import BLOCK, TarHeader, is_plain_tar

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
            return []
        if self._records is not None:
            entry, self._records = self._records, None
            self._note(entry, block[: entry.size])
            return []
        # two blocks of zeros end the archive; what follows the first one is meaningless
        if not any(block):
            self.ended = True
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

    def _note(self, entry: TarHeader, data: bytes) -> None:
        if entry.kind in _LONG:
            self._said[_LONG[entry.kind]] = _text(data)
        elif entry.kind == "x":  # global records (g) do not describe a single member
            self._said |= _pax(data)

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
        name = said.get("path", f"{prefix}/{name}" if prefix else name)
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


def folder_archive(folder: Member, name: str) -> bytes:
    """A complete archive with only this folder, under another name of at most 99 ASCII characters."""
    head = bytearray(BLOCK)
    head[: len(name)] = name.encode("ascii")
    fields = {100: (8, folder.mode), 108: (8, folder.uid), 116: (8, folder.gid), 124: (12, 0)}
    fields[136] = (12, max(0, int(folder.modified)))
    for at, (width, value) in fields.items():
        # octal digits, or binary with the highest bit set if they do not suffice (GNU, star)
        octal = b"%0*o\0" % (width - 1, value)
        binary = b"\x80" + value.to_bytes(width - 1, "big")
        head[at : at + width] = octal if len(octal) == width else binary
    head[156:157] = _FOLDERS.encode()
    head[257:265] = b"ustar\x0000"
    head[148:156] = b" " * 8  # the checksum counts its own field as blanks
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + bytes(2 * BLOCK)


def rooted(name: str) -> str:
    """A member's name as a path from the archive's root, "" for the root itself."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return "/".join(parts)


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


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


def _pax(data: bytes) -> dict[str, str]:
    """Parses pax records: `<length> <key>=<value>` and a line feed; the length includes all of it."""
    found: dict[str, str] = {}
    while data:
        digits, space, _ = data.partition(b" ")
        # more digits than that are damage: no archive head is 10 MB long
        length = int(digits) if digits.isdigit() and len(digits) < 8 else 0
        if not space or length <= len(digits) + 1 or length > len(data):
            raise TarError("the archive is damaged: its records cannot be read")
        key, _, value = data[len(digits) + 1 : length - 1].partition(b"=")
        found[_text(key)] = _text(value)
        data = data[length:]
    return found


def _packed(block: bytes) -> str:
    name = next((name for name, magic in _PACKED.items() if block.startswith(magic)), "")
    return f": it is packed with {name}; unpack it first" if name else ""
