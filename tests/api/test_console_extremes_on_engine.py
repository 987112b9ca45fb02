# SPDX-License-Identifier: GPL-2.0-or-later
"""Consoles that are given more than anybody types, and processes that do not want to end, on a real engine."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.api.conftest import Containers
from tests.api.console_client import Events, screen
from tests.support.controller import Controller

MIB = 1024 * 1024
GROWTH_KIB = 8 * 1024


@pytest.fixture
def box(containers: Containers) -> str:
    """A container that stays."""
    return containers.run("sleep 1000", stop_signal="KILL")


def resident_kib() -> int:
    """Of this process: the controller, and the client that feeds it."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


class Feed:
    """A body of so many MiB that is made while it is sent; it notes how far it came and how much memory that took."""

    def __init__(self, size_mib: int) -> None:
        self.sent = 0
        self.grown_kib = 0
        self.hash = hashlib.sha256()
        self._pieces = size_mib * 16

    def __iter__(self) -> Iterator[bytes]:
        before = resident_kib()
        for number in range(self._pieces):
            piece = number.to_bytes(4, "big") * (MIB // 64)
            self.hash.update(piece)
            self.sent += len(piece)
            yield piece
            self.grown_kib = max(self.grown_kib, resident_kib() - before)


def given(controller: Controller, console: Events, feed: Feed) -> httpx.Response:
    return controller.client.post(f"/v1/exec/{console.id}/input?eof=1", content=iter(feed), timeout=120)


@pytest.mark.parametrize("size_mib", [8, pytest.param(100, marks=pytest.mark.long)])
def test_much_input_arrives_whole_and_stays_nowhere(controller: Controller, box: str, size_mib: int) -> None:
    console = Events(controller, box, command=["/bin/busybox", "sha256sum"], tty=False)
    feed = Feed(size_mib)
    assert given(controller, console, feed).status_code == 204
    out, ended = console.everything()
    assert (out.split()[0].decode(), ended["code"]) == (feed.hash.hexdigest(), 0)
    assert feed.sent == size_mib * MIB
    assert feed.grown_kib < GROWTH_KIB


def test_a_process_that_reads_no_input_stops_whoever_sends_it(controller: Controller, box: str) -> None:
    console = Events(controller, box, command=["sleep", "1000"], tty=False)
    feed, answers = Feed(100), list[int]()
    sender = threading.Thread(target=lambda: answers.append(given(controller, console, feed).status_code))
    sender.start()
    seen = -1
    while seen != feed.sent or not seen:
        seen = feed.sent
        threading.Event().wait(0.5)
    assert feed.sent < 16 * MIB, "what pipes and sockets hold, and no more"
    assert feed.grown_kib < GROWTH_KIB
    assert controller.client.delete(f"/v1/exec/{console.id}").status_code == 204
    sender.join(30)
    assert answers and answers[0] in (409, 503)


def test_after_a_storm_of_sizes_the_last_one_counts(controller: Controller, box: str) -> None:
    with screen(controller, box, command=["sh"], env=["PS1=$ "]) as terminal:
        terminal.until("$ ")
        terminal.type("while read word; do stty size; done\n")
        terminal.until("done\r\n")
        for number in range(200):
            terminal.control(type="resize", rows=10 + number % 50, columns=20 + number)
        terminal.control(type="resize", rows=42, columns=142)
        terminal.type("now\n")
        terminal.until("now\r\n42 142\r\n", 60)
        assert terminal.texts == [], "no size was refused"


@pytest.mark.long
def test_sizes_by_several_clients_at_once_cost_the_console_nothing(controller: Controller, box: str) -> None:
    console = Events(controller, box, command=["sh", "-c", "echo ready; read word; stty size; exit 5"])
    answers: list[int] = []

    def storm() -> None:
        answers.extend(console.resize(10 + n, 20 + n).status_code for n in range(40))

    clients = [threading.Thread(target=storm) for _ in range(4)]
    with console.events() as events:
        assert next(events) == ("output", b"ready\r\n")
        for client in clients:
            client.start()
        for client in clients:
            client.join()
    assert answers == [204] * 160
    assert console.resize(30, 90).status_code == 204
    console.type("go\n")
    out, ended = console.everything()
    assert (out.split(b"\r\n")[-2], ended) == (b"30 90", {"code": 5, "reason": ""})


def test_a_container_that_dies_ends_its_consoles(controller: Controller, containers: Containers) -> None:
    made = containers.run("sleep 1000")
    console = Events(controller, made, command=["sh", "-c", "trap '' HUP TERM INT; echo ready; sleep 1000"])
    with console.events() as events:
        assert next(events) == ("output", b"ready\r\n")
        containers.client.containers.get(made).kill()
        ended = [data for name, data in events if name == "exit"]
    assert [end["code"] for end in ended] == [137]
    assert console.type("more").status_code in (404, 409)


def test_a_process_and_its_children_that_ignore_every_signal_end_with_the_console(
    controller: Controller, containers: Containers
) -> None:
    made = containers.run("sleep 1000")
    script = "trap '' HUP TERM INT QUIT; sleep 4714 & echo ready; while :; do sleep 4715; done"
    console = Events(controller, made, command=["sh", "-c", script])
    with console.events() as events:
        assert next(events) == ("output", b"ready\r\n")
    assert controller.client.delete(f"/v1/exec/{console.id}").status_code == 204
    shown = containers.client.containers.get(made).top()["Processes"]
    assert [row[-1] for row in shown] == ["sleep 1000"]
    execs = containers.client.api.inspect_container(made)["ExecIDs"]
    assert not execs, "the engine has let go of it"
