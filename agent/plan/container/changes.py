# SPDX-License-Identifier: GPL-2.0-or-later
"""The change table: what a changed field costs. A field without an entry fails a test, not a user."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from agent.model.container_table import TABLE, Level
from agent.plan.container.describe import words
from agent.plan.container.meaning import PLAIN, Defaults, changed_fields, meaning
from agent.plan.written import OptionChange, option_changes

LEVELS: Mapping[str, Level] = {row.field: row.level for row in TABLE}
# moby: zero means "unchanged" in an update (moby#22516), so only these can be taken back in place
_CLEARABLE = frozenset({"pids_limit", "restart"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldChange:
    """One changed field with both values in words, and the `options` that it is read from."""

    field: str
    old: str
    new: str
    level: Level
    options: tuple[OptionChange, ...] = ()


LIMITS = frozenset(name for name, level in LEVELS.items() if level is Level.UPDATE) - {"restart"}


def is_no_limit(field: str, value: Any) -> bool:
    """Whether a value of a field that an update can change means that there is no limit, or the default one.

    `memory_swap` -1 is a setting of its own: swap without a limit.
    """
    return value in (None, 0, "") or (value == -1 and field != "memory_swap")


def is_same_limit(field: str, wanted: Any, seen: Any, memory: Any) -> bool:
    """Whether a limit that the engine shows is the declared one. `memory`: the memory limit that it shows.

    Without a limit of its own for swap, the engine shows twice the memory limit.
    """
    if not is_no_limit(field, wanted):
        return bool(wanted == seen)
    return is_no_limit(field, seen) or (field == "memory_swap" and seen == 2 * (memory or 0))


def level_of(field: str, old: Any, new: Any) -> Level:
    """What a change of `field` from `old` to `new` (canonical values, None = unset) takes."""
    level = LEVELS.get(field, Level.RECREATE)  # not of this version: what made it has to go
    if level is Level.UPDATE and is_no_limit(field, new) and field not in _CLEARABLE:
        return level if is_no_limit(field, old) else Level.RECREATE
    if level is Level.RECONNECT:
        # with or without networks at all is a matter of the network mode, fixed at create
        fixed = not (old and new) or _macs(old) != _macs(new)
        return Level.RECREATE if fixed else level
    return level


def _macs(endpoints: Iterable[Mapping[str, Any]]) -> set[tuple[str, str]]:
    """Before API 1.44 a MAC address is the container's, set at create, and a connect with another one does nothing."""
    return {(e["network"], e["mac_address"]) for e in endpoints if e.get("mac_address")}


def classify(
    before: Mapping[str, Any], after: Mapping[str, Any], defaults: Defaults = PLAIN
) -> tuple[FieldChange, ...]:
    """What two canonical masked specs of a container ask for differently, sorted by field."""
    names = changed_fields("container", before, after, defaults)
    if not names:
        return ()
    old, new = meaning("container", before, defaults), meaning("container", after, defaults)
    return tuple(change_of(name, before.get(name), after.get(name), old, new) for name in names)


def change_of(
    field: str, old: Any, new: Any, before: Mapping[str, Any], after: Mapping[str, Any]
) -> FieldChange:
    """One change; `before` and `after` are the meanings: a limit of 0 is taken away as one that is unset."""
    old_text, new_text = words(field, old, new)
    in_place = LEVELS.get(field) is Level.UPDATE
    level = level_of(field, before.get(field), after.get(field)) if in_place else level_of(field, old, new)
    return FieldChange(
        field=field, old=old_text, new=new_text, level=level, options=option_changes(field, old, new, level)
    )


def options_of(changes: Iterable[FieldChange]) -> tuple[OptionChange, ...]:
    """All of them, option by option."""
    return tuple(replace(option, level=change.level) for change in changes for option in change.options)
