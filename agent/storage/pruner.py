# SPDX-License-Identifier: GPL-2.0-or-later
"""One clean-up: looks at the images and the build cache, and removes what may go. Volumes are never removed.

It is kept in a file since when nothing needs each unused image: the engine does not know. The file is written when that
changed, so at most once a clean-up.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.apply.ports import ImageEngine, Records, only
from agent.errors import EngineError, EngineUnreachableError
from agent.files.atomic import atomic_write
from agent.model.observed import ObservedImage
from agent.model.quantities import size_words
from agent.model.resources import Desired, PruneImages
from agent.plan.prune import PruneLimits, cache_of, choose, is_named, needed_images, still_unused

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneRequest:
    """`enough`: bytes that are lacking; images go, the longest unused first, until there are so many."""

    images: PruneImages
    older_s: float = 0.0
    build_cache: bool = False
    enough: int | None = None
    dry_run: bool = False


@dataclass(slots=True, kw_only=True)
class Pruner:
    """`desired` is asked again before each removal: a section may have come meanwhile."""

    engine: ImageEngine
    records: Records
    desired: Callable[[], Desired]
    memory: Path
    now: Callable[[], float]
    _named: dict[str, str] | None = None
    _ids: dict[str, str] = field(default_factory=dict)

    def run(self, request: PruneRequest) -> dict[str, Any]:
        """What goes, or went, with bytes and names, and what stays and why. Raises EngineError."""
        failed: dict[str, str] = {}
        images = self.engine.list_images()
        needed, used = self._needed(images), self.engine.list_image_users()
        choice = choose(
            images,
            needed=needed,
            used=used,
            unused_since=self._unused_since(images, {*needed, *used}, keep=not request.dry_run),
            limits=PruneLimits(images=request.images, older_s=request.older_s, enough=request.enough),
            now=self.now(),
        )
        cache: tuple[dict[str, Any], ...] = ()
        if request.build_cache:
            with only("build cache", failed):
                cache = self.engine.list_build_cache()
        old = cache_of(cache, older=self.now() - request.older_s)
        cache_bytes = sum(int(entry.get("Size") or 0) for entry in old)
        # a build leaves its steps as images without names, which go with what was built
        parents = {image.parent for image in images}
        removed: Sequence[ObservedImage] = choice.going
        if not request.dry_run:
            removed = self._remove(images, choice.going, failed)
            if old:
                try:
                    cache_bytes = self.engine.prune_build_cache(request.older_s)
                    logger.info("build cache: %s are removed", size_words(cache_bytes))
                except EngineUnreachableError:
                    raise
                except EngineError as exc:
                    cache_bytes, failed["build cache"] = 0, str(exc)
                    logger.warning("the build cache cannot be cleaned up: %s", exc)
        return {
            "dry_run": request.dry_run,
            "images": request.images.value,
            "older_s": request.older_s,
            "bytes": sum(image.own for image in removed) + cache_bytes,
            "going": [_shown(image) for image in removed if _is_told(image, parents)],
            "kept": [{**_shown(image), "why": why} for image, why in choice.kept if _is_told(image, parents)],
            "build_cache": {"bytes": cache_bytes, "entries": len(old)},
            "failed": [{"name": name, "error": why} for name, why in failed.items()],
        }

    def _needed(self, images: Iterable[ObservedImage]) -> dict[str, str]:
        """Image id -> why it stays. What the engine does not have is not there to be kept; what it has and cannot show
        stays by its name in the list."""
        named = needed_images(self.desired(), self.records.records())
        if named != self._named:  # it is asked for before each removal, and costs a call for each image
            found, unseen = dict[str, str](), dict[str, str]()
            for name, why in named.items():
                with only(name, unseen):
                    body = self.engine.inspect_image(name)
                    if body is not None:
                        found[str(body["Id"])] = why
            for name, trouble in unseen.items():
                logger.warning("image %s cannot be looked at, and is kept: %s", name, trouble)
                found |= {image.id: named[name] for image in images if is_named(image, name)}
            self._ids, self._named = found, named
        return self._ids

    def _remove(
        self, images: Iterable[ObservedImage], going: Iterable[ObservedImage], failed: dict[str, str]
    ) -> list[ObservedImage]:
        removed = []
        for image in going:
            try:
                # a section may have come, or a container been made, since the choice
                if image.id in self._needed(images) or image.id in self.engine.list_image_users():
                    continue
                # by its names first: the engine refuses to remove one by its id while it has several
                for name in (*image.tags, *image.digests, image.id):
                    self.engine.remove_image(name)
            except EngineUnreachableError:
                raise
            except EngineError as exc:
                failed[image.title] = str(exc)
                logger.warning("image %s cannot be removed: %s", image.title, exc)
            else:
                removed.append(image)
                logger.info("image %s is removed: nothing needs it (%s)", image.title, size_words(image.own))
        return removed

    def _unused_since(
        self, images: Iterable[ObservedImage], stays: Iterable[str], *, keep: bool
    ) -> Mapping[str, float]:
        known = self._remembered()
        found = still_unused(known, images, stays, self.now())
        if keep and found != known:
            with contextlib.suppress(OSError):  # a disk that is full is what one prunes for
                self.memory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                atomic_write(self.memory, json.dumps({"unused_since": found}).encode(), mode=0o600)
        return found

    def _remembered(self) -> dict[str, float]:
        """A file that is not as we wrote it counts as none: images only stay longer."""
        try:
            found = json.loads(self.memory.read_bytes())["unused_since"]
            return {str(name): float(at) for name, at in found.items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return {}


def _is_told(image: ObservedImage, parents: Collection[str]) -> bool:
    """Not the steps of a build, which come and go with what was built."""
    return bool(image.tags or image.digests) or image.id not in parents


def _shown(image: ObservedImage) -> dict[str, Any]:
    return {
        "id": image.id,
        "names": list(image.tags or image.digests),
        "bytes": image.own,
        "size": image.size,
    }
