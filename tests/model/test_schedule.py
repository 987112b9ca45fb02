# SPDX-License-Identifier: GPL-2.0-or-later
"""Windows of the day, and when what is done in them is due."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.quantities import QuantityError, parse_age
from agent.model.schedule import Window, is_due, parse_window

DAY = 86400.0
MINUTES = st.integers(0, 1439)


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@given(MINUTES, MINUTES)
def test_a_window_is_written_as_it_is_read(start: int, end: int) -> None:
    assert parse_window(str(Window(start, end))) == Window(start, end)


@pytest.mark.parametrize("text", ["", "2:00-5:00", "24:00-01:00", "02:00", "02:00-05:60", "02:00 - 05:00"])
def test_other_forms_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(QuantityError, match="02:00-05:00"):
        parse_window(text)


@given(MINUTES, MINUTES, st.floats(at("2026-01-05"), at("2026-03-01")))
def test_an_open_window_opened_within_the_last_day(start: int, end: int, now: float) -> None:
    opened = Window(start, end).opened(now)
    if opened is not None:
        assert 0 <= now - opened < (end - start) % 1440 * 60 or (start == end and now - opened < DAY)


def test_a_window_over_midnight_is_one_opening() -> None:
    window = parse_window("22:30-06:00")
    assert window.opened(at("2026-03-03 21:00")) is None
    assert window.opened(at("2026-03-03 23:00")) == window.opened(at("2026-03-04 05:59"))
    assert window.opened(at("2026-03-04 06:00")) is None


def test_daily_is_once_in_each_window() -> None:
    window = parse_window("02:00-05:00")
    assert is_due("daily", window, last=None, now=at("2026-03-03 02:00"))
    assert not is_due("daily", window, last=None, now=at("2026-03-03 12:00"))
    assert not is_due("daily", window, last=at("2026-03-03 02:01"), now=at("2026-03-03 04:00"))
    assert is_due("daily", window, last=at("2026-03-03 04:59"), now=at("2026-03-04 02:00"))


@given(st.integers(0, 10799), st.integers(0, 10799))
def test_weekly_is_on_the_seventh_day(then: int, now: int) -> None:
    window, first = parse_window("02:00-05:00"), at("2026-01-05 02:00")
    due = [
        is_due(
            "weekly",
            window,
            last=first + then,
            now=(datetime.fromtimestamp(first) + timedelta(days=day)).timestamp() + now,
        )
        for day in range(1, 8)
    ]
    assert due == [False] * 6 + [True]


def test_a_clock_that_was_set_back_keeps_nothing_from_being_done() -> None:
    assert is_due("daily", None, last=at("2030-01-01"), now=at("2026-03-03 02:00"))


def test_ages() -> None:
    assert [parse_age(text) for text in ("0", "90m", "12h", "7d", "2w")] == [
        0,
        5400,
        43200,
        7 * DAY,
        14 * DAY,
    ]
    with pytest.raises(QuantityError, match="7d"):
        parse_age("7")
