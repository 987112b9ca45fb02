# SPDX-License-Identifier: GPL-2.0-or-later
"""Stream objects: who may read them, how a slow reader is borne, and when they end."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.api.rules import read
from agent.api.streams.stream_sources import Item, OutputOnly, StreamKind, bytes_items, json_item
from agent.api.ubus import stream_tab
from agent.api.ubus import streams as ubus_streams
from agent.api.ubus.stream_tab import WINDOW
from agent.errors import BusError, EngineError
from agent.wire.ubus_message import Status
from tests.api.conftest import Containers
from tests.support.bus import running
from tests.support.controller import QuietAgent
from tests.support.dockerd import PrivateDockerd
from tests.support.fake_rpcd import ADMIN, READER
from tests.support.streams_room import Counter, Room, a_room


@pytest.fixture
async def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Room]:
    monkeypatch.setattr(stream_tab, "_TICK_S", 0.05)
    async with a_room(tmp_path / "ubus.sock") as made:
        yield made


async def test_a_reader_gets_everything_in_order(room: Room) -> None:
    opened = await room.call("stream_open", {"kind": "count"}, session=ADMIN)
    assert opened == {
        "id": opened["id"],
        "object": f"ucidockd.stream.{opened['id']}",
        "window": WINDOW,
        "stream": 1,
    }
    async with room.reading(opened) as reader:
        await reader.until(lambda: len(reader.items) > 500)
        assert [packet["seq"] for packet in reader.packets] == list(range(1, len(reader.packets) + 1))
        assert [item["json"] for item in reader.items] == list(range(1, len(reader.items) + 1))


async def test_a_reader_that_does_not_acknowledge_stops_the_source_and_is_dropped(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_tab, "UNREAD_S", 0.5)
    opened = await room.call("stream_open", {"kind": "count"}, session=ADMIN)
    async with room.reading(opened, acks=False) as reader:
        await reader.until(lambda: reader.closed)
        assert reader.closed == "nothing was acknowledged in time"
    assert WINDOW / 2000 < room.counter.count <= WINDOW / 1000 + 1
    assert room.counter.closed


async def test_without_a_reader_the_source_stops_at_the_window_and_the_stream_ends(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_tab, "IDLE_S", 0.5)
    opened = await room.call("stream_open", {"kind": "count"}, session=ADMIN)
    await until_gone(room, opened)
    assert room.counter.count <= WINDOW / 1000 + 1


async def until_gone(room: Room, opened: dict[str, Any]) -> None:
    """Until the object, and the right to it, are gone."""
    async with asyncio.timeout(5):
        while True:
            try:
                await room.bus.caller.lookup(opened["object"])
            except BusError:
                break
            await asyncio.sleep(0.02)
        while any(name == opened["object"] for name, _ in room.bus.rpcd.rights[ADMIN]):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_only_the_session_that_opened_it_may_subscribe(room: Room) -> None:
    opened = await room.call("stream_open", {"kind": "count"}, session=ADMIN)
    right = (opened["object"], ":subscribe")
    assert [session for session, rights in room.bus.rpcd.rights.items() if right in rights] == [ADMIN]
    await room.call("stream_close", {"id": opened["id"]}, session=ADMIN)
    await until_gone(room, opened)


async def test_a_second_reader_ends_the_stream_for_both(room: Room) -> None:
    opened = await room.call("stream_open", {"kind": "count"}, session=ADMIN)
    async with room.reading(opened) as one, room.reading(opened, acks=False) as two:
        await one.until(lambda: one.closed)
        await two.until(lambda: two.closed)
        assert one.closed == two.closed == "another reader connected"
        assert len(two.packets) <= 1
    await until_gone(room, opened)


async def test_a_reader_that_comes_again_gets_what_it_had_not_acknowledged(room: Room) -> None:
    opened = await room.call("stream_open", {"kind": "count"}, session=ADMIN)
    async with room.reading(opened, acks=False) as reader:
        await reader.until(lambda: len(reader.packets) >= 4)
        await room.call("stream_ack", {"id": opened["id"], "seq": 2}, session=ADMIN)
    async with room.reading(opened) as reader:
        await reader.until(lambda: len(reader.packets) >= 20)
        assert [packet["seq"] for packet in reader.packets] == list(range(3, 3 + len(reader.packets)))


async def test_an_owner_whose_dead_connection_lingers_reads_on_by_another_object(room: Room) -> None:
    opened = await room.call("stream_open", {"kind": "count"}, session=ADMIN)
    async with room.reading(opened, acks=False) as dead:
        await dead.until(lambda: len(dead.packets) >= 4)
        await room.call("stream_ack", {"id": opened["id"], "seq": 2}, session=ADMIN)
        moved = await room.call("stream_resume", {"id": opened["id"]}, session=ADMIN)
        assert moved == {"id": opened["id"], "object": moved["object"], "window": WINDOW}
        assert moved["object"] != opened["object"]
        await until_gone(room, opened)
        async with room.reading(moved) as reader:
            await reader.until(lambda: len(reader.packets) >= 20)
            assert [packet["seq"] for packet in reader.packets] == list(range(3, 3 + len(reader.packets)))
            assert [item["json"] for item in reader.items][1:] == [
                item["json"] + 1 for item in reader.items[:-1]
            ]
        assert not dead.closed
    right = (moved["object"], ":subscribe")
    assert [session for session, rights in room.bus.rpcd.rights.items() if right in rights] == [ADMIN]
    assert not room.counter.closed


async def test_a_stream_is_moved_for_its_owner_only_and_while_it_is_there(room: Room) -> None:
    opened = await room.call("stream_open", {"kind": "count"}, session=ADMIN)
    room.bus.rpcd.rights[READER] = {("ucidockd", "*")}
    for session, number, status in (
        (READER, opened["id"], Status.PERMISSION_DENIED),
        ("", opened["id"], Status.PERMISSION_DENIED),
        (ADMIN, opened["object"].removeprefix("ucidockd."), Status.NOT_FOUND),
    ):
        with pytest.raises(BusError) as caught:
            await room.call("stream_resume", {"id": number}, session=session)
        assert caught.value.status == status
    assert opened["object"] in await room.bus.caller.lookup(opened["object"])
    await room.call("stream_close", {"id": opened["id"]}, session=ADMIN)
    await until_gone(room, opened)
    with pytest.raises(BusError):
        await room.call("stream_resume", {"id": opened["id"]}, session=ADMIN)


async def test_a_stream_that_is_moved_often_leaves_nothing_behind(room: Room) -> None:
    opened = await room.call("stream_open", {"kind": "count"}, session=ADMIN)
    async with asyncio.TaskGroup() as group:
        moves = [
            group.create_task(room.call("stream_resume", {"id": opened["id"]}, session=ADMIN))
            for _ in range(10)
        ]
    names = {move.result()["object"] for move in moves}
    found = await room.bus.caller.lookup("ucidockd.stream.*")
    assert (len(names), len(found), set(found) <= names) == (10, 1, True)
    kept = [name for name, _ in room.bus.rpcd.rights[ADMIN] if name.startswith("ucidockd.stream.")]
    assert kept == list(found)
    await room.call("stream_close", {"id": opened["id"]}, session=ADMIN)
    await until_gone(room, {"object": kept[0]})


async def test_nobody_is_moved_when_the_right_cannot_be_granted(room: Room) -> None:
    opened = await room.call("stream_open", {"kind": "count"}, session=ADMIN)
    async with room.reading(opened) as reader:
        await reader.until(lambda: reader.packets)
        room.bus.rpcd.refuse_grants = True
        with pytest.raises(BusError):
            await room.call("stream_resume", {"id": opened["id"]}, session=ADMIN)
        seen = len(reader.packets)
        await reader.until(lambda: len(reader.packets) > seen + 5)
    assert set(await room.bus.caller.lookup("ucidockd.stream.*")) == {opened["object"]}


async def test_a_reader_that_goes_in_the_middle_of_a_message_gets_it_again_at_once(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_tab, "_NOTIFY_S", 60)  # whoever has gone is not waited for
    opened = await room.call("stream_open", {"kind": "count"}, session=ADMIN)
    client, gone = room.bus.client(), asyncio.Event()

    def go(*_: object) -> None:
        assert client._link is not None
        client._link.abort()  # before the message is answered
        gone.set()

    client.subscribe(opened["object"], go)
    async with running(client), asyncio.timeout(5):
        await gone.wait()
    async with room.reading(opened) as reader:
        await reader.until(lambda: len(reader.packets) >= 20 or reader.closed)
        assert reader.closed == ""
        assert [packet["seq"] for packet in reader.packets] == list(range(1, len(reader.packets) + 1))


async def test_a_stream_ends_with_the_session_that_opened_it(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_tab, "SESSION_S", 0.2)
    opened = await room.call("stream_open", {"kind": "count"}, session=ADMIN)
    async with room.reading(opened, acks=False) as reader:
        await reader.until(lambda: reader.packets)
        room.bus.rpcd.destroy(ADMIN)
        await reader.until(lambda: reader.closed)
        assert reader.closed == "the session ended"


async def test_a_stream_ends_when_nobody_answers_for_its_session(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_tab, "SESSION_S", 0.2)
    monkeypatch.setattr("agent.ubus.rpcd.DEADLINE_S", 0.2)
    opened = await room.call("stream_open", {"kind": "count"}, session=ADMIN)
    async with room.reading(opened, acks=False) as reader:
        await reader.until(lambda: reader.packets)
        room.bus.rpcd.answering.clear()
        await reader.until(lambda: reader.closed)
        assert reader.closed == "the session cannot be checked"
    room.bus.rpcd.answering.set()


async def test_a_stream_that_is_quiet_asks_for_a_sign_of_life(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_tab, "PING_S", 0.1)
    opened = await room.call("stream_open", session=ADMIN)
    async with room.reading(opened) as reader:
        await reader.until(lambda: len(reader.items) >= 2)
        assert reader.items[:2] == [{"stream": 0, "name": "ping", "json": {}}] * 2
        reader.acks = False
        monkeypatch.setattr(stream_tab, "UNREAD_S", 0.2)
        await reader.until(lambda: reader.closed)


@pytest.mark.parametrize(
    ("method", "args"),
    [
        ("stream_input", {"stream": 1, "text": "x"}),
        ("stream_resize", {"stream": 1, "rows": 1, "columns": 1}),
        ("stream_ack", {"seq": 0}),
        ("stream_read", {"after": 0, "wait": 0}),
        ("stream_close", {}),
        ("stream_open", {"kind": "count"}),
    ],
)
async def test_a_stream_is_its_owners_alone(room: Room, method: str, args: dict[str, Any]) -> None:
    opened = await room.call("stream_open", {"kind": "count"}, session=ADMIN)
    room.bus.rpcd.rights[READER] = {("*", "*")}
    for session in (READER, ""):
        with pytest.raises(BusError) as caught:
            await room.call(method, {**args, "id": opened["id"]}, session=session)
        assert caught.value.status == Status.PERMISSION_DENIED
    with pytest.raises(BusError) as caught:
        await room.call(method, {**args, "id": "0" * 32}, session=ADMIN)
    assert caught.value.status == Status.NOT_FOUND
    assert room.counter.typed == []


async def test_each_kind_takes_the_right_that_it_stands_for(room: Room) -> None:
    room.bus.rpcd.rights[READER] = {("ucidockd", "*"), ("docker.container", "logs")}
    assert "stream" in await room.call("stream_open", {"kind": "status"}, session=READER)
    logs = {"kind": "logs", "args": {"container": "web"}}
    assert "stream" in await room.call("stream_open", logs, session=READER)
    for kind in ("stats", "events", "count"):
        with pytest.raises(BusError) as caught:
            await room.call("stream_open", {"kind": kind, "args": {"container": "web"}}, session=READER)
        assert caught.value.status == Status.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("method", "args", "expected"),
    [
        ("stream_open", {"kind": "nope"}, "expected one of count, events, logs, stats, status"),
        ("stream_open", {"kind": "logs"}, "container: expected"),
        ("stream_open", {"kind": "logs", "args": {"container": "../x"}}, "letters, digits"),
        (
            "stream_open",
            {"kind": "logs", "args": {"container": "a", "nope": 1}},
            "use `container`, `containers`, `follow`",
        ),
        ("stream_open", {"kind": "logs", "args": {"container": "a", "tail": []}}, "tail: expected"),
        ("stream_open", {"kind": "status", "args": {"x": 1}}, "unknown name"),
        ("stream_input", {"stream": 5, "text": "x"}, "stream 5 is not open"),
        ("stream_input", {"stream": 1, "data": "!"}, "expected base64"),
        ("stream_input", {"stream": 1, "text": "x" * 70_000}, "expected 65536 at most"),
        ("stream_resize", {"stream": 1, "rows": 0, "columns": 5}, "expected 1 to 1000"),
        ("stream_ack", {"seq": 10**6}, "expected 0 to"),
        ("stream_ack", {"seq": -1}, "expected 0 to"),
        ("stream_read", {"wait": 21}, "expected 0 to 20"),
        ("stream_close", {"stream": 7}, "stream 7 is not open"),
    ],
)
async def test_a_bad_request_is_told_what_is_expected(
    room: Room, method: str, args: dict[str, Any], expected: str
) -> None:
    opened = await room.call("stream_open", {"kind": "count"}, session=ADMIN)
    more = {} if method == "stream_open" else {"id": opened["id"]}
    answer = await room.call(method, {**more, **args}, session=ADMIN)
    assert expected in answer["error"]["message"]


async def test_input_and_window_reach_the_source(room: Room) -> None:
    opened = await room.call("stream_open", {"kind": "count"}, session=ADMIN)
    target = {"id": opened["id"], "stream": opened["stream"]}
    await room.call("stream_input", {**target, "text": "ü\x03"}, session=ADMIN)
    await room.call("stream_input", {**target, "data": base64.b64encode(b"\xff\0").decode()}, session=ADMIN)
    await room.call("stream_resize", {**target, "rows": 24, "columns": 80}, session=ADMIN)
    assert room.counter.typed == ["ü\x03".encode(), b"\xff\0", (24, 80)]


async def test_a_source_that_is_output_only_takes_no_input(room: Room) -> None:
    opened = await room.call("stream_open", {"kind": "status"}, session=ADMIN)
    target = {"id": opened["id"], "stream": opened["stream"]}
    answer = await room.call("stream_input", {**target, "text": "x"}, session=ADMIN)
    assert "takes no input" in answer["error"]["message"]
    answer = await room.call("stream_resize", {**target, "rows": 1, "columns": 1}, session=ADMIN)
    assert "no window" in answer["error"]["message"]


async def test_tabs_of_a_session_and_streams_of_a_tab_are_limited(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ubus_streams, "TABS_OF_A_SESSION", 2)
    monkeypatch.setattr(stream_tab, "SOURCES", 2)
    opened = [await room.call("stream_open", session=ADMIN) for _ in range(3)]
    assert "2 stream objects of this session" in opened[2]["error"]["message"]
    more = [
        await room.call("stream_open", {"id": opened[0]["id"], "kind": "status"}, session=ADMIN)
        for _ in range(3)
    ]
    assert [answer.get("stream") for answer in more] == [1, 2, None]
    await room.call("stream_close", {"id": opened[1]["id"]}, session=ADMIN)
    await until_gone(room, opened[1])
    assert "id" in await room.call("stream_open", session=ADMIN)


async def test_readers_leave_room_for_writers(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ubus_streams, "TABS_OF_READERS", 1)
    monkeypatch.setattr(ubus_streams, "SOURCES_OF_A_READER", 2)
    room.bus.rpcd.rights[READER] = {("ucidockd", "status"), ("ucidockd", "stream_open")}
    mine = await room.call("stream_open", session=READER)
    refused = await room.call("stream_open", session=READER)
    assert "may only read" in refused["error"]["message"]
    more = [
        await room.call("stream_open", {"id": mine["id"], "kind": "status"}, session=READER) for _ in range(3)
    ]
    assert [answer.get("stream") for answer in more] == [1, 2, None]
    assert "id" in await room.call("stream_open", {"kind": "status"}, session=ADMIN)


async def test_fetching_gives_the_same_packets_and_acknowledges_what_it_follows(room: Room) -> None:
    opened = await room.call("stream_open", {"kind": "count"}, session=ADMIN)
    seqs: list[int] = []
    while len(seqs) < 30:
        after = seqs[-1] if seqs else 0
        got = await room.call("stream_read", {"id": opened["id"], "after": after, "wait": 5}, session=ADMIN)
        seqs += [packet["seq"] for packet in got["packets"]]
    assert seqs == list(range(1, len(seqs) + 1))
    again = await room.call("stream_read", {"id": opened["id"], "after": seqs[-2], "wait": 0}, session=ADMIN)
    assert again["packets"][0]["seq"] == seqs[-1]


async def test_a_fetch_waits_for_news_and_hears_of_the_end(room: Room) -> None:
    opened = await room.call("stream_open", session=ADMIN)
    fetch = asyncio.create_task(room.call("stream_read", {"id": opened["id"], "wait": 20}, session=ADMIN))
    await asyncio.sleep(0.1)
    assert not fetch.done()
    await room.call("stream_close", {"id": opened["id"]}, session=ADMIN)
    assert await fetch == {"packets": [], "closed": "closed"}


async def test_of_two_fetches_the_newer_one_reads(room: Room) -> None:
    opened = await room.call("stream_open", session=ADMIN)

    def fetch(after: int = 0) -> asyncio.Task[dict[str, Any]]:
        args = {"id": opened["id"], "after": after, "wait": 20}
        return asyncio.create_task(room.call("stream_read", args, session=ADMIN))

    left = fetch()
    await asyncio.sleep(0.1)
    newer = fetch()
    assert await left == {"packets": [], "replaced": True}
    await room.call("stream_open", {"id": opened["id"], "kind": "count", "tag": "1"}, session=ADMIN)
    first = (await newer)["packets"]
    assert first[0]["items"][0] == {"stream": 1, "name": "opened", "json": {"owner": "", "tag": "1"}}
    # one that comes with less than was read elsewhere takes nothing back, and loses nothing that was not read
    again = (await fetch(after=0))["packets"]
    assert [packet["seq"] for packet in again[: len(first)]] == [packet["seq"] for packet in first]


async def test_streams_of_an_owner_end_together_and_say_whose_they_are(room: Room) -> None:
    opened = await room.call("stream_open", session=ADMIN)
    for owner, tag in (("a", "1"), ("b", "1"), ("a", "2")):
        asked = {"id": opened["id"], "kind": "status", "owner": owner, "tag": tag}
        await room.call("stream_open", asked, session=ADMIN)
    got = await room.call("stream_read", {"id": opened["id"], "wait": 5}, session=ADMIN)
    items = [item for packet in got["packets"] for item in packet["items"]]
    said = [(item["stream"], *item["json"].values()) for item in items if item["name"] == "opened"]
    assert said == [(1, "a", "1"), (2, "b", "1"), (3, "a", "2")]
    await room.call("stream_close", {"id": opened["id"], "owner": "a"}, session=ADMIN)
    ended = [
        "error" in await room.call("stream_close", {"id": opened["id"], "stream": number}, session=ADMIN)
        for number in (1, 2, 3)
    ]
    assert ended == [True, False, True]
    long = {"id": opened["id"], "kind": "status", "owner": "x" * 65}
    answer = await room.call("stream_open", long, session=ADMIN)
    assert "at most 64" in answer["error"]["message"]


async def test_a_stream_without_end_leaves_room_for_a_quiet_one(room: Room) -> None:
    class Echo(Counter):
        async def items(self) -> AsyncGenerator[Item, None]:
            while True:
                await asyncio.sleep(0.05)
                yield {"name": "echo", "text": "x" * 3000}

    kinds = room.streams._kinds
    assert isinstance(kinds, dict)
    kinds["echo"] = StreamKind(grant=read("test", "echo"), open=lambda _: Echo())
    room.counter = Counter(size=100)
    kinds["count"] = StreamKind(grant=read("test", "count"), open=lambda _: room.counter)
    opened = await room.call("stream_open", {"kind": "count"}, session=ADMIN)
    await room.call("stream_open", {"id": opened["id"], "kind": "echo"}, session=ADMIN)
    after, echoes = 0, 0
    for _ in range(40):
        args = {"id": opened["id"], "after": after, "wait": 5}
        for packet in (await room.call("stream_read", args, session=ADMIN))["packets"]:
            after = packet["seq"]
            echoes += sum(item["stream"] == 2 for item in packet["items"])
        await asyncio.sleep(0.02)
    assert echoes >= 5


@pytest.mark.parametrize(
    ("size", "waits"), [(100, [0.0, 0.0, 0.2, 0.2]), (8000, [0.0] * 4)], ids=["figures", "log"]
)
async def test_where_packets_come_all_the_time_a_fetch_waits_longer_for_them(
    room: Room, monkeypatch: pytest.MonkeyPatch, size: int, waits: list[float]
) -> None:
    class Figures(OutputOnly):
        def __init__(self) -> None:
            super().__init__(self._figures)

        async def _figures(self) -> AsyncGenerator[Item, None]:
            while True:
                yield {"name": "figure", "bytes": "x" * size}
                await asyncio.sleep(0.002)

    monkeypatch.setattr(stream_tab, "GATHER_S", 0.01)
    monkeypatch.setattr(stream_tab, "STEADY_S", 0.2)
    kinds = room.streams._kinds
    assert isinstance(kinds, dict)
    kinds["figures"] = StreamKind(grant=read("test", "figures"), open=lambda _: Figures())
    opened = await room.call("stream_open", {"kind": "figures"}, session=ADMIN)
    after, took = 0, []
    for _ in waits:
        began = asyncio.get_running_loop().time()
        args = {"id": opened["id"], "after": after, "wait": 5}
        after = (await room.call("stream_read", args, session=ADMIN))["packets"][-1]["seq"]
        took.append(asyncio.get_running_loop().time() - began)
        # what comes faster than it is read is there in full
        await asyncio.sleep(0.05)
    assert [0.2 if one > 0.19 else 0.0 for one in took] == waits, took


class Typed(Counter):
    """A console: what is typed comes back, and `said` is what it writes by itself."""

    def __init__(self) -> None:
        super().__init__(size=1)
        self.shown: asyncio.Queue[str] = asyncio.Queue()

    async def items(self) -> AsyncGenerator[Item, None]:
        while True:
            yield {"name": "stdout", "text": await self.shown.get()}

    async def input(self, data: bytes) -> None:
        self.shown.put_nowait(data.decode())


class Desk:
    """A page that follows a container in a crash loop (`news`) and has a console, read as LuCI's pages do."""

    def __init__(self, room: Room, *, console: bool) -> None:
        self._room = room
        self._has_console = console
        self.console = Typed()
        self.news: asyncio.Queue[str] = asyncio.Queue()
        self.seen: list[tuple[str, str]] = []
        self.fetches = 0
        self._after = 0
        self._came = asyncio.Event()

    async def open(self) -> None:
        kinds = self._room.streams._kinds
        assert isinstance(kinds, dict)
        kinds["news"] = StreamKind(grant=read("test", "news"), open=lambda _: OutputOnly(self._news))
        kinds["typed"] = StreamKind(grant=read("test", "typed"), open=lambda _: self.console)
        self.id = (await self._room.call("stream_open", {"kind": "news", "tag": "1"}, session=ADMIN))["id"]
        if self._has_console:
            args = {"id": self.id, "kind": "typed", "tag": "2"}
            await self._room.call("stream_open", args, session=ADMIN)

    async def _news(self) -> AsyncGenerator[Item, None]:
        while True:
            yield {"name": "change", "text": await self.news.get()}

    async def follow(self) -> None:
        wait = 0
        while True:
            self.fetches += 1
            args = {"id": self.id, "after": self._after, "wait": wait}
            for packet in (await self._room.call("stream_read", args, session=ADMIN))["packets"]:
                self._after = packet["seq"]
                self.seen += [(item["name"], item.get("text", "")) for item in packet["items"]]
            self._came.set()
            wait = 15

    async def type(self, text: str) -> None:
        args = {"id": self.id, "stream": 2, "text": text}
        await self._room.call("stream_input", args, session=ADMIN)

    async def until_seen(self, text: str) -> float:
        """Seconds until that text is on the page."""
        began = asyncio.get_running_loop().time()
        async with asyncio.timeout(10):
            while not any(text in one for _, one in self.seen):
                self._came.clear()
                await self._came.wait()
        return asyncio.get_running_loop().time() - began


