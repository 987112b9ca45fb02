# SPDX-License-Identifier: GPL-2.0-or-later
"""What a pass would do now, or if a change were committed. Changes and remembers nothing.

It observes and plans like a pass. Then it adds what planning does not see: an unusable configuration, dockerd's part,
works in progress, and why something was rolled back. `planning` turns it into answers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent.dockerd.preview import foreseen, not_here
from agent.files.config import LoadResult
from agent.model.identity import Key
from agent.model.issues import GivenConfig, Issue
from agent.model.resources import Desired
from agent.plan import operations as ops
from agent.plan.description import PlanDescription, describe_plan
from agent.plan.reconcile import reconcile
from agent.runtime.reconciler import PlanInput, Reconciler
from agent.runtime.requests.planning import entries_of
from agent.status.conditions import ConditionType

_LOOKS = 3  # on a busy router works end during each look, and the answer must not wait for that


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenChange:
    """A given configuration. If single sections are given: also the configuration `before` them, and their `keys`."""

    loaded: LoadResult
    before: LoadResult | None
    keys: frozenset[str]


def foresee(of: Reconciler) -> PlanDescription:
    """What a pass would do now, and everything else that is not as declared. Raises EngineError."""
    return _described(of, of.last, of.desired, committed=True)


def mistakes(of: Reconciler, given: GivenConfig) -> tuple[Issue, ...]:
    """The mistakes in a given configuration, including settings that this router does not support. Raises ConfigError."""
    loaded = of.load_given(given)
    return loaded.issues if of.daemon is None else (*loaded.issues, *not_here(of.daemon, loaded))


def load_change(of: Reconciler, given: GivenConfig) -> GivenChange:
    """Reads a given configuration for `foresee_change`. Raises ConfigError for values that UCI cannot express."""
    loaded = of.load_given(given)
    # the configuration without the given sections: the difference to it answers what the change would do
    before = of.load_given(replace(given, sections={})) if given.sections else None
    names = {name for sections in given.sections.values() for name in sections}
    keys = {Key(kind, name) for name in names for kind in ("container", "network", "volume")}
    return GivenChange(loaded=loaded, before=before, keys=frozenset(keys))


def foresee_change(of: Reconciler, change: GivenChange) -> PlanDescription:
    """What a pass would do if the change were committed. For single sections: only their effects. Raises EngineError."""
    found = _described(of, change.loaded, change.loaded.desired, committed=False)
    if change.before is None:
        return found
    before = _described(of, change.before, change.before.desired, committed=False)
    return found.beyond(before, own=change.keys)


def _look(of: Reconciler, desired: Desired, *, committed: bool) -> tuple[PlanInput, dict[str, str]]:
    """The input of planning, and what is in progress: key -> in words."""
    for _ in range(_LOOKS):
        before = of.under_way.words()
        look = of.plan_input(desired, None, {}, committed=committed)
        # Planning leaves a resource alone that was being worked on. If the work has ended since, nothing would be said
        # of it, as if it were as declared.
        if look.context.busy <= of.under_way.keys():
            break
    now = of.under_way.words()
    return look, {key: now.get(key) or before.get(key) or "being changed" for key in look.context.busy}


def _described(
    of: Reconciler, loaded: LoadResult, desired: Desired | None, *, committed: bool
) -> PlanDescription:
    holding = of.daemon.holding if of.daemon is not None else ""
    extra = entries_of(loaded, desired, holding)
    if desired is None or not desired.agent.enabled:
        return PlanDescription(plan=ops.Plan(), entries=tuple(extra))
    # dockerd first, as in a pass: its restart comes before operations on containers
    before: tuple[ops.ChangeDaemon, ...] = ()
    if of.daemon is not None and not holding:
        before, failed = foreseen(of.daemon, desired)
        extra += failed
    # a person waits for this answer, so it may make calls that a pass avoids
    of.engine_records.identify(thoroughly=True)
    look, busy = _look(of, desired, committed=committed)
    plan = reconcile(look.desired, look.observed, look.context)
    if committed:
        plan = of.with_outputs(plan, desired)
    # show what waits for another resource together with the operations that follow once that is ready
    later = plan
    if any(finding.once for finding in plan.findings):
        later = reconcile(look.desired, look.observed, replace(look.context, assume_met=True))
    found = describe_plan(
        plan,
        later,
        busy=busy,
        retry_in_s=of.backoff.retry_in(of.monotonic()),
        extra=extra,
    )
    entries = list(found.entries)
    for i, entry in enumerate(entries):
        # planning only knows that there was a rollback; the board knows why
        why = of.board.standing(entry.key, ConditionType.DEGRADED)
        told = why is not None and why.reason == "RolledBack" and why.message not in entry.message
        if entry.state == "rolled back" and why is not None and told:
            entries[i] = replace(entry, message=f"{why.message}; {entry.message}")
    return replace(found, entries=tuple(entries), before=before)
