# SPDX-License-Identifier: GPL-2.0-or-later
"""Puts the agent's work on data together, for routes, ubus and passes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from agent.data.backups import Backups, Restores
from agent.data.volumes import Manual, Volumes
from agent.engine.stream import DockerStream
from agent.errors import UcidockdError
from agent.model.resources import Desired
from agent.status.board import StatusBoard

logger = logging.getLogger(__name__)

_AGAIN_S, _AGAIN_LIMIT_S = 2.0, 300.0  # the first and the longest wait between two tries


class Data:
    """`run_dir` holds what survives the agent but not a reboot, `state_dir` what survives both."""

    def __init__(
        self,
        engine: DockerStream,
        manual: Manual,
        board: StatusBoard,
        *,
        instance: Callable[[], str],
        desired: Callable[[], Desired | None] = lambda: None,
        run_dir: Path,
        state_dir: Path,
    ) -> None:
        self.volumes = Volumes(
            engine,
            manual,
            instance=instance,
            journal=run_dir / "copying.json",
            filling=state_dir / "filling.json",
        )
        self.restores = Restores(self.volumes)
        self.backups = Backups(self.restores, board, desired, state_dir / "backups.json")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Cleans up after a killed agent, and after an engine that went away, as soon as the engine answers."""
        # before any request: what a killed agent was copying must not be touched meanwhile
        self.restores.begin()
        task = asyncio.create_task(self._recover(), name="data")
        try:
            async with self.backups.running():
                yield
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def _recover(self) -> None:
        wait_s = _AGAIN_S
        while True:
            try:
                await self.volumes.recover()
            except (UcidockdError, OSError) as exc:
                logger.info("the remains of an interrupted volume copy are cleaned up later: %s", exc)
            else:
                if not self.volumes.left.is_set():
                    await self.volumes.left.wait()
                    wait_s = _AGAIN_S
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _AGAIN_LIMIT_S)