@pytest.fixture
async def loop_of_news(monkeypatch: pytest.MonkeyPatch) -> float:
    """The seconds in which two fetches of news may begin."""
    monkeypatch.setattr(stream_tab, "GATHER_S", 0.05)
    monkeypatch.setattr(stream_tab, "STEADY_S", 0.05)
    monkeypatch.setattr(stream_tab, "NEWS_S", 1.0)
    return 1.0


async def crash_loop(desk: Desk, count: int) -> None:
    for number in range(count):
        desk.news.put_nowait(f"<{number}>")
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("console", [False, True], ids=["", "console"])
async def test_news_that_never_ends_is_fetched_seldom_and_is_complete(
    room: Room, loop_of_news: float, console: bool
) -> None:
    desk = Desk(room, console=console)
    await desk.open()
    async with asyncio.TaskGroup() as group:
        following = group.create_task(desk.follow())
        await crash_loop(desk, 100)
        assert desk.fetches <= 2 * 2 / loop_of_news + 2
        await desk.until_seen("<99>")
        following.cancel()
    told = "".join(text for name, text in desk.seen if name == "change")
    assert told == "".join(f"<{number}>" for number in range(100))


async def test_what_is_rare_comes_at_once(room: Room, loop_of_news: float) -> None:
    desk = Desk(room, console=False)
    await desk.open()
    async with asyncio.TaskGroup() as group:
        following = group.create_task(desk.follow())
        for text in ("one", "two", "three"):
            await asyncio.sleep(1.2 * loop_of_news)
            desk.news.put_nowait(text)
            assert await desk.until_seen(text) < loop_of_news / 2
        following.cancel()


