# SPDX-License-Identifier: GPL-2.0-or-later
"""`python -m tests.support.virtual.hunt`: runs the machine on the engine in memory until an invariant fails.

`--seed N --steps 50` makes one run. `--minutes 60` makes as many runs as fit, with seeds counted up from `--seed`.
The steps of a failure, as printed, replay it. A failure is shrunk to the steps that it needs.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.virtual.machine import Step, parse, random_steps, run, shrink
from tests.support.virtual.world import a_world

_MEMORY_DISK = Path("/dev/shm")  # the agent syncs its files to disk at each change, which is fast here
STEPS = 50


@dataclass(frozen=True)
class Failure:
    """The error of a failed run, and the steps that lead to it."""

    error: BaseException
    steps: Sequence[Step]
    seed: int
    log: Sequence[str]

    def is_like(self, other: Failure) -> bool:
        """Whether both errors come from the same function."""
        return self._place() == other._place()

    def _place(self) -> tuple[str, str]:
        last = traceback.extract_tb(self.error.__traceback__)[-1]
        return last.filename, last.name

    def __str__(self) -> str:
        text = " ".join(map(str, self.steps))
        lines = [f"{type(self.error).__name__}: {self.error}", *self.log[-30:]]
        replay = f"python -m tests.support.virtual.hunt --seed {self.seed} '{text}'"
        return "\n".join([*lines, f"replay it: {replay}"])


def attempt(steps: Sequence[Step], seed: int) -> Failure | None:
    """Makes one run. The seed decides everything random that the steps leave open."""
    where = _MEMORY_DISK if _MEMORY_DISK.is_dir() else None
    with tempfile.TemporaryDirectory(dir=where) as folder, a_world(Path(folder), seed) as world:
        try:
            run(list(steps), world)
        except Exception as exc:
            return Failure(exc, steps, seed, world.trouble.lines)
    return None


def shrunk(failure: Failure, *, tries: int = 200) -> Failure:
    """The same failure with fewer steps."""
    best = failure

    def fails(steps: list[Step]) -> bool:
        nonlocal best
        found = attempt(steps, failure.seed)
        if found is None or not found.is_like(failure):
            return False
        best = found
        return True

    shrink(list(failure.steps), fails, tries=tries)
    return best


def hunt(first: int, *, steps: int = STEPS, runs: int = sys.maxsize, minutes: float = 1e9) -> Failure | int:
    """Runs the seeds from `first` on. Returns the first failure, shrunk, or the number of runs without a failure."""
    end = time.monotonic() + 60 * minutes
    done = 0
    while done < runs and time.monotonic() < end:
        failure = attempt(random_steps(first + done, steps), first + done)
        if failure is not None:
            return shrunk(failure)
        done += 1
    return done


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("steps_text", nargs="?", help="the steps of a failure")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--minutes", type=float, default=0)
    options = parser.parse_args()
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    if options.steps_text:
        found: Failure | int = attempt(parse(options.steps_text), options.seed) or 1
    elif options.minutes:
        found = hunt(options.seed, steps=options.steps, minutes=options.minutes)
    else:
        found = hunt(options.seed, steps=options.steps, runs=1)
    print(found if isinstance(found, Failure) else f"{found} runs, everything holds")
    return int(isinstance(found, Failure))


if __name__ == "__main__":
    sys.exit(main())
