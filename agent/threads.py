# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls from a thread into the event loop. A thread may outlive the loop a little (`Loop.parked`): its calls then
have no effect, and must not interrupt its work.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVarTuple

_Ts = TypeVarTuple("_Ts")


def tell(loop: asyncio.AbstractEventLoop, callback: Callable[[*_Ts], object], *args: *_Ts) -> None:
    """Calls `callback(*args)` in the loop soon; does nothing once the loop is closed."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback, *args)
