# SPDX-License-Identifier: GPL-2.0-or-later
"""What the command line does by itself if no agent runs: plan, reconcile, diff and adopt, with passes of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agent.apply.worker_pool import Outcome
from agent.files.config import load
from agent.files.options import RuntimeOptions
from agent.model.issues import GivenConfig, issue_as_json
from agent.model.resources import AgentSettings
from agent.runtime.main import locked, make_reconciler
from agent.runtime.requests.adopt import AdoptRequest, adopt_container
from agent.runtime.requests.foresight import foresee, foresee_change, load_change
from agent.runtime.requests.planning import SettleWatch, describe, diff, plan_answer, reconcile_answer
from agent.runtime.requests.versions import earlier_versions
from agent.status.board import StatusBoard

_INTERRUPTED = 130  # 128 + SIGINT
_WAVES = 20  # passes of one `reconcile`


class OneShot:
    """Commands without an agent. Methods raise EngineError, ConfigError; those that change something also
    AlreadyRunningError."""

    def __init__(self, options: RuntimeOptions) -> None:
        desired = load(options).desired
        settings = desired.agent if desired is not None else AgentSettings()
        self._socket = Path(options.socket or settings.socket)
        self._reconciler = make_reconciler(options, settings)
        self._reconciler.read_config()
        self._reconciler.engine_records.forbid_writes()

    def plan(self, given: GivenConfig | None = None) -> dict[str, Any]:
        """What a pass would do now, or would do if `given` were committed."""
        if given is None:
            return plan_answer(foresee(self._reconciler), self._issues())
        change = load_change(self._reconciler, given)
        issues = [issue_as_json(issue) for issue in change.loaded.issues]
        return plan_answer(foresee_change(self._reconciler, change), issues)

    def reconcile(
        self,
        changed: Callable[[dict[str, Any]], None] | None = None,
        interrupted: Callable[[list[str], list[str]], None] | None = None,
        *,
        settle_s: float = 0.0,
    ) -> dict[str, Any]:
        """Runs passes until nothing more can be done now and started containers have run for `settle_s` seconds.

        `changed` is called with each change of the status board, in the thread that made it. After a Ctrl-C,
        `interrupted` is called with the keys that are still being finished, and with those that will not be begun.
        """
        with locked(self._socket.parent / "agent.lock"):
            # only under the lock, because a running agent writes the same records
            self._reconciler.engine_records.take_over()
            self._reconciler.forget_failures()
            self._reconciler.holds.clear()
            if self._reconciler.daemon is not None:
                self._reconciler.daemon.accept_engine()
            if changed is not None:
                _follow(self._reconciler.board, changed)
            stopped = False
            with self._reconciler.under_way.collecting() as outcomes:
                try:
                    self._passes(outcomes, SettleWatch(settle_s, self._reconciler.monotonic))
                except KeyboardInterrupt:
                    if interrupted is None:
                        raise
                    # the answer still reports what was done before
                    stopped = True
                    self._stop(interrupted)
                found = foresee(self._reconciler)
            # During the passes changes are appended to state.json. Afterwards rewrite it as one document, which is
            # smaller and readable by older versions.
            self._reconciler.records.fold()
        answer = reconcile_answer(found, outcomes, self._issues())
        return {**answer, "ok": False, "interrupted": True} if stopped else answer

    def renew(self, names: Sequence[str], *, back: bool, with_data: bool = False) -> dict[str, Any]:
        """Updates containers, or takes them back to their previous image."""
        from agent.runtime.requests.versions import answer, ask

        # the same lock as the agent's: two writers of state.json would undo each other's records
        with locked(self._socket.parent / "agent.lock"):
            self._reconciler.engine_records.take_over()
            # inspect everything: no earlier pass has seen what changed meanwhile
            self._reconciler.engine_records.identify(thoroughly=True)
            asked = ask(self._reconciler, names, back=back, with_data=with_data)
            with self._reconciler.under_way.collecting() as outcomes:
                self._passes(outcomes, SettleWatch(0.0, self._reconciler.monotonic))
                found = foresee(self._reconciler)
            # leave no appended changes for the next process to read
            self._reconciler.records.fold()
            return answer(self._reconciler, asked, found, outcomes)

    def _passes(self, outcomes: Sequence[Outcome], settling: SettleWatch) -> None:
        self._reconciler.run_pass(deep=None)
        # What the first pass starts may make more possible (for example a container whose network others share), so
        # passes are repeated while there is anything to do, up to a limit.
        waves = 0
        while waves < _WAVES:
            if foresee(self._reconciler).plan.works:
                self._reconciler.run_pass(deep=None)
                waves += 1
            elif settling.lasts(outcomes):
                time.sleep(SettleWatch.LOOK_S)
            else:
                return

    def _stop(self, interrupted: Callable[[list[str], list[str]], None]) -> None:
        """Begins nothing more, cancels pulls, and waits for the rest. A second Ctrl-C ends the process as a crash would."""
        self._reconciler.stopping.set()
        runs = self._reconciler.under_way.runs()
        left = [key for run in runs for key in run.not_begun()]
        interrupted([key for run in runs for key in run.begun()], left)
        try:
            for run in runs:
                run.wait()
        except KeyboardInterrupt:
            # threads cannot be ended; the next pass finishes or rolls back what they leave half done
            os._exit(_INTERRUPTED)

    def diff(self, name: str) -> dict[str, Any]:
        """The differences between one container section and its container on the engine."""
        self._reconciler.engine_records.identify(thoroughly=True)
        return diff(self._reconciler, name)

    def describe(self, name: str) -> dict[str, Any]:
        """Everything about one container section."""
        self._reconciler.engine_records.identify(thoroughly=True)
        return describe(self._reconciler, name)

    def history(self, name: str) -> dict[str, Any]:
        """The earlier settings of a container section."""
        return earlier_versions(self._reconciler).show(name)

    def revert(self, name: str, number: int, *, commit: bool) -> dict[str, Any]:
        """Restores earlier settings to the section; the next reconcile applies a commit."""
        return earlier_versions(self._reconciler).go_back(name, number, commit=commit)

    def adopt(self, request: dict[str, Any]) -> dict[str, Any]:
        """The sections for an existing container, for the body of `POST /v1/adopt`; the next reconcile applies a commit."""
        self._reconciler.engine_records.identify(thoroughly=True)
        return adopt_container(self._reconciler, AdoptRequest(**request))

    def _issues(self) -> list[dict[str, object]]:
        return [{"severity": i.severity, "text": i.text()} for i in self._reconciler.last.issues]


def _follow(board: StatusBoard, changed: Callable[[dict[str, Any]], None]) -> None:
    seen = board.version

    # by number: the board calls this for every change, and no event may be reported twice
    def on_change() -> None:
        nonlocal seen
        for event in board.events_after(seen) or ():
            seen = int(event["id"])
            changed(event)

    board.subscribe(on_change)
