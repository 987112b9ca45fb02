# SPDX-License-Identifier: GPL-2.0-or-later
"""A browser's stream object on ubus: `ucidockd.stream.<id>`, with the streams of all its tabs in it.

Its name is public, subscriptions outlive a logout, and ubus tells a publisher nothing about its subscribers. So there
is exactly one subscriber (a second one ends the stream), the owner's session is asked for every 5 s, and all that was
sent waits in the outbox until it is acknowledged. An owner whose connection broke moves the tab to an object of another
name: uhttpd may hold the dead connection for long, and it would count as the second subscriber. The same packets can be
fetched by `read`, which is what LuCI's pages do (docs/uhttpd.md says why): a fetch acknowledges what it follows on, and
ends the fetch before it, so that of two readers the newer one reads.
"""

from __future__ import annotations

import asyncio
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
from agent.ubus.client import UbusClient
from agent.ubus.objects import BusObject
from agent.wire import blobmsg
from agent.wire.ubus_message import MESSAGE_LIMIT

logger = logging.getLogger(__name__)

# What a reader has not acknowledged yet, and no more of it than fits in its window.
#
# uhttpd buffers without bound for a browser that does not read, and tells us nothing of it. So a reader acknowledges what
# it has read, and the source waits while the window is full: a slow reader stops the reading, not the memory.


WINDOW = 64 * 1024
PACKET = 16 * 1024
PACKETS = 64
_JOINED = 4096  # characters of a text that more is joined to


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """Items that go as one message. `seq` counts from 1 without gaps."""

    seq: int
    items: tuple[Mapping[str, Any], ...]
    size: int

    def as_json(self) -> dict[str, Any]:
        """The message."""
        return {"seq": self.seq, "items": list(self.items)}


class Outbox:
    """Items go in by `put` where `has_room`; packets come out by `pack`, and stay until they are acknowledged."""

    def __init__(self, *, window: int = WINDOW) -> None:
        self._window = window
        self._waiting: deque[tuple[Mapping[str, Any], int]] = deque()
        self._unacknowledged: Ring[Packet] = Ring()
        self._size = 0

    @property
    def last(self) -> int:
        """The number of the newest packet."""
        return self._unacknowledged.last

    @property
    def acknowledged(self) -> int:
        return self._unacknowledged.lost

    def has_room(self, size: int) -> bool:
        """Whether an item of that many bytes may come. An empty outbox takes one of any size."""
        if not self._size:
            return True
        return self._size + size <= self._window and len(self._unacknowledged) < PACKETS

    def put(self, item: Mapping[str, Any], size: int) -> None:
        """Adds an item. Text that follows on text of the same stream is joined to it: logs come line by line."""
        self._size += size
        if self._waiting and (joined := _joined(self._waiting[-1][0], item)) is not None:
            self._waiting[-1] = (joined, self._waiting[-1][1] + size)
        else:
            self._waiting.append((item, size))

    def pack(self) -> Packet | None:
        """Makes the next packet of what waits; None when nothing does, or too many packets are out."""
        # What is out and lost has to be sent again from here, so only so much may be out.
        if not self._waiting or len(self._unacknowledged) >= PACKETS:
            return None
        items: list[Mapping[str, Any]] = []
        size = 0
        # At least one item, however large: else it would wait for ever.
        while self._waiting and (not items or size + self._waiting[0][1] <= PACKET):
            item, item_size = self._waiting.popleft()
            items.append(item)
            size += item_size
        packet = Packet(seq=self.last + 1, items=tuple(items), size=size)
        self._unacknowledged.add(packet)
        return packet

    def acknowledge(self, seq: int) -> bool:
        """All up to `seq` were read. True when that is news; ValueError when they were never made."""
        if not 0 <= seq <= self.last:
            raise ValueError(f"seq {seq}: expected 0 to {self.last}")
        if seq <= self.acknowledged:
            return False
        while self.acknowledged < seq:
            self._size -= self._unacknowledged.forget().size
        return True

    def after(self, seq: int) -> list[Packet]:
        """The packets after `seq` that are not acknowledged."""
        return [packet for _, packet in self._unacknowledged.after(seq)]


