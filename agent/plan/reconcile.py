# SPDX-License-Identifier: GPL-2.0-or-later
"""Reconcile: takes the desired, observed and recorded state, and returns a plan.

The record in state.json decides what is ours: an object that no record names is foreign and never touched, whatever
its labels say. Differences are three-way: what was last applied (the record), what is desired, what the engine
reports.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

from agent.errors import Reason
from agent.model.identity import LABEL_NONCE, Key, in_words
from agent.model.observed import Observed, ObservedContainer, ObservedVolume, Record
from agent.model.quantities import is_later
from agent.model.resources import Container, Desired, Network, Volume, prerequisites_first
from agent.plan import operations as ops
from agent.plan.container.changes import OptionChange, network_changes
from agent.plan.container.difference import network_difference
from agent.plan.container.meaning import changed_fields, meaning_hash
from agent.plan.container.needs import joined_keys, settle
from agent.plan.container.plan import plan_container
from agent.plan.draft import Context, Draft, Missing, desired_spec
from agent.plan.records import is_alive
from agent.plan.router.bridges import obstacle
from agent.status.conditions import REASON_OF_HEALTH, REASON_OF_STATE

# The state of every container of ours as the engine reports it, whether or not anything can be planned for it.
#
# Invalid, waiting, backed-off and removed sections have containers too, which run or do not run.


def show_states(draft: Draft) -> None:
    """Notes `Running` and `Healthy` of every container that is declared or recorded."""
    recorded = {r.key: None for r in draft.context.records if r.kind == "container"}
    for key in dict.fromkeys([*draft.declared, *recorded]):
        _show(draft, key, draft.declared.get(key), _seen(draft, key))


def _seen(draft: Draft, key: str) -> ObservedContainer | None:
    """The container of a section. During a swap this is the one of the two that runs, whatever its Docker name."""
    section = Key.parse(key).section
    ids = [
        record.object_id
        for record in sorted(draft.context.records, key=lambda r: r.swap)
        if (record.kind, record.section) == ("container", section) and record.object_id
    ]
    there = [draft.containers_seen[object_id] for object_id in ids if object_id in draft.containers_seen]
    return next((seen for seen in there if is_alive(seen)), there[0] if there else None)


def _show(draft: Draft, key: str, container: Container | None, seen: ObservedContainer | None) -> None:
    if seen is None:
        enabled = container is None or container.policy.enabled
        draft.find(key, "Running", status=False, reason="Absent" if enabled else "Disabled")
        return
    running = seen.state == "running"
    reason: Reason = REASON_OF_STATE.get(seen.state, "Unknown")
    if seen.id in draft.context.completed:
        reason = "Completed"
    ended = seen.state in {"exited", "restarting", "dead"} and seen.last_exit_code is not None
    message = f"exited with {seen.last_exit_code}" if ended else ""
    if container is not None and not container.policy.should_run and reason in ("Created", "Exited"):
        # after a wanted stop, the exit code (137 after a kill) would look like a fault
        reason, message = "Stopped" if container.policy.enabled else "Disabled", ""
    draft.find(key, "Running", status=running, reason=reason, message=message, since=seen.since)
    if seen.health and running:
        draft.find(
            key,
            "Healthy",
            status=seen.health == "healthy",
            reason=REASON_OF_HEALTH.get(seen.health, "Unknown"),
        )


# Planning for objects whose section was removed: containers are stopped at once and deleted after the grace period.


_ORDER = {"container": 0, "network": 1, "volume": 2}


def plan_orphans(draft: Draft) -> None:
    """Plans for the records without a section."""
    desired = draft.desired
    known: set[str] = {Key("container", c.section) for c in desired.containers}
    known |= {Key("network", n.section) for n in desired.networks}
    known |= {Key("volume", v.section) for v in desired.volumes}
    known |= desired.broken
    for record in sorted(draft.context.records, key=lambda r: (_ORDER[r.kind], r.section)):
        key = record.key
        # objects left by a swap are finished or rolled back by the swap
        if key in known or record.swap or draft.must_skip(key, record):
            continue
        if Key(record.kind, record.name) in desired.claimed:
            message = f"section removed; a section with a mistake has its name {record.name}: kept until that is fixed"
            draft.find(key, "Synced", status=False, reason="Pending", message=message)
            continue
        draft.attempt(key, partial(_orphan, draft, key, record))


def _orphan(draft: Draft, key: str, record: Record) -> None:
    if _object_gone(draft, record):
        draft.add(key, [ops.Forget(key=key, cause="section and object were removed", record=record)])
        return
    if record.removed_at is None:
        draft.add(key, [ops.RetireContainer(key=key, cause="section removed", record=record)])
        return
    # a router without a battery-backed clock boots with a date in the past: then the time of the removal is useless
    then, now = record.removed_at, draft.context.now
    if not is_later(now, then):
        cause = "section removed, and the clock was set since: the grace period begins again"
        draft.add(key, [ops.RetireContainer(key=key, cause=cause, record=record)])
        return
    # The grace period must be over by the wall clock and, as long as we have been watching, by the monotonic clock: a
    # clock that jumps forward deletes nothing.
    watched_s = draft.context.orphaned_s.get(record.nonce, math.inf)
    if now < then + record.grace_s or watched_s < record.grace_s:
        message = f"section removed; the {record.kind} will be deleted {record.grace_s:.0f} s later"
        draft.find(key, "Synced", status=False, reason="Grace", message=message)
        return
    if draft.context.deletions_held:
        message = f"section removed; it will be deleted later: {draft.context.deletions_held}"
        draft.find(key, "Synced", status=False, reason="Pending", message=message)
        return
    cause = "section removed, and the grace period is over"
    operation: ops.Operation
    if record.kind == "container":
        operation = ops.RemoveContainer(key=key, cause=cause, record=record, volumes=record.remove_volumes)
    elif record.kind == "network":
        operation = ops.RemoveNetwork(key=key, cause=cause, record=record)
    elif draft.desired.agent.remove:
        operation = ops.RemoveVolume(key=key, cause=cause, record=record)
    else:
        operation = ops.Forget(
            key=key, cause="section removed; the volume is kept and no longer managed", record=record
        )
    # the engine does not remove a network or volume while a container uses it
    users = [k for k in draft.works if Key.parse(k).kind == "container"] if record.kind != "container" else ()
    draft.add(key, [operation], users)


def _object_gone(draft: Draft, record: Record) -> bool:
    if record.kind == "container":
        return all(c.id != record.object_id for c in draft.observed.containers)
    if record.kind == "network":
        return all(n.id != record.object_id for n in draft.observed.networks)
    return not any(is_same_volume(v, record) for v in draft.observed.volumes)


def reconcile(desired: Desired, observed: Observed, context: Context) -> ops.Plan:
    """The plan that makes `observed` match `desired`. Same input, same plan."""
    turns: dict[str, Missing] = {}
    left: dict[str, str] = {}
    # Which resource waits for which is only known after planning, and it changes the plan. So planning repeats until
    # nothing new appears. It ends, because every round adds a wait or gives up a resource.
    while True:
        draft = _draft(desired, observed, context, turns, left)
        found = settle(draft)
        if found.items() - turns.items():
            turns |= found
        elif found:  # the wait was already known and did not help: it is circular
            left |= {key: missing.reason for key, missing in found.items()}
        elif circle := _circle(draft.works):
            names = ", ".join(key.partition(":")[2] for key in sorted(circle))
            left |= dict.fromkeys(circle, f"{names} wait for each other; change one after the other")
        else:
            break
    return ops.Plan(
        works=tuple(draft.works.values()),
        findings=tuple(draft.findings),
        looked=frozenset(draft.looked),
        defects=tuple(draft.defects),
    )


def _circle(works: Mapping[str, ops.Work]) -> set[str]:
    """The works that wait for each other in a circle: none of them could ever begin."""
    waits = {key: (work.needs | work.after) & works.keys() for key, work in works.items()}
    # A work that needs nothing in the set, or that nothing in the set needs, is not part of a circle: remove such
    # works until none is left.
    while waits:
        needed = frozenset[str]().union(*waits.values())
        inside = {
            key: wanted & waits.keys()
            for key, wanted in waits.items()
            if wanted & waits.keys() and key in needed
        }
        if inside == waits:
            break
        waits = inside
    return set(waits)


def _draft(
    desired: Desired,
    observed: Observed,
    context: Context,
    turns: Mapping[str, Missing],
    left: Mapping[str, str],
) -> Draft:
    """A plan that does not yet order works that take names or ports from each other. `left`: key -> why nothing is
    planned for it."""
    draft = Draft(desired=desired, observed=observed, context=context, turns=turns, left=left)
    # Networks and volumes come before containers, and prerequisites before containers that need them: each step reads
    # what is already planned.
    draft.withheld = {key: f"{key.partition(':')[2]} has an error in its section" for key in desired.broken}
    for network in sorted(desired.networks, key=lambda item: item.section):
        draft.attempt(Key("network", network.section), partial(plan_network, draft, network))
    for volume in sorted(desired.volumes, key=lambda item: item.section):
        draft.attempt(Key("volume", volume.section), partial(plan_volume, draft, volume))
    containers: dict[str, Container] = {
        Key("container", c.section): c for c in sorted(desired.containers, key=lambda c: c.section)
    }
    needs: dict[str, set[str]] = {
        key: {Key("container", wanted.section) for wanted in c.policy.depends_on} | {*joined_keys(draft, c)}
        for key, c in containers.items()
    }
    for key in prerequisites_first(needs):
        draft.attempt(key, partial(plan_container, draft, containers[key]))
    plan_orphans(draft)
    show_states(draft)
    return draft


# Planning of networks and volumes. Docker cannot change either in place: a network is replaced, a volume is left
# alone.


def plan_network(draft: Draft, network: Network) -> None:
    """Plans to create, adopt or replace one network."""
    key, record = Key("network", network.section), draft.record("network", network.section)
    if draft.must_skip(key, record):
        _withhold(draft, key, is_there=any(n.name == network.name for n in draft.observed.networks))
        return
    if network.external:
        _join_network(draft, key, network, record)
        return
    # compare by id: a network with this name may have been created by someone else after ours was removed
    seen = next((n for n in draft.observed.networks if record and n.id == record.object_id), None)
    if record is None or seen is None:
        _absent_network(draft, key, network, gone=record is not None)
        return
    if _is_ambiguous(draft, key, network, object_id=seen.id):
        return
    if draft.is_as_recorded(record, network) and seen.name == network.name:
        draft.find(key, "Synced", status=True, reason="InSync")
        return
    same = record.failed_hash == draft.spec_hash_of(key, network)
    meant = meaning_hash("network", desired_spec(network)) if record.failed_hash else ""
    if same or (record.failed_hash and record.failed_meaning == meant):
        message = "the engine refused the change; tried again when its section changes, or on `reconcile`"
        draft.find_rolled_back(key, record, message)
        return
    if _is_hindered(draft, key, network, object_id=seen.id):
        draft.unchanged.add(key)
        return
    wanted = desired_spec(network)
    names = ", ".join(changed_fields("network", record.spec, wanted)) or "name"
    changes = network_changes(record.spec, wanted)
    _replace(draft, network, f"its settings changed: {names}", changes=changes)


def _join_network(draft: Draft, key: str, network: Network, record: Record | None) -> None:
    """Plans for a network that others manage (`external`): it is never changed. A network that was ours is released."""
    # `external` was added to a network of ours: others manage it from now on, so it must not be deleted with its
    # section.
    if record is not None:
        draft.add(key, [ops.Forget(key=key, cause="managed elsewhere (`external`)", record=record)])
    seen = next((n for n in draft.observed.networks if n.name == network.name), None)
    if seen is None:
        message = (
            f"no network named {network.name} exists: create it (`docker network create {network.name}`), "
            "or remove `option external` and ucidockd creates it"
        )
        draft.find(key, "Waiting", status=True, reason="Waiting", message=message)
        draft.find(key, "Synced", status=False, reason="Waiting", message=message)
        # The engine would refuse containers on this network, and every refusal would count as a failure and start a
        # back-off.
        draft.withheld[key] = f"no network named {network.name} exists"
        return
    draft.find(key, "Waiting", status=False, reason="Ready")
    if not _is_ambiguous(draft, key, network, object_id=seen.id):
        draft.find(key, "Synced", status=True, reason="InSync")


def _withhold(draft: Draft, key: str, *, is_there: bool) -> None:
    """Holds back resources that need this one if it could not be created, so that they do not fail as well."""
    if key in draft.context.backoff and not is_there:
        draft.withheld[key] = f"{in_words(key)} could not be created"


def _is_ambiguous(draft: Draft, key: str, network: Network, *, object_id: str) -> bool:
    """Whether several networks have this name. Engines before 25.0 allow that and then start no container on either, so
    leave both alone."""
    same = [n.id for n in draft.observed.networks if n.name == network.name and n.id != object_id]
    if same:
        message = (
            f"another network named {network.name} ({same[0][:12]}) exists: the engine finds neither by name"
        )
        draft.find(key, "Synced", status=False, reason="NameTaken", message=message)
        draft.withheld[key] = f"{in_words(key)} is in conflict"
    return bool(same)


def _is_hindered(draft: Draft, key: str, network: Network, *, object_id: str = "") -> bool:
    """Whether the network's subnet or bridge is already taken. An existing network then stays as it is."""
    found = obstacle(draft, network, object_id)
    if found is None:
        return False
    reason, message = found
    draft.find(key, "Synced", status=False, reason=reason, message=message)
    draft.withheld[key] = f"{in_words(key)} cannot be created: {message}"
    return True


