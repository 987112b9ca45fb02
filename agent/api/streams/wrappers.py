# SPDX-License-Identifier: GPL-2.0-or-later
"""Async generators around another one: closing the outer one closes the source, which ends its request to the engine."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")

FIRST_WAIT_S = 0.25


async def mapped(source: AsyncGenerator[A, None], make: Callable[[A], B]) -> AsyncGenerator[B, None]:
    """`make(item)` for each item."""
    async with aclosing(source):
        async for item in source:
            yield make(item)


async def primed(source: AsyncGenerator[A, None], wait_s: float = FIRST_WAIT_S) -> AsyncGenerator[A, None]:
    """Starts `source` and gives a generator of the same items.

    Raises what the source raises within `wait_s` seconds: an error of the engine becomes an answer of its own, not a
    broken stream. Output may come later.
    """
    step = asyncio.ensure_future(anext(source))
    done, _ = await asyncio.wait({step}, timeout=wait_s)
    if done and step.exception() is not None and not isinstance(step.exception(), StopAsyncIteration):
        step.result()
    return _resumed(step, source)


async def _resumed(first: asyncio.Future[A], source: AsyncGenerator[A, None]) -> AsyncGenerator[A, None]:
    try:
        try:
            yield await first
        except StopAsyncIteration:
            return
        async for item in source:
            yield item
    finally:
        first.cancel()
        await asyncio.wait({first})
        await source.aclose()


async def texts(source: AsyncGenerator[tuple[str, bytes], None]) -> AsyncGenerator[tuple[str, str], None]:
    """Output as text, by stream: a character that two pieces share stays whole, bytes that are not UTF-8 become U+FFFD."""
    make = codecs.getincrementaldecoder("utf-8")
    decoders = {name: make("replace") for name in ("stdin", "stdout", "stderr")}
    async with aclosing(source):
        async for name, piece in source:
            if text := decoders[name].decode(piece):
                yield name, text
        for name, decoder in decoders.items():
            if text := decoder.decode(b"", final=True):
                yield name, text
