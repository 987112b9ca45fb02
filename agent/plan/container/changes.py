# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes of a spec: how each changed field can be applied (by the table of options), and how to show it.

Every change is shown in words and option by option, as a section would write it, before and after, with secrets
masked. Specs are canonical and masked (`agent.model.identity`), in the form that records store.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from agent.model import entry_text
from agent.model.container_table import BY_FIELD, TABLE, ChangeLevel, ContainerOption, Shape
from agent.model.resources import Endpoint, Port
from agent.model.secrets import MASK, hidden_pair, hidden_text, hidden_words
from agent.plan.container.meaning import PLAIN, Defaults, changed_fields, meaning
from agent.uci.decode_network import BRIDGE_NAME, INTERFACE_NAME_MAX

# Fields and their values as a section would write them, for plans, conflicts and diffs; secrets are masked.
#
# The input values are canonical and masked (`agent.model.identity`), in the form that records store.

Written = str | tuple[str, ...] | None
"""The value of an option in a section: a string, the entries of a list, or None if the option is not set."""

_SHORTEST_RANGE = 3  # of ports: people mostly write two neighbouring ports as two entries
_MODES = ("macvlan_mode", "ipvlan_mode")


def option_of(field: str) -> str:
    """The UCI option from which a ContainerSpec field is read."""
    return BY_FIELD[field].uci if field in BY_FIELD else field


def words(field: str, old: Any, new: Any) -> tuple[str, str]:
    """The old and the new value of a field in words. For environment variables only the names of those that differ."""
    # values of variables are hashes in records and secrets in sections; neither should be shown
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
        return _text(value)  # written by another version, which stored the field in another form


def _spoken(row: ContainerOption, value: Any) -> object:
    """The canonical value, as the section would write it."""
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


