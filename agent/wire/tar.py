# SPDX-License-Identifier: GPL-2.0-or-later
"""The structure of a tar archive as it streams by (POSIX.1-2001 ustar and pax, GNU): what its members are, and whether it
is whole. Nothing of the members' contents is held.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.wire.bodies import BLOCK, Entry, is_plain_tar

RECORDS_LIMIT = 1024 * 1024  # bytes of pax records or of a long name about one member
_LONG = {"L": "path", "K": "linkpath"}  # GNU's long names
_SPARSE = "S"  # GNU: a map of the holes follows its header, in blocks that say whether another one comes
_IS_EXTENDED, _IS_EXTENDED_MORE = 482, 504
_FOLDERS = "5"
_WITHOUT_CONTENT = frozenset("123456")  # whatever size their header states: links, devices, folders, pipes


class TarError(ValueError):
    """These bytes are not a tar archive, or not all of one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One file, folder, link or device. `kind`: its type flag. `modified`: unix seconds."""

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
    """Feed it pieces of any size. `members`: how many began so far."""

    members: int = 0
    ended: bool = False
    _head: bytearray = field(default_factory=bytearray)
    _skip: int = 0  # bytes of contents that are still to come
    _records: Entry | None = None  # whose bytes are collected in `_head`
    _said: dict[str, str] = field(default_factory=dict)  # about the next member
    _map: bool = False  # blocks of a sparse member's map come

    def feed(self, data: bytes) -> list[Member]:
        """The members whose headers ended in these bytes. Raises TarError."""
        found: list[Member] = []
        view = memoryview(data)
        while len(view) and not self.ended:
            # Contents are passed over as they come: a member may be larger than the memory.
            if self._skip and not self._map:
                passed = min(self._skip, len(view))
                self._skip -= passed
                view = view[passed:]
                continue
            wanted = self._wanted() - len(self._head)
            self._head += view[:wanted]
            view = view[wanted:]
            # A header may come in several pieces.
            if len(self._head) < self._wanted():
                break
            block = bytes(self._head)
            self._head.clear()
            found += self._take(block)
        return found

    def end(self) -> None:
        """The stream has ended. Raises TarError where the archive has not."""
        if not self.ended:
            raise TarError("the archive is not complete: its end is missing")

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
        # the end is two blocks of zeros; what follows the first one means nothing
        if not any(block):
            self.ended = True
            return []
        if not is_plain_tar(block):
            raise TarError(
                "this is not a tar archive"
                if not self.members
                else f"the archive is damaged after member {self.members}"
            )
        entry = Entry.of(block)
        if entry.is_records:
            if entry.size > RECORDS_LIMIT:
                raise TarError(f"more than {RECORDS_LIMIT} bytes of records about one member")
            self._records = entry if entry.size else None
            return []
        return [self._member(block, entry)]

    def _note(self, entry: Entry, data: bytes) -> None:
        if entry.kind in _LONG:
            self._said[_LONG[entry.kind]] = _text(data)
        elif entry.kind == "x":  # the global ones (g) are about no member of their own
            self._said |= _pax(data)

    def _member(self, block: bytes, entry: Entry) -> Member:
        said, self._said = self._said, {}
        # octal digits end at 8 GiB: pax records have the true size then
        stated = said.get("size", "")
        size = int(stated) if stated.isdigit() else entry.size
        self._skip = 0 if entry.kind in _WITHOUT_CONTENT else _padded(size)
        self._map = entry.kind == _SPARSE and bool(block[_IS_EXTENDED])
        self.members += 1
        # GNU's own form has other fields where ustar has the prefix
        prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else ""
        name = _text(block[:100])
        try:
            modified = float(said.get("mtime", ""))
        except ValueError:
            modified = float(_number(block[136:148]))
        return Member(
            name=said.get("path", f"{prefix}/{name}" if prefix else name),
            kind=entry.kind if entry.kind not in "\x007" else "0",
            size=size,
            mode=_number(block[100:108]),
            uid=_stated(said, "uid", block[108:116]),
            gid=_stated(said, "gid", block[116:124]),
            modified=modified,
            link=said.get("linkpath", _text(block[157:257])),
        )


def folder_archive(folder: Member, name: str) -> bytes:
    """A whole archive that holds nothing but that folder, under another name of at most 99 ASCII characters."""
    head = bytearray(BLOCK)
    head[: len(name)] = name.encode("ascii")
    fields = {100: (8, folder.mode), 108: (8, folder.uid), 116: (8, folder.gid), 124: (12, 0)}
    fields[136] = (12, max(0, int(folder.modified)))
    for at, (width, value) in fields.items():
        # octal digits, or binary with the highest bit set where they do not suffice (GNU, star)
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
    """Octal digits, or binary with the highest bit set (GNU, star)."""
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
    """`<length> <key>=<value>` and a line feed each; the length counts all of it."""
    found: dict[str, str] = {}
    while data:
        digits, space, _ = data.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 8 else 0
        if not space or length <= len(digits) + 1 or length > len(data):
            raise TarError("the archive is damaged: its records cannot be read")
        key, _, value = data[len(digits) + 1 : length - 1].partition(b"=")
        found[_text(key)] = _text(value)
        data = data[length:]
    return found
