# SPDX-License-Identifier: GPL-2.0-or-later
"""Decides which image a container is created from: the image that it already runs, until its section names another or an
update is wanted.

A tag that moves, by any pull or `docker tag`, causes no replacement by itself. The image that a reference names now
matters only when a container is first created, when `image` or `platform` changes, and in an update: one that a user
requested, or one of `update auto` in its window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from agent.model.identity import Key, spec_hash
from agent.model.observed import ASKED_ROLLBACK, ASKED_UPDATE, ASKED_WITH_DATA, Record
from agent.model.quantities import clock_is_set, size_words
from agent.model.resources import Container, Pull, Strategy, Update
from agent.model.updates import Available, UpdateWindow, parse_image, short_digest
from agent.plan.container.meaning import is_same_image, meaning_hash
from agent.plan.draft import Context, Draft, desired_spec, plugged_words

DEFAULT_WINDOW = UpdateWindow(2 * 3600, 5 * 3600)
DEFAULT_AGE_S = 3 * 86400.0  # how long a new image has to be known before it is taken
_OTHERS = 4  # images that a record remembers besides the last one


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageChoice:
    """The image to use for a container.

    `keep`: id of the image to use while it is available, "" for the image that the reference names. `digest`: what to
    pull if that image is not local. `fresh`: ask the registry first. `why`: the cause, if this choice alone requires
    a new container. `pin`: the container stays on that image. `restores`: the key of the saved data to restore.
    """

    keep: str = ""
    digest: str = ""
    fresh: bool = False
    why: str = ""
    pin: bool = False
    restores: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Freed:
    """Progress of a replacement with `strategy free-first`, as a record stores it.

    `image_id`, `digest`, `reference`: the image that was removed first. `keep`, `keep_digest`, `pin`: see `ImageChoice`.
    `goes_back`: the new image has failed, so the old one is being restored.
    """

    image_id: str
    digest: str
    reference: str
    keep: str = ""
    keep_digest: str = ""
    pin: bool = False
    goes_back: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        """The form that the record stores."""
        flags = [name for name in ("pin", "goes_back") if getattr(self, name)]
        return (self.image_id, self.digest, self.reference, self.keep, self.keep_digest, *flags)

    @classmethod
    def of(cls, record: Record) -> Freed | None:
        """The progress that a record stores, None if no such replacement is under way."""
        if len(record.freed) < 5:
            return None
        image_id, digest, reference, keep, keep_digest, *flags = record.freed
        return cls(
            image_id=image_id, digest=digest, reference=reference, keep=keep, keep_digest=keep_digest,
            pin="pin" in flags, goes_back="goes_back" in flags,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Newer:
    """An image that the reference names and that the container does not run.

    `image_id`: its id if it is local, else "". `since`: when a check first found it in the registry, unix seconds;
    None if no check has found it.
    """

    image_id: str
    digest: str
    since: float | None = None
    size: int | None = None  # bytes to download, None if unknown

    @property
    def word(self) -> str:
        """How records refer to it."""
        return self.digest or self.image_id

    @property
    def text(self) -> str:
        """The text for people."""
        size = f", {size_words(self.size)} to download" if self.size and not self.image_id else ""
        return f"{named(self.image_id, self.digest)} {'here' if self.image_id else 'in its registry'}{size}"


def named(image_id: str, digest: str) -> str:
    """An image as `docker images --digests` shows it: its short id and its digest in the registry."""
    short = image_id.removeprefix("sha256:")[:12]
    if not digest:
        return short
    return f"{short} ({short_digest(digest)})" if short else short_digest(digest)


def split_word(word: str) -> tuple[str, str]:
    """Image id and digest (`repository@sha256:...`, "" if unknown) of an entry of `Record.previous`."""
    image_id, _, digest = word.partition("=")
    return image_id, digest


def digest_of(image_id: str, reference: str, digests: Mapping[str, tuple[str, ...]]) -> str:
    """The digest of a local image in the repository of `reference`; "" if the engine does not report one."""
    known = digests.get(image_id, ())
    if not known:
        return ""
    familiar = parse_image(reference).familiar
    return next((d for d in known if parse_image(d.partition("@")[0]).familiar == familiar), "")


def keeps_image(container: Container, record: Record) -> bool:
    """Whether the container's section still asks for the image in its record."""
    same = is_same_image(record.spec.get("image"), container.spec.image)
    return bool(record.image_id) and same and record.spec.get("platform") == container.spec.platform


