# SPDX-License-Identifier: GPL-2.0-or-later
"""A reader finds the way: every module is named in docs/ARCHITECTURE.md, and what the docs link to is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_module_is_named_in_the_architecture() -> None:
    text = (ROOT / "docs/ARCHITECTURE.md").read_text()
    modules = {p.stem for p in (ROOT / "agent").glob("*/**/*.py") if not p.stem.startswith("__")}
    assert {name for name in modules if f"`{name}`" not in text} == set()


def test_every_link_of_the_docs_leads_somewhere() -> None:
    broken = []
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []
