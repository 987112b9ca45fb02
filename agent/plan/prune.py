# SPDX-License-Identifier: GPL-2.0-or-later
"""Which images may go, and which stay and why.

An image stays while a section names it (a disabled, waiting or mistaken one too), a record of ours has it (what runs, what a
rollback would bring back) or any container was made of it. Times are unix seconds, sizes bytes.
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
    """What is to be pruned. `older_s`: images that nothing has needed for so long; `enough`: stop at so many bytes."""

    images: PruneImages
    older_s: float = 0.0
    build_cache: bool = False
    enough: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """`going`: in the order in which they can be removed. `kept`: with the reason for each."""

    going: tuple[ObservedImage, ...]
    kept: tuple[tuple[ObservedImage, str], ...]


def needed_images(desired: Desired, records: Iterable[Record]) -> dict[str, str]:
    """Image (a reference or an id) -> who needs it."""
    found: dict[str, str] = {}
    # of several reasons the plainest is told: what sections name, then what runs, then what is only remembered
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
    """Whether the engine's list says that `name`, a reference or an id, is this image."""
    return image.id == name or any(is_same_image(each, name) for each in (*image.tags, *image.digests))


def choose(
    images: Sequence[ObservedImage],
    *,
    needed: Mapping[str, str],
    used: Mapping[str, str],
    unused_since: Mapping[str, float],
    limits: PruneLimits,
    now: float,
) -> Choice:
    """`needed`: image id -> why it stays; `used`: image id -> a container of it; `unused_since`: image id -> when
    nothing needed it any more, as far as that is known."""
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
    # the engine refuses to remove an image that another one is built on
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
    return Choice(going=tuple(chosen), kept=kept)


def _depth(image: ObservedImage, known: Mapping[str, ObservedImage]) -> int:
    """How many images it is built on: what is built on others goes before them."""
    depth = 0
    while image.parent in known and depth < len(known):
        image, depth = known[image.parent], depth + 1
    return depth


def still_unused(
    known: Mapping[str, float], images: Iterable[ObservedImage], stays: Iterable[str], now: float
) -> dict[str, float]:
    """Image id -> since when nothing needs it, from what was `known` before. `stays`: ids of what something needs.

    What was noted in a future that a clock has left since counts from now.
    """
    needed = set(stays)
    return {image.id: min(known.get(image.id, now), now) for image in images if image.id not in needed}


def cache_of(entries: Iterable[Mapping[str, Any]], *, older: float) -> tuple[Mapping[str, Any], ...]:
    """What goes of the build cache (GET /system/df): not in use, not shared, and last used before `older`."""
    return tuple(
        entry
        for entry in entries
        if not entry.get("InUse")
        and not entry.get("Shared")
        and (moment(str(entry.get("LastUsedAt") or entry.get("CreatedAt") or "")) or 0.0) <= older
    )
