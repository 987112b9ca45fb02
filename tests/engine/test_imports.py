# SPDX-License-Identifier: GPL-2.0-or-later
"""What an agent that runs containers and is asked nothing has loaded: each MiB is one that a router does not have."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.agent_process import Agent, running, wait_for
from tests.support.box import Box

WEB = """config container 'web'
	option image 'IMAGE'
	option command 'sleep 1000'
	option stop_timeout '0'
	option gate '0.1'
"""
# our own code, as bytecode, of which other Pythons make a tenth more: who adds to it for a feature that is off by default
# imports that where it is used
CODE_KIB = 3400
# libraries, and parts of the agent that somebody has to ask for or switch on
UNUSED = """
    attr anyio charset_normalizer chardet click cryptography docker.client docker.models html importlib.metadata jsonschema
    multiprocessing paho starlette typing_extensions uvicorn websockets yaml zipfile
    agent.api.access agent.api.app agent.api.http agent.api.routes agent.cli.ask agent.convert agent.engine.registry
    agent.notices.notifier agent.plan.outlook agent.runtime.adopt agent.runtime.moving agent.runtime.planning
    agent.runtime.update_checks agent.runtime.updating agent.storage.copying agent.storage.pruner agent.storage.room
"""


@pytest.fixture
def agent(box: Box) -> Iterator[Agent]:
    made = Agent(box, module="tests.support.listing_agent")
    made.commit(WEB)
    made.start(LOADED=str(box.config.parent / "loaded"))
    wait_for(lambda: running(box, "web"))
    yield made
    made.close()


def loaded(agent: Agent) -> dict[str, int]:
    """Module -> the size of its bytecode in bytes."""
    file = agent.box.config.parent / "loaded"
    file.unlink(missing_ok=True)
    agent.send(signal.SIGUSR1)
    wait_for(file.exists)
    return {
        name: int(size) for name, _, size in (line.partition(" ") for line in file.read_text().splitlines())
    }


def test_an_idle_agent_has_loaded_nothing_that_it_does_not_use(agent: Agent, box: Box) -> None:
    agent.commit(WEB.replace("1000", "2000"))
    wait_for(lambda: running(box, "web") and box.get("web").attrs["Config"]["Cmd"][-1] == "2000")
    names = loaded(agent)
    found = {name for name in names for unused in UNUSED.split() if f"{name}.".startswith(f"{unused}.")}
    assert found - {"charset_normalizer"} == set()  # a stand-in
    ours = {name: size for name, size in names.items() if name.startswith("agent.")}
    largest = sorted(ours, key=lambda name: -ours[name])[:20]
    assert sum(ours.values()) <= CODE_KIB * 1024, f"the largest are {largest}"
    assert agent.status()["resources"]
    asked = loaded(agent).keys()
    assert {"starlette.applications", "uvicorn.server"} <= asked  # the web server comes with its first client
    assert not {"click", "configparser", "html", "logging.config", "websockets"} & asked


def test_libraries_without_their_unused_parts_are_whole_for_who_asks() -> None:
    program = (
        "import agent.runtime.main, agent.runtime.listeners\n"
        "import docker, uvicorn, uvicorn.logging, html, importlib.metadata\n"
        "names = docker.DockerClient.__name__, uvicorn.run.__name__\n"
        "print(*names, html.escape('<'), importlib.metadata.version('docker') > '7')"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert shown.stdout.strip() == "DockerClient run &lt; True"
