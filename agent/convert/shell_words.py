# SPDX-License-Identifier: GPL-2.0-or-later
"""Splits pasted shell text into commands and words, as far as `docker run` lines need it (POSIX shell, 2.2 and 2.3).

Nothing is run: a `$(...)`, and a variable without a value, stay in the word, which says so in `unresolved`. `shlex`
does not tell `'$x'` from `"$x"`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(?::?-([^{}$]*))?\})")
_SUBSTITUTION = re.compile(r"\$\(([^()]*)\)|`([^`]*)`")
_ENDS = ";&|\n()"
_ASSIGNED = re.compile(r"(?:export\s+)?([A-Za-z_]\w*)=")


@dataclass(frozen=True, slots=True)
class Word:
    """One word. `unresolved`: what only a shell could replace, as it was written."""

    text: str
    unresolved: str = ""


class _Splitter:
    def __init__(self, text: str, variables: Mapping[str, str]) -> None:
        # `^` and "`" at the end of a line continue it in Windows' shells
        self.text = re.sub(r"[ \t](?:\\|\^|`)[ \t]*\r?\n", " ", text.replace("\r\n", "\n"))
        self.text = re.sub(r"\\\n", "", self.text)
        self.variables = variables
        self.at = 0
        self.commands: list[list[Word]] = [[]]
        self.word: str | None = None
        self.unresolved = ""

    def run(self) -> list[list[Word]]:
        text = self.text
        while self.at < len(text):
            char = text[self.at]
            # A `#` inside of a word is no comment, as in `image#1`: pasted lines may have both.
            if char == "#" and self.word is None:
                self.at = end if (end := text.find("\n", self.at)) >= 0 else len(text)
            elif char in _ENDS:
                self._end_word()
                self.at += 1
                if self.commands[-1]:
                    self.commands.append([])
            elif char.isspace():
                self._end_word()
                self.at += 1
            else:
                self._piece(char)
        self._end_word()
        return [command for command in self.commands if command]

    def _end_word(self) -> None:
        if self.word is not None:
            self.commands[-1].append(Word(self.word, self.unresolved))
        self.word, self.unresolved = None, ""

    def _add(self, text: str) -> None:
        self.word = (self.word or "") + text

    def _piece(self, char: str) -> None:
        if char == "'":
            end = self.text.find("'", self.at + 1)
            if end < 0:
                raise ValueError("a single quote is not closed")
            self._add(self.text[self.at + 1 : end])
            self.at = end + 1
        elif char == '"':
            self._double()
        elif char == "\\":
            self._add(self.text[self.at + 1 : self.at + 2])
            self.at += 2
        elif char in "$`":
            self._expand()
        else:
            self._add(char)
            self.at += 1

    def _double(self) -> None:
        self._add("")
        self.at += 1
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == '"':
                self.at += 1
                return
            # before any other character a backslash in double quotes stands for itself (POSIX shell, 2.2.3)
            if char == "\\" and self.text[self.at + 1 : self.at + 2] in ('"', "\\", "$", "`"):
                self._add(self.text[self.at + 1])
                self.at += 2
            elif char in "$`":
                self._expand()
            else:
                self._add(char)
                self.at += 1
        raise ValueError("a double quote is not closed")

    def _expand(self) -> None:
        found = _VARIABLE.match(self.text, self.at)
        if found:
            name, value = found[1] or found[2], None
            value = self.variables.get(name)
            if value is None and found[3] is not None:
                value = found[3]
        else:
            found = _SUBSTITUTION.match(self.text, self.at)
            if not found:
                self._add(self.text[self.at])
                self.at += 1
                return
            # nothing is run, but `$(pwd)` is the folder, which may be known
            value = self.variables.get("PWD") if (found[1] or found[2] or "").strip() == "pwd" else None
        self.at = found.end()
        self._add(found[0] if value is None else value)
        if value is None:
            self.unresolved = self.unresolved or found[0]


def split_commands(text: str, variables: Mapping[str, str]) -> list[list[Word]]:
    """The commands of `text`. Raises ValueError where a quote is not closed.

    Assignments on lines of their own (`TZ=Europe/Berlin`) hold for the commands after them.
    """
    known = dict(variables)
    # one variable may be made of another: until no new one is found
    while True:
        commands = _Splitter(text, known).run()
        new = {
            found[1]: word.text[found.end() :]
            for command in commands
            if len(command) == 1 or command[0].text == "export"
            for word in command[-1:]
            if (found := _ASSIGNED.match(word.text)) and not word.unresolved and found[1] not in known
        }
        if not new:
            return commands
        known |= new
