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


def test_every_picture_is_shown_and_every_shown_one_is_there() -> None:
    """`make screenshots` makes them."""
    named = {
        (page.parent / target).resolve()
        for page in pages()
        for target in re.findall(r"!\[[^\]]+\]\(([^)\s]+)\)", page.read_text())
        if "://" not in target
    }
    made = set((ROOT / "docs/images").iterdir())
    assert named == made
    assert all(each.stat().st_size < 120_000 for each in made)


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_of_the_docs_leads_somewhere() -> None:
    broken = []
    for page in pages():
        for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", page.read_text()):
            if "://" in target:
                continue
            to = page.parent / target if target else page
            if not to.exists() or (anchor and anchor not in anchors(to)):
                broken.append(f"{page.name}: {target}#{anchor}")
    assert broken == []
