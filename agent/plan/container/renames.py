# SPDX-License-Identifier: GPL-2.0-or-later
"""Handles renamed sections: finds out which section an existing object belongs to now, so that the container keeps
running.

A section is identified by its name, an object by its Docker name. After a section was renamed, the record of the
object with its Docker name still names the old section, which no longer exists or now has another Docker name. Then
the record moves to the new section. If both the section's name and its Docker name changed, it counts as a new
section: nothing distinguishes it from an added one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from agent.model.identity import Key, spec_hash
from agent.model.observed import Record
from agent.model.resources import Container, Desired, Network, Volume
from agent.plan.container.meaning import meaning_hash
from agent.plan.draft import desired_spec

_Resource = Container | Network | Volume


def renamed(desired: Desired, records: Iterable[Record], busy: Collection[str] = ()) -> tuple[Record, ...]:
    """The records that belong to another section now, with that section. Keys in `busy` are left alone."""
    before = {record.nonce: record for record in records}
    now = dict(before)
    # A move can free a section for another record. A plan must not see half of them: each round moves one at least.
    for _ in before:
        found = _one_round(desired, now.values(), busy)
        if not found:
            break
        now |= {record.nonce: record for record in found}
    return tuple(record for nonce, record in now.items() if record.section != before[nonce].section)


def _one_round(desired: Desired, records: Iterable[Record], busy: Collection[str]) -> tuple[Record, ...]:
    known = tuple(records)
    groups: tuple[tuple[str, tuple[_Resource, ...]], ...] = (
        ("container", desired.containers),
        ("network", desired.networks),
        ("volume", desired.volumes),
    )
    found: list[Record] = []
    for kind, resources in groups:
        mine = [record for record in known if record.kind == kind]
        declared = {resource.section: resource for resource in resources}
        odd = [r for r in mine if r.section not in declared or declared[r.section].name != r.name]
        if odd:  # otherwise every record already belongs to its section
            found += _Moves(desired, kind, declared, mine, busy).find()
    return tuple(found)


@dataclass
class _Moves:
    desired: Desired
    kind: str
    declared: dict[str, _Resource]
    records: list[Record]
    busy: Collection[str]
    own: dict[str, Record] = field(init=False)  # by section
    named: dict[str, Record] = field(init=False)  # by Docker name
    unsettled: set[str] = field(init=False)  # sections whose records may still change

    def __post_init__(self) -> None:
        # in the middle of a swap or a create it is uncertain which object belongs to which section
        open_sections = {r.section for r in self.records if r.swap or not r.object_id}
        free = [
            r
            for r in self.records
            if r.section not in open_sections
            and self._key(r.section) not in self.busy
            and self._key(r.section) not in self.desired.broken
        ]
        self.own = {r.section: r for r in free}
        self.named = {r.name: r for r in free}
        self.unsettled = {r.section for r in self.records} - self.own.keys()

    def _key(self, section: str) -> str:
        return Key(self.kind, section)

    def _is_same(self, record: Record, section: str) -> bool:
        resource = self.declared[section]
        known = self.desired.spec_hashes.get(self._key(section))
        wanted = desired_spec(resource)
        if record.spec_hash == (known or spec_hash(wanted)):
            return True
        return meaning_hash(self.kind, record.spec) == meaning_hash(self.kind, wanted)

    def find(self) -> list[Record]:
        # dropping a move can invalidate another one, so repeat until all remaining moves are valid
        wanted = {s: r for s in self.declared if (r := self._wanted(s)) is not None}
        while bad := [s for s, record in wanted.items() if not self._may_take(s, record, wanted)]:
            for section in bad:
                del wanted[section]
        return [replace(record, section=section) for section, record in sorted(wanted.items())]

    def _wanted(self, section: str) -> Record | None:
        """The record with this section's Docker name, if another section has it and it fits better than the section's
        own record."""
        if section in self.unsettled or self._key(section) in self.busy:
            return None
        mine, found = self.own.get(section), self.named.get(self.declared[section].name)
        if found is None or found is mine or (mine is not None and mine.name == found.name):
            return None
        if mine is not None and (self._is_same(mine, section) or not self._is_same(found, section)):
            return None  # the same section with another Docker name
        return found

    def _may_take(self, section: str, record: Record, wanted: dict[str, Record]) -> bool:
        """Whether the move leaves no record without a section: another section takes this section's old record, and the
        former holder gets another record or was removed."""
        mine, holder = self.own.get(section), record.section
        if mine is not None and all(other is not mine for other in wanted.values()):
            return False
        if holder not in self.declared or holder in wanted:
            return True
        return self._is_same(record, section) and not self._is_same(record, holder)


# The temporary names of two containers during a swap (`agent.apply.swap`).
#
# They contain the nonce of the new container, so that no other container has such a name. Version 0.1.0 left out the
# nonce; those names are still recognized.


Role = Literal["old", "new"]
# a name during a swap, without or with a part of the nonce
_FORM = re.compile(r"(.+)\.ucidockd-(old|new)(?:-[0-9a-f]+)?")


def swap_name(name: str, role: Role, nonce: str) -> str:
    """The name of the new container before the switch, or of the old container after it."""
    return f"{name}.ucidockd-{role}-{nonce}"


def name_outside(name: str, role: Role) -> str:
    """The container's name outside of a swap; "" if this is not a temporary name of that role."""
    match = _FORM.fullmatch(name)
    return match[1] if match is not None and match[2] == role else ""
