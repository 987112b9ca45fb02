# SPDX-License-Identifier: GPL-2.0-or-later
"""The container list: what is read from the engine's words, and that a reply like the last one is not read again."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.engine.client import DockerEngine
from agent.errors import EngineInvalidError, EngineUnreachableError
from tests.support.scripted_engine import ScriptedEngine

VERSION = b'{"ApiVersion": "1.41"}'
HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"


class Lister(ScriptedEngine):
    """Answers lists with `body`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, self._answer)
        self.body = b"[]"

    def show(self, *items: dict[str, Any]) -> None:
        self.body = json.dumps(items).encode()

    def _answer(self, connection: socket.socket, head: bytes) -> None:
        body = VERSION if b"/version " in head else self.body
        connection.sendall(HEAD % len(body) + body)


@pytest.fixture
def lister(tmp_path: Path) -> Iterator[Lister]:
    made = Lister(tmp_path / "engine.sock")
    yield made
    made.close()


def item(number: int = 1, *, state: str = "running", status: str = "Up 2 minutes") -> dict[str, Any]:
    return {
        "Id": f"{number:064x}",
        "Names": [f"/c{number}"],
        "Image": "app:1",
        "State": state,
        "Status": status,
    }


IMPOSSIBLE = {
    "an id that is none": [{**item(), "Id": "../1"}],
    "a short id": [{**item(), "Id": "1f" * 6}],
    "one id twice": [item(), {**item(), "Names": ["/other"]}],
}


@pytest.mark.parametrize("items", IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_a_list_that_cannot_be_is_no_list(lister: Lister, items: list[dict[str, Any]]) -> None:
    lister.show(*items)
    with pytest.raises(EngineInvalidError):
        DockerEngine(lister.url).list_containers("us")


@pytest.mark.parametrize(
    ("state", "status", "health", "exit_code"),
    [
        ("running", "Up Less than a second", "", None),
        ("running", "Up 3 hours (healthy)", "healthy", None),
        ("running", "Up 2 weeks (unhealthy)", "unhealthy", None),
        ("running", "Up About a minute (health: starting)", "starting", None),
        ("paused", "Up 2 minutes (Paused)", "", None),
        ("exited", "Exited (0) 2 seconds ago", "", 0),
        ("exited", "Exited (137) About an hour ago", "", 137),
        ("dead", "Exited (1) 2 days ago", "", 1),
        ("dead", "Dead", "", None),
        ("restarting", "Restarting (1) 3 seconds ago", "", None),
        ("created", "Created", "", None),
        ("removing", "Removal In Progress", "", None),
    ],
)
def test_health_and_exit_code_are_read_from_the_status_text(
    lister: Lister, state: str, status: str, health: str, exit_code: int | None
) -> None:
    lister.show(item(state=state, status=status))
    (seen,) = DockerEngine(lister.url).list_containers("us")
    assert (seen.health, seen.exit_code, seen.status_text) == (health, exit_code, status)


def test_a_reply_like_the_last_one_is_not_read_again_and_any_other_is(lister: Lister) -> None:
    engine = DockerEngine(lister.url)
    lister.show(item(1), item(2))
    first = engine.list_containers("us")
    assert engine.list_containers("us") is first
    lister.show(item(1), item(2, state="exited", status="Exited (3) 1 second ago"))
    second = engine.list_containers("us")
    assert [seen.exit_code for seen in second] == [None, 3]
    lister.show(item(1), item(2))
    assert engine.list_containers("us") == first
    assert len([head for head in lister.heads if b"/containers/json" in head]) == 4


def test_a_reply_that_is_no_list_is_refused_every_time(lister: Lister) -> None:
    engine = DockerEngine(lister.url)
    lister.body = b'{"message": "loading"}'
    for _ in range(2):
        with pytest.raises(EngineUnreachableError):
            engine.list_containers("us")
    lister.show(item())
    assert [seen.name for seen in engine.list_containers("us")] == ["c1"]


def test_what_only_grew_older_is_the_same(lister: Lister) -> None:
    engine = DockerEngine(lister.url)
    lister.show(item(status="Up 2 minutes"))
    younger = engine.list_containers("us")
    lister.show(item(status="Up 3 minutes"))
    assert engine.list_containers("us") == younger
    lister.show(item(status="Up 3 minutes (unhealthy)"))
    assert engine.list_containers("us") != younger
