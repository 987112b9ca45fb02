# SPDX-License-Identifier: GPL-2.0-or-later
"""What a container needs before anything can be done to it, and what of that is missing.

Networks, volumes and other containers are planned before it: what could not be planned is in `Draft.withheld`.
"""

from __future__ import annotations

from agent.model.identity import Key
from agent.model.observed import Record
from agent.model.resources import Container, DependsOn
from agent.plan import operations as ops
from agent.plan.applied import as_applied
from agent.plan.draft import Draft, Missing, lending_names


def needs_of(draft: Draft, container: Container) -> tuple[str, ...]:
    """Keys of the resources that have to be in place first, of broken sections too."""
    needs: list[str] = [Key("container", wanted.section) for wanted in container.policy.depends_on]
    needs += joined_keys(draft, container)
    networks, volumes = draft.networks_declared, draft.volumes_declared
    needs += [Key("network", networks.get(e.network, e.network)) for e in container.spec.endpoints]
    sources = [m.source for m in container.spec.mounts if m.source and not m.is_bind]
    needs += [Key("volume", volumes.get(source, source)) for source in sources]
    return tuple(dict.fromkeys(needs))


def joined_keys(draft: Draft, container: Container) -> tuple[str, ...]:
    """Keys of the managed containers whose namespaces or volumes a container shares."""
    names = lending_names(container)
    if not names:
        return ()
    return tuple(Key("container", c.section) for c in draft.desired.containers if c.name in names)


def missing_of(
    draft: Draft, container: Container, record: Record | None, needs: tuple[str, ...]
) -> Missing | None:
    """What a container waits for now, None for nothing. `needs`: see `needs_of`."""
    key = Key("container", container.section)
    turn = draft.turns.get(key)
    # it stops, so that another one can have what it has: nothing else matters then
    if turn is not None and turn.stop:
        return turn
    waiting = draft.context.waiting.get(key)
    if waiting is not None:
        lost = draft.context.lost.get(key)
        stop, keep = lost is not None and lost.stop, lost is None and (turn is None or turn.keep)
        return Missing(reason=waiting.reason, stop=stop, keep=keep)
    if turn is not None:
        return turn
    depends = container.policy.depends_on
    for need in needs:
        # a prerequisite that runs, or did its job, is good enough, whatever cannot be done to it now
        satisfied = any(
            need == Key("container", wanted.section)
            and _condition_met(draft, wanted.section, wanted.condition, planned=False)
            for wanted in depends
        )
        if need in draft.withheld and not satisfied:
            keep = need in draft.unchanged or _is_new_need(draft, container, record, need)
            once = f"{need.partition(':')[2]} is ready"
            return Missing(reason=draft.withheld[need], once=once, keep=keep)
    for wanted in depends if not draft.context.assume_met else ():
        if not _condition_met(draft, wanted.section, wanted.condition):
            keep = _is_new_need(draft, container, record, Key("container", wanted.section))
            once = f"{wanted.section} is {wanted.condition}"
            reason = f"{wanted.section} is not {wanted.condition} yet"
            return Missing(reason=reason, once=once, keep=keep)
    return None


def _is_new_need(draft: Draft, container: Container, record: Record | None, key: str) -> bool:
    """Whether what runs was applied without it, and so can do without."""
    if record is None or not record.waits_known:
        return False
    kind, _, section = key.partition(":")
    if kind == "container":
        before = {text.split(":")[0].removeprefix("depends_on ") for text in record.waits}
        return section not in before and key not in joined_keys(draft, container)
    applied = as_applied(container, record)
    return applied is not None and key not in needs_of(draft, applied)


def _condition_met(draft: Draft, section: str, condition: DependsOn, *, planned: bool = True) -> bool:
    """Whether a prerequisite is as far as it has to be; `planned`: to be started by this very plan is enough."""
    work = draft.works.get(Key("container", section))
    if condition is DependsOn.STARTED and planned and work is not None:
        return not any(isinstance(operation, ops.StopContainer) for operation in work.operations)
    seen = draft.container(section)
    if seen is None:
        return False
    if condition is DependsOn.HEALTHY:
        return seen.health == "healthy"
    completed = seen.id in draft.context.completed
    return completed or (condition is DependsOn.STARTED and seen.state == "running")
