# SPDX-License-Identifier: GPL-2.0-or-later
"""The change table: what a changed field costs. A field without an entry fails a test, not a user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from agent.model.identity import is_secret_name


class Level(StrEnum):
    """From cheap to dear."""

    UPDATE = "update"  # POST /containers/{id}/update; the process goes on
    RECONNECT = "reconnect"  # networks are live, endpoints are not: disconnect and connect
    RECREATE = "recreate"


_UPDATE = frozenset(
    {
        "memory",
        "memory_swap",
        "memory_reservation",
        "nano_cpus",
        "cpu_shares",
        "cpuset",
        "pids_limit",
        "blkio_weight",
    }
    | {"restart"}
)
# moby: zero means "unchanged" in an update (moby#22516), so these cannot be cleared in place
_CLEARABLE = frozenset({"pids_limit", "restart"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldChange:
    """One changed field with both values in words."""

    field: str
    old: str
    new: str
    level: Level


def level_of(field: str, old: Any, new: Any) -> Level:
    """What a change of `field` from `old` to `new` (canonical values, None = unset) takes."""
    if field in _UPDATE:
        return Level.RECREATE if new is None and field not in _CLEARABLE else Level.UPDATE
    # with or without networks at all is a matter of the network mode, fixed at create
    return Level.RECONNECT if field == "endpoints" and old and new else Level.RECREATE


def classify(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[FieldChange, ...]:
    """The differences of two canonical masked specs, sorted by field."""
    changes = []
    for field in sorted(before.keys() | after.keys()):
        old, new = before.get(field), after.get(field)
        if old != new:
            old_text, new_text = _texts(field, old, new)
            changes.append(
                FieldChange(field=field, old=old_text, new=new_text, level=level_of(field, old, new))
            )
    return tuple(changes)


def _texts(field: str, old: Any, new: Any) -> tuple[str, str]:
    if field != "env":
        return _text(old), _text(new)
    # values may be secrets: the names of what changed say enough
    mine, other = dict(map(tuple, old or [])), dict(map(tuple, new or []))
    names = sorted(name for name in mine.keys() | other.keys() if mine.get(name) != other.get(name))
    return _names(names, mine), _names(names, other)


def _names(names: list[str], present: Mapping[str, Any]) -> str:
    return "[" + ", ".join(f"{name}=***" if name in present else f"no {name}" for name in names) + "]"


def _text(value: Any) -> str:
    if value is None:
        return "unset"
    if isinstance(value, dict):
        return " ".join(f"{name}={_text(item)}" for name, item in value.items())
    if isinstance(value, list):
        if len(value) == 2 and isinstance(value[0], str) and is_secret_name(value[0]):
            return f"[{value[0]}, ***]"  # a pair such as a log option with a token
        return "[" + ", ".join(_text(item) for item in value) + "]"
    return str(value)
