# SPDX-License-Identifier: GPL-2.0-or-later
"""The status stream: soon, whole, each change once, and no reader at another's cost."""

from __future__ import annotations

import json
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.api.routes.agent import SlowReaderError, status_events
from agent.status.board import RING, StatusBoard
from agent.status.conditions import ConditionType
from tests.support.controller import Controller, serving, sse_events

KEY = "container:web"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Controller]:
    with serving(tmp_path, f"unix://{tmp_path / 'nothing.sock'}") as made:
        made.agent.board.ensure(KEY)
        yield made


def change(board: StatusBoard, number: int, padding: int = 0) -> None:
    board.set(
        KEY,
        ConditionType.RUNNING,
        status=number % 2 == 0,
        reason=f"R{number}",
        message="x" * padding,
    )


def reason(event: dict[str, Any]) -> str:
    return str(event["resource"]["conditions"][0]["reason"])


def test_each_condition_change_is_there_within_100_ms(served: Controller) -> None:
    with served.client.stream("GET", "/v1/status/stream") as response:
        events = sse_events(response.iter_lines())
        assert next(events)[0] == "status"
        delays = []
        for number in range(30):
            begin = time.monotonic()
            change(served.agent.board, number)
            name, data, _ = next(events)
            delays.append(time.monotonic() - begin)
            assert (name, reason(data)) == ("change", f"R{number}")
    # the machine's other load may hold up one or two
    assert sorted(delays)[-3] < 0.1, delays


def test_readers_that_come_and_go_miss_nothing_and_see_nothing_twice(served: Controller) -> None:
    board, total = served.agent.board, 400
    go_on = threading.Semaphore(0)

    def write() -> None:
        for number in range(total):
            assert go_on.acquire(timeout=10)
            change(board, number)

    writer = threading.Thread(target=write)
    writer.start()
    seen: list[str] = []
    last = ""
    while len(seen) < total:
        headers = {"last-event-id": last} if last else {}
        go_on.release(2)
        with served.client.stream("GET", "/v1/status/stream", headers=headers) as response:
            events = sse_events(response.iter_lines())
            for name, data, last in events:  # noqa: B007 - the next reader resumes after it
                if name == "status":
                    assert not seen
                    first = [c["reason"] for r in data["resources"] for c in r["conditions"]]
                    seen = [f"R{number}" for number in range(int(first[0][1:]) + 1)] if first else []
                else:
                    seen.append(reason(data))
                go_on.release(2)
                if len(seen) % 17 == 0 or len(seen) >= total:
                    break
    writer.join(10)
    assert seen == [f"R{number}" for number in range(total)]


def test_a_reader_that_does_not_read_is_dropped_with_a_reason_and_slows_nobody(served: Controller) -> None:
    board = served.agent.board
    with socket.socket(socket.AF_UNIX) as lazy, served.client.stream("GET", "/v1/status/stream") as response:
        lazy.connect(str(served.path))
        lazy.sendall(b"GET /v1/status/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        events = sse_events(response.iter_lines())
        next(events)
        delays = []
        for number in range(3 * RING):
            begin = time.monotonic()
            change(board, number, padding=4000)
            assert reason(next(events)[1]) == f"R{number}"
            delays.append(time.monotonic() - begin)
        assert statistics.median(delays) < 0.1
        lazy.settimeout(5)
        got = read_until_end(lazy)
    name, data, _ = list(sse_events(iter(got.decode().splitlines())))[-1]
    assert (name, data["code"]) == ("error", "slow-reader") and "too slow" in data["message"]


def read_until_end(client: socket.socket) -> bytes:
    """Server-sent events, taken out of their chunks, until the answer's last chunk."""
    got = b""
    while not got.endswith(b"\r\n0\r\n\r\n"):
        piece = client.recv(65536)
        assert piece, "the answer was cut"
        got += piece
    body, rest = b"", got.partition(b"\r\n\r\n")[2]
    while rest != b"0\r\n\r\n":
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return body


@pytest.mark.parametrize("stale", [1, 5_000_000, 2**50])
async def test_an_id_of_an_agent_before_this_one_starts_anew(stale: int) -> None:
    board = StatusBoard(time.time, first=1_000_000)
    board.ensure(KEY)
    events = status_events(board, stale)
    assert b"event: status" in await anext(events)
    await events.aclose()


async def test_an_untouched_board_resumes_only_at_its_own_version() -> None:
    board = StatusBoard(time.time, first=7)
    assert board.events_after(7) == [] and board.events_after(6) is None and board.events_after(8) is None


async def test_falling_behind_the_ring_is_an_error_of_that_reader_alone() -> None:
    board = StatusBoard(time.time)
    board.ensure(KEY)
    events = status_events(board, None)
    await anext(events)
    for number in range(RING + 1):
        change(board, number)
    with pytest.raises(SlowReaderError):
        await anext(events)
    fresh = status_events(board, None)
    snapshot = json.loads((await anext(fresh)).split(b"data: ")[1])
    assert snapshot["resources"][0]["conditions"][0]["reason"] == f"R{RING}"
    await fresh.aclose()


def test_text_that_is_no_utf_8_breaks_no_answer(served: Controller) -> None:
    served.agent.board.set_agent(config_issues=["an option of \udcff"])
    assert served.client.get("/v1/status").json()["agent"]["config_issues"] == ["an option of ?"]
    with served.client.stream("GET", "/v1/status/stream") as response:
        _, data, _ = next(sse_events(response.iter_lines()))
    assert data["agent"]["config_issues"] == ["an option of ?"]
