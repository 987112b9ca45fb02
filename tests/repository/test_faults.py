# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/faults.md tells the truth: each row of the fault catalogue is in it, and what it names is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
# numbers of the catalogue of faults; letters: threats by local values and files (G), forged labels (D), images (E)
ROWS = {*map(str, range(1, 67)), "D", "E", "G"}
UNTRIED = "not tried"


def table() -> list[tuple[set[str], str, str]]:
    """Rows of the catalogue, what is tried, and the whole line, of each line of the table."""
    found = []
    for line in (ROOT / "docs/faults.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 4 and cells[0] != "row":
            found.append((set(_numbers(cells[0]) if cells[0] != "-" else ()), cells[2], line))
    return found


def _numbers(text: str) -> list[str]:
    numbers: list[str] = []
    for part in text.replace(" ", "").split(","):
        first, dash, last = part.partition("-")
        numbers += map(str, range(int(first), int(last) + 1)) if dash else [part] if part else []
    return numbers


@cache
def _functions(path: Path) -> set[str]:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, kinds)}


def test_every_row_of_the_catalogue_is_in_the_table() -> None:
    assert ROWS - set().union(*(rows for rows, _, _ in table())) == set()


def test_every_line_names_tests_that_are_there() -> None:
    wrong = []
    for _, tried, line in table():
        names = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", tried)
        if not names and not tried.startswith(UNTRIED):
            wrong.append(f"no test: {line}")
        for file, function in names:
            path = ROOT / "tests" / file
            if not path.exists() or (function and function not in _functions(path)):
                wrong.append(f"{file}::{function}")
    assert wrong == []
