# SPDX-License-Identifier: GPL-2.0-or-later
"""Edits a package with the semantics of the `uci` command (uci: list.c, delta.c, cli.c). Pure.

A `uci` command looks up its target and notes a change under the section's *name*. Every later command (including
`commit`) replays the noted changes on the file. We use the same two steps, because the odd cases follow from them: a
change that cannot be replayed (`set pkg.@type[9]=type` without a ninth section) succeeds and changes nothing.
`agent.uci.syntax` parses the input, and `agent.files.uci_store` writes the result.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from agent.errors import UciEditError
from agent.model.issues import GivenSection
from agent.uci.syntax import Option, Package, Section, arguments

_NAME = re.compile(r"[A-Za-z0-9_]+\Z")
_TYPE = re.compile(r"[\x21-\x7e]+\Z")
_EXTENDED = re.compile(r"@([\x21-\x5a\x5c-\x7e]*)\[[ \t]*([+-]?[0-9]+|)\]\Z")  # `@type[n]`
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_INTEGER = re.compile(r"\s*([+-]?[0-9]+)")


class EditKind(StrEnum):
    """The effect of a change. The words are ours; `uci changes` prints signs."""

    ADD = "add"
    SET = "set"
    REMOVE = "remove"
    RENAME = "rename"
    REORDER = "reorder"
    LIST_ADD = "list-add"
    LIST_DEL = "list-del"


@dataclass(frozen=True, slots=True, kw_only=True)
class UciChange:
    """One noted change: a line of libuci's delta file."""

    kind: EditKind
    section: str
    option: str | None = None
    value: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """A package with its changes. `numbered` counts all sections ever made, for generated names."""

    package: Package
    numbered: int
    changes: tuple[UciChange, ...] = ()
    dirty: bool = False  # False: `uci commit` leaves the file as it is and does not even format it


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    section: str | None  # as libuci would note it: the name of the section found, or else the requested text
    option: str | None
    found: Section | None
    found_option: Option | None

    @property
    def complete(self) -> bool:
        """Whether the whole target exists."""
        missing_section = self.section is not None and self.found is None
        return not missing_section and (self.option is None or self.found_option is not None)


def stage(package: Package) -> Staged:
    """A package as it was read, without changes."""
    return Staged(package=package, numbered=len(package.sections))


def find(package: Package, section: str) -> Section | None:
    """Finds a section by name or by `@type[n]`; a negative n counts from the end. Raises UciEditError for any other
    form."""
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
    """`uci set`: sets an option's value or a section's type, and creates the section if needed. "" deletes the target."""
    _check_value(where, value)
    target = _target(staged.package, where)
    if target.section is None or (target.found is None and target.option is not None):
        raise UciEditError(f"{where}: there is no such section")
    if target.option is None and value and not _TYPE.match(value):
        raise UciEditError(f"{where}: invalid section type {value!r}")
    if not value:
        # `uci set x.y.z=''` deletes too: libuci has no empty values
        return delete(staged, where) if target.complete else staged
    # skip a change that changes nothing: it would write to flash and trigger a pass
    if target.option is None and target.found is not None and target.found.type == value:
        return staged
    if target.found_option is not None and target.found_option.value == value:
        return staged
    return _note(
        staged, UciChange(kind=EditKind.SET, section=target.section, option=target.option, value=value)
    )


def delete(staged: Staged, where: str, value: str = "") -> Staged:
    """`uci delete`: deletes an option or a section, or only item number `value` of a list."""
    _check_value(where, value)
    # as in uci(1): a leading number counts, so `3x` is 3; text without one is refused
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
        # as in uci(1): a missing item is not an error and changes nothing
        if number is None or not 0 <= int(number[1]) < len(items):
            return staged
        return _note(
            staged, UciChange(kind=EditKind.REMOVE, section=section, option=target.option, value=number[1])
        )
    return _note(staged, UciChange(kind=EditKind.REMOVE, section=section, option=target.option))


def replayed(package: Package, changes: Iterable[UciChange]) -> Package:
    """The package with noted changes applied; a change that does not fit is skipped."""
    staged = stage(package)
    for change in changes:
        staged = _replayed(staged, change) or staged
    return staged.package


def with_sections(package: Package, given: Mapping[str, GivenSection | None]) -> Package:
    """The package with whole sections replaced in place, or added at the end; None deletes a section.

    Raises UciEditError for anything that a UCI file cannot express.
    """
    sections = list(package.sections)
    for name, said in given.items():
        # keep the section's place in the file, because comments and people's order depend on it
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
        if any(values):  # UCI cannot store an empty option
            options.append(Option(name=option, value=value if isinstance(value, str) else values))
    return Section(type=kind, name=name, options=tuple(options))


def _note(staged: Staged, change: UciChange) -> Staged:
    """Notes and replays a change; a change that libuci could not read back from its delta file is lost."""
    list_without_option = change.kind in (EditKind.LIST_ADD, EditKind.LIST_DEL) and change.option is None
    bad_name = change.kind is EditKind.RENAME and not _NAME.match(change.value or "")
    if not _NAME.match(change.section) or list_without_option or bad_name:
        return staged
    noted = replace(staged, changes=(*staged.changes, change))
    return _replayed(noted, change) or noted


