# SPDX-License-Identifier: GPL-2.0-or-later
"""The window of a download: the last bytes, whatever pieces they came in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.api.jobs.transfer import ReplayBuffer, WindowError


@given(
    st.lists(st.binary(max_size=12), max_size=30), st.integers(1, 40), st.integers(0, 60), st.integers(1, 20)
)
def test_at_least_the_last_bytes_are_there_and_they_are_right(
    pieces: list[bytes], limit: int, back: int, wanted: int
) -> None:
    window, everything = ReplayBuffer(limit), b"".join(pieces)
    for piece in pieces:
        window.add(piece)
    assert window.end == len(everything)
    assert window.start <= max(0, len(everything) - limit)
    assert window.end - window.start < limit + 12  # no more than a piece too much
    offset = max(window.start, window.end - back)
    got = window.get(offset, wanted)
    assert got == everything[offset : offset + len(got)]
    assert bool(got) == (offset < window.end) and len(got) <= wanted


def test_what_is_not_there_is_refused() -> None:
    window = ReplayBuffer(4)
    for piece in (b"abcd", b"efgh", b"ij"):
        window.add(piece)
    assert (window.start, window.end) == (4, 10)
    for offset in (3, 11, -1):
        with pytest.raises(WindowError):
            window.get(offset, 1)


def test_a_cleared_window_keeps_its_place() -> None:
    window = ReplayBuffer(4)
    window.add(b"abcd")
    window.clear()
    assert (window.start, window.end, window.get(4, 9)) == (4, 4, b"")
    window.add(b"ef")
    assert window.get(4, 9) == b"ef"
