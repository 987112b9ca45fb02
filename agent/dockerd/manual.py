# SPDX-License-Identifier: GPL-2.0-or-later
"""dockerd started, stopped or restarted by a user: a wish is noted at once, and the next pass carries it out.

What a user stopped stays down, whatever else is changed, until it is started (also outside of ucidockd), a
reconcile is asked for, or the router boots. Before it comes the controller's door; after it `DaemonChange`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from agent.dockerd.change import DaemonChange
from agent.dockerd.status import DaemonStatus
from agent.errors import ConflictError
from agent.model.dockerd.settings import DaemonSettings, Effect, Process, Wish
from agent.model.resources import AgentSettings, Desired
from agent.plan.daemon import Change

BY_HAND = "requested manually"
_HELD = "dockerd was stopped manually: it stays down until you start it or run `ucidockd reconcile`"


def configured(desired: Desired | None) -> tuple[DaemonSettings | None, AgentSettings]:
    """What is configured; no settings where no section is about dockerd. Raises ConflictError when we do nothing."""
    if desired is None:
        raise ConflictError("the configuration cannot be read")
    if not desired.agent.enabled:
        raise ConflictError("the agent is switched off (option enabled of the agent section)")
    return desired.daemon, desired.agent


class ManualControl:
    """The newest wish. `acting` runs what ends and starts dockerd on purpose; `runs`: whether there is one."""

    def __init__(
        self,
        status: DaemonStatus,
        *,
        acting: Callable[[Callable[[], None]], None],
        runs: Callable[[], bool],
    ) -> None:
        self._status = status
        self._acting = acting
        self._runs = runs
        self._wish: Wish | None = None

    def ask(self, wish: Wish) -> None:
        """From any thread; a later wish takes the place of one that still waits."""
        self._wish = wish

    def check(self, wish: Wish, *, kind: str, unmanaged: str) -> None:
        """Raises ConflictError for a dockerd that is not ours (`kind`: who runs it), and for what is so already."""
        if kind == "external":
            raise ConflictError("ucidockd does not run this dockerd (option daemon is external)")
        if unmanaged:
            raise ConflictError(unmanaged)
        if self._wish is not None or wish is Wish.RESTART:
            return  # while another wish waits nobody knows how that ends
        runs = self._runs()
        if runs is (wish is Wish.START):
            raise ConflictError("dockerd runs already" if runs else "dockerd does not run")

    def hold(
        self, change: DaemonChange, process: Process | None, *, busy: bool, shutdown_s: int | None = None
    ) -> str:
        """Stops dockerd where that is wished. Why it is down or about to be, "" when it is to run.

        `shutdown_s`: seconds that dockerd gives its containers, where the record does not know it. Raises OSError when
        a stop cannot be noted: then dockerd goes on.
        """
        wish = self._wish
        if wish is Wish.STOP and busy and process is not None:
            self._status.synced("Pending", "a stop was asked for; waits for operations that are under way")
            return "dockerd is about to be stopped"
        if wish is Wish.STOP:
            self.begun(wish)
            self._stop(change, process, shutdown_s)
        elif wish is Wish.START or (wish is Wish.RESTART and process is None):
            self.begun(wish)
            change.released()
        elif (
            change.record.stopped and process is not None
        ):  # an agent before us was killed while it stopped it
            self._stop(change, process, shutdown_s)
        if not change.record.stopped:
            return ""
        self._status.running(None)
        self._status.synced("Held", _HELD)
        return _HELD

    def wants_restart(self) -> bool:
        """Whether a restart was asked for that has not begun."""
        return self._wish is Wish.RESTART

    def _stop(self, change: DaemonChange, process: Process | None, shutdown_s: int | None) -> None:
        self._acting(lambda: change.stop(shutdown_s))
        if process is not None:
            self._status.note("stop", BY_HAND, error="")

    def step(self, found: Change, process: Process | None) -> Change:
        """What is to be done anyway, and the restart that was asked for."""
        if self._wish is not Wish.RESTART or process is None:
            return found
        return replace(found, effect=Effect.RESTART, causes=(*found.causes, BY_HAND))

    def begun(self, wish: Wish = Wish.RESTART) -> None:
        """It is being carried out: what is asked for from now on is another wish."""
        if self._wish is wish:
            self._wish = None
