# SPDX-License-Identifier: GPL-2.0-or-later
"""Notices of a running agent on a real engine: what breaks and recovers reaches a web server, once."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.agent_process import Agent, wait_for
from tests.support.box import Box
from tests.support.dockerd import is_root
from tests.support.receiver import Receiver

pytestmark = [pytest.mark.skipif(not is_root(), reason="an engine needs root"), pytest.mark.long]

SECRET = "S3CRET-topic"
WEB = (
    "config container 'web'\n\toption image 'IMAGE'\n\toption command '{}'\n\toption restart 'always'\n"
    "\toption stop_signal 'SIGKILL'\n\toption gate '0'\n\toption rollback '0'\n"
)
WELL, BAD = WEB.format("sleep 1000"), WEB.format("false")


@pytest.fixture
def agent(box: Box) -> Iterator[Agent]:
    made = Agent(box)
    yield made
    made.close()


def phone(receiver: Receiver, more: str = "") -> str:
    url = receiver.url(f"/{SECRET}")
    return f"config notify 'phone'\n\toption type 'webhook'\n\toption url '{url}'\n\tlist header 'X-Key: {SECRET}'\n{more}"


@pytest.mark.timeout(300)
def test_a_crash_loop_is_told_once_and_so_is_its_end(agent: Agent) -> None:
    with Receiver() as receiver:
        agent.box.write(WELL + phone(receiver))
        agent.start()
        wait_for(lambda: agent.status().get("agent", {}).get("generation"))
        tried = agent.command("notify", "--test", "phone")
        assert tried.returncode == 0, tried.stderr
        assert "delivered" in tried.stdout
        assert receiver.events() == ["test"]
        receiver.answers = [403]
        tried = agent.command("notify", "--test", "phone")
        assert (tried.returncode, "403" in tried.stderr) == (1, True)
        assert agent.command("notify", "--test", "none").returncode == 1

        agent.commit(BAD + phone(receiver))
        receiver.wait_for(3, 90)
        news = receiver.documents()[2]
        assert (news["event"], news["section"], news["reason"]) == ("crashloop", "web", "CrashLoop")

        assert agent.end() == 0  # what was told is told no more by the next one
        agent.start()
        wait_for(lambda: agent.status().get("agent", {}).get("generation"))
        agent.commit(WELL + phone(receiver))
        receiver.wait_for(4, 150)
        assert receiver.events()[2:] == ["crashloop", "recovered"]
        resource = next(r for r in agent.status()["resources"] if r["key"] == "notify:phone")
        assert (resource["level"], resource["notices"]["sent"]) == ("ok", 1)
        shown = [
            agent.command("status").stdout,
            agent.command("status", "--json").stdout,
            agent.log.read_text(),
        ]
        shown += [agent.command("plan").stdout, agent.command("check").stdout]
        assert not [text for text in shown if SECRET in text]


@pytest.mark.timeout(300)
def test_a_receiver_that_hangs_holds_up_no_pass_and_no_end(agent: Agent) -> None:
    with Receiver() as receiver:
        receiver.answers = ["hang"] * 10
        agent.box.write(WELL + phone(receiver, "\toption timeout '60'\n"))
        agent.start()
        wait_for(lambda: agent.status().get("agent", {}).get("generation"))
        agent.commit(BAD + phone(receiver, "\toption timeout '60'\n"))
        receiver.wait_for(1, 90)
        agent.commit(WELL + phone(receiver, "\toption timeout '60'\n"))
        done = agent.command("reconcile", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(done.stdout)["ok"]
        assert agent.end() == 0
