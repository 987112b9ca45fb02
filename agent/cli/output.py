# SPDX-License-Identifier: GPL-2.0-or-later
"""What the command line prints: tables for people, with whatever control characters outside text carries escaped.

Colours only on a terminal that wants them; in a pipe everything is plain text.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TextIO

from agent.model.plain_text import plain

_SPACE = re.compile(r" (?!(?:s|min|h|%)(?:\W|$))")  # a number and its unit stay together

_COLOURS = {"good": "32", "bad": "31", "busy": "33", "head": "1", "dim": "2"}


def colours_wanted(stream: TextIO) -> bool:
    """https://no-color.org, and a terminal that can."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class Style:
    """Colours text, or not: `Style.of(sys.stdout)("good", "yes")`."""

    def __init__(self, *, colours: bool, width: int = 0) -> None:
        self.colours = colours
        self.width = width  # of the terminal, 0 = lines are as long as they like

    @classmethod
    def of(cls, stream: TextIO) -> Style:
        return cls(colours=colours_wanted(stream), width=_width(stream) if stream.isatty() else 0)

    def __call__(self, name: str, text: str) -> str:
        return f"\x1b[{_COLOURS[name]}m{text}\x1b[0m" if self.colours and name and text else text


def _width(terminal: TextIO) -> int:
    """As shutil has it, which imports four compressors for it."""
    said = os.environ.get("COLUMNS", "")
    if said.isdigit() and int(said):
        return int(said)
    try:
        return os.get_terminal_size(terminal.fileno()).columns
    except (OSError, ValueError):
        return 80


PLAIN = Style(colours=False)


def table(
    rows: Iterable[Sequence[str]],
    style: Style = PLAIN,
    *,
    colour: Callable[[int, int], str] = lambda row, column: "",
) -> str:
    """Left-aligned columns under a head; the last is cut at the terminal's edge. `colour`: (row, column) -> name."""
    lines = [[plain(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in lines) for i in range(len(lines[0]) - 1)]
    room = max(8, style.width - sum(widths) - 2 * len(widths)) if style.width else 0
    made = []
    for number, row in enumerate(lines):
        last = row[-1][: room - 1] + "…" if room and len(row[-1]) > room else row[-1]
        shown = [*row[:-1], last]
        while len(shown) > 1 and not shown[-1]:
            shown.pop()
        cells = [cell.ljust(width) for cell, width in zip(shown[:-1], widths, strict=False)] + shown[-1:]
        names = ["head" if number == 0 else colour(number - 1, i) for i in range(len(cells))]
        made.append("  ".join(style(n, c) for n, c in zip(names, cells, strict=True)))
    return "\n".join(made)


def output_of(resource: dict[str, Any]) -> str:
    """What its container printed last before it failed, "" where nothing is kept."""
    details = (condition.get("details", {}) for condition in resource["conditions"])
    return str(next((each["output"] for each in details if "output" in each), ""))


def output_lines(output: str) -> list[str]:
    """Indented, for a terminal."""
    return [f"    {plain(line)}" for line in output.split("\n")]


def age_words(seconds: float) -> str:
    """`40 s`, `7 min`, `26 h`, `12 days`: two digits or more of the unit that suits."""
    for unit, size, least in (("days", 86_400, 172_800), ("h", 3600, 7200), ("min", 60, 120)):
        if seconds >= least:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"


def wrapped(text: str, style: Style, *, indent: int = 0, bold: bool = False) -> list[str]:
    """Text in lines of the terminal's width; a word that fits in none is cut into pieces. One line in a pipe."""
    room = max(style.width - 1 - indent, 12) if style.width else 0
    lines = []
    line = ""
    for word in _SPACE.split(plain(text)):
        while room and len(word) > room:
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


def print_issues(issues: Iterable[dict[str, Any]]) -> None:
    """The mistakes in the configuration, on stderr."""
    style = Style.of(sys.stderr)
    for issue in issues:
        name = "bad" if issue["severity"] == "error" else "busy"
        print(f"{style(name, issue['severity'])}: {plain(issue['text'])}", file=sys.stderr)
