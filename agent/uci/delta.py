# SPDX-License-Identifier: GPL-2.0-or-later
"""Staged changes: what libuci keeps in its save directory (/tmp/.uci/PACKAGE) until `uci commit` (uci: delta.c). Pure.

Each line is one word, `package.section.option='value'`, with a sign before it for all but a set. As in libuci, a line
that cannot be read, or does not fit the package, is passed over, and the others count.
"""

from __future__ import annotations

import re

from agent.uci.edit import Change, Kind
from agent.uci.syntax import arguments

_SIGNS = {
    "+": Kind.ADD,
    "-": Kind.REMOVE,
    "@": Kind.RENAME,
    "^": Kind.REORDER,
    "|": Kind.LIST_ADD,
    "~": Kind.LIST_DEL,
}
_NAME = re.compile(r"[A-Za-z0-9_]+\Z")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_NEEDS_OPTION = (Kind.LIST_ADD, Kind.LIST_DEL)


def parse_delta(text: str, *, package: str) -> tuple[Change, ...]:
    """The changes that a delta file notes for a package, in their order. Never raises for what the file holds."""
    found = (_change(word, package) for word in arguments(text))
    return tuple(change for change in found if change is not None)


def _change(word: str, package: str) -> Change | None:
    kind = _SIGNS.get(word[0], Kind.SET)
    where, equals, value = (word if kind is Kind.SET else word[1:]).partition("=")
    name, *rest = where.split(".")
    if (
        name != package
        or not 1 <= len(rest) <= 2
        or not all(map(_NAME.match, rest))
        or _CONTROL.search(value)
    ):
        return None
    section, option = [*rest, None][:2]
    if section is None or (not equals and kind is not Kind.REMOVE):
        return None
    if (kind in _NEEDS_OPTION and option is None) or (kind is Kind.REORDER and option is not None):
        return None
    if kind is Kind.RENAME and not _NAME.match(value):
        return None
    if kind is Kind.REORDER:
        value = str(_number(value))
    return Change(kind=kind, section=section, option=option, value=value if equals else None)


def _number(text: str) -> int:
    """As strtoul in what matters here: what is not a number counts as 0."""
    found = re.match(r"\s*\+?([0-9]{1,9})", text)
    return int(found[1]) if found else 0
