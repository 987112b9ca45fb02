# SPDX-License-Identifier: GPL-2.0-or-later
"""The text syntax agrees with what the real `uci` did (tests/data/uci-corpus)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.uci.syntax import (
    Option,
    Package,
    Section,
    UciSyntaxError,
    format_export,
    format_file,
    format_show,
    parse,
)

CORPUS = Path(__file__).parents[1] / "data" / "uci-corpus" / "read.jsonl"
CASES = [json.loads(line) for line in CORPUS.read_text().splitlines()]


@pytest.mark.parametrize("case", CASES, ids=[str(number) for number in range(len(CASES))])
def test_agrees_with_the_real_uci(case: dict[str, str]) -> None:
    if "error" in case:
        with pytest.raises(UciSyntaxError) as caught:
            parse(case["input"], package="test")
        assert str(caught.value) == case["error"]
        return
    package = parse(case["input"], package="test")
    assert format_export(package) == case["export"]
    assert format_show(package) == case["show"]


def test_values_know_their_lines() -> None:
    section = parse("config c 'web'\n\toption a '1'\n\tlist b x\n\tlist b y\n", package="test").sections[0]
    assert section.line == 1
    assert section.get("a") == Option(name="a", value="1", lines=(2,))
    assert section.get("b") == Option(name="b", value=("x", "y"), lines=(3, 4))


_names = st.from_regex(r"[A-Za-z0-9_]{1,8}", fullmatch=True)
_values = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)


@given(
    st.dictionaries(
        _names, st.one_of(_values, st.lists(_values, min_size=1, max_size=3).map(tuple)), max_size=5
    )
)
def test_what_is_written_is_read_again(options: dict[str, str | tuple[str, ...]]) -> None:
    made = tuple(Option(name=name, value=value) for name, value in options.items())
    package = Package(name="test", sections=(Section(type="container", name="web", options=made),))
    read = parse(format_file(package), package="test").sections[0]
    assert [(o.name, o.value) for o in read.options] == [(o.name, o.value) for o in made]


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_with_a_line(text: str) -> None:
    try:
        parse(text, package="test")
    except UciSyntaxError as exc:
        assert 1 <= exc.line <= text.count("\n") + 1
