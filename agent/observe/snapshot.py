# SPDX-License-Identifier: GPL-2.0-or-later
"""Takes the snapshot that planning works on: one list call per kind in use, a deep look only where it is asked for.

`KnownImages`: which image a reference names, what it sets by default, and its repo digests.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agent.apply.images import look_at_image
from agent.apply.ports import Engine, Records, confirm, only
from agent.errors import EngineError, StorageError
from agent.model.identity import Key
from agent.model.observed import (
    EngineIdentity,
    Observed,
    ObservedContainer,
    ObservedNetwork,
    ObservedVolume,
    Record,
)
from agent.model.quantities import clock_is_set
from agent.model.resources import Desired, Update
from agent.plan.container.image import digest_of, keeps_image, newer
from agent.plan.container.meaning import image_defaults
from agent.plan.records import Claims, claims, is_known, tags_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What the engine shows, and what foreign containers sit on names that we want.

    Networks and volumes are all in it, ours and foreign ones: they are few, and those that were adopted have none of
    our labels, since the labels of an object that exists cannot change. `unseen`: keys of what the engine cannot show,
    and why: that costs only these.
    """

    observed: Observed
    foreign: dict[str, ObservedContainer] = field(default_factory=dict)
    unseen: dict[str, str] = field(default_factory=dict)


def observe(
    engine: Engine,
    desired: Desired,
    records: tuple[Record, ...],
    *,
    instance: str,
    deep: Collection[str] | None,
) -> Snapshot:
    """Reads the engine. `deep`: ids to inspect, None for all of ours. Raises EngineError."""
    # what a swap is about is left to the swap: what it adopts has none of our labels, what it retires goes away
    ids = {
        kind: {r.object_id for r in records if r.kind == kind and r.object_id and not r.swap}
        for kind in ("container", "network", "volume")
    }
    keys = {r.object_id: r.key for r in records if r.object_id}
    unseen: dict[str, str] = {}
    containers: tuple[ObservedContainer, ...] = ()
    networks: tuple[ObservedNetwork, ...] = ()
    volumes: tuple[ObservedVolume, ...] = ()
    # a list that misses what should be there is confirmed by id: an engine that is still loading lists too little
    if desired.containers or ids["container"]:
        containers = engine.list_containers(instance)
        _confirm(ids["container"] - {c.id for c in containers}, engine.inspect_container, keys, unseen)
    if desired.networks or ids["network"]:
        networks = engine.list_networks()
        _confirm(ids["network"] - {n.id for n in networks}, engine.inspect_network, keys, unseen)
    if desired.volumes or ids["volume"]:
        volumes = engine.list_volumes()
        _confirm(ids["volume"] - {v.name for v in volumes}, engine.inspect_volume, keys, unseen)
    looked = []
    for seen in containers:
        wanted = seen.id in ids["container"] and (deep is None or seen.id in deep)
        if wanted:
            with only(keys[seen.id], unseen):
                seen = _deepen(engine, seen)
        looked.append(seen)
    return Snapshot(
        observed=Observed(containers=tuple(looked), networks=networks, volumes=volumes),
        foreign=_foreign(engine, desired, looked, records, unseen),
        unseen=unseen,
    )


def _confirm(
    missing: set[str],
    inspect: Callable[[str], object | None],
    keys: Mapping[str, Key],
    unseen: dict[str, str],
) -> None:
    """As `confirm`; one that the engine cannot show may be there, so that its section is left alone."""

    def shown(object_id: str) -> object | None:
        with only(keys[object_id], unseen):
            return inspect(object_id)
        return None

    confirm(missing, shown)


def _deepen(engine: Engine, container: ObservedContainer) -> ObservedContainer:
    """What is inspected after the list was made is the fresher: before 25.0 the list may lag behind by some 100 ms."""
    full = engine.inspect_container(container.id)
    if full is None:
        return container
    # The list's words ("Exited (0) 2 hours ago") are about an older state otherwise.
    same = (full.state, full.exit_code) == (container.state, container.exit_code)
    code = f" ({full.exit_code})" if full.exit_code is not None else ""
    # The list shows the image by the name that the container was made of.
    return replace(
        full,
        image=container.image,
        health=full.health if full.state == "running" else "",
        status_text=container.status_text if same else f"{full.state.capitalize()}{code}",
    )


def _foreign(
    engine: Engine,
    desired: Desired,
    seen: Iterable[ObservedContainer],
    records: Iterable[Record],
    unseen: dict[str, str],
) -> dict[str, ObservedContainer]:
    names = {c.id: c.name for c in seen}
    held = {r.section: names[r.object_id] for r in records if r.kind == "container" and r.object_id in names}
    odd = [c for c in desired.containers if held.get(c.section) != c.name]
    # many at a first apply, and none of them there: one call tells
    taken = engine.list_names() if len(odd) > 1 else frozenset(c.name for c in odd)
    ours = {r.object_id for r in records if r.kind == "container" and r.swap != "foreign"}
    found = {}
    # asked for by name, as lists hold our label's containers only
    for container in (c for c in odd if c.name in taken):
        with only(Key("container", container.section), unseen):
            item = engine.inspect_container(container.name)
            own = item is None or item.id in ours or (container.section in held and item.id in names)
            if item is not None and item.name == container.name and not own:
                found[container.name] = item
    return found


