# SPDX-License-Identifier: GPL-2.0-or-later
"""What may be pruned, and when."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.observed import ObservedImage, Record
from agent.model.resources import Desired, PruneImages, PruneSettings, Threshold
from agent.model.updates import UpdateWindow, is_due, parse_window
from agent.plan.prune import PruneLimits, PruneSelection, choose, needed_images, still_unused
from agent.uci.decode import decode
from agent.uci.syntax import parse

DAY = 86400.0
NOW = 1_800_000_000.0
UNUSED = PruneLimits(images=PruneImages.UNUSED)
IDS = st.integers(0, 7)


def chosen(
    images: list[ObservedImage], limits: PruneLimits = UNUSED, **facts: dict[str, str]
) -> PruneSelection:
    known = {"needed": {}, "used": {}, **facts}
    return choose(images, **known, unused_since={}, limits=limits, now=NOW)  # type: ignore[arg-type]


def desired_of(text: str) -> Desired:
    return decode({"containers": parse(text, package="containers")}, paths={}).desired


def test_only_images_without_a_name_are_dangling() -> None:
    images = [
        ObservedImage(id="a", tags=("web:1",)),
        ObservedImage(id="b", digests=("web@sha256:1",)),
        ObservedImage(id="c"),
    ]
    found = chosen(images, PruneLimits(images=PruneImages.DANGLING))
    assert [image.id for image in found.going] == ["b", "c"]
    assert [(image.id, why) for image, why in found.kept] == [("a", "it has a name")]


def test_what_a_section_a_record_or_a_container_needs_stays() -> None:
    images = [ObservedImage(id=name, tags=(f"{name}:1",)) for name in "abcd"]
    found = chosen(images, needed={"a": "section a names it"}, used={"b": "other"})
    assert [image.id for image in found.going] == ["c", "d"]
    assert {image.id: why for image, why in found.kept} == {
        "a": "section a names it",
        "b": "container other uses it",
    }


def test_sections_that_are_disabled_waiting_or_wrong_need_their_image() -> None:
    found = needed_images(
        desired_of(
            "config container 'off'\n\toption image 'a:1'\n\toption enabled '0'\n"
            "config container 'waits'\n\toption image 'b:1'\n\tlist wait_for 'mount:/mnt/none'\n"
            "config container 'wrong'\n\toption image 'c:1'\n\toption memory 'lots'\n"
            "config container 'twice'\n\toption image 'd:1'\n\toption name 'x'\n"
            "config container 'again'\n\toption image 'e:1'\n\toption name 'x'\n"
        ),
        (),
    )
    assert found.keys() == {"a:1", "b:1", "c:1", "d:1", "e:1"}


def test_records_need_theirs_also_without_a_section() -> None:
    gone = Record(
        kind="container", section="web", nonce="n", name="web", image_id="sha256:1", spec={"image": "web:1"}
    )
    volume = replace(gone, kind="volume", image_id="sha256:2")
    back = replace(gone, previous=("sha256:3=web@sha256:4",), newer="sha256:5")
    assert needed_images(Desired(), (back,)).keys() == {"sha256:1", "web:1", "sha256:3", "sha256:5"}
    assert needed_images(Desired(), (gone, volume)).keys() == {"sha256:1", "web:1"}


def test_what_others_are_built_on_stays_with_them_and_goes_after_them() -> None:
    base, middle, top = (
        ObservedImage(id="base"),
        ObservedImage(id="middle", parent="base"),
        ObservedImage(id="top", parent="middle"),
    )
    assert [image.id for image in chosen([base, middle, top]).going] == ["top", "middle", "base"]
    found = chosen([base, middle, top], used={"top": "web"})
    assert not found.going
    assert {image.id: why for image, why in found.kept}["base"] == "top is built on it"


def test_age_counts_from_when_nothing_needed_it() -> None:
    images = [ObservedImage(id="old"), ObservedImage(id="new"), ObservedImage(id="unknown")]
    since = {"old": NOW - 8 * DAY, "new": NOW - 6 * DAY}
    limits = PruneLimits(images=PruneImages.UNUSED, older_s=7 * DAY)
    found = choose(images, needed={}, used={}, unused_since=since, limits=limits, now=NOW)
    assert [image.id for image in found.going] == ["old"]


def test_for_space_the_oldest_go_until_it_is_enough() -> None:
    images = [ObservedImage(id=name, size=100, shared=40) for name in "abc"]
    since = {"a": NOW - 1, "b": NOW - 3, "c": NOW - 2}
    limits = PruneLimits(images=PruneImages.UNUSED, enough=61)
    found = choose(images, needed={}, used={}, unused_since=since, limits=limits, now=NOW)
    assert [image.id for image in found.going] == ["b", "c"]


@given(st.dictionaries(IDS, IDS), st.sets(IDS), st.sets(IDS), st.sampled_from(PruneImages), st.sets(IDS))
def test_nothing_that_stays_loses_what_it_is_built_on(
    parents: dict[int, int], needed: set[int], used: set[int], mode: PruneImages, named: set[int]
) -> None:
    """Whatever the images are, even built on each other in a circle, which no engine has."""
    images = [
        ObservedImage(id=str(n), parent=str(parents.get(n, "")), tags=("x:1",) if n in named else ())
        for n in range(8)
    ]
    found = chosen(
        images,
        PruneLimits(images=mode),
        needed={str(n): "a section" for n in needed},
        used={str(n): "a container" for n in used},
    )
    going = {image.id for image in found.going}
    kept = {image.id for image, _ in found.kept}
    assert going | kept == {str(n) for n in range(8)}
    assert not going & kept
    assert not going & {str(n) for n in needed | used}
    assert all(image.parent not in going for image, _ in found.kept)
    if mode is PruneImages.OFF:
        assert not going


def test_since_when_nothing_needs_an_image() -> None:
    images = [ObservedImage(id="a"), ObservedImage(id="b"), ObservedImage(id="c")]
    found = still_unused({"a": 5.0, "b": 6.0, "gone": 7.0, "c": 99.0}, images, ["b"], 10.0)
    assert found == {"a": 5.0, "c": 10.0}
    assert still_unused(found, images, [], 20.0)["b"] == 20.0


WINDOW = parse_window("02:00-05:00")
HOUR = 3600


def due(
    hour: float, window: UpdateWindow | None = WINDOW, *, period: str = "daily", ago_h: float | None = None
) -> bool:
    last = None if ago_h is None else NOW - ago_h * HOUR
    return is_due(period, window, last=last, now=NOW, second_of_day=round(hour * HOUR))


def test_daily_is_once_in_each_window() -> None:
    assert due(2)
    assert not due(12)
    assert not due(4, ago_h=1.9)
    assert due(2.1, ago_h=21.2)
    assert due(4, ago_h=25)
    assert due(4, ago_h=-1000)  # the clock was set back
    assert not due(3, period="off")


def test_a_window_over_midnight_is_one_opening() -> None:
    late = parse_window("23:00-04:00")
    assert not due(1, late, ago_h=1.5)
    assert due(1, late, ago_h=2.5)


@given(st.integers(0, 3 * HOUR - 1), st.integers(0, 3 * HOUR - 1))
def test_weekly_is_on_the_seventh_day(then: int, now: int) -> None:
    found = [
        is_due("weekly", WINDOW, last=NOW, now=NOW + day * DAY + now - then, second_of_day=2 * HOUR + now)
        for day in range(1, 8)
    ]
    assert found == [False] * 6 + [True]


def test_without_a_window_it_is_once_a_day() -> None:
    assert due(0, None)
    assert not due(23, None, ago_h=22)
    assert due(1, None, ago_h=1.5)


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("", PruneSettings()),
        (
            "\toption prune_images 'unused'\n\toption prune_older '2w'\n",
            PruneSettings(images=PruneImages.UNUSED, older_s=14 * DAY),
        ),
        (
            "\toption prune_build_cache '1'\n\toption prune_older '0'\n",
            PruneSettings(build_cache=True, older_s=0),
        ),
        ("\toption prune_below '10%'\n", PruneSettings(below=Threshold(percent=10))),
        ("\toption prune_below '2g'\n", PruneSettings(below=Threshold(size=2 * 1024**3))),
        (
            "\toption prune_images 'dangling'\n\toption prune_window '02:00-05:00'\n\toption prune_schedule 'weekly'\n",
            PruneSettings(images=PruneImages.DANGLING, window=WINDOW, schedule="weekly"),
        ),
    ],
)
def test_options(text: str, settings: PruneSettings) -> None:
    found = decode({"containers": parse(f"config agent 'agent'\n{text}", package="containers")}, paths={})
    assert (found.desired.agent.prune, found.issues) == (settings, ())


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("prune_images", "all", "off, dangling, unused"),
        ("prune_older", "7", "7d"),
        ("prune_window", "2-5", "02:00-05:00"),
        ("prune_below", "0%", "500m"),
        ("prune_schedule", "hourly", "daily"),
    ],
)
def test_mistakes_say_what_to_write(option: str, value: str, expected: str) -> None:
    text = f"config agent 'agent'\n\toption prune_images 'unused'\n\toption {option} '{value}'\n"
    if option == "prune_images":
        text = f"config agent 'agent'\n\toption {option} '{value}'\n"
    (issue,) = decode({"containers": parse(text, package="containers")}, paths={}).issues
    assert (issue.option, issue.severity) == (option, "error")
    assert expected in issue.expected


def test_options_without_effect_are_told() -> None:
    text = "config agent 'agent'\n\toption prune_older '1d'\n"
    (issue,) = decode({"containers": parse(text, package="containers")}, paths={}).issues
    assert (issue.severity, issue.option) == ("warning", "prune_older")
