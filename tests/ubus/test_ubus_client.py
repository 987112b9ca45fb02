# SPDX-License-Identifier: GPL-2.0-or-later
"""The client on the fake ubusd, and on the real one where it is on PATH."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from typing import Any

import pytest

from agent.errors import BusError
from agent.ubus import client as ubus_client
from agent.ubus.client import BOOLEAN, INTEGER, STRING, TABLE, TOO_LARGE, BusObject, Method, UbusClient
from agent.wire.blobmsg import Type, blob
from agent.wire.ubus_message import Attr, Decoder, Message, MessageType, Status, encode_message
from tests.ubus.conftest import Connect, Ubusd


async def echo(args: Mapping[str, Any]) -> Mapping[str, Any]:
    return args


def echoing(**more: Method) -> BusObject:
    args = {"s": STRING, "i": INTEGER, "b": BOOLEAN, "t": TABLE}
    return BusObject(name="test.echo", methods={"echo": Method(handler=echo, args=args), **more})


class Heard:
    """What a subscriber heard, and waiting for more of it."""

    def __init__(self) -> None:
        self.all: list[tuple[str, dict[str, Any]]] = []
        self._news = asyncio.Event()

    def __call__(self, kind: str, data: Mapping[str, Any]) -> None:
        self.all.append((kind, dict(data)))
        self._news.set()

    async def wait(self, count: int, limit_s: float = 30) -> list[tuple[str, dict[str, Any]]]:
        async with asyncio.timeout(limit_s):
            while len(self.all) < count:
                self._news.clear()
                await self._news.wait()
        return self.all


async def until(condition: Any, limit_s: float = 30) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.01)


async def test_a_call_comes_back_with_what_the_method_returned(connect: Connect) -> None:
    server, caller = await connect(), await connect()
    await server.add_object(echoing())
    sent = {"s": "ü", "i": -5, "b": False, "t": {"k": [1, {"z": 1.5}, None]}, "ubus_rpc_session": "x"}
    assert await caller.call("test.echo", "echo", sent) == sent


async def test_methods_and_argument_types_are_shown_to_who_looks(connect: Connect) -> None:
    server, caller = await connect(), await connect()
    await server.add_object(echoing())
    assert (await caller.lookup())["test.echo"] == {"echo": {"s": 3, "i": 5, "b": 7, "t": 2}}
    assert list(await caller.lookup("test.*")) == ["test.echo"]
    with pytest.raises(BusError, match="not found"):
        await caller.lookup("no.such")


@pytest.mark.parametrize(
    ("method", "args", "status"),
    [
        ("echo", {"s": 1}, Status.INVALID_ARGUMENT),
        ("echo", {"i": True}, Status.INVALID_ARGUMENT),
        ("echo", {"b": 1}, Status.INVALID_ARGUMENT),
        ("echo", {"t": []}, Status.INVALID_ARGUMENT),
        ("echo", {"more": "x"}, Status.INVALID_ARGUMENT),
        ("echo", {"ubus_rpc_session": 5}, Status.INVALID_ARGUMENT),
        ("nope", {}, Status.METHOD_NOT_FOUND),
        ("refuse", {}, Status.PERMISSION_DENIED),
        ("crash", {}, Status.UNKNOWN_ERROR),
    ],
)
async def test_what_is_refused_comes_back_as_a_status(
    connect: Connect, caplog: pytest.LogCaptureFixture, method: str, args: dict[str, Any], status: Status
) -> None:
    async def refuse(_: Mapping[str, Any]) -> None:
        raise BusError("no", status=Status.PERMISSION_DENIED)

    async def crash(_: Mapping[str, Any]) -> None:
        raise ZeroDivisionError

    server, caller = await connect(), await connect()
    await server.add_object(echoing(refuse=Method(handler=refuse), crash=Method(handler=crash)))
    with caplog.at_level(logging.CRITICAL), pytest.raises(BusError) as caught:
        await caller.call("test.echo", method, args)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("attributes", "status"),
    [
        ({Attr.METHOD: "echo", Attr.DATA: b"rubbish!"}, Status.INVALID_ARGUMENT),
        ({Attr.METHOD: "echo", Attr.DATA: b"\xff" * 400}, Status.INVALID_ARGUMENT),
        (
            {Attr.METHOD: "echo", Attr.DATA: blob(Type.STRING, b"\0\x01s\0a\0b\0", extended=True)},
            Status.INVALID_ARGUMENT,
        ),
        ({Attr.METHOD: "echo\nx", Attr.DATA: b""}, Status.METHOD_NOT_FOUND),
        ({Attr.METHOD: "", Attr.DATA: b""}, Status.METHOD_NOT_FOUND),
    ],
)
async def test_a_call_of_a_broken_peer_is_refused_and_harms_nobody(
    ubusd: Ubusd, connect: Connect, attributes: dict[Attr, Any], status: Status
) -> None:
    server, caller = await connect(), await connect()
    target = echoing()
    await server.add_object(target)
    reader, writer = await asyncio.open_unix_connection(str(ubusd.path))
    call = Message(MessageType.INVOKE, 7, target.object_id, {Attr.OBJID: target.object_id, **attributes})
    writer.write(encode_message(call))
    decoder = Decoder()
    async with asyncio.timeout(5):
        while not (
            answers := [m for m in decoder.feed(await reader.read(4096)) if m.kind == MessageType.STATUS]
        ):
            pass
    assert (answers[0].seq, answers[0].number(Attr.STATUS)) == (7, status)
    assert await caller.call("test.echo", "echo", {"i": 1}) == {"i": 1}
    writer.close()


async def test_a_call_that_comes_with_the_news_of_the_objects_id_is_answered(tmp_path: Any) -> None:
    answered: list[Message] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A ubusd that sends the object's id and the first call of it at once."""
        decoder = Decoder()
        writer.write(encode_message(Message(MessageType.HELLO, 0, 9)))
        while data := await reader.read(4096):
            for message in decoder.feed(data):
                if message.kind == MessageType.ADD_OBJECT:
                    call = {Attr.OBJID: 5, Attr.METHOD: "echo", Attr.DATA: b""}
                    replies = [
                        Message(MessageType.DATA, message.seq, 0, {Attr.OBJID: 5}),
                        Message(MessageType.STATUS, message.seq, 0, {Attr.STATUS: 0}),
                        Message(MessageType.INVOKE, 1, 3, call),
                    ]
                    writer.write(b"".join(map(encode_message, replies)))
                elif message.kind == MessageType.STATUS:
                    answered.append(message)
        writer.close()

    server = await asyncio.start_unix_server(serve, str(tmp_path / "s"))
    client = UbusClient(str(tmp_path / "s"))
    await client.add_object(echoing())
    task = asyncio.create_task(client.run())
    await until(lambda: answered)
    assert answered[0].number(Attr.STATUS) == Status.OK
    task.cancel()
    await asyncio.wait({task})
    server.close()