# On which engine the agent stands: another one may answer on the same socket, and the one from before come back.


@dataclass(slots=True, kw_only=True)
class Standing:
    """`mark`: what we left in the engine's data root, "" where there is none."""

    engine: Engine
    records: Records
    mark: Callable[[], str] = lambda: ""
    _only_looks: bool = False
    _on: tuple[EngineIdentity, str] | None = None
    _doubted: bool = False

    def look(self, *, thoroughly: bool) -> bool:
        """Finds out which engine answers, and which records are its; True where that is another one than before.

        `thoroughly`: its lists are looked at even where it is the same. Raises EngineError.
        """
        on = (self.engine.identity(fresh=self._doubted), self.mark())
        self._doubted = False
        if on == self._on and not thoroughly:
            return False
        everywhere = self.records.everywhere()
        # the lists are looked at only where a record does not name this engine: that is rare, and costs three calls
        tags = tags_of(everywhere, *on)
        strange = any(record.engine != tags.of(record.kind) for record in everywhere)
        found = claims(everywhere, tags, self._lists() if strange else Observed())
        other = on != self._on
        try:
            self.records.stand_on(tags, found, keep=not self._only_looks)
            self._on = on
        except StorageError as exc:  # those without a tag are taken for this engine's all the same
            logger.warning("%s", exc)
            self.records.stand_on(tags, Claims(), keep=False)
            self._on = None
        if found.changed:
            logger.info("%d records belong to the engine that answers now", len(found.changed))
        return other

    def only_look(self) -> None:
        """This process may not write records: another one may be the agent."""
        self._only_looks = True

    def take_over(self) -> None:
        """This process is the agent from now on: it holds the lock."""
        self._only_looks = False

    def doubt(self) -> None:
        """dockerd was started again: the next look asks it who it is."""
        self._doubted = True

    def is_another(self) -> bool:
        """Whether another engine took its place since the last look, between two calls. Raises EngineError."""
        on = self._on
        return on is not None and self.engine.identity(fresh=True) != on[0]

    def has_ours(self) -> bool:
        """Whether the engine that answers has containers of ours, whatever it says of itself."""
        try:
            return is_known(self.records.everywhere(), self._lists())
        except EngineError:
            return False

    def _lists(self) -> Observed:
        return Observed(
            containers=self.engine.list_containers(self.records.instance),
            networks=self.engine.list_networks(),
            volumes=self.engine.list_volumes(),
        )


@dataclass(slots=True, kw_only=True)
class KnownImages:
    """Each dictionary is replaced and never changed: planning may work on one while a pull in another thread ends."""

    engine: Engine
    ids: Mapping[str, str] = field(default_factory=dict)  # reference -> local id, "" = not there
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # by the image's id
    digests: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # likewise

    def look(self, desired: Desired, records: Iterable[Record]) -> None:
        """Asks for the image of each section, then whether the recorded image is still there, under its id.

        An image that the engine cannot show is left out: the container that needs it says so.
        """
        self.defaults, self.digests = {}, {}
        found = self._ids_of({container.spec.image for container in desired.containers})
        recorded = {
            r.image_id for r in records if r.image_id and not found.get(r.spec.get("image", ""), r.image_id)
        }
        self.ids = found | self._ids_of(recorded)

    def pulled(self, reference: str, image_id: str) -> None:
        """A pull ended; with "" there is no image."""
        self.ids = {**self.ids, reference: image_id}
        if image_id and image_id not in self.defaults:
            with contextlib.suppress(EngineError):  # what is not known is not guessed
                self._id_of(image_id)

    def _ids_of(self, references: Iterable[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        unseen: dict[str, str] = {}
        for reference in sorted(references):
            with only(reference, unseen):
                found[reference] = self._id_of(reference)
        for why in unseen.values():
            logger.warning("%s", why)
        return found

    def _id_of(self, reference: str) -> str:
        body = look_at_image(self.engine, reference)
        if body is None:
            return ""
        found = str(body["Id"])
        self.defaults = {**self.defaults, found: image_defaults(body)}
        self.digests = {**self.digests, found: tuple(body.get("RepoDigests") or ())}
        return found

    def note(self, desired: Desired, records: Records, busy: Collection[str], *, now: float) -> None:
        """Records since when a newer image is known that `update auto` is to use, and the digest by which each image can
        be pulled again once it is gone. Not of `busy` resources: their operation writes the record."""
        declared = {c.section: c for c in desired.containers}
        for record in records.records():
            container = declared.get(record.section) if record.kind == "container" else None
            if container is None or record.swap or record.key in busy:
                continue
            changes: dict[str, Any] = {}
            found = newer(container, record, self.ids, self.digests)
            word = found.word if found is not None and container.policy.update is Update.AUTO else ""
            if word != record.newer and clock_is_set(now):
                changes = {"newer": word, "newer_at": now if word else None}
            if not record.digest and keeps_image(container, record):
                digest = digest_of(record.image_id, container.spec.image, self.digests)
                changes |= {"digest": digest} if digest else {}
            if changes:
                # a work that has begun may have dropped it; what cannot be written down is found again by the next pass
                with contextlib.suppress(KeyError, StorageError):
                    records.change(record.nonce, lasting="newer" in changes, **changes)
