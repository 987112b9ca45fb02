# SPDX-License-Identifier: GPL-2.0-or-later
"""What a reader gets of the engine's answers: `agent.model.secrets` applied to whole answers, off the event loop.

A writer, and root, get what the engine says.
"""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

from agent.errors import EngineError, EngineInvalidError
from agent.model.secrets import hidden

READER_LIMIT = 4 * 1024 * 1024  # bytes of an answer that is looked through for a reader


def for_readers(value: Any) -> Any:
    """A copy of decoded JSON without secrets. Raises EngineError for what is nested too deeply to be looked through."""
    try:
        return hidden(value)
    except RecursionError as exc:
        raise EngineError("the engine's answer is nested too deeply") from exc


async def masked_value(value: Any) -> Any:
    """The same in a thread: a large answer holds nobody else up."""
    return await asyncio.get_running_loop().run_in_executor(_worker(), for_readers, value)


async def masked_json(body: bytes) -> bytes:
    """The same of a body, as JSON text. Raises EngineError where it is none."""
    return await asyncio.get_running_loop().run_in_executor(_worker(), _masked, body)


def _masked(body: bytes) -> bytes:
    try:
        value = json.loads(body) if body.strip() else None
        return json.dumps(hidden(value), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    except RecursionError as exc:
        raise EngineInvalidError("the engine's answer is nested too deeply") from exc
    except ValueError as exc:
        raise EngineInvalidError("the engine's answer is no JSON") from exc


@cache
def _worker() -> ThreadPoolExecutor:
    """One thread: that many large answers are in memory at a time."""
    return ThreadPoolExecutor(1, "masking")