async def test_what_a_user_types_is_seen_at_once_beside_news_that_never_ends(
    room: Room, loop_of_news: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_tab, "GATHER_S", 0.4)
    monkeypatch.setattr(stream_tab, "TYPING_S", 0.2)
    desk = Desk(room, console=True)
    await desk.open()
    async with asyncio.TaskGroup() as group:
        following = group.create_task(desk.follow())
        looping = group.create_task(crash_loop(desk, 1000))
        took = []
        for key in "abcdefgh":
            await asyncio.sleep(0.3)
            await desk.type(f"[{key}]")
            took.append(await desk.until_seen(f"[{key}]"))
        looping.cancel()
        following.cancel()
    assert max(took) < 0.3, took


async def test_what_a_stream_begins_with_does_not_wait_as_news_does(room: Room, loop_of_news: float) -> None:
    desk = Desk(room, console=False)
    await desk.open()
    async with asyncio.TaskGroup() as group:
        following = group.create_task(desk.follow())
        looping = group.create_task(crash_loop(desk, 1000))
        await asyncio.sleep(0.5)
        desk.console.shown.put_nowait("prompt")
        await room.call("stream_open", {"id": desk.id, "kind": "typed", "tag": "2"}, session=ADMIN)
        assert await desk.until_seen("prompt") < loop_of_news / 2
        looping.cancel()
        following.cancel()


