# SPDX-License-Identifier: GPL-2.0-or-later
"""Removing a container that the engine is removing already."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.engine.client import DockerEngine
from agent.errors import EngineError
from tests.support.scripted_engine import ScriptedEngine

BUSY = (409, {"message": "removal of container web is already in progress"})


@contextmanager
def engine(
    path: Path, answers: dict[str, tuple[int, object]]
) -> Iterator[tuple[DockerEngine, ScriptedEngine]]:
    """`answers`: method and last part of the path -> status and body."""

    def script(connection: socket.socket, head: bytes) -> None:
        method, target = head.split(b" ")[:2]
        name = target.partition(b"?")[0].rpartition(b"/")[2]
        status, body = answers[f"{method.decode()} {name.decode()}"]
        data = json.dumps(body).encode()
        lines = f"HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {len(data)}\r\n\r\n"
        connection.sendall(lines.encode() + data)

    fake = ScriptedEngine(path, script)
    try:
        yield DockerEngine(fake.url), fake
    finally:
        fake.close()


@pytest.mark.parametrize("end", [(200, {"StatusCode": 0}), (404, {"message": "No such container: web"})])
def test_a_removal_that_is_under_way_is_waited_for(tmp_path: Path, end: tuple[int, object]) -> None:
    answers = {"GET version": (200, {"ApiVersion": "1.41"}), "DELETE web": BUSY, "POST wait": end}
    with engine(tmp_path / "engine.sock", answers) as (docker, fake):
        docker.remove_container("web", volumes=False)
        assert b"/containers/web/wait?condition=removed " in fake.heads[-1]


def test_any_other_conflict_is_an_error(tmp_path: Path) -> None:
    refusal = (409, {"message": "You cannot remove a running container"})
    answers = {"GET version": (200, {"ApiVersion": "1.41"}), "DELETE web": refusal}
    with (
        engine(tmp_path / "engine.sock", answers) as (docker, _),
        pytest.raises(EngineError, match="running"),
    ):
        docker.remove_container("web", volumes=False)
