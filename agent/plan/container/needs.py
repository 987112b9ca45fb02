# SPDX-License-Identifier: GPL-2.0-or-later
"""What a container needs before it can be changed, which of that is missing, and conflicts over exclusive resources.

Networks, volumes and other containers are planned before it: if one of them could not be planned, it is in
`Draft.withheld`.

Host ports, fixed addresses and MAC addresses are exclusive. A container that gives one up is handled before the
container that takes it. A container that wants something that another of ours keeps has to wait, and keeps running
with what it has. If works would wait for each other, one container is stopped first, which frees everything it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from agent.model.entries import addresses_meet
from agent.model.identity import SPEC_VERSION, Key, version_of
from agent.model.observed import Record
from agent.model.resources import DEFAULT_NETWORKS, Container, DependsOn
from agent.plan import operations as ops
from agent.plan.draft import Draft, Missing, desired_spec, lending_names
from agent.plan.records import as_applied, is_alive

# after these the container is as its section says
_OF_DESIRED = (ops.CreateContainer, ops.ReplaceContainer, ops.AdoptContainer, ops.ReconnectContainer)
_GIVES_ADDRESS = (ops.StartContainer, *_OF_DESIRED)  # in these the engine gives free addresses away
# after these it does not run
_ENDS = (ops.StopContainer, ops.RetireContainer, ops.RemoveContainer, ops.Forget)
_SWAPS = (ops.ReplaceContainer, ops.AdoptContainer)  # these end in the state that the section wants


def needs_of(draft: Draft, container: Container) -> tuple[str, ...]:
    """Keys of the resources that must be in place first, including those of broken sections."""
    needs: list[str] = [Key("container", wanted.section) for wanted in container.policy.depends_on]
    needs += joined_keys(draft, container)
    networks, volumes = draft.networks_declared, draft.volumes_declared
    needs += [Key("network", networks.get(e.network, e.network)) for e in container.spec.endpoints]
    sources = [m.source for m in container.spec.mounts if m.source and not m.is_bind]
    needs += [Key("volume", volumes.get(source, source)) for source in sources]
    return tuple(dict.fromkeys(needs))


def joined_keys(draft: Draft, container: Container) -> tuple[str, ...]:
    """Keys of the managed containers whose namespaces or volumes this container uses."""
    names = lending_names(container)
    if not names:
        return ()
    return tuple(Key("container", c.section) for c in draft.desired.containers if c.name in names)


def missing_of(
    draft: Draft, container: Container, record: Record | None, needs: tuple[str, ...]
) -> Missing | None:
    """What a container waits for now; None if nothing. `needs`: see `needs_of`."""
    key = Key("container", container.section)
    turn = draft.turns.get(key)
    # it has to stop so that another container can take what it holds; that overrides everything else
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
        # a prerequisite that runs, or completed its job, is sufficient, even if a change of it is held up
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
    """Whether the running container was applied without this need, and so can keep running without it."""
    # records of older versions do not store needs: treat every need as old
    if record is None or not record.waits_known:
        return False
    kind, _, section = key.partition(":")
    # a needed container is recorded by its section; needed networks and volumes follow from the applied spec
    if kind == "container":
        before = {text.split(":")[0].removeprefix("depends_on ") for text in record.waits}
        return section not in before and key not in joined_keys(draft, container)
    applied = as_applied(container, record)
    return applied is not None and key not in needs_of(draft, applied)


def _condition_met(draft: Draft, section: str, condition: DependsOn, *, planned: bool = True) -> bool:
    """Whether a prerequisite has reached its condition. With `planned` it is sufficient for STARTED that this plan
    starts it."""
    work = draft.works.get(Key("container", section))
    # a start in this plan is sufficient, because the work of the waiting container comes after it
    if condition is DependsOn.STARTED and planned and work is not None:
        return not any(isinstance(operation, ops.StopContainer) for operation in work.operations)
    seen = draft.container(section)
    if seen is None:
        return False
    if condition is DependsOn.HEALTHY:
        return seen.health == "healthy"
    # we remember that a container completed its job, because the engine forgets it on the next start
    completed = seen.id in draft.context.completed
    return completed or (condition is DependsOn.STARTED and seen.state == "running")


@dataclass(frozen=True, slots=True, order=True)
class Claim:
    """An exclusive resource. `value` is an address: the host address of a published port, or an address in a network."""

    kind: str
    place: str
    value: str

    def __str__(self) -> str:
        return f"{self.kind} {self.place}" if self.kind == "host port" else f"{self.kind} {self.value}"

    def meets(self, other: Claim) -> bool:
        """Whether two claims exclude each other."""
        if (self.kind, self.place) != (other.kind, other.place):
            return False
        return addresses_meet(self.value, other.value) if self.kind == "host port" else self == other


@dataclass(frozen=True, slots=True, kw_only=True)
class _ClaimChange:
    """The claims of one of our containers now, and after the plan is carried out."""

    before: frozenset[Claim]
    after: frozenset[Claim]


def settle(draft: Draft) -> dict[str, Missing]:
    """Orders the works on containers by the claims that they take and give up.

    Returns key -> why this container has to wait or stop, for conflicts that ordering cannot solve. The caller then
    adds them to `turns` and plans again.
    """
    working = [key for key in draft.works if Key.parse(key).kind == "container"]
    if not working:
        return {}
    # containers with work first, in plan order: if two take the same claim, the first one gets it
    recorded = sorted(r.key for r in draft.context.records if r.kind == "container")
    busy = sorted(draft.context.busy & draft.declared.keys())
    claim_changes = {key: _claim_change(draft, key) for key in dict.fromkeys([*working, *recorded, *busy])}
    given: dict[str, set[str]] = {}
    for taker, claim, holder in _taken(draft, claim_changes):
        if any(claim.meets(kept) for kept in claim_changes[holder].after):
            if holder not in draft.left and _gives_it_up_after(draft, holder, claim, taker):
                return {holder: Missing(reason=f"{claim} goes to {taker} first", stop=True)}
            return {taker: _later(draft, taker, f"{claim} is {holder}'s")}
        given.setdefault(taker, set()).add(holder)
        if _leads(draft, given, holder, taker):
            if holder not in draft.declared:
                # its section was removed, so it ends in any case: do not let it wait for the container that takes its
                # claim
                work = draft.works[holder]
                draft.works[holder] = replace(
                    work,
                    needs=frozenset(need for need in work.needs if not _leads(draft, given, need, taker)),
                    after=frozenset(need for need in work.after if not _leads(draft, given, need, taker)),
                )
                continue
            # a circle: stopping the holder frees its claims, so the others can begin
            return {holder: Missing(reason=f"{claim} goes to {taker} first", stop=True)}
    for taker, holders in given.items():
        work = draft.works[taker]
        draft.works[taker] = replace(work, needs=work.needs | holders)
    _fixed_addresses_first(draft, claim_changes)
    return {}


def _fixed_addresses_first(draft: Draft, claim_changes: Mapping[str, _ClaimChange]) -> None:
    """Makes containers with a fixed address start before containers on the same network that get any free address.

    This applies only to containers that can start soon: nobody waits for a pull or for a swap. If another container
    still gets the address first, it is moved later (`agent.apply.networks`).
    """
    image_ids = draft.context.image_ids
    fixed = [
        key
        for key, work in draft.works.items()
        if key in draft.declared
        and not any(isinstance(operation, _SWAPS) for operation in work.operations)
        and image_ids.get(draft.declared[key].spec.image)
    ]
    for key, work in list(draft.works.items()):
        if key not in draft.declared or not any(isinstance(o, _GIVES_ADDRESS) for o in work.operations):
            continue
        endpoints = draft.declared[key].spec.endpoints
        free = {(e.network, 4) for e in endpoints if not e.ip} | {
            (e.network, 6) for e in endpoints if not e.ip6
        }
        for other in fixed:
            taken = claim_changes[other].after - claim_changes[other].before if other != key else frozenset()
            given = (
                (claim.place, 6 if ":" in claim.value else 4) for claim in taken if claim.kind == "address"
            )
            # never add an order that contradicts an existing one: two works that wait for each other would both never
            # begin
            if free.intersection(given) and not _leads(draft, {}, other, key):
                draft.works[key] = replace(draft.works[key], after=draft.works[key].after | {other})


def claims(spec: Mapping[str, Any]) -> frozenset[Claim]:
    """The claims of a running container with this canonical spec."""
    found = [Claim("host port", f"{p['host_port']}/{p['protocol']}", p["host_ip"]) for p in _ports(spec)]
    for endpoint in spec.get("endpoints", ()):
        for kind, name in (("address", "ip"), ("address", "ip6"), ("MAC address", "mac_address")):
            if endpoint.get(name):
                found.append(Claim(kind, endpoint["network"], endpoint[name]))
    return frozenset(found)


def _ports(spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if (spec.get("network_mode") or "") in DEFAULT_NETWORKS:
        # for a range the engine chooses a free port
        yield from (p for p in spec.get("ports", ()) if p["host_port"] and not p.get("host_port_end"))


def _taken(draft: Draft, claim_changes: Mapping[str, _ClaimChange]) -> Iterator[tuple[str, Claim, str]]:
    """Each taker, the claim it takes, and the container that holds the claim or takes it earlier in the plan."""
    # Group by kind and place first: only equal ports or addresses can collide, and comparing all claims with each
    # other is slow.
    rivals: dict[tuple[str, str], list[str]] = {}
    for key, change in claim_changes.items():
        for kind_and_place in {(claim.kind, claim.place) for claim in change.before | change.after}:
            rivals.setdefault(kind_and_place, []).append(key)
    # in plan order: a container that comes earlier holds its new claims by the time later ones begin
    earlier: set[str] = set()
    for taker in (key for key in claim_changes if key in draft.works):
        for claim in sorted(claim_changes[taker].after - claim_changes[taker].before):
            for holder in rivals[claim.kind, claim.place]:
                change = claim_changes[holder]
                # containers that come later still hold only their present claims
                has = change.before | change.after if holder in earlier else change.before
                if holder != taker and any(claim.meets(other) for other in has):
                    yield taker, claim, holder
        earlier.add(taker)


def _later(draft: Draft, key: str, reason: str) -> Missing:
    """The taker waits. Its existing container may keep running, unless it already took another container's claim."""
    return Missing(reason=reason, keep=key not in draft.turns)


