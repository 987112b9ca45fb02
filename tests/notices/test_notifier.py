# SPDX-License-Identifier: GPL-2.0-or-later
"""From a change on the board to a web server: retries, cool-down, bounds, and what the status says of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.errors import ConfigError
from agent.model.notices import Event, News, NotifySection
from agent.notices.notifier import QUEUE, Notifier
from agent.status.board import StatusBoard
from agent.status.conditions import ConditionType
from tests.support.agent_process import wait_for
from tests.support.receiver import Receiver

KEY = "notify:phone"
Make = Callable[..., Notifier]


@pytest.fixture
def board() -> StatusBoard:
    return StatusBoard(time.time)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        yield made


@pytest.fixture
def make(board: StatusBoard, receiver: Receiver, tmp_path: Path) -> Iterator[Make]:
    made: list[Notifier] = []

    def build(**more: object) -> Notifier:
        notifier = Notifier(
            board, memory=tmp_path / "notices.json", scripts=tmp_path / "scripts", pauses_s=(0.05, 0.05)
        )
        section = NotifySection(
            section="phone", type="webhook", url=receiver.url("/S3CRET"), timeout_s=2.0, **more
        )  # type: ignore[arg-type]
        notifier.want([section])
        made.append(notifier)
        return notifier

    yield build
    for notifier in made:
        notifier.stop()


def news(number: int = 0, event: Event = Event.CRASHLOOP) -> News:
    return News(event=event, key=f"container:c{number}", name=f"c{number}", label="Keeps crashing")


def tell(notifier: Notifier, *many: News) -> None:
    for one in many:
        notifier._tell(one, time.monotonic())


def facts(board: StatusBoard) -> dict[str, int]:
    return dict(board.fact(KEY, "notices") or {})


def delivered(board: StatusBoard) -> tuple[bool, str, str]:
    found = board.standing(KEY, ConditionType.DELIVERED)
    assert found is not None
    return found.status, found.reason, found.message


def test_a_notice_that_fails_is_tried_again_and_then_counted(
    make: Make, receiver: Receiver, board: StatusBoard
) -> None:
    notifier = make()
    assert delivered(board) == (True, "Ready", "nothing was sent yet")
    receiver.answers = [500, 500]
    tell(notifier, news())
    receiver.wait_for(3)
    wait_for(lambda: facts(board).get("sent") == 1)
    assert delivered(board) == (True, "Sent", "crashloop: c0: Keeps crashing")
    receiver.answers = [500] * 3
    tell(notifier, news(1))
    wait_for(lambda: facts(board).get("failed") == 1)
    status, reason, message = delivered(board)
    assert (status, reason) == (False, "NotSent")
    assert "status 500" in message and "S3CRET" not in message
    assert board.resource(KEY)["level"] == "warning"  # type: ignore[index]
    receiver.answers = [404]  # no use to try again
    tell(notifier, news(2))
    wait_for(lambda: facts(board).get("failed") == 2)
    assert len(receiver.got) == 7


def test_only_events_that_are_wanted_and_none_twice_within_the_cool_down(
    make: Make, receiver: Receiver, board: StatusBoard
) -> None:
    notifier = make(events=frozenset({Event.CRASHLOOP}), cooldown_s=100.0)
    tell(notifier, news(event=Event.WAITING), news(), news(), news(1), news())
    receiver.wait_for(2)
    wait_for(lambda: facts(board) == {"sent": 2, "failed": 0, "dropped": 0, "held_back": 2})


def test_a_receiver_that_hangs_delays_no_other_and_what_waits_is_bounded(
    make: Make, receiver: Receiver, board: StatusBoard
) -> None:
    notifier = make(cooldown_s=0.0)
    receiver.answers = ["hang"]
    with Receiver() as other:
        sections = [
            *notifier._sections.values(),
            NotifySection(section="other", type="webhook", url=other.url()),
        ]
        notifier.want(sections)
        tell(notifier, news())
        other.wait_for(1)
        receiver.wait_for(1)
        tell(notifier, *(news(number) for number in range(QUEUE + 5)))
        assert facts(board)["dropped"] == 5
        other.wait_for(QUEUE // 2)


def test_a_section_that_is_taken_away_gets_nothing_more(
    make: Make, receiver: Receiver, board: StatusBoard
) -> None:
    notifier = make()
    receiver.answers = [500] * 10
    tell(notifier, news())
    receiver.wait_for(1)
    notifier.want([])
    time.sleep(0.3)
    assert len(receiver.got) <= 2
    assert board.resource(KEY) is None


def test_a_section_with_a_mistake_goes_on_as_it_was(
    make: Make, receiver: Receiver, board: StatusBoard
) -> None:
    notifier = make()
    board.set(KEY, ConditionType.ACCEPTED, status=False, reason="Invalid", message="a mistake")
    notifier.want([], {KEY})
    tell(notifier, news())
    receiver.wait_for(1)
    notifier.want([])  # it is removed; what is said of its mistake is for others to take off
    assert board.standing(KEY, ConditionType.DELIVERED) is None
    assert board.standing(KEY, ConditionType.ACCEPTED) is not None


def test_a_test_says_what_became_of_it(make: Make, receiver: Receiver, board: StatusBoard) -> None:
    notifier = make()
    assert notifier.test("phone")["sent"] is True
    assert receiver.events() == ["test"]
    receiver.answers = [403]
    found = notifier.test("phone")
    assert found["sent"] is False and "403" in found["error"]
    with pytest.raises(ConfigError, match="phone"):
        notifier.test("other")


def test_from_the_board_to_the_receiver(
    make: Make, receiver: Receiver, board: StatusBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And to the scripts; a second run does not tell it again."""
    for name in ("SETTLE_S", "START_S"):
        monkeypatch.setattr(f"agent.status.alarms.{name}", 0.3)
    monkeypatch.setattr("agent.status.alarms.QUIET_S", 0.5)
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "10-log").write_text(f"echo $ACTION >> {tmp_path}/told\n")

    def set_running(*, well: bool) -> None:
        reason = "Running" if well else "CrashLoop"
        board.set("container:web", ConditionType.RUNNING, status=well, reason=reason)  # type: ignore[arg-type]

    board.ensure("container:web")
    board.set("container:web", ConditionType.SYNCED, status=True, reason="InSync")
    set_running(well=True)
    first = make()
    first.start()
    time.sleep(0.5)
    set_running(well=False)
    receiver.wait_for(1)
    first.stop()
    wait_for(lambda: (tmp_path / "notices.json").exists())
    second = make()
    second.start()
    time.sleep(1)
    assert receiver.events() == ["crashloop"]
    set_running(well=True)
    receiver.wait_for(2)
    assert receiver.events() == ["crashloop", "recovered"]
    assert receiver.documents()[0]["host"]
    wait_for(lambda: (tmp_path / "told").read_text() == "crashloop\nrecovered\n")
