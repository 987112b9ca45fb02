# SPDX-License-Identifier: GPL-2.0-or-later
"""A ubusd for tests, on asyncio: it routes messages like the real one (ubus/ubusd_proto.c, ubusd_event.c).

The real one is not available on Debian. `tests/ubus/test_fake_ubusd.py` compares this one with recorded conversations
of the real one; if a real ubusd is on PATH, the same tests run on both.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from pathlib import Path

from agent.wire import blobmsg
from agent.wire.ubus_message import (
    EVENT_OBJECT,
    Attr,
    AttrValue,
    Decoder,
    Message,
    MessageType,
    Status,
    encode_message,
)

Attributes = dict[Attr, AttrValue]


@dataclass(eq=False)
class _Object:
    id: int
    owner: _Peer
    path: str = ""
    signature: bytes | None = None
    patterns: list[str] = field(default_factory=list)
    subscribers: list[_Object] = field(default_factory=list)


@dataclass(eq=False)
class _Peer:
    id: int
    writer: asyncio.StreamWriter
    user: str = "root"

    def send(self, message: Message) -> None:
        if not self.writer.is_closing():
            self.writer.write(encode_message(message))


class _StatusError(Exception):
    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


class FakeUbusd:
    """`async with FakeUbusd(path):` listens. `stop` and `start` are a restart, after which all objects are gone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ids = itertools.count(0x7FFF_FFF0)  # around INT32_MAX, like the random ids of the real one
        self._seq = itertools.count(1)
        self._objects: dict[int, _Object] = {}
        self._peers: dict[int, _Peer] = {}
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> FakeUbusd:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for peer in list(self._peers.values()):
            peer.writer.transport.abort()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._objects.clear()
        self.path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        peer = _Peer(next(self._ids), writer)
        self._peers[peer.id] = peer
        decoder = Decoder()
        try:
            peer.send(Message(MessageType.HELLO, 0, peer.id))
            while data := await reader.read(65536):
                for message in decoder.feed(data):
                    self._take(peer, message)
        except ConnectionError:
            pass
        finally:
            del self._peers[peer.id]
            for owned in [o for o in self._objects.values() if o.owner is peer]:
                self._free(owned)
            writer.transport.abort()
            self._tasks.discard(task)

    def _take(self, peer: _Peer, message: Message) -> None:
        handlers = {
            MessageType.LOOKUP: self._lookup,
            MessageType.INVOKE: self._invoke,
            MessageType.ADD_OBJECT: self._add,
            MessageType.REMOVE_OBJECT: self._remove,
            MessageType.SUBSCRIBE: self._subscribe,
            MessageType.UNSUBSCRIBE: self._unsubscribe,
            MessageType.NOTIFY: self._notify,
            MessageType.STATUS: self._forward_answer,
            MessageType.DATA: self._forward_answer,
        }
        try:
            handler = handlers.get(MessageType(message.kind))
            if handler is None:
                raise _StatusError(Status.INVALID_COMMAND)
            if handler(peer, message):
                self._status(peer, message, Status.OK)
        except _StatusError as exc:
            self._status(peer, message, exc.status)

    def _status(self, peer: _Peer, message: Message, status: Status) -> None:
        peer.send(Message(MessageType.STATUS, message.seq, message.peer, {Attr.STATUS: status}))

    def _data(self, peer: _Peer, message: Message, attributes: Attributes) -> None:
        peer.send(Message(MessageType.DATA, message.seq, message.peer, attributes))

    # handlers: True if ubusd itself answers with status OK

    def _lookup(self, peer: _Peer, message: Message) -> bool:
        path = message.text(Attr.OBJPATH)
        shown = sorted(
            (o for o in self._objects.values() if o.path and o.signature is not None), key=lambda o: o.path
        )
        if path is not None:
            start = path.removesuffix("*")
            shown = [o for o in shown if o.path == path or (path != start and o.path.startswith(start))]
            if not shown:
                raise _StatusError(Status.NOT_FOUND)
        for found in shown:
            attributes: Attributes = {
                Attr.OBJPATH: found.path,
                Attr.OBJID: found.id,
                Attr.OBJTYPE: found.id + 1,
            }
            self._data(peer, message, attributes | {Attr.SIGNATURE: found.signature or b""})
        return True

    def _invoke(self, peer: _Peer, message: Message) -> bool:
        object_id, method = message.number(Attr.OBJID), message.text(Attr.METHOD)
        if object_id is None or method is None:
            raise _StatusError(Status.INVALID_ARGUMENT)
        if object_id == EVENT_OBJECT:
            return self._event(peer, method, blobmsg.decode(message.raw(Attr.DATA) or b""))
        found = self._find(object_id)
        self._call(peer, found, message, {})
        return False

    def _call(self, peer: _Peer, called: _Object, message: Message, head: Attributes) -> None:
        attributes: Attributes = head | {
            Attr.OBJID: called.id,
            Attr.METHOD: message.text(Attr.METHOD) or "",
            Attr.USER: peer.user,
            Attr.GROUP: peer.user,
        }
        if (data := message.raw(Attr.DATA)) is not None:
            attributes[Attr.DATA] = data
        called.owner.send(Message(MessageType.INVOKE, message.seq, peer.id, attributes))

    def _event(self, peer: _Peer, method: str, data: blobmsg.Table) -> bool:
        if method == "register":
            wanted, pattern = data.get("object"), data.get("pattern")
            if not isinstance(wanted, int) or not isinstance(pattern, str):
                raise _StatusError(Status.INVALID_ARGUMENT)
            listener = self._find(wanted % 2**32)
            if listener.owner is not peer:
                raise _StatusError(Status.PERMISSION_DENIED)
            listener.patterns.append(pattern)
            return True
        if method != "send":
            raise _StatusError(Status.INVALID_COMMAND)
        name, body = data.get("id"), data.get("data")
        if not isinstance(name, str) or not isinstance(body, dict):
            raise _StatusError(Status.INVALID_ARGUMENT)
        if name.startswith("ubus."):
            raise _StatusError(Status.PERMISSION_DENIED)
        self._send_event(name, body, sender=peer)
        return True

    def _send_event(self, name: str, body: blobmsg.Table, sender: _Peer | None) -> None:
        for listener in list(self._objects.values()):
            heard = any(
                name == pattern or (pattern.endswith("*") and name.startswith(pattern[:-1]))
                for pattern in listener.patterns
            )
            if heard and listener.owner is not sender:  # events are not sent back to their sender
                attributes: Attributes = {
                    Attr.OBJID: listener.id,
                    Attr.METHOD: name,
                    Attr.DATA: blobmsg.encode(body),  # type: ignore[arg-type]  # what was decoded can be encoded
                }
                listener.owner.send(Message(MessageType.INVOKE, next(self._seq), 0, attributes))

    def _add(self, peer: _Peer, message: Message) -> bool:
        path = message.text(Attr.OBJPATH) or ""
        if path and any(o.path == path for o in self._objects.values()):
            raise _StatusError(Status.INVALID_ARGUMENT)
        made = _Object(next(self._ids), peer, path, message.raw(Attr.SIGNATURE))
        self._objects[made.id] = made
        if path:
            self._send_event("ubus.object.add", {"id": made.id % 2**31, "path": path}, None)
        attributes: Attributes = {Attr.OBJID: made.id}
        if made.signature is not None:
            attributes[Attr.OBJTYPE] = made.id + 1
        self._data(peer, message, attributes)
        return True

    def _remove(self, peer: _Peer, message: Message) -> bool:
        found = self._own(peer, message)
        attributes: Attributes = {Attr.OBJID: found.id}
        if found.signature is not None:
            attributes[Attr.OBJTYPE] = found.id + 1
        self._data(peer, message, attributes)
        self._free(found)
        return True

    def _free(self, gone: _Object) -> None:
        del self._objects[gone.id]
        for other in self._objects.values():
            if gone in other.subscribers:
                self._leave(gone, other)
        for subscriber in gone.subscribers:
            attributes: Attributes = {Attr.OBJID: subscriber.id, Attr.TARGET: gone.id}
            subscriber.owner.send(Message(MessageType.UNSUBSCRIBE, next(self._seq), 0, attributes))
        if gone.path:
            self._send_event("ubus.object.remove", {"id": gone.id % 2**31, "path": gone.path}, None)

    def _subscribe(self, peer: _Peer, message: Message) -> bool:
        subscriber = self._own(peer, message)
        target = self._find(message.number(Attr.TARGET) or 0)
        if target.owner is peer:
            raise _StatusError(Status.INVALID_ARGUMENT)
        target.subscribers.insert(0, subscriber)
        if len(target.subscribers) == 1:
            self._tell_active(target)
        return True

    def _unsubscribe(self, peer: _Peer, message: Message) -> bool:
        subscriber = self._own(peer, message)
        target = self._find(message.number(Attr.TARGET) or 0)
        if subscriber not in target.subscribers:
            raise _StatusError(Status.NOT_FOUND)
        self._leave(subscriber, target)
        return True

    def _leave(self, subscriber: _Object, target: _Object) -> None:
        target.subscribers.remove(subscriber)
        if not target.subscribers:
            self._tell_active(target)

    def _tell_active(self, target: _Object) -> None:
        attributes: Attributes = {Attr.OBJID: target.id, Attr.ACTIVE: bool(target.subscribers)}
        target.owner.send(Message(MessageType.NOTIFY, next(self._seq), 0, attributes))

    def _notify(self, peer: _Peer, message: Message) -> bool:
        found = self._own(peer, message)
        quiet = message.flag(Attr.NO_REPLY)
        if not quiet:
            told = tuple(subscriber.id for subscriber in found.subscribers)
            answer: Attributes = {Attr.OBJID: found.id, Attr.SUBSCRIBERS: told, Attr.STATUS: 0}
            peer.send(Message(MessageType.STATUS, message.seq, message.peer, answer))
        for subscriber in found.subscribers:
            self._call(peer, subscriber, message, {Attr.NO_REPLY: True} if quiet else {})
        return False

    def _forward_answer(self, peer: _Peer, message: Message) -> bool:
        answered = self._objects.get(message.number(Attr.OBJID) or 0)
        caller = self._peers.get(message.peer)
        if answered is not None and answered.owner is peer and caller is not None:
            caller.send(Message(message.kind, message.seq, answered.id, message.attributes))
        return False

    def _find(self, object_id: int) -> _Object:
        if object_id not in self._objects:
            raise _StatusError(Status.NOT_FOUND)
        return self._objects[object_id]

    def _own(self, peer: _Peer, message: Message) -> _Object:
        found = self._find(message.number(Attr.OBJID) or 0)
        if found.owner is not peer:
            raise _StatusError(Status.PERMISSION_DENIED)
        return found
