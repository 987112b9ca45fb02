# SPDX-License-Identifier: GPL-2.0-or-later
"""Which records belong to the engine that answers.

Another `data_root`, another disk or another storage driver is another, empty engine, and the old one with its containers
may come back. So a record names the engine that its object is on, by a tag, and stays while another engine answers.

The tag is made of what the engine says about itself and of our mark on its disk (20.10 keeps its id outside of
`data_root`). Data that was moved has another tag and the same objects: their ids are the proof, and the records follow.
Containers are there for one storage driver only; networks and volumes for all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

from agent.model.identity import LABEL_NONCE
from agent.model.observed import EngineIdentity, Observed, Record

_KEPT_ENGINES = 4  # beside the present one: one that was emptied, or thrown away, does not come back


@dataclass(frozen=True, slots=True, kw_only=True)
class Tags:
    """The tags of records of the engine that answers: `<number>-<digest>`, later engines have higher numbers."""

    containers: str
    others: str  # networks and volumes

    def of(self, kind: str) -> str:
        """The tag of records of a kind."""
        return self.containers if kind == "container" else self.others

    def include(self, record: Record) -> bool:
        """Whether a record is of this engine, or may be: version 0.1.0 did not say."""
        return record.engine in {"", self.of(record.kind)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """Records to be changed because their objects were found here, and nonces of those to be dropped."""

    changed: tuple[Record, ...] = ()
    dropped: tuple[str, ...] = ()


def tags_of(records: Iterable[Record], identity: EngineIdentity, mark: str) -> Tags:
    """The tags of an engine; `mark`: what we left in its data root, "" where there is none."""
    used = {record.engine for record in records if record.engine}
    home = (identity.id, identity.root, mark)
    others = _tag(used, home)
    return Tags(containers=_tag(used | {others}, (*home, identity.driver)), others=others)


def _tag(used: set[str], words: tuple[str, ...]) -> str:
    digest = hashlib.sha256("\0".join(words).encode()).hexdigest()[:12]
    known = next((tag for tag in used if tag.partition("-")[2] == digest), None)
    return known or f"{max(map(_number, used), default=0) + 1}-{digest}"


def _number(tag: str) -> int:
    head = tag.partition("-")[0]
    return int(head) if head.isascii() and head.isdigit() else 0


def visible(records: Iterable[Record], tags: Tags) -> list[Record]:
    """The records of this engine. If a section has a record with its tag, a record without a tag is not used."""
    mine = [record for record in records if tags.include(record)]
    sure = {(r.kind, r.section) for r in mine if r.engine and not r.swap}
    return [r for r in mine if r.engine or r.swap or (r.kind, r.section) not in sure]


def is_known(records: Iterable[Record], observed: Observed) -> bool:
    """Whether an engine has what records name: a container, or where there is none, a network or volume of ours."""
    known = list(records)
    containers = [record for record in known if record.kind == "container"]
    return bool(_found(containers or known, observed))


def claims(records: Iterable[Record], tags: Tags, observed: Observed) -> Claims:
    """What has to change in the records, as the lists of the engine show whose objects it has."""
    known = list(records)
    here = _found(known, observed)
    comes = [r for r in known if r.nonce in here and r.engine != tags.of(r.kind)]
    changed = {r.nonce: replace(r, engine=tags.of(r.kind)) for r in comes}
    now = [changed.get(r.nonce, r) for r in known]
    # the records of engines that came long before this one go: thrown away, they do not come back
    others = sorted({record.engine for record in now if not tags.include(record)}, key=_number)
    old = set(others[: -2 * _KEPT_ENGINES])  # each engine has two tags
    dropped = _doubled(now, tags, here) | {record.nonce for record in now if record.engine in old}
    stay = tuple(record for nonce, record in changed.items() if nonce not in dropped)
    return Claims(changed=stay, dropped=tuple(sorted(dropped)))


def _found(records: Iterable[Record], observed: Observed) -> set[str]:
    """Nonces of the records whose objects are there. Names prove nothing."""
    containers = {c.id for c in observed.containers}
    networks = {n.id for n in observed.networks}
    volumes = {v.labels.get(LABEL_NONCE) for v in observed.volumes}
    return {
        r.nonce
        for r in records
        if (r.kind == "container" and r.object_id in containers)
        or (r.kind == "network" and r.object_id in networks)
        or (r.kind == "volume" and r.nonce in volumes)
    }


def _doubled(records: list[Record], tags: Tags, here: set[str]) -> set[str]:
    """Nonces of records whose section has another one on this engine: the one whose object is there stays."""
    chosen: dict[tuple[str, str], Record] = {}
    dropped: set[str] = set()
    for record in records:
        if record.swap or record.engine != tags.of(record.kind):
            continue
        other = chosen.setdefault((record.kind, record.section), record)
        if other is record:
            continue
        loser = other if record.nonce in here and other.nonce not in here else record
        chosen[record.kind, record.section] = record if loser is other else other
        dropped.add(loser.nonce)
    return dropped
