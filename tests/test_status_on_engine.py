# SPDX-License-Identifier: GPL-2.0-or-later
"""What status says is what the engine shows, in every state."""

from __future__ import annotations

import time
from typing import Any

import pytest

from agent.cli.view.status import status_view
from agent.errors import EngineUnreachableError
from agent.runtime.requests.planning import diff
from tests.support.box import Box
from tests.test_running_agent import wait_for

ONE = """
config container 'one'
	option image 'IMAGE'
	option command 'sleep 1000'
	option network_mode 'none'
	option stop_timeout '0'
	option gate '0.1'
"""


def commands(script: str) -> str:
    """A shell's script as the lines of an option."""
    return f"\tlist command 'sh'\n\tlist command '-c'\n\tlist command '{script}'"


def shown(box: Box, key: str = "container:one") -> dict[str, Any]:
    """Type -> condition."""
    resources = {r["key"]: r for r in box.reconciler.board.snapshot()["resources"]}
    return {c["type"]: c for c in resources[key]["conditions"]} if key in resources else {}


def test_a_container_that_the_agent_stopped_does_not_run_in_status(box: Box) -> None:
    assert box.errors(ONE) == []
    box.apply()
    assert shown(box)["Running"]["status"] is True
    box.apply("\n")
    box.apply()
    running = shown(box)["Running"]
    assert (running["status"], running["message"]) == (False, "exited with 137")
    assert shown(box)["Synced"]["reason"] == "Grace"
    assert abs(running["since"] - time.time()) < 20


@pytest.mark.parametrize("state", ["back-off", "mistake", "held", "waiting"])
def test_what_runs_is_told_whatever_is_planned(box: Box, state: str) -> None:
    assert box.errors(ONE) == []
    box.apply()
    text = ONE
    if state == "back-off":
        box.reconciler.backoff.failed("container:one", "no", box.reconciler.monotonic() + 100)
    elif state == "mistake":
        text = ONE.replace("'0.1'", "'soon'")
    elif state == "held":
        box.reconciler.manual.hold("one", "kill")
    else:
        text = ONE + "\tlist wait_for 'file:/not/there'\n"
    box.get("one").kill()
    wait_for(lambda: box.get("one").status == "exited")  # newer engines answer before it is
    box.config.joinpath("containers").write_text(text.replace("IMAGE", "busybox:test"))
    box.reconciler.read_config()
    if state == "back-off":
        box.reconciler.backoff.failed("container:one", "no", box.reconciler.monotonic() + 100)
    box.reconciler.run_pass(deep=frozenset())
    running = shown(box)["Running"]
    assert (running["status"], running["reason"], running["message"]) == (False, "Exited", "exited with 137")


def test_the_age_is_the_engines_at_any_time(box: Box) -> None:
    assert box.errors(ONE) == []
    box.apply()
    began = shown(box)["Running"]["since"]
    assert 0 <= time.time() - began <= 20
    status = box.reconciler.board.snapshot()
    assert status_view(status, now=began + 45).splitlines()[-1].split()[-2:] == ["45s", "0"]
    time.sleep(2.1)
    box.get("one").restart(timeout=0)
    box.reconciler.run_pass(deep=frozenset({box.get("one").id}))
    assert shown(box)["Running"]["since"] > began + 2


def test_what_runs_is_not_known_while_the_engine_is_away(box: Box) -> None:
    assert box.errors(ONE) == []
    box.apply()
    box.reconciler.run_pass(deep=frozenset())  # settled: nothing to plan
    box.reconciler.engine_failed(EngineUnreachableError("no Docker engine"))
    assert shown(box)["Running"]["reason"] == "Unknown"
    assert "not known" in status_view(box.reconciler.board.snapshot()).splitlines()[-1]
    box.reconciler.run_pass(deep=frozenset())
    assert shown(box)["Running"]["reason"] == "Running"


def test_a_mended_mistake_of_the_agent_section_is_gone(box: Box) -> None:
    wrong = "config agent 'agent'\n\toption remove 'immediate'\n"
    box.errors(ONE + wrong)
    keys = [key for key in sorted(box.reconciler.board.keys()) if key.startswith("agent:")]
    assert keys
    box.apply(ONE + "config agent 'agent'\n")
    assert [key for key in sorted(box.reconciler.board.keys()) if key.startswith("agent:")] == []


