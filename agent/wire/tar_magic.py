# SPDX-License-Identifier: GPL-2.0-or-later
"""Headers of tar archives: a plain one is told by its first block (POSIX.1-1988 ustar and older: the header's checksum),
and what an entry is (pax, POSIX.1-2001).
"""

from __future__ import annotations

from dataclasses import dataclass

BLOCK = 512


@dataclass(frozen=True, slots=True)
class Entry:
    """`kind`: the header's type flag, such as 0 (a file), 5 (a folder), x (records about the next entry)."""

    kind: str
    size: int

    @classmethod
    def of(cls, block: bytes) -> Entry:
        """A header. A size that is too large for octal digits is binary, with the highest bit set (GNU, star)."""
        field = block[124:136]
        if field[0] & 0x80:
            size = int.from_bytes(field[1:], "big")
        else:
            digits = field.strip(b"\0 ")
            size = int(digits, 8) if digits.isdigit() else 0
        return cls(chr(block[156]), size)

    @property
    def is_records(self) -> bool:
        """Whether it is about other entries: pax records, or GNU's long names."""
        return self.kind in ("x", "g", "L", "K")


def size_of_records(records: bytes) -> int | None:
    """The size that pax records state (`<length> size=<bytes>` a line), None where they state none."""
    for line in records.split(b"\n"):
        _, _, record = line.partition(b" ")
        if record.startswith(b"size=") and record[5:].isdigit():
            return int(record[5:])
    return None


def is_plain_tar(block: bytes) -> bool:
    """Whether a tar archive starts with this block: a header whose checksum fits, or the end mark of an empty one."""
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
