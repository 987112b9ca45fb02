# SPDX-License-Identifier: GPL-2.0-or-later
"""The status of thousands of sections in pages: complete, and none too large for ubus."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from agent.api.streams.stream_sources import board_feed
from agent.cli.ask import follow, whole_status
from agent.cli.status import Picture
from agent.status.board import NOTES, StatusBoard
from agent.status.conditions import ConditionType
from agent.wire import blobmsg
from agent.wire.ubus_message import MESSAGE_LIMIT
from tests.support.controller import serving

TEXTS = {"short": "", "usual": "it is exited, state is running" * 4, "odd": '"\\\n\x01ä\u2028' * 60}


def fill(board: StatusBoard, count: int, text: str) -> list[str]:
    keys = [f"container:c{number}" for number in range(count)]
    for key in keys:
        board.ensure(key)
        board.set_object(key, "0123456789abcdef" * 4)
        for kind in (ConditionType.ACCEPTED, ConditionType.SYNCED, ConditionType.RUNNING):
            board.set(key, kind, status=True, reason="R", message=text)
        for _ in range(NOTES if text else 1):
            board.note(key, "create", cause=text, ok=True)
    return sorted(keys)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
@pytest.mark.parametrize("count", [0, 1, 300, 1000])
def test_pages_have_everything_once_and_fit_on_ubus(count: int, text: str) -> None:
    board = StatusBoard(time.time)
    keys = fill(board, count, text)
    board.set_agent(config_issues=[f"containers: section c{n}: {text}" for n in range(count)])
    pages = list(board.pages())
    assert [resource["key"] for page in pages for resource in page["resources"]] == keys
    assert all(len(blobmsg.encode(page, limit=MESSAGE_LIMIT)) < MESSAGE_LIMIT * 0.9 for page in pages)
    assert [page.get("after", "") for page in pages] == ["", *(page["next"] for page in pages[:-1])]
    assert "next" not in pages[-1]


def test_a_page_has_as_many_as_are_asked_for() -> None:
    board = StatusBoard(time.time)
    keys = fill(board, 5, "")
    page = board.page(limit=2)
    assert [r["key"] for r in page["resources"]] == keys[:2]
    page = board.page(page["next"], limit=3)
    assert [r["key"] for r in page["resources"]] == keys[2:]
    assert "next" not in page
    # one that went away in between ends nothing
    assert [r["key"] for r in board.page("container:c11")["resources"]] == keys[2:]


def test_a_long_list_of_mistakes_says_how_many_are_left_out() -> None:
    board = StatusBoard(time.time)
    board.set_agent(config_issues=["x" * 1000] * 100)
    *shown, last = board.page()["agent"]["config_issues"]
    assert len(json.dumps(shown)) <= 64 * 1024 < len(json.dumps([*shown, "x" * 1000]))
    assert last.startswith(f"{100 - len(shown)} more are not shown")


def test_readers_on_the_control_socket_get_all_pages(tmp_path: Path) -> None:
    with serving(tmp_path, f"unix://{tmp_path / 'nothing.sock'}") as served:
        keys = fill(served.agent.board, 1200, TEXTS["usual"])
        assert len(served.client.get("/v1/status").content) < 1024 * 1024
        status = whole_status(str(served.path))
        assert [resource["key"] for resource in status["resources"]] == keys
        assert status == {**served.agent.board.snapshot(), "resources": status["resources"]}
        assert whole_status(str(served.path), status) is status  # nothing changed: it is not read again
        served.agent.board.set_object(keys[0], "new")
        assert whole_status(str(served.path), status)["resources"][0]["object_id"] == "new"
        status = whole_status(str(served.path))
        picture = Picture()
        for event in follow(str(served.path), "/v1/status/stream"):
            assert len(json.dumps(event)) < 1024 * 1024
            if picture.take(event):
                break
        assert picture.status()["resources"] == status["resources"]
        for wrong in ("limit=0", "limit=x", "limit=-1", "from=a"):
            assert served.client.get(f"/v1/status?{wrong}").status_code == 400


async def test_what_changes_between_two_pages_is_not_lost() -> None:
    board = StatusBoard(time.time)
    keys = fill(board, 1000, TEXTS["usual"])
    picture = Picture()
    feed = board_feed(board)
    _, page, number = await anext(feed)
    assert number is None
    picture.take(page)
    board.set_object(keys[0], "new")
    board.drop(keys[-1])
    while len(picture.status()["resources"]) != 999 or picture.status()["resources"][0]["object_id"] != "new":
        picture.take((await anext(feed))[1])
    assert picture.status()["resources"] == board.snapshot()["resources"]
    await feed.aclose()
