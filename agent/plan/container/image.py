# SPDX-License-Identifier: GPL-2.0-or-later
"""Which image a container is made of: the one that it runs, until its section names another or an update is wanted.

A tag that moves, by a pull or a `docker tag` of whomever, replaces nothing by itself. What a reference names now counts
when a container is made for the first time, when `image` or `platform` changes, and in an update: one that was asked for,
or one of `update auto` in its window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from agent.model.observed import ASKED_ROLLBACK, ASKED_UPDATE, ASKED_WITH_DATA, Record
from agent.model.quantities import clock_is_set, size_words
from agent.model.resources import Container, Pull, Update
from agent.model.updates import Available, Window, parse_image, short_digest
from agent.plan.container.meaning import is_same_image
from agent.plan.draft import Context

DEFAULT_WINDOW = Window(2 * 3600, 5 * 3600)
DEFAULT_AGE_S = 3 * 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """`keep`: the image to use while it is available, "" for what the reference names. `digest`: what to pull
    where that is not local. `fresh`: the registry is asked first. `why`: the cause, where this alone asks for a new
    container. `pin`: it stays on that image. `restores`: the key of the data that it gets back."""

    keep: str = ""
    digest: str = ""
    fresh: bool = False
    why: str = ""
    pin: bool = False
    restores: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Freed:
    """What `strategy free-first` is at, as a record keeps it. `image_id`, `digest`, `reference`: the image that went first.
    `keep`, `keep_digest`, `pin`: as of `Choice`. `goes_back`: the new one has failed."""

    image_id: str
    digest: str
    reference: str
    keep: str = ""
    keep_digest: str = ""
    pin: bool = False
    goes_back: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        """For the record."""
        flags = [name for name in ("pin", "goes_back") if getattr(self, name)]
        return (self.image_id, self.digest, self.reference, self.keep, self.keep_digest, *flags)

    @classmethod
    def of(cls, record: Record) -> Freed | None:
        """None where nothing is under way."""
        if len(record.freed) < 5:
            return None
        image_id, digest, reference, keep, keep_digest, *flags = record.freed
        return cls(
            image_id=image_id, digest=digest, reference=reference, keep=keep, keep_digest=keep_digest,
            pin="pin" in flags, goes_back="goes_back" in flags,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Newer:
    """What the reference names, and the container does not run. `image_id`: where it is local, else "". `since`: when a
    registry was first seen to have it, unix seconds; None where no check knows of it."""

    image_id: str
    digest: str
    since: float | None = None
    size: int | None = None  # bytes to download, where they are known

    @property
    def word(self) -> str:
        """Stands for it in records."""
        return self.digest or self.image_id

    @property
    def text(self) -> str:
        """For people."""
        size = f", {size_words(self.size)} to download" if self.size and not self.image_id else ""
        return f"{named(self.image_id, self.digest)} {'here' if self.image_id else 'in its registry'}{size}"


def named(image_id: str, digest: str) -> str:
    """An image as `docker images --digests` tells it: its short id, and the digest that a registry knows it by."""
    short = image_id.removeprefix("sha256:")[:12]
    if not digest:
        return short
    return f"{short} ({short_digest(digest)})" if short else short_digest(digest)


def split_word(word: str) -> tuple[str, str]:
    """Image id and digest (`repository@sha256:...`, "" where none is known) of one of `Record.previous`."""
    image_id, _, digest = word.partition("=")
    return image_id, digest


def digest_of(image_id: str, reference: str, digests: Mapping[str, tuple[str, ...]]) -> str:
    """By which a registry knows a local image under the repository of `reference`, "" where the engine tells none."""
    familiar = parse_image(reference).familiar
    known = digests.get(image_id, ())
    return next((d for d in known if parse_image(d.partition("@")[0]).familiar == familiar), "")


def keeps_image(container: Container, record: Record) -> bool:
    """Whether a container is to be made of the image of its record, as far as its section is concerned."""
    same = is_same_image(record.spec.get("image"), container.spec.image)
    return bool(record.image_id) and same and record.spec.get("platform") == container.spec.platform


def newer(
    container: Container,
    record: Record,
    image_ids: Mapping[str, str],
    digests: Mapping[str, tuple[str, ...]],
    offered: Available | None = None,
) -> Newer | None:
    """What the reference of a section names here, or in its registry by the last check (`offered`), and what its
    container was not made of."""
    reference = container.spec.image
    if "@" in reference or not keeps_image(container, record):
        return None
    local = image_ids.get(reference, "")
    found = None
    if local and local != record.image_id:
        found = Newer(image_id=local, digest=digest_of(local, reference, digests))
    if offered is None or offered.reference != reference:
        return found
    if found is not None and found.digest.endswith(offered.digest):
        return replace(found, since=offered.first_seen)
    return Newer(image_id="", digest=offered.digest, since=offered.first_seen, size=offered.size)


def is_tried(record: Record, found: Newer) -> bool:
    """Whether an update to that digest was rolled back."""
    return bool(record.failed_digest and found.digest) and found.digest.endswith(
        record.failed_digest.rpartition("@")[2]
    )


def choose(
    container: Container, record: Record, context: Context, found: Newer | None, *, tried: bool
) -> Choice:
    """`found`: what is newer; `tried`: whether an update to that was rolled back."""
    if record.asked == ASKED_WITH_DATA and len(record.saved) == 2:
        key, word = record.saved
        image_id, digest = split_word(word)
        why = f"asked for: back to image {named(image_id, digest)} and its data"
        return Choice(keep=image_id, digest=digest, why=why, pin=True, restores=key)
    if record.asked == ASKED_ROLLBACK and record.previous:
        image_id, digest = split_word(record.previous[0])
        why = f"asked for: back to image {named(image_id, digest)}"
        return Choice(keep=image_id, digest=digest, why=why, pin=True)
    if record.asked == ASKED_UPDATE:
        fresh = container.policy.pull is not Pull.NEVER
        return Choice(fresh=fresh, why=f"an update of {container.spec.image} was asked for")
    if not keeps_image(container, record):
        return Choice()
    if found is not None and not tried and is_due(container, record, found, context):
        fresh = container.policy.pull is not Pull.NEVER
        return Choice(
            fresh=fresh, why=f"image {container.spec.image} is now {found.text}, and `update` is auto"
        )
    return Choice(keep=record.image_id)


def is_due(container: Container, record: Record, found: Newer, context: Context) -> bool:
    """Whether `update auto` makes this update now."""
    if container.policy.update is not Update.AUTO or record.pinned:
        return False
    return not put_off(container, record, found, context)


def put_off(container: Container, record: Record, found: Newer, context: Context) -> str:
    """Until when `update auto` waits, for people; "" when it does not."""
    if not clock_is_set(context.now):
        return "once the clock is set"
    age_s = container.policy.update_age_s
    noted = record.newer_at if record.newer == found.word else None
    seen_at = min((at for at in (found.since, noted) if at is not None), default=context.now)
    left_s = min(seen_at, context.now) + (DEFAULT_AGE_S if age_s is None else age_s) - context.now
    if left_s > 0:
        return f"in {_span(left_s)} at the earliest (`update_age`)"
    window = container.policy.update_window or DEFAULT_WINDOW
    local = datetime.fromtimestamp(context.now)
    closed = window.wait_s(local.hour * 3600 + local.minute * 60 + local.second)
    return f"between {window}" if closed else ""


def _span(seconds: float) -> str:
    if seconds >= 86400:
        return f"{seconds / 86400:.0f} d"
    return f"{seconds / 3600:.0f} h" if seconds >= 5400 else f"{max(1, round(seconds / 60))} min"
