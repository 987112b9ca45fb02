# SPDX-License-Identifier: GPL-2.0-or-later
"""A dockerd that loses its bridge or its disk while it runs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.dockerd.health import DaemonHealth, lost_bridge
from agent.dockerd.status import DaemonStatus
from agent.engine import process as daemon_process
from agent.model.dockerd.settings import DaemonTarget, Process
from agent.plan.daemon import DaemonPlan
from agent.status.board import StatusBoard
from tests.support.daemon_lab import DaemonLab, wait_for
from tests.support.dockerd import is_root
from tests.support.loop_disk import LoopDisk

pytestmark = pytest.mark.skipif(not is_root(), reason="a dockerd needs root")


@pytest.fixture
def disk(lab: DaemonLab) -> Iterator[LoopDisk]:
    """The disk that fstab declares for data_root; not plugged in yet."""
    try:
        made = LoopDisk(lab.root / "disk.img", lab.root / "disk")
        made.plug()
        made.pull()
    except OSError as exc:
        pytest.skip(f"no loop mounts here: {exc}")
    (lab.root / "config" / "fstab").write_text(
        f"config mount\n\toption target '{made.target}/'\n\toption enabled 'on'\n"
    )
    yield made
    lab.stop()
    with contextlib.suppress(OSError):
        made.pull()


def test_a_bridge_that_does_not_come_back_is_shown_and_not_tried_again() -> None:
    status = DaemonStatus(board=StatusBoard(time.time))
    status.begin(())
    health = DaemonHealth(status, missing_mount=lambda _: "", needs_mount=lambda _: False)
    before, after = (Process(pid=os.getpid(), started=number) for number in (1, 2))
    goal = DaemonTarget(document={"bridge": "br-none"})

    def repair(goal: DaemonTarget, process: Process, *, answers: bool = True) -> DaemonPlan | None:
        return health.repair(process, goal, answers=lambda: answers)

    def shown() -> list[str]:
        (resource,) = status.board.snapshot()["resources"]
        return [condition["type"] for condition in resource["conditions"]]

    assert repair(goal, before, answers=False) is None
    first = repair(goal, before)
    assert first is not None
    assert first.causes == ("the bridge br-none was removed",)
    assert repair(goal, before) == first  # it had to wait, and was not done yet
    assert repair(goal, after) is None
    assert repair(goal, after) is None
    assert "EngineImpaired" in shown()
    assert repair(DaemonTarget(document={"bridge": "lo"}), after) is None
    assert "EngineImpaired" not in shown()
    assert repair(goal, after) is not None  # it was there in between: a new loss


def test_a_dockerd_that_was_only_starting_is_not_restarted(tmp_path: Path) -> None:
    status = DaemonStatus(board=StatusBoard(time.time))
    status.begin(())
    health = DaemonHealth(status, missing_mount=lambda _: "", needs_mount=lambda _: True)
    process = Process(pid=os.getpid(), started=1)
    goal = DaemonTarget(document={"data-root": str(tmp_path), "bridge": "lo"})
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path], check=True)
    try:
        assert health.repair(process, goal, answers=lambda: True) is not None
        with contextlib.ExitStack() as opened:

            def answers() -> bool:
                """It opens its data only when it is ready, which is what a ping waits for."""
                opened.enter_context((tmp_path / "metadata.db").open("w"))
                return True

            assert health.repair(process, goal, answers=answers) is None
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.parametrize(
    ("document", "arguments", "lost"),
    [
        ({}, (), True),
        ({"bridge": "br-x"}, (), True),
        ({"bridge": "none"}, (), False),
        ({"bridge": "lo"}, (), False),
        ({}, ("--bridge=none",), False),
        ({}, ("-b", "br-x"), False),
    ],
)
def test_a_bridge_is_missed_only_where_one_is_expected(
    document: dict[str, str], arguments: tuple[str, ...], lost: bool
) -> None:
    assert bool(lost_bridge(document, arguments, frozenset({"lo"}))) is lost
    assert lost_bridge(document, arguments, None) == ""


def test_a_dockerd_that_is_stopping_does_not_count_as_running(lab: DaemonLab) -> None:
    assert lab.apply("")
    assert lab.conditions()["Running"] == (True, "Running")
    container, process = lab.run_container(stop_signal="SIGUSR1"), lab.process
    daemon_process.send_signal(process, signal.SIGTERM)
    wait_for(lambda: not lab.socket.exists())
    lab.apply()
    assert lab.conditions()["Running"] == (False, "NotListening")
    assert daemon_process.is_alive(process)
    os.kill(container, signal.SIGKILL)
    assert daemon_process.wait_end(process, 30)


def test_dockerd_waits_for_the_disk_of_its_data_and_a_lost_disk_holds_everything(
    lab: DaemonLab, disk: LoopDisk
) -> None:
    settings = f"option data_root '{disk.target}/docker'"
    assert not lab.apply(settings)
    assert lab.conditions()["Waiting"][0]
    assert list(disk.target.iterdir()) == []
    disk.plug()
    assert lab.apply()
    lab.settle()
    first = lab.process
    assert lab.apply()
    assert lab.process == first

    disk.pull()
    assert not lab.apply()
    assert lab.conditions()["EngineStorageLost"] == (True, "Unmounted")
    assert str(disk.target) in lab.stage.holding
    assert list(disk.target.iterdir()) == []
    assert lab.process == first

    disk.plug()
    assert lab.apply()
    assert "EngineStorageLost" not in lab.conditions()
    second = lab.process
    assert second != first  # it had the disk open that is gone
    assert lab.apply()
    assert lab.process == second


def test_a_disk_behind_a_link_is_waited_for(lab: DaemonLab, disk: LoopDisk) -> None:
    (lab.root / "opt").symlink_to(disk.target)
    assert not lab.apply(f"option data_root '{lab.root}/opt/docker'")
    assert list(disk.target.iterdir()) == []


def test_a_read_only_disk_holds_dockerd_and_everything(lab: DaemonLab, disk: LoopDisk) -> None:
    disk.plug()
    subprocess.run(["mount", "-o", "remount,ro", disk.target], check=True)
    assert not lab.apply(f"option data_root '{disk.target}/docker'")
    assert "read-only" in lab.message("Waiting")
    subprocess.run(["mount", "-o", "remount,rw", disk.target], check=True)
    assert lab.apply()
    lab.settle()
    first = lab.process
    # what a file system with errors does; a remount by hand is refused while files are open for writing
    subprocess.run(["mount", "--bind", disk.target, disk.target], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", disk.target], check=True)
    try:
        assert not lab.apply()
        assert lab.conditions()["EngineStorageLost"] == (True, "ReadOnly")
    finally:
        subprocess.run(["umount", disk.target], check=True)
    assert lab.apply()
    assert lab.process == first
    assert "EngineStorageLost" not in lab.conditions()


@pytest.mark.long
def test_an_empty_disk_in_place_of_the_data_is_another_engine_until_a_reconcile(
    lab: DaemonLab, disk: LoopDisk
) -> None:
    other = LoopDisk(lab.root / "other.img", disk.target)
    settings = f"option data_root '{disk.target}/docker'"
    disk.plug()
    assert lab.apply(settings)
    lab.stop()
    disk.pull()
    other.plug()
    lab.restart_agent()
    try:
        assert not lab.apply()
        assert lab.conditions()["EngineChanged"] == (True, "Disk")
        assert not lab.apply(), "it is not forgotten"
        lab.stop()
    finally:
        other.pull()
    disk.plug()
    lab.restart_agent()
    assert lab.apply(), "the right disk again"
    assert "EngineChanged" not in lab.conditions()
    lab.stop()
    disk.pull()
    other.plug()
    lab.restart_agent()
    try:
        lab.apply()
        lab.stage.accept_engine()
        assert lab.apply(), "it was said to be right"
        lab.restart_agent()
        assert lab.apply()
    finally:
        lab.stop()
