# SPDX-License-Identifier: GPL-2.0-or-later
"""ubus messages (ubus/ubusmsg.h): a header of eight bytes, and a blob whose parts are the attributes.

`Decoder` takes bytes as they arrive. An invalid frame is a MessageError, and the connection is then useless. An
attribute of the wrong form is left out, as libubus does: ubusd passes on what other clients wrote, and their mistakes
must not break our connection. DATA and SIGNATURE stay bytes, which their readers decode (`blobmsg`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeAlias

from agent.wire.blobmsg import HEADER, BlobError, blob, c_string, padded, split, text

MESSAGE_LIMIT = 1024 * 1024  # UBUS_MAX_MSGLEN: ubusd closes the connection of a client that sends more
HEAD = 8
EVENT_OBJECT = 1  # UBUS_SYSTEM_OBJECT_EVENT: `register` and `send`
_ID_LIMIT = 2**32


class MessageError(ValueError):
    """These bytes are not a ubus message."""


class MessageType(IntEnum):
    """enum ubus_msg_type."""

    HELLO = 0
    STATUS = 1
    DATA = 2
    PING = 3
    LOOKUP = 4
    INVOKE = 5
    ADD_OBJECT = 6
    REMOVE_OBJECT = 7
    SUBSCRIBE = 8
    UNSUBSCRIBE = 9
    NOTIFY = 10
    MONITOR = 11


class Attr(IntEnum):
    """enum ubus_msg_attr."""

    STATUS = 1
    OBJPATH = 2
    OBJID = 3
    METHOD = 4
    OBJTYPE = 5
    SIGNATURE = 6
    DATA = 7
    TARGET = 8
    ACTIVE = 9
    NO_REPLY = 10
    SUBSCRIBERS = 11
    USER = 12
    GROUP = 13


class Status(IntEnum):
    """enum ubus_msg_status."""

    OK = 0
    INVALID_COMMAND = 1
    INVALID_ARGUMENT = 2
    METHOD_NOT_FOUND = 3
    NOT_FOUND = 4
    NO_DATA = 5
    PERMISSION_DENIED = 6
    TIMEOUT = 7
    NOT_SUPPORTED = 8
    UNKNOWN_ERROR = 9
    CONNECTION_FAILED = 10
    NO_MEMORY = 11
    PARSE_ERROR = 12
    SYSTEM_ERROR = 13


_KNOWN = frozenset(map(int, Attr))  # attributes of other numbers are skipped, as libubus does
_WORDS = frozenset({Attr.STATUS, Attr.OBJID, Attr.OBJTYPE, Attr.TARGET})
_FLAGS = frozenset({Attr.ACTIVE, Attr.NO_REPLY})
_TEXTS = frozenset({Attr.OBJPATH, Attr.METHOD, Attr.USER, Attr.GROUP})

AttrValue: TypeAlias = int | bool | str | bytes | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Message:
    """`kind` may be a value outside of Kind. `seq` has 16 bits; `peer` is the id of a client or an object."""

    kind: int
    seq: int = 0
    peer: int = 0
    attributes: Mapping[Attr, AttrValue] = field(default_factory=dict)

    def number(self, attr: Attr) -> int | None:
        """STATUS, OBJID, OBJTYPE or TARGET; None if it is missing."""
        value = self.attributes.get(attr)
        return value if isinstance(value, int) else None

    def text(self, attr: Attr) -> str | None:
        """OBJPATH, METHOD, USER or GROUP; None if it is missing."""
        value = self.attributes.get(attr)
        return value if isinstance(value, str) else None

    def raw(self, attr: Attr) -> bytes | None:
        """DATA or SIGNATURE, the fields of a table; None if it is missing."""
        value = self.attributes.get(attr)
        return value if isinstance(value, bytes) else None

    def flag(self, attr: Attr) -> bool:
        """ACTIVE or NO_REPLY; False if it is missing."""
        return bool(self.attributes.get(attr, False))

    def numbers(self, attr: Attr) -> tuple[int, ...]:
        """SUBSCRIBERS; empty if it is missing."""
        value = self.attributes.get(attr)
        return value if isinstance(value, tuple) else ()


def encode_message(message: Message) -> bytes:
    """Header and blob, with attributes in the order of the mapping. Raises MessageError past MESSAGE_LIMIT."""
    parts = b"".join([_encode_attr(attr, value) for attr, value in message.attributes.items()])
    # ubusd would close the connection, which removes all our objects
    if HEADER + len(parts) > MESSAGE_LIMIT:
        raise MessageError(f"a message of {HEADER + len(parts)} bytes: expected {MESSAGE_LIMIT} at most")
    head = bytes((0, message.kind)) + message.seq.to_bytes(2, "big") + message.peer.to_bytes(4, "big")
    return head + blob(0, parts)


def _encode_attr(attr: Attr, value: AttrValue) -> bytes:
    match value:
        case bool():
            return blob(attr, bytes([value]))
        case int():
            return blob(attr, (value % _ID_LIMIT).to_bytes(4, "big"))
        case str():
            return blob(attr, text(value))
        case bytes():
            return blob(attr, value)
        case tuple():
            return blob(attr, b"".join(blob(0, number.to_bytes(4, "big")) for number in value))


class Decoder:
    """Takes pieces of any size. Holds at most one incomplete message, of at most MESSAGE_LIMIT bytes."""

    def __init__(self) -> None:
        self._buffer = bytearray()  # the beginning of a message that is not complete

    def feed(self, data: bytes) -> list[Message]:
        """The messages that are complete now, in order. Raises MessageError; the decoder cannot be used after that."""
        self._buffer += data
        messages: list[Message] = []
        position = 0
        while (size := _frame_size(self._buffer, position)) and position + size <= len(self._buffer):
            messages.append(_decode(bytes(self._buffer[position : position + size])))
            position += size
        del self._buffer[:position]
        return messages


def _frame_size(buffer: bytearray, position: int) -> int:
    """Size in bytes of the frame that begins at `position`; 0 if its head is incomplete."""
    if len(buffer) - position < HEAD + HEADER:
        return 0
    # as in libubus (ubus_validate_hdr): the version is 0, and the length includes its own header
    length = int.from_bytes(buffer[position + HEAD : position + HEAD + HEADER], "big") & 0x00FFFFFF
    if buffer[position] != 0 or length < HEADER or padded(length) > MESSAGE_LIMIT:
        head = bytes(buffer[position : position + HEAD + HEADER]).hex()
        raise MessageError(f"no ubus message: {head}")
    return HEAD + length


def _decode(frame: bytes) -> Message:
    attributes: dict[Attr, AttrValue] = {}
    try:
        for number, _, payload in split(frame[HEAD + HEADER :]):
            if number in _KNOWN:
                _take(attributes, Attr(number), payload)
    except BlobError:
        pass  # attributes before the broken part count, as in libubox (blob_parse_untrusted)
    return Message(frame[1], int.from_bytes(frame[2:4], "big"), int.from_bytes(frame[4:8], "big"), attributes)


def _take(attributes: dict[Attr, AttrValue], attr: Attr, payload: bytes) -> None:
    """Adds an attribute if it has the form of its kind."""
    # check kind and size, because ubusd passes on what any client sends
    if attr in _WORDS:
        if len(payload) == 4:
            attributes[attr] = int.from_bytes(payload, "big")
    elif attr in _FLAGS:
        if len(payload) == 1:
            attributes[attr] = payload != b"\0"
    elif attr in _TEXTS:
        try:
            attributes[attr] = c_string(payload)
        except BlobError:
            return
    elif attr is Attr.SUBSCRIBERS:
        try:
            words = [part for _, _, part in split(payload)]
        except BlobError:
            return
        attributes[attr] = tuple(int.from_bytes(word, "big") for word in words if len(word) == 4)
    else:
        attributes[attr] = payload
