# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of conditions is whole, and the only one."""

from __future__ import annotations

import itertools
import re
import time
from pathlib import Path

import pytest

from agent.status.board import StatusBoard
from agent.status.conditions import CONDITIONS, NOTES, ConditionType, Level, Remedy, advice_of

ROOT = Path(__file__).parents[2]
READERS = [
    *sorted((ROOT / "agent/cli").rglob("*.py")),
    ROOT / "agent/status/metrics.py",
    *sorted((ROOT / "luci/htdocs").rglob("*.js")),
]


def judged(*conditions: tuple[str, bool, str]) -> tuple[str, str]:
    """The level and verdict of a resource with these conditions."""
    board = StatusBoard(time.time)
    board.ensure("container:web")
    for kind, status, reason in conditions:
        board.set("container:web", ConditionType(kind), status=status, reason=reason)
    (resource,) = board.snapshot()["resources"]
    return resource["level"], resource["verdict"]


def test_every_type_has_a_row_with_a_sentence() -> None:
    assert set(CONDITIONS) == set(ConditionType)
    assert {kind for kind, row in CONDITIONS.items() if row.level is Level.OK} == set(NOTES)
    for row in CONDITIONS.values():
        assert re.fullmatch(r"([A-Z]|dockerd |ucidockd ).*\.", row.sentence)


def test_every_problem_says_what_to_do_in_sentences_for_people() -> None:
    """Not in commands: on the pages there are buttons."""
    troubles = (Level.ERROR, Level.WARNING)
    for kind, row in CONDITIONS.items():
        reasons = [
            reason for reason in (*row.reasons, "Failed") if row.reasons.get(reason, row.level) in troubles
        ]
        told = [advice_of(kind, status=row.bad, reason=reason) for reason in reasons]
        for text in (*told, *row.advice_for.values()):
            assert re.fullmatch(r"[A-Z].*[.?]", text) and "`ucidockd" not in text, (kind, text)
        assert advice_of(kind, status=not row.bad, reason="Failed") == ""


@pytest.mark.parametrize("reader", READERS, ids=lambda path: path.name)
def test_no_reader_has_a_list_of_conditions_of_its_own(reader: Path) -> None:
    """One that asks for a condition by name, as the columns of a table do, is not a list."""
    named = set(re.findall(r"['\"]([A-Z][A-Za-z]+)['\"]", reader.read_text()))
    assert len(named & set(ConditionType)) <= (3 if reader.suffix == ".js" else 8)


def test_luci_has_a_button_for_each_remedy() -> None:
    pages = ROOT / "luci/htdocs/luci-static/resources/ucidockd"
    buttons = "".join((pages / name).read_text() for name in ("problems.js", "forwardings.js"))
    assert set(re.findall(r"^\t(?:case )?'([a-z]+-[a-z-]+)':", buttons, re.MULTILINE)) == set(Remedy)


@pytest.mark.parametrize(
    ("conditions", "level", "verdict"),
    [
        ([("Synced", True, "InSync"), ("Running", True, "Running")], "ok", "Synced"),
        ([("Synced", True, "InSync"), ("Accepted", False, "Invalid")], "error", "Accepted"),
        ([("Synced", False, "RolledBack"), ("Degraded", True, "RolledBack")], "error", "Degraded"),
        ([("Synced", False, "Conflict"), ("Running", False, "Absent")], "error", "Synced"),
        ([("Synced", False, "Held"), ("Running", False, "Exited")], "off", "Synced"),
        ([("Waiting", True, "Missing"), ("Synced", False, "Pending")], "waiting", "Waiting"),
        ([("Synced", True, "InSync"), ("PublicPort", True, "Wan")], "warning", "PublicPort"),
        ([("Waiting", True, "Missing"), ("PublicPort", True, "Wan")], "waiting", "Waiting"),
        ([("Synced", True, "InSync"), ("PublicPort", False, "Closed")], "ok", "Synced"),
        ([("Synced", True, "InSync"), ("Running", False, "CrashLoop")], "error", "Running"),
        ([("Waiting", True, "Missing"), ("FirewallOpen", True, "Failed")], "error", "FirewallOpen"),
        ([("Accepted", True, "Valid")], "waiting", "Synced"),
        ([], "waiting", "Synced"),
    ],
)
def test_the_worst_condition_decides(
    conditions: list[tuple[str, bool, str]], level: str, verdict: str
) -> None:
    for order in itertools.permutations(conditions):
        assert judged(*order) == (level, verdict)


@pytest.mark.parametrize("kind", ConditionType)
def test_nothing_that_is_bad_looks_well(kind: ConditionType) -> None:
    level, verdict = judged(("Synced", True, "InSync"), (kind, CONDITIONS[kind].bad, "Some"))
    assert (level, verdict) == (CONDITIONS[kind].level, ConditionType.SYNCED if kind in NOTES else kind)


def test_a_bad_condition_without_a_message_is_told_in_a_sentence() -> None:
    board = StatusBoard(time.time)
    board.ensure("daemon:dockerd")
    board.set("daemon:dockerd", ConditionType.ROLLED_BACK, status=True, reason="Failed")
    (resource,) = board.snapshot()["resources"]
    assert resource["conditions"][0]["message"] == CONDITIONS[ConditionType.ROLLED_BACK].sentence


def test_each_condition_says_itself_in_a_few_words() -> None:
    board = StatusBoard(time.time)
    board.ensure("container:web")
    for kind in ConditionType:
        board.set("container:web", kind, status=CONDITIONS[kind].bad, reason="CrashLoop")
    (resource,) = board.snapshot()["resources"]
    labels = {one["type"]: one["label"] for one in resource["conditions"]}
    assert all(label and not re.search(r"[a-z][A-Z]", label.replace("LuCI", "")) for label in labels.values())
    assert (labels["PublicPort"], labels["Running"]) == ("Open to the internet", "Keeps crashing")
    board.set("container:web", ConditionType.SYNCED, status=True, reason="InSync")
    (resource,) = board.snapshot()["resources"]
    assert {one["type"]: one["label"] for one in resource["conditions"]}["Synced"] == "In sync"
