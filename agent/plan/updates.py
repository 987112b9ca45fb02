# SPDX-License-Identifier: GPL-2.0-or-later
"""Newer images, decided: whether a registry's answer is one, when the next check is due, and what fits on the disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agent.model.updates import WHOLE_DAY, Answer, RunningImage, UpdateCheck, UpdateState, Window, parse_image

DAY_S = 24 * 3600.0
_DAYS = {"daily": 1, "weekly": 7}  # of what is done on a schedule
_FIRST_S = 600.0  # a check of an agent that knows of none before comes within that, without a window
_EARLIER = 0.1  # and a later one up to that part of its interval early
_TAIL_S = 600  # of a window is left to each: it is looked at every minute or so


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
    place = Window((window.begin_s + late) % round(DAY_S), window.end_s)
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
