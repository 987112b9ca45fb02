# SPDX-License-Identifier: GPL-2.0-or-later
"""A ubus client for asyncio: calls, our own objects with typed arguments that are checked, notifications, subscriptions,
events.

`run` keeps the connection until it is cancelled. If ubusd goes away and returns, it reconnects within 3 s, publishes every
object again under its name and renews every subscription. Without ubusd it keeps trying and logs only at level debug.

Each call of one of our methods runs as its own task with a deferred reply, so a slow call does not delay others. At
most CALLS run at once; further ones are refused.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.errors import BusError
from agent.ubus.link import (
    REPLY_LIMIT,
    STATUSES,
    TIMEOUT_S,
    Attributes,
    Link,
    StaleIdError,
    deadline,
    encoded,
)
from agent.wire import blobmsg
from agent.wire.blobmsg import BlobError, TooLargeError, Type
from agent.wire.ubus_message import EVENT_OBJECT, Attr, Message, MessageError, MessageType, Status

SESSION = "ubus_rpc_session"  # rpcd and uhttpd add this argument to each call

STRING, TABLE, ARRAY, INTEGER, BOOLEAN = Type.STRING, Type.TABLE, Type.ARRAY, Type.INT32, Type.INT8

# what each type is decoded to
_PYTHON: Mapping[Type, type] = {STRING: str, TABLE: dict, ARRAY: list, INTEGER: int, BOOLEAN: bool}

Arguments = Mapping[str, Any]
Reply = Mapping[str, Any]
Handler = Callable[[Arguments], Awaitable[Reply | None]]

TOO_LARGE = "the reply is larger than ubus carries (1 MiB)"
_OVERSIZE: Reply = {"error": {"code": "too-large", "message": TOO_LARGE}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """`handler` gets checked arguments, each of which may be missing. If it raises BusError, that becomes the call's
    status.

    `oversize` is sent instead of a reply that is too large for ubus.
    """

    handler: Handler
    args: Mapping[str, Type] = field(default_factory=dict)
    oversize: Reply = field(default_factory=lambda: _OVERSIZE)


@dataclass(slots=True, kw_only=True, eq=False)
class BusObject:
    """An object with a public name. `on_subscribed` is called when the first subscriber comes and when the last one leaves.

    A `lasting` object is published again after each reconnection.
    """

    name: str
    methods: Mapping[str, Method]
    on_subscribed: Callable[[bool], None] | None = None
    lasting: bool = True
    object_id: int = 0  # assigned by ubusd; 0 while the object is not published
    subscribed: bool = False

    def set_subscribed(self, *, subscribed: bool) -> None:
        """Takes ubusd's report whether there are subscribers."""
        self.subscribed = subscribed
        if self.on_subscribed is not None:
            self.on_subscribed(subscribed)

    def unpublished(self) -> None:
        """Resets the object: ubusd no longer has it."""
        self.object_id, self.subscribed = 0, False

    def signature(self) -> bytes:
        """The methods and the types of their arguments, as `ubus -v list` shows them."""
        return blobmsg.encode({name: dict(method.args) for name, method in self.methods.items()})

    def found(self, name: str) -> Method:
        """The method with this name. Raises BusError."""
        try:
            return self.methods[name]
        except KeyError as exc:
            raise BusError(f"{self.name} has no method {name}", status=Status.METHOD_NOT_FOUND) from exc


def read_arguments(method: Method, data: bytes | None) -> Arguments:
    """Decodes and checks the arguments of a call. Raises BusError (INVALID_ARGUMENT) for an unknown name, a wrong
    type, or invalid data.
    """
    try:
        given = blobmsg.decode(data or b"")
    except BlobError as exc:
        raise BusError(f"arguments: {exc}", status=Status.INVALID_ARGUMENT) from exc
    for name, value in given.items():
        wanted = STRING if name == SESSION else method.args.get(name)
        if wanted is None:
            raise BusError(f"unknown argument {name[:64]!r}", status=Status.INVALID_ARGUMENT)
        # in Python a boolean is an int, on ubus it is not
        if not isinstance(value, _PYTHON[wanted]) or (isinstance(value, bool) and wanted is not BOOLEAN):
            raise BusError(f"{name}: expected {wanted.name.lower()}", status=Status.INVALID_ARGUMENT)
    return given


logger = logging.getLogger(__name__)

