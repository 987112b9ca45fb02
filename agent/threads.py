# SPDX-License-Identifier: GPL-2.0-or-later
"""From a thread into the event loop. Works go on in threads for a while after the loop has ended (`Loop.parked`): what
they tell it then is of no use any more, and must not break off what they do.
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
