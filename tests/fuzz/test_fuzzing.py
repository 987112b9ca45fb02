# SPDX-License-Identifier: GPL-2.0-or-later
"""Fuzzing in tests: a fixed set of inputs here, a minute for each target with `make test-long`.

By hand, longer, or one input again: `python -m tests.fuzz` (docs/reliability.md).
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fuzz.mutate import inputs
from tests.fuzz.target import CPU_LIMIT_S, run
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
INPUTS = 400  # of each target; the same ones in every run
HARD = (b"9", b"[", b"\\", b"'", b" ", b"1.", b"a")


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_mutated_input_is_taken_or_refused_in_its_own_words(name: str) -> None:
    target = TARGETS[name]
    for data in itertools.islice(inputs(target, seed=7), INPUTS):
        run(target, data)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("size", [64 * 1024, pytest.param(1024 * 1024, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", sorted(TARGETS))
def test_the_time_for_an_input_grows_with_its_size_and_no_faster(name: str, size: int) -> None:
    """What was quadratic in anything took minutes for a MiB."""
    target = TARGETS[name]
    chooser = target.seeds[0][:1]
    for head, piece in (*target.repeats, (b"", target.seeds[0]), *((chooser, byte) for byte in HARD)):
        data = (head + piece * (size // len(piece) + 1))[:size]
        began = time.process_time()
        target.check(data)
        assert time.process_time() - began < CPU_LIMIT_S * size / (64 * 1024), (head, piece[:40])


@pytest.mark.long
@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", sorted(TARGETS))
def test_nothing_is_found_in_a_minute(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", name, "--seconds", "60", "--seed", str(time.time_ns() % 10**6)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
