# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a registry's answer is an update, when the next check is due, and what fits on the disk."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.quantities import QuantityError
from agent.model.updates import (
    DAY_S,
    Answer,
    ImageName,
    Layer,
    RunningImage,
    UpdateCheck,
    UpdateState,
    UpdateWindow,
    compare,
    missing_layers,
    needed_bytes,
    next_check_s,
    parse_image,
    parse_window,
)

OLD, NEW, OTHER = (f"sha256:{digit * 64}" for digit in "abc")
NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("reference", "name", "familiar"),
    [
        ("nginx", ImageName("docker.io", "library/nginx", "latest"), "nginx"),
        ("nginx:1.27", ImageName("docker.io", "library/nginx", "1.27"), "nginx"),
        ("docker.io/library/nginx", ImageName("docker.io", "library/nginx", "latest"), "nginx"),
        ("index.docker.io/a/b:c", ImageName("docker.io", "a/b", "c"), "a/b"),
        ("ghcr.io/a/b:c", ImageName("ghcr.io", "a/b", "c"), "ghcr.io/a/b"),
        ("localhost/b", ImageName("localhost", "b", "latest"), "localhost/b"),
        ("box:5000/a/b", ImageName("box:5000", "a/b", "latest"), "box:5000/a/b"),
        (f"box:5000/a:1@{OLD}", ImageName("box:5000", "a", "1", OLD), "box:5000/a"),
        (f"a/b@{OLD}", ImageName("docker.io", "a/b", "", OLD), "a/b"),
    ],
)
def test_an_image_reference_is_completed_as_dockerd_does(
    reference: str, name: ImageName, familiar: str
) -> None:
    assert parse_image(reference) == name
    assert parse_image(reference).familiar == familiar


def running(*digests: str, is_index: bool | None = None) -> RunningImage:
    return RunningImage(image_id="sha256:1", digests=digests, is_index=is_index)


@pytest.mark.parametrize(
    ("answer", "image", "state"),
    [
        (Answer(digest=NEW, is_index=True), running(f"nginx@{OLD}"), UpdateState.AVAILABLE),
        (Answer(digest=OLD, is_index=True), running(f"nginx@{OLD}"), UpdateState.CURRENT),
        # any of the digests will do, and only those of this repository
        (Answer(digest=OLD, is_index=True), running(f"nginx@{NEW}", f"nginx@{OLD}"), UpdateState.CURRENT),
        (Answer(digest=OLD, is_index=True), running(f"docker.io/library/nginx@{OLD}"), UpdateState.CURRENT),
        (
            Answer(digest=NEW, is_index=True),
            running(f"nginx@{OLD}", f"box:5000/nginx@{NEW}"),
            UpdateState.AVAILABLE,
        ),
        (Answer(digest=NEW, is_index=True), running(f"box:5000/nginx@{OLD}"), UpdateState.UNKNOWN),
        (Answer(digest=NEW, is_index=True), running(), UpdateState.UNKNOWN),
        (Answer(digest=NEW, is_index=True), None, UpdateState.UNKNOWN),
        # an index is not a platform's manifest
        (Answer(digest=NEW, is_index=True), running(f"nginx@{OLD}", is_index=False), UpdateState.UNKNOWN),
        (
            Answer(digest=NEW, is_index=True, members=(OTHER, OLD)),
            running(f"nginx@{OLD}", is_index=False),
            UpdateState.CURRENT,
        ),
        (
            Answer(digest=NEW, is_index=True, members=(OTHER,)),
            running(f"nginx@{OLD}", is_index=False),
            UpdateState.AVAILABLE,
        ),
        (Answer(digest=NEW, is_index=False), running(f"nginx@{OLD}", is_index=False), UpdateState.AVAILABLE),
        (Answer(digest=NEW, is_index=False), running(f"nginx@{OLD}", is_index=True), UpdateState.AVAILABLE),
    ],
)
def test_only_a_digest_of_the_same_repository_and_kind_tells_of_an_update(
    answer: Answer, image: RunningImage | None, state: UpdateState
) -> None:
    assert compare("nginx", answer, image).state is state


