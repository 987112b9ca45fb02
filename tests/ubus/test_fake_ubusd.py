# SPDX-License-Identifier: GPL-2.0-or-later
"""The fake ubusd answers recorded peers with what the real one answered them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from agent.wire import blobmsg
from agent.wire.ubus_message import Attr, Decoder, Message, MessageType, encode_message
from tests.support.fake_ubusd import FakeUbusd
from tests.support.ubus_vectors import Conversation, conversations, one_way

_IDS = (Attr.OBJID, Attr.OBJTYPE, Attr.TARGET)


class Player:
    """A recorded peer that speaks again: the ids that it was given then become those that it is given now."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._decoder = Decoder()
        self._waiting: list[Message] = []
        self.now: dict[int, int] = {0: 0, 1: 1}

    async def say(self, recorded: Message) -> None:
        attributes = {
            attr: self.now.get(value, value) if attr in _IDS and isinstance(value, int) else value
            for attr, value in recorded.attributes.items()
        }
        if recorded.text(Attr.METHOD) == "register":
            data = blobmsg.decode(recorded.raw(Attr.DATA) or b"")
            assert isinstance(data["object"], int)
            where = self.now[data["object"] % 2**32]
            attributes[Attr.DATA] = blobmsg.encode(
                {**data, "object": where - 2**32 if where >= 2**31 else where}
            )
        peer = self.now.get(recorded.peer, recorded.peer)
        self._writer.write(encode_message(Message(recorded.kind, recorded.seq, peer, attributes)))

    async def hear(self, recorded: Message) -> None:
        """Takes the next message; it has to be the recorded one but for its ids."""
        while not self._waiting:
            async with asyncio.timeout(5):
                self._waiting += self._decoder.feed(await self._reader.read(65536))
        got = self._waiting.pop(0)
        assert got.kind == recorded.kind
        assert list(got.attributes) == list(recorded.attributes)
        if recorded.kind != MessageType.INVOKE:
            assert got.seq == recorded.seq
        for attr, value in recorded.attributes.items():
            if attr in _IDS and isinstance(value, int):
                self.now[value] = got.number(attr) or 0
            elif attr is Attr.SUBSCRIBERS:
                self.now |= zip(recorded.numbers(attr), got.numbers(attr), strict=True)
            else:
                assert got.attributes[attr] == value
        self.now[recorded.peer] = got.peer


ALONE = ("list missing", "send event", "listen", "publish object")


@pytest.mark.parametrize("name", ALONE)
async def test_a_peer_that_is_alone_hears_what_it_heard_then(name: str, tmp_path: Path) -> None:
    recorded = next(c for c in conversations() if c.name == name)
    async with FakeUbusd(tmp_path / "s") as daemon:
        player = Player(*await asyncio.open_unix_connection(str(daemon.path)))
        for who, message in _until_others_come(recorded):
            await (player.say if who == "client" else player.hear)(message)


def _until_others_come(recorded: Conversation) -> list[tuple[str, Message]]:
    """The exchange of one peer with the daemon, up to the first thing that another peer caused."""
    steps: list[tuple[str, Message]] = []
    for who, data in recorded.frames:
        for message in Decoder().feed(data):
            if who == "ubusd" and message.kind == MessageType.INVOKE:
                return steps
            steps.append((who, message))
    return steps


async def test_publisher_and_subscriber_hear_what_they_heard_then(tmp_path: Path) -> None:
    found = {c.name: c for c in conversations()}
    publisher = found["publisher with a subscriber that comes and goes"]
    subscriber = found["subscriber"]
    sent = Decoder().feed(one_way(publisher, "client"))
    heard = Decoder().feed(one_way(publisher, "ubusd"))
    async with FakeUbusd(tmp_path / "s") as daemon:
        one = Player(*await asyncio.open_unix_connection(str(daemon.path)))
        two = Player(*await asyncio.open_unix_connection(str(daemon.path)))
        await one.hear(heard[0])
        await one.say(sent[0])
        for message in heard[1:3]:
            await one.hear(message)
        await one.say(sent[1])  # a notification that nobody hears
        await one.hear(heard[3])
        for who, data in subscriber.frames[:7]:
            for message in Decoder().feed(data):
                await (two.say if who == "client" else two.hear)(message)
        await one.hear(heard[4])  # the first subscriber has come
        await one.say(sent[1])  # it was number 2 of its publisher when the subscriber was recorded
        await one.hear(replace(heard[5], seq=2))  # whom it went to
        step = Decoder().feed(subscriber.frames[7][1])[0]
        await two.hear(step)
        await two.say(Decoder().feed(subscriber.frames[8][1])[0])
        await one.hear(replace(heard[6], seq=2))  # it has acknowledged
