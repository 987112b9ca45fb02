# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands of `uci` that the agent itself does not need, implemented with the replay of `agent.uci.edit`.

With them a corpus of commands of the real `uci` compares the replay of changes with libuci.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agent.errors import UciEditError
from agent.uci import edit
from agent.uci.syntax import generated_name


def _edited_section(staged: edit.Staged, where: str) -> tuple[edit._Target, str]:
    target = edit._target(staged.package, where)
    if target.found is None:
        raise UciEditError(f"{where}: there is no such section")
    return target, target.found.name


def _existing(staged: edit.Staged, where: str) -> tuple[edit._Target, str]:
    target, section = _edited_section(staged, where)
    if not target.complete:
        raise UciEditError(f"{where}: there is no such option")
    return target, section


def add_list(staged: edit.Staged, where: str, value: str) -> edit.Staged:
    """`uci add_list`: adds an item; a single option becomes the first item of a list."""
    edit._check_value(where, value)
    target, section = _edited_section(staged, where)
    return edit._note(
        staged,
        edit.UciChange(kind=edit.EditKind.LIST_ADD, section=section, option=target.option, value=value),
    )


def del_list(staged: edit.Staged, where: str, value: str) -> edit.Staged:
    """`uci del_list`: removes every item equal to `value`; a single option is left alone."""
    edit._check_value(where, value)
    target, section = _edited_section(staged, where)
    if target.found_option is None or isinstance(target.found_option.value, str):
        return staged
    return edit._note(
        staged,
        edit.UciChange(kind=edit.EditKind.LIST_DEL, section=section, option=target.option, value=value),
    )


def rename(staged: edit.Staged, where: str, name: str) -> edit.Staged:
    """`uci rename`: a section or an option. libuci does not check whether the name is taken."""
    edit._check_value(where, name)
    target, section = _existing(staged, where)
    return edit._note(
        staged, edit.UciChange(kind=edit.EditKind.RENAME, section=section, option=target.option, value=name)
    )


def reorder(staged: edit.Staged, where: str, position: str) -> edit.Staged:
    """`uci reorder`: moves the section to that position, counted from 0. Like libuci, treats anything but a number as 0."""
    edit._check_value(where, position)
    _, section = _edited_section(staged, where)
    number = edit._INTEGER.match(position)
    change = edit.UciChange(
        kind=edit.EditKind.REORDER, section=section, value=str(max(int(number[1]), 0) if number else 0)
    )
    moved = edit._replayed(staged, change)
    return staged if moved is None or moved.package == staged.package else edit._note(staged, change)


def add(staged: edit.Staged, package: str, section_type: str) -> tuple[edit.Staged, str]:
    """`uci add`: an anonymous section at the end; also returns its generated name."""
    if package != staged.package.name:
        raise UciEditError(f"{package}: expected {staged.package.name}")
    name = generated_name(staged.numbered + 1, section_type)
    return edit._note(staged, edit.UciChange(kind=edit.EditKind.ADD, section=name, value=section_type)), name


def run(staged: edit.Staged, command: Sequence[str]) -> edit.Staged:
    """One command line of `uci` (without `uci` itself). Raises UciEditError."""
    match command:
        case ["add", package, section_type]:
            return add(staged, package, section_type)[0]
        case ["delete", where]:
            place, _, value = where.partition("=")
            return edit.delete(staged, place, value)
        case [verb, assignment] if verb in _WITH_VALUE:
            place, equals, value = assignment.partition("=")
            if not equals:
                raise UciEditError(f"{assignment}: {verb} needs =value")
            return _WITH_VALUE[verb](staged, place, value)
    raise UciEditError(f"unknown command: {' '.join(command)}")


_WITH_VALUE: dict[str, Callable[[edit.Staged, str, str], edit.Staged]] = {
    "set": edit.set_value,
    "add_list": add_list,
    "del_list": del_list,
    "rename": rename,
    "reorder": reorder,
}