async def test_a_slow_call_delays_no_other(connect: Connect) -> None:
    release = asyncio.Event()

    async def slow(_: Mapping[str, Any]) -> Mapping[str, Any]:
        await release.wait()
        return {"slow": True}

    server, caller = await connect(), await connect()
    await server.add_object(echoing(slow=Method(handler=slow)))
    waiting = asyncio.create_task(caller.call("test.echo", "slow"))
    for number in range(20):
        assert await caller.call("test.echo", "echo", {"i": number}, timeout_s=2) == {"i": number}
    assert not waiting.done()
    release.set()
    assert await waiting == {"slow": True}


async def test_more_calls_than_may_run_are_refused_and_the_others_go_on(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ubus_client, "CALLS", 3)
    release = asyncio.Event()

    async def slow(_: Mapping[str, Any]) -> Mapping[str, Any]:
        await release.wait()
        return {}

    server, caller = await connect(), await connect()
    await server.add_object(echoing(slow=Method(handler=slow)))
    waiting = [asyncio.create_task(caller.call("test.echo", "slow")) for _ in range(4)]
    done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED, timeout=5)
    assert [getattr(task.exception(), "status", None) for task in done] == [Status.NO_MEMORY]
    release.set()
    assert [await task for task in waiting if task not in done] == [{}, {}, {}]


