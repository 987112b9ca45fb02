# SPDX-License-Identifier: GPL-2.0-or-later
"""Staged changes are read as libuci reads them: what `uci` would show with them is what we replay."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.uci.edit import parse_delta, replayed
from agent.uci.syntax import format_file, format_show, parse
from tests.support.real_uci import RealUci, why_not

TEXT = """
config container 'web'
	option image 'nginx'
	list port '80:80'
	list port '443:443'

config network
	option name 'lan'

config container 'db'
	option image 'postgres'
"""
COMMANDS = {
    "an option": ["set containers.web.image=caddy"],
    "a value with quotes, blanks and line ends": ["set containers.web.command=sh -c 'echo \"a\"\nb'; c#d\\"],
    "a new section": ["set containers.new=container", "set containers.new.image=busybox"],
    "an anonymous section": ["add containers container", "set containers.@container[-1].image=busybox"],
    "a list item": ["add_list containers.web.port=8080:80"],
    "a list of an option": ["add_list containers.web.image=x"],
    "a list item that goes": ["del_list containers.web.port=80:80"],
    "a list item by its number": ["delete containers.web.port=0"],
    "an option that goes": ["delete containers.web.image"],
    "a section that goes": ["delete containers.web"],
    "an anonymous section that goes": ["delete containers.@network[0]"],
    "a section with another name": ["rename containers.web=site", "set containers.site.image=caddy"],
    "an option with another name": ["rename containers.web.image=picture"],
    "another order": ["reorder containers.db=0"],
    "another type": ["set containers.web=network"],
    "there and back": ["set containers.web.image=caddy", "set containers.web.image=nginx"],
    "gone and made again": ["delete containers.web", "set containers.web=container"],
    "bytes that are not ASCII": ["set containers.web.command=grüße"],
}


def lines(text: bytes) -> list[bytes]:
    """In any order: a set moves the option to the end of its section, or not, by libuci's version."""
    return sorted(text.splitlines())


@pytest.mark.skipif(bool(why_not()), reason=why_not())
@pytest.mark.parametrize("name", COMMANDS)
def test_staged_changes_read_as_uci_shows_them(name: str, uci: RealUci) -> None:
    (uci.config / "containers").write_text(TEXT)
    for command in COMMANDS[name]:
        uci(*command.split(" ", 1 if command.startswith("set") else -1))
    changes = parse_delta((uci.save / "containers").read_text(), package="containers")
    package = replayed(parse(TEXT, package="containers"), changes)
    assert lines(format_show(package).encode()) == lines(uci("-X", "show", "containers"))
    uci("commit", "containers")
    committed = parse((uci.config / "containers").read_text(), package="containers")
    assert [s.type for s in package.sections] == [s.type for s in committed.sections]
    assert lines(format_file(package).encode()) == lines((uci.config / "containers").read_bytes())


ODD = [
    "containers.web.image='caddy'\nnonsense\n=\n.\ncontainers\n\ncontainers.web.a.b='1'\ncontainers.web.image\n",
    "other.web.image='x'\ncontainers.@container[0].image='x'\n|containers.web='x'\n^containers.web.image='1'\n",
    "containers.web.image='unterminated\n",
    "containers.web.image='a' trailing\n@containers.web='a-b'\n@containers.web\n+containers.web\n",
    "containers.nothere.image='x'\n-containers.nothere\n~containers.web.port='none'\n^containers.db='x'\n",
    "# a comment\n  containers.web.image=bare\n",
]


@pytest.mark.skipif(bool(why_not()), reason=why_not())
@pytest.mark.parametrize("text", ODD)
def test_lines_that_libuci_passes_over_are_passed_over(text: str, uci: RealUci) -> None:
    (uci.config / "containers").write_text(TEXT)
    (uci.save / "containers").write_text(text)
    package = replayed(parse(TEXT, package="containers"), parse_delta(text, package="containers"))
    assert lines(format_show(package).encode()) == lines(uci("-X", "show", "containers"))


def test_any_text_is_taken(tmp_path: Path) -> None:
    del tmp_path
    for text in ("", "\0", "\n\n", "'", "+" * 4096, "-containers." + "x" * 100_000):
        parse_delta(text, package="containers")
