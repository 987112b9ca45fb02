# SPDX-License-Identifier: GPL-2.0-or-later
"""On which engine the agent stands: another one may answer on the same socket, and the one from before come back."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from agent.apply.ports import Engine, Records
from agent.errors import EngineError, StorageError
from agent.model.observed import EngineIdentity, Observed
from agent.plan.engines import Claims, claims, is_known, tags_of

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Standing:
    """`mark`: what we left in the engine's data root, "" where there is none. `keeps`: this process writes records."""

    engine: Engine
    records: Records
    mark: Callable[[], str] = lambda: ""
    keeps: bool = True
    _on: tuple[EngineIdentity, str] | None = None
    _doubted: bool = False

    def look(self, *, thoroughly: bool) -> bool:
        """Finds out which engine answers, and which records are its; True where that is another one than before.

        `thoroughly`: its lists are looked at even where it is the same. Raises EngineError.
        """
        on = (self.engine.identity(fresh=self._doubted), self.mark())
        self._doubted = False
        if on == self._on and not thoroughly:
            return False
        everywhere = self.records.everywhere()
        tags = tags_of(everywhere, *on)
        strange = any(record.engine != tags.of(record.kind) for record in everywhere)
        found = claims(everywhere, tags, self._lists() if strange else Observed())
        other = on != self._on
        try:
            self.records.stand_on(tags, found, keep=self.keeps)
            self._on = on
        except StorageError as exc:  # those without a tag are taken for this engine's all the same
            logger.warning("%s", exc)
            self.records.stand_on(tags, Claims(), keep=False)
            self._on = None
        if found.changed:
            logger.info("%d records belong to the engine that answers now", len(found.changed))
        return other

    def doubt(self) -> None:
        """dockerd was started again: the next look asks it who it is."""
        self._doubted = True

    def is_another(self) -> bool:
        """Whether another engine took its place since the last look, between two calls. Raises EngineError."""
        on = self._on
        return on is not None and self.engine.identity(fresh=True) != on[0]

    def has_ours(self) -> bool:
        """Whether the engine that answers has containers of ours, whatever it says of itself."""
        try:
            return is_known(self.records.everywhere(), self._lists())
        except EngineError:
            return False

    def _lists(self) -> Observed:
        return Observed(
            containers=self.engine.list_containers(self.records.instance),
            networks=self.engine.list_networks(),
            volumes=self.engine.list_volumes(),
        )
