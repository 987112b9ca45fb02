# SPDX-License-Identifier: GPL-2.0-or-later
"""The published object `ucidockd`, a source that counts, and readers of stream objects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from agent.api.rules import read
from agent.api.streams.stream_sources import Item, StreamKind, our_kinds
from agent.api.ubus.agent import AgentMethods, StatusNotifier, make_agent_object
from agent.api.ubus.streams import Streams
from agent.engine.stream import DockerStream
from agent.status.board import StatusBoard
from agent.ubus.client import UbusClient
from tests.support.bus import Bus, a_bus, running
from tests.support.controller import QuietAgent
from tests.support.fake_rpcd import ADMIN


class Counter:
    """A source that counts as fast as it is read; it remembers how far it came and what was typed."""

    def __init__(self, size: int = 1000) -> None:
        self.count = 0
        self.typed: list[Any] = []
        self.closed = False
        self._size = size

    async def items(self) -> AsyncGenerator[Item, None]:
        try:
            while True:
                self.count += 1
                yield {"name": "count", "json": self.count, "text": "x" * self._size}
        finally:
            self.closed = True

    async def input(self, data: bytes) -> None:
        self.typed.append(data)

    async def resize(self, rows: int, columns: int) -> None:
        self.typed.append((rows, columns))


class Reader:
    """A subscriber of one stream object. It acknowledges packets while `acks` is true."""

    def __init__(self, room: Room, opened: dict[str, Any], *, acks: bool = True) -> None:
        self._room, self._opened, self.acks = room, opened, acks
        self.packets: list[dict[str, Any]] = []
        self.closed = ""
        self._news = asyncio.Event()
        self._acks: set[asyncio.Task[Any]] = set()

    def __call__(self, kind: str, data: Mapping[str, Any]) -> None:
        if kind == "closed":
            self.closed = data["reason"]
        else:
            self.packets.append(dict(data))
            if self.acks:
                args = {"id": self._opened["id"], "seq": data["seq"]}
                self._acks.add(asyncio.create_task(self._room.call("stream_ack", args, session=ADMIN)))
        self._news.set()

    @property
    def items(self) -> list[dict[str, Any]]:
        return [item for packet in self.packets for item in packet["items"]]

    async def until(self, condition: Callable[[], object], limit_s: float = 30) -> None:
        async with asyncio.timeout(limit_s):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def finish(self) -> None:
        if self._acks:
            await asyncio.wait(self._acks)
        for task in self._acks:
            task.exception()


class Room:
    """The published object `ucidockd` with a source that counts."""

    def __init__(self, bus: Bus, streams: Streams, counter: Counter, board: StatusBoard) -> None:
        self.bus, self.streams, self.counter, self.board = bus, streams, counter, board

    async def call(
        self, method: str, args: dict[str, Any] | None = None, *, session: str = ""
    ) -> dict[str, Any]:
        given = {**(args or {}), **({"ubus_rpc_session": session} if session else {})}
        return await self.bus.caller.call("ucidockd", method, given, timeout_s=25)

    @asynccontextmanager
    async def reading(self, opened: dict[str, Any], *, acks: bool = True) -> AsyncIterator[Reader]:
        reader = Reader(self, opened, acks=acks)
        client: UbusClient = self.bus.client()
        client.subscribe(opened["object"], reader)
        async with running(client):
            yield reader
        await reader.finish()


@asynccontextmanager
async def a_room(
    path: Path, engine_url: str = "unix:///none", more: Mapping[str, StreamKind] | None = None
) -> AsyncIterator[Room]:
    async with a_bus(path) as bus:
        agent = QuietAgent()
        counter = Counter()
        kinds = our_kinds(agent.board, DockerStream(engine_url))
        kinds |= more or {}
        kinds["count"] = StreamKind(grant=read("test", "count"), open=lambda _: counter)
        streams = Streams(bus.ours, bus.sessions, kinds)
        methods = AgentMethods(agent, lambda *_: None).methods()
        ours = make_agent_object(bus.sessions, methods, streams.methods())
        await bus.publish([ours])
        notifier = asyncio.create_task(StatusNotifier(agent, bus.ours, ours).run())
        try:
            yield Room(bus, streams, counter, agent.board)
        finally:
            notifier.cancel()
            await streams.stop()
