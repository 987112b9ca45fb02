# SPDX-License-Identifier: GPL-2.0-or-later
"""A reader finds the way: the files that the docs name and link to are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def pages() -> list[Path]:
    return [*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md"), *(ROOT / "benchmarks").glob("*.md")]


def test_every_path_that_the_docs_name_is_there() -> None:
    gone = [
        f"{page.name}: {path}"
        for page in pages()
        for path in re.findall(r"`((?:agent|schemas|tests)/[\w./-]*\w)/?`", page.read_text())
        if not any((ROOT / f"{path}{suffix}").exists() for suffix in ("", ".py"))
    ]
    assert gone == []


def test_every_link_of_the_docs_leads_somewhere() -> None:
    broken = []
    for page in pages():
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []
