# SPDX-License-Identifier: GPL-2.0-or-later
"""Fields and their values in the words of a section, as plans, conflicts and diffs show them, without what may be secret.

Values are canonical and masked (`agent.model.identity`): what records hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.model import entry_text
from agent.model.container_table import BY_FIELD, ContainerOption, Shape
from agent.model.resources import Endpoint, Port
from agent.model.secrets import hidden_pair, hidden_text, hidden_words


def option_of(field: str) -> str:
    """The option that a ContainerSpec field is read from."""
    return BY_FIELD[field].uci if field in BY_FIELD else field


def words(field: str, old: Any, new: Any) -> tuple[str, str]:
    """Two values of a field. Of environment variables the names say enough, and only of those that differ."""
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
    lists = {
        name: tuple(map(_frozen, item.get(name, ()))) for name in ("aliases", "link_local", "driver_opts")
    }
    return entry_text.endpoint(Endpoint(**{**item, **lists}), mac=True)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _health(value: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name.removesuffix("_ns"): entry_text.duration(item) if name.endswith("_ns") else item
        for name, item in value.items()
    }
