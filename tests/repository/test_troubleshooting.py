# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever status shows can be looked up: docs/troubleshooting.md explains each condition and each reason."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from agent.errors import Reason
from agent.status.conditions import CONDITIONS, ConditionType

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/troubleshooting.md").read_text()
REASONS = frozenset(get_args(Reason))
# words in the first two cells of a table's row, and those that a paragraph introduces
_CELLS = re.findall(r"^\|([^|]*)\|([^|]*)\|", PAGE, re.MULTILINE)
EXPLAINED = frozenset(
    re.findall(r"`([A-Z]\w+)`", "".join(first + second for first, second in _CELLS))
) | frozenset(re.findall(r"reason `(\w+)`", PAGE))


def test_every_condition_is_explained() -> None:
    headings = frozenset(re.findall(r"^### (\w+)$", PAGE, re.MULTILINE))
    missing = [
        kind for kind in ConditionType if kind not in headings | EXPLAINED and f"`{kind}`, " not in PAGE
    ]
    assert missing == []


def test_every_reason_is_explained() -> None:
    assert sorted(REASONS - EXPLAINED) == []


def test_no_reason_is_explained_that_no_code_gives() -> None:
    code = "".join(path.read_text() for path in (ROOT / "agent").glob("**/*.py") if path.name != "errors.py")
    errors = (ROOT / "agent/errors.py").read_text()
    unused = [r for r in REASONS if f'"{r}"' not in code and errors.count(f'"{r}"') < 2]
    assert unused == []
    assert sorted(EXPLAINED - REASONS - frozenset(ConditionType)) == []


def test_reasons_with_a_level_of_their_own_are_reasons() -> None:
    assert {reason for row in CONDITIONS.values() for reason in row.reasons} <= REASONS
