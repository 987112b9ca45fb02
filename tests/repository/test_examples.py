# SPDX-License-Identifier: GPL-2.0-or-later
"""The UCI files in the documents have no mistakes: each ```uci block of a page is checked.

The word after `uci` is the package, `containers` unless given. Blocks of one package and one page make one file.
"""

from __future__ import annotations

import json
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
    secrets = tmp_path / "secrets.env"  # what the pages say to make
    secrets.write_text("PASSWORD=secret\n")
    for package, text in packages_of(page).items():
        parse(text, package=package)
        if package in {"containers", "dockerd"}:
            (tmp_path / package).write_text(re.sub(r"(?<=list env_file ').*(?=')", str(secrets), text))
    folders = [f"--{name}-dir={tmp_path / name}" for name in ("override", "save")]
    code = main(["check", "--strict", "--offline", f"--config-dir={tmp_path}", *folders])
    assert code == 0, capsys.readouterr().out


def test_no_example_of_a_section_escapes_the_check() -> None:
    unchecked = [
        f"{page.relative_to(ROOT)}: {line}"
        for page in PAGES
        for line in _BLOCK.sub("", page.read_text()).splitlines()
        if re.match(r"\s*config (container|network|volume|auth|globals|tls|proxies) ?'?\w*'?$", line)
    ]
    assert unchecked == []


def test_the_sections_come_out_of_openwisp_as_they_are_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    netjsonconfig = pytest.importorskip("netjsonconfig")
    page = (ROOT / "docs/many-routers.md").read_text()
    template = json.loads(re.findall(r"^```json\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[0])
    rendered = netjsonconfig.OpenWrt(template, context={"site": "www"}).render()
    text = rendered.partition("package containers\n")[2].partition("\npackage ")[0]
    (tmp_path / "containers").write_text(text)
    folders = [f"--{name}-dir={tmp_path / name}" for name in ("override", "save")]
    assert main(["check", "--strict", f"--config-dir={tmp_path}", *folders]) == 0, capsys.readouterr().out
    sections = {section.name: section for section in parse(text, package="containers").sections}
    assert [section.type for section in sections.values()] == ["network", "container"]
    options = {option.name: option.value for option in sections["hello"].options}
    assert options["command"] == ("httpd", "-f", "-p", "80", "-h", "/www")
