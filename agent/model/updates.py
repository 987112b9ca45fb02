# SPDX-License-Identifier: GPL-2.0-or-later
"""Newer images: their names, whether a registry's answer is one, when the next check is due, and what fits on the disk.

`agent.runtime.update_checks` asks. Times are unix seconds, sizes bytes.
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
_DAYS = {"daily": 1, "weekly": 7}  # of what is done on a schedule
_FIRST_S = 600.0  # a check of an agent that knows of none before comes within that, without a window
_EARLIER = 0.1  # and a later one up to that part of its interval early
_TAIL_S = 600  # of a window is left to each: it is looked at every minute or so


class UpdateCheck(StrEnum):
    """`option update_check` of the agent: how often registries are asked."""

    OFF = "off"
    DAILY = "daily"
    WEEKLY = "weekly"


class UpdateState(StrEnum):
    """What the last check of a container's image found."""

    CURRENT = "up-to-date"
    AVAILABLE = "update"
    UNKNOWN = "unknown"  # which digest runs, or what the registry offers, cannot be told
    FAILED = "failed"
    LIMITED = "rate-limited"


@dataclass(frozen=True, slots=True)
class Window:
    """Times of day, in seconds since midnight on the router's clock; it may go past midnight."""

    begin_s: int
    end_s: int

    def __str__(self) -> str:
        return "-".join(f"{at // 3600:02}:{at // 60 % 60:02}" for at in (self.begin_s, self.end_s))

    @property
    def length_s(self) -> int:
        """How long it is; one that ends where it begins is a whole day."""
        return (self.end_s - self.begin_s) % DAY_S or DAY_S

    def wait_s(self, second_of_day: int) -> int:
        """Seconds until it opens, 0 while it is open."""
        if (second_of_day - self.begin_s) % DAY_S < self.length_s:
            return 0
        return (self.begin_s - second_of_day) % DAY_S

    def due_in_s(self, days: int, *, last: float | None, now: float, second_of_day: int) -> float:
        """Seconds until something is due that is done once in `days` days, in this window; 0 when it is due.

        It is done once in each opening: a job at the end of one may be followed by a job at the start of the next.
        `last`: when it was done, unix seconds, None for never.
        """
        opened_at = now - (second_of_day - self.begin_s) % DAY_S
        # measured from openings and not from `last`, lest each day's job be a little later than that of the day before
        rest = opened_at - (days - 1) * DAY_S
        if last is None or last > now or last < rest:  # after `now`: the clock was set back
            return self.wait_s(second_of_day)
        return opened_at + ((last - rest) // DAY_S + 1) * DAY_S - now


WHOLE_DAY = Window(0, 0)


def parse_window(text: str) -> Window:
    """`02:00-05:00`, `23:30-01:00`. Raises QuantityError."""
    found = _WINDOW.fullmatch(text)
    form = "two times of day, such as 02:00-05:00"
    if found is None:
        raise QuantityError(f"{text!r} is not a window", form)
    hours = [int(part) for part in found.groups()]
    window = Window((hours[0] * 60 + hours[1]) * 60, (hours[2] * 60 + hours[3]) * 60)
    if window.begin_s == window.end_s:
        raise QuantityError(f"the window {text} has no length", form)
    return window


@dataclass(frozen=True, slots=True)
class ImageName:
    """An image reference in full, as dockerd completes it (distribution/reference)."""

    registry: str  # `docker.io`, `ghcr.io`, `192.168.1.2:5000`
    repository: str  # `library/nginx`
    tag: str = ""
    digest: str = ""

    @property
    def familiar(self) -> str:
        """The repository as the engine shows it in repo digests: `nginx`, `ghcr.io/owner/name`."""
        if self.registry != HUB:
            return f"{self.registry}/{self.repository}"
        return self.repository.removeprefix("library/")


def parse_image(reference: str) -> ImageName:
    """Any reference that `docker pull` takes; a tag of `latest` where it gives neither tag nor digest."""
    name, _, digest = reference.partition("@")
    first, slash, rest = name.partition("/")
    # a registry is told from a part of the name by what only a host can have (distribution/reference, normalize.go)
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
    """What a registry said of a tag. `is_index`: the digest is that of an index (OCI) or manifest list (Docker), not of
    one platform's manifest. `members`: the digests of an index, where it had to be read.
    """

    digest: str
    is_index: bool
    members: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningImage:
    """The image that a container runs, as the engine knows it.

    `digests`: all repo digests, `nginx@sha256:...`. Empty where it was built here, or where the engine lost them.
    `is_index`: what these are digests of, None where the engine does not say.
    """

    image_id: str
    digests: tuple[str, ...] = ()
    is_index: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Available:
    """An image that the tag names in the registry, and that the container does not run.

    `digest` is the registry's, `running` are those of the same repository that the container's image has.
    `first_seen`: when this agent first saw that digest. `size`: what a pull downloads, None where that is not known.
    """

    reference: str
    digest: str
    running: tuple[str, ...]
    first_seen: float
    size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """The state of one container's image. `why`: for people, where it is unknown, failed or limited.

    `checked_at`: when its registry was last asked, None where never. `retry_at`: when a registry that has enough, or was
    away, is asked again.
    """

    reference: str
    state: UpdateState
    available: Available | None = None
    checked_at: float | None = None
    retry_at: float | None = None
    why: str = ""


def result_as_json(result: CheckResult) -> dict[str, Any]:
    """As status and `GET /v1/updates` show it."""
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
    """`sha256:` and 12 digits, as `docker images --digests` users know them."""
    algorithm, colon, value = digest.rpartition("@")[2].partition(":")
    return f"{algorithm}{colon}{value[:12]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`running`: the digests that were compared. `why`: for people, where the state is unknown."""

    state: UpdateState
    running: tuple[str, ...] = ()
    why: str = ""


def compare(reference: str, answer: Answer, running: RunningImage | None) -> Verdict:
    """Whether the registry's tag names another image than the one that runs. `running` None: the engine lost it.

    A digest of an index says nothing about one of a platform's manifest: those are compared only through the index's
    members.
    """
    name = parse_image(reference)
    if running is None:
        return Verdict(state=UpdateState.UNKNOWN, why="the engine no longer has the image that runs")
    if running.image_id in (answer.digest, *answer.members):  # in the containerd store an id is a digest
        return Verdict(state=UpdateState.CURRENT, running=(running.image_id,))
    own = tuple(
        digest
        for repository, _, digest in (text.partition("@") for text in running.digests)
        if parse_image(repository).familiar == name.familiar
    )
    if not own:
        why = "the engine has no digest of the image that runs: it was built here, loaded, or its name was removed"
        if running.digests:
            why = f"the image that runs was pulled under another name, not from {name.familiar}"
        return Verdict(state=UpdateState.UNKNOWN, why=why)
    if answer.digest in own or set(answer.members) & set(own):
        return Verdict(state=UpdateState.CURRENT, running=own)
    if needs_members(answer, running):
        why = "the registry has an image for several platforms, the engine one of a single platform"
        return Verdict(state=UpdateState.UNKNOWN, running=own, why=why)
    return Verdict(state=UpdateState.AVAILABLE, running=own)


def needs_members(answer: Answer, running: RunningImage) -> bool:
    """Whether only the members of the registry's index can tell: the engine runs one platform's manifest."""
    return answer.is_index and running.is_index is False and not answer.members


def next_check_s(
    every: UpdateCheck,
    window: Window | None,
    *,
    last: float | None,
    started: float,
    now: float,
    second_of_day: int,
    spread: float,
) -> float | None:
    """Seconds until the next check, 0 when it is due, None for never. `last`: unix seconds, None where none is known, as
    after the agent `started`.

    `spread`, 0 to 1, is this agent's own place: in the window, lest all routers ask at once.
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
    place = Window((window.begin_s + late) % DAY_S, window.end_s)
    return place.due_in_s(_DAYS[every], last=last, now=now, second_of_day=second_of_day)


def is_due(period: str, window: Window | None, *, last: float | None, now: float, second_of_day: int) -> bool:
    """Whether a clean-up or a backup is due. Without a window it may be made at any time of the day.

    `period`: daily, weekly or off. `last`: when it was done, None for never. `second_of_day`: local.
    """
    days = _DAYS.get(period)
    place = window or WHOLE_DAY
    return days is not None and place.due_in_s(days, last=last, now=now, second_of_day=second_of_day) == 0


# What fits on the disk. A registry tells the sizes of layers as they are sent, packed.

UNPACKED = 2.5  # times its packed size is what a layer takes on the disk; gzip of programs gives 2 to 2.8
RESERVE = 32 * 1024 * 1024  # bytes that a pull leaves free for dockerd's own files and the containers' logs


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of an image. `digest` of what is sent, `size` of that in bytes, `diff_id` of what is in it."""

    digest: str
    size: int
    diff_id: str = ""


def missing_layers(layers: Sequence[Layer], local: Iterable[Sequence[str]]) -> tuple[Layer, ...]:
    """Those that a pull fetches. `local`: the diff ids of each local image, lowest first.

    An engine keeps a layer on top of those below it: it is there only where they all are.
    """
    images = list(local)
    for number, layer in enumerate(layers):
        images = [ids for ids in images if len(ids) > number and ids[number] == layer.diff_id]
        if not layer.diff_id or not images:
            return tuple(layers[number:])
    return ()


def needed_bytes(layers: Iterable[Layer]) -> int:
    """What a pull of these takes at its peak: they are packed and unpacked on the disk at once."""
    return round(sum(layer.size for layer in layers) * (1 + UNPACKED))