async def test_a_call_that_nobody_answers_ends_at_its_deadline(connect: Connect) -> None:
    async def never(_: Mapping[str, Any]) -> None:
        await asyncio.Event().wait()

    server, caller = await connect(), await connect()
    await server.add_object(echoing(never=Method(handler=never)))
    begun = time.monotonic()
    with pytest.raises(BusError, match=r"no answer in 0\.2 s") as caught:
        await caller.call("test.echo", "never", timeout_s=0.2)
    assert caught.value.status == Status.TIMEOUT
    assert time.monotonic() - begun < 5


async def test_a_reply_that_ubus_cannot_carry_is_an_error_that_says_so(connect: Connect) -> None:
    async def large(args: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"text": "x" * args["i"]}

    server, caller = await connect(), await connect()
    await server.add_object(echoing(large=Method(handler=large, args={"i": INTEGER})))
    assert len((await caller.call("test.echo", "large", {"i": 1_000_000}))["text"]) == 1_000_000
    refused = await caller.call("test.echo", "large", {"i": 1024 * 1024})
    assert refused == {"error": {"code": "too-large", "message": TOO_LARGE}}
    assert await caller.call("test.echo", "echo", {"i": 1}) == {"i": 1}
    with pytest.raises(BusError, match="takes more than 1047552 bytes"):
        await caller.call("test.echo", "echo", {"s": "x" * 1024 * 1024})


async def test_an_object_that_was_published_anew_is_found_again(connect: Connect) -> None:
    server, caller = await connect(), await connect()
    first = echoing()
    await server.add_object(first)
    assert await caller.call("test.echo", "echo") == {}
    await server.remove_object(first)
    with pytest.raises(BusError) as caught:
        await caller.call("test.echo", "echo")
    assert caught.value.status == Status.NOT_FOUND
    await server.add_object(echoing())
    assert await caller.call("test.echo", "echo") == {}


async def test_not_found_from_the_object_itself_is_not_tried_twice(connect: Connect) -> None:
    calls = 0

    async def missing(_: Mapping[str, Any]) -> None:
        nonlocal calls
        calls += 1
        raise BusError("no such session", status=Status.NOT_FOUND)

    server, caller = await connect(), await connect()
    await server.add_object(echoing(missing=Method(handler=missing)))
    with pytest.raises(BusError):
        await caller.call("test.echo", "missing")
    assert calls == 1


async def test_a_notification_reaches_every_subscriber_and_is_acknowledged(
    ubusd: Ubusd, connect: Connect
) -> None:
    server = await connect()
    source = BusObject(name="test.news", methods={})
    await server.add_object(source)
    assert await server.notify(source, "tick", {"n": 0}, answer_s=2) == 0
    one, two = Heard(), Heard()
    async with subscribed(ubusd, "test.news", one), subscribed(ubusd, "test.news", two):
        await until(lambda: source.subscribed)
        assert await server.notify(source, "tick", {"n": 1}, answer_s=2) == 2
        assert await server.notify(source, "tock", {"n": 2}) == 0
        assert await one.wait(2) == await two.wait(2) == [("tick", {"n": 1}), ("tock", {"n": 2})]
    await until(lambda: not source.subscribed)


@contextlib.asynccontextmanager
async def subscribed(ubusd: Ubusd, target: str, heard: Heard) -> Any:
    """A client that subscribed before it ran, as the agent does."""
    client = UbusClient(str(ubusd.path), jitter=lambda: 1.0)
    client.subscribe(target, heard)
    task = asyncio.create_task(client.run())
    async with asyncio.timeout(5):
        await client.ready.wait()
    try:
        yield client
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_coming_and_going_of_subscribers_is_told(ubusd: Ubusd, connect: Connect) -> None:
    told: list[bool] = []
    server = await connect()
    await server.add_object(BusObject(name="test.news", methods={}, on_subscribed=told.append))
    async with subscribed(ubusd, "test.news", Heard()):
        await until(lambda: told == [True])
    await until(lambda: told == [True, False])


