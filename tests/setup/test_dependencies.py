# SPDX-License-Identifier: GPL-2.0-or-later
"""The sets of versions say what they promise."""

from __future__ import annotations

import tomllib

from tests.setup.dependencies import NEWEST, PROJECT, SETS, pins

FOR_TESTS = ("dev", "openwisp")


def bounds() -> dict[str, str]:
    """Library -> lower bound, of all that a user installs."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    optional = project.get("optional-dependencies", {})
    named = [
        *project["dependencies"],
        *(line for extra in optional if extra not in FOR_TESTS for line in optional[extra]),
    ]
    return dict(line.split(">=") for line in named if ">=" in line)


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def test_the_lowest_set_is_the_bounds() -> None:
    lowest = pins("lowest")
    assert set(lowest) == set(bounds())
    for library, bound in bounds().items():
        assert version(lowest[library])[: len(version(bound))] == version(bound), library


def test_no_set_is_below_the_bounds() -> None:
    for name in SETS:
        for library, bound in bounds().items():
            if library in pins(name):
                assert version(pins(name)[library]) >= version(bound), (name, library)
    assert NEWEST in SETS and len(SETS) == 4
