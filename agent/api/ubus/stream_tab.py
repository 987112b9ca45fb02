# SPDX-License-Identifier: GPL-2.0-or-later
"""One stream object on ubus, `ucidockd.stream.<id>`. It carries the streams of all tabs of one browser.

Its name is public, subscriptions outlive a logout, and ubus tells a publisher nothing about its subscribers.
Therefore it has exactly one subscriber (a second one ends it), the owner's session is checked every 5 s, and
everything sent waits in the outbox until it is acknowledged. An owner whose connection broke moves to an object with
a new name: uhttpd may keep the dead connection for a long time, and it would count as a second subscriber.

The same packets can be fetched with `read`, which LuCI's pages do (docs/uhttpd.md has the reason). A fetch
acknowledges the packets before it and ends an earlier fetch, so the newer of two readers wins.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agent.api.problems import RequestError, body_of
from agent.api.streams.stream_sources import Item, OutputOnly, Source, json_item
from agent.errors import BusError, UcidockdError
from agent.status.ring import Ring
from agent.ubus.client import BusObject, UbusClient
from agent.wire import blobmsg
from agent.wire.ubus_message import MESSAGE_LIMIT

logger = logging.getLogger(__name__)

# Keeps what a reader has not acknowledged yet, at most as much as fits in its window.
#
# uhttpd buffers without limit for a browser that does not read, and does not report it. Therefore a reader
# acknowledges what it has read, and the source waits while the window is full: a slow reader slows the source down
# instead of filling memory.


WINDOW = 64 * 1024  # bytes that may be on the way to a reader
PACKET = 16 * 1024  # bytes of one message, unless a single item is larger
PACKETS = 64  # that may be unacknowledged; each is kept, to be sent again
_JOINED = 4096  # characters up to which texts are joined


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """Items sent as one message. `seq` counts from 1 without gaps. `urgent`: some item in it does not wait for others."""

    seq: int
    items: tuple[Mapping[str, Any], ...]
    size: int
    urgent: bool

    def as_json(self) -> dict[str, Any]:
        """The message."""
        return {"seq": self.seq, "items": list(self.items)}


class Outbox:
    """`put` adds items while `has_room`; `pack` makes packets of them, which stay until they are acknowledged."""

    def __init__(self, *, window: int = WINDOW) -> None:
        self._window = window
        # (item, bytes, urgent) that no packet holds yet
        self._waiting: deque[tuple[Mapping[str, Any], int, bool]] = deque()
        self._unacknowledged: Ring[Packet] = Ring()  # kept, because they may have to be sent again
        self._size = 0  # bytes of both

    @property
    def last(self) -> int:
        """The number of the newest packet."""
        return self._unacknowledged.last

    @property
    def acknowledged(self) -> int:
        return self._unacknowledged.lost

    def has_room(self, size: int) -> bool:
        """Whether an item of `size` bytes fits. An empty outbox accepts any size."""
        if not self._size:
            return True
        return self._size + size <= self._window and len(self._unacknowledged) < PACKETS

    def put(self, item: Mapping[str, Any], size: int, *, urgent: bool = True) -> None:
        """Adds an item. Text that follows text of the same stream is joined to it, because logs come line by line."""
        self._size += size
        if self._waiting and (joined := _joined(self._waiting[-1][0], item)) is not None:
            _, before, was_urgent = self._waiting[-1]
            self._waiting[-1] = (joined, before + size, urgent or was_urgent)
        else:
            self._waiting.append((item, size, urgent))

    def pack(self) -> Packet | None:
        """Makes the next packet; None if nothing waits, or too many packets are unacknowledged."""
        # unacknowledged packets may have to be sent again from here, so their number is limited
        if not self._waiting or len(self._unacknowledged) >= PACKETS:
            return None
        items: list[Mapping[str, Any]] = []
        size, is_urgent = 0, False
        # at least one item, however large: otherwise it would wait for ever
        while self._waiting and (not items or size + self._waiting[0][1] <= PACKET):
            item, item_size, urgent = self._waiting.popleft()
            items.append(item)
            size += item_size
            is_urgent |= urgent
        packet = Packet(seq=self.last + 1, items=tuple(items), size=size, urgent=is_urgent)
        self._unacknowledged.add(packet)
        return packet

    def acknowledge(self, seq: int) -> bool:
        """Acknowledges all packets up to `seq`. True if that is new; ValueError if `seq` was never sent."""
        if not 0 <= seq <= self.last:
            raise ValueError(f"seq {seq}: expected 0 to {self.last}")
        if seq <= self.acknowledged:
            return False
        while self.acknowledged < seq:
            self._size -= self._unacknowledged.forget().size
        return True

    def after(self, seq: int) -> list[Packet]:
        """The unacknowledged packets after `seq`."""
        return [packet for _, packet in self._unacknowledged.after(seq)]

    def holds(self, seq: int, *, urgent: bool = False) -> bool:
        """Whether there is anything after that packet, packed or not; with `urgent`, anything urgent."""
        if not urgent:
            return bool(self._waiting) or self.last > seq
        return any(item[2] for item in self._waiting) or any(packet.urgent for packet in self.after(seq))


def _joined(last: Mapping[str, Any], item: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Both items as one; None if they are of different kinds, or the text would get too long."""
    if last.keys() != item.keys() or "text" not in item or len(last["text"]) + len(item["text"]) > _JOINED:
        return None
    if any(last[name] != item[name] for name in item if name != "text"):
        return None
    return {**last, "text": last["text"] + item["text"]}


