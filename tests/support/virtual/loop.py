# SPDX-License-Identifier: GPL-2.0-or-later
"""An asyncio loop on virtual time: hours pass in milliseconds, and `asyncio.to_thread` starts a guest."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from typing import Any

from tests.support.virtual.clock import Killed, VirtualTime

_NEVER = float("inf")


class _Idle(selectors.SelectSelector):
    """Gives guests their turns and moves time on, instead of waiting for sockets and timers."""

    def __init__(self, time: VirtualTime) -> None:
        super().__init__()
        self._time = time

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout != 0 and not self._time.run_a_guest():
            limit = _NEVER if timeout is None else self._time.now + max(0.0, timeout)
            until = min(limit, self._time.next_due())
            if until == _NEVER:
                raise RuntimeError("everything waits, and nothing is due")
            self._time.advance_to(until)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs in the thread that created it. Threads that the loop starts become guests of `group`."""

    def __init__(self, time: VirtualTime) -> None:
        self.virtual = time
        self.group: object = self
        super().__init__(_Idle(time))

    def time(self) -> float:
        return self.virtual.now

    def run_in_executor(  # type: ignore[override]  # a future of what `func` gives, as in the base
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        del executor
        future: asyncio.Future[Any] = self.create_future()

        def run() -> None:
            try:
                result = func(*args)
            except Killed:
                raise
            except BaseException as exc:
                self.call_soon_threadsafe(_set, future, future.set_exception, exc)
            else:
                self.call_soon_threadsafe(_set, future, future.set_result, result)

        self.virtual.spawn(run, self.group)
        return future


def _set(future: asyncio.Future[Any], how: Callable[[Any], None], value: Any) -> None:
    if not future.done():
        how(value)
