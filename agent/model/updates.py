# SPDX-License-Identifier: GPL-2.0-or-later
"""Newer images: image names, comparing a registry's answer, when the next check is due, and whether a pull fits on the
disk.

`agent.runtime.update_checks` asks the registries. Times are unix seconds, sizes bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from agent.model.quantities import QuantityError

HUB = "docker.io"
DAY_S = 24 * 3600
_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)", re.ASCII)
_DAYS = {"daily": 1, "weekly": 7}  # intervals of scheduled work
_FIRST_S = 600.0  # without a window, an agent's first check is made within this time
_EARLIER = 0.1  # later checks are made early by up to this fraction of the interval
_TAIL_S = 600  # kept free at the end of a window, because schedules are only checked about every minute


class UpdateCheck(StrEnum):
    """`option update_check` of the agent: how often registries are asked."""

    OFF = "off"
    DAILY = "daily"
    WEEKLY = "weekly"


class UpdateState(StrEnum):
    """The result of the last check of a container's image."""

    CURRENT = "up-to-date"
    AVAILABLE = "update"
    UNKNOWN = "unknown"  # the running digest, or the registry's, cannot be determined
    FAILED = "failed"
    LIMITED = "rate-limited"


@dataclass(frozen=True, slots=True)
class UpdateWindow:
    """A daily time window, in seconds since midnight on the router's clock; it may extend past midnight."""

    begin_s: int
    end_s: int

    def __str__(self) -> str:
        return "-".join(f"{at // 3600:02}:{at // 60 % 60:02}" for at in (self.begin_s, self.end_s))

    @property
    def length_s(self) -> int:
        """Its length; a window that ends where it begins is a whole day."""
        return (self.end_s - self.begin_s) % DAY_S or DAY_S

    def wait_s(self, second_of_day: int) -> int:
        """Seconds until the window opens, 0 while it is open."""
        if (second_of_day - self.begin_s) % DAY_S < self.length_s:
            return 0
        return (self.begin_s - second_of_day) % DAY_S

    def due_in_s(self, days: int, *, last: float | None, now: float, second_of_day: int) -> float:
        """Seconds until work is due that is done every `days` days in this window; 0 if it is due now.

        The work is done once per opening: after work at the end of one opening, the next may follow at the start of
        the next one. `last`: when it was last done, unix seconds, None for never.
        """
        opened_at = now - (second_of_day - self.begin_s) % DAY_S
        # measured from openings instead of from `last`; otherwise the work would move a little later every day
        rest = opened_at - (days - 1) * DAY_S
        if last is None or last > now or last < rest:  # later than `now` means that the clock was set back
            return self.wait_s(second_of_day)
        return opened_at + ((last - rest) // DAY_S + 1) * DAY_S - now


WHOLE_DAY = UpdateWindow(0, 0)


def parse_window(text: str) -> UpdateWindow:
    """`02:00-05:00`, `23:30-01:00`. Raises QuantityError."""
    found = _WINDOW.fullmatch(text)
    form = "two times of day, such as 02:00-05:00"
    if found is None:
        raise QuantityError(f"{text!r} is not a window", form)
    hours = [int(part) for part in found.groups()]
    window = UpdateWindow((hours[0] * 60 + hours[1]) * 60, (hours[2] * 60 + hours[3]) * 60)
    if window.begin_s == window.end_s:
        raise QuantityError(f"the window {text} has no length", form)
    return window


@dataclass(frozen=True, slots=True)
class ImageName:
    """A complete image reference, expanded like dockerd does (distribution/reference)."""

    registry: str  # `docker.io`, `ghcr.io`, `192.168.1.2:5000`
    repository: str  # `library/nginx`
    tag: str = ""
    digest: str = ""

    @property
    def familiar(self) -> str:
        """The repository as the engine writes it in repo digests: `nginx`, `ghcr.io/owner/name`."""
        if self.registry != HUB:
            return f"{self.registry}/{self.repository}"
        return self.repository.removeprefix("library/")


def parse_image(reference: str) -> ImageName:
    """Parses any reference that `docker pull` accepts; without tag and digest the tag is `latest`."""
    name, _, digest = reference.partition("@")
    first, slash, rest = name.partition("/")
    # the first part is a registry only if it looks like a host (distribution/reference, normalize.go)
    if not slash or not ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        first, rest = HUB, name
    registry = HUB if first == "index.docker.io" else first
    path, colon, tag = rest.rpartition(":")
    repository, tag = (path, tag) if colon else (rest, "")
    if registry == HUB and "/" not in repository:
        repository = f"library/{repository}"
    return ImageName(registry, repository, tag or ("" if digest else "latest"), digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A registry's answer about a tag. `is_index`: the digest is that of an index (OCI) or manifest list (Docker), not
    of one platform's manifest. `members`: the digests in an index, if it had to be read."""

    digest: str
    is_index: bool
    members: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningImage:
    """The image of a running container, as the engine knows it.

    `digests`: all repo digests, `nginx@sha256:...`; empty if the image was built here, or if the engine lost them.
    `is_index`: whether they are digests of an index, None if the engine does not say.
    """

    image_id: str
    digests: tuple[str, ...] = ()
    is_index: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Available:
    """An image that the tag names in the registry and that the container does not run.

    `digest`: the registry's; `running`: those of the container's image in the same repository. `first_seen`: when
    this agent first saw the digest. `size`: download size, None if unknown.
    """

    reference: str
    digest: str
    running: tuple[str, ...]
    first_seen: float
    size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """The state of one container's image. `why`: for people, if the check was inconclusive, failed or was limited.

    `checked_at`: when the registry was last asked, None for never. `retry_at`: when a registry that was unreachable
    or limited requests is asked again.
    """

    reference: str
    state: UpdateState
    available: Available | None = None
    checked_at: float | None = None
    retry_at: float | None = None
    why: str = ""


def result_as_json(result: CheckResult) -> dict[str, Any]:
    """The form of status and `GET /v1/updates`."""
    shown = asdict(result)
    del shown["available"]
    found = result.available
    return {
        **shown,
        "digest": found.digest if found else "",
        "running": list(found.running) if found else [],
        "first_seen": found.first_seen if found else None,
        "size": found.size if found else None,
    }


def short_digest(digest: str) -> str:
    """`sha256:` and 12 digits, as in `docker images --digests`."""
    algorithm, colon, value = digest.rpartition("@")[2].partition(":")
    return f"{algorithm}{colon}{value[:12]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateVerdict:
    """`running`: the digests that were compared. `why`: for people, if the state is unknown."""

    state: UpdateState
    running: tuple[str, ...] = ()
    why: str = ""


def compare(reference: str, answer: Answer, running: RunningImage | None) -> UpdateVerdict:
    """Whether the registry's tag names another image than the running one. `running` None: the engine has lost it.

    The digest of an index cannot be compared with that of a platform's manifest; these are compared through the
    members of the index.
    """
    name = parse_image(reference)
    if running is None:
        return UpdateVerdict(state=UpdateState.UNKNOWN, why="the engine no longer has the image that runs")
    # in the containerd store an image id is a digest
    if running.image_id in (answer.digest, *answer.members):
        return UpdateVerdict(state=UpdateState.CURRENT, running=(running.image_id,))
    own = tuple(
        digest
        for repository, _, digest in (text.partition("@") for text in running.digests)
        if parse_image(repository).familiar == name.familiar
    )
    if not own:
        why = "the engine has no digest of the image that runs: it was built here, loaded, or its name was removed"
        if running.digests:
            why = f"the image that runs was pulled under another name, not from {name.familiar}"
        return UpdateVerdict(state=UpdateState.UNKNOWN, why=why)
    if answer.digest in own or set(answer.members) & set(own):
        return UpdateVerdict(state=UpdateState.CURRENT, running=own)
    if needs_members(answer, running):
        why = "the registry has an image for several platforms, the engine one of a single platform"
        return UpdateVerdict(state=UpdateState.UNKNOWN, running=own, why=why)
    return UpdateVerdict(state=UpdateState.AVAILABLE, running=own)


def needs_members(answer: Answer, running: RunningImage) -> bool:
    """Whether only the members of the registry's index can decide: the engine has the manifest of one platform."""
    return answer.is_index and running.is_index is False and not answer.members


def next_check_s(
    every: UpdateCheck,
    window: UpdateWindow | None,
    *,
    last: float | None,
    started: float,
    now: float,
    second_of_day: int,
    spread: float,
) -> float | None:
    """Seconds until the next check, 0 if it is due, None for never. `last`: unix seconds, None if no check is known
    since the agent `started`.

    `spread`, 0 to 1: this agent's position in the window, so that not all routers ask at the same time.
    """
    if every is UpdateCheck.OFF:
        return None
    if last is not None and last > now:  # the clock was set back
        last = None
    if window is None:
        interval = _DAYS[every] * DAY_S
        due = started + _FIRST_S * spread if last is None else last + interval * (1 - _EARLIER * spread)
        return min(max(0.0, due - now), interval)
    late = round(max(0, window.length_s - _TAIL_S) * spread)
    place = UpdateWindow((window.begin_s + late) % DAY_S, window.end_s)
    return place.due_in_s(_DAYS[every], last=last, now=now, second_of_day=second_of_day)


def is_due(
    period: str, window: UpdateWindow | None, *, last: float | None, now: float, second_of_day: int
) -> bool:
    """Whether a clean-up or backup is due. Without a window any time of the day will do.

    `period`: daily, weekly or off. `last`: when it was last done, None for never. `second_of_day`: local time.
    """
    days = _DAYS.get(period)
    place = window or WHOLE_DAY
    return days is not None and place.due_in_s(days, last=last, now=now, second_of_day=second_of_day) == 0


# Whether a pull fits on the disk. Registries report the compressed size of layers.

# space of a layer on the disk relative to its compressed size; gzip compresses programs by a factor of 2 to 2.8
UNPACKED = 2.5
RESERVE = 32 * 1024 * 1024  # bytes that a pull leaves free for dockerd's own files and containers' logs


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of an image. `digest` and `size` (bytes) of the compressed blob, `diff_id` of its content."""

    digest: str
    size: int
    diff_id: str = ""


def missing_layers(layers: Sequence[Layer], local: Iterable[Sequence[str]]) -> tuple[Layer, ...]:
    """The layers that a pull fetches. `local`: the diff ids of each local image, lowest first.

    An engine stores a layer on top of the layers below it, so it has a layer only if it has all of those.
    """
    images = list(local)
    for number, layer in enumerate(layers):
        images = [ids for ids in images if len(ids) > number and ids[number] == layer.diff_id]
        if not layer.diff_id or not images:
            return tuple(layers[number:])
    return ()


def needed_bytes(layers: Iterable[Layer]) -> int:
    """Peak disk space of a pull of these layers: compressed and unpacked data exist at the same time."""
    return round(sum(layer.size for layer in layers) * (1 + UNPACKED))