def test_a_window_is_two_times_of_day_and_may_go_past_midnight() -> None:
    night = parse_window("23:00-01:00")
    assert night == UpdateWindow(23 * 3600, 3600)
    assert night.length_s == 7200
    assert [night.wait_s(hour * 3600) for hour in (22, 23, 0, 1)] == [3600, 0, 0, 22 * 3600]
    for text in ("2:00-05:00", "02:00", "02:00-24:00", "02:00-02:00", "02:00-05:00 ", "٠٢:00-05:00"):
        with pytest.raises(QuantityError):
            parse_window(text)


TIMES = st.integers(0, 24 * 3600 - 1)


@given(
    every=st.sampled_from([UpdateCheck.DAILY, UpdateCheck.WEEKLY]),
    begin=TIMES,
    length=st.integers(60, 24 * 3600 - 60),
    last=st.none() | st.floats(0, 10 * DAY_S),
    second=TIMES,
    spread=st.floats(0, 1),
)
def test_a_check_is_made_in_its_window_and_once_in_each_opening(
    every: UpdateCheck, begin: int, length: int, last: float | None, second: int, spread: float
) -> None:
    window = UpdateWindow(begin, (begin + length) % (24 * 3600))
    before = None if last is None else NOW - last
    wait = next_check_s(every, window, last=before, started=NOW, now=NOW, second_of_day=second, spread=spread)
    assert wait is not None
    assert wait >= 0
    assert window.wait_s(round(second + wait) % (24 * 3600)) in (0, 1)
    interval = DAY_S if every is UpdateCheck.DAILY else 7 * DAY_S
    if last is not None:
        assert (
            last + wait >= interval - DAY_S
        )  # one made by hand just before the window opens does not count as its own
    assert wait <= interval + DAY_S


@pytest.mark.parametrize("spread", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("every", "days"), [(UpdateCheck.DAILY, 1), (UpdateCheck.WEEKLY, 7)])
@pytest.mark.parametrize(
    "window", [None, UpdateWindow(2 * 3600, 5 * 3600), UpdateWindow(22 * 3600, 3600), UpdateWindow(0, 300)]
)
def test_who_looks_every_few_minutes_finds_it_due_once_in_each_period(
    window: UpdateWindow | None, every: UpdateCheck, days: int, spread: float
) -> None:
    made: list[float] = []
    for minute in range(0, 22 * 24 * 60, 5):
        now = NOW + minute * 60
        wait = next_check_s(
            every,
            window,
            last=made[-1] if made else None,
            started=NOW,
            now=now,
            second_of_day=minute * 60 % 86400,
            spread=spread,
        )
        if wait == 0:
            made.append(now)
    assert made[0] <= NOW + (600 if window is None else DAY_S)
    assert len(made) in range(22 // days, 22 * 10 // (9 * days) + 2)
    between = [later - earlier for earlier, later in itertools.pairwise(made)]
    assert all((days - 0.75) * DAY_S <= each <= (days + 0.5) * DAY_S for each in between)


def test_without_a_window_the_next_check_is_after_the_interval() -> None:
    def wait(last: float, spread: float = 0.5) -> float | None:
        return next_check_s(
            UpdateCheck.DAILY, None, last=last, started=NOW, now=NOW, second_of_day=0, spread=spread
        )

    assert wait(NOW, 0) == DAY_S
    assert wait(NOW - 2 * DAY_S) == 0
    assert wait(NOW + 5 * DAY_S) == 300  # the clock was set back: as after a start
    off = next_check_s(UpdateCheck.OFF, None, last=None, started=0, now=NOW, second_of_day=0, spread=0)
    assert off is None


def test_a_layer_is_local_only_on_top_of_those_below_it() -> None:
    layers = [Layer(f"sha256:{n}", 10, f"d{n}") for n in range(4)]
    assert missing_layers(layers, []) == tuple(layers)
    assert missing_layers(layers, [["d0", "d1"], ["d0", "x"]]) == tuple(layers[2:])
    assert missing_layers(layers, [["d1", "d2"]]) == tuple(layers)
    assert missing_layers(layers, [["d0", "d1", "d2", "d3", "d4"]]) == ()
    assert missing_layers([Layer("sha256:0", 10)], [["", ""]]) == (Layer("sha256:0", 10),)
    assert needed_bytes(layers) == 140
