# SPDX-License-Identifier: GPL-2.0-or-later
"""What a pass would do: now, or were a change committed. Nothing is changed, and nothing of it is remembered.

It looks and plans as a pass does, then adds what planning does not see: a configuration that cannot be used, dockerd's part,
what is under way, and why something was rolled back. `planning` puts it into words.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent.dockerd.preview import foreseen, not_here
from agent.files.config import LoadResult
from agent.model.identity import Key
from agent.model.issues import Given, Issue
from agent.model.resources import Desired
from agent.plan import operations as ops
from agent.plan.outlook import Outlook, outlook
from agent.plan.reconcile import reconcile
from agent.runtime.reconciler import Reconciler
from agent.runtime.requests.planning import entries_of
from agent.status.conditions import ConditionType


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenChange:
    """A configuration that is given, and, where single sections are, the one `before` them and their `keys`."""

    loaded: LoadResult
    before: LoadResult | None
    keys: frozenset[str]


def foresee(of: Reconciler) -> Outlook:
    """What a pass would do now, and all else that is not as declared. Raises EngineError."""
    return _outlook(of, of.last, of.desired, committed=True)


def mistakes(of: Reconciler, given: Given) -> tuple[Issue, ...]:
    """What is wrong with it, and what of it this router cannot have. Raises ConfigError."""
    loaded = of.load_given(given)
    return loaded.issues if of.daemon is None else (*loaded.issues, *not_here(of.daemon, loaded))


def load_change(of: Reconciler, given: Given) -> GivenChange:
    """Reads what is given, for `foresee_change`; it reads files. Raises ConfigError for what UCI cannot express."""
    loaded = of.load_given(given)
    # What UCI says without the given sections: only the difference to that is the answer to "what would this change do".
    before = of.load_given(replace(given, sections={})) if given.sections else None
    names = {name for sections in given.sections.values() for name in sections}
    keys = {Key(kind, name) for name in names for kind in ("container", "network", "volume")}
    return GivenChange(loaded=loaded, before=before, keys=frozenset(keys))


def foresee_change(of: Reconciler, change: GivenChange) -> Outlook:
    """The same, were that committed. Of single sections: only what follows from them. Raises EngineError."""
    found = _outlook(of, change.loaded, change.loaded.desired, committed=False)
    if change.before is None:
        return found
    before = _outlook(of, change.before, change.before.desired, committed=False)
    return found.beyond(before, own=change.keys)


def _outlook(of: Reconciler, loaded: LoadResult, desired: Desired | None, *, committed: bool) -> Outlook:
    holding = of.daemon.holding if of.daemon is not None else ""
    extra = entries_of(loaded, desired, holding)
    if desired is None or not desired.agent.enabled:
        return Outlook(plan=ops.Plan(), entries=tuple(extra))
    # dockerd first, as in a pass: a restart of it comes before what is done to containers
    before: tuple[ops.ChangeDaemon, ...] = ()
    if of.daemon is not None and not holding:
        before, failed = foreseen(of.daemon, desired)
        extra += failed
    # A person waits for this answer: it may cost the calls that a pass saves.
    of.standing.look(thoroughly=True)
    look = of.look(desired, None, {}, committed=committed)
    plan = reconcile(look.desired, look.observed, look.context)
    if committed:
        plan = of.with_outputs(plan, desired)
    # what waits for a disk or a network is shown with what is done once that is there
    later = plan
    if any(finding.once for finding in plan.findings):
        later = reconcile(look.desired, look.observed, replace(look.context, assume_met=True))
    found = outlook(
        plan,
        later,
        busy=of.under_way.words(),
        retry_in_s=of.backoff.retry_in(of.monotonic()),
        extra=extra,
    )
    entries = list(found.entries)
    for i, entry in enumerate(entries):
        # planning knows only that it was rolled back; the board knows why
        why = of.board.standing(entry.key, ConditionType.DEGRADED)
        told = why is not None and why.reason == "RolledBack" and why.message not in entry.message
        if entry.state == "rolled back" and why is not None and told:
            entries[i] = replace(entry, message=f"{why.message}; {entry.message}")
    return replace(found, entries=tuple(entries), before=before)
