# SPDX-License-Identifier: GPL-2.0-or-later
"""The HTTP side of the agent comes with whoever wants it first, and not before."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.api.access.access import NoSessions
from agent.api.jobs.jobs import Jobs
from agent.api.streams.consoles import Consoles
from agent.data.parts import Data
from agent.engine.stream import DockerStream
from agent.files.options import RuntimeOptions
from agent.model.resources import AgentSettings
from agent.runtime import servers as module
from agent.runtime.servers import ApiParts, Web
from agent.status.board import StatusBoard
from tests.support.controller import QuietAgent

PAGE = "https://router.lan"
REQUEST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"


@asynccontextmanager
async def held(path: Path) -> AsyncIterator[Web]:
    """The control socket at `path`, of an agent without a loop."""
    engine, agent = DockerStream("unix:///none"), QuietAgent()
    board = StatusBoard(time.time)
    data = Data(engine, agent, board, instance=str, run_dir=path.parent, state_dir=path.parent)
    parts = ApiParts(
        options=RuntimeOptions(),
        agent=agent,  # type: ignore[arg-type]
        engine=engine,
        consoles=Consoles(engine),
        jobs=Jobs(engine),
        data=data,
        sessions=NoSessions(),
    )
    async with asyncio.timeout(30), Web(parts, path) as web:
        yield web


async def answer(path: Path, headers: bytes = b"") -> bytes:
    """All that comes back for one request; nothing when the connection is cut."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(REQUEST + headers + b"\r\n")
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_clients_that_come_before_the_server_are_all_answered(tmp_path: Path) -> None:
    async with held(tmp_path / "agent.sock"), asyncio.TaskGroup() as group:
        asked = [group.create_task(answer(tmp_path / "agent.sock")) for _ in range(20)]
    assert {task.result().partition(b"\r\n")[0] for task in asked} == {b"HTTP/1.1 200 OK"}


async def test_the_section_read_before_the_first_client_counts_for_it(tmp_path: Path) -> None:
    async with held(tmp_path / "agent.sock") as web:
        web.settings_read(AgentSettings(cors_origin=(PAGE,)))
        listed = await answer(tmp_path / "agent.sock", f"Origin: {PAGE}\r\n".encode())
        other = await answer(tmp_path / "agent.sock", b"Origin: https://elsewhere.lan\r\n")
    assert listed.startswith(b"HTTP/1.1 200 ")
    assert other.startswith(b"HTTP/1.1 403 ")


async def test_the_socket_of_an_agent_that_nobody_asked_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    async with held(path):
        assert path.is_socket()
        assert path.stat().st_mode & 0o777 == 0o600
    assert not path.exists()


async def test_clients_are_cut_where_the_server_cannot_be_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise ImportError("no module named starlette")

    monkeypatch.setattr(module, "_import_api", broken)
    path = tmp_path / "agent.sock"
    async with held(path) as web:
        assert await answer(path) == b""
        assert web._task is not None
        await asyncio.wait({web._task})
        assert not path.exists()
    assert "the control socket cannot be served" in caplog.text
