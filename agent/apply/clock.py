# SPDX-License-Identifier: GPL-2.0-or-later
"""The clocks that passes and the applying of plans go by, handed down from the reconciler: tests let hours pass at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """`wall` gives unix seconds and may jump, `monotonic` gives seconds and does not; `sleep` blocks its thread."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


SYSTEM_CLOCK = Clock()
