# SPDX-License-Identifier: GPL-2.0-or-later
"""Sessions: what a login may do, rights for one of them, and failing closed."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from agent.errors import BusError
from agent.ubus import rpcd as module
from agent.ubus.rpcd import DEFAULT_SESSION, Rpcd
from tests.support.fake_rpcd import ADMIN, READER, FakeRpcd
from tests.ubus.conftest import Connect, Ubusd


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def daemon(ubusd: Ubusd) -> AsyncIterator[FakeRpcd]:
    async with FakeRpcd(ubusd.path) as made:
        yield made


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def rpcd(daemon: FakeRpcd, connect: Connect, clock: Clock) -> Rpcd:
    daemon.rights[READER].add(("docker.*", "list"))
    return Rpcd(await connect(), clock=clock, wall=clock)


async def test_a_session_may_what_it_was_granted_and_nothing_else(rpcd: Rpcd) -> None:
    assert await rpcd.allowed(READER, "docker.container", "list")
    assert not await rpcd.allowed(READER, "docker.container", "remove")
    assert await rpcd.allowed(ADMIN, "docker.container", "remove")


@pytest.mark.parametrize(
    "session",
    [DEFAULT_SESSION, "", "f" * 32, "a" * 31, "a" * 33, "A" * 32, "g" * 32, "a" * 32 + "\n", "a" * 31 + "\0"],
)
async def test_what_is_no_login_may_nothing(rpcd: Rpcd, daemon: FakeRpcd, session: str) -> None:
    assert not await rpcd.allowed(session, "docker", "info")
    assert daemon.asked == (session == "f" * 32)


async def test_a_yes_is_remembered_for_5_s_and_no_longer(rpcd: Rpcd, daemon: FakeRpcd, clock: Clock) -> None:
    assert await rpcd.allowed(ADMIN, "docker", "info")
    daemon.destroy(ADMIN)
    clock.now += 4.9
    assert await rpcd.allowed(ADMIN, "docker", "info")
    assert daemon.asked == 1
    clock.now += 0.2
    assert not await rpcd.allowed(ADMIN, "docker", "info")


async def test_a_no_is_not_remembered(rpcd: Rpcd) -> None:
    assert not await rpcd.allowed(READER, "docker", "info")
    await rpcd.grant(READER, [("docker", "info")])
    assert await rpcd.allowed(READER, "docker", "info")
    await rpcd.revoke(READER, [("docker", "info")])
    assert not await rpcd.allowed(READER, "docker", "info")


async def test_asking_now_passes_by_what_is_remembered(rpcd: Rpcd, daemon: FakeRpcd) -> None:
    assert await rpcd.allowed(ADMIN, "docker", "info")
    daemon.destroy(ADMIN)
    assert not await rpcd.allowed_now(ADMIN, "docker", "info")


async def test_silence_is_an_error_within_its_deadline_and_prolongs_nothing(
    rpcd: Rpcd, daemon: FakeRpcd, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DEADLINE_S", 0.2)
    assert await rpcd.allowed(ADMIN, "docker", "info")
    daemon.answering.clear()
    clock.now += 5.1
    for _ in range(2):
        begun = time.monotonic()
        with pytest.raises(BusError, match="no answer"):
            await rpcd.allowed(ADMIN, "docker", "info")
        assert time.monotonic() - begun < 1.5
    daemon.answering.set()


async def test_no_rpcd_at_all_is_an_error_and_not_a_no(rpcd: Rpcd, daemon: FakeRpcd) -> None:
    await daemon.stop()
    with pytest.raises(BusError):
        await rpcd.allowed(ADMIN, "docker", "info")
    await daemon.start()
    assert await rpcd.allowed(ADMIN, "docker", "info")


async def test_nothing_is_granted_to_who_is_no_login(rpcd: Rpcd, daemon: FakeRpcd) -> None:
    for session in (DEFAULT_SESSION, "x"):
        with pytest.raises(BusError, match="no login"):
            await rpcd.grant(session, [("docker", "info")])
    assert daemon.asked == 0


async def test_revoking_nothing_does_not_revoke_everything(rpcd: Rpcd, daemon: FakeRpcd) -> None:
    await rpcd.revoke(ADMIN, [])
    assert daemon.asked == 0
    assert await rpcd.allowed(ADMIN, "docker", "info")


@pytest.mark.parametrize(
    ("values", "left"),
    [
        ({}, 0.0),
        ({"rollback": {}}, 0.0),  # confirmed
        ({"rollback": {"token": "t", "session": ADMIN, "timeout": 1080}}, 90.0),
        ({"rollback": {"token": "t", "session": ADMIN, "timeout": 980}}, 0.0),  # rolled back, and left there
        ({"rollback": {"timeout": 10_000_000}}, 0.0),  # the clock jumped
        ({"rollback": {"timeout": "soon"}}, 0.0),
        ({"rollback": "x"}, 0.0),
    ],
)
async def test_a_pending_rollback_is_seen_until_its_time_is_over(
    rpcd: Rpcd, daemon: FakeRpcd, values: dict[str, object], left: float
) -> None:
    daemon.values = values
    assert await rpcd.rollback_left_s() == left
