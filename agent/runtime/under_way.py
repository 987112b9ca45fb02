# SPDX-License-Identifier: GPL-2.0-or-later
"""The works in progress: those that passes began and that have not ended, and the results of those that have.

Passes continue meanwhile and leave these resources alone. Each outcome goes to the status board, to collectors, and
to what the next pass needs: the back-off, whether a change failed, and whether a `hold_cmd` postponed. `agent.plan`
decides what to do, `agent.apply` does it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from agent.apply.executor import Executor
from agent.apply.images import Images, MakeRoom
from agent.apply.ports import Clock, Engine, Records, SavedData
from agent.apply.steps import HeldBackError
from agent.apply.worker_pool import (
    ENDED_AGAIN,
    UNHEALTHY_AGAIN,
    BackOff,
    Outcome,
    Run,
    SkippedError,
    WorkerPool,
)
from agent.errors import Reason
from agent.files.state import SettingsHistory
from agent.model.identity import Key
from agent.model.resources import Container, Desired
from agent.observe.snapshot import KnownImages
from agent.plan import operations as ops
from agent.runtime.status_writer import StatusWriter
from agent.status.conditions import ConditionType

logger = logging.getLogger(__name__)

_HOLD_AGAIN_S = 60.0  # until `hold_cmd` is asked again
_STARTS = (ops.StartContainer, ops.RestartContainer)
# after these nothing of the section is left
_LAST_OPERATIONS = (ops.Forget, ops.RemoveContainer, ops.RemoveNetwork, ops.RemoveVolume)


@dataclass(slots=True, kw_only=True)
class UnderWay:
    """`desired`: returns the present configuration. Called in the thread of a work: `failed`, if something may be half
    done; `board_changed`, after the board changed; `ended`, after a work has ended; `fetched`, with an image reference and
    the id of the image that was pulled for it."""

    engine: Engine
    records: Records
    status: StatusWriter
    backoff: BackOff
    images: KnownImages
    clock: Clock
    stopping: threading.Event
    desired: Callable[[], Desired | None]
    history: SettingsHistory | None
    restores: Callable[[], SavedData | None]
    make_pool: Callable[[int], WorkerPool]
    room: MakeRoom
    foresee_pull: Callable[[str, str, int], str]
    failed: Callable[[], None]
    board_changed: Callable[[], None]
    ended: Callable[[], None]
    fetched: Callable[[str, str], None]
    interfaces: Callable[[], Collection[str]]
    # keys of containers whose last failure was a failed change
    changing: set[str] = field(default_factory=set)
    _works: dict[str, ops.Work] = field(default_factory=dict)  # by key
    _runs: list[Run] = field(default_factory=list)  # plans that are being carried out
    _collectors: list[list[Outcome]] = field(default_factory=list)  # callers that wait for outcomes
    # key -> (time until which its `hold_cmd` is not asked again, what it said)
    _held_back: dict[str, tuple[float, str]] = field(default_factory=dict)
    # by the number of workers, which the agent section sets
    _pools: dict[int, WorkerPool] = field(default_factory=dict)

    def is_busy(self) -> bool:
        """Whether a work is in progress."""
        return bool(self._works)

    def keys(self) -> frozenset[str]:
        """The keys that are being worked on."""
        return frozenset(self._works)

    def runs(self) -> list[Run]:
        """The runs that passes began and that have not ended."""
        return [run for run in self._runs if not run.ended()]

    def words(self) -> dict[str, str]:
        """Key -> what is being done to it, with the progress of its pull."""
        # a copy, because works end in other threads
        return {key: self._in_words(work) for key, work in self._works.copy().items()}

    def doing(self, key: str) -> str:
        """What is being done to one resource, "" if nothing."""
        work = self._works.get(key)
        return self._in_words(work) if work is not None else ""

    def _in_words(self, work: ops.Work) -> str:
        image = self.status.board.standing(work.key, ConditionType.IMAGE_READY)
        if image is not None and image.reason == "Pulling":
            return image.message
        first = work.operations[0]
        return f"{first.verb}: {first.cause}"

    def held_back(self) -> Mapping[str, str]:
        """Key -> what its `hold_cmd` said, for those that are not asked again yet."""
        now = self.clock.monotonic()
        self._held_back = {key: value for key, value in self._held_back.items() if value[0] > now}
        return {key: why for key, (_, why) in self._held_back.items()}

    def next_question(self, now: float) -> float | None:
        """When a `hold_cmd` is asked again; None if none is. Only after `now`, monotonic seconds."""
        return min((time for time, _ in list(self._held_back.values()) if time > now), default=None)

    def forget(self, key: str) -> None:
        """Forgets the results of the last work on this key."""
        self.changing.discard(key)
        self._held_back.pop(key, None)

    @contextlib.contextmanager
    def collecting(self) -> Iterator[list[Outcome]]:
        """Collects the outcome of each operation that ends while the block runs, whichever pass began it."""
        outcomes: list[Outcome] = []
        self._collectors.append(outcomes)
        try:
            yield outcomes
        finally:
            self._collectors = [each for each in self._collectors if each is not outcomes]

    def begin(self, plan: ops.Plan, desired: Desired, api: tuple[int, int]) -> Run:
        """Begins to carry out a plan; `api`: the API version that the engine speaks."""
        # before the run begins: a work may end, and remove itself, before `begin` returns
        self._works |= {work.key: work for work in plan.works}
        run = self.executor(desired, api).begin(plan)
        self._runs = [*self.runs(), run]
        return run

    def executor(self, desired: Desired, api: tuple[int, int]) -> Executor:
        """The executor for the plan of one pass."""
        workers = desired.agent.workers
        pool = self._pools.get(workers) or self._pools.setdefault(workers, self.make_pool(workers))

        # checked when called, not now: another pass may read a new configuration during a long pull or gate
        def is_wanted(container: Container) -> bool:
            now = self.desired()
            declared = now.containers if now is not None else (container,)
            same = (container.section, container.spec.image)
            return any((c.section, c.spec.image) == same for c in declared)

        def is_current(container: Container) -> bool:
            now = self.desired()
            return now is None or container in now.containers

        def show_pulled(container: Container, image_id: str, reason: Reason) -> None:
            self.images.pulled(container.spec.image, image_id)
            if reason == "Present":
                self.fetched(container.spec.image, image_id)
            # after a failed pull there may still be a local image
            shown = reason if not image_id else "Present"
            self.status.image(container, status=bool(image_id), reason=shown)

        images = Images(
            engine=self.engine,
            auths=desired.auths,
            stopping=self.stopping.is_set,
            wanted=is_wanted,
            waiting=pool.elsewhere,
            pulling=lambda container, percent: self.status.image(
                container,
                status=False,
                reason="Pulling",
                message=f"pulling {container.spec.image}: {percent} %",
            ),
            pulled=show_pulled,
            clock=self.clock.monotonic,
            room=self.room,
            foreseen=self.foresee_pull,
        )
        return Executor(
            engine=self.engine,
            records=self.records,
            images=images,
            pool=pool,
            clock=self.clock,
            stopping=self.stopping.is_set,
            current=is_current,
            report=self._report,
            ended=self._work_ended,
            api=api,
            keep_images=desired.agent.keep_images,
            data=self.restores(),
            interfaces=self.interfaces,
        )

    def _work_ended(self, work: ops.Work, succeeded: bool) -> None:  # noqa: FBT001 - the executor's callback
        """Called in the thread of the work."""
        if succeeded:
            if not work.partial:
                self.backoff.succeeded(work.key)
                self.changing.discard(work.key)
            # a deliberate stop is not a failure: do not delay the next start
            if any(isinstance(operation, ops.StopContainer) for operation in work.operations):
                self.backoff.stopped(work.key)
            # a container that has to be started again and again gets increasing delays, even if each start succeeds
            if any(isinstance(operation, _STARTS) for operation in work.operations):
                healing = any(isinstance(o, ops.RestartContainer) and o.unhealthy for o in work.operations)
                self.backoff.started_again(
                    work.key, self.clock.monotonic(), UNHEALTHY_AGAIN if healing else ENDED_AGAIN
                )
            if work.partial:
                self.status.kept(work.key)
            else:
                self.status.applied(work.key)
            # the history is stored by section, so it has to be removed with the section
            if isinstance(work.operations[-1], _LAST_OPERATIONS):
                self.status.gone(work.key)
                key = Key.parse(work.key)
                if key.kind == "container" and self.history is not None:
                    self.history.forget(key.section)
        # only for this work: otherwise a first apply of a thousand containers would update all of them a thousand
        # times
        keys = {work.key, *(operation.key for operation in work.operations)}
        self.status.ids(keys)
        self.status.losses(keys)
        self.board_changed()
        # after the board: whoever sees that nothing is in progress must find the result there
        self._works.pop(work.key, None)
        self.ended()

    def _report(self, outcome: Outcome) -> None:
        operation, error = outcome.operation, outcome.error
        for collector in self._collectors:
            collector.append(outcome)
        self.status.outcome(outcome)
        if error is None:
            logger.info("%s %s: %s", operation.verb, operation.key, operation.cause)
        elif isinstance(error, HeldBackError):
            logger.info("%s %s waits: %s", operation.verb, operation.key, error)
            until = self.clock.monotonic() + min(_HOLD_AGAIN_S, error.left_s)
            self._held_back[operation.key] = (until, str(error))
        # not for a skipped operation: as soon as what it needs is there, it is tried again
        elif not isinstance(error, SkippedError):
            logger.warning("%s %s failed: %s", operation.verb, operation.key, error)
            self.backoff.failed(operation.key, str(error), self.clock.monotonic())
            # After a failed change the old container still runs. It is inspected and repaired in spite of the
            # back-off, which only concerns the change.
            if isinstance(operation, ops.ReplaceContainer | ops.AdoptContainer):
                self.changing.add(operation.key)
            else:
                self.changing.discard(operation.key)
            self.failed()
