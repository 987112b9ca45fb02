# SPDX-License-Identifier: GPL-2.0-or-later
"""Consoles over an engine that a test speaks for: what real engines do rarely."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.api.streams import consoles as module
from agent.api.streams.consoles import Console, Consoles, ExecSpec
from agent.engine.stream import DockerStream
from agent.errors import BusError, ConflictError
from agent.status.ring import Item, OutputEnd
from tests.api.console_client import screen
from tests.support.controller import serving
from tests.support.scripted_engine import ScriptedEngine

ELSEWHERE = {"Running": True, "Pid": 1, "ContainerID": "f" * 64, "ExitCode": None}


class ExecEngine:
    """Answers what a console asks. `output` is what an exec prints; it then stays open while `stays`."""

    def __init__(self, path: Path) -> None:
        self.output = b"hello"
        self.stays = True
        self.deaf = False
        self.over = threading.Event()
        self.asked, self.answers = threading.Event(), threading.Event()
        self.answers.set()
        self.state: dict[str, object] | None = dict(ELSEWHERE)
        self.stdin = b""
        self.fake = ScriptedEngine(path, self._speak)

    def _speak(self, connection: socket.socket, head: bytes) -> None:
        line = head.split(b"\r\n")[0]
        if line.startswith(b"POST /containers/"):
            _say(connection, {"Id": "e1"})
        elif line.startswith(b"GET /exec/"):
            self.asked.set()
            self.answers.wait(20)
            if self.state is not None:
                _say(connection, self.state)
        elif line.startswith(b"POST /exec/e1/start"):
            connection.sendall(
                b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n" + self.output
            )
            if self.deaf:
                self.over.wait(20)
            while self.stays and (data := connection.recv(65536)):
                self.stdin += data


def _say(connection: socket.socket, body: object) -> None:
    data = json.dumps(body).encode()
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data)


@pytest.fixture
def engine(tmp_path: Path) -> ExecEngine:
    return ExecEngine(tmp_path / "engine.sock")


@pytest.fixture
async def consoles(engine: ExecEngine) -> AsyncIterator[Consoles]:
    async with Consoles(DockerStream(engine.fake.url), away_s=0.2) as made:
        yield made
    engine.fake.close()


async def opened(consoles: Consoles) -> Console:
    return await consoles.open("web", ExecSpec(command=("sh",)))


async def read(console: Console) -> list[Item | None]:
    return [item async for item in console.output()]


async def test_a_process_out_of_reach_is_said_to_be_so_and_gets_no_more_input(
    consoles: Consoles, engine: ExecEngine
) -> None:
    console = await opened(consoles)
    await consoles.end(console)
    ended = (await read(console))[-1]
    assert isinstance(ended, OutputEnd) and ended.code is None
    assert ended.reason == (
        "ended on request; its process is out of reach of the agent and may still run; its input was closed"
    )
    engine.fake.wait_closed()


async def test_a_console_whose_end_is_given_up_by_its_client_ends_all_the_same(
    consoles: Consoles, engine: ExecEngine
) -> None:
    console = await opened(consoles)
    engine.answers.clear()
    async with asyncio.TaskGroup() as group:
        client = group.create_task(consoles.end(console))
        await asyncio.to_thread(engine.asked.wait, 20)
        client.cancel()
    engine.answers.set()
    ended = (await read(console))[-1]
    assert isinstance(ended, OutputEnd) and ended.reason.startswith("ended on request; ")


async def test_an_engine_that_goes_away_ends_the_console_with_its_reason(
    consoles: Consoles, engine: ExecEngine
) -> None:
    engine.stays, engine.state = False, None
    first, ended = await read(await opened(consoles))
    assert first is not None and isinstance(ended, OutputEnd)
    assert ended.code is None and "the engine" in ended.reason


async def test_a_process_whose_connection_breaks_is_not_left_behind(
    consoles: Consoles, engine: ExecEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SETTLE_S", 0.2)
    engine.output, engine.stays = b"", False
    console = await opened(consoles)
    console._pipe._wire.fail(ConnectionResetError("reset"))
    (ended,) = await read(console)
    assert isinstance(ended, OutputEnd) and ended.code is None
    assert ended.reason.startswith("the console's connection broke: reset; its process is out of reach")


async def test_output_that_is_no_output_ends_the_console(consoles: Consoles, engine: ExecEngine) -> None:
    engine.output = b"\x09broken!"
    console = await consoles.open("web", ExecSpec(tty=False))
    (ended,) = await read(console)
    assert isinstance(ended, OutputEnd) and "no frame header" in ended.reason


async def test_a_process_that_closes_its_output_is_waited_for(consoles: Consoles, engine: ExecEngine) -> None:
    engine.stays = False
    console = await opened(consoles)
    output = console.output()
    await anext(output)
    assert not console.ended
    engine.state = {"Running": False, "ExitCode": 5, "Pid": 0}
    ended = await anext(output)
    assert isinstance(ended, OutputEnd) and (ended.code, ended.reason) == (5, "")
    with pytest.raises(ConflictError, match="has ended"):
        await console.input(b"x")
    with pytest.raises(ConflictError, match="has ended"):
        await console.resize(rows=1, columns=1)


async def test_input_that_nobody_reads_is_given_up(
    consoles: Consoles, engine: ExecEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "INPUT_S", 0.2)
    engine.deaf = True
    console = await opened(consoles)
    with pytest.raises(ConflictError, match="has read no input"):
        for _ in range(100):
            await console.input(b"x" * 100_000)
    engine.over.set()


def test_input_that_fails_is_told_and_the_end_still_comes(
    engine: ExecEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "INPUT_S", 0.2)
    engine.deaf = True
    with serving(tmp_path, engine.fake.url) as controller, screen(controller, "web") as terminal:
        terminal.until("hello")
        for _ in range(16):
            terminal.type(b"x" * 50_000)
        while not terminal.texts:
            terminal._receive(10)
        assert terminal.texts[0]["message"] == "the process has read no input for 0.2 s"
        engine.state = {"Running": False, "ExitCode": 9}
        engine.stays = False
        engine.over.set()
        assert terminal.end()["code"] == 9
    engine.fake.close()


async def test_a_console_without_a_terminal_has_no_size(consoles: Consoles, engine: ExecEngine) -> None:
    engine.output = b""
    console = await consoles.open("web", ExecSpec(tty=False))
    with pytest.raises(ConflictError, match="no terminal"):
        await console.resize(rows=24, columns=80)


async def test_a_session_that_nobody_can_tell_about_ends_its_console(consoles: Consoles) -> None:
    async def allowed() -> bool:
        raise BusError("rpcd does not answer")

    console = await consoles.open("web", ExecSpec(), allowed=allowed)
    ended = (await read(console))[-1]
    assert isinstance(ended, OutputEnd) and ended.reason.startswith("its session has ended")
    assert consoles.get(console.id) is None


async def test_there_are_only_so_many_and_those_that_are_over_make_room(
    consoles: Consoles, engine: ExecEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LIMIT", 2)
    engine.stays, engine.state = False, {"Running": False, "ExitCode": 0}
    over = await opened(consoles)
    await read(over)
    engine.stays = True
    await opened(consoles)
    await opened(consoles)
    assert consoles.get(over.id) is None
    with pytest.raises(ConflictError, match="2 consoles are open"):
        await opened(consoles)


async def test_values_of_variables_do_not_show_in_a_spec() -> None:
    assert "S3CRET" not in repr(ExecSpec(env=("PASSWORD=S3CRET",)))