def newer(
    container: Container,
    record: Record,
    image_ids: Mapping[str, str],
    digests: Mapping[str, tuple[str, ...]],
    offered: Available | None = None,
) -> Newer | None:
    """The image that a section's reference names, locally or in the registry by the last check (`offered`), if the
    container was not created from it."""
    reference = container.spec.image
    # a reference with a digest always names the same image
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
    """Whether an update to this image was rolled back, by digest."""
    return bool(record.failed_digest and found.digest) and found.digest.endswith(
        record.failed_digest.rpartition("@")[2]
    )


def choose(
    container: Container, record: Record, context: Context, found: Newer | None, *, tried: bool
) -> ImageChoice:
    """Chooses the image. `found`: the newer image, if any; `tried`: whether an update to it was rolled back."""
    # priority: first what a user requested, then what the section says, then automatic updates
    if record.asked == ASKED_WITH_DATA and len(record.saved) == 2:
        key, word = record.saved
        image_id, digest = split_word(word)
        why = f"requested: back to image {named(image_id, digest)} and its data"
        return ImageChoice(keep=image_id, digest=digest, why=why, pin=True, restores=key)
    if record.asked == ASKED_ROLLBACK and record.previous:
        image_id, digest = split_word(record.previous[0])
        why = f"requested: back to image {named(image_id, digest)}"
        return ImageChoice(keep=image_id, digest=digest, why=why, pin=True)
    if record.asked == ASKED_UPDATE:
        fresh = container.policy.pull is not Pull.NEVER
        return ImageChoice(fresh=fresh, why=f"an update of {container.spec.image} was requested")
    if not keeps_image(container, record):
        return ImageChoice()
    if found is not None and not tried and is_due(container, record, found, context):
        fresh = container.policy.pull is not Pull.NEVER
        return ImageChoice(
            fresh=fresh, why=f"image {container.spec.image} is now {found.text}, and `update` is auto"
        )
    return ImageChoice(keep=record.image_id)


def is_due(container: Container, record: Record, found: Newer, context: Context) -> bool:
    """Whether `update auto` makes this update now."""
    if container.policy.update is not Update.AUTO or record.pinned:
        return False
    return not put_off(container, record, found, context)


def put_off(container: Container, record: Record, found: Newer, context: Context) -> str:
    """What `update auto` waits for, in words; "" if it does not wait."""
    # before the clock is set, every age would be wrong by decades
    if not clock_is_set(context.now):
        return "once the clock is set"
    age_s = container.policy.update_age_s
    # the noted time only counts if it was noted for this image
    noted = record.newer_at if record.newer == found.word else None
    # use the earliest sighting: if the registry was unreachable in between, the wait must not start again
    seen_at = min((at for at in (found.since, noted) if at is not None), default=context.now)
    # a time in the future comes from a wrong clock: treat it as now, or the update would never come
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


def attempt_of(container: Container, image_id: str) -> str:
    """Identifies what a swap tries: spec, image and devices. An attempt that was rolled back is not repeated."""
    return "@".join((spec_hash(desired_spec(container)), image_id, *plugged_words(container)))


def failure_of(container: Container, image_id: str, record: Record) -> dict[str, Any]:
    """What a record stores about an attempt that was rolled back; `record`: the record so far."""
    meaning = _meaning_of(container, image_id)
    # With `update auto` an edit that cannot be made is tried with the newer image and with the one before. Each must
    # remember the other, or both would be tried in turn for ever.
    earlier = (record.failed_meaning, *record.failed_others) if record.failed_hash else ()
    spec = meaning.partition("@")[0]
    others = tuple(word for word in earlier if word.partition("@")[0] == spec and word != meaning)
    return {
        "failed_hash": attempt_of(container, image_id),
        "failed_meaning": meaning,
        "failed_others": others[:_OTHERS],
    }


def _meaning_of(container: Container, image_id: str) -> str:
    """The same as `attempt_of` for every section that says the same in other words."""
    meant = meaning_hash("container", desired_spec(container))
    return "@".join((meant, image_id, *plugged_words(container)))


