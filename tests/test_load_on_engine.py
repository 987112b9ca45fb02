# SPDX-License-Identifier: GPL-2.0-or-later
"""The load of real containers: by the kernel's files and by the engine, from the agent, the command line and metrics."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import httpx
import pytest

from agent.engine.stream import DockerStream
from agent.observe.load import counters_of, counters_of_stats, files_of
from agent.status.metrics import load_between
from tests.support.agent_process import Agent, wait_for
from tests.support.box import Box
from tests.support.dockerd import PrivateDockerd

CONFIG = """
config container 'busy'
	option image 'IMAGE'
	option memory '32m'
	option cpus '0.2'
	option gate '0.2'
	list command 'sh'
	list command '-c'
	list command 'while :; do :; done'

config container 'off'
	option image 'IMAGE'
	option state 'stopped'
"""


@pytest.fixture
def agent(box: Box) -> Iterator[Agent]:
    made = Agent(box)
    made.commit(CONFIG)
    made.start()
    yield made
    made.close()


def agent_client(agent: Agent) -> httpx.Client:
    socket = str(agent.box.options.socket)
    return httpx.Client(transport=httpx.HTTPTransport(uds=socket), base_url="http://localhost", timeout=30)


@pytest.mark.long
def test_the_load_of_all_and_of_one_over_time(agent: Agent, engine: PrivateDockerd) -> None:
    def loads() -> dict[str, dict[str, float]]:
        found = json.loads(agent.command("status", "--load", "--json").stdout or '{"resources": []}')
        return {r["section"]: r["load"] for r in found["resources"] if r.get("load")}

    wait_for(lambda: loads().get("busy", {}).get("cpu_percent"))  # None in the second that it began in
    busy = loads()["busy"]
    assert loads().keys() == {"busy"}
    assert 2 < busy["cpu_percent"] <= 60 and busy["memory_limit_bytes"] == 32 << 20
    assert 0 < busy["memory_bytes"] < 32 << 20 and "%)" in str(busy["memory"])
    assert "%" in agent.command("status", "--load", "busy").stdout
    # the kernel's files say what the engine says
    container = agent.box.client.containers.get("busy")
    object_id, pid = container.id or "", container.attrs["State"]["Pid"]

    async def both() -> None:
        stream = DockerStream(engine.host)
        stats = await stream.call(
            "GET", f"/containers/{object_id}/stats", query=(("stream", "false"),), read=dict
        )
        theirs, ours = counters_of_stats(object_id, stats), counters_of(object_id, files_of(pid, object_id))
        assert ours.limit == theirs.limit == 32 << 20
        assert abs(ours.memory - theirs.memory) < 2 << 20
        assert 0 <= ours.cpu_ns - theirs.cpu_ns < 2e9
        assert ours.rx is not None and theirs.rx is not None and abs(ours.rx - theirs.rx) < 10_000
        await asyncio.sleep(1)
        assert 2 < load_between(ours, counters_of(object_id, files_of(pid, object_id))).cpu <= 60

    asyncio.run(both())
    # over time: the agent began to look when it started, maybe before the container did
    with agent_client(agent) as client:
        shown = client.get("/v1/load/busy?hours=2").json()
        assert (shown["section"], shown["history"], shown["step_s"], len(shown["cpu"])) == (
            "busy",
            True,
            60,
            120,
        )
        assert client.get("/v1/load/busy?hours=25").status_code == 400
        assert client.get("/v1/load/none").status_code == 422
        agent.commit(CONFIG + "\nconfig agent 'agent'\n\toption load_history '0'\n")
        wait_for(lambda: client.get("/v1/load/busy").json()["history"] is False)