def _gives_it_up_after(draft: Draft, holder: str, claim: Claim, taker: str) -> bool:
    """Whether the holder keeps the claim only because its own change, which gives up the claim, waits for the taker."""
    # a circle through a dependency: the holder's change waits for the taker, and the taker waits for this claim
    turn, declared = draft.turns.get(holder), draft.declared.get(holder)
    waits = holder in draft.withheld and holder not in draft.unchanged and holder not in draft.context.waiting
    if declared is None or not waits or holder in draft.context.busy or (turn is not None and turn.stop):
        return False
    if any(claim.meets(other) for other in _declared(declared)):
        return False
    known = draft.declared
    return _reaches(holder, taker, lambda key: needs_of(draft, known[key]) if key in known else ())


def _leads(draft: Draft, given: Mapping[str, set[str]], start: str, end: str) -> bool:
    """Whether the work on `start` waits, directly or indirectly, for the work on `end`."""

    def waits_for(key: str) -> Iterable[str]:
        work = draft.works.get(key)
        return (*work.needs, *work.after, *given.get(key, ())) if work is not None else ()

    return _reaches(start, end, waits_for)


def _reaches(start: str, end: str, following: Callable[[str], Iterable[str]]) -> bool:
    todo, seen = [start], set()
    while todo:
        key = todo.pop()
        if key == end:
            return True
        if key not in seen:
            seen.add(key)
            todo += following(key)
    return False


