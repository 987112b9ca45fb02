# SPDX-License-Identifier: GPL-2.0-or-later
"""Edits of a package with the meaning that the `uci` command gives them (uci: list.c, delta.c, cli.c). Pure.

A `uci` command looks its target up, notes a change under the section's *name*, and every later command (`commit` too)
replays the noted changes on the file. We do the same in two steps, as the odd cases follow from it: a change that
cannot be replayed (`set pkg.@type[9]=type` where there is no ninth) succeeds and changes nothing.
Comes after agent.uci.syntax; agent.files.uci_store writes the result.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from agent.errors import ConfigError
from agent.model.issues import GivenSection
from agent.uci.syntax import Option, Package, Section, arguments

_NAME = re.compile(r"[A-Za-z0-9_]+\Z")
_TYPE = re.compile(r"[\x21-\x7e]+\Z")
_EXTENDED = re.compile(r"@([\x21-\x5a\x5c-\x7e]*)\[[ \t]*([+-]?[0-9]+|)\]\Z")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_INTEGER = re.compile(r"\s*([+-]?[0-9]+)")


class UciEditError(ConfigError):
    """The command failed; `uci` would exit with a status that is not 0."""

    code = "uci-edit"


class Kind(StrEnum):
    """What a change does. The words are ours; `uci changes` prints signs."""

    ADD = "add"
    SET = "set"
    REMOVE = "remove"
    RENAME = "rename"
    REORDER = "reorder"
    LIST_ADD = "list-add"
    LIST_DEL = "list-del"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One noted change: a line of libuci's delta file."""

    kind: Kind
    section: str
    option: str | None = None
    value: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """A package with its changes. `numbered` counts the sections ever made, generated names go on from there."""

    package: Package
    numbered: int
    changes: tuple[Change, ...] = ()
    dirty: bool = False  # False: `uci commit` leaves the file as it is, not even formatting it


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    section: str | None  # as libuci would note it: the name of what was found, else what was asked for
    option: str | None
    found: Section | None
    found_option: Option | None

    @property
    def complete(self) -> bool:
        """Whether all that was asked for is there."""
        missing_section = self.section is not None and self.found is None
        return not missing_section and (self.option is None or self.found_option is not None)


def stage(package: Package) -> Staged:
    """A package as it was read, nothing changed yet."""
    return Staged(package=package, numbered=len(package.sections))


def find(package: Package, section: str) -> Section | None:
    """By name, or by `@type[n]`; a negative n counts from the end. Raises UciEditError for neither form."""
    if _NAME.match(section):
        return next((each for each in package.sections if each.name == section), None)
    parts = _EXTENDED.match(section)
    if parts is None:
        raise UciEditError(f"{package.name}.{section}: no section name, expected a name or @type[number]")
    of_type = [each for each in package.sections if parts[1] in ("", each.type)]
    number = int(parts[2] or "0")
    return of_type[number] if -len(of_type) <= number < len(of_type) else None


def _target(package: Package, where: str) -> _Target:
    name, *rest = where.split(".")
    if name != package.name or len(rest) > 2:
        raise UciEditError(f"{where}: expected {package.name}.section or {package.name}.section.option")
    section, option = [*rest, None, None][:2]
    if option is not None and not _NAME.match(option):
        raise UciEditError(f"{where}: invalid option name, expected letters, digits and _")
    found = find(package, section) if section is not None else None
    found_option = found.get(option) if found is not None and option is not None else None
    return _Target(
        section=found.name if found else section, option=option, found=found, found_option=found_option
    )


def _check_value(where: str, value: str) -> None:
    if _CONTROL.search(value):
        raise UciEditError(f"{where}: control character in the value")


def set_value(staged: Staged, where: str, value: str) -> Staged:
    """`uci set`: an option's value, or a section's type; the section is made if need be. "" deletes what is there."""
    _check_value(where, value)
    target = _target(staged.package, where)
    if target.section is None or (target.found is None and target.option is not None):
        raise UciEditError(f"{where}: there is no such section")
    if target.option is None and value and not _TYPE.match(value):
        raise UciEditError(f"{where}: invalid section type {value!r}")
    if not value:
        # As `uci set x.y.z=''` does: libuci knows no empty values.
        return delete(staged, where) if target.complete else staged
    # Nothing changed is not a change: it would be written to flash, and start a pass.
    if target.option is None and target.found is not None and target.found.type == value:
        return staged
    if target.found_option is not None and target.found_option.value == value:
        return staged
    return _note(staged, Change(kind=Kind.SET, section=target.section, option=target.option, value=value))


