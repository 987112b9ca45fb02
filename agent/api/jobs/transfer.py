# SPDX-License-Identifier: GPL-2.0-or-later
"""What both directions of a transfer share: identity, state, and whose turn it is."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from enum import StrEnum
from typing import Any

from agent.engine.stream import SourceError
from agent.errors import ConflictError, InternalError, UcidockdError

logger = logging.getLogger(__name__)

_END_S = 5.0


class State(StrEnum):
    """Where a transfer stands."""

    OPEN = "open"
    ENDING = "ending"  # the file is with the engine, which is not done with it
    DONE = "done"
    FAILED = "failed"


class Transfer(ABC):
    """One file. One part at a time: a new one takes the place of one that is still open, whose client is gone."""

    direction = ""

    def __init__(self, title: str) -> None:
        self.id = secrets.token_hex(16)
        self.title = title
        self.state = State.OPEN
        self.error: Exception | None = None
        self.parts = 0  # being served now
        self.on_touch: Callable[[], None] = lambda: None
        self._digest = hashlib.sha256()
        self._turn = 0
        self._task: asyncio.Task[None] | None = None

    @property
    @abstractmethod
    def offset(self) -> int:
        """Up: where the next part begins. Down: how far the engine's answer was read."""

    @property
    def is_over(self) -> bool:
        return self.state in (State.DONE, State.FAILED)

    @property
    def is_waiting(self) -> bool:
        """Whether it is the client's turn."""
        return self.state is State.OPEN and not self.parts

    @property
    def holds(self) -> bool:
        """Whether it holds bytes, or a request to the engine."""
        return not self.is_over

    @abstractmethod
    def release(self) -> None:
        """Lets go what an ended transfer still holds."""

    def as_json(self) -> dict[str, Any]:
        """`size` and `sha256` are of the whole file, once it is known."""
        known = self.state in (State.ENDING, State.DONE)
        return {
            "id": self.id,
            "direction": self.direction,
            "title": self.title,
            "state": self.state,
            "offset": self.offset,
            "size": self.offset if known else None,
            "sha256": self._digest.hexdigest() if known else None,
            "error": None if self.error is None else str(self.error),
        }

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """The engine's side, as a task of its own: it outlives every part."""
        self._task = asyncio.create_task(self._run(work), name=f"transfer-{self.direction}-{self.id[:8]}")

    async def abort(self, why: Exception) -> None:
        """Ends it, and its request to the engine."""
        self.fail(why)
        self._turn += 1
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=_END_S)

    def fail(self, why: Exception) -> None:
        """The first reason counts."""
        if not self.is_over:
            self.state, self.error = State.FAILED, why
            logger.info("transfer %s of %s: %s", self.direction, self.title, why)

    async def _run(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            self.fail(ConflictError("the transfer was given up"))  # the task's last step
        except (UcidockdError, SourceError) as exc:
            self.fail(exc)
        except Exception:
            logger.exception("transfer %s failed", self.id)
            self.fail(InternalError("internal error"))
        else:
            self._worked()
        self.on_touch()

    def _worked(self) -> None:
        self.state = State.DONE

    async def _settled(self) -> None:
        """The engine's side failed, and is about to say why."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=_END_S)

    def check_error(self) -> None:
        """Raises what it failed of."""
        if self.error is not None:
            raise self.error

    def _begin(self) -> int:
        """A new part's turn: the one before it is over."""
        self._turn += 1
        self.on_touch()
        return self._turn

    def _check(self, turn: int) -> None:
        self.check_error()
        if turn != self._turn:
            raise ConflictError("another request for this transfer took over")
