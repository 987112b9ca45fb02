# SPDX-License-Identifier: GPL-2.0-or-later
"""A port or an address that goes from one section to another in one commit, on a real engine."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.box import Box
from tests.support.oracle import Oracle

LAN = "\nconfig network 'lan'\n\tlist subnet '10.219.53.0/24'\n"
PASSES = 4


def section(name: str, *lines: str, command: str = "sleep 1000") -> str:
    options = (
        "option image 'IMAGE'",
        f"option command '{command}'",
        "option stop_timeout '0'",
        "option gate '0.2'",
    )
    return f"\nconfig container '{name}'\n" + "".join(f"\t{line}\n" for line in (*options, *lines))


BOTH = ("one", "two")
# kind -> the lines of a section that has none of it, the first, the second
KINDS = {
    "port": ("", "list port '18080:80'", "list port '18081:80'"),
    "address": ("list network 'lan'", *(f"list network 'lan,ip=10.219.53.{n}'" for n in (9, 10))),
    "MAC": (
        "list network 'lan'",
        *(f"list network 'lan'\n\toption mac_address '02:42:00:00:00:0{n}'" for n in (1, 2)),
    ),
}
HAS = {
    "port": (None, "18080", "18081"),
    "address": (None, "10.219.53.9", "10.219.53.10"),
    "MAC": (None, "02:42:00:00:00:01", "02:42:00:00:00:02"),
}
# which of them each of BOTH has, before and after
MOVES = {
    "up": ((1, 0), (0, 1)),
    "down": ((0, 1), (1, 0)),
    "on": ((1, 2), (0, 1)),
    "exchanged": ((1, 2), (2, 1)),
}


def has(box: Box, name: str, kind: str) -> Any:
    body = box.client.api.inspect_container(name)
    if kind == "port":
        bound = body["HostConfig"]["PortBindings"] or {}
        return next((item["HostPort"] for items in bound.values() for item in items), None)
    endpoint = body["NetworkSettings"]["Networks"]["lan"]
    if kind == "address":
        return (endpoint["IPAMConfig"] or {}).get("IPv4Address")
    return endpoint["MacAddress"] if endpoint["MacAddress"] in HAS["MAC"] else None


def text_of(kind: str, holders: tuple[int, int]) -> str:
    return LAN + section("one", KINDS[kind][holders[0]]) + section("two", KINDS[kind][holders[1]])


def _cases() -> list[Any]:
    """`make test` takes one of them; tests/plan/test_claims.py has the order of all."""
    every = [(kind, move) for kind in KINDS for move in MOVES]
    quick = ("port", "exchanged")
    return [pytest.param(*case, marks=() if case == quick else pytest.mark.long) for case in every]


@pytest.mark.parametrize(("kind", "move"), _cases())
def test_what_goes_from_hand_to_hand_in_one_commit_arrives(box: Box, kind: str, move: str) -> None:
    before, after = MOVES[move]
    oracle = Oracle(box)
    failures = box.errors(text_of(kind, before))
    assert [has(box, name, kind) for name in BOTH] == [HAS[kind][n] for n in before]
    failures += box.errors(text_of(kind, after))
    failures += box.errors(text_of(kind, after))  # who had to stop first has its turn
    assert failures == []
    assert [has(box, name, kind) for name in BOTH] == [HAS[kind][n] for n in after]
    assert str(box.apply()[0]) == "nothing to do"
    oracle.check({"one": "sleep 1000", "two": "sleep 1000"}, networks={"lan"})


def test_an_exchange_that_fails_leaves_both_as_they_were_and_is_made_once_it_can_be(box: Box) -> None:
    def exchange(command: str) -> str:
        return section("one", KINDS["port"][2]) + section("two", KINDS["port"][1], command=command)

    oracle = Oracle(box)
    assert box.errors(section("one", KINDS["port"][1]) + section("two", KINDS["port"][2])) == []
    had = [box.get(name).id for name in BOTH]
    assert box.errors(exchange("false")) != []
    assert box.errors(exchange("false")) == []
    assert [box.get(name).id for name in BOTH] == had
    oracle.check({"one": "sleep 1000", "two": "sleep 1000"})
    (one,) = (r for r in box.reconciler.board.snapshot()["resources"] if r["key"] == "container:one")
    assert "host port 18081/tcp is container:two's" in [c["message"] for c in one["conditions"]]
    assert box.errors(exchange("sleep 2000")) == []
    assert box.errors(exchange("sleep 2000")) == []
    assert [has(box, name, "port") for name in BOTH] == ["18081", "18080"]
    oracle.check({"one": "sleep 1000", "two": "sleep 2000"})
