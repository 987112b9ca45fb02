# SPDX-License-Identifier: GPL-2.0-or-later
"""Edits do what the real `uci` command did (tests/data/uci-corpus)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent.errors import UciEditError
from agent.uci.edit import EditKind, Staged, UciChange, stage
from agent.uci.syntax import format_file, parse, quote
from tests.support.uci_commands import run

CORPUS = Path(__file__).parents[1] / "data" / "uci-corpus" / "edit.jsonl"
CASES = [json.loads(line) for line in CORPUS.read_text().splitlines()]

TEXT = """
config container 'web'
	option image 'nginx'
	list port '80:80'
	list port '81:81'

config container
	option name 'a'

config network 'lan'
"""


def tried(staged: Staged, command: list[str]) -> tuple[Staged, bool]:
    try:
        return run(staged, command), True
    except UciEditError:
        return staged, False


def printed(change: UciChange) -> str:
    """As `uci changes` prints it."""
    path = ".".join(part for part in ("test", change.section, change.option) if part is not None)
    if change.kind is EditKind.REMOVE:
        return f"-{path}\n"
    sign = {EditKind.LIST_ADD: "+=", EditKind.LIST_DEL: "-="}.get(change.kind, "=")
    return f"{path}{sign}{quote(change.value or '')}\n"


def edited(*commands: str) -> str:
    staged = stage(parse(TEXT, package="test"))
    for command in commands:
        staged = run(staged, command.split(" ", 2))
    return format_file(staged.package)


@pytest.mark.parametrize("case", CASES, ids=[str(number) for number in range(len(CASES))])
def test_agrees_with_the_real_uci(case: dict[str, Any]) -> None:
    staged = stage(parse(case["input"], package="test"))
    for command in case["commands"]:
        staged, succeeded = tried(staged, command["cmd"])
        assert succeeded == command["ok"], command["cmd"]
    assert "".join(printed(change) for change in staged.changes) == case["changes"]
    assert (format_file(staged.package) if staged.dirty else case["input"]) == case["after"]
