# SPDX-License-Identifier: GPL-2.0-or-later
"""Limits that are taken back: by an option that goes away, and by each value that means that there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.box import Box
from tests.support.dockerd import PrivateDockerd
from tests.support.versions import VERSIONS, a_box, an_engine

WEB = """
config container 'web'
	option image 'IMAGE'
	option command 'sleep 1000'
	option stop_timeout '0'
	option gate '0.2'
"""
MEMORY = "\toption memory '64m'\n"


@pytest.fixture(scope="module", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> Any:
    with an_engine(request.param) as dockerd:
        yield dockerd


@pytest.fixture
def room(version: PrivateDockerd, tmp_path: Path) -> Any:
    with a_box(version, tmp_path) as made:
        yield made


def host(box: Box, key: str) -> Any:
    return box.get("web").attrs["HostConfig"][key]


def verbs(box: Box, text: str | None = None) -> list[str]:
    plan, outcomes = box.apply(text)
    assert [str(o.error) for o in outcomes if o.error] == []
    return [operation.verb for operation in plan.operations]


def said(box: Box) -> str:
    (web,) = (r for r in box.reconciler.board.snapshot()["resources"] if r["key"] == "container:web")
    return str(next(c for c in web["conditions"] if c["type"] == "Synced")["message"])


# option, a limit, a value that means none, HostConfig key, what the engine then shows, whatever else is set
TAKEN_BACK = [
    ("memory", "64m", "0", "Memory", (0,), ""),
    ("memory_reservation", "32m", "0", "MemoryReservation", (0,), ""),
    ("memory_swap", "96m", "0", "MemorySwap", (128 << 20,), MEMORY),
    ("memory_swap", "96m", "-1", "MemorySwap", (-1,), MEMORY),
    ("cpus", "0.5", None, "NanoCpus", (0,), ""),
    ("cpu_shares", "512", None, "CpuShares", (0,), ""),
    ("cpuset", "0", None, "CpusetCpus", ("",), ""),
    ("pids_limit", "50", "0", "PidsLimit", (0, None), ""),
    ("pids_limit", "50", "-1", "PidsLimit", (0, None), ""),
    ("pids_limit", "50", None, "PidsLimit", (0, None), ""),
    ("memory", "64m", None, "Memory", (0,), ""),
    ("blkio_weight", "300", "0", "BlkioWeight", (0,), ""),
]


@pytest.mark.variants(4)
@pytest.mark.parametrize("row", TAKEN_BACK, ids=lambda row: f"{row[0]} to {row[2]}")
def test_a_limit_that_is_taken_back_is_gone_and_still_watched(room: Box, row: tuple[Any, ...]) -> None:
    option, limit, none, key, shown, more = row
    base = WEB + more
    errors = room.errors(base + f"\toption {option} '{limit}'\n")
    assert errors == []
    without = base + (f"\toption {option} '{none}'\n" if none is not None else "")
    changed = verbs(room, without)
    assert changed in (["replace"], ["update"])
    assert host(room, key) in shown
    assert said(room) == ""
    assert str(room.apply()[0]) == "nothing to do"
    verbs(room, base + f"\toption {option} '{limit}'\n")
    assert said(room) == ""


def test_a_limit_that_somebody_sets_where_none_is_declared_is_taken_back(room: Box) -> None:
    verbs(room, WEB + "\toption memory '0'\n\toption pids_limit '0'\n")
    assert str(room.apply()[0]) == "nothing to do"
    room.get("web").update(mem_limit="16m", memswap_limit="32m")
    assert verbs(room) == ["replace"]
    assert host(room, "Memory") == 0
    room.client.api._post_json(
        room.client.api._url("/containers/web/update"),
        data={"PidsLimit": 7},
    )
    assert verbs(room) == ["update"]
    assert str(room.apply()[0]) == "nothing to do"


@pytest.mark.parametrize(
    "options",
    ["pids_limit '0'", "pids_limit '-1'", "memory_swap '0'", "memory '0'", "memory_reservation '0'"],
)
def test_a_fresh_container_without_a_limit_needs_no_update(room: Box, options: str) -> None:
    text = WEB + f"\toption {options}\n" + (MEMORY if "swap" in options else "")
    assert verbs(room, text) == ["create", "start"]
    assert str(room.apply()[0]) == "nothing to do"
    assert said(room) == ""


def test_a_field_that_the_engine_ignored_is_watched_again_once_it_took(room: Box) -> None:
    verbs(room, WEB + MEMORY)
    (record,) = room.reconciler.records.records()
    room.reconciler.records.change(record.nonce, ignored=("cpu_shares", "memory"))
    assert verbs(room, WEB + "\toption memory '96m'\n") == ["update"]
    assert room.reconciler.records.records()[0].ignored == ("cpu_shares",)
    room.get("web").update(mem_limit="16m", memswap_limit="32m")
    assert verbs(room) == ["update"]
    assert host(room, "Memory") == 96 << 20


def test_memory_may_grow_beside_a_swap_of_zero(room: Box) -> None:
    text = WEB + "\toption memory_swap '0'\n"
    verbs(room, text + MEMORY)
    assert verbs(room, text + "\toption memory '256m'\n") == ["update"]
    assert host(room, "MemorySwap") == 512 << 20
    assert str(room.apply()[0]) == "nothing to do"