LEVELS: Mapping[str, ChangeLevel] = {row.field: row.level for row in TABLE}
# moby treats zero as "unchanged" in an update (moby#22516), so only these fields can be unset in place
_CLEARABLE = frozenset({"pids_limit", "restart"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldChange:
    """One changed field with its old and new value in words, and its UCI `options`."""

    field: str
    old: str
    new: str
    level: ChangeLevel
    options: tuple[OptionChange, ...] = ()


LIMITS = frozenset(name for name, level in LEVELS.items() if level is ChangeLevel.UPDATE) - {"restart"}


def is_no_limit(field: str, value: Any) -> bool:
    """Whether a value means no limit, or the default limit, for a field that can be updated in place.

    Exception: -1 for `memory_swap` is an explicit setting and means unlimited swap.
    """
    return value in (None, 0, "") or (value == -1 and field != "memory_swap")


def is_same_limit(field: str, wanted: Any, seen: Any, memory: Any) -> bool:
    """Whether the limit that the engine reports equals the declared one. `memory`: the reported memory limit.

    If no swap limit is set, the engine reports twice the memory limit.
    """
    if not is_no_limit(field, wanted):
        return bool(wanted == seen)
    return is_no_limit(field, seen) or (field == "memory_swap" and seen == 2 * (memory or 0))


def level_of(field: str, old: Any, new: Any) -> ChangeLevel:
    """How a change of `field` from `old` to `new` can be applied (canonical values, None = unset)."""
    # a field of another version: this version cannot change it in place
    level = LEVELS.get(field, ChangeLevel.RECREATE)
    if level is ChangeLevel.UPDATE and is_no_limit(field, new) and field not in _CLEARABLE:
        return level if is_no_limit(field, old) else ChangeLevel.RECREATE
    if level is ChangeLevel.RECONNECT:
        # the network mode decides whether a container has networks at all, and it is fixed at create
        fixed = not (old and new) or _macs(old) != _macs(new)
        return ChangeLevel.RECREATE if fixed else level
    return level


def _macs(endpoints: Iterable[Mapping[str, Any]]) -> set[tuple[str, str]]:
    """MAC addresses by network. Before API 1.44 the MAC address is set at create for the whole container; a connect
    ignores it."""
    return {(e["network"], e["mac_address"]) for e in endpoints if e.get("mac_address")}


def classify(
    before: Mapping[str, Any], after: Mapping[str, Any], defaults: Defaults = PLAIN
) -> tuple[FieldChange, ...]:
    """The changes between two canonical masked specs of a container, by meaning, sorted by field."""
    names = changed_fields("container", before, after, defaults)
    if not names:
        return ()
    old, new = meaning("container", before, defaults), meaning("container", after, defaults)
    return tuple(change_of(name, before.get(name), after.get(name), old, new) for name in names)


def change_of(
    field: str, old: Any, new: Any, before: Mapping[str, Any], after: Mapping[str, Any]
) -> FieldChange:
    """One change. `before` and `after` are the meanings of the specs, in which a limit of 0 equals an unset limit."""
    old_text, new_text = words(field, old, new)
    # only limits are compared by meaning; for lists `level_of` needs the entries as written
    in_place = LEVELS.get(field) is ChangeLevel.UPDATE
    level = level_of(field, before.get(field), after.get(field)) if in_place else level_of(field, old, new)
    return FieldChange(
        field=field, old=old_text, new=new_text, level=level, options=option_changes(field, old, new, level)
    )


def describe(changes: Iterable[FieldChange]) -> str:
    """The changes in words: `memory 1 -> 2; restart no -> always`."""
    return "; ".join(f"{option_of(change.field)} {change.old} -> {change.new}" for change in changes)


def options_of(changes: Iterable[FieldChange]) -> tuple[OptionChange, ...]:
    """The changes option by option."""
    return tuple(replace(option, level=change.level) for change in changes for option in change.options)


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionChange:
    """`level`: how the change is applied (see `ChangeLevel`). `hidden`: names of changed entries whose values are masked."""

    option: str
    before: Written
    after: Written
    level: ChangeLevel
    hidden: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The JSON for clients."""
        shown: dict[str, Any] = {
            "field": self.option,
            "before": list(self.before) if isinstance(self.before, tuple) else self.before,
            "after": list(self.after) if isinstance(self.after, tuple) else self.after,
            "level": self.level.value,
        }
        return {**shown, "hidden": list(self.hidden)} if self.hidden else shown


def option_changes(field: str, old: Any, new: Any, level: ChangeLevel) -> tuple[OptionChange, ...]:
    """The change of one container field, as changes of its UCI options."""
    row = BY_FIELD.get(field)
    if field in ("env", "labels"):
        option = "env" if field == "env" else "label"
        return (_of_pairs(option, old or [], new or [], level, names_only=field == "env"),)
    if row is not None and row.shape is Shape.PAIRS:
        return (_of_pairs(row.uci, old or [], new or [], level),)
    before, after = _options_of(row, field, old), _options_of(row, field, new)
    # a change that masking makes invisible is still listed by name; otherwise the cause of the operation would be
    # missing
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
    """The changed options between two specs of a network. None of them can change in place."""
    return _changes(_network(before), _network(after))


def _changes(old: Mapping[str, Written], new: Mapping[str, Written]) -> tuple[OptionChange, ...]:
    return tuple(
        OptionChange(option=name, before=old.get(name), after=new.get(name), level=ChangeLevel.RECREATE)
        for name in dict.fromkeys((*old, *new))
        if old.get(name) != new.get(name)
    )


def _of_pairs(
    option: str, old: Iterable[Any], new: Iterable[Any], level: ChangeLevel, *, names_only: bool = False
) -> OptionChange:
    """A change of a list of `name=value`. Entries that look equal after masking but differ are listed in `hidden`."""
    mine, other = dict(map(tuple, old)), dict(map(tuple, new))
    before, after = (
        {
            name: f"{name}={MASK}" if names_only else hidden_pair(name, str(value))
            for name, value in each.items()
        }
        for each in (mine, other)
    )
    # a changed password looks unchanged once it is masked, so list its name
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
        return _written(row, name, value)
    except (TypeError, ValueError, KeyError, AttributeError):
        # written by another version, which stored the field in another form
        return {name: hidden_text(str(value))}


def _written(row: ContainerOption | None, name: str, value: Any) -> dict[str, Written]:
    match row.field if row is not None else "":
        # only another version has a row for this field
        case "":
            return {name: hidden_text(str(value))}
        case "health":
            return {
                f"health_{key.removesuffix('_ns')}": entry_text.duration(item)
                if key.endswith("_ns")
                else hidden_text(str(item))
                for key, item in value.items()
            }
        case "endpoints":
            # records come from JSON, in which tuples have become lists
            points = [Endpoint(**{**item, "aliases": tuple(item.get("aliases", ()))}) for item in value]
            # The top-level option and the endpoint's option are the same field of the spec. Show both, because the
            # section may use either.
            mac: dict[str, Written] = {"mac_address": points[0].mac_address} if points[0].mac_address else {}
            return {name: tuple(map(entry_text.endpoint, points)), **mac}
        case "ports":
            ports = (Port(**item) for item in value)
            return {name: tuple(entry_text.ports(ports, shortest_range=_SHORTEST_RANGE))}
        case "seccomp":
            return {name: f"seccomp={value}"}
    assert row is not None
    codec = row.codec
    # mask word by word before quoting: in the joined text a password could not be told from its flag
    if row.shape is Shape.WORDS:
        return {name: " ".join(shlex.quote(word) for word in hidden_words(value))}
    if isinstance(value, list):
        made = codec.made
        items = (codec.text(made(**item)) if made else codec.text(item) for item in value)
        return {name: tuple(map(hidden_text, items))}
    if isinstance(value, dict) and codec.made is not None:
        return {name: codec.text(codec.made(**value))}
    if isinstance(value, bool):
        return {name: "1" if value else "0"}
    return {name: hidden_text(codec.text(value))}


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
        options.pop(BRIDGE_NAME)  # the default bridge name, which every network gets
    lists = {
        "subnet": [pool["subnet"] for pool in pools],
        "gateway": [pool["gateway"] for pool in pools if pool.get("gateway")],
        "ip_range": [pool["ip_range"] for pool in pools if pool.get("ip_range")],
        "aux_address": [f"{n}={a}" for pool in pools for n, a in pool.get("aux_addresses") or ()],
        "opt": [hidden_pair(name, value) for name, value in options.items()],
        "label": [hidden_pair(name, value) for name, value in spec.get("labels") or ()],
    }
    return written | {name: tuple(items) for name, items in lists.items() if items}
