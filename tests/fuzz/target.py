# SPDX-License-Identifier: GPL-2.0-or-later
"""What is fuzzed: a check that takes any bytes, and where mutation starts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).parents[1] / "data"
CPU_LIMIT_S = 2.0  # of processor time for one input of at most `Target.size` bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """`check` returns for good input and for input that is refused as it should be; anything raised is a finding.

    `seeds`: inputs to mutate. `words`: what the language is made of. `repeats`: a beginning, and what may follow
    it any number of times. `size`: of the largest mutated input, in bytes.
    """

    name: str
    check: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...] = ()
    repeats: tuple[tuple[bytes, bytes], ...] = ()
    size: int = 4096


class TooSlowError(AssertionError):
    """An input took more processor time than any input of its size may."""


def run(target: Target, data: bytes) -> None:
    """One input. Raises whatever is wrong."""
    began = time.process_time()
    target.check(data)
    used = time.process_time() - began
    if used > CPU_LIMIT_S:
        raise TooSlowError(f"{len(data)} bytes took {used:.1f} s of processor time")


def as_text(data: bytes) -> str:
    """As the stores read files: bytes that are no UTF-8 become surrogates."""
    return data.decode("utf-8", "surrogateescape")
