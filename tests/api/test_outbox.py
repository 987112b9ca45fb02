# SPDX-License-Identifier: GPL-2.0-or-later
"""The outbox: in order, nothing lost before it is acknowledged, never more than the window."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.api.ubus.stream_tab import PACKET, PACKETS, WINDOW, Outbox

steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(1, 40_000)),
        st.tuples(st.just("pack"), st.just(0)),
        st.tuples(st.just("ack"), st.integers(0, 10)),
    ),
    max_size=60,
)


@given(steps)
def test_whatever_is_done_items_come_in_order_and_the_window_holds(done: list[tuple[str, int]]) -> None:
    outbox = Outbox()
    put: list[int] = []
    packed: list[int] = []
    unread = 0
    for step, number in done:
        if step == "put" and outbox.has_room(number):
            outbox.put({"n": len(put)}, number)
            put.append(number)
        elif step == "pack" and (packet := outbox.pack()) is not None:
            assert len(packet.items) == 1 or packet.size <= PACKET
            packed += [item["n"] for item in packet.items]
        elif step == "ack":
            outbox.acknowledge(min(outbox.acknowledged + number, outbox.last))
        unread = sum(packet.size for packet in outbox.after(0))
        assert unread <= WINDOW
        assert [p.seq for p in outbox.after(0)] == list(range(outbox.acknowledged + 1, outbox.last + 1))
    assert packed == list(range(len(packed)))


def test_an_item_larger_than_the_window_goes_alone() -> None:
    outbox = Outbox()
    assert outbox.has_room(10 * WINDOW)
    outbox.put({}, 10 * WINDOW)
    assert not outbox.has_room(1)
    assert outbox.pack() is not None
    assert not outbox.has_room(1)
    assert outbox.acknowledge(1)
    assert outbox.has_room(10 * WINDOW)


def test_small_packets_are_counted_too() -> None:
    outbox = Outbox()
    for _ in range(PACKETS):
        assert outbox.has_room(1)
        outbox.put({}, 1)
        outbox.pack()
    assert not outbox.has_room(1)
    assert not outbox.acknowledge(0)
    assert outbox.acknowledge(3)
    assert not outbox.acknowledge(3)
    assert outbox.has_room(1)


@pytest.mark.parametrize("seq", [-1, 2])
def test_what_was_never_sent_cannot_be_acknowledged(seq: int) -> None:
    outbox = Outbox()
    outbox.put({}, 1)
    outbox.pack()
    with pytest.raises(ValueError, match="expected 0 to 1"):
        outbox.acknowledge(seq)


def test_text_of_one_stream_is_joined_and_nothing_else_is() -> None:
    outbox = Outbox()
    for item in (
        {"stream": 1, "name": "stdout", "text": "a"},
        {"stream": 1, "name": "stdout", "text": "b"},
        {"stream": 1, "name": "stderr", "text": "c"},
        {"stream": 2, "name": "stderr", "text": "d"},
        {"stream": 2, "name": "stderr", "text": "x" * 4096},
        {"stream": 2, "name": "end", "json": {}},
        {"stream": 2, "name": "end", "json": {}},
    ):
        outbox.put(item, 10)
    packet = outbox.pack()
    assert packet is not None
    assert [item.get("text", "-")[:3] for item in packet.items] == ["ab", "c", "d", "xxx", "-", "-"]
    assert packet.size == 70
    outbox.acknowledge(1)
    assert outbox.has_room(WINDOW)
