# SPDX-License-Identifier: GPL-2.0-or-later
"""One connection to ubusd: requests and their answers. Nothing here outlives the connection.

The protocol is that of libubus (ubus/libubus-req.c) and ubusd (ubus/ubusd_proto.c). `ubus.client` opens connections
and knows what is published.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from agent.errors import BusError
from agent.wire import blobmsg
from agent.wire.blobmsg import BlobError
from agent.wire.ubus_message import (
    MESSAGE_LIMIT,
    Attr,
    AttrValue,
    Decoder,
    Message,
    MessageError,
    MessageType,
    Status,
    encode_message,
)

logger = logging.getLogger(__name__)

REQUESTS = 256  # in progress at once
REPLY_LIMIT = MESSAGE_LIMIT - 1024  # ubusd adds to messages, and drops a message that then exceeds its limit
TIMEOUT_S = 10.0
_ANSWER_LIMIT = 4 * 1024 * 1024  # all parts of one answer
_WRITE_LIMIT = 4 * 1024 * 1024  # unsent bytes after which a ubusd that does not read counts as gone

STATUSES = frozenset(map(int, Status))

Attributes = Mapping[Attr, AttrValue]


class StaleIdError(BusError):
    """ubusd has no object with that id: it was removed, or published again. Nothing was called."""


@dataclass(slots=True, eq=False)
class Request:
    """A request in progress. `parts` are the data messages of its answer."""

    peer: int
    done: asyncio.Future[Message]
    parts: list[Message] = field(default_factory=list)
    size: int = 0
    notification: bool = False
    subscribers: tuple[int, ...] = ()  # for a notification: the subscribers that ubusd told
    on_data: Callable[[Message], None] | None = (
        None  # called with each part before any later message is handled
    )
    # for a notification: who has not acknowledged yet; None until ubusd has named them
    missing: set[int] | None = None

    def first_id(self) -> int:
        """The object id in the answer. Raises BusError."""
        object_id = self.parts[0].number(Attr.OBJID) if self.parts else None
        if object_id is None:
            raise BusError("ubus: the answer names no object", status=Status.NOT_FOUND)
        return object_id


class Link:
    """A connection, after ubusd's hello."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = Decoder()
        self._requests: dict[int, Request] = {}  # by sequence number
        # of objects of others; ubusd gives a new id when their program starts again
        self._remote_ids: dict[str, int] = {}
        self._last_seq = 0

    @classmethod
    async def open(cls, path: str) -> Link:
        """Connects. Raises OSError, MessageError, BusError."""
        link = cls(*await asyncio.open_unix_connection(path))
        try:
            async with deadline(TIMEOUT_S, "hello"):
                messages = await link.read()
            if not messages or messages[0].kind != MessageType.HELLO:
                raise BusError("ubusd did not say hello")
        # also when it is cancelled: the socket would stay open
        except BaseException:
            link.abort()
            raise
        return link

    async def read(self) -> list[Message]:
        """The messages that arrived, at least one; [] at the end. Raises OSError, MessageError."""
        while data := await self._reader.read(65536):
            if messages := self._decoder.feed(data):
                return messages
        return []

    def abort(self) -> None:
        """Closes the connection; every request in progress ends with BusError."""
        self._writer.transport.abort()
        for request in self._requests.values():
            if not request.done.done():
                request.done.set_exception(BusError("ubus: the connection was lost"))
                request.done.exception()  # marks the error as seen, because the caller may have gone

    # outgoing

    def write(self, *messages: Message) -> None:
        """Writes messages. Raises BusError if ubusd does not read, or a message is too large."""
        if self._writer.transport.get_write_buffer_size() > _WRITE_LIMIT:
            self._writer.transport.abort()
            raise BusError("ubusd does not read its messages")
        try:
            self._writer.write(b"".join(map(encode_message, messages)))
        except MessageError as exc:
            raise BusError(f"ubus: this cannot be sent: {exc}") from exc

    async def drain(self) -> None:
        """Waits until there is room for more. Raises BusError."""
        try:
            await self._writer.drain()
        except OSError as exc:
            raise BusError("ubus: the connection was lost") from exc

    def answer(self, call: Message, status: Status, reply: bytes | None = None) -> None:
        """Sends the data and the status that answer a call; nothing if the caller wants no answer."""
        if call.flag(Attr.NO_REPLY):
            return
        object_id = call.number(Attr.OBJID) or 0
        last = Message(MessageType.STATUS, call.seq, call.peer, {Attr.STATUS: status, Attr.OBJID: object_id})
        if reply is None:
            self.write(last)
            return
        data: Attributes = {Attr.OBJID: object_id, Attr.DATA: reply}
        # in one piece, so that a full buffer refuses both
        self.write(Message(MessageType.DATA, call.seq, call.peer, data), last)

    # requests

    async def request(
        self,
        kind: MessageType,
        attributes: Attributes,
        *,
        peer: int = 0,
        on_data: Callable[[Message], None] | None = None,
    ) -> Request:
        """Sends a request and waits for its status. Raises BusError if the status is not OK, or the connection ends."""
        if len(self._requests) >= REQUESTS:
            raise BusError("ubus: too many requests are in progress")
        seq = self._free_seq()
        done: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        request = Request(peer, done, notification=kind is MessageType.NOTIFY, on_data=on_data)
        self._requests[seq] = request
        try:
            self.write(Message(kind, seq, peer, attributes))
            await self.drain()
            last = await done
        finally:
            del self._requests[seq]
        status = last.number(Attr.STATUS)
        if status == Status.NOT_FOUND and kind is MessageType.INVOKE and last.number(Attr.OBJID) is None:
            # this status came from ubusd and not from the object
            raise StaleIdError("ubus: the object no longer exists", status=status)
        if status != Status.OK:
            raise BusError(f"ubus: {_name(status)}", status=status or Status.UNKNOWN_ERROR)
        return request

    async def notify(self, object_id: int, attributes: Attributes) -> None:
        """Sends a notification that is not acknowledged."""
        quiet = {Attr.OBJID: object_id, Attr.METHOD: attributes[Attr.METHOD], Attr.NO_REPLY: True}
        self.write(
            Message(
                MessageType.NOTIFY, self._free_seq(), object_id, quiet | {Attr.DATA: attributes[Attr.DATA]}
            )
        )
        await self.drain()

    async def id_of(self, name: str, *, known: bool) -> int:
        """The id of a published object. With `known` an id from an earlier lookup is used. Raises BusError."""
        if not known or name not in self._remote_ids:
            self._remote_ids.pop(name, None)
            self._remote_ids[name] = (await self.request(MessageType.LOOKUP, {Attr.OBJPATH: name})).first_id()
        return self._remote_ids[name]

    async def invoke(self, object_id: int, method: str, data: bytes) -> dict[str, Any]:
        """Calls a method. Raises BusError; StaleIdError if there is no such object."""
        attributes: Attributes = {Attr.OBJID: object_id, Attr.METHOD: method, Attr.DATA: data}
        request = await self.request(MessageType.INVOKE, attributes, peer=object_id)
        try:
            return blobmsg.decode(request.parts[-1].raw(Attr.DATA) or b"") if request.parts else {}
        except BlobError as exc:
            raise BusError(f"ubus: {method}: the answer is broken: {exc}") from exc

    def take_answer(self, message: Message) -> None:
        """Takes a STATUS or DATA message. It is dropped if no request waits for it."""
        request = self._requests.get(message.seq)
        if request is None or request.done.done():
            return
        if request.notification:
            _take_acknowledgement(request, message)
        # sequence numbers are easy to guess: accept an answer only from the object that was asked
        elif message.peer != request.peer:
            return
        elif message.kind == MessageType.STATUS:
            request.done.set_result(message)
        else:
            request.size += len(message.raw(Attr.DATA) or message.raw(Attr.SIGNATURE) or b"")
            request.parts.append(message)
            if request.on_data is not None:
                request.on_data(message)
            # a method may answer with any number of messages; one that never stops must not fill our memory
            if request.size > _ANSWER_LIMIT:
                request.done.set_exception(BusError("ubus: the answer is too large"))

    def nobody_listens(self, object_id: int) -> None:
        """Called when an object of ours has lost its last subscriber: ends the requests that wait for its
        acknowledgement.
        """
        for request in self._requests.values():
            if request.peer == object_id and request.missing and not request.done.done():
                request.done.set_exception(BusError("ubus: the subscriber has gone"))

    def _free_seq(self) -> int:
        while True:  # ends, because REQUESTS is smaller than the number of sequence numbers
            self._last_seq = self._last_seq % 0xFFFF + 1
            if self._last_seq not in self._requests:
                return self._last_seq


