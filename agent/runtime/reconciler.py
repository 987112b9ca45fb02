# SPDX-License-Identifier: GPL-2.0-or-later
"""One pass: load, observe, plan, apply, report. Blocking; the loop runs it in a thread, one at a time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from agent.apply.executor import Executor, Outcome, recover
from agent.apply.images import Images
from agent.apply.ports import Engine
from agent.apply.records import Records
from agent.errors import EngineError, UcidockdError
from agent.model.resources import Desired
from agent.plan import operations as ops
from agent.plan.reconcile import Context, reconcile
from agent.runtime.backoff import BackOff
from agent.runtime.config import LoadResult
from agent.runtime.observe import observe
from agent.runtime.waiting import waiting
from agent.status.board import ConditionType, OperationNote, StatusBoard

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Reconciler:
    """Holds what outlives a pass. `wall` and `monotonic` are clocks in seconds."""

    engine: Engine
    records: Records
    board: StatusBoard
    load: Callable[[], LoadResult]
    backoff: BackOff
    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    stopping: threading.Event = field(default_factory=threading.Event)
    last: LoadResult = field(default_factory=lambda: LoadResult(desired=None))
    desired: Desired | None = None
    image_ids: dict[str, str] = field(default_factory=dict)

    def read_config(self) -> None:
        """Reads UCI. A configuration that does not parse leaves the last good one in force."""
        self.last = self.load()
        for issue in self.last.issues:
            logger.log(logging.ERROR if issue.severity == "error" else logging.WARNING, "%s", issue.text())
        fresh = self.last.desired
        if fresh is None:
            self.board.set_agent(
                self.wall(), config="Invalid", config_issues=[i.text() for i in self.last.issues]
            )
            return
        if self.desired is None or fresh.generation != self.desired.generation:
            self.backoff.clear()
        self.desired = fresh
        self._show_config(fresh)

    def _show_config(self, desired: Desired) -> None:
        now = self.wall()
        texts = [issue.text() for issue in self.last.issues]
        config = "Accepted" if not desired.broken else "PartlyInvalid"
        self.board.set_agent(now, config=config, config_issues=texts, desired_generation=desired.generation)
        groups = (
            ("container", desired.containers),
            ("network", desired.networks),
            ("volume", desired.volumes),
        )
        for kind, resources in groups:
            for resource in resources:
                key = f"{kind}:{resource.section}"
                self.board.ensure(key, kind=kind, section=resource.section, name=resource.name, now=now)
                self.board.set(key, ConditionType.ACCEPTED, status=True, reason="Valid", now=now)
        for key in sorted(desired.broken):
            kind, _, section = key.partition(":")
            self.board.ensure(key, kind=kind, section=section, name=section, now=now)
            mine = [
                issue.text()
                for issue in self.last.issues
                if issue.section == section and issue.severity == "error"
            ]
            self.board.set(
                key, ConditionType.ACCEPTED, status=False, reason="Invalid", message="; ".join(mine), now=now
            )

    def make_plan(self, *, deep: frozenset[str] | None) -> ops.Plan:
        """Observes and plans, changing nothing. `deep`: ids to inspect, None for all. Raises EngineError."""
        desired = self.desired
        if desired is None:
            return ops.Plan()
        records = self.records.records()
        snapshot = observe(self.engine, desired, records, instance=self.records.instance, deep=deep)
        if deep is None:
            self._look_at_images(desired)
        context = Context(
            now=self.wall(),
            records=records,
            foreign_containers=snapshot.foreign_containers,
            foreign_networks=snapshot.foreign_networks,
            foreign_volumes=snapshot.foreign_volumes,
            waiting=waiting(desired, now=self.wall()),
            backoff=self.backoff.blocked(self.monotonic()),
            image_ids=self.image_ids,
        )
        return reconcile(desired, snapshot.observed, context)

    def _look_at_images(self, desired: Desired) -> None:
        images = sorted({container.spec.image for container in desired.containers})
        found = ((image, self.engine.inspect_image(image)) for image in images)
        self.image_ids = {image: str(body["Id"]) for image, body in found if body is not None}

    def run_pass(self, *, deep: frozenset[str] | None) -> tuple[ops.Plan, tuple[Outcome, ...]]:
        """Plans and applies. Raises EngineError when the engine could not even be looked at."""
        desired = self.desired
        if desired is None or not desired.agent.enabled:
            return ops.Plan(), ()
        api = self.engine.ping()
        self.board.set_agent(self.wall(), engine={"reachable": True, "api": f"{api[0]}.{api[1]}"})
        if any(record.swap or not record.object_id for record in self.records.records()):
            recover(self.engine, self.records)
        plan = self.make_plan(deep=deep)
        self._show_findings(plan)
        executor = Executor(
            engine=self.engine,
            records=self.records,
            images=Images(engine=self.engine, auths=desired.auths),
            wall_clock=self.wall,
            workers=desired.agent.workers,
            stopping=self.stopping.is_set,
            report=self._report,
            api=api,
        )
        outcomes = executor.execute(plan)
        self._settle(desired, plan, outcomes)
        return plan, outcomes

    def _show_findings(self, plan: ops.Plan) -> None:
        now = self.wall()
        for work in plan.works:
            kind, _, section = work.key.partition(":")
            self.board.ensure(work.key, kind=kind, section=section, name=section, now=now)
            causes = "; ".join(operation.cause for operation in work.operations)
            self.board.set(
                work.key, ConditionType.SYNCED, status=False, reason="Pending", message=causes, now=now
            )
        for finding in plan.findings:
            kind, _, section = finding.key.partition(":")
            self.board.ensure(finding.key, kind=kind, section=section, name=section, now=now)
            condition = ConditionType(finding.type)
            self.board.set(
                finding.key,
                condition,
                status=finding.status,
                reason=finding.reason,
                message=finding.message,
                now=now,
            )

    def _report(self, outcome: Outcome) -> None:
        operation, error, now = outcome.operation, outcome.error, self.wall()
        text = "" if error is None else str(error)
        note = OperationNote(at=now, op=operation.verb, cause=operation.cause, ok=error is None, error=text)
        kind, _, section = operation.key.partition(":")
        self.board.ensure(operation.key, kind=kind, section=section, name=section, now=now)
        self.board.note(operation.key, note, now=now)
        if error is None:
            logger.info("%s %s: %s", operation.verb, operation.key, operation.cause)
            return
        logger.warning("%s %s failed: %s", operation.verb, operation.key, error)
        self.backoff.failed(operation.key, text, self.monotonic())
        reason = "RolledBack" if isinstance(operation, ops.ReplaceContainer) else "Failed"
        self.board.set(
            operation.key, ConditionType.DEGRADED, status=True, reason=reason, message=text, now=now
        )
        self.board.set(
            operation.key, ConditionType.SYNCED, status=False, reason=reason, message=text, now=now
        )

    def _settle(self, desired: Desired, plan: ops.Plan, outcomes: tuple[Outcome, ...]) -> None:
        now = self.wall()
        failed = {outcome.operation.key for outcome in outcomes if outcome.error is not None}
        gone = {
            o.operation.key for o in outcomes if isinstance(o.operation, ops.Forget | ops.RemoveContainer)
        }
        gone |= {
            o.operation.key for o in outcomes if isinstance(o.operation, ops.RemoveNetwork | ops.RemoveVolume)
        }
        for key in sorted({work.key for work in plan.works} - failed):
            self.backoff.succeeded(key)
            self.board.clear(key, ConditionType.DEGRADED, now=now)
            self.board.set(key, ConditionType.SYNCED, status=True, reason="Applied", now=now)
        for key in sorted(gone - failed):
            self.board.drop(key, now=now)
        for record in self.records.records():
            if not record.swap:
                self.board.set_object(f"{record.kind}:{record.section}", record.object_id, now=now)
        self.board.set_agent(now, generation=desired.generation if not failed else None, last_pass=now)


def plan_as_json(plan: ops.Plan) -> dict[str, object]:
    """The shape that `ucidockd plan --json` and `/v1/plan` give."""
    operations = [{"op": op.verb, "key": op.key, "cause": op.cause} for op in plan.operations]
    return {"operations": operations, "text": str(plan)}


def outcomes_as_json(plan: ops.Plan, outcomes: tuple[Outcome, ...]) -> dict[str, object]:
    """The shape that `ucidockd reconcile --json` and `/v1/reconcile` give."""
    failed = [
        {"op": o.operation.verb, "key": o.operation.key, "error": str(o.error)}
        for o in outcomes
        if o.error is not None
    ]
    return {**plan_as_json(plan), "failed": failed}


def engine_failure(board: StatusBoard, exc: UcidockdError, now: float) -> None:
    """Shows that the engine is away; what is known of the resources stays on the board."""
    retry = isinstance(exc, EngineError) and exc.retryable
    board.set_agent(now, engine={"reachable": False, "error": str(exc), "retryable": retry})
