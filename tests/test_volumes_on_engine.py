# SPDX-License-Identifier: GPL-2.0-or-later
"""The running agent stops containers for a copy of their volume, and starts them again whatever happens meanwhile."""

from __future__ import annotations

import http.client
import io
import signal
import tarfile
from collections.abc import Iterator

import pytest

from agent.unix_http import UnixConnection
from tests.support.agent_process import Agent, running, wait_for
from tests.support.box import Box

pytestmark = pytest.mark.long

TEXT = """
config volume 'data'

config container 'db'
	option image 'IMAGE'
	list volume 'data:/data'
	option command 'sh -c "echo row >>/data/rows; exec sleep 600"'
	option stop_timeout '0'

config container 'other'
	option image 'IMAGE'
	option command 'sleep 600'
"""


@pytest.fixture
def agent(box: Box) -> Iterator[Agent]:
    made = Agent(box)
    made.commit(TEXT)
    made.start()
    wait_for(lambda: running(box, "db") and running(box, "other"))
    yield made
    made.close()


def opened(agent: Agent, path: str) -> http.client.HTTPResponse:
    connection = UnixConnection(str(agent.box.options.socket), 60)
    connection.request("GET", path)
    return connection.getresponse()


def synced(agent: Agent, key: str) -> tuple[bool, str]:
    found = next(r for r in agent.status()["resources"] if r["key"] == key)["conditions"]
    condition = next(c for c in found if c["type"] == "Synced")
    return condition["status"], condition["reason"]


def helpers(box: Box) -> list[str]:
    return [c["Id"] for c in box.client.api.containers(all=True) if "ucidockd.helper" in c["Labels"]]


def filled(box: Box) -> None:
    code, _ = box.get("db").exec_run(["sh", "-c", "head -c 60000000 /dev/urandom >/data/big"])
    assert code == 0


def test_a_container_is_down_while_its_volume_is_copied_and_no_longer(agent: Agent, box: Box) -> None:
    filled(box)
    before = box.get("db").id
    response = opened(agent, "/v1/volumes/data/archive?stop=1")
    assert response.status == 200
    assert not running(box, "db")
    assert running(box, "other")
    agent.command("reconcile")
    assert not running(box, "db"), "it was started in the middle of the copy"
    assert synced(agent, "container:db") == (False, "Held")
    archive = response.read()
    wait_for(lambda: running(box, "db"))
    assert box.get("db").id == before
    with tarfile.open(fileobj=io.BytesIO(archive)) as found:
        assert found.getmember("./big").size == 60_000_000
    wait_for(lambda: synced(agent, "container:db")[0])
    assert not helpers(box)


@pytest.mark.parametrize("declared", ["", "\toption state 'stopped'\n"], ids=["running", "by-hand"])
def test_a_killed_agent_starts_it_again(agent: Agent, box: Box, declared: str) -> None:
    filled(box)
    if declared:
        agent.commit(TEXT.replace("config container 'other'", f"{declared}\nconfig container 'other'"))
        wait_for(lambda: not running(box, "db"))
        assert agent.command("start", "--once", "db").returncode == 0
        wait_for(lambda: running(box, "db"))
    response = opened(agent, "/v1/volumes/data/archive?stop=1")
    assert response.status == 200
    assert not running(box, "db")
    agent.end(signal.SIGKILL)
    assert helpers(box)
    agent.start()
    wait_for(lambda: running(box, "db"))
    wait_for(lambda: not helpers(box))
    wait_for(
        lambda: not [i for i in box.client.api.images(all=True) if "ucidockd.helper" in (i["Labels"] or {})]
    )
