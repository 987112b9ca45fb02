# SPDX-License-Identifier: GPL-2.0-or-later
"""A change of a spec as a section writes it: option by option, before and after, without what may be secret.

Specs are canonical and masked (`agent.model.identity`), as records keep them.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agent.model import entry_text
from agent.model.container_table import BY_FIELD, ContainerOption, Level, Shape
from agent.model.resources import Endpoint, Port
from agent.model.secrets import MASK, hidden_pair, hidden_text, hidden_words
from agent.uci.decode_network import BRIDGE_NAME, INTERFACE_NAME_MAX

Written = str | tuple[str, ...] | None
"""What a section says of an option: one value, the entries of a list, None where it says nothing."""

_SHORTEST_RANGE = 3  # of ports: two neighbours are mostly written one by one
_MODES = ("macvlan_mode", "ipvlan_mode")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionChange:
    """`level`: what it takes (see `Level`). `hidden`: names of entries that changed and whose values are not shown."""

    option: str
    before: Written
    after: Written
    level: Level
    hidden: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For clients."""
        shown: dict[str, Any] = {
            "field": self.option,
            "before": list(self.before) if isinstance(self.before, tuple) else self.before,
            "after": list(self.after) if isinstance(self.after, tuple) else self.after,
            "level": self.level.value,
        }
        return {**shown, "hidden": list(self.hidden)} if self.hidden else shown


def option_changes(field: str, old: Any, new: Any, level: Level) -> tuple[OptionChange, ...]:
    """One changed field of a container as the options that it is read from."""
    row = BY_FIELD.get(field)
    if field in ("env", "labels"):
        option = "env" if field == "env" else "label"
        return (_of_pairs(option, old or [], new or [], level, names_only=field == "env"),)
    if row is not None and row.shape is Shape.PAIRS:
        return (_of_pairs(row.uci, old or [], new or [], level),)
    before, after = _options_of(row, field, old), _options_of(row, field, new)
    # what looks the same once masked is told all the same, by name: a change without any would not be understood
    return tuple(
        OptionChange(
            option=name,
            before=before.get(name),
            after=after.get(name),
            level=level,
            hidden=(name,) if before.get(name) == after.get(name) else (),
        )
        for name in dict.fromkeys((*before, *after))
        if before.get(name) != after.get(name) or len(before.keys() | after.keys()) == 1
    )


def network_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[OptionChange, ...]:
    """What two specs of a network say otherwise. None of it changes in place."""
    return _changes(_network(before), _network(after))


def _changes(old: Mapping[str, Written], new: Mapping[str, Written]) -> tuple[OptionChange, ...]:
    return tuple(
        OptionChange(option=name, before=old.get(name), after=new.get(name), level=Level.RECREATE)
        for name in dict.fromkeys((*old, *new))
        if old.get(name) != new.get(name)
    )


def _of_pairs(
    option: str, old: Iterable[Any], new: Iterable[Any], level: Level, *, names_only: bool = False
) -> OptionChange:
    """A list of `name=value`. What differs and looks the same once masked is named instead."""
    mine, other = dict(map(tuple, old)), dict(map(tuple, new))
    before, after = (
        {
            name: f"{name}={MASK}" if names_only else hidden_pair(name, str(value))
            for name, value in each.items()
        }
        for each in (mine, other)
    )
    # A changed password would show as no change at all: the name says that there is one.
    hidden = tuple(
        name
        for name in sorted(mine.keys() & other.keys())
        if mine[name] != other[name] and before[name] == after[name]
    )
    return OptionChange(
        option=option,
        before=tuple(before.values()) or None,
        after=tuple(after.values()) or None,
        level=level,
        hidden=hidden,
    )


def _options_of(row: ContainerOption | None, field: str, value: Any) -> dict[str, Written]:
    name = row.uci if row is not None else field
    if value in (None, []) and not (row is not None and row.shape is Shape.WORDS and value == []):
        return {}
    try:
        return _spoken(row, name, value)
    except (TypeError, ValueError, KeyError, AttributeError):
        return {name: hidden_text(str(value))}  # of a version that knew the field in another form


def _spoken(row: ContainerOption | None, name: str, value: Any) -> dict[str, Written]:
    match row.field if row is not None else "":
        case "":
            return {name: hidden_text(str(value))}
        case "health":
            return {f"health_{key.removesuffix('_ns')}": _health(key, item) for key, item in value.items()}
        case "endpoints":
            points = [Endpoint(**{**item, "aliases": tuple(item.get("aliases", ()))}) for item in value]
            mac: dict[str, Written] = {"mac_address": points[0].mac_address} if points[0].mac_address else {}
            return {name: tuple(map(entry_text.endpoint, points)), **mac}
        case "ports":
            ports = (Port(**item) for item in value)
            return {name: tuple(entry_text.ports(ports, shortest_range=_SHORTEST_RANGE))}
        case "seccomp":
            return {name: f"seccomp={value}"}
    assert row is not None
    codec = row.codec
    if row.shape is Shape.WORDS:
        return {name: " ".join(shlex.quote(word) for word in hidden_words(value))}
    if isinstance(value, list):
        made = codec.made
        items = (codec.text(made(**item)) if made else codec.text(item) for item in value)
        return {name: tuple(map(hidden_text, items))}
    if isinstance(value, dict) and codec.made is not None:
        return {name: codec.text(codec.made(**value))}
    return {name: hidden_text(codec.text(value) if not isinstance(value, bool) else "1" if value else "0")}


def _health(key: str, value: Any) -> str:
    return entry_text.duration(value) if key.endswith("_ns") else hidden_text(str(value))


def _network(spec: Mapping[str, Any]) -> dict[str, Written]:
    pools = spec.get("pools") or []
    options = dict(map(tuple, spec.get("options") or []))
    written: dict[str, Written] = {"driver": spec.get("driver")}
    written |= {name: "1" for name in ("internal", "attachable", "ipv6") if spec.get(name)}
    if "parent" in options:
        written["parent"] = options.pop("parent")
    for name in _MODES:
        if name in options:
            written["mode"] = options.pop(name)
    own = options.get(BRIDGE_NAME, "")
    if own.startswith("br-") and len(own) <= INTERFACE_NAME_MAX:
        options.pop(BRIDGE_NAME)  # the one that each network gets
    lists = {
        "subnet": [pool["subnet"] for pool in pools],
        "gateway": [pool["gateway"] for pool in pools if pool.get("gateway")],
        "ip_range": [pool["ip_range"] for pool in pools if pool.get("ip_range")],
        "aux_address": [f"{n}={a}" for pool in pools for n, a in pool.get("aux_addresses") or ()],
        "opt": [hidden_pair(name, value) for name, value in options.items()],
        "label": [hidden_pair(name, value) for name, value in spec.get("labels") or ()],
    }
    return written | {name: tuple(items) for name, items in lists.items() if items}