def test_another_try_after_a_rollback_is_not_said_to_be_rolled_back(box: Box) -> None:
    assert box.errors(ONE) == []
    assert len(box.errors(ONE.replace("sleep 1000", "false"))) == 1
    assert shown(box)["Degraded"]["reason"] == "RolledBack"
    seen: list[bool] = []
    engine = box.reconciler.engine
    create = engine.create_container

    def watched(*args: Any, **more: Any) -> str:
        seen.append("Degraded" in shown(box))
        return create(*args, **more)

    engine.create_container = watched  # type: ignore[method-assign]
    assert box.errors(ONE.replace("1000", "2000")) == []
    assert seen == [False]


def test_only_what_will_be_tried_again_has_a_next_try(box: Box) -> None:
    box.reconciler.backoff.jitter = lambda: 60.0
    board = box.reconciler.board
    assert len(box.errors(ONE.replace("IMAGE", "nowhere.invalid/none:1"))) == 1
    box.apply()  # a failed pull is repeated
    assert board.fact("container:one", "retry_at") > board.clock()
    assert "next try in" in status_view(board.snapshot())
    assert box.errors(ONE) == []
    assert len(box.errors(ONE.replace("sleep 1000", "false"))) == 1
    box.apply()  # what was rolled back is not, though its back-off has not ended
    assert box.reconciler.backoff.blocked(box.reconciler.monotonic())
    assert board.fact("container:one", "retry_at") is None
    assert "next try in" not in status_view(board.snapshot())


def test_a_failed_change_keeps_what_the_new_container_printed(box: Box) -> None:
    assert box.errors(ONE) == []
    failing = ONE.replace(
        "	option command 'sleep 1000'",
        commands(
            'for n in $(seq 12); do echo line $n; done; echo boom S3CRET; sleep .2; echo -e "\\\\033[2Jred" >&2; exit 4'
        ),
    )
    failing = failing.replace("'0.1'", "'5'") + "\tlist env 'TOKEN=S3CRET'\n"
    (error,) = box.errors(failing)
    assert "exited with 4" in error
    output = shown(box)["Degraded"]["details"]["output"].split("\n")
    assert (len(output), output[0], output[-2]) == (10, "line 5", "boom ***")
    assert output[-1] == "\\x1b[2Jred"
    assert diff(box.reconciler, "one")["output"].split("\n") == output
    assert "S3CRET" not in status_view(box.reconciler.board.snapshot())
    box.reconciler.backoff.clear()
    box.apply()  # rolled back: it stays
    assert shown(box)["Degraded"]["details"]["output"].split("\n") == output
    (record,) = box.reconciler.records.records()
    assert record.failed_output.split("\n") == output
    box.restart_agent()
    box.apply()  # another agent knows it from its records
    assert shown(box)["Degraded"]["reason"] == "RolledBack"
    assert "exited with 4" in shown(box)["Degraded"]["message"]
    assert shown(box)["Degraded"]["details"]["output"].split("\n") == output
    assert diff(box.reconciler, "one")["output"].split("\n") == output
    assert box.errors(ONE) == []
    assert "Degraded" not in shown(box)


def test_a_crash_loop_tells_its_code_and_what_it_printed(box: Box) -> None:
    command = commands("echo no such database; sleep 0.5; exit 3")
    text = ONE.replace("	option command 'sleep 1000'", command).replace("'0.1'", "'0'")
    box.apply(text + "\toption restart 'always'\n")

    def looping() -> bool:
        box.reconciler.run_pass(deep=frozenset())
        return shown(box)["Running"]["reason"] == "CrashLoop"

    wait_for(looping)
    running = shown(box)["Running"]
    assert running["message"] == "exited with 3"
    assert running["details"]["output"].split("\n")[-1] == "no such database"

    def again() -> bool:
        return looping() and box.get("one").attrs["RestartCount"] > restarts

    # the loop is as old as at first, although each run of it is new
    for _ in range(2):
        restarts = box.get("one").attrs["RestartCount"]
        wait_for(again)
    assert abs(shown(box)["Running"]["since"] - running["since"]) < 1
