# SPDX-License-Identifier: GPL-2.0-or-later
"""Tells a plain tar from its first block (POSIX.1-1988 ustar and older: the header's checksum)."""

from __future__ import annotations

BLOCK = 512


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