async def test_streams_of_all_are_limited(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ubus_streams, "SOURCES_OF_ALL", 2)
    answers = [await room.call("stream_open", {"kind": "status"}, session=ADMIN) for _ in range(3)]
    assert "2 streams are open" in answers[2]["error"]["message"]


async def test_ends_and_errors_of_a_source_are_items_and_the_tab_goes_on(room: Room) -> None:
    async def fails() -> AsyncGenerator[Item, None]:
        yield json_item("a", 1)
        raise EngineError("no such container", status=404)

    async def breaks() -> AsyncGenerator[Item, None]:
        raise ZeroDivisionError
        yield {}

    async def ends() -> AsyncGenerator[Item, None]:
        for item in bytes_items("out", b"\0" * 10_000):
            yield item
        yield json_item("large", "x" * 600_000)

    kinds = room.streams._kinds
    assert isinstance(kinds, dict)
    for name, make in (("fails", fails), ("ends", ends), ("breaks", breaks)):
        kinds[name] = StreamKind(grant=read("test", name), open=lambda _, make=make: OutputOnly(make))
    opened = await room.call("stream_open", session=ADMIN)
    async with room.reading(opened) as reader:
        for name in ("fails", "ends", "breaks"):
            await room.call("stream_open", {"id": opened["id"], "kind": name}, session=ADMIN)
        await reader.until(
            lambda: (
                {(1, "error"), (2, "end"), (3, "error")} <= {(i["stream"], i["name"]) for i in reader.items}
            )
        )
        by_stream = {n: [i for i in reader.items if i["stream"] == n] for n in (1, 2, 3)}
        assert by_stream[1][1]["json"] == {"code": "engine", "message": "no such container"}
        assert b"".join(base64.b64decode(i["bytes"]) for i in by_stream[2][:2]) == b"\0" * 10_000
        assert by_stream[2][2]["json"]["code"] == "too-large"
        assert by_stream[3][0]["json"]["code"] == "internal"


