# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known of the engine's images: which one a reference names, what it sets by default, and its repo digests."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.apply.images import look_at_image
from agent.apply.ports import Engine, Records, only
from agent.errors import EngineError, StorageError
from agent.model.observed import Record
from agent.model.quantities import clock_is_set
from agent.model.resources import Desired, Update
from agent.plan.container.image import digest_of, keeps_image, newer
from agent.plan.container.meaning import image_defaults

logger = logging.getLogger(__name__)


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