def _replace(
    draft: Draft,
    network: Network,
    cause: str,
    before: tuple[ops.Operation, ...] = (),
    changes: tuple[OptionChange, ...] = (),
) -> None:
    key = Key("network", network.section)
    members = tuple(
        c for c in draft.desired.containers if network.name in {e.network for e in c.spec.endpoints}
    )
    replace = ops.ReplaceNetwork(key=key, cause=cause, changes=changes, network=network, members=members)
    draft.add(key, [*before, replace], [Key("container", member.section) for member in members])


def _absent_network(draft: Draft, key: str, network: Network, *, gone: bool) -> None:
    foreign = next((n for n in draft.observed.networks if n.name == network.name), None)
    # an existing network already has its subnet; only a new network can collide with something
    if foreign is None and _is_hindered(draft, key, network):
        return
    if foreign is None:
        cause = "removed from the engine" if gone else "it does not exist yet"
        draft.add(key, [ops.CreateNetwork(key=key, cause=cause, network=network)])
    elif network.adopt:
        cause = f"takes over the network {foreign.name} ({foreign.id[:12]})"
        adopt = ops.AdoptNetwork(key=key, cause=cause, network=network, foreign=foreign)
        differing = ", ".join(network_difference(network, foreign.inspect))
        if differing:
            _replace(draft, network, f"it differs from its section: {differing}", (adopt,))
        else:
            draft.add(key, [adopt])
    else:
        draft.conflict(key, f"a network named {network.name} exists, and ucidockd did not create it")