async def test_streams_end_when_ubusd_goes(room: Room) -> None:
    opened = await room.call("stream_open", {"kind": "count"}, session=ADMIN)
    await room.bus.daemon.stop()
    await room.bus.daemon.start()
    for client in (room.bus.caller, room.bus.ours):
        await client.ready.wait()
    with pytest.raises(BusError) as caught:
        async with asyncio.timeout(5):
            while True:
                await room.call("stream_ack", {"id": opened["id"], "seq": 0})
    assert caught.value.status == Status.NOT_FOUND
    assert room.counter.closed


async def test_status_comes_as_facts_resources_and_changes(room: Room) -> None:
    for name in ("db", "web"):
        room.board.ensure(f"container:{name}")
    opened = await room.call("stream_open", {"kind": "status"}, session=ADMIN)
    async with room.reading(opened) as reader:
        await reader.until(lambda: any(item["name"] == "synced" for item in reader.items))
        room.board.set_object("container:web", "abc")
        await reader.until(lambda: reader.items[-1]["name"] == "change")
        names = [item["name"] for item in reader.items]
        assert names == ["status", "resource", "resource", "synced", "change"]
        assert reader.items[-1]["json"]["resource"]["object_id"] == "abc"


async def test_status_changes_are_notified_coalesced_and_only_to_somebody(room: Room) -> None:
    heard: list[dict[str, Any]] = []
    came = asyncio.Event()

    def hear(_: str, data: Mapping[str, Any]) -> None:
        heard.append(dict(data))
        came.set()

    room.board.ensure("container:early")
    client = room.bus.client()
    client.subscribe("ucidockd", hear)
    async with running(client):
        for number in range(50):
            key = f"container:c{number % 3}"
            room.board.ensure(key, f"n{number}")
        async with asyncio.timeout(5):
            while not heard or heard[-1]["version"] < room.board.version:
                came.clear()
                await came.wait()
    assert len(heard) <= 2
    assert {key for data in heard for key in data["keys"]} >= {f"container:c{n}" for n in range(3)}


