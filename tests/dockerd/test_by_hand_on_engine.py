# SPDX-License-Identifier: GPL-2.0-or-later
"""dockerd stopped, started and restarted by hand, through the stage that keeps it as UCI says."""

from __future__ import annotations

import subprocess

import pytest

from agent.engine import process as daemon_process
from agent.errors import ConflictError
from agent.files.config import load
from agent.model.dockerd.settings import DaemonAction, Process
from tests.support.daemon_lab import KEY, DaemonLab, wait_for


def ask(lab: DaemonLab, wish: DaemonAction) -> None:
    lab.stage.ask(wish, load(lab.options).desired)


def refusal(lab: DaemonLab, wish: DaemonAction) -> str:
    with pytest.raises(ConflictError) as refused:
        ask(lab, wish)
    return str(refused.value)


def notes(lab: DaemonLab) -> list[tuple[str, str]]:
    (item,) = (item for item in lab.board.snapshot()["resources"] if item["key"] == KEY)
    return [(note["op"], note["cause"]) for note in item["operations"]]


def runs(lab: DaemonLab) -> bool:
    return daemon_process.find_with_config(lab.daemon_json) is not None


def test_a_dockerd_that_was_stopped_by_hand_stays_down_until_it_is_started(lab: DaemonLab) -> None:
    assert lab.apply("")
    lab.run_container()
    ask(lab, DaemonAction.STOP)
    assert not lab.apply(busy=True)
    assert runs(lab), "operations that are under way end first"
    assert lab.conditions()["Synced"] == (False, "Pending")
    assert not lab.apply()
    assert not runs(lab)
    assert lab.conditions()["Synced"] == (False, "Held")
    assert lab.conditions()["Running"] == (False, "Stopped")
    assert notes(lab)[-1] == ("stop", "requested manually")

    assert not lab.apply("option debug '1'\n"), "a change starts nothing"
    lab.restart_agent()
    assert not lab.apply()
    assert not runs(lab), "neither does another agent"
    assert lab.conditions()["Synced"] == (False, "Held")
    assert refusal(lab, DaemonAction.STOP) == "dockerd does not run"

    ask(lab, DaemonAction.START)
    assert lab.apply()
    assert lab.info()["Debug"]
    assert lab.conditions()["Synced"] == (True, "Applied")
    assert refusal(lab, DaemonAction.START) == "dockerd runs already"


def test_a_restart_by_hand_lets_containers_run_on(lab: DaemonLab) -> None:
    assert lab.apply("")
    pid, before = lab.run_container(), lab.process
    ask(lab, DaemonAction.RESTART)
    assert lab.process == before, "it is the next pass that does it"
    assert lab.apply()
    after = lab.process
    assert after != before
    assert lab.pid_of() == pid
    assert notes(lab)[-1] == ("restart", "requested manually")
    assert lab.apply()
    assert lab.process == after, "once"


@pytest.mark.parametrize(
    "way",
    [
        pytest.param("a restart", marks=pytest.mark.long),
        "a reconcile",
        pytest.param("somebody", marks=pytest.mark.long),
    ],
)
def test_a_hold_ends_with(lab: DaemonLab, way: str) -> None:
    assert lab.apply("")
    ask(lab, DaemonAction.STOP)
    assert not lab.apply()
    if way == "a restart":
        ask(lab, DaemonAction.RESTART)
    elif way == "a reconcile":
        lab.stage.accept_engine()
    else:
        words = [lab.program, f"--config-file={lab.daemon_json}", f"--exec-root={lab.root}/exec"]
        subprocess.Popen([*words, f"--pidfile={lab.root}/dockerd.pid"], stderr=subprocess.DEVNULL)
        wait_for(lab.probe.answers)
    assert lab.apply()
    assert lab.conditions()["Running"] == (True, "Running")


def test_an_agent_that_was_killed_while_it_stopped_dockerd_is_followed_by_one_that_does(
    lab: DaemonLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lab.apply("")

    class KilledError(Exception):
        """In place of the agent's end."""

    def killed(self: object, process: Process, timeout_s: float) -> None:
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr("agent.dockerd.supervisor.ChildSupervisor.stop", killed)
        ask(lab, DaemonAction.STOP)
        with pytest.raises(KilledError):
            lab.apply()
    assert runs(lab)
    lab.restart_agent()
    assert not lab.apply()
    assert not runs(lab)


def test_what_is_not_ours_to_stop_is_said(lab: DaemonLab) -> None:
    lab.write("", kind="external")
    assert (
        refusal(lab, DaemonAction.RESTART) == "ucidockd does not run this dockerd (option daemon is external)"
    )
    lab.write("", kind="procd")
    assert "set dockerd.globals.alt_config_file" in refusal(lab, DaemonAction.STOP)
    lab.write("option alt_config_file '/etc/docker/mine.json'\n", kind="procd")
    assert "alt_config_file is /etc/docker/mine.json" in refusal(lab, DaemonAction.STOP)
    (lab.root / "config" / "dockerd").unlink()
    assert "no section in /etc/config/dockerd configures dockerd" in refusal(lab, DaemonAction.STOP)
    lab.write("")
    path = lab.root / "config" / "containers"
    path.write_text(path.read_text() + "\toption enabled '0'\n")
    assert "switched off" in refusal(lab, DaemonAction.STOP)
