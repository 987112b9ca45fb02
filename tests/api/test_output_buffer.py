# SPDX-License-Identifier: GPL-2.0-or-later
"""The buffer between an engine's console and its reader."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.status.ring import PIECE, Item, OutputBuffer, OutputEnd, OutputPiece


def read_on(buffer: OutputBuffer) -> list[Item]:
    """Takes all that is there."""
    items = []
    while (item := buffer.next()) is not None:
        buffer.take(item)
        items.append(item)
    return items


def data_of(items: list[Item]) -> bytes:
    return b"".join(item.data for item in items if isinstance(item, OutputPiece))


def test_long_output_becomes_pieces_with_consecutive_numbers() -> None:
    buffer = OutputBuffer()
    buffer.add([("stdout", b"x" * (2 * PIECE + 1)), ("stderr", b"e")])
    buffer.end(3)
    items = read_on(buffer)
    assert [item.number for item in items] == [1, 2, 3, 4, 5]
    assert [len(item.data) for item in items if isinstance(item, OutputPiece)] == [PIECE, PIECE, 1, 1]
    assert items[-1] == OutputEnd(number=5, code=3)


def test_there_is_room_until_the_window_is_full_and_again_when_it_was_read() -> None:
    buffer = OutputBuffer(window=1000, keep=1000)
    buffer.add([("stdout", b"x" * 700)])
    assert buffer.has_room
    buffer.add([("stdout", b"x" * 700)])
    assert not buffer.has_room
    read_on(buffer)
    assert buffer.has_room


def test_a_flood_of_single_bytes_counts_for_what_it_costs() -> None:
    buffer = OutputBuffer(window=1000)
    for _ in range(5):
        buffer.add([("stdout", b"x")])
    assert not buffer.has_room


def test_what_was_read_is_kept_up_to_its_limit_and_what_was_not_always() -> None:
    buffer = OutputBuffer(window=10_000, keep=1000)
    for number in range(20):
        buffer.add([("stdout", b"%03d" % number * 100)])
    assert buffer.first == 1
    read_on(buffer)
    assert buffer.first > 15
    assert not buffer.rewind(0)
    assert (
        data_of(read_on(buffer)) == b"".join(b"%03d" % n * 100 for n in range(20))[(buffer.first - 1) * 300 :]
    )


@given(
    st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=30),
    st.lists(st.integers(0, 40), min_size=1, max_size=5),
)
def test_whatever_a_reader_resumes_after_comes_whole_and_in_order(
    pieces: list[bytes], resumes: list[int]
) -> None:
    buffer = OutputBuffer(window=10**6, keep=10**6)
    for piece in pieces:
        buffer.add([("stdout", piece)])
    for after in resumes:
        assert buffer.rewind(after)
        assert data_of(read_on(buffer)) == b"".join(pieces[after:])


@given(st.lists(st.tuples(st.integers(0, 3), st.binary(min_size=1, max_size=300)), max_size=60))
def test_memory_is_bounded_whatever_is_read_and_resumed(steps: list[tuple[int, bytes]]) -> None:
    buffer = OutputBuffer(window=1000, keep=1000)
    for kind, data in steps:
        if kind <= 1 and buffer.has_room:
            buffer.add([("stdout", data)])
        elif kind == 2 and (item := buffer.next()) is not None:
            buffer.take(item)
        elif kind == 3:
            buffer.rewind(len(data) % 20)
        cost = sum(
            200 + len(item.data) for _, item in buffer._items.after(0) if isinstance(item, OutputPiece)
        )
        assert cost <= 1000 + 1000 + 2 * 500
        assert buffer._unread_cost + buffer._kept_cost == cost