class ContainerImage:
    """The image of one container in a plan; `choice` says what to create it from."""

    def __init__(self, draft: Draft, container: Container, record: Record | None) -> None:
        self.choice = ImageChoice()
        self._draft, self._container, self._record = draft, container, record
        self._key = Key("container", container.section)
        self._newer: Newer | None = None  # the image that an update would bring
        self._is_tried = False
        if record is not None:
            context = draft.context
            offered = context.offered.get(self._key)
            found = newer(container, record, context.image_ids, context.image_digests, offered)
            self._newer = found
            # A failed update is not repeated automatically. Compare by digest and by image id, because the registry
            # may use another digest for the same image.
            self._is_tried = found is not None and (
                is_tried(record, found) or self._has_failed_with(record, found.image_id)
            )
            self.choice = choose(container, record, context, found, tried=self._is_tried)

    def tell(self) -> None:
        """Notes that the container was taken back to an older image, and that there is a newer image."""
        draft, record, found = self._draft, self._record, self._newer
        if record is None:
            return
        reference, context = self._container.spec.image, draft.context
        digest = record.digest or digest_of(record.image_id, reference, context.image_digests)
        runs = named(record.image_id, digest)
        if record.pinned:
            until = "until its section changes or `ucidockd update` is run"
            message = f"taken back to image {runs}, and stays on it {until}"
            draft.find(self._key, "Pinned", status=True, reason="Pinned", message=message)
        policy = self._container.policy.update or Update.NOTIFY
        if found is None or policy is Update.OFF:
            return
        message = f"{reference} is now {found.text}, the container runs {runs}"
        # do not automatically replace again what was rolled back, or what a user went back to
        if policy is Update.AUTO and not (record.pinned or self._is_tried):
            later = put_off(self._container, record, found, context)
            message += f"; updated {later}" if later else ""
        else:
            message += f"; `ucidockd update {self._container.section}` replaces it"
        draft.find(
            self._key, "UpdateAvailable", status=True, reason="NewerImage", message=message, since=found.since
        )

    def show(self) -> None:
        """Notes whether the engine has the image that the reference names."""
        draft, image = self._draft, self._container.spec.image
        local = draft.context.image_ids.get(image)
        if local:
            draft.find(self._key, "ImageReady", status=True, reason="Present")
        elif local is not None and (recorded := self._recorded()):
            short = recorded.removeprefix("sha256:")[:12]
            message = f"{image} is no longer local under this name; its image {short} is used"
            draft.find(self._key, "ImageReady", status=True, reason="Untagged", message=message)
        # in back-off, the failed pull has already said more
        elif local is not None and self._key not in draft.context.backoff:
            never = self._container.policy.pull is Pull.NEVER
            how = "`option pull never` forbids pulling it" if never else "it is pulled when it is needed"
            message = f"{image} is not there; {how}"
            draft.find(self._key, "ImageReady", status=False, reason="Missing", message=message)

    def has_failed(self, record: Record) -> bool:
        """Whether the attempt that would follow was rolled back before. A requested update is tried in any case."""
        local = self._draft.context.image_ids.get(self._container.spec.image, "")
        return not record.asked and self._has_failed_with(
            record, self.choice.keep or local or self._recorded()
        )

    def update_failed(self, record: Record) -> bool:
        """Whether an update to the image that the reference names now was tried and rolled back."""
        if self._newer is None and self._container.policy.strategy is Strategy.FREE_FIRST:
            # the failed image was removed again, so nothing local shows that there is a newer one
            meant = meaning_hash("container", desired_spec(self._container))
            return record.failed_meaning.partition("@")[0] == meant
        return self._is_tried

    def _has_failed_with(self, record: Record, image_id: str) -> bool:
        return bool(record.failed_hash) and (
            record.failed_hash == attempt_of(self._container, image_id)
            or _meaning_of(self._container, image_id) in (record.failed_meaning, *record.failed_others)
        )

    def _recorded(self) -> str:
        """The id of the recorded image, if the section still has the same reference and the image is still local; else
        ""."""
        record = self._record
        if record is None or not is_same_image(record.spec.get("image"), self._container.spec.image):
            return ""
        return self._draft.context.image_ids.get(record.image_id, "")