async def test_a_subscription_to_what_is_not_there_yet_starts_when_it_comes(
    ubusd: Ubusd, connect: Connect
) -> None:
    heard = Heard()
    async with subscribed(ubusd, "service", heard):
        server = await connect()
        for number in range(2):
            source = BusObject(name="service", methods={})
            await server.add_object(source)
            await until(lambda source=source: source.subscribed)
            await server.notify(source, "config.change", {"config": "containers", "n": number})
            await heard.wait(number + 1)
            await server.remove_object(source)
    assert [data["n"] for _, data in heard.all] == [0, 1]


async def test_after_a_restart_of_ubusd_everything_is_back_within_3_s(ubusd: Ubusd, connect: Connect) -> None:
    heard = Heard()
    async with subscribed(ubusd, "test.news", heard) as subscriber:
        server, caller = await connect(), await connect()
        lost: list[bool] = []
        server.on_lost(lambda: lost.append(True))
        source = BusObject(name="test.news", methods={"echo": Method(handler=echo)})
        passing = BusObject(name="test.passing", methods={}, lasting=False)
        await server.add_object(source)
        await server.add_object(passing)
        await until(lambda: source.subscribed)
        await ubusd.stop()
        await until(lambda: lost == [True])
        with pytest.raises(BusError, match="no connection"):
            await server.call("test.echo", "echo")
        assert not source.subscribed
        await asyncio.sleep(0.5)
        await ubusd.start()
        back = time.monotonic()
        await asyncio.gather(*(client.ready.wait() for client in (server, caller, subscriber)))
        assert await caller.call("test.news", "echo") == {}
        await until(lambda: source.subscribed)
        assert time.monotonic() - back < 10
        await server.notify(source, "tick", {"n": 1})
        assert await heard.wait(1) == [("tick", {"n": 1})]
        assert list(await caller.lookup("test.*")) == ["test.news"]


async def test_a_call_under_way_fails_when_ubusd_goes(ubusd: Ubusd, connect: Connect) -> None:
    called = asyncio.Event()

    async def never(_: Mapping[str, Any]) -> None:
        called.set()
        await asyncio.Event().wait()

    server, caller = await connect(), await connect()
    await server.add_object(echoing(never=Method(handler=never)))
    waiting = asyncio.create_task(caller.call("test.echo", "never"))
    await called.wait()
    await ubusd.stop()
    with pytest.raises(BusError, match="lost"):
        await waiting


async def test_a_name_that_is_taken_is_refused_and_had_later(
    ubusd: Ubusd, connect: Connect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ubus_client, "_TAKEN_RETRY_S", 0.1)
    holder, caller = await connect(), await connect()
    theirs = echoing()
    await holder.add_object(theirs)
    late = UbusClient(str(ubusd.path))
    ours = echoing()
    await late.add_object(ours)
    task = asyncio.create_task(late.run())
    await late.ready.wait()
    assert "another process already publishes test.echo" in caplog.text
    with pytest.raises(BusError):
        await (await connect()).add_object(echoing())
    await holder.remove_object(theirs)
    await until(lambda: ours.object_id)
    assert await caller.call("test.echo", "echo", {"i": 3}) == {"i": 3}
    task.cancel()
    await asyncio.wait({task})


async def test_without_a_ubusd_nothing_is_logged_and_calls_say_so(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client = UbusClient(str(tmp_path / "none"), jitter=lambda: 0.01)
    task = asyncio.create_task(client.run())
    await asyncio.sleep(0.05)
    with pytest.raises(BusError, match="no connection"):
        await client.call("session", "access")
    task.cancel()
    await asyncio.wait({task})
    assert [r for r in caplog.records if r.levelno > logging.DEBUG and r.name.startswith("agent")] == []


@pytest.mark.parametrize("rubbish", [b"\0" * 7, b"GET / HTTP/1.1\r\n\r\n", b"\x01" * 64, b""])
async def test_a_daemon_that_talks_rubbish_is_left_and_tried_again(tmp_path: Any, rubbish: bytes) -> None:
    connections = 0

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.write(rubbish)
        writer.close()

    server = await asyncio.start_unix_server(serve, str(tmp_path / "s"))
    task = asyncio.create_task(UbusClient(str(tmp_path / "s"), jitter=lambda: 0.01).run())
    await until(lambda: connections >= 3)
    task.cancel()
    await asyncio.wait({task})
    server.close()
