# SPDX-License-Identifier: GPL-2.0-or-later
"""Random configurations: after applying one over any earlier one, the plan is empty; rewording a configuration changes
nothing."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.support.box import Box
from tests.support.dockerd import PrivateDockerd
from tests.support.virtual.specs import STOPPED, Section, random_spec, same_otherwise, text_of
from tests.support.virtual.world import World, a_world

_PER_TEST = 25
_SAMPLE, _ALL = 2, 40  # number of tests with _PER_TEST configurations each: 50 and 1,000 configurations


def running(spec: list[Section]) -> dict[str, bool]:
    """Container -> whether it should run."""
    return {s.name: STOPPED not in s.entries for s in spec if s.kind == "container"}


def declare(world: World, text: str, seconds: float) -> None:
    assert world.agent is not None
    world.declare(text, seconds)
    # a warning about a fixed address in the network's dynamic range is fine
    assert [issue for issue in world.asked.config_issues() if issue["severity"] == "error"] == [], text
    assert world.plan_text() == "nothing to do", text


@pytest.mark.parametrize(
    "seed", [n if n < _SAMPLE else pytest.param(n, marks=pytest.mark.long) for n in range(_ALL)]
)
def test_what_is_declared_is_there_and_the_same_in_other_words_changes_nothing(
    tmp_path: Path, seed: int
) -> None:
    dice = random.Random(seed)
    with a_world(tmp_path, seed) as world:
        world.start_agent()
        world.rest(1)
        for _ in range(_PER_TEST):
            spec = random_spec(dice)
            declare(world, text_of(spec), 25)
            states = {c.name: c.state == "running" for c in world.engine.containers.values()}
            assert states == running(spec), text_of(spec)
            before = len(world.writes)
            declare(world, same_otherwise(spec, dice), 5)
            assert world.writes[before:] == [], text_of(spec)
        assert world.trouble.exceptions == []


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(5))
def test_ten_of_them_on_a_real_engine(box: Box, engine: PrivateDockerd, seed: int) -> None:
    engine.import_busybox("app:1")
    dice = random.Random(seed)
    for _ in range(10):
        spec = random_spec(dice)
        assert box.errors(text_of(spec)) == [], text_of(spec)
        box.apply()
        box.later(3600)
        box.apply()  # objects of removed sections stay for the grace period
        assert str(box.apply()[0]) == "nothing to do", text_of(spec)
        found = {c["Names"][0][1:]: c["State"] == "running" for c in box.client.api.containers(all=True)}
        assert found == running(spec), text_of(spec)
        assert str(box.apply(same_otherwise(spec, dice))[0]) == "nothing to do", text_of(spec)
