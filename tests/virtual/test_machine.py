# SPDX-License-Identifier: GPL-2.0-or-later
"""The random state machine on the simulated engine: whatever happens, in the end everything is as declared (row 66).

`make test-long PYTEST_ARGS="--machine-minutes 60 -k long_time"` runs it for an hour, `"--machine-runs 200 -k
real_engine"` that many times on a real engine; see docs/reliability.md.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.dockerd import PrivateDockerd
from tests.support.virtual.hunt import Failure, attempt, hunt, shrunk
from tests.support.virtual.machine import Machine, Step, parse, random_steps, run, shrink
from tests.support.virtual.real_ground import RealGround

_SAMPLE = 6
_STEPS = 40


@pytest.mark.parametrize("seed", range(_SAMPLE))
def test_whatever_happens_in_the_end_all_is_as_declared(seed: int) -> None:
    failure = attempt(random_steps(seed, _STEPS), seed)
    if failure is not None:
        pytest.fail(str(shrunk(failure)))


@pytest.mark.parametrize(
    ("seed", "steps"),
    [
        pytest.param(
            2001607,
            "remove:791483566 set:194904612 kill:131678246 events:31567839 intrude:413809559 add:158924927"
            " remove:776286021 meddle:426692598 die:239078365 set:359388586 set:827788509 meddle:171983858",
            id="an adoption that is cut short",
        ),
        pytest.param(
            3000467, "add:779550593 meddle:724056036 manual:127660747", id="renamed, and then stopped by hand"
        ),
        pytest.param(
            4000295,
            "add:516920252 manual:995793214 remove:372200307 correct:489715573",
            id="stopped by hand, and what it depends on removed",
        ),
        pytest.param(
            6600078,
            "remove:291766744 several:887104149 renew:835773404 retag:878979913 rename:70582537 several:902761714",
            id="tried with growing pauses, where neither the new one nor the old one can run",
        ),
        pytest.param(
            7100041,
            "mistake:701314701 lend:235502027 several:769520511",
            id="tried with growing pauses, where the old one is not touched",
        ),
    ],
)
def test_what_was_once_taken_for_a_defect_is_none(seed: int, steps: str) -> None:
    failure = attempt(parse(steps), seed)
    assert failure is None, str(failure)


@pytest.mark.long
@pytest.mark.timeout(0)
def test_whatever_happens_for_a_long_time(request: pytest.FixtureRequest) -> None:
    first = random.SystemRandom().randrange(10**9)
    found = hunt(first, minutes=request.config.getoption("--machine-minutes"))
    if isinstance(found, Failure):
        pytest.fail(str(found))
    assert found > 0


def test_a_run_is_the_same_each_time_and_as_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = random_steps(3, 25)
    ends: list[list[str]] = []
    finish = Machine.finish

    def noted(machine: Machine) -> None:
        finish(machine)
        ends.append(list(machine.ground.writes))

    monkeypatch.setattr(Machine, "finish", noted)
    for again in (steps, parse(" ".join(map(str, steps)))):
        assert attempt(again, 3) is None
    assert len(ends[0]) > 10
    assert ends[0] == ends[1]


def test_a_failure_is_shrunk_to_the_steps_that_it_needs() -> None:
    steps = [Step("x", n) for n in range(40)]

    def fails(some: list[Step]) -> bool:
        numbers = [step.number for step in some]
        return 7 in numbers and 31 in numbers

    assert shrink(steps, fails) == [Step("x", 7), Step("x", 31)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "machine_run" in metafunc.fixturenames:
        metafunc.parametrize("machine_run", range(metafunc.config.getoption("--machine-runs")))


@pytest.fixture
def ground(engine: PrivateDockerd, tmp_path: Path) -> Iterator[RealGround]:
    made = RealGround(tmp_path, engine)
    logger = logging.getLogger("agent")
    logger.addHandler(made.trouble)
    yield made
    logger.removeHandler(made.trouble)
    made.close()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_whatever_happens_on_a_real_engine(ground: RealGround, machine_run: int) -> None:
    steps = random_steps(machine_run, 50)
    try:
        run(steps, ground)
    except AssertionError as exc:
        exc.add_note("after the steps " + " ".join(map(str, steps)))
        raise
