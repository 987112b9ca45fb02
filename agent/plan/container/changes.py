# SPDX-License-Identifier: GPL-2.0-or-later
"""What a changed field costs, by the table of options, and how a field and its values read for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from agent.model import entry_text
from agent.model.container_table import BY_FIELD, TABLE, ContainerOption, Level, Shape
from agent.model.resources import Endpoint, Port
from agent.model.secrets import hidden_pair, hidden_text, hidden_words
from agent.plan.container.meaning import PLAIN, Defaults, changed_fields, meaning
from agent.plan.written import OptionChange, option_changes

# Fields and their values in the words of a section, as plans, conflicts and diffs show them, without what may be secret.
#
# Values are canonical and masked (`agent.model.identity`): what records hold.


def option_of(field: str) -> str:
    """The option that a ContainerSpec field is read from."""
    return BY_FIELD[field].uci if field in BY_FIELD else field


def words(field: str, old: Any, new: Any) -> tuple[str, str]:
    """Two values of a field. Of environment variables the names say enough, and only of those that differ."""
    # values of variables are hashes in records, and secrets in sections: neither is for people
    if field != "env":
        return _words(field, old), _words(field, new)
    mine, other = dict(map(tuple, old or [])), dict(map(tuple, new or []))
    names = sorted(name for name in mine.keys() | other.keys() if mine.get(name) != other.get(name))
    return _names(names, mine), _names(names, other)


def _names(names: list[str], present: Mapping[str, Any]) -> str:
    return "[" + ", ".join(f"{name}=***" if name in present else f"no {name}" for name in names) + "]"


def _words(field: str, value: Any) -> str:
    if value is None:
        return "unset"
    row = BY_FIELD.get(field)
    if row is None:
        return _text(value)
    if row.shape is Shape.PAIRS:
        return "[" + ", ".join(hidden_pair(key, item) for key, item in value) + "]"
    try:
        return _text(_spoken(row, value))
    except (TypeError, ValueError, KeyError, AttributeError):
        return _text(value)  # of a version that knew the field in another form


def _spoken(row: ContainerOption, value: Any) -> object:
    """The canonical value as the section writes it."""
    codec = row.codec
    match row.field:
        case "health":
            return _health(value)
        case "endpoints":
            return [_endpoint(item) for item in value]
        case "ports":
            return list(entry_text.ports(Port(**item) for item in value))
    if codec.made is not None:
        made = codec.made
        if isinstance(value, dict):
            return codec.text(made(**value))
        return [codec.text(made(**item)) for item in value]
    if row.shape is Shape.ONE and not isinstance(value, bool):
        return codec.text(value)
    return value


def _text(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={_text(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        if value and all(isinstance(item, str) for item in value):
            return "[" + ", ".join(hidden_words(value)) + "]"
        return "[" + ", ".join(_text(item) for item in value) + "]"
    return hidden_text(value) if isinstance(value, str) else str(value)


def _endpoint(item: Mapping[str, Any]) -> str:
    endpoint = Endpoint(**{**item, "aliases": tuple(item.get("aliases", ()))})
    mac = f",mac={endpoint.mac_address}" if endpoint.mac_address else ""
    return entry_text.endpoint(endpoint) + mac


def _health(value: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name.removesuffix("_ns"): entry_text.duration(item) if name.endswith("_ns") else item
        for name, item in value.items()
    }


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

    `memory_swap` -1 is its own setting: swap without a limit.
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
    # only for limits the meaning decides: of a list `level_of` needs the entries as they are written
    in_place = LEVELS.get(field) is Level.UPDATE
    level = level_of(field, before.get(field), after.get(field)) if in_place else level_of(field, old, new)
    return FieldChange(
        field=field, old=old_text, new=new_text, level=level, options=option_changes(field, old, new, level)
    )


def describe(changes: Iterable[FieldChange]) -> str:
    """Changes in words: `memory 1 -> 2; restart no -> always`."""
    return "; ".join(f"{option_of(change.field)} {change.old} -> {change.new}" for change in changes)


def options_of(changes: Iterable[FieldChange]) -> tuple[OptionChange, ...]:
    """All of them, option by option."""
    return tuple(replace(option, level=change.level) for change in changes for option in change.options)
