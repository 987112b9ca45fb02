# SPDX-License-Identifier: GPL-2.0-or-later
"""What the command line prints: tables for people, with control characters in outside text escaped.

Colours appear only on a terminal that supports them; in a pipe everything is plain text.
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from agent.model.issues import plain

_SPACE = re.compile(r" (?!(?:s|min|h|%)(?:\W|$))")  # keep a number and its unit together

_COLOURS = {"good": "32", "bad": "31", "busy": "33", "head": "1", "dim": "2"}


def colours_wanted(stream: TextIO) -> bool:
    """Whether to use colours (https://no-color.org): on a terminal that supports them, unless NO_COLOR is set."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class Style:
    """Colours text if colours are on: `Style.of(sys.stdout)("good", "yes")`."""

    def __init__(self, *, colours: bool, width: int = 0) -> None:
        self.colours = colours
        self.width = width  # of the terminal; 0 means that lines are not wrapped

    @classmethod
    def of(cls, stream: TextIO) -> Style:
        said, width = os.environ.get("COLUMNS", ""), 0
        if stream.isatty() and said.isdigit() and int(said):
            width = int(said)
        elif stream.isatty():
            try:  # without shutil, which imports four compression modules
                width = os.get_terminal_size(stream.fileno()).columns
            except (OSError, ValueError):
                width = 80
        return cls(colours=colours_wanted(stream), width=width)

    def __call__(self, name: str, text: str) -> str:
        return f"\x1b[{_COLOURS[name]}m{text}\x1b[0m" if self.colours and name and text else text


PLAIN = Style(colours=False)
_NARROW = 60  # a terminal with fewer columns is narrow
_LEAST = 12  # the minimum width of a cell


def columns(head: Sequence[str], rows: Sequence[Sequence[str]], style: Style = PLAIN) -> list[str]:
    """Left-aligned columns under a head. On a terminal that is too narrow cells are wrapped; below 60 columns each
    cell gets its own line. Empty without rows.
    """
    if not rows:
        return []
    if style.width and style.width < _NARROW:
        stacked = []
        for row in rows:
            stacked += wrapped(row[0], style)
            for name, cell in zip(head[1:], row[1:], strict=True):
                if cell:
                    stacked += wrapped(f"{name.lower()}: {cell}", style, indent=2)
        return stacked
    shown = [[plain(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in shown) for i in range(len(head))]
    # the widest column is narrowed first, so that names stay readable beside a long text
    while style.width and sum(widths) + 2 * len(widths) > style.width and max(widths) > _LEAST:
        widths[widths.index(max(widths))] -= 1
    lines = []
    for number, row in enumerate(shown):
        cells = [
            wrapped(cell, Style(colours=False, width=width + 1) if style.width else PLAIN)
            for cell, width in zip(row, widths, strict=True)
        ]
        for at in range(max(map(len, cells))):
            texts = [cell[at] if at < len(cell) else "" for cell in cells]
            line = "  ".join(text.ljust(width) for text, width in zip(texts, widths, strict=True)).rstrip()
            lines.append(style("head" if number == 0 else "", line))
    return lines


def output_of(resource: dict[str, Any]) -> str:
    """The last output of its container before it failed, "" if none is kept."""
    details = (condition.get("details", {}) for condition in resource["conditions"])
    return str(next((each["output"] for each in details if "output" in each), ""))


def output_lines(output: str) -> list[str]:
    """The output, indented and escaped for a terminal."""
    return [f"    {plain(line)}" for line in output.split("\n")]


def age_words(seconds: float) -> str:
    """`40 s`, `7 min`, `26 h`, `12 days`: in the unit that gives at least two digits."""
    for unit, size, least in (("days", 86_400, 172_800), ("h", 3600, 7200), ("min", 60, 120)):
        if seconds >= least:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"


def wait_words(seconds: float) -> str:
    """A time to come, like `age_words`; never `0 s`."""
    return age_words(math.ceil(seconds))


def wrapped(text: str, style: Style, *, indent: int = 0, bold: bool = False) -> list[str]:
    """Text wrapped to the terminal's width; a word that is longer than a line is split. In a pipe it is one line."""
    room = max(style.width - 1 - indent, _LEAST) if style.width else 0
    lines = []
    line = ""
    for word in _SPACE.split(plain(text)):
        while room and len(word) > room:
            # a word longer than a line (an id, a path) starts on the current line, unless only a small piece would
            # fit there
            space = room - len(line) - 1 if line else room
            if space < room // 3:
                lines.append(line)
                line, space = "", room
            lines.append(f"{line} {word[:space]}" if line else word[:space])
            line, word = "", word[space:]
        if room and line and len(line) + 1 + len(word) > room:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    lines.append(line)
    return [" " * indent + (style("head", each) if bold else each) for each in lines]


def print_sections(text: str) -> None:
    """Prints sections as UCI text. Tabs at the start of a line belong to UCI; all other control characters are escaped."""
    for line in text.splitlines():
        print("\t" * (len(line) - len(line.lstrip("\t"))) + plain(line.lstrip("\t")))


def agreed(question: str) -> bool:
    """Whether the user answers yes. The end of the input is a no."""
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def print_issues(issues: Iterable[dict[str, Any]]) -> None:
    """Prints the mistakes in the configuration on stderr."""
    style = Style.of(sys.stderr)
    for issue in issues:
        name = "bad" if issue["severity"] == "error" else "busy"
        print(f"{style(name, issue['severity'])}: {plain(issue['text'])}", file=sys.stderr)
