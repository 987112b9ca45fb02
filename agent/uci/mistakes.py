# SPDX-License-Identifier: GPL-2.0-or-later
"""Describes the mistakes of a UCI file: what is wrong in a line, and what to write instead.

libuci has a dozen phrases for them and stops at the first mistake. Values are never quoted, because they may be
secrets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from agent.uci.syntax import Fault, faults

_MOST = 50  # of one file; the rest mostly follows from the first ones
_COMMANDS = ("config", "option", "list", "package")
_TYPOGRAPHIC = "\u2018\u2019\u201c\u201d\u201a\u201e\u00ab\u00bb"
_BOM = "\ufeff"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMistake:
    """One mistake; `line` is the line on which it begins, counted from 1."""

    line: int
    wrong: str
    expected: str


def mistakes_of(text: str, *, package: str) -> tuple[FileMistake, ...]:
    """All mistakes of a file that libuci refuses, at most 50. If the file is not UCI at all, only that."""
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            other = _other_syntax(line, package)
            if other is not None:
                return (FileMistake(line=number, wrong=other[0], expected=other[1]),)
            # only the first non-empty line counts: a `docker run` further down may be part of a value
            break
    found: list[FileMistake] = []
    for fault in faults(text, package=package, most=_MOST):
        wrong, expected = _words(fault, lines[fault.line - 1], package)
        found.append(FileMistake(line=fault.line, wrong=wrong, expected=expected))
    return tuple(found)


def without(text: str, found: tuple[FileMistake, ...]) -> str:
    """The text without the lines of these mistakes; a section with a mistake in its `config` line stays, without a name."""
    lines = text.split("\n")
    for mistake in found:
        words = lines[mistake.line - 1].split(maxsplit=2)
        is_section = len(words) > 1 and words[0] == "config"
        lines[mistake.line - 1] = f"config {words[1]}" if is_section else ""
    return "\n".join(lines)


def _other_syntax(line: str, package: str) -> tuple[str, str] | None:
    """Recognizes Docker's formats by the first line of a file; None if it may be UCI."""
    made = "`config container 'NAME'` sections, which `ucidockd import compose FILE` makes of a compose file"
    if package == "dockerd":
        made = "`config globals 'globals'`, in which `option alt_config_file '/path/daemon.json'` names such a file"
    if line.lstrip().startswith(("{", "[{")):
        return "the file is JSON, but it must be a UCI file", made
    # by keys that compose files begin with, because a UCI line may contain a colon too
    if re.match(r"---\s*$|(services|version|name|networks|volumes|include|x-[\w.-]+)\s*:", line):
        return "the file is YAML, but it must be a UCI file", made
    # including the prompt and `sudo` that people copy from web pages
    if re.match(r"\s*(\$\s+)?(sudo\s+)?(docker|podman)\s+(container\s+)?(run|create)\b", line):
        return (
            "this is a command line, not UCI",
            "`config container 'NAME'`, which `ucidockd import run < FILE` makes of it",
        )
    return None


def _words(fault: Fault, line: str, package: str) -> tuple[str, str]:
    verb, _, first = fault.head.partition(" ")
    # editors of other systems write these; libuci would only report an invalid command or name
    if line.startswith(_BOM):
        return "the file begins with a byte order mark", "UTF-8 without BOM"
    if any(letter in line for letter in _TYPOGRAPHIC):
        return "the line has typographic quotes", "plain quotes: ' or \""
    match fault.detail:
        case "EOF with unterminated":
            return f"the quote opened in `{fault.head}` is never closed", "a closing quote on the same line"
        case "invalid command":
            return _unknown_command(line)
        case "too many arguments":
            return (
                f"`{fault.head}` has more than one value",
                f"one value in quotes, as in `{fault.head} 'a b c'`",
            )
        case "option/list command found before the first section":
            return f"`{fault.head}` stands before the first section", "a `config` line above it"
        case "section of different type overwrites prior section with same name":
            kind, number = fault.other
            taken = f"`{fault.word}` is already the {kind} of line {number}; names are unique in a UCI file"
            other = f"`config {first or 'TYPE'} '{fault.word}_{first or '2'}'`"
            return taken, f"another name, as in {other}, with `option name '{fault.word}'`"
        case "invalid character in name field":
            shown = fault.word[:64]
            plain = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in shown)
            # libuci says "name field" for section names and option names
            if verb != "config" and verb in _FORMS:
                # as in a shell or in the output of `uci show`; do not quote the rest, which may be a secret
                name, equals, _ = fault.word.partition("=")
                if equals and re.fullmatch("[A-Za-z0-9_]+", name):
                    return (
                        f"an equals sign follows `{verb} {name}`",
                        f"a space, as in `{verb} {name} 'VALUE'`",
                    )
                return f"`{shown}` is not an option name: letters, digits and `_` only", f"`{verb} {plain}`"
            wish = f"`config {fault.head.partition(' ')[2] or 'TYPE'} '{plain}'`"
            # only our sections have `option name`; those of dockerd's package are identified by their type
            named = f" and `option name '{shown}'`" if package == "containers" else ""
            return f"section names may hold letters, digits and `_` only, unlike `{shown}`", wish + named
        case "invalid character in type field":
            return "the section type holds a character that is not allowed", "a type such as `container`"
    return f"`{verb or 'the command'}` is not complete", _FORMS.get(verb, "config TYPE 'NAME'")


_FORMS = {
    "config": "`config TYPE 'NAME'`, as in `config container 'web'`",
    "option": "`option NAME 'VALUE'`",
    "list": "`list NAME 'VALUE'`",
}


def _unknown_command(line: str) -> tuple[str, str]:
    """An unknown command word. It is quoted only if it resembles a command, because otherwise it may be part of a
    secret."""
    import difflib  # imported only for mistakes

    word = line.split(maxsplit=1)[0] if line.split() else ""
    near = difflib.get_close_matches(word[:32], _COMMANDS, n=1)
    if near and near[0] == word:
        return f"`{word}` is not complete", _FORMS.get(word, "`package NAME`")
    if near:
        return f"`{word[:32]}` is not a UCI command", f"`{near[0]}`"
    return "the line does not begin with a UCI command", "`config`, `option` or `list`"
