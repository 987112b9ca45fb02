# SPDX-License-Identifier: GPL-2.0-or-later
"""Decides which images can be removed, and says why each other image stays.

An image stays while a section names it (also a disabled, waiting or invalid section), a record of ours refers to it
(a running container, or a possible rollback) or any container uses it. Times are unix seconds, sizes bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.model.observed import ObservedImage, Record
from agent.model.resources import Desired, PruneImages
from agent.plan.container.image import split_word
from agent.plan.container.meaning import is_same_image
from agent.plan.records import moment


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneLimits:
    """What to prune. `older_s`: only images that have been unused for this many seconds; `enough`: stop after this many
    bytes."""

    images: PruneImages
    older_s: float = 0.0
    build_cache: bool = False
    enough: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneSelection:
    """`going`: images to remove, in an order in which the engine can remove them. `kept`: the other images, each with
    the reason."""

    going: tuple[ObservedImage, ...]
    kept: tuple[tuple[ObservedImage, str], ...]


def needed_images(desired: Desired, records: Iterable[Record]) -> dict[str, str]:
    """Image (a reference or an id) -> why it is needed."""
    found: dict[str, str] = {}
    # If there are several reasons, the most direct one is shown: named by a section, then used by a container, then
    # only kept for a rollback.
    for record in records:
        if record.kind != "container":
            continue
        section = record.section
        for word in record.previous:
            found.setdefault(split_word(word)[0], f"`ucidockd rollback {section}` needs it")
        if record.newer:
            found.setdefault(record.newer, f"section {section} is updated to it later")
        for image in (record.image_id, str(record.spec.get("image", ""))):
            if image:
                found[image] = f"section {section} uses it"
    for image, section in desired.images.items():
        found[image] = f"section {section} names it"
    for container in desired.containers:
        found[container.spec.image] = f"section {container.section} names it"
    return found


def is_named(image: ObservedImage, name: str) -> bool:
    """Whether `name`, a reference or an id, refers to this image according to the engine's list."""
    return image.id == name or any(is_same_image(each, name) for each in (*image.tags, *image.digests))


def choose(
    images: Sequence[ObservedImage],
    *,
    needed: Mapping[str, str],
    used: Mapping[str, str],
    unused_since: Mapping[str, float],
    limits: PruneLimits,
    now: float,
) -> PruneSelection:
    """Chooses the images to remove. `needed`: image id -> why it stays; `used`: image id -> a container of it;
    `unused_since`: image id -> since when nothing needs it, as far as known."""
    known = {image.id: image for image in images}
    stays: dict[str, str] = {}
    for image in images:
        if image.id in needed:
            stays[image.id] = needed[image.id]
        elif image.id in used:
            stays[image.id] = f"container {used[image.id]} uses it"
        elif limits.images is not PruneImages.UNUSED and (image.tags or limits.images is PruneImages.OFF):
            stays[image.id] = "it has a name"
        elif limits.older_s and now - unused_since.get(image.id, now) < limits.older_s:
            stays[image.id] = "it has not been unused for long enough"
    # the engine refuses to remove an image that another image is built on
    for image_id in tuple(stays):
        parent = known[image_id].parent
        while parent in known and parent not in stays:
            stays[parent] = f"{known[image_id].title} is built on it"
            parent = known[parent].parent
    going = sorted(
        (image for image in images if image.id not in stays),
        key=lambda image: (-_depth(image, known), unused_since.get(image.id, now), image.id),
    )
    chosen: list[ObservedImage] = []
    for image in going:
        if limits.enough is not None and sum(each.own for each in chosen) >= limits.enough:
            break
        chosen.append(image)
    kept = tuple((image, stays[image.id]) for image in images if image.id in stays)
    return PruneSelection(going=tuple(chosen), kept=kept)


def _depth(image: ObservedImage, known: Mapping[str, ObservedImage]) -> int:
    """How many images it is built on: an image must be removed before the images it is built on."""
    depth = 0
    while image.parent in known and depth < len(known):
        image, depth = known[image.parent], depth + 1
    return depth


def still_unused(
    known: Mapping[str, float], images: Iterable[ObservedImage], stays: Iterable[str], now: float
) -> dict[str, float]:
    """Image id -> since when nothing needs it, updated from `known`. `stays`: ids of images that something needs.

    A time in the future (noted before the clock was set back) counts as now.
    """
    needed = set(stays)
    return {image.id: min(known.get(image.id, now), now) for image in images if image.id not in needed}


def cache_of(entries: Iterable[Mapping[str, Any]], *, older: float) -> tuple[Mapping[str, Any], ...]:
    """The entries of the build cache (GET /system/df) to remove: not in use, not shared, last used before `older`."""
    return tuple(
        entry
        for entry in entries
        if not entry.get("InUse")
        and not entry.get("Shared")
        and (moment(str(entry.get("LastUsedAt") or entry.get("CreatedAt") or "")) or 0.0) <= older
    )
