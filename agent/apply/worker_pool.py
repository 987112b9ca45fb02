# SPDX-License-Identifier: GPL-2.0-or-later
"""Decides when the works of a plan run: works run in parallel as their needs allow, the operations of a work in order.

A failed work fails the works that need it, and no others. Beginning a plan does not wait for its end: a pull or a
gate of one container may take minutes and must not hold up other containers.

What failed waits for its back-off: 1 s doubling to 5 min per object, with jitter; forgotten on success or when the
configuration changes. A container that ends soon after every start also counts as failing, although each start call
succeeds.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from agent.errors import EngineError, UcidockdError
from agent.plan import operations as ops

logger = logging.getLogger(__name__)

_THREADS = 32  # more than workers: a thread that pulls or waits at a gate does not take a worker's place


class SkippedError(EngineError):
    """The operation was not tried or was given up: a need failed, it is no longer wanted, or the agent stops. Not a
    failure of its own."""

    code = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of one operation; `error` is None if it succeeded. `took_s`: seconds."""

    operation: ops.Operation
    error: UcidockdError | None = None
    took_s: float = 0.0


class WorkerPool:
    """The threads that works run in, shared by all plans; at most `workers` of them talk to the engine at the same time.

    The threads end when no work is left, so that an idle agent has none.
    """

    def __init__(self, workers: int) -> None:
        self.make_event: Callable[[], threading.Event] = threading.Event  # tests on virtual time replace it
        # for works that talk to the engine; see `elsewhere`
        self._places = threading.BoundedSemaphore(workers)
        self._alone = threading.Lock()  # see `one_at_a_time`
        self._guard = threading.Lock()  # of `_pool` and `_under_way`
        self._pool: ThreadPoolExecutor | None = None
        self._under_way = 0  # works that were submitted and have not ended

    def submit(self, work: Callable[[], None]) -> None:
        """Runs the work in a thread as soon as one is free."""
        with self._guard:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="apply")
            self._pool.submit(self._do, work)
            self._under_way += 1

    def _do(self, work: Callable[[], None]) -> None:
        try:
            work()
        finally:
            with self._guard:
                self._under_way -= 1
                if not self._under_way and self._pool is not None:
                    self._pool.shutdown(wait=False)
                    self._pool = None

    @contextmanager
    def place(self) -> Iterator[None]:
        """Takes one of the places while it is open."""
        with self._places:
            yield

    @contextmanager
    def one_at_a_time(self) -> Iterator[None]:
        """For actions of which only one may run at a time."""
        with self._alone:
            yield

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        """Gives up the place while the holder only waits."""
        self._places.release()
        try:
            yield
        finally:
            self._places.acquire()


class Run:
    """A plan that is being carried out."""

    def __init__(
        self, plan: ops.Plan, pool: WorkerPool, work: Callable[[ops.Work, set[str]], list[Outcome]]
    ) -> None:
        self._pool, self._work = pool, work
        self._pending = {each.key: each for each in plan.works}  # works that wait for others
        self._running: set[str] = set()  # keys of works, as in `_failed`
        self._failed: set[str] = set()
        self._outcomes: list[Outcome] = []
        self._fault: BaseException | None = None  # an internal error of a work, which `wait` raises
        self._lock = threading.Lock()
        self._ended = pool.make_event()
        self._begin_ready()

    def wait(self) -> tuple[Outcome, ...]:
        """Blocks until every work has ended; returns the outcomes in order of time.

        Raises any error of a work that is not a UcidockdError: an internal error.
        """
        self._ended.wait()
        if self._fault is not None:
            raise self._fault
        return tuple(self._outcomes)

    def begun(self) -> list[str]:
        """Keys of the works that are running."""
        with self._lock:
            return sorted(self._running)

    def not_begun(self) -> list[str]:
        """Keys of the works that wait for others."""
        with self._lock:
            return sorted(self._pending)

    def ended(self) -> bool:
        """Whether every work has ended."""
        return self._ended.is_set()

    def _begin_ready(self) -> None:
        with self._lock:
            # `after` only orders works: if such a work fails, this one is tried all the same
            open_keys = self._pending.keys() | self._running
            ready = [work for work in self._pending.values() if not (work.needs | work.after) & open_keys]
            for work in ready:
                del self._pending[work.key]
                self._running.add(work.key)
            if not self._running:
                self._ended.set()
        for work in ready:
            self._pool.submit(partial(self._carry_out, work, self._failed & work.needs))

    def _carry_out(self, work: ops.Work, failed_needs: set[str]) -> None:
        outcomes: list[Outcome] = []
        try:
            with self._pool.place():
                outcomes = self._work(work, failed_needs)
        # catch everything: if a work disappeared from the lists, the plan would wait for ever
        except BaseException as exc:
            logger.exception("%s: internal error, the work was abandoned", work.key)
            self._fault = exc
        # all in one lock, so that a work that needs this one sees its end and its outcome together
        with self._lock:
            self._outcomes += outcomes
            self._running.remove(work.key)
            if self._fault is not None or any(outcome.error for outcome in outcomes):
                self._failed.add(work.key)
        self._begin_ready()