def _joined(last: Mapping[str, Any], item: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Both as one; None where they are not of a kind, or long enough."""
    if last.keys() != item.keys() or "text" not in item or len(last["text"]) + len(item["text"]) > _JOINED:
        return None
    if any(last[name] != item[name] for name in item if name != "text"):
        return None
    return {**last, "text": last["text"] + item["text"]}


PREFIX = "ucidockd.stream."
SOURCES = 64
SESSION_S = 5.0
UNREAD_S = 15.0  # nothing acknowledged for so long: the reader is gone, or reads too slowly
IDLE_S = 25.0  # without a subscriber and without a fetch
PING_S = 10.0  # quiet for so long: a sign of life that must be acknowledged
GATHER_S = 0.15  # news come in bursts: a fetch waits so long for the rest of one, unless a user types
_NOTIFY_S = 5.0
_TICK_S = 1.0
_ITEM_LIMIT = MESSAGE_LIMIT // 2

StillAllowed = Callable[[], Awaitable[bool]]


class Tab:
    """`still_allowed` asks for the owner's session, and raises BusError without an answer. `writes`: a writer's."""

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
        self.moving = asyncio.Lock()
        self._bus = bus
        self._still_allowed = still_allowed
        self._outbox = Outbox()
        self._sources: dict[int, tuple[Source, asyncio.Task[None], str]] = {}
        self._last_source = 0
        self._sent = 0  # seq of the last packet that the present subscriber got
        self._room = asyncio.Event()
        self._turn = asyncio.Lock()  # first come, first served: a log without end keeps no console waiting
        self._news = asyncio.Event()
        self._end = asyncio.Event()
        self._fetching = 0
        self._fetch = 0  # number of the newest fetch
        self._readers = 0  # how often one came or went
        self.reason = ""
        now = time.monotonic()
        self._read_at = self._wrote_at = self._attended_at = self._checked_at = now

    def make_object(self, number: str) -> BusObject:
        """One that the tab may be read by."""
        return BusObject(name=PREFIX + number, methods={}, on_subscribed=self._on_subscribed, lasting=False)

    # what its owner asks for

    def move(self, target: BusObject) -> BusObject:
        """From now on it is read by `target`, from the first packet on that was not acknowledged; the object before."""
        before, self.object = self.object, target
        self._on_subscribed(target.subscribed)
        return before

    def add(self, source: Source, *, owner: str = "", tag: str = "") -> int:
        """Starts a stream; its number. With `tag` its first item is `opened` with both words: whose it is.

        Raises RequestError when there are too many, or it is ending.
        """
        self.check()
        if len(self._sources) >= SOURCES:
            raise RequestError(f"{SOURCES} streams are open in this stream object", status=429)
        self._last_source += 1
        number = self._last_source
        # Streams begin in the order in which they were asked for, but answers of ubus may overtake them: the
        # first item says whose it is.
        first = json_item("opened", {"owner": owner, "tag": tag}) if tag else None
        task = asyncio.create_task(self._pump(number, source, first), name=f"stream-{number}")
        self._sources[number] = (source, task, owner)
        return number

    @property
    def streams(self) -> int:
        """How many are open."""
        return len(self._sources)

    def check(self) -> None:
        """Raises RequestError when it is ending."""
        if self._end.is_set():
            raise RequestError(f"the stream object has ended: {self.reason}", status=404)

    def source(self, number: int) -> Source:
        """One of its streams. Raises RequestError."""
        try:
            return self._sources[number][0]
        except KeyError as exc:
            raise RequestError(f"stream {number} is not open", status=404) from exc

    def drop(self, number: int) -> None:
        """Ends one of its streams. Raises RequestError."""
        self.source(number)
        self._sources.pop(number)[1].cancel()

    def drop_of(self, owner: str) -> None:
        """Ends the streams that were opened with that owner."""
        for number in [number for number, (*_, whose) in self._sources.items() if whose == owner]:
            self.drop(number)

    def acknowledge(self, seq: int) -> None:
        """All packets up to `seq` were read. Raises RequestError."""
        try:
            progress = self._outbox.acknowledge(seq)
        except ValueError as exc:
            raise RequestError(str(exc)) from exc
        if progress:
            self._read_at = time.monotonic()
            self._room.set()
            self._news.set()

    async def read(self, after: int, wait_s: float) -> dict[str, Any]:
        """The packets after `after`, which is acknowledged; waits for one. Ends an earlier fetch, which gets `replaced`.

        Raises RequestError.
        """
        # a fetch says what the one before it has brought: nothing else needs to be sent
        self.acknowledge(after)
        self._fetch += 1
        mine = self._fetch
        self._news.set()
        self._fetching += 1
        packets: list[Packet] = []
        try:
            async with asyncio.timeout(wait_s):
                while self._fetch == mine and not self._end.is_set() and not (packets := self._packed(after)):
                    self._news.clear()
                    await self._news.wait()
            # whether none of its streams takes input, whose echo is waited for
            if packets and all(isinstance(source, OutputOnly) for source, *_ in self._sources.values()):
                # each fetch is an HTTP request of the browser: news in a burst come in one
                await asyncio.sleep(GATHER_S)
                packets = self._packed(after)
        except TimeoutError:
            packets = []
        finally:
            self._fetching -= 1
            self._attended_at = self._read_at = time.monotonic()
        if self._fetch != mine and not self._end.is_set():
            return {"packets": [], "replaced": True}
        answer: dict[str, Any] = {"packets": [packet.as_json() for packet in packets]}
        return {**answer, "closed": self.reason} if self._end.is_set() else answer

    def _packed(self, after: int) -> list[Packet]:
        while self._outbox.pack() is not None:
            pass
        return self._outbox.after(after)

    # its life

    def end(self, reason: str) -> None:
        """Ends it; `run` returns."""
        self.reason = self.reason or reason
        self._end.set()
        self._news.set()

    async def run(self) -> None:
        """Delivers and watches until the end, and ends its streams."""
        tasks = [
            asyncio.create_task(self._deliver(), name="stream-deliver"),
            asyncio.create_task(self._watch(), name="stream-watch"),
        ]
        try:
            await self._end.wait()
        finally:
            # its streams end with it: their requests to the engine would go on unread
            tasks += [task for _, task, _ in self._sources.values()]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            self._sources.clear()

    async def say_goodbye(self) -> None:
        """Tells the subscriber why it ends. Raises BusError."""
        if self.object.subscribed:
            await self._bus.notify(self.object, "closed", {"reason": self.reason})

    # filling

    async def _pump(self, number: int, source: Source, first: Item | None) -> None:
        """One stream into the outbox, to its end."""
        items = source.items()
        try:
            if first is not None:
                await self._put(number, first)
            await self._copy(number, items)
            # the reader learns how each stream ended: the tab itself goes on with the others
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
        async for item in items:
            await self._put(number, item)

    async def _put(self, number: int, item: Item) -> None:
        """Waits while the window is full."""
        entry = {"stream": number, **item}
        try:
            size = len(blobmsg.encode(entry, limit=_ITEM_LIMIT))
        except blobmsg.BlobError as exc:
            entry = {"stream": number, **json_item("error", {"code": "too-large", "message": str(exc)})}
            size = len(blobmsg.encode(entry))
        # the lock is fair, the event is not: all that wait would wake up and the fastest would win
        async with self._turn:
            while not self._outbox.has_room(size):
                self._room.clear()
                await self._room.wait()
        if self._outbox.last == self._outbox.acknowledged:
            self._read_at = time.monotonic()  # nothing was to be acknowledged up to now
        self._wrote_at = time.monotonic()
        self._outbox.put(entry, size)
        self._news.set()

    # delivering

    def _on_subscribed(self, subscribed: bool) -> None:  # noqa: FBT001 - the bus's callback
        self._attended_at = self._read_at = time.monotonic()
        self._readers += 1
        if subscribed:
            self._sent = self._outbox.acknowledged  # a new reader gets what the old one did not read
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
        # noted before it is sent: the answer may come after a change of readers
        self._sent, reader = packet.seq, self._readers
        try:
            readers = await self._bus.notify(self.object, "data", packet.as_json(), answer_s=_NOTIFY_S)
        except BusError as exc:
            # one that went meanwhile answers no more, and gets it again when it is back
            if reader == self._readers:
                self.end(f"the reader did not take a message: {exc}")
            return
        if readers > 1:
            self.end("a second reader came")

    # watching

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            reason = self._overdue(time.monotonic()) or await self._session_ended()
            if reason:
                self.end(reason)
                return

    def _overdue(self, now: float) -> str:
        """Why it is over; "" when it is not."""
        # ubusd drops a subscriber whose connection ends; a page that fetches is only seen while it does
        attended = self.object.subscribed or self._fetching > 0
        if not attended:
            return "no reader" if now - self._attended_at > IDLE_S else ""
        unread = self._outbox.last > self._outbox.acknowledged
        if unread and not self._fetching and now - self._read_at > UNREAD_S:
            return "nothing was acknowledged in time"
        if not unread and now - self._wrote_at > PING_S and self._outbox.has_room(1):
            self._read_at = self._wrote_at = now
            self._outbox.put({"stream": 0, **json_item("ping", {})}, 1)
            self._news.set()
        return ""

    async def _session_ended(self) -> str:
        """Asks every SESSION_S. One silence is asked about again at once, a second one is as good as a no."""
        if time.monotonic() - self._checked_at < SESSION_S:
            return ""
        # rpcd may be restarting just now
        for _ in range(2):
            try:
                allowed = await self._still_allowed()
            except BusError:
                continue
            self._checked_at = time.monotonic()
            return "" if allowed else "the session ended"
        return "the session cannot be checked"
