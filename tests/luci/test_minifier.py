# SPDX-License-Identifier: GPL-2.0-or-later
"""LuCI's build runs jsmin over the pages. jsmin takes a slash for the beginning of a regular expression only after one of
`( , = : [ ! & | ? + - ~ * /`, a brace, a semicolon or the beginning of a line: after a word it is a division to it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

RESOURCES = Path(__file__).parents[2] / "luci/htdocs/luci-static/resources"
PAGES = [path for path in sorted(RESOURCES.rglob("*.js")) if path.parent.name != "xterm"]
_WORDS = r"(?:return|typeof|case|void|throw|yield|await)"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_regular_expression_follows_a_word(page: Path) -> None:
    text = page.read_text()
    assert re.findall(rf"\b{_WORDS}\s+/(?![/*]).*|=>\s*/(?![/*]).*", text) == []
