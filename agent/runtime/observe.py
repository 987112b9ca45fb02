# SPDX-License-Identifier: GPL-2.0-or-later
"""Takes the snapshot that planning works on: one list call per kind in use, a deep look only where it is asked for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from agent.apply.ports import Engine
from agent.model.observed import Observed, ObservedContainer, Record
from agent.model.resources import Desired


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What the engine shows, and what foreign containers sit on names that we want.

    Networks and volumes are all in it, ours and foreign ones: they are few, and those that were adopted have none of
    our labels, since the labels of an object that exists cannot change.
    """

    observed: Observed
    foreign: dict[str, ObservedContainer] = field(default_factory=dict)


def observe(
    engine: Engine,
    desired: Desired,
    records: tuple[Record, ...],
    *,
    instance: str,
    deep: Collection[str] | None,
) -> Snapshot:
    """Reads the engine. `deep`: ids to inspect, None for all of ours. Raises EngineError."""
    kinds = {record.kind for record in records}
    containers: tuple[ObservedContainer, ...] = ()
    if desired.containers or "container" in kinds:
        containers = _containers(engine, records, instance)
    networks = engine.list_networks() if desired.networks or "network" in kinds else ()
    volumes = engine.list_volumes() if desired.volumes or "volume" in kinds else ()
    owned = {record.object_id for record in records}
    looked = tuple(
        _deepen(engine, c) if c.id in owned and (deep is None or c.id in deep) else c for c in containers
    )
    return Snapshot(
        observed=Observed(containers=looked, networks=networks, volumes=volumes),
        foreign=_foreign(engine, desired, looked, records),
    )


def _containers(engine: Engine, records: tuple[Record, ...], instance: str) -> tuple[ObservedContainer, ...]:
    seen = engine.list_containers(instance)
    recorded = {record.object_id for record in records if record.kind == "container"}
    if recorded and not recorded & {c.id for c in seen}:
        # an engine that is still loading answers with an empty list: everything gone at once is asked for twice
        engine.info()
        seen = engine.list_containers(instance)
    return seen


def _deepen(engine: Engine, container: ObservedContainer) -> ObservedContainer:
    full = engine.inspect_container(container.id)
    return container if full is None else replace(container, inspect=full.inspect)


def _foreign(
    engine: Engine, desired: Desired, seen: tuple[ObservedContainer, ...], records: tuple[Record, ...]
) -> dict[str, ObservedContainer]:
    present = {c.id for c in seen}
    held = {r.section for r in records if r.kind == "container" and r.object_id in present}
    found = ((c.name, engine.inspect_container(c.name)) for c in desired.containers if c.section not in held)
    return {name: item for name, item in found if item is not None and item.name == name}
