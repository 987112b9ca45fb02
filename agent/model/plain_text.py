# SPDX-License-Identifier: GPL-2.0-or-later
"""Text of others for terminals and logs: it moves no cursor, paints nothing, begins no line of its own."""

from __future__ import annotations


def plain(text: str) -> str:
    """Line feeds, escapes and whatever else is not printable shown as Python writes them."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
