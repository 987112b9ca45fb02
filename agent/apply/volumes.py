# SPDX-License-Identifier: GPL-2.0-or-later
"""The data of a container in volumes: which anonymous volumes the next container takes over, and what was lost.

A record names the anonymous volumes (`NAME=TARGET`). So their data is found again after someone else removed the
container, and deleted with the container if `remove_volumes` says so. To the engine a carried-over volume is a named
one, which it never deletes with a container.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from agent.apply.ports import Engine
from agent.errors import EngineError
from agent.model.observed import Record
from agent.model.resources import Container, Volume
from agent.plan.container.bodies import volume_words


@dataclass(frozen=True, slots=True, kw_only=True)
class Inheritance:
    """What a new container inherits.

    `carry`: target -> volume; `left`: volumes that are no longer mounted, in the form of records; `lost`: names of
    volumes, or targets of anonymous ones, that are recreated empty.
    """

    carry: Mapping[str, str] = field(default_factory=dict)
    left: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


def names(*noted: Iterable[str]) -> tuple[str, ...]:
    """The names of the volumes in fields of records."""
    return tuple(dict.fromkeys(word.partition("=")[0] for words in noted for word in words))


def of_record(record: Record) -> dict[str, str]:
    """Target -> anonymous volume, from a record."""
    pairs = (word.partition("=") for word in record.volumes)
    return {target: name for name, _, target in pairs}


def inherit(
    engine: Engine,
    container: Container,
    image_id: str,
    mounted: Mapping[str, str],
    *,
    left: Iterable[str] = (),
) -> Inheritance:
    """Carries over the volumes for which the new spec or image still has a target. `mounted`: target -> anonymous
    volume."""
    places = _places(engine, container, image_id, mounted)
    carry = {target: name for target, name in mounted.items() if target in places}
    unmounted = {target: name for target, name in mounted.items() if target not in places}
    # A volume without a target is not removed: it may be the only copy of someone's data. The record keeps its name.
    return Inheritance(carry=carry, left=tuple(dict.fromkeys((*left, *volume_words(unmounted)))))


def inherit_from_gone(
    engine: Engine, container: Container, image_id: str, record: Record, declared: Iterable[str]
) -> Inheritance:
    """The same for a container that no longer exists. `declared`: names of the volumes that have a section."""
    # the container cannot be inspected any more: only the record knows which volume was mounted where
    mounted = of_record(record)
    gone = {target: name for target, name in mounted.items() if engine.inspect_volume(name) is None}
    there = {target: name for target, name in mounted.items() if target not in gone}
    found = inherit(engine, container, image_id, there, left=record.left)
    before = {str(mount.get("source") or "") for mount in record.spec.get("mounts", ())}
    sources = {m.source for m in container.spec.mounts if m.source and not m.is_bind}
    # A volume with a section reports its loss in its own record; this covers volumes that only the container's
    # section names.
    others = sorted((sources & before) - set(declared))
    lost = [name for name in others if engine.inspect_volume(name) is None]
    places = _places(engine, container, image_id, gone)
    return Inheritance(
        carry=found.carry,
        left=found.left,
        lost=(*lost, *sorted(target for target in gone if target in places)),
    )


def check_there(engine: Engine, records: Iterable[Record], container: Container) -> None:
    """Raises EngineError where a volume with a section was removed since it was looked at: a pull takes minutes, and who
    makes room for it prunes."""
    # For the container the engine would make another one, without its options; not ours, so in conflict for ever.
    declared = {record.name for record in records if record.kind == "volume"}
    for mount in container.spec.mounts:
        if mount.source in declared and not mount.is_bind and engine.inspect_volume(mount.source) is None:
            raise EngineError(f"volume {mount.source} was removed outside of ucidockd", retryable=True)


def holds_data(volume: Volume) -> bool:
    """Whether the data is stored in the volume itself; with a device it is elsewhere (a disk, NFS, memory)."""
    return volume.spec.driver == "local" and "device" not in dict(volume.spec.options)


def _places(engine: Engine, container: Container, image_id: str, mounted: Mapping[str, str]) -> set[str]:
    """The targets in `mounted` at which the container will have an anonymous volume."""
    spec = container.spec
    places = {_path(mount.target) for mount in spec.mounts if not mount.source}
    taken = {_path(mount.target) for mount in spec.mounts if mount.source}
    taken |= {_path(entry.target) for entry in spec.tmpfs}
    # the image is asked only if the section does not settle it: most sections name every target
    if any(_path(target) not in places | taken for target in mounted):
        image = engine.inspect_image(image_id) or {}
        places |= {_path(target) for target in (image.get("Config") or {}).get("Volumes") or ()}
    return {target for target in mounted if _path(target) in places - taken}


def _path(target: str) -> str:
    return posixpath.normpath("/" + target.lstrip("/"))