def plan_volume(draft: Draft, volume: Volume) -> None:
    """Plans to create or adopt one volume."""
    key, record = Key("volume", volume.section), draft.record("volume", volume.section)
    if draft.must_skip(key, record):
        _withhold(draft, key, is_there=any(v.name == volume.name for v in draft.observed.volumes))
        return
    seen = next((v for v in draft.observed.volumes if record and is_same_volume(v, record)), None)
    if record is None or seen is None:
        foreign = next((v for v in draft.observed.volumes if v.name == volume.name), None)
        if foreign is None:
            cause = "removed from the engine" if record is not None else "it does not exist yet"
            draft.add(key, [ops.CreateVolume(key=key, cause=cause, volume=volume)])
        elif volume.adopt:
            cause = f"takes over the volume {foreign.name}"
            draft.add(key, [ops.AdoptVolume(key=key, cause=cause, volume=volume, foreign=foreign)])
        else:
            draft.conflict(key, f"a volume named {volume.name} exists, and ucidockd did not create it")
        return
    same = draft.is_as_recorded(record, volume) and record.name == volume.name
    # replacing a volume would lose its data, so an existing volume is never touched
    message = "" if same else "a volume cannot change: copy its data to one with another name"
    draft.find(key, "Synced", status=same, reason="InSync" if same else "VolumeDiffers", message=message)
    if record.lost and not same:
        cause = "its section changed since its data was lost"
        draft.add(key, [ops.AcknowledgeLoss(key=key, cause=cause, record=record)])


def is_same_volume(seen: ObservedVolume, record: Record) -> bool:
    """Whether a volume is the one in our record. Volumes have no id: the nonce in its labels tells our volume from a
    volume that was removed and created again under the same name.

    The engine's CreatedAt is not reliable: up to 20.10 it is the time of the last change in the volume's top
    directory.
    """
    ours = record.adopted or seen.labels.get(LABEL_NONCE) == record.nonce
    return seen.name == record.name and ours
