# SPDX-License-Identifier: GPL-2.0-or-later
"""An adoption that failed is remembered across a restart of the agent, and so is everything else in state.json."""

from __future__ import annotations

from tests.support.box import Box
from tests.support.dockerd import BUSYBOX

ONE = "config container 'one'\n\toption image 'IMAGE'\n\toption command 'sleep 1000'\n\toption stop_timeout '0'\n"
WEB = (
    "config container 'web'\n\toption image 'IMAGE'\n\toption command 'false'\n"
    "\toption stop_timeout '0'\n\toption adopt '1'\n"
)


def test_a_failed_adoption_is_in_the_records_after_a_restart(box: Box) -> None:
    foreign = box.client.containers.run(BUSYBOX, "sleep 1000", name="web", detach=True)
    try:
        assert len(box.errors(ONE + WEB)) == 1
        before = box.reconciler.records.records()
        assert {(record.section, record.swap) for record in before} == {("one", ""), ("web", "foreign")}
        box.restart_agent()
        assert box.reconciler.records.records() == before
        foreign.reload()
        assert foreign.status == "running"
    finally:
        foreign.remove(force=True)