def _replayed(staged: Staged, change: UciChange) -> Staged | None:
    """Applies a change; None if it does not fit, in which case libuci skips it."""
    section = find(staged.package, change.section)
    if section is None:
        return _with_new_section(staged, change)
    if change.kind is EditKind.REORDER:
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
    # new options go to the end, as in libuci
    options = (new if each is old else each for each in section.options)
    kept = [each for each in options if each is not None] + ([new] if old is None and new else [])
    return _with_section(staged, section, replace(section, options=tuple(kept)))


def _with_new_section(staged: Staged, change: UciChange) -> Staged | None:
    if change.option is not None or change.kind not in (EditKind.ADD, EditKind.SET):
        return None
    if not change.value:
        return replace(staged, dirty=True)
    if not _TYPE.match(change.value):
        return None
    new = Section(type=change.value, name=change.section, anonymous=change.kind is EditKind.ADD)
    made = replace(staged, numbered=staged.numbered + 1)
    return _with_sections(made, [*staged.package.sections, new])


def _with_sections(staged: Staged, sections: Sequence[Section]) -> Staged:
    return replace(staged, package=replace(staged.package, sections=tuple(sections)), dirty=True)


def _with_section(staged: Staged, old: Section, new: Section | None) -> Staged:
    kept = (new if each is old else each for each in staged.package.sections)
    return _with_sections(staged, [each for each in kept if each is not None])


_NO_FIT = Section(type="", name="")


def _edited(section: Section, change: UciChange) -> Section | None:
    """The section after a change to itself, None if the change removes it."""
    value = change.value or ""
    match change.kind:
        case EditKind.REMOVE:
            return None
        case EditKind.RENAME:
            return replace(section, name=value, anonymous=False)
        case EditKind.SET | EditKind.ADD if _TYPE.match(value):
            # libuci creates a new, named section if the new type does not fit into the memory of the old one
            anonymous = section.anonymous and len(section.type) == len(value)
            return replace(section, type=value, anonymous=anonymous or change.kind is EditKind.ADD)
    return _NO_FIT


def _edited_option(name: str, old: Option | None, change: UciChange) -> Option | None:
    """The option after the change; None if it is removed or did not exist."""
    value = change.value or ""
    if change.kind is EditKind.SET:
        return Option(name=name, value=value, lines=(0,))
    if old is None:
        return Option(name=name, value=(value,), lines=(0,)) if change.kind is EditKind.LIST_ADD else None
    if change.kind is EditKind.LIST_ADD:
        items = (old.value,) if isinstance(old.value, str) else old.value
        # line 0 means that the value is not in a file yet
        return replace(old, value=(*items, value), lines=(*_lines(old, len(items)), 0))
    if change.kind is EditKind.RENAME:
        return replace(old, name=value)
    if change.kind is EditKind.LIST_DEL and isinstance(old.value, tuple):
        return _with_items(old, [number for number, item in enumerate(old.value) if item != value])
    if change.kind is EditKind.REMOVE and change.value is not None and isinstance(old.value, tuple):
        return _with_items(old, [number for number in range(len(old.value)) if number != int(value)])
    return old if change.kind is EditKind.LIST_DEL else None


def _with_items(old: Option, numbers: Sequence[int]) -> Option:
    lines = _lines(old, len(old.value))
    return replace(
        old,
        value=tuple(old.value[number] for number in numbers),
        lines=tuple(lines[number] for number in numbers),
    )


def _lines(option: Option, count: int) -> tuple[int, ...]:
    return option.lines if len(option.lines) == count else (0,) * count


# Staged changes, which libuci stores in its save directory (/tmp/.uci/PACKAGE) until `uci commit` (uci: delta.c).
# Pure.
#
# Each line is a word, `package.section.option='value'`, with a leading sign for everything but a set. As in libuci, a
# line that cannot be read or does not fit the package is skipped, and the other lines count.


_SIGNS = {
    "+": EditKind.ADD,
    "-": EditKind.REMOVE,
    "@": EditKind.RENAME,
    "^": EditKind.REORDER,
    "|": EditKind.LIST_ADD,
    "~": EditKind.LIST_DEL,
}
_NEEDS_OPTION = (EditKind.LIST_ADD, EditKind.LIST_DEL)


def parse_delta(text: str, *, package: str) -> tuple[UciChange, ...]:
    """The changes in a delta file for a package, in order. Never raises because of the file's content."""
    found = (_change(word, package) for word in arguments(text))
    return tuple(change for change in found if change is not None)


def _change(word: str, package: str) -> UciChange | None:
    kind = _SIGNS.get(word[0], EditKind.SET)
    where, equals, value = (word if kind is EditKind.SET else word[1:]).partition("=")
    # without an option, the change is about the section itself
    name, *rest = where.split(".")
    # skip lines of other programs, as libuci does
    if (
        name != package
        or not 1 <= len(rest) <= 2
        or not all(map(_NAME.match, rest))
        or _CONTROL.search(value)
    ):
        return None
    section, option = [*rest, None][:2]
    if section is None or (not equals and kind is not EditKind.REMOVE):
        return None
    if (kind in _NEEDS_OPTION and option is None) or (kind is EditKind.REORDER and option is not None):
        return None
    if kind is EditKind.RENAME and not _NAME.match(value):
        return None
    # store numbers in normalized form: `07` as 7
    if kind is EditKind.REORDER:
        value = str(_number(value))
    return UciChange(kind=kind, section=section, option=option, value=value if equals else None)


def _number(text: str) -> int:
    """Like strtoul, as far as it matters here: anything but a number counts as 0."""
    found = re.match(r"\s*\+?([0-9]{1,9})", text)
    return int(found[1]) if found else 0
