# SPDX-License-Identifier: GPL-2.0-or-later
"""libubox's blob and blobmsg (libubox/blob.h, blobmsg.h): typed, named, nested values, which are the data of ubus messages.

A blob consists of a header of four bytes (an extended bit, 7 bits of id, 24 bits of length, which includes the header) and
a payload, padded to four bytes. In a blobmsg the id is the type, and the payload of an extended blob begins with its name.

 dict TABLE    list ARRAY    str STRING    bool INT8    int INT32 or INT64    float DOUBLE    None UNSPEC

Encoding is lossless except for values that ubus cannot carry: strings are C strings (a NUL becomes U+FFFD), and
integers have 64 bits (larger ones saturate, as in json-c). Incoming data is checked as libubox checks it; nesting
deeper than DEPTH is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from enum import IntEnum
from functools import lru_cache
from typing import TypeAlias

Value: TypeAlias = "Mapping[str, Value] | list[Value] | tuple[Value, ...] | str | bool | int | float | None"
Table: TypeAlias = "dict[str, Decoded]"
Decoded: TypeAlias = "dict[str, Decoded] | list[Decoded] | str | bool | int | float | None"

DEPTH = 64  # levels; decoding recurses
HEADER = 4  # bytes: flag, id and length in one big-endian word
_EXTENDED = 0x80000000  # the blob has a name in front of its payload
_LENGTH = 0x00FFFFFF  # the bits of the length
_NAME_LIMIT = 0xFFFF  # two bytes hold a name's length
_INT32_MIN, _INT32_MAX = -(2**31), 2**31 - 1
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1


class BlobError(ValueError):
    """These bytes are not a blob, or this value cannot be encoded as one."""


class TooLargeError(BlobError):
    """The value does not fit within the allowed number of bytes."""


class Type(IntEnum):
    """blobmsg types (enum blobmsg_type)."""

    UNSPEC = 0
    ARRAY = 1
    TABLE = 2
    STRING = 3
    INT64 = 4
    INT32 = 5
    INT16 = 6
    INT8 = 7
    DOUBLE = 8


_NUMBERS = {
    Type.INT64: struct.Struct(">q"),
    Type.INT32: struct.Struct(">i"),
    Type.INT16: struct.Struct(">h"),
    Type.DOUBLE: struct.Struct(">d"),
}


def padded(length: int) -> int:
    """The length rounded up to whole words."""
    return (length + 3) & ~3


def text(value: str) -> bytes:
    """A C string."""
    return value.replace("\0", "\ufffd").encode("utf-8", "replace") + b"\0"


def blob(number: int, payload: bytes, *, extended: bool = False) -> bytes:
    """One blob with its padding. Raises TooLargeError past 16 MiB."""
    length = HEADER + len(payload)
    if length > _LENGTH:
        raise TooLargeError(f"a blob of {length} bytes: expected {_LENGTH} at most")
    head = (_EXTENDED if extended else 0) | number << 24 | length
    return b"%b%b%b" % (head.to_bytes(4, "big"), payload, bytes(padded(length) - length))


def split(data: bytes) -> Iterator[tuple[int, bool, bytes]]:
    """The blobs in `data`, as (id, extended, payload). Raises BlobError for anything else."""
    position = 0
    while position < len(data):
        head = int.from_bytes(data[position : position + HEADER], "big")
        length = head & _LENGTH
        if length < HEADER or position + padded(length) > len(data):
            raise BlobError(f"no blob at byte {position}: {data[position : position + HEADER].hex()}")
        yield head >> 24 & 0x7F, bool(head & _EXTENDED), data[position + HEADER : position + length]
        position += padded(length)


# encoding


@lru_cache(maxsize=512)
def _label(name: str) -> bytes:
    """The start of a named field's payload: the name's length, the name, padding. Cached, as replies repeat a few names."""
    data = text(name)
    if len(data) - 1 > _NAME_LIMIT:
        raise BlobError(f"a name of {len(data) - 1} bytes: expected {_NAME_LIMIT} at most")
    head = struct.pack(">H", len(data) - 1) + data
    return head + bytes(padded(len(head)) - len(head))


class _Encoder:
    """Writes fields one after the other; gives up as soon as they take more than `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.out = bytearray()

    def table(self, fields: Mapping[str, Value], depth: int) -> None:
        for name, value in fields.items():
            self._field(_label(name), value, depth)

    def _field(self, label: bytes, value: Value, depth: int) -> None:
        out, start = self.out, len(self.out)
        # the header is known once the payload is encoded
        out += b"\0\0\0\0"
        out += label
        kind = self._payload(value, depth)
        length = len(out) - start
        # the next blob begins at a multiple of four; the length does not count the padding
        out += bytes(-length & 3)
        if len(out) > self._limit:
            raise TooLargeError(f"the value takes more than {self._limit} bytes")
        out[start : start + HEADER] = (_EXTENDED | kind << 24 | length).to_bytes(4, "big")

    def _payload(self, value: Value, depth: int) -> Type:
        match value:
            case str():
                self.out += text(value)
                return Type.STRING
            # before int, because a Python bool is an int
            case bool():
                self.out.append(value)
                return Type.INT8
            case int():
                return self._number(
                    Type.INT32 if _INT32_MIN <= value <= _INT32_MAX else Type.INT64,
                    min(max(value, _INT64_MIN), _INT64_MAX),
                )
            case float():
                return self._number(Type.DOUBLE, value)
            case None:
                return Type.UNSPEC
        if depth >= DEPTH:
            raise BlobError(f"the value is nested deeper than {DEPTH} levels")
        match value:
            case list() | tuple():
                for item in value:
                    self._field(_NO_NAME, item, depth + 1)
                return Type.ARRAY
            case Mapping():
                self.table(value, depth + 1)
                return Type.TABLE
        raise BlobError(f"ubus carries no {type(value).__name__}")

    def _number(self, kind: Type, value: float) -> Type:
        self.out += _NUMBERS[kind].pack(value)
        return kind


_NO_NAME = _label("")


def encode(fields: Mapping[str, Value], *, limit: int = _LENGTH) -> bytes:
    """The fields of a table as message data. Raises TooLargeError past `limit` bytes, BlobError."""
    encoder = _Encoder(min(limit, _LENGTH))
    encoder.table(fields, 1)
    return bytes(encoder.out)


# decoding


def decode(data: bytes) -> Table:
    """The table in these bytes. If a name occurs twice, the first field wins, as in libubox. Raises BlobError."""
    return _table(data, 1)


def _table(data: bytes, depth: int) -> Table:
    fields: Table = {}
    for kind, extended, payload in split(data):
        name, value = _field(kind, payload, depth, extended=extended)
        if not name:
            raise BlobError("a field of a table without a name")
        fields.setdefault(name, value)
    return fields


def _field(kind: int, payload: bytes, depth: int, *, extended: bool) -> tuple[str, Decoded]:
    if depth > DEPTH:
        raise BlobError(f"the value is nested deeper than {DEPTH} levels")
    name = ""
    if extended:
        length = int.from_bytes(payload[:2], "big")
        # the name's length in two bytes, the name, a NUL, and padding
        start = padded(2 + length + 1)
        if start > len(payload) or payload[2 + length] != 0:
            raise BlobError("a field's name is not complete")
        name, payload = _text(payload[2 : 2 + length]), payload[start:]
    return name, _value(kind, payload, depth)


def _value(kind: int, payload: bytes, depth: int) -> Decoded:
    match kind:
        case Type.TABLE:
            return _table(payload, depth + 1)
        case Type.ARRAY:
            return [_field(k, p, depth + 1, extended=e)[1] for k, e, p in split(payload)]
        case Type.STRING:
            return c_string(payload)
        # blobmsg has no boolean type: booleans are sent as INT8
        case Type.INT8 if len(payload) == 1:
            return payload != b"\0"
        case Type.INT64 | Type.INT32 | Type.INT16 | Type.DOUBLE:
            return _number(Type(kind), payload)
        case Type.UNSPEC:
            return None
    raise BlobError(f"no value of a type that is known: type {kind}, {len(payload)} bytes")


def _number(kind: Type, payload: bytes) -> int | float:
    form = _NUMBERS[kind]
    if len(payload) != form.size:
        raise BlobError(f"{kind.name} of {len(payload)} bytes: expected {form.size}")
    number: int | float = form.unpack(payload)[0]
    return number


def c_string(payload: bytes) -> str:
    """The text of a C string. Raises BlobError if the terminating NUL is missing, or not at the end."""
    if payload[-1:] != b"\0" or b"\0" in payload[:-1]:
        raise BlobError("a string that does not end where it says")
    return _text(payload[:-1])


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
