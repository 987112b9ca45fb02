# SPDX-License-Identifier: GPL-2.0-or-later
"""A console on a tab's stream object, in a real container."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.api.streams.consoles import Consoles
from agent.api.streams.stream_sources import console_kind
from agent.engine.stream import DockerStream
from agent.errors import BusError
from tests.api.conftest import Containers
from tests.support.dockerd import PrivateDockerd
from tests.support.fake_rpcd import ADMIN, READER
from tests.support.streams_room import Reader, Room, a_room


@pytest.fixture
async def room(engine: PrivateDockerd, tmp_path: Path) -> AsyncIterator[Room]:
    async with Consoles(DockerStream(engine.host)) as consoles:
        kinds = {"console": console_kind(consoles)}
        async with a_room(tmp_path / "ubus.sock", engine.host, kinds) as made:
            yield made


async def opened(room: Room, container: str, **args: Any) -> dict[str, Any]:
    given = {"container": container, **args}
    answer = await room.call("stream_open", {"kind": "console", "args": given}, session=ADMIN)
    assert "stream" in answer, answer
    return answer


def shown(reader: Reader) -> bytes:
    """All output."""
    return b"".join(base64.b64decode(item["bytes"]) for item in reader.items if "bytes" in item)


def names(reader: Reader) -> list[str]:
    return [item["name"] for item in reader.items]


async def test_what_is_typed_runs_and_the_exit_code_comes(room: Room, containers: Containers) -> None:
    tab = await opened(room, containers.run("sleep 60"), command=["sh"], rows=10, columns=40)
    target = {"id": tab["id"], "stream": tab["stream"]}
    async with room.reading(tab) as reader:
        await room.call("stream_input", {**target, "text": "echo gr\u00fc\u00dfe$((1+1))\n"}, session=ADMIN)
        await reader.until(lambda: "gr\u00fc\u00dfe2".encode() in shown(reader), 10)
        assert await room.call("stream_resize", {**target, "rows": 24, "columns": 80}, session=ADMIN) == {}
        await room.call("stream_input", {**target, "text": "exit 3\n"}, session=ADMIN)
        await reader.until(lambda: "end" in names(reader), 10)
        assert names(reader)[0] == "open"
        assert names(reader)[-2:] == ["exit", "end"]
        assert reader.items[-2]["json"] == {"code": 3, "reason": ""}
    gone = await room.call("stream_input", {**target, "text": "x"}, session=ADMIN)
    assert "is not open" in gone["error"]["message"]


async def test_a_process_ends_with_its_stream(room: Room, containers: Containers) -> None:
    made = containers.run("sleep 60")
    tab = await opened(room, made, command=["sleep", "50"])
    async with room.reading(tab) as reader:
        await reader.until(lambda: "open" in names(reader), 10)
        await until_it_runs(containers, made, runs=True)
        await room.call("stream_close", {"id": tab["id"], "stream": tab["stream"]}, session=ADMIN)
        await until_it_runs(containers, made, runs=False)


async def until_it_runs(containers: Containers, container: str, *, runs: bool) -> None:
    top = containers.client.containers.get(container).top
    async with asyncio.timeout(10):
        while ("sleep 50" in [row[-1] for row in (await asyncio.to_thread(top))["Processes"]]) is not runs:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def test_a_megabyte_of_any_bytes_arrives_whole(room: Room, containers: Containers) -> None:
    command = ["busybox", "head", "-c", "1000000", "/dev/zero"]
    tab = await opened(room, containers.run("sleep 60"), command=command, tty=False)
    async with room.reading(tab) as reader:
        await reader.until(lambda: "exit" in names(reader), 20)
        assert shown(reader) == bytes(1_000_000)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ({}, "container: expected"),
        ({"container": "../x"}, "letters"),
        ({"container": "a", "tty": "x"}, "tty"),
    ],
)
async def test_a_bad_console_is_told_what_is_expected(
    room: Room, args: dict[str, Any], expected: str
) -> None:
    answer = await room.call("stream_open", {"kind": "console", "args": args}, session=ADMIN)
    assert expected in answer["error"]["message"]


async def test_a_reader_opens_no_console_and_a_missing_container_is_an_error(room: Room) -> None:
    room.bus.rpcd.rights[READER] = {("ucidockd", "*")}
    args = {"kind": "console", "args": {"container": "no-such"}}
    with pytest.raises(BusError, match="permission denied"):
        await room.call("stream_open", args, session=READER)
    tab = await room.call("stream_open", args, session=ADMIN)
    async with room.reading(tab) as reader:
        await reader.until(lambda: "error" in names(reader), 10)
        assert "No such container" in reader.items[-1]["json"]["message"]
