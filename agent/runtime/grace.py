# SPDX-License-Identifier: GPL-2.0-or-later
"""How long things have been without a section, by a clock that nobody sets: it cuts no grace period short."""

from __future__ import annotations

import math
from collections.abc import Iterable

from agent.model.observed import Record
from agent.model.resources import Desired
from agent.plan.draft import key_of
from agent.runtime.status_writer import declared


class GraceWatch:
    """Told of each look. What was without a section before the first one is left to the clock on the wall."""

    def __init__(self) -> None:
        self._since: dict[str, float] | None = None  # nonce -> monotonic time

    def look(self, desired: Desired, records: Iterable[Record], *, now: float) -> dict[str, float]:
        """Nonce -> seconds. `now` is monotonic."""
        known = declared(desired).keys() | desired.broken
        orphans = [record for record in records if key_of(record.kind, record.section) not in known]
        if self._since is None:
            self._since = {record.nonce: -math.inf for record in orphans if record.removed_at is not None}
        self._since = {record.nonce: self._since.get(record.nonce, now) for record in orphans}
        return {nonce: now - since for nonce, since in self._since.items()}