def _take_acknowledgement(request: Request, message: Message) -> None:
    """Takes an answer to a notification: first ubusd names the subscribers, then each of them acknowledges as peer."""
    if message.kind != MessageType.STATUS:
        return
    if request.missing is not None:
        request.missing.discard(message.peer)
    else:
        request.subscribers = message.numbers(Attr.SUBSCRIBERS)
        request.missing = set(request.subscribers)
        if message.number(Attr.STATUS) != Status.OK:
            # refused by ubusd itself: no subscriber will answer
            request.done.set_result(message)
            return
    if not request.missing:
        request.done.set_result(Message(MessageType.STATUS, attributes={Attr.STATUS: Status.OK}))


@asynccontextmanager
async def deadline(seconds: float, what: str) -> AsyncIterator[None]:
    """Like `asyncio.timeout`, but raises BusError."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as exc:
        raise BusError(f"ubus: {what}: no answer in {seconds:g} s", status=Status.TIMEOUT) from exc


def encoded(fields: Mapping[str, Any]) -> bytes:
    """Encodes the data of a message. Raises BusError if it does not fit."""
    try:
        return blobmsg.encode(fields, limit=REPLY_LIMIT)
    except BlobError as exc:
        raise BusError(f"ubus: this cannot be sent: {exc}") from exc


def _name(status: int | None) -> str:
    return Status(status).name.lower().replace("_", " ") if status in STATUSES else f"status {status}"