async def test_plan_reconcile_status_and_hotplug_answer(room: Room) -> None:
    assert await room.call("plan") == {"operations": []}
    assert await room.call("reconcile") == {"operations": []}
    assert (await room.call("status", session=ADMIN))["resources"] == []
    assert await room.call("hotplug", {"subsystem": "block", "env": {"ACTION": "add"}}) == {}
    room.bus.rpcd.rights[READER] = {("ucidockd", "status")}
    with pytest.raises(BusError, match="permission denied"):
        await room.call("reconcile", session=READER)


async def test_a_reconcile_that_takes_long_is_answered_with_what_is_under_way(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = asyncio.Event()

    async def long() -> dict[str, Any]:
        await ended.wait()
        return {"operations": ["much"]}

    monkeypatch.setattr(QuietAgent, "reconcile", lambda self: long())
    monkeypatch.setattr("agent.api.ubus.agent.ANSWER_S", 0.2)
    answer = await room.call("reconcile")
    assert (answer["under_way"], answer["operations"]) == (True, [])
    ended.set()
    assert await room.call("reconcile") == {"operations": ["much"]}


async def test_logs_and_stats_of_the_engine_come_through_one_tab(
    engine: PrivateDockerd, containers: Containers, tmp_path: Path
) -> None:
    made = containers.run("echo größe; echo err >&2; sleep 60")
    async with a_room(tmp_path / "ubus.sock", engine.host) as room:
        opened = await room.call("stream_open", {"kind": "logs", "args": {"container": made}}, session=ADMIN)
        for kind, args in (
            ("stats", {"container": made}),
            ("events", {}),
            ("logs", {"container": "no-such"}),
            ("logs", {"containers": [made], "grep": "GRÖSSE"}),
        ):
            await room.call("stream_open", {"id": opened["id"], "kind": kind, "args": args}, session=ADMIN)
        async with room.reading(opened) as reader:
            wanted = {(1, "stdout"), (1, "stderr"), (2, "stats"), (4, "error"), (5, "line")}
            await reader.until(lambda: wanted <= {(i["stream"], i["name"]) for i in reader.items}, 10)
            texts = [i["text"] for i in reader.items if i["stream"] == 1]
            assert sorted(texts) == ["err\n", "größe\n"]
            found = next(i["json"] for i in reader.items if i["stream"] == 5 and i["name"] == "line")
            assert (found["container"], found["stream"], found["text"]) == (made, "stdout", "größe")
            await asyncio.to_thread(containers.client.containers.get(made).kill)
            await reader.until(lambda: any((i["stream"], i["name"]) == (3, "event") for i in reader.items))
            await reader.until(lambda: any((i["stream"], i["name"]) == (1, "end") for i in reader.items))
