# SPDX-License-Identifier: GPL-2.0-or-later
"""`option on_unhealthy restart`: a failing health check restarts the container, each time after a longer pause."""

from __future__ import annotations

import re

import pytest

from agent.plan.operations import RestartContainer
from agent.status.conditions import ConditionType
from tests.support.agent_process import wait_for
from tests.support.box import Box
from tests.support.dockerd import is_root

pytestmark = pytest.mark.skipif(not is_root(), reason="an engine needs root")

WEB = (
    "config container 'web'\n\toption image 'IMAGE'\n\toption command 'sleep 1000'\n\toption stop_signal 'SIGKILL'\n"
    "\toption gate '0'\n\toption rollback '0'\n\toption health_cmd 'test -e /well'\n\toption health_interval '200ms'\n"
    "\toption health_retries '1'\n"
)
HEALS = WEB + "\toption on_unhealthy 'restart'\n"


def health(box: Box) -> str:
    return str(box.client.containers.get("web").attrs["State"]["Health"]["Status"])


def reason(box: Box, condition: ConditionType) -> str:
    return box.reconciler.board.reason("container:web", condition)


def restarts(box: Box) -> int:
    """How many a pass makes."""
    return sum(isinstance(outcome.operation, RestartContainer) for outcome in box.apply()[1])


def test_it_is_restarted_with_longer_pauses_and_never_hidden(box: Box) -> None:
    box.apply(HEALS)
    for _ in range(2):
        wait_for(lambda: health(box) == "unhealthy", 30)
        assert restarts(box) == 1
    wait_for(lambda: health(box) == "unhealthy", 30)
    restarts(box)
    wait_for(lambda: health(box) == "unhealthy", 30)
    assert restarts(box) == 0
    assert reason(box, ConditionType.HEALTHY) == "Unhealthy"
    assert reason(box, ConditionType.SYNCED) == "BackOff"
    told = box.reconciler.board.standing("container:web", ConditionType.SYNCED)
    assert told is not None and re.search(r"\([23] restarts in a row\)", told.message)
    box.later(10)
    assert restarts(box) == 1


def test_a_healthy_one_and_one_without_the_option_are_left_alone(box: Box) -> None:
    box.apply(WEB)
    wait_for(lambda: health(box) == "unhealthy", 30)
    assert restarts(box) == 0
    box.apply(HEALS)  # the option alone makes no new container
    box.client.containers.get("web").exec_run("touch /well")
    wait_for(lambda: health(box) == "healthy", 30)
    assert restarts(box) == 0
