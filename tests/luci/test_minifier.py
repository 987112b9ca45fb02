# SPDX-License-Identifier: GPL-2.0-or-later
"""LuCI's build runs jsmin over the pages: what comes out is the same program."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.jsmin import minified

PROJECT = Path(__file__).parents[2]
HTDOCS = PROJECT / "luci/htdocs"

# the trees of each pair of programs; LuCI makes functions of its modules, the terminal is an ES module
_COMPARE = """
import { parse } from 'espree';
import { readFileSync } from 'node:fs';
const bare = (key, value) => typeof value == 'bigint' || value instanceof RegExp ? String(value)
	: ['start', 'end', 'raw'].includes(key) ? undefined : value;
const tree = (source) => JSON.stringify(parse(source, {
	ecmaVersion: 'latest',
	sourceType: /^(import|export) |[;}]export\\s*\\{/m.test(source) ? 'module' : 'script',
	ecmaFeatures: { globalReturn: true },
}), bare);
const answers = {};
for (const [name, [before, after]] of Object.entries(JSON.parse(readFileSync(0, 'utf8')))) {
	try { answers[name] = tree(before) == tree(after) ? 'same' : 'another program'; }
	catch (error) { answers[name] = String(error); }
}
console.log(JSON.stringify(answers));
"""


def compared(pairs: dict[str, tuple[str, str]]) -> dict[str, str]:
    if not shutil.which("node") or not (PROJECT / "node_modules/espree").is_dir():
        pytest.skip("node or espree is not installed: `make eslint` brings it")
    done = subprocess.run(
        ["node", "--input-type=module", "-e", _COMPARE],
        input=json.dumps(pairs),
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("packed", [False, pytest.param(True, marks=pytest.mark.long)])
def test_the_pages_are_the_same_programs_after_it(packed: bool, tmp_path: Path) -> None:
    """As they are, and in the files that the package puts them into."""
    htdocs, pairs = HTDOCS, {}
    if packed:
        htdocs = tmp_path / "htdocs"
        shutil.copytree(HTDOCS, htdocs)
        subprocess.run([sys.executable, PROJECT / "luci/bundle.py", htdocs], check=True)
    for page in sorted(htdocs.rglob("*.js")):
        text = page.read_text()
        pairs[str(page.relative_to(htdocs))] = (text, minified(text))
    assert len(pairs) > (10 if packed else 40)
    assert {name: said for name, said in compared(pairs).items() if said != "same"} == {}


@pytest.mark.parametrize(
    "line",
    [
        "x => /a  b/.test(x);",
        "function f(x) { return /^https?:\\/\\//.test(x); }",
        "x = typeof /a  b/;",
        "x = `a ${y ? `b  c` : ''} d`;",
        "x = y++ / 2;",
        "x = '\t';",
        "x\n'use strict'",
    ],
)
def test_what_jsmin_breaks_is_noticed(line: str) -> None:
    try:
        after = minified(line)
    except ValueError:
        return
    assert compared({"line": (line, after)}) != {"line": "same"}


@pytest.mark.parametrize(
    ("line", "after"),
    [
        ("a + +b - -c;", "a+ +b- -c;"),
        ("let  x = ( /[/]x  y/g );  // more", "let x=(/[/]x  y/g);"),
        ("a /* b\n */ c\n\n d", "a c\nd"),
        ("f(\"a  b\", 'c // d', `e\n  f`)\n[1]", "f(\"a  b\",'c // d',`e\n  f`)\n[1]"),
        ("a =\n\tb\n\t.c", "a=b.c"),
    ],
)
def test_it_drops_what_jsmin_drops(line: str, after: str) -> None:
    assert minified(line).strip() == after