PREFIX = "ucidockd.stream."
SOURCES = 64  # streams of one tab
SESSION_S = 5.0  # between checks whether the session still has the right
UNREAD_S = 15.0  # without an acknowledgement for this long, the reader is gone or too slow
IDLE_S = 25.0  # allowed time without a subscriber and without a fetch
PING_S = 10.0  # after this silence a ping is sent, which must be acknowledged
# Each fetch is an HTTP request of the browser, so its answer waits for what follows: urgent items for the rest of their
# burst, unless a user has just typed; news until it is time for another fetch, as a container in a crash loop is news
# several times a second.
GATHER_S = 0.15
STEADY_S = 0.5  # instead of GATHER_S where fetches follow each other and no console is open
TYPING_S = 1.0
NEWS = frozenset({"change", "event", "stats", "ping"})  # names of items; the first of each stream is urgent
NEWS_S = 2.0  # two fetches begin in it, so that what is rare is shown at once
_NOTIFY_S = 5.0
_TICK_S = 1.0  # between looks for a reader that has gone
# half of what ubusd carries: the same item may be sent in a packet with others
_ITEM_LIMIT = MESSAGE_LIMIT // 2

StillAllowed = Callable[[], Awaitable[bool]]


class Tab:
    """The streams of one browser. `still_allowed` checks the owner's session, and raises BusError without an answer.
    `writes` tells whether the owner is a writer.
    """

    def __init__(
        self,
        number: str,
        session: str,
        bus: UbusClient,
        still_allowed: StillAllowed,
        *,
        writes: bool = True,
    ) -> None:
        self.id = number
        self.session = session
        self.writes = writes
        self.object = self.make_object(number)
        self.moving = asyncio.Lock()  # held while the bus object is replaced
        self._bus = bus
        self._still_allowed = still_allowed
        self._outbox = Outbox()
        # number -> source, its task, its owner
        self._sources: dict[int, tuple[Source, asyncio.Task[None], str]] = {}
        self._last_source = 0
        self._sent = 0  # seq of the last packet sent to the current subscriber
        self._room = asyncio.Event()
        # a stream waits for room: nothing more comes of it before the next fetch
        self._full = asyncio.Event()
        self._turn = asyncio.Lock()  # fair: an endless log does not starve a console
        self._news = asyncio.Event()
        self._end = asyncio.Event()
        self._fetching = 0  # fetches that wait now
        self._fetch = 0  # number of the newest fetch
        self._streak = 0  # fetches in a row that had packets, less than a second apart
        self._answered_at = 0.0
        self._fetched_at = 0.0  # when the newest fetch began
        self._typed_at = 0.0
        self._readers = 0  # how often a subscriber came or left
        self.reason = ""
        now = time.monotonic()
        self._read_at = self._wrote_at = self._attended_at = self._checked_at = now

    def make_object(self, number: str) -> BusObject:
        """A bus object through which this tab can be read."""
        return BusObject(name=PREFIX + number, methods={}, on_subscribed=self._on_subscribed, lasting=False)

    # called for its owner

    def move(self, target: BusObject) -> BusObject:
        """Switches to the bus object `target`, which resends all unacknowledged packets; returns the old object."""
        before, self.object = self.object, target
        self._on_subscribed(target.subscribed)
        return before

    def add(self, source: Source, *, owner: str = "", tag: str = "") -> int:
        """Starts a stream; returns its number. With `tag` its first item is `opened`, with `owner` and `tag`, so that
        the reader can match it to its request.

        Raises RequestError if too many streams are open, or the tab is ending.
        """
        self.check()
        if len(self._sources) >= SOURCES:
            raise RequestError(f"{SOURCES} streams are open in this stream object", status=429)
        self._last_source += 1
        number = self._last_source
        # streams start in the order of the requests, but ubus answers may arrive later than items: the first item
        # identifies the stream
        first = json_item("opened", {"owner": owner, "tag": tag}) if tag else None
        task = asyncio.create_task(self._pump(number, source, first), name=f"stream-{number}")
        self._sources[number] = (source, task, owner)
        return number

    @property
    def streams(self) -> int:
        """The number of open streams."""
        return len(self._sources)

    def check(self) -> None:
        """Raises RequestError if the tab is ending."""
        if self._end.is_set():
            raise RequestError(f"the stream object has ended: {self.reason}", status=404)

    def source(self, number: int) -> Source:
        """The stream with this number. Raises RequestError."""
        try:
            return self._sources[number][0]
        except KeyError as exc:
            raise RequestError(f"stream {number} is not open", status=404) from exc

    def drop(self, number: int) -> None:
        """Ends the stream with this number. Raises RequestError."""
        self.source(number)
        self._sources.pop(number)[1].cancel()

    def drop_of(self, owner: str) -> None:
        """Ends the streams that were opened with this owner."""
        for number in [number for number, (*_, whose) in self._sources.items() if whose == owner]:
            self.drop(number)

    def acknowledge(self, seq: int) -> None:
        """Acknowledges all packets up to `seq`. Raises RequestError."""
        try:
            progress = self._outbox.acknowledge(seq)
        except ValueError as exc:
            raise RequestError(str(exc)) from exc
        # only a new acknowledgement is a sign of life: repeating the last one would keep a stuck reader alive
        if progress:
            self._read_at = time.monotonic()
            self._room.set()
            self._full.clear()
            self._news.set()

    async def read(self, after: int, wait_s: float) -> dict[str, Any]:
        """Acknowledges `after` and returns the packets after it; waits up to `wait_s` for one, and then for what belongs
        to it. An earlier fetch ends and gets `replaced`.

        Raises RequestError.
        """
        # a fetch acknowledges the one before it, so no other acknowledgement is needed
        self.acknowledge(after)
        self._fetch += 1
        mine = self._fetch
        before, self._fetched_at = self._fetched_at, time.monotonic()
        news_at = min(before + NEWS_S, self._fetched_at + wait_s)
        self._news.set()
        self._fetching += 1
        packets: list[Packet] = []
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    while self._waits(mine) and not self._outbox.holds(after):
                        self._news.clear()
                        await self._news.wait()
            if self._outbox.holds(after):
                await self._gather(mine, after, news_at)
                packets = self._packed(after)
                self._answered_at = time.monotonic()
        finally:
            self._fetching -= 1
            self._attended_at = self._read_at = time.monotonic()
        if self._fetch != mine and not self._end.is_set():
            return {"packets": [], "replaced": True}
        answer: dict[str, Any] = {"packets": [packet.as_json() for packet in packets]}
        return {**answer, "closed": self.reason} if self._end.is_set() else answer

    def _waits(self, fetch: int) -> bool:
        return self._fetch == fetch and not self._end.is_set()

    async def _gather(self, fetch: int, after: int, news_at: float) -> None:
        """Waits for what comes with the packets after `after`; with news alone until `news_at`."""
        now = time.monotonic()
        self._streak = self._streak + 1 if now - self._answered_at < 1 else 0
        # what a console shows is looked at while it comes
        has_console = not all(isinstance(source, OutputOnly) for source, *_ in self._sources.values())
        span = STEADY_S if self._streak > 1 and not has_console else GATHER_S
        news_at, urgent_at = max(news_at, now + span), None
        # a stream that waits for room gives nothing more before the next fetch
        while self._waits(fetch) and not self._full.is_set():
            if urgent_at is None and self._outbox.holds(after, urgent=True):
                urgent_at = now + span
            is_typing = urgent_at is not None and now - self._typed_at < TYPING_S
            left = (urgent_at or news_at) - now
            if is_typing or left <= 0:
                return
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._news.wait()
            now = time.monotonic()

    def typed(self) -> None:
        """A user types: what the consoles show now must not wait."""
        self._typed_at = time.monotonic()
        self._news.set()

    def _packed(self, after: int) -> list[Packet]:
        while self._outbox.pack() is not None:
            pass
        return self._outbox.after(after)

    # life cycle

    def end(self, reason: str) -> None:
        """Ends the tab; `run` returns."""
        self.reason = self.reason or reason
        self._end.set()
        self._news.set()

    async def run(self) -> None:
        """Delivers packets and watches the owner until the end, then ends the streams."""
        tasks = [
            asyncio.create_task(self._deliver(), name="stream-deliver"),
            asyncio.create_task(self._watch(), name="stream-watch"),
        ]
        try:
            await self._end.wait()
        finally:
            # otherwise their requests to the engine would continue unread
            tasks += [task for _, task, _ in self._sources.values()]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            self._sources.clear()

    async def notify_closed(self) -> None:
        """Tells the subscriber why the tab ends. Raises BusError."""
        if self.object.subscribed:
            await self._bus.notify(self.object, "closed", {"reason": self.reason})

    # filling the outbox

    async def _pump(self, number: int, source: Source, first: Item | None) -> None:
        """Copies one stream into the outbox, to its end."""
        items = source.items()
        try:
            if first is not None:
                await self._put(number, first)
            await self._copy(number, items)
            # each stream reports its own end, because the tab continues with the others
            await self._put(number, json_item("end", {}))
        except UcidockdError as exc:
            await self._put(number, json_item("error", body_of(exc)["error"]))
        except Exception:
            logger.exception("a stream failed")
            await self._put(number, json_item("error", {"code": "internal", "message": "internal error"}))
        finally:
            await items.aclose()
            self._sources.pop(number, None)

    async def _copy(self, number: int, items: AsyncGenerator[Item, None]) -> None:
        is_first = True
        async for item in items:
            await self._put(number, item, urgent=is_first or item["name"] not in NEWS)
            is_first = False

    async def _put(self, number: int, item: Item, *, urgent: bool = True) -> None:
        """Adds an item; waits while the window is full."""
        entry = {"stream": number, **item}
        try:
            size = len(blobmsg.encode(entry, limit=_ITEM_LIMIT))
        except blobmsg.BlobError as exc:
            entry = {"stream": number, **json_item("error", {"code": "too-large", "message": str(exc)})}
            size = len(blobmsg.encode(entry))
        # the lock is fair, the event is not: without the lock all waiters would wake up and the fastest would win
        async with self._turn:
            while not self._outbox.has_room(size):
                self._room.clear()
                self._full.set()
                self._news.set()
                await self._room.wait()
        if self._outbox.last == self._outbox.acknowledged:
            self._read_at = time.monotonic()  # until now there was nothing to acknowledge
        self._wrote_at = time.monotonic()
        self._outbox.put(entry, size, urgent=urgent)
        self._news.set()

    # delivering

    def _on_subscribed(self, subscribed: bool) -> None:  # noqa: FBT001 - the bus's callback
        self._attended_at = self._read_at = time.monotonic()
        self._readers += 1
        if subscribed:
            self._sent = self._outbox.acknowledged  # a new reader gets what the old one did not acknowledge
        self._news.set()

    async def _deliver(self) -> None:
        while not self._end.is_set():
            self._news.clear()
            while self.object.subscribed and not self._end.is_set() and (packet := self._next()) is not None:
                await self._notify(packet)
            await self._news.wait()

    def _next(self) -> Packet | None:
        unsent = self._outbox.after(self._sent)
        return unsent[0] if unsent else self._outbox.pack()

    async def _notify(self, packet: Packet) -> None:
        # set before sending, because the answer may arrive after the reader has changed
        self._sent, reader = packet.seq, self._readers
        try:
            readers = await self._bus.notify(self.object, "data", packet.as_json(), answer_s=_NOTIFY_S)
        except BusError as exc:
            # a reader that left meanwhile does not answer, and gets the packet again when it returns
            if reader == self._readers:
                self.end(f"the reader did not take a message: {exc}")
            return
        if readers > 1:
            self.end("another reader connected")

    # watching

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            reason = self._overdue(time.monotonic()) or await self._session_ended()
            if reason:
                self.end(reason)
                return

    def _overdue(self, now: float) -> str:
        """Why the tab has to end; "" if it does not."""
        # ubusd drops a subscriber whose connection ends; a page that fetches is visible only during a fetch
        attended = self.object.subscribed or self._fetching > 0
        if not attended:
            return "no reader" if now - self._attended_at > IDLE_S else ""
        unread = self._outbox.last > self._outbox.acknowledged
        if unread and not self._fetching and now - self._read_at > UNREAD_S:
            return "nothing was acknowledged in time"
        if not unread and now - self._wrote_at > PING_S and self._outbox.has_room(1):
            self._read_at = self._wrote_at = now
            self._outbox.put({"stream": 0, **json_item("ping", {})}, 1, urgent=False)
            self._news.set()
        return ""

    async def _session_ended(self) -> str:
        """Checks the session every SESSION_S. Without an answer it is checked again at once; a second failure counts
        as a no.
        """
        if time.monotonic() - self._checked_at < SESSION_S:
            return ""
        # a second try, because rpcd may be restarting
        for _ in range(2):
            try:
                allowed = await self._still_allowed()
            except BusError:
                continue
            self._checked_at = time.monotonic()
            return "" if allowed else "the session ended"
        return "the session cannot be checked"