def delete(staged: Staged, where: str, value: str = "") -> Staged:
    """`uci delete`: an option or a section; of a list, the item with number `value`, if given."""
    _check_value(where, value)
    # As uci(1): the number in front counts, so `3x` is 3; a text without any is refused.
    number = _INTEGER.match(value)
    if value.strip(" \t\n\r") and number is None:
        raise UciEditError(f"{where}: {value!r} is not an item number")
    target = _target(staged.package, where)
    if target.found is None or not target.complete:
        what = "section" if target.found is None else "option"
        raise UciEditError(f"{where}: there is no such {what}")
    section = target.found.name
    items = target.found_option.value if target.found_option is not None else ""
    if value and isinstance(items, tuple):
        # As uci(1): an item that is not there is no error and changes nothing.
        if number is None or not 0 <= int(number[1]) < len(items):
            return staged
        return _note(staged, Change(kind=Kind.REMOVE, section=section, option=target.option, value=number[1]))
    return _note(staged, Change(kind=Kind.REMOVE, section=section, option=target.option))


def replayed(package: Package, changes: Iterable[Change]) -> Package:
    """The package with noted changes carried out; one that does not fit is passed over."""
    staged = stage(package)
    for change in changes:
        staged = _replayed(staged, change) or staged
    return staged.package


def with_sections(package: Package, given: Mapping[str, GivenSection | None]) -> Package:
    """The package with whole sections as given, in the place of those of their names, or at the end; None deletes one.

    Raises UciEditError for what no UCI file can say.
    """
    sections = list(package.sections)
    for name, said in given.items():
        # The place in the file stays: comments and people's order are about places.
        old = next((each for each in sections if each.name == name), None)
        where = f"{package.name}.{name}"
        if not _NAME.match(name):
            raise UciEditError(f"{where[:64]}: section names may hold letters, digits and `_` only")
        if said is None:
            sections = [each for each in sections if each is not old]
            continue
        new = _section_of(where, name, said, old)
        sections = [new if each is old else each for each in sections] + ([new] if old is None else [])
    return replace(package, sections=tuple(sections))


def _section_of(where: str, name: str, said: GivenSection, old: Section | None) -> Section:
    kind = said.get(".type", old.type if old is not None else "")
    if not isinstance(kind, str) or not _TYPE.match(kind):
        raise UciEditError(f"{where}: `.type` is missing, such as `container`")
    options = []
    for option, value in said.items():
        if option.startswith("."):
            continue
        if not _NAME.match(option):
            raise UciEditError(f"{where}: option names may hold letters, digits and `_` only")
        values = (value,) if isinstance(value, str) else tuple(value)
        for each in values:
            _check_value(f"{where}.{option}", each)
        if any(values):  # UCI keeps no empty option
            options.append(Option(name=option, value=value if isinstance(value, str) else values))
    return Section(type=kind, name=name, options=tuple(options))


def _note(staged: Staged, change: Change) -> Staged:
    """Notes and replays a change; one that libuci cannot read back from its delta file is lost."""
    list_without_option = change.kind in (Kind.LIST_ADD, Kind.LIST_DEL) and change.option is None
    bad_name = change.kind is Kind.RENAME and not _NAME.match(change.value or "")
    if not _NAME.match(change.section) or list_without_option or bad_name:
        return staged
    noted = replace(staged, changes=(*staged.changes, change))
    return _replayed(noted, change) or noted


def _replayed(staged: Staged, change: Change) -> Staged | None:
    """None where the change does not fit: libuci passes over it then."""
    section = find(staged.package, change.section)
    if section is None:
        return _with_new_section(staged, change)
    if change.kind is Kind.REORDER:
        rest = [each for each in staged.package.sections if each is not section]
        rest.insert(int(change.value or "0"), section)
        return _with_sections(staged, rest)
    if change.option is None:
        edited = _edited(section, change)
        return None if edited is _NO_FIT else _with_section(staged, section, edited)
    old = section.get(change.option)
    new = _edited_option(change.option, old, change)
    if old is None and new is None:
        return None
    # a new option goes to the end, as libuci's does
    options = (new if each is old else each for each in section.options)
    kept = [each for each in options if each is not None] + ([new] if old is None and new else [])
    return _with_section(staged, section, replace(section, options=tuple(kept)))


