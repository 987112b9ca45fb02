# SPDX-License-Identifier: GPL-2.0-or-later
"""What the command line does itself where no agent runs: plan, reconcile, diff and adopt, one pass each."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agent.apply.worker_pool import Outcome
from agent.files.config import load
from agent.files.options import RuntimeOptions
from agent.model.issues import Given, issue_as_json
from agent.model.resources import AgentSettings
from agent.runtime.main import locked, make_reconciler
from agent.runtime.requests.adopt import AdoptRequest, adopt_container
from agent.runtime.requests.foresight import foresee, foresee_change, load_change
from agent.runtime.requests.planning import Settling, describe, diff, plan_answer, reconcile_answer
from agent.runtime.requests.versions import past
from agent.status.board import StatusBoard

_INTERRUPTED = 130  # 128 and SIGINT
_WAVES = 20  # passes of one `reconcile`


class Single:
    """Every method raises EngineError, ConfigError; those that change something AlreadyRunningError."""

    def __init__(self, options: RuntimeOptions) -> None:
        desired = load(options).desired
        settings = desired.agent if desired is not None else AgentSettings()
        self._socket = Path(options.socket or settings.socket)
        self._reconciler = make_reconciler(options, settings)
        self._reconciler.read_config()
        self._reconciler.standing.only_look()

    def plan(self, given: Given | None = None) -> dict[str, Any]:
        """What a pass would do now, or would do were `given` committed."""
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
        """Passes until nothing can be done at once, and what was started has run for `settle_s` seconds.

        `changed` gets each change of the status board, in the thread that made it. `interrupted` is told what is still
        being finished after a Ctrl-C, and what is not begun any more.
        """
        with locked(self._socket.parent / "agent.lock"):
            # Under the lock only: a running agent writes the same records.
            self._reconciler.standing.take_over()
            self._reconciler.forget_failures()
            self._reconciler.holds.clear()
            if self._reconciler.daemon is not None:
                self._reconciler.daemon.accept_engine()
            if changed is not None:
                _follow(self._reconciler.board, changed)
            stopped = False
            with self._reconciler.under_way.collecting() as outcomes:
                try:
                    self._passes(outcomes, Settling(settle_s, self._reconciler.monotonic))
                except KeyboardInterrupt:
                    if interrupted is None:
                        raise
                    # The answer still says what was done so far, since it was done.
                    stopped = True
                    self._stop(interrupted)
                found = foresee(self._reconciler)
            # Changes are appended to state.json while passes run; at the end it is one document again, which is smaller and
            # which an older version reads.
            self._reconciler.records.fold()
        answer = reconcile_answer(found, outcomes, self._issues())
        return {**answer, "ok": False, "interrupted": True} if stopped else answer

    def renew(self, names: Sequence[str], *, back: bool, with_data: bool = False) -> dict[str, Any]:
        """Updates containers, or takes them back to the image before."""
        from agent.runtime.requests.versions import answer, ask

        # The same lock as the agent's: two writers of state.json would undo each other's records.
        with locked(self._socket.parent / "agent.lock"):
            self._reconciler.standing.take_over()
            # Everything is inspected: no pass before this one has seen what changed meanwhile.
            self._reconciler.standing.look(thoroughly=True)
            asked = ask(self._reconciler, names, back=back, with_data=with_data)
            with self._reconciler.under_way.collecting() as outcomes:
                self._passes(outcomes, Settling(0.0, self._reconciler.monotonic))
                found = foresee(self._reconciler)
            # A process that ends leaves no tail of changes for the next one to read.
            self._reconciler.records.fold()
            return answer(self._reconciler, asked, found, outcomes)

    def _passes(self, outcomes: Sequence[Outcome], settling: Settling) -> None:
        self._reconciler.run_pass(deep=None)
        # What the first pass starts may make more possible (a container that others share the network of): passes go on
        # while there is anything to do, and not for ever.
        waves = 0
        while waves < _WAVES:
            if foresee(self._reconciler).plan.works:
                self._reconciler.run_pass(deep=None)
                waves += 1
            elif settling.lasts(outcomes):
                time.sleep(Settling.LOOK_S)
            else:
                return

    def _stop(self, interrupted: Callable[[list[str], list[str]], None]) -> None:
        """Begins nothing more, cancels pulls, and waits for the rest. A second Ctrl-C leaves it as after a crash."""
        self._reconciler.stopping.set()
        runs = self._reconciler.under_way.runs()
        left = [key for run in runs for key in run.not_begun()]
        interrupted([key for run in runs for key in run.begun()], left)
        try:
            for run in runs:
                run.wait()
        except KeyboardInterrupt:
            os._exit(_INTERRUPTED)  # threads cannot be ended; what they leave half done the next pass mends

    def diff(self, name: str) -> dict[str, Any]:
        """One container section against what the engine shows."""
        self._reconciler.standing.look(thoroughly=True)
        return diff(self._reconciler, name)

    def describe(self, name: str) -> dict[str, Any]:
        """Everything about one container section."""
        self._reconciler.standing.look(thoroughly=True)
        return describe(self._reconciler, name)

    def history(self, name: str) -> dict[str, Any]:
        """The settings that a container section had."""
        return past(self._reconciler).show(name)

    def revert(self, name: str, number: int, *, commit: bool) -> dict[str, Any]:
        """One of them as the section again; the next reconcile carries a commit out."""
        return past(self._reconciler).go_back(name, number, commit=commit)

    def adopt(self, request: dict[str, Any]) -> dict[str, Any]:
        """A container's sections, by the body of `POST /v1/adopt`; the next reconcile carries a commit out."""
        self._reconciler.standing.look(thoroughly=True)
        return adopt_container(self._reconciler, AdoptRequest(**request))

    def _issues(self) -> list[dict[str, object]]:
        return [{"severity": i.severity, "text": i.text()} for i in self._reconciler.last.issues]


def _follow(board: StatusBoard, changed: Callable[[dict[str, Any]], None]) -> None:
    seen = board.version

    # By number: the board calls for each change, and events in between must not be told twice.
    def on_change() -> None:
        nonlocal seen
        for event in board.events_after(seen) or ():
            seen = int(event["id"])
            changed(event)

    board.subscribe(on_change)
