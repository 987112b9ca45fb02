# SPDX-License-Identifier: GPL-2.0-or-later
"""Progress: what the engine says adds up, and what a hostile registry says does not mislead."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.status.progress import LAYERS_LIMIT, TEXT_LIMIT, Progress, clean


def step(
    status: str, layer: str = "", current: int | None = None, total: int | None = None
) -> dict[str, Any]:
    detail = {k: v for k, v in (("current", current), ("total", total)) if v is not None}
    return {"status": status, "progressDetail": detail, **({"id": layer} if layer else {})}


def test_a_pull_of_two_layers_adds_up() -> None:
    progress = Progress(unpacks=True)
    seen = []
    for line in (
        step("Pulling from library/app", "1.0"),
        step("Pulling fs layer", "aaa"),
        step("Pulling fs layer", "bbb"),
        step("Downloading", "aaa", 50, 100),
        step("Downloading", "bbb", 100, 300),
        step("Download complete", "aaa"),
        step("Extracting", "aaa", 100, 100),
        step("Pull complete", "aaa"),
        step("Downloading", "bbb", 300, 300),
        step("Extracting", "bbb", 150, 300),
        step("Pull complete", "bbb"),
        {"status": "Status: Downloaded newer image for app:1.0"},
    ):
        progress.feed(line)
        seen.append((progress.bytes_done, progress.bytes_total, progress.percent, progress.layers_done))
    assert seen == [
        (0, 0, None, 0),
        (0, 0, 0, 0),
        (0, 0, 0, 0),
        (50, 100, 12, 0),  # the other layer counts as one of the same size
        (150, 400, 18, 0),
        (200, 400, 25, 0),
        (200, 400, 37, 0),
        (200, 400, 37, 1),
        (400, 400, 62, 1),
        (400, 400, 81, 1),
        (400, 400, 99, 2),
        (400, 400, 99, 2),
    ]
    progress.succeed()
    assert progress.percent == 100
    assert progress.step == "Status: Downloaded newer image for app:1.0"


def test_an_upload_is_half_of_a_load() -> None:
    progress = Progress(uploads=True, upload_bytes=1000)
    progress.sent(500)
    assert (progress.bytes_done, progress.bytes_total, progress.percent) == (500, 1000, 25)
    progress.sent(500)
    progress.feed(step("Loading layer", "aaa", 30, 60))
    assert (progress.bytes_done, progress.bytes_total, progress.percent) == (1000, 1000, 75)


def test_a_builds_steps_are_its_percents() -> None:
    progress = Progress(unpacks=True)
    percents = []
    for text in ("Step 1/4 : FROM x", " ---> abc", "Step 2/4 : RUN y", "Step 4/4 : CMD z"):
        progress.feed({"stream": text + "\n"})
        percents.append(progress.percent)
    assert percents == [None, None, 25, 75]
    assert progress.step == "Step 4/4 : CMD z"


@pytest.mark.parametrize(
    ("current", "total"),
    [
        (-5, 100),
        (10, -1),
        (10, 0),
        ("7", "8"),
        (True, True),
        (1e9, 2e9),
        (2**80, 2**70),
        (500, 100),
        (None, []),
    ],
)
def test_numbers_that_cannot_be_do_no_harm(current: object, total: object) -> None:
    progress = Progress(unpacks=True)
    progress.feed(
        {"status": "Downloading", "id": "aaa", "progressDetail": {"current": current, "total": total}}
    )
    assert 0 <= progress.bytes_done <= progress.bytes_total <= 2**53 - 1
    assert progress.percent in range(100)


def test_ten_thousand_layers_do_not_grow_it() -> None:
    progress = Progress(unpacks=True)
    for number in range(10_000):
        progress.feed(step("Downloading", f"{number:064x}", number, 10_000))
    assert progress.as_json()["layers_total"] == LAYERS_LIMIT


def test_a_line_that_says_nothing_new_is_told_apart() -> None:
    progress = Progress(unpacks=True)
    assert progress.feed(step("Downloading", "aaa", 5, 10))
    assert not progress.feed(step("Downloading", "aaa", 5, 10))
    assert not progress.feed(step("Downloading", "aaa", 4, 10))
    assert progress.feed(step("Downloading", "aaa", 6, 10))


@pytest.mark.parametrize(
    ("given_text", "shown"),
    [
        ("plain", "plain"),
        ("a\x1b[31mred\x1b[0m b", "ared b"),
        ("\x1b]52;c;c2VjcmV0\x07x", "x"),
        ("\x1b]0;title\x1b\\x", "x"),
        ("lone \x1b", "lone"),
        ("two\r\nlines\n", "two  lines"),
        ("\u202eevil\u200b\x00\x9b31m", "evil31m"),
        ("\ud800x", "x"),
        (7, ""),
        ("x" * 5000, "x" * (TEXT_LIMIT - 3) + "..."),
    ],
)
def test_text_is_fit_for_eyes(given_text: object, shown: str) -> None:
    assert clean(given_text) == shown


_WORDS = st.text(
    alphabet="ab7 \x1b\u202e\n[;é", max_size=12
)  # a small alphabet: hypothesis' whole one is slow to load

_LINES = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(
            [
                "Downloading",
                "Extracting",
                "Pull complete",
                "Pushing",
                "Pushed",
                "Loading layer",
                "Waiting",
                "Hm",
            ]
        )
        | _WORDS,
        "stream": _WORDS | st.sampled_from(["Step 1/3 : A", "Step 3/3 : B", "Step 9/3 : C"]),
        "id": st.sampled_from(["a", "b", "c"]) | _WORDS | st.integers(),
        "progressDetail": st.none()
        | st.fixed_dictionaries(
            {},
            optional={
                "current": st.integers() | st.floats() | st.none(),
                "total": st.integers(min_value=-5, max_value=2**60) | _WORDS,
            },
        ),
        "error": _WORDS,
    },
)


@given(
    st.lists(_LINES | st.integers(min_value=0, max_value=2**40), max_size=60),
    st.booleans(),
    st.booleans(),
    st.integers(min_value=0, max_value=2**40),
)
def test_whatever_comes_nothing_goes_back_and_100_is_success_alone(
    feed: list[dict[str, Any] | int], unpacks: bool, uploads: bool, size: int
) -> None:
    progress = Progress(unpacks=unpacks, uploads=uploads, upload_bytes=size)
    before = progress.as_json()
    for item in feed:
        if isinstance(item, int):
            progress.sent(item)
        else:
            progress.feed(item)
        now = progress.as_json()
        for name in ("bytes_done", "bytes_total", "layers_done", "layers_total"):
            assert now[name] >= before[name]
        assert now["bytes_done"] <= now["bytes_total"]
        assert now["percent"] in (None, *range(100)) and (now["percent"] or 0) >= (before["percent"] or 0)
        assert len(now["step"]) <= TEXT_LIMIT + 20 and now["step"].isprintable()
        before = now
    progress.succeed()
    assert progress.percent == 100
