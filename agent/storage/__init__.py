# SPDX-License-Identifier: GPL-2.0-or-later
"""Watches and frees space on the file system of Docker's data, and copies the data to another disk.

Only the watch is always loaded: it starts clean-ups, and `space` does the cleaning.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.apply.ports import Clock, ImageEngine, Records
from agent.errors import ConfigError, ConflictError, EngineError, PathError, UcidockdError
from agent.files.user_paths import PATHS, Space, space_of
from agent.model.dockerd.settings import DAEMON_KEY
from agent.model.quantities import clock_is_set, size_words
from agent.model.resources import Desired, PruneImages, PruneSettings, Threshold
from agent.model.updates import is_due
from agent.status.board import StatusBoard
from agent.status.conditions import ConditionType

if TYPE_CHECKING:
    from agent.storage.space import PruneRequest

logger = logging.getLogger(__name__)

DISK_KEY = "agent:disk"
_LOOK_S = 60.0  # between looks at the free space
_SPACE_AGAIN_S = 3600.0  # wait after a clean-up that did not free enough
_LOW = Threshold(percent=5)
_LOW_MAX = 512 * 1024**2  # 5 % of a large disk is still a lot


@dataclass(slots=True, kw_only=True)
class PruneScheduler:
    """`desired` returns the configuration, None while it cannot be read. `is_here`: the engine is on this machine."""

    engine: ImageEngine
    records: Records
    board: StatusBoard
    desired: Callable[[], Desired | None]
    memory: Path  # the file that records since when images are unused
    is_here: bool = True
    clock: Clock = field(default_factory=Clock)
    space: Callable[[str], Space] = lambda path: PATHS.ask(space_of, path)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _looked: float = -math.inf  # monotonic, as _space_tried
    _space_tried: float = -math.inf
    _last: float | None = None  # unix seconds, of the last scheduled clean-up

    def tick(self) -> None:
        """Called after each pass in its thread, so it must be quick. Checks the space, and starts a clean-up in
        another thread if due.
        """
        desired = self.desired()
        if desired is None or not desired.agent.enabled:
            return
        settings, now = desired.agent.prune, self.clock.wall()
        lacking = 0
        if self.is_here and self.clock.monotonic() >= self._looked + _LOOK_S:
            self._looked = self.clock.monotonic()
            lacking = self._look(settings)
        if not settings.is_on or self._lock.locked():
            return
        # a clean-up for lack of space does not wait for the scheduled window
        if lacking and settings.below and self.clock.monotonic() >= self._space_tried + _SPACE_AGAIN_S:
            self._space_tried = self.clock.monotonic()
            self._begin(settings, enough=lacking)
            return
        local = time.localtime(now)
        second = (local.tm_hour * 60 + local.tm_min) * 60 + local.tm_sec
        if clock_is_set(now) and is_due(
            settings.schedule, settings.window, last=self._last, now=now, second_of_day=second
        ):
            self._last = now
            self._begin(settings, enough=None)

    def _look(self, settings: PruneSettings) -> int:
        """Shows on the board whether space is low; returns the missing bytes."""
        try:
            root = self.engine.identity().root
            found = self.space(root)
        except (EngineError, PathError):
            return 0  # other conditions show that the engine or the disk does not answer
        limit = (
            settings.below.bytes_of(found.total)
            if settings.below
            else min(_LOW.bytes_of(found.total), _LOW_MAX)
        )
        if found.free >= limit:
            self.board.drop(DISK_KEY)
            return 0
        message = f"{size_words(found.free)} of {size_words(found.total)} are free at {root}"
        if not self.board.message(DISK_KEY, ConditionType.DISK_LOW):
            logger.warning("%s: `ucidockd prune` shows what can be removed", message)
        self.board.flag(DISK_KEY, ConditionType.DISK_LOW, "NoSpace", message)
        return limit - found.free

    def _begin(self, settings: PruneSettings, *, enough: int | None) -> None:
        threading.Thread(
            target=self._prune_by_itself, args=(settings, enough), name="prune", daemon=True
        ).start()

    def _prune_by_itself(self, settings: PruneSettings, enough: int | None) -> None:
        from agent.storage.space import PruneRequest

        request = PruneRequest(
            images=settings.images,
            # if space is short, images that were in use until now are removed too; `enough` ends it
            older_s=settings.older_s if enough is None else 0.0,
            build_cache=settings.build_cache,
            enough=enough,
        )
        try:
            self.prune(request)
        except UcidockdError as exc:
            logger.warning("nothing was cleaned up: %s", exc)
            self.board.set_agent(prune={"at": self.clock.wall(), "error": str(exc)})
        except Exception:
            logger.exception("the clean-up failed")
        finally:
            self._looked = -math.inf  # lets the next pass show the result

    def prune(self, request: PruneRequest) -> dict[str, Any]:
        """Removes unused images; see `space`. Blocks. Raises EngineError, ConfigError, ConflictError while a clean-up
        is running.
        """
        from agent.storage.space import Pruner  # late, because few runs need it

        desired = self.desired()
        if desired is None:
            raise ConfigError(
                "the configuration cannot be read, so it is not known which images it needs: `ucidockd check` says why"
            )
        # only on the engine that the configuration is meant for: on another one every image would look unused
        for condition in (ConditionType.ENGINE_STORAGE_LOST, ConditionType.ENGINE_CHANGED):
            if why := self.board.message(DAEMON_KEY, condition):
                raise ConflictError(f"nothing is removed: {why}")
        pruner = Pruner(
            engine=self.engine,
            records=self.records,
            desired=lambda: self.desired() or desired,
            memory=self.memory,
            now=self.clock.wall,
        )
        if request.dry_run:  # a preview changes nothing, so it needs no lock
            return {**pruner.run(request), "space": self._space()}
        if not self._lock.acquire(blocking=False):
            raise ConflictError("a clean-up is in progress: try again when it is done")
        try:
            answer = pruner.run(request)
        finally:
            self._lock.release()
        done = {"at": self.clock.wall(), "images": len(answer["going"]), "bytes": answer["bytes"]}
        self.board.set_agent(prune={**done, "failed": len(answer["failed"])})
        return {**answer, "space": self._space()}

    def _space(self) -> dict[str, int] | None:
        try:
            found = self.space(self.engine.identity().root) if self.is_here else None
        except PathError:
            found = None
        return {"free": found.free, "total": found.total} if found else None

    def images(self) -> PruneImages:
        """The images that a clean-up without its own choice removes: those of the configuration, else images without
        a name.
        """
        desired = self.desired()
        said = desired.agent.prune.images if desired is not None else PruneImages.OFF
        return said if said is not PruneImages.OFF else PruneImages.DANGLING
