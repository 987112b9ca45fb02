# SPDX-License-Identifier: GPL-2.0-or-later
"""Whole numbers in text that a client sent: a cursor, an offset, a length."""

from __future__ import annotations

HIGHEST = 2**63 - 1  # what the engine and JSON readers hold; Python itself refuses more than 4300 digits


def natural(text: str, *, high: int = HIGHEST) -> int | None:
    """The number from 0 to `high` that `text` is in decimal digits; None for everything else."""
    if not (text.isascii() and text.isdigit()):
        return None
    digits = text.lstrip("0")
    if len(digits) > len(str(high)):
        return None
    number = int(digits or "0")
    return number if number <= high else None
