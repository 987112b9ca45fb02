# SPDX-License-Identifier: GPL-2.0-or-later
"""Reconcile: desired, observed and recorded in, a plan out.

Ownership is by `Record` (state.json): an object that no record names is foreign and never touched, whatever its
labels say. Differences are three-way: what was last applied (the record), what is desired, what the engine shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from agent.errors import InternalError
from agent.model.observed import Observed
from agent.model.resources import Container, Desired
from agent.plan import operations as ops
from agent.plan.claims import settle
from agent.plan.containers import joined_keys, plan_container
from agent.plan.draft import Context, Draft, Missing, key_of
from agent.plan.objects import plan_network, plan_volume
from agent.plan.orphans import plan_orphans
from agent.plan.states import show_states


def reconcile(desired: Desired, observed: Observed, context: Context) -> ops.Plan:
    """The plan that makes `observed` match `desired`. Same input, same plan."""
    turns: dict[str, Missing] = {}
    draft = _draft(desired, observed, context, turns)
    while found := settle(draft):
        if found.items() <= turns.items():
            raise InternalError(f"no order of turns: {found}")  # never: each takes work away
        turns |= found
        draft = _draft(desired, observed, context, turns)
    return ops.Plan(
        works=tuple(draft.works.values()),
        findings=tuple(draft.findings),
        looked=frozenset(draft.looked),
    )


def _draft(desired: Desired, observed: Observed, context: Context, turns: Mapping[str, Missing]) -> Draft:
    draft = Draft(desired=desired, observed=observed, context=context, turns=turns)
    draft.withheld = {key: f"{key.partition(':')[2]} has an error in its section" for key in desired.broken}
    for network in sorted(desired.networks, key=lambda item: item.section):
        plan_network(draft, network)
    for volume in sorted(desired.volumes, key=lambda item: item.section):
        plan_volume(draft, volume)
    for container in _by_dependency(draft, desired.containers):
        plan_container(draft, container)
    plan_orphans(draft)
    show_states(draft)
    return draft


def _by_dependency(draft: Draft, containers: Iterable[Container]) -> list[Container]:
    """Sorted by section, prerequisites first. Cycles were refused by validation; a rest is taken in order."""
    pending = {key_of("container", c.section): c for c in sorted(containers, key=lambda c: c.section)}
    ordered: list[Container] = []
    while pending:
        ready = [key for key, c in pending.items() if not _prerequisites(draft, c) & pending.keys()]
        for key in ready or list(pending):
            ordered.append(pending.pop(key))
    return ordered


def _prerequisites(draft: Draft, container: Container) -> set[str]:
    depends = {key_of("container", wanted.section) for wanted in container.policy.depends_on}
    return depends | set(joined_keys(draft, container))
