# SPDX-License-Identifier: GPL-2.0-or-later
"""Takes the snapshot that planning works on: one list call for each kind in use, and inspects only where requested.

`KnownImages`: which image a reference names, the image's defaults, and its repo digests.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agent.apply.images import look_at_image
from agent.apply.ports import Engine, Records, confirm_missing, noting_errors
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
    """What the engine reports, and the foreign containers with names that we want.

    It contains all networks and volumes, ours and foreign ones: they are few, and adopted ones do not have our
    labels, because labels of an existing object cannot change. `unseen`: key -> error, for objects that the engine
    cannot show; the error affects only these.
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
    """Observes the engine. `deep`: ids to inspect, None for all of ours. Raises EngineError."""
    # objects of a swap are left to the swap: adopted ones do not have our labels, retired ones are about to be
    # removed
    ids = {
        kind: {r.object_id for r in records if r.kind == kind and r.object_id and not r.swap}
        for kind in ("container", "network", "volume")
    }
    keys = {r.object_id: r.key for r in records if r.object_id}
    unseen: dict[str, str] = {}
    containers: tuple[ObservedContainer, ...] = ()
    networks: tuple[ObservedNetwork, ...] = ()
    volumes: tuple[ObservedVolume, ...] = ()
    # confirm missing objects by id: an engine that is still loading returns incomplete lists
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
            with noting_errors(keys[seen.id], unseen):
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
    """Like `confirm_missing`, but an object that the engine cannot show may exist, so its section is left alone."""

    def shown(object_id: str) -> object | None:
        with noting_errors(keys[object_id], unseen):
            return inspect(object_id)
        return None

    confirm_missing(missing, shown)


def _deepen(engine: Engine, container: ObservedContainer) -> ObservedContainer:
    """Adds an inspect to a listed container. The inspect is newer: before 25.0 the list may lag behind by about 100 ms."""
    full = engine.inspect_container(container.id)
    if full is None:
        return container
    # otherwise the list's words ("Exited (0) 2 hours ago") describe an older state
    same = (full.state, full.exit_code) == (container.state, container.exit_code)
    code = f" ({full.exit_code})" if full.exit_code is not None else ""
    # the list has the image name that the container was created from
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
    # on a first apply there are many, and none exist: a single call tells
    taken = engine.list_names() if len(odd) > 1 else frozenset(c.name for c in odd)
    ours = {r.object_id for r in records if r.kind == "container" and r.swap != "foreign"}
    found = {}
    # by name, because the list only contains containers with our label
    for container in (c for c in odd if c.name in taken):
        with noting_errors(Key("container", container.section), unseen):
            item = engine.inspect_container(container.name)
            own = item is None or item.id in ours or (container.section in held and item.id in names)
            if item is not None and item.name == container.name and not own:
                found[container.name] = item
    return found


# Which engine answers: another engine may answer on the same socket, and the earlier one may come back.


@dataclass(slots=True, kw_only=True)
class EngineRecords:
    """Finds out which engine answers, and selects its records. `mark`: our mark in the engine's data_root, "" if there
    is none."""

    engine: Engine
    records: Records
    mark: Callable[[], str] = lambda: ""
    _read_only: bool = False  # another process may be the agent
    _on: tuple[EngineIdentity, str] | None = None  # the engine of the last pass, and its mark
    _doubted: bool = False  # dockerd was restarted: the engine is asked again who it is

    def identify(self, *, thoroughly: bool) -> bool:
        """Identifies the engine and selects its records; True if it is another engine than before.

        `thoroughly`: check the records even if it is the same engine. Raises EngineError.
        """
        on = (self.engine.identity(fresh=self._doubted), self.mark())
        self._doubted = False
        if on == self._on and not thoroughly:
            return False
        everywhere = self.records.everywhere()
        # lists are only needed if a record does not belong to this engine: that is rare, and costs three calls
        tags = tags_of(everywhere, *on)
        strange = any(record.engine != tags.of(record.kind) for record in everywhere)
        found = claims(everywhere, tags, self._lists() if strange else Observed())
        other = on != self._on
        try:
            self.records.select_engine(tags, found, keep=not self._read_only)
            self._on = on
        except StorageError as exc:  # records without a tag are treated as this engine's anyway
            logger.warning("%s", exc)
            self.records.select_engine(tags, Claims(), keep=False)
            self._on = None
        if found.changed:
            logger.info("%d records belong to the engine that answers now", len(found.changed))
        return other

    def forbid_writes(self) -> None:
        """Forbids this process to write records, because another process may be the agent."""
        self._read_only = True

    def take_over(self) -> None:
        """Makes this process the agent: it holds the lock."""
        self._read_only = False

    def doubt(self) -> None:
        """dockerd was restarted: the next pass identifies the engine again."""
        self._doubted = True

    def is_another(self) -> bool:
        """Whether another engine has replaced it since the last pass. Raises EngineError."""
        on = self._on
        return on is not None and self.engine.identity(fresh=True) != on[0]

    def has_ours(self) -> bool:
        """Whether the engine that answers has containers of ours, regardless of its identity."""
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
    """Facts about local images. Dictionaries are replaced and never modified, because planning may read one while a pull
    ends in another thread."""

    engine: Engine
    ids: Mapping[str, str] = field(default_factory=dict)  # reference -> local id, "" = not present
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # image id -> defaults
    digests: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # image id -> repo digests

    def refresh(self, desired: Desired, records: Iterable[Record]) -> None:
        """Looks up the image of each section; if it is missing, also checks whether the recorded image id still exists.

        An image that the engine cannot show is left out: the container that needs it reports the error.
        """
        self.defaults, self.digests = {}, {}
        found = self._ids_of({container.spec.image for container in desired.containers})
        recorded = {
            r.image_id for r in records if r.image_id and not found.get(r.spec.get("image", ""), r.image_id)
        }
        self.ids = found | self._ids_of(recorded)

    def learn(self, desired: Desired) -> None:
        """Looks up the images that new sections name."""
        new = {container.spec.image for container in desired.containers} - self.ids.keys()
        if new:
            self.ids = {**self.ids, **self._ids_of(new)}

    def pulled(self, reference: str, image_id: str) -> None:
        """Notes the result of a pull; "" means that there is no image."""
        self.ids = {**self.ids, reference: image_id}
        if image_id and image_id not in self.defaults:
            with contextlib.suppress(EngineError):  # unknown defaults are not guessed
                self._id_of(image_id)

    def _ids_of(self, references: Iterable[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        unseen: dict[str, str] = {}
        for reference in sorted(references):
            with noting_errors(reference, unseen):
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

    def update_records(
        self, desired: Desired, records: Records, busy: Collection[str], *, now: float
    ) -> None:
        """Records since when a newer image for `update auto` is known, and the digest by which each image can be pulled
        again after its removal. Skips `busy` resources, because their operations write the record."""
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
                # a work may have dropped the record meanwhile; if storing fails, the next pass tries again
                with contextlib.suppress(KeyError, StorageError):
                    records.change(record.nonce, lasting="newer" in changes, **changes)
