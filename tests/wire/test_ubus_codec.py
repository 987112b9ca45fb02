# SPDX-License-Identifier: GPL-2.0-or-later
"""blobmsg and ubus messages: the bytes of real peers and the real ubusd in both directions, and rubbish."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire import blobmsg
from agent.wire.blobmsg import BlobError, TooLargeError
from agent.wire.ubus_message import (
    MESSAGE_LIMIT,
    Attr,
    Decoder,
    Message,
    MessageError,
    MessageType,
    Status,
    encode_message,
)
from tests.support.ubus_vectors import Conversation, conversations, one_way

ALL = conversations()
names = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=20)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=40)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=20,
)
tables = st.dictionaries(names, values, max_size=6)
words = st.integers(0, 2**32 - 1)
attributes = st.fixed_dictionaries(
    {},
    optional={
        Attr.OBJID: words,
        Attr.STATUS: words,
        Attr.METHOD: names,
        Attr.ACTIVE: st.booleans(),
        Attr.SUBSCRIBERS: st.lists(words, max_size=4).map(tuple),
        Attr.DATA: tables.map(blobmsg.encode),
    },
)
messages = st.lists(
    st.builds(Message, st.sampled_from(list(MessageType)), st.integers(0, 0xFFFF), words, attributes),
    max_size=4,
)


@pytest.mark.parametrize("conversation", ALL, ids=lambda c: c.name)
def test_recorded_bytes_decode_and_encode_to_themselves(conversation: Conversation) -> None:
    for who in ("client", "ubusd"):
        sent = one_way(conversation, who)
        decoded = Decoder().feed(sent)
        assert b"".join(map(encode_message, decoded)) == sent
        for message in decoded:
            for attr in (Attr.DATA, Attr.SIGNATURE):
                if (raw := message.raw(attr)) is not None:
                    assert blobmsg.encode(blobmsg.decode(raw)) == raw


@pytest.mark.parametrize("conversation", ALL, ids=lambda c: c.name)
def test_recorded_bytes_fed_one_by_one_give_the_same_messages(conversation: Conversation) -> None:
    for who in ("client", "ubusd"):
        sent = one_way(conversation, who)
        decoder = Decoder()
        assert [m for byte in sent for m in decoder.feed(bytes([byte]))] == Decoder().feed(sent)


def _data_of(name: str, kind: MessageType) -> Any:
    found = next(c for c in ALL if c.name == name)
    sent = one_way(found, "client") + one_way(found, "ubusd")
    raws = [m.raw(Attr.DATA) for m in Decoder().feed(sent) if m.kind == kind]
    return blobmsg.decode(next(raw for raw in raws if raw is not None))


def test_every_type_has_the_value_that_the_peer_meant() -> None:
    sent = {"s": "text", "i": 7, "n": -1, "big": 9007199254740993, "b": True, "d": 0.5}
    more: dict[str, Any] = {"a": [1, "x", [True]], "t": {"k": {}}}
    assert _data_of("send event", MessageType.INVOKE) == {"id": "vector.event", "data": {**sent, **more}}
    assert _data_of("session access granted", MessageType.DATA) == {"access": True}


def test_a_status_is_the_one_that_the_command_line_showed() -> None:
    found = next(c for c in ALL if c.name == "call missing method")
    last = Decoder().feed(one_way(found, "ubusd"))[-1]
    assert (last.kind, last.number(Attr.STATUS)) == (MessageType.STATUS, Status.METHOD_NOT_FOUND)


@given(tables)
def test_tables_come_out_as_they_went_in(table: dict[str, Any]) -> None:
    assert blobmsg.decode(blobmsg.encode(table)) == table


@given(messages, st.lists(st.integers(1, 50), min_size=1, max_size=6))
def test_any_split_of_the_bytes_gives_the_same_messages(sent: list[Message], sizes: list[int]) -> None:
    data = b"".join(map(encode_message, sent))
    decoder, got, position, turn = Decoder(), [], 0, 0
    while position < len(data):
        size = sizes[turn % len(sizes)]
        got += decoder.feed(data[position : position + size])
        position, turn = position + size, turn + 1
    assert got == sent


@given(st.binary(max_size=200))
def test_rubbish_is_a_table_or_a_typed_error(data: bytes) -> None:
    try:
        table = blobmsg.decode(data)
    except BlobError:
        return
    assert isinstance(blobmsg.encode(table), bytes)


@given(tables, st.integers(0, 400), st.integers(0, 255))
def test_a_damaged_table_is_a_table_or_a_typed_error(table: dict[str, Any], where: int, byte: int) -> None:
    data = bytearray(blobmsg.encode(table))
    if where < len(data):
        data[where] = byte
    try:
        blobmsg.decode(bytes(data))
    except BlobError:
        return


@given(st.binary(max_size=200), messages)
def test_rubbish_on_the_wire_is_messages_or_a_typed_error(rubbish: bytes, sent: list[Message]) -> None:
    decoder = Decoder()
    try:
        got = decoder.feed(b"".join(map(encode_message, sent)) + rubbish)
    except MessageError:
        return
    assert got[: len(sent)] == sent


@pytest.mark.parametrize(
    "head",
    [
        "010400010000000000000004",  # version 1
        "000400010000000000000003",  # shorter than its own header
        "000400010000000000100001",  # 1 MiB and a byte
        "0004000100000000ffffffff",
    ],
)
def test_a_head_that_cannot_be_one_is_refused_before_anything_is_collected(head: str) -> None:
    with pytest.raises(MessageError, match="no ubus message"):
        Decoder().feed(bytes.fromhex(head))


def test_a_broken_attribute_is_left_out_and_the_message_lives() -> None:
    good = blobmsg.blob(Attr.OBJID, b"\0\0\0\x05")
    short = blobmsg.blob(Attr.STATUS, b"\0")
    unended = blobmsg.blob(Attr.METHOD, b"list")
    cut = b"\x07\x00\xff\xff"
    body = blobmsg.blob(0, good + short + unended + cut)
    assert Decoder().feed(bytes((0, MessageType.DATA, 0, 1, 0, 0, 0, 2)) + body) == [
        Message(MessageType.DATA, 1, 2, {Attr.OBJID: 5})
    ]


def test_what_no_c_string_can_carry_is_replaced_and_not_cut() -> None:
    assert blobmsg.decode(blobmsg.encode({"a": "x\0y", "b": "\ud800"})) == {"a": "x\ufffdy", "b": "?"}


def test_integers_past_64_bits_saturate() -> None:
    assert blobmsg.decode(blobmsg.encode({"a": 2**64, "b": -(2**70)})) == {"a": 2**63 - 1, "b": -(2**63)}


def test_a_named_number_is_a_number() -> None:
    assert blobmsg.decode(blobmsg.encode({"a": Status.TIMEOUT})) == {"a": 7}


def test_the_first_of_two_fields_with_one_name_counts() -> None:
    assert blobmsg.decode(blobmsg.encode({"sid": "a"}) + blobmsg.encode({"sid": "b"})) == {"sid": "a"}


def test_a_number_that_is_none_survives() -> None:
    found = blobmsg.decode(blobmsg.encode({"a": math.nan, "b": math.inf}))
    assert isinstance(found["a"], float)
    assert math.isnan(found["a"])
    assert found["b"] == math.inf


def _nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


def test_nesting_is_limited_both_ways() -> None:
    assert blobmsg.decode(blobmsg.encode(_nested(64))) == _nested(64)
    with pytest.raises(BlobError, match="deeper"):
        blobmsg.encode(_nested(70))
    inner = b""
    for _ in range(70):
        inner = blobmsg.blob(blobmsg.Type.TABLE, b"\0\x01a\0" + inner, extended=True)
    with pytest.raises(BlobError, match="deeper"):
        blobmsg.decode(inner)


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (blobmsg.Type.INT32, b"\0"),
        (blobmsg.Type.INT64, b"\0\0\0\0"),
        (blobmsg.Type.INT8, b""),
        (blobmsg.Type.DOUBLE, b""),
        (blobmsg.Type.STRING, b""),
        (blobmsg.Type.STRING, b"abc"),
        (blobmsg.Type.STRING, b"a\0b\0"),
        (9, b""),
    ],
)
def test_a_value_of_a_wrong_form_is_refused(kind: int, payload: bytes) -> None:
    with pytest.raises(BlobError):
        blobmsg.decode(blobmsg.blob(kind, b"\0\x01a\0" + payload, extended=True))


@pytest.mark.parametrize("head", [b"\0\x09a\0", b"\0\x01ax", b"\0", b"\0\0\0\0"])
def test_a_field_of_a_wrong_name_is_refused(head: bytes) -> None:
    with pytest.raises(BlobError, match="name"):
        blobmsg.decode(blobmsg.blob(blobmsg.Type.UNSPEC, head, extended=True))


def test_the_limit_counts_every_byte_once() -> None:
    table = {"a": {"b": ["text", 1, {"c": None}]}, "d": "e" * 100}
    size = len(blobmsg.encode(table))
    assert len(blobmsg.encode(table, limit=size)) == size
    with pytest.raises(TooLargeError):
        blobmsg.encode(table, limit=size - 1)


def test_the_limit_ends_the_work_early() -> None:
    class Endless(dict[str, Any]):
        def items(self) -> Any:
            while True:
                yield "a", 1

    with pytest.raises(TooLargeError):
        blobmsg.encode(Endless(a=1), limit=1000)


def test_a_message_over_the_limit_is_refused_before_it_is_sent() -> None:
    fits = b"\0" * (MESSAGE_LIMIT - 8)
    assert len(encode_message(Message(MessageType.DATA, attributes={Attr.DATA: fits}))) == 8 + MESSAGE_LIMIT
    with pytest.raises(MessageError, match="expected 1048576"):
        encode_message(Message(MessageType.DATA, attributes={Attr.DATA: fits + b"\0"}))


def test_values_that_ubus_knows_nothing_of_are_refused() -> None:
    with pytest.raises(BlobError, match="carries no"):
        blobmsg.encode({"a": b"bytes"})  # type: ignore[dict-item]
    with pytest.raises(BlobError, match="name of 65536"):
        blobmsg.encode({"a" * 65536: 1})


def test_16_bit_numbers_are_read() -> None:
    data = blobmsg.blob(blobmsg.Type.INT16, b"\0\x01a\0" + struct.pack(">h", -2), extended=True)
    assert blobmsg.decode(data) == {"a": -2}