def _with_new_section(staged: Staged, change: Change) -> Staged | None:
    if change.option is not None or change.kind not in (Kind.ADD, Kind.SET):
        return None
    if not change.value:
        return replace(staged, dirty=True)
    if not _TYPE.match(change.value):
        return None
    new = Section(type=change.value, name=change.section, anonymous=change.kind is Kind.ADD)
    made = replace(staged, numbered=staged.numbered + 1)
    return _with_sections(made, [*staged.package.sections, new])


def _with_sections(staged: Staged, sections: Sequence[Section]) -> Staged:
    return replace(staged, package=replace(staged.package, sections=tuple(sections)), dirty=True)


def _with_section(staged: Staged, old: Section, new: Section | None) -> Staged:
    kept = (new if each is old else each for each in staged.package.sections)
    return _with_sections(staged, [each for each in kept if each is not None])


_NO_FIT = Section(type="", name="")


def _edited(section: Section, change: Change) -> Section | None:
    """The section with a change to itself, None if that removes it."""
    value = change.value or ""
    match change.kind:
        case Kind.REMOVE:
            return None
        case Kind.RENAME:
            return replace(section, name=value, anonymous=False)
        case Kind.SET | Kind.ADD if _TYPE.match(value):
            # libuci makes a new, named section when the new type does not fit into the place of the old one
            anonymous = section.anonymous and len(section.type) == len(value)
            return replace(section, type=value, anonymous=anonymous or change.kind is Kind.ADD)
    return _NO_FIT


def _edited_option(name: str, old: Option | None, change: Change) -> Option | None:
    """The option after the change; None if it is removed, or was not there to be changed."""
    value = change.value or ""
    if change.kind is Kind.SET:
        return Option(name=name, value=value, lines=(0,))
    if old is None:
        return Option(name=name, value=(value,), lines=(0,)) if change.kind is Kind.LIST_ADD else None
    if change.kind is Kind.LIST_ADD:
        items = (old.value,) if isinstance(old.value, str) else old.value
        # line 0 stands for a value that is in no file yet
        return replace(old, value=(*items, value), lines=(*_lines(old, len(items)), 0))
    if change.kind is Kind.RENAME:
        return replace(old, name=value)
    if change.kind is Kind.LIST_DEL and isinstance(old.value, tuple):
        return _with_items(old, [number for number, item in enumerate(old.value) if item != value])
    if change.kind is Kind.REMOVE and change.value is not None and isinstance(old.value, tuple):
        return _with_items(old, [number for number in range(len(old.value)) if number != int(value)])
    return old if change.kind is Kind.LIST_DEL else None


def _with_items(old: Option, numbers: Sequence[int]) -> Option:
    lines = _lines(old, len(old.value))
    return replace(
        old,
        value=tuple(old.value[number] for number in numbers),
        lines=tuple(lines[number] for number in numbers),
    )


def _lines(option: Option, count: int) -> tuple[int, ...]:
    return option.lines if len(option.lines) == count else (0,) * count


# Staged changes: what libuci keeps in its save directory (/tmp/.uci/PACKAGE) until `uci commit` (uci: delta.c). Pure.
#
# Each line is one word, `package.section.option='value'`, with a sign before it for all but a set. As in libuci, a line
# that cannot be read, or does not fit the package, is passed over, and the others count.


_SIGNS = {
    "+": Kind.ADD,
    "-": Kind.REMOVE,
    "@": Kind.RENAME,
    "^": Kind.REORDER,
    "|": Kind.LIST_ADD,
    "~": Kind.LIST_DEL,
}
_NEEDS_OPTION = (Kind.LIST_ADD, Kind.LIST_DEL)


def parse_delta(text: str, *, package: str) -> tuple[Change, ...]:
    """The changes that a delta file notes for a package, in their order. Never raises for what the file holds."""
    found = (_change(word, package) for word in arguments(text))
    return tuple(change for change in found if change is not None)


def _change(word: str, package: str) -> Change | None:
    kind = _SIGNS.get(word[0], Kind.SET)
    where, equals, value = (word if kind is Kind.SET else word[1:]).partition("=")
    # One without an option is about the section itself.
    name, *rest = where.split(".")
    # Lines of other programs: what libuci would pass over is passed over here as well.
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
    # Numbers are kept as they are compared, `07` as 7.
    if kind is Kind.REORDER:
        value = str(_number(value))
    return Change(kind=kind, section=section, option=option, value=value if equals else None)


def _number(text: str) -> int:
    """As strtoul in what matters here: what is not a number counts as 0."""
    found = re.match(r"\s*\+?([0-9]{1,9})", text)
    return int(found[1]) if found else 0