def _claim_change(draft: Draft, key: str) -> _ClaimChange:
    record, declared = draft.record("container", Key.parse(key).section), draft.declared.get(key)
    held: frozenset[Claim] = frozenset()
    # this version cannot interpret the spec of a record that a later version wrote
    if record is not None and (not record.spec_hash or version_of(record.spec_hash) == SPEC_VERSION):
        held = claims(record.spec)
    if key in draft.context.busy:  # between its old and its new state
        both = held | _declared(declared)
        return _ClaimChange(before=both, after=both)
    seen = draft.containers_seen.get(record.object_id) if record is not None else None
    alive = seen is not None and is_alive(seen)
    before = held if alive else frozenset()
    work = draft.works.get(key)
    if work is None:
        return _ClaimChange(before=before, after=before)
    if not _runs_after(work, declared, alive=alive):
        return _ClaimChange(before=before, after=frozenset())
    is_declared = any(
        isinstance(operation, _OF_DESIRED) and not getattr(operation, "again", False)
        for operation in work.operations
    )
    return _ClaimChange(before=before, after=_declared(declared) if is_declared else held)


def _declared(container: Container | None) -> frozenset[Claim]:
    return claims(desired_spec(container)) if container is not None else frozenset()


def _runs_after(work: ops.Work, declared: Container | None, *, alive: bool) -> bool:
    def has(*kinds: type[ops.Operation]) -> bool:
        return any(isinstance(operation, kinds) for operation in work.operations)

    if has(*_ENDS):
        return False
    if has(*_SWAPS):
        policy = declared.policy if declared is not None else None
        # a swap ends with the new container in the state that its section wants
        return policy is not None and policy.should_run
    return alive or has(ops.StartContainer)
