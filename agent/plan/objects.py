# SPDX-License-Identifier: GPL-2.0-or-later
"""Planning networks and volumes. Neither can change in place: a network is replaced, a volume is left alone."""

from __future__ import annotations

from agent.model.identity import LABEL_NONCE
from agent.model.observed import ObservedVolume, Record
from agent.model.resources import Network, Volume
from agent.plan import operations as ops
from agent.plan.container.difference import network_difference
from agent.plan.container.meaning import changed_fields, meaning_hash
from agent.plan.draft import Draft, desired_spec, key_of
from agent.plan.router.subnets import obstacle
from agent.plan.written import OptionChange, network_changes


def plan_network(draft: Draft, network: Network) -> None:
    """Create, adopt or replace one network."""
    key, record = key_of("network", network.section), draft.record("network", network.section)
    if draft.hands_off(key, record):
        _withhold(draft, key, is_there=any(n.name == network.name for n in draft.observed.networks))
        return
    seen = next((n for n in draft.observed.networks if record and n.id == record.object_id), None)
    if record is None or seen is None:
        _absent_network(draft, key, network, gone=record is not None)
        return
    if _is_ambiguous(draft, key, network, object_id=seen.id):
        return
    if draft.is_as_recorded(record, network) and seen.name == network.name:
        draft.find(key, "Synced", status=True, reason="InSync")
        return
    if _failed_before(draft, record, network):
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


def _failed_before(draft: Draft, record: Record, network: Network) -> bool:
    same = record.failed_hash == draft.spec_hash_of(key_of("network", network.section), network)
    meant = bool(record.failed_hash) and record.failed_meaning == meaning_hash(
        "network", desired_spec(network)
    )
    return same or meant


def _withhold(draft: Draft, key: str, *, is_there: bool) -> None:
    """What could not be made keeps those that need it from failing too."""
    if key in draft.context.backoff and not is_there:
        draft.withheld[key] = f"{key} could not be made"


def _is_ambiguous(draft: Draft, key: str, network: Network, *, object_id: str) -> bool:
    """Before 25.0 the engine makes two networks of one name, and then starts no container on either: hands off them."""
    same = [n.id for n in draft.observed.networks if n.name == network.name and n.id != object_id]
    if same:
        message = (
            f"another network named {network.name} ({same[0][:12]}) exists: the engine finds neither by name"
        )
        draft.find(key, "Synced", status=False, reason="Conflict", message=message)
        draft.withheld[key] = f"{key} is in conflict"
    return bool(same)


def _is_hindered(draft: Draft, key: str, network: Network, *, object_id: str = "") -> bool:
    """Whether its subnet or its bridge is not to be had; what there is then stays as it is."""
    found = obstacle(draft, network, object_id)
    if found is None:
        return False
    reason, message = found
    draft.find(key, "Synced", status=False, reason=reason, message=message)
    draft.withheld[key] = f"{key} cannot be made: {message}"
    return True


def _replace(
    draft: Draft,
    network: Network,
    cause: str,
    before: tuple[ops.Operation, ...] = (),
    changes: tuple[OptionChange, ...] = (),
) -> None:
    key = key_of("network", network.section)
    members = tuple(
        c for c in draft.desired.containers if network.name in {e.network for e in c.spec.endpoints}
    )
    replace = ops.ReplaceNetwork(key=key, cause=cause, changes=changes, network=network, members=members)
    draft.add(key, [*before, replace], [key_of("container", member.section) for member in members])


def _absent_network(draft: Draft, key: str, network: Network, *, gone: bool) -> None:
    foreign = next((n for n in draft.observed.networks if n.name == network.name), None)
    if foreign is None and _is_hindered(draft, key, network):
        return
    if foreign is None:
        cause = "it is gone from the engine" if gone else "declared, not there"
        draft.add(key, [ops.CreateNetwork(key=key, cause=cause, network=network)])
    elif network.adopt:
        cause = f"takes over the network {foreign.name} ({foreign.id[:12]})"
        adopt = ops.AdoptNetwork(key=key, cause=cause, network=network, foreign=foreign)
        differing = ", ".join(network_difference(network, foreign.inspect))
        if differing:
            _replace(draft, network, f"it is not as declared: {differing}", (adopt,))
        else:
            draft.add(key, [adopt])
    else:
        draft.conflict(key, f"a network named {network.name} exists and is not ours")


def plan_volume(draft: Draft, volume: Volume) -> None:
    """Create or adopt one volume."""
    key, record = key_of("volume", volume.section), draft.record("volume", volume.section)
    if draft.hands_off(key, record):
        _withhold(draft, key, is_there=any(v.name == volume.name for v in draft.observed.volumes))
        return
    seen = next((v for v in draft.observed.volumes if record and is_same_volume(v, record)), None)
    if record is None or seen is None:
        _absent_volume(draft, key, volume, gone=record is not None)
        return
    same = draft.is_as_recorded(record, volume) and record.name == volume.name
    message = "" if same else "a volume cannot change: copy its data to one with another name"
    draft.find(key, "Synced", status=same, reason="InSync" if same else "VolumeDiffers", message=message)
    if record.lost and not same:
        cause = "its section changed since its data was lost"
        draft.add(key, [ops.AcknowledgeLoss(key=key, cause=cause, record=record)])


def is_same_volume(seen: ObservedVolume, record: Record) -> bool:
    """Volumes have no id: the nonce tells ours from one of its name that somebody removed and made again.

    The engine's CreatedAt does not: up to 20.10 it is the time of the last change in the volume's top directory.
    """
    ours = record.adopted or seen.labels.get(LABEL_NONCE) == record.nonce
    return seen.name == record.name and ours


def _absent_volume(draft: Draft, key: str, volume: Volume, *, gone: bool) -> None:
    foreign = next((v for v in draft.observed.volumes if v.name == volume.name), None)
    if foreign is None:
        cause = "it is gone from the engine" if gone else "declared, not there"
        draft.add(key, [ops.CreateVolume(key=key, cause=cause, volume=volume)])
    elif volume.adopt:
        cause = f"takes over the volume {foreign.name}"
        draft.add(key, [ops.AdoptVolume(key=key, cause=cause, volume=volume, foreign=foreign)])
    else:
        draft.conflict(key, f"a volume named {volume.name} exists and is not ours")
