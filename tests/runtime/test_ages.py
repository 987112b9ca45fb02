# SPDX-License-Identifier: GPL-2.0-or-later
"""Since when a container is as it is, from an engine that tells it in words that grow old."""

from __future__ import annotations

from typing import Any

import pytest

from agent.model.observed import ObservedContainer
from agent.observe.exits import StateTimes, age_of, seconds_of

NOW = 1_700_000_000.0

# by moby's units.HumanDuration: the words, and ages that they stand for
WORDS: dict[str, tuple[float, ...]] = {
    "Up Less than a second": (0, 0.9),
    "Up 1 second": (1, 1.9),
    "Up 59 seconds": (59, 59.9),
    "Up About a minute": (60, 119),
    "Up 2 minutes (healthy)": (120, 179),
    "Up 59 minutes (health: starting)": (3540, 3599),
    "Up About an hour": (3600, 5399),
    "Up 2 hours (Paused)": (5400, 8999),
    "Up 47 hours": (46.5 * 3600, 47.4 * 3600),
    "Exited (137) 9 seconds ago": (9, 9.9),
    "Exited (0) 3 days ago": (72 * 3600, 95 * 3600),
    "Restarting (3) Less than a second ago": (0, 0.9),
    "Exited (1) 5 weeks ago": (35 * 86_400, 41 * 86_400),
    "Up 4 months": (120 * 86_400, 149 * 86_400),
    "Up 2 years (unhealthy)": (2 * 365 * 86_400, 3 * 365 * 86_400 - 1),
}


@pytest.mark.parametrize("words", WORDS)
def test_the_engines_words_stand_for_ages(words: str) -> None:
    found = age_of(words)
    assert found is not None
    assert all(found[0] <= age <= found[1] for age in WORDS[words])


@pytest.mark.parametrize("words", ["", "Created", "Dead", "Removal In Progress", "Up soon", "Exited (1)"])
def test_other_words_stand_for_none(words: str) -> None:
    assert age_of(words) is None


def test_times_of_the_engine_are_read() -> None:
    assert seconds_of("2023-11-14T22:13:20.123456789Z") == pytest.approx(NOW + 0.123456)
    assert seconds_of("2023-11-14T23:13:20+01:00") == NOW
    assert seconds_of("0001-01-01T00:00:00Z") is None
    assert seconds_of("yesterday") is None


def seen(words: str, state: str = "running", **times: str) -> ObservedContainer:
    inspect: dict[str, Any] | None = {"State": {"Status": state, **times}} if times else None
    return ObservedContainer(
        id="1", name="web", image="a", image_id="b", state=state, status_text=words, inspect=inspect
    )


def test_a_time_that_was_told_stays_while_the_words_agree() -> None:
    ages = StateTimes()
    (first,) = ages.dated([seen("Up 1 second", StartedAt="2023-11-14T22:13:19Z")], now=NOW)
    assert first.since == NOW - 1
    for age, words in (
        (44, "Up 45 seconds"),
        (200, "Up 3 minutes"),
        (7000, "Up 2 hours"),
        (6e5, "Up 6 days"),
    ):
        (later,) = ages.dated([seen(words)], now=NOW + age)
        assert later.since == NOW - 1
        assert later == first or later.inspect != first.inspect


def test_a_start_that_nobody_told_of_is_seen_by_the_words() -> None:
    ages = StateTimes()
    ages.dated([seen("Up 1 second", StartedAt="2023-11-14T22:13:19Z")], now=NOW)
    (again,) = ages.dated([seen("Up 2 seconds")], now=NOW + 3600)
    assert again.since == pytest.approx(NOW + 3598, abs=3)
    (ended,) = ages.dated([seen("Exited (3) 5 seconds ago", "exited")], now=NOW + 3700)
    assert ended.since == pytest.approx(NOW + 3695, abs=3)
    told = seen("Exited (3) 6 seconds ago", "exited", FinishedAt="2023-11-14T23:14:55Z", StartedAt="x")
    assert ages.dated([told], now=NOW + 3701)[0].since == NOW + 3695


def test_an_inspect_of_another_state_than_the_lists_is_not_believed() -> None:
    inspect = {"State": {"Status": "running", "StartedAt": "2023-11-14T22:13:19Z"}}
    ended = ObservedContainer(
        id="1", name="web", image="a", image_id="b", state="exited", status_text="Created", inspect=inspect
    )
    assert StateTimes().dated([ended], now=NOW)[0].since is None


@pytest.mark.parametrize("words", ["Up 56 years", "Up 3 weeks", "Up 2 weeks (Paused)"])
def test_nothing_runs_longer_than_the_machine(words: str) -> None:
    """A router without a battery-backed clock starts its containers with a date of the past; then NTP sets it."""
    state = "paused" if "Paused" in words else "running"
    told = seen(words, state, StartedAt="1970-01-01T00:00:21Z")
    for container in (seen(words, state), told):
        assert StateTimes().dated([container], now=NOW, booted=NOW - 90)[0].since == NOW - 90


def test_an_end_of_1970_is_of_an_unknown_time() -> None:
    set_by_ntp = 1_800_000_000.0
    ended = seen("Exited (0) 57 years ago", "exited", FinishedAt="1970-01-01T00:00:21Z")
    assert StateTimes().dated([ended], now=set_by_ntp, booted=set_by_ntp - 90)[0].since is None
    ended = seen("Exited (0) 5 weeks ago", "exited", FinishedAt="2026-12-01T00:00:00Z")
    assert StateTimes().dated([ended], now=set_by_ntp, booted=set_by_ntp - 90)[0].since == 1_796_083_200.0