SOCKET = "/var/run/ubus/ubus.sock"
CALLS = 64  # of our methods at a time
_BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0)
_TAKEN_RETRY_S = 10.0  # between tries for a name that another program holds
_OBJECT_ADDED = "ubus.object.add"

Callback = Callable[[str, Mapping[str, Any]], None]


@dataclass(slots=True, eq=False)
class _Listener:
    """An anonymous object that receives the notifications of `target`, or the events that match `pattern`."""

    callback: Callback
    target: str = ""
    pattern: str = ""
    subscribed: bool = False


class UbusClient:
    """`path` is ubusd's socket. `jitter` scales the delays between attempts to connect."""

    def __init__(
        self, path: str = SOCKET, *, jitter: Callable[[], float] = lambda: 0.75 + random.random() / 2
    ) -> None:
        self._path = path
        self._jitter = jitter
        self._objects: list[BusObject] = []  # published again at each connection
        self._listeners: list[_Listener] = []  # subscribed again at each connection
        self._link: Link | None = None
        # by the id that ubusd gave them, on this connection
        self._locals: dict[int, BusObject | _Listener] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._calls = 0  # of our methods, in progress
        # or the set-up of a connection and `add_object` could both publish an object
        self._publishing = asyncio.Lock()
        self._on_lost: list[Callable[[], None]] = []
        # set while connected, with everything published and subscribed that can be
        self.ready = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether we are connected to ubusd."""
        return self._link is not None

    # what we publish and subscribe to

    async def add_object(self, added: BusObject) -> None:
        """Publishes an object, at once if connected. Raises BusError, for example if the name is taken."""
        self._objects.append(added)
        if self._link is not None:
            try:
                await self._publish(self._link, added)
            except BusError:
                self._objects.remove(added)
                raise

    async def remove_object(self, removed: BusObject) -> None:
        """Withdraws an object; ubusd tells its subscribers. Raises BusError."""
        if removed in self._objects:
            self._objects.remove(removed)
        object_id = removed.object_id
        removed.unpublished()
        if self._link is not None and object_id:
            self._locals.pop(object_id, None)
            async with deadline(TIMEOUT_S, "remove object"):
                await self._link.request(MessageType.REMOVE_OBJECT, {Attr.OBJID: object_id})

    def subscribe(self, target: str, callback: Callback) -> None:
        """Calls `callback(type, data)` for each notification of an object, whenever that object exists.
        Call before `run`.
        """
        self._listeners.append(_Listener(callback, target=target))

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Calls `callback` each time a connection has ended."""
        self._on_lost.append(callback)

    # requests

    async def lookup(self, pattern: str = "") -> dict[str, dict[str, Any]]:
        """Published objects by name, with the types of their methods' arguments. Raises BusError."""
        attributes: Attributes = {Attr.OBJPATH: pattern} if pattern else {}
        async with deadline(TIMEOUT_S, "lookup"):
            request = await self._live().request(MessageType.LOOKUP, attributes)
        try:
            return {
                part.text(Attr.OBJPATH) or "": blobmsg.decode(part.raw(Attr.SIGNATURE) or b"")
                for part in request.parts
            }
        except BlobError as exc:
            raise BusError(f"ubus: lookup: the answer is broken: {exc}") from exc

    async def call(
        self, name: str, method: str, args: Mapping[str, Any] | None = None, *, timeout_s: float = TIMEOUT_S
    ) -> dict[str, Any]:
        """Calls a method of another process's object. Raises BusError with the status of the answer."""
        data = encoded(args or {})
        async with deadline(timeout_s, f"{name} {method}"):
            link = self._live()
            try:
                return await link.invoke(await link.id_of(name, known=True), method, data)
            except StaleIdError:  # the process of the object was restarted; nothing has been called yet
                return await link.invoke(await link.id_of(name, known=False), method, data)

    async def notify(
        self, source: BusObject, kind: str, data: Mapping[str, Any], *, answer_s: float | None = None
    ) -> int:
        """Notifies the subscribers of one of our objects.

        With `answer_s` (seconds) it waits until each subscriber has acknowledged, and returns their number. Otherwise
        subscribers do not answer, and it returns 0. Raises BusError if the object is not published, an
        acknowledgement does not come in time, or the notification is too large.
        """
        link = self._live()
        if not source.object_id:
            raise BusError(f"ubus: {source.name} is not published")
        attributes: Attributes = {
            Attr.OBJID: source.object_id,
            Attr.METHOD: kind,
            Attr.DATA: encoded(data),
        }
        # without a request for answers a subscriber that hangs cannot delay the others
        if answer_s is None:
            await link.notify(source.object_id, attributes)
            return 0
        async with deadline(answer_s, f"{source.name}: notification {kind}"):
            request = await link.request(MessageType.NOTIFY, attributes, peer=source.object_id)
        return len(request.subscribers)

    def _live(self) -> Link:
        if self._link is None:
            raise BusError("ubus: no connection")
        return self._link

    # the connection

    async def run(self) -> None:
        """Keeps the connection until it is cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                delays = self._delays()
                while True:
                    # do not retry in a tight loop if ubusd runs but refuses us
                    if await self._one_connection():
                        delays = self._delays()
                    await asyncio.sleep(next(delays))
        finally:
            self._tasks = None

    def _delays(self) -> Iterator[float]:
        for delay in _BACKOFF_S:
            yield delay * self._jitter()
        while True:
            yield _BACKOFF_S[-1] * self._jitter()

    async def _one_connection(self) -> bool:
        """Serves one connection until it ends. Returns True if everything had been published."""
        try:
            link = await Link.open(self._path)
        except (OSError, MessageError, BusError) as exc:
            logger.debug("ubus: %s", exc)
            return False
        self._link = link
        # as a task, because its answers arrive through the loop below
        setup = self._spawn(self._set_up(link), "ubus-setup")
        try:
            while messages := await link.read():
                for message in messages:
                    self._take(link, message)
        except (OSError, MessageError, BusError) as exc:
            logger.debug("ubus: the connection broke: %s", exc)
        finally:
            was_ready = self.ready.is_set()
            setup.cancel()
            # ubusd forgets all our objects when the connection ends
            self._forget(link)
        return was_ready

    def _forget(self, link: Link) -> None:
        self.ready.clear()
        self._link = None
        self._locals.clear()
        link.abort()
        # ubusd has forgotten them with the connection
        for owned in self._objects:
            owned.unpublished()
        self._objects = [owned for owned in self._objects if owned.lasting]
        for callback in self._on_lost:
            callback()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        if self._tasks is None:
            work.close()
            raise BusError("ubus: not running")
        return self._tasks.create_task(work, name=name)

    async def _set_up(self, link: Link) -> None:
        """Subscribes and publishes. A name that another process has taken is retried indefinitely."""
        try:
            async with deadline(TIMEOUT_S, "set-up"):
                listeners = list(self._listeners)
                if any(listener.target for listener in listeners):
                    # before subscribing: an object that appears during the subscription would otherwise be missed
                    listeners.insert(0, _Listener(self._on_object_added, pattern=_OBJECT_ADDED))
                for listener in listeners:
                    listener.subscribed = False
                    object_id = await self._add(link, listener, {})
                    if listener.target:
                        await self._subscribe(link, listener, object_id)
                    else:
                        where = object_id - 2**32 if object_id >= 2**31 else object_id  # INT32 is signed
                        data = encoded({"object": where, "pattern": listener.pattern})
                        await link.invoke(EVENT_OBJECT, "register", data)
            warned: set[str] = set()
            while True:
                taken = set()
                for owned in list(self._objects):
                    try:
                        await self._publish(link, owned)
                    except BusError as exc:
                        if exc.status != Status.INVALID_ARGUMENT:
                            # what ubusd answers for a name that is taken
                            raise
                        taken.add(owned.name)
                self.ready.set()
                if not taken:
                    return
                if taken - warned:
                    logger.warning("ubus: another process already publishes %s", ", ".join(sorted(taken)))
                warned |= taken
                await asyncio.sleep(_TAKEN_RETRY_S)
        except BusError as exc:
            logger.debug("ubus: set-up: %s", exc)
            link.abort()

    # publishing

    async def _publish(self, link: Link, owned: BusObject) -> None:
        async with self._publishing, deadline(TIMEOUT_S, f"publish {owned.name}"):
            if not owned.object_id and owned in self._objects:
                attributes: Attributes = {Attr.OBJPATH: owned.name, Attr.SIGNATURE: owned.signature()}
                owned.object_id = await self._add(link, owned, attributes)

    async def _add(self, link: Link, local: BusObject | _Listener, attributes: Attributes) -> int:
        """Adds an object; returns its id. The object is registered at once, because the first call may arrive with
        the answer.
        """

        def known(message: Message) -> None:
            self._locals[message.number(Attr.OBJID) or 0] = local

        return (await link.request(MessageType.ADD_OBJECT, attributes, on_data=known)).first_id()

    # subscribing

    async def _subscribe(self, link: Link, listener: _Listener, object_id: int) -> None:
        """Subscribes if the target exists; otherwise an event will announce the target later."""
        try:
            target = await link.id_of(listener.target, known=False)
            await link.request(MessageType.SUBSCRIBE, {Attr.OBJID: object_id, Attr.TARGET: target})
        except BusError as exc:
            if exc.status != Status.NOT_FOUND:
                raise
            return
        listener.subscribed = True

    def _on_object_added(self, _: str, data: Mapping[str, Any]) -> None:
        for object_id, listener in self._locals.items():
            if (
                isinstance(listener, _Listener)
                and not listener.subscribed
                and listener.target == data.get("path")
            ):
                self._spawn(self._renew(listener, object_id), "ubus-subscribe")

    async def _renew(self, listener: _Listener, object_id: int) -> None:
        try:
            async with deadline(TIMEOUT_S, f"subscribe to {listener.target}"):
                await self._subscribe(self._live(), listener, object_id)
        except BusError as exc:
            logger.debug("%s", exc)

    # incoming messages

    def _take(self, link: Link, message: Message) -> None:
        if message.kind in (MessageType.STATUS, MessageType.DATA):
            link.take_answer(message)
            return
        local = self._locals.get(message.number(Attr.OBJID) or 0)
        if message.kind == MessageType.INVOKE:
            if local is None:
                link.answer(message, Status.NOT_FOUND)
            elif isinstance(local, _Listener):
                try:
                    local.callback(
                        message.text(Attr.METHOD) or "", blobmsg.decode(message.raw(Attr.DATA) or b"")
                    )
                except BlobError as exc:
                    logger.debug("ubus: a broken notification: %s", exc)
                if message.peer:  # an event has no sender
                    link.answer(message, Status.OK)
            # refuse further calls, since each costs memory; the caller learns at once that there are too many
            elif self._calls >= CALLS:
                logger.debug("ubus: %d calls are in progress, another one was refused", CALLS)
                link.answer(message, Status.NO_MEMORY)
            else:
                self._calls += 1
                self._spawn(self._serve(link, local, message), f"ubus-{local.name}")
        elif message.kind == MessageType.NOTIFY and isinstance(local, BusObject):
            local.set_subscribed(subscribed=message.flag(Attr.ACTIVE))
            if not local.subscribed:
                link.nobody_listens(local.object_id)
        elif message.kind == MessageType.UNSUBSCRIBE and isinstance(local, _Listener):
            local.subscribed = False

    async def _serve(self, link: Link, owned: BusObject, message: Message) -> None:
        """Serves one call of one of our methods, as its own task."""
        try:
            status, reply = await _handled(owned, message)
            link.answer(message, status, reply)
            await link.drain()
        except BusError as exc:
            logger.debug("ubus: the reply was not sent: %s", exc)
        finally:
            self._calls -= 1


async def _handled(owned: BusObject, message: Message) -> tuple[Status, bytes | None]:
    """Runs the method; returns the status and the reply."""
    name = message.text(Attr.METHOD) or ""
    try:
        method = owned.found(name)
        reply = await method.handler(read_arguments(method, message.raw(Attr.DATA)))
        return Status.OK, None if reply is None else _reply(method, reply)
    except BusError as exc:
        logger.debug("ubus: %s %s: %s", owned.name, name, exc)
        return Status(exc.status) if exc.status and exc.status in STATUSES else Status.UNKNOWN_ERROR, None
    except BlobError as exc:  # for example a value that is nested too deeply
        logger.warning("ubus: %s %s: the reply cannot be sent: %s", owned.name, name, exc)
        return Status.UNKNOWN_ERROR, None
    except Exception:
        logger.exception("ubus: %s %s failed", owned.name, name)
        return Status.UNKNOWN_ERROR, None


def _reply(method: Method, reply: Mapping[str, Any]) -> bytes:
    try:
        return blobmsg.encode(reply, limit=REPLY_LIMIT)
    except TooLargeError:
        return blobmsg.encode(method.oversize)
