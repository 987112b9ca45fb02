# SPDX-License-Identifier: GPL-2.0-or-later
"""What a section has run in its container around a replacement: `hold_cmd`, `pre_stop` and `post_start`.

Like Kubernetes' lifecycle hooks: a failing `pre_stop` is reported and stops nothing, a `post_start` that fails is a failed
start. `hold_cmd` is asked before anything is done, as the update locks of balena.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from agent.apply.failures import tidied
from agent.apply.ports import Clock, Engine, Records
from agent.apply.worker_pool import SkippedError
from agent.errors import EngineError, EngineUnreachableError
from agent.model.observed import Record
from agent.model.resources import Container

logger = logging.getLogger(__name__)

HOOK_S = 30.0  # of pre_stop and post_start, unless the section says another
HOLD_S = 30.0  # of hold_cmd
HOLD_LIMIT_S = 86400.0


class HeldBackError(SkippedError):
    """`hold_cmd` wants the replacement to wait."""

    code = "held-back"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """Runs them; each blocks for as long as its command and its deadline take."""

    engine: Engine
    records: Records
    clock: Clock

    def hold(self, container: Container, old: Record) -> None:
        """Raises HeldBackError while `hold_cmd` says so, `hold_limit` at most. `old` is that of one that is not stopped."""
        command = container.policy.hold_cmd
        seen = self.engine.inspect_container(old.object_id) if command else None
        # one that is between two restarts or paused cannot say no: what replaces it may be the cure
        runs = seen is not None and seen.state == "running"
        why = self._run(container, old.object_id, command, HOLD_S)[0] if command and runs else ""
        if not why:
            return
        now, limit = self.clock.wall(), container.policy.hold_limit_s
        limit = HOLD_LIMIT_S if limit is None else limit
        if old.held_at is None or old.held_at > now:
            self.records.change(old.nonce, held_at=now)
            since = now
        else:
            since = old.held_at
        if now - since >= limit:
            logger.warning("%s: hold_cmd %s; replaced, since `hold_limit` is over", container.name, why)
            return
        left = max(1, round((since + limit - now) / 60))
        raise HeldBackError(f"hold_cmd {why}; it is replaced in {left} min at the latest", retryable=True)

    def pre_stop(self, container: Container, object_id: str) -> str:
        """What went wrong, for people; "" when nothing."""
        command, limit = container.policy.pre_stop, container.policy.pre_stop_timeout_s
        if not command:
            return ""
        why = self._run(container, object_id, command, HOOK_S if limit is None else limit)[0]
        if why:
            logger.warning("%s: pre_stop %s; the container is stopped anyway", container.name, why)
        return f"pre_stop {why}" if why else ""

    def post_start(self, container: Container, object_id: str) -> None:
        """Raises EngineError with what it printed last."""
        command, limit = container.policy.post_start, container.policy.post_start_timeout_s
        if not command:
            return
        why, output = self._run(container, object_id, command, HOOK_S if limit is None else limit)
        if why:
            error = EngineError(f"post_start {why}", retryable=True)
            error.output = output
            raise error

    def _run(
        self, container: Container, object_id: str, command: tuple[str, ...], limit_s: float
    ) -> tuple[str, str]:
        """What went wrong, with its last line, and its last lines; never the command, which may hold a password."""
        try:
            code, raw = self.engine.execute(object_id, command, limit_s)
        except EngineUnreachableError:
            raise
        except EngineError as exc:
            return "could not be run: " + tidied(str(exc).encode(), container), ""
        if code == 0:
            return "", ""
        output = tidied(raw, container)
        last = output.rpartition("\n")[2].strip()
        why = f"did not end within {limit_s:g} s" if code is None else f"exited with {code}"
        return (f"{why}: {last}" if last else why), output
