# SPDX-License-Identifier: GPL-2.0-or-later
"""Mutation of inputs, replayable: all chance comes from one seeded generator."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from tests.fuzz.target import Target

_BYTES = (0x00, 0x01, 0x09, 0x0A, 0x0D, 0x1B, 0x20, 0x22, 0x27, 0x2D, 0x5C, 0x7F, 0x80, 0xC3, 0xFF)
_NUMBERS = (
    b"0",
    b"-1",
    b"1e999",
    b"9" * 25,
    b"9" * 5000,
    b"65536",
    b"4294967295",
    b"NaN",
    b"\xd9\xa3",
    b"1_0",
)


def inputs(target: Target, seed: int) -> Iterator[bytes]:
    """Without end: the seeds as they are, then mutations of them."""
    yield from target.seeds
    chance = random.Random(seed)
    while True:
        yield mutated(target, chance)


def mutated(target: Target, chance: random.Random) -> bytes:
    """One seed, changed in one place or a few."""
    data = bytearray(chance.choice(target.seeds))
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        chance.choice(_CHANGES)(data, target, chance)
    return bytes(data[: target.size])


def _span(data: bytearray, chance: random.Random) -> slice:
    start = chance.randint(0, len(data))
    return slice(start, min(len(data), start + chance.choice((0, 1, 1, 2, 4, 16, 64))))


def _flip(data: bytearray, target: Target, chance: random.Random) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _special(data: bytearray, target: Target, chance: random.Random) -> None:
    data[_span(data, chance)] = bytes([chance.choice(_BYTES)])


def _remove(data: bytearray, target: Target, chance: random.Random) -> None:
    del data[_span(data, chance)]


def _copy(data: bytearray, target: Target, chance: random.Random) -> None:
    piece = data[_span(data, chance)]
    data[_span(data, chance)] = piece * chance.choice((1, 1, 2, 50))


def _word(data: bytearray, target: Target, chance: random.Random) -> None:
    data[_span(data, chance)] = chance.choice(target.words or (b"\0\0\0\0",))


def _number(data: bytearray, target: Target, chance: random.Random) -> None:
    data[_span(data, chance)] = chance.choice(_NUMBERS)


def _splice(data: bytearray, target: Target, chance: random.Random) -> None:
    other = bytearray(chance.choice(target.seeds))
    data[chance.randint(0, len(data)) :] = other[chance.randint(0, len(other)) :]


def _cut(data: bytearray, target: Target, chance: random.Random) -> None:
    del data[chance.randint(0, len(data)) :]


_CHANGES: Sequence[Callable[[bytearray, Target, random.Random], None]] = (
    _flip,
    _special,
    _remove,
    _copy,
    _word,
    _word,
    _number,
    _splice,
    _cut,
)
