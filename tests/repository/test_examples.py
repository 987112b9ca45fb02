# SPDX-License-Identifier: GPL-2.0-or-later
"""The UCI files in the documents have no mistakes: each ```uci block of a page is checked.

The word after `uci` is the package, `containers` unless given. Blocks of one package and one page make one file.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.cli.main import main
from agent.uci.syntax import parse

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
_BLOCK = re.compile(r"^```uci(?: (\w+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def packages_of(page: Path) -> dict[str, str]:
    """Package -> its text, of one page."""
    found: dict[str, str] = {}
    for package, text in _BLOCK.findall(page.read_text()):
        name = package or "containers"
        found[name] = found.get(name, "") + text
    return found


WITH_EXAMPLES = [page for page in PAGES if packages_of(page)]


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda page: page.stem)
def test_check_finds_no_mistake_in_it(page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for package, text in packages_of(page).items():
        parse(text, package=package)
        if package in {"containers", "dockerd"}:
            (tmp_path / package).write_text(text)
    folders = [f"--{name}-dir={tmp_path / name}" for name in ("override", "save")]
    code = main(["check", "--strict", f"--config-dir={tmp_path}", *folders])
    assert code == 0, capsys.readouterr().out


def test_no_example_of_a_section_escapes_the_check() -> None:
    unchecked = [
        f"{page.relative_to(ROOT)}: {line}"
        for page in PAGES
        for line in _BLOCK.sub("", page.read_text()).splitlines()
        if re.match(r"\s*config (container|network|volume|auth|globals|tls|proxies) ?'?\w*'?$", line)
    ]
    assert unchecked == []
