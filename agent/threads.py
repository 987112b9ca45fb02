# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls from a thread into the event loop. Threads may work a little longer than the loop (`Loop.parked`): calling it
then does nothing, and must not interrupt their work.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVarTuple

_Ts = TypeVarTuple("_Ts")


def tell(loop: asyncio.AbstractEventLoop, callback: Callable[[*_Ts], object], *args: *_Ts) -> None:
    """Calls `callback(*args)` in the loop soon; nothing, once the loop is closed."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback, *args)