FIRST_S = 1.0  # before the second try; it doubles from then on
LIMIT_S = 300.0  # between tries at most, so that a repaired cause is noticed within minutes
ENDED_AGAIN = "it ended again soon after it was started ({starts} times in a row)"
UNHEALTHY_AGAIN = "its health check failed again after a restart ({restarts} restarts in a row)"
GOOD_RUN_S = 600.0  # a container that ran this long did not end at once


@dataclass(slots=True)
class _Failure:
    count: int
    next_try: float
    error: str
    began: float  # the first of these failures


@dataclass(slots=True, kw_only=True)
class BackOff:
    """Failures and repeated starts by key. Times are monotonic seconds; `jitter` returns a factor around 1."""

    jitter: Callable[[], float]
    _failures: dict[str, _Failure] = field(default_factory=dict)  # operations that failed
    # starts of containers, whether or not they succeeded
    _starts: dict[str, _Failure] = field(default_factory=dict)
    # containers that the engine restarts over and over: when that began, and when it was last seen
    _loops: dict[str, tuple[float, float]] = field(default_factory=dict)

    def failed(self, key: str, error: str, now: float) -> None:
        """Notes a failure and schedules the next try."""
        before = self._failures.get(key)
        count = before.count + 1 if before else 1
        self._failures[key] = _Failure(
            count, now + self._delay(count), error, before.began if before else now
        )

    def started_again(self, key: str, now: float, text: str = ENDED_AGAIN) -> None:
        """Notes a start. `text` tells people why the next start has to wait, with places for numbers.

        The first restart is not delayed: a person may have stopped the container.
        """
        before = self._starts.get(key)
        if before is not None and now >= before.next_try + GOOD_RUN_S:
            before = None
        count = before.count + 1 if before else 0
        error = text.format(starts=count + 1, restarts=count)
        next_try = now + (self._delay(count - 1) if count > 1 else 0.0)
        self._starts[key] = _Failure(count, next_try, error, before.began if before else now)

    def restarted_by_engine(self, key: str, ended_s: float, now: float) -> float:
        """Notes that the engine keeps restarting a container, which last ended `ended_s` seconds ago; returns for how
        many seconds it has done so.
        """
        self._loops = {one: loop for one, loop in self._loops.items() if now - loop[1] <= GOOD_RUN_S}
        began, _ = self._loops.get(key, (now - ended_s, now))
        self._loops[key] = (began, now)
        return now - began

    def started(self) -> frozenset[str]:
        """Keys of containers that were started; starting one of them again counts as a restart."""
        return frozenset(self._starts)

    def stopped(self, key: str) -> None:
        """The container was stopped from outside, so it does not count as failing."""
        self._starts.pop(key, None)

    def _delay(self, count: int) -> float:
        seconds: float = min(LIMIT_S, FIRST_S * 2.0 ** min(count - 1, 16))
        return seconds * self.jitter()

    def succeeded(self, key: str) -> None:
        """Forgets the failures, so that the next one starts with the first delay again."""
        self._failures.pop(key, None)

    def clear(self) -> None:
        """Forgets everything: with a new configuration every object deserves a prompt try."""
        self._failures.clear()
        self._starts.clear()

    def blocked(self, now: float) -> dict[str, str]:
        """Key -> last error, for objects that must not be tried yet."""
        both = (*self._starts.items(), *self._failures.items())
        return {key: failure.error for key, failure in both if failure.next_try > now}

    def failing_for(self, now: float) -> dict[str, float]:
        """Key -> seconds since the first failure in a row, for objects that must not be tried yet."""
        both = (*self._starts.items(), *self._failures.items())
        return {key: now - failure.began for key, failure in both if failure.next_try > now}

    def retry_in(self, now: float) -> dict[str, float]:
        """Key -> seconds until the next try, for objects that must not be tried yet."""
        both = (*self._starts.items(), *self._failures.items())
        return {key: failure.next_try - now for key, failure in both if failure.next_try > now}

    def next_try(self, now: float) -> float | None:
        """When the next object is due for a try; None if there is none.

        Overdue objects do not count: something else holds them (they wait, or their section was removed), so waking
        up for them would change nothing.
        """
        times = (failure.next_try for failure in (*self._starts.values(), *self._failures.values()))
        return min((time for time in times if time > now), default=None)

    def any(self) -> bool:
        """Whether anything failed and has not succeeded since."""
        return bool(self._failures)
