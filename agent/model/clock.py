# SPDX-License-Identifier: GPL-2.0-or-later
"""When a router's clock counts as set: many have no battery and boot years in the past until NTP answers."""

from __future__ import annotations

_SET_AFTER = 1_704_067_200.0  # 2024-01-01 UTC


def clock_is_set(now: float) -> bool:
    """`now`: wall clock in unix seconds."""
    return now > _SET_AFTER
