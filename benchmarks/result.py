# SPDX-License-Identifier: GPL-2.0-or-later
"""The result of a benchmark: one line, and whether its goal was met."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Medians of `ours` and `peer` in `unit`; `goal` in words; `met` tells whether it was met."""

    name: str
    ours: float
    peer: float
    unit: str
    goal: str
    met: bool
    note: str = ""

    @property
    def ratio(self) -> float:
        """Our value divided by the peer's."""
        return self.ours / self.peer

    def line(self) -> str:
        """The line that `make bench` prints."""
        return (
            f"bench {self.name} ours={self.ours:.6g} peer={self.peer:.6g}"
            f" ratio={self.ratio:.4g} unit={self.unit}"
        )

    def verdict(self) -> str:
        """The goal, whether it was met, and the note."""
        words = f"goal  {self.name}: {self.goal}: {'met' if self.met else 'MISSED'}"
        return f"{words} ({self.note})" if self.note else words


def interleave(*measures: Callable[[], float], rounds: int) -> list[float]:
    """The median of each measure. The measures alternate, so that a busy moment of the machine affects all of them."""
    samples: list[list[float]] = [[] for _ in measures]
    for number in range(rounds):
        # every other round runs in reverse, so that the order does not decide
        order = range(len(measures)) if number % 2 == 0 else reversed(range(len(measures)))
        for index in order:
            samples[index].append(measures[index]())
    return [statistics.median(values) for values in samples]


def spread(values: Sequence[float]) -> str:
    """Smallest and largest value, for notes."""
    return f"{min(values):.4g} to {max(values):.4g}"
