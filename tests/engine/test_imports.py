# SPDX-License-Identifier: GPL-2.0-or-later
"""What an agent that runs containers and is asked nothing has loaded: each MiB is one that a router does not have."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.engine.lean import load
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
CODE_KIB = 3500
# libraries, and parts of the agent that somebody has to ask for or switch on
UNUSED = """
    attr anyio charset_normalizer chardet click cryptography docker.client docker.models html importlib.metadata jsonschema
    multiprocessing paho starlette typing_extensions uvicorn websockets yaml zipfile
    agent.api.access agent.api.app agent.api.http agent.api.routes agent.cli.ask agent.convert agent.engine.registry
    agent.notices.notifier agent.plan.description agent.runtime.requests.adopt agent.runtime.requests.foresight
    agent.runtime.requests.moving agent.runtime.requests.planning agent.runtime.requests.versions agent.runtime.update_checks
    agent.storage.copying agent.storage.space
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
        "import agent.runtime.main, agent.api.app, agent.api.access.listeners\n"
        "import docker, uvicorn, uvicorn.logging, html, importlib.metadata\n"
        "names = docker.DockerClient.__name__, uvicorn.run.__name__\n"
        "print(*names, html.escape('<'), importlib.metadata.version('docker') > '7')"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert shown.stdout.strip() == "DockerClient run &lt; True"


# what the next release of a library may do with a module that it gets a stand-in for: at its import, and later in use()
USES = {
    "another name": ("from {part} import other", "other()"),
    "another name of the module": ("import {part}", "{part}.other()"),
    "a module within": ("import {part}.within", "{part}.within.other()"),
    "a module within of a name": ("from {part} import within", "within.other()"),
    "a class of what is none": ("import {part}\nclass Mine({part}.known): ...", "Mine.other()"),
    "another argument": ("from {part} import known\nknown.other(new=1)", "known.other(new=1)"),
    "everything": ("from {part} import *", "other()"),
    "whether it is there": ("import {part}\nassert hasattr({part}, 'other')", "{part}.other()"),
    "its version": ("import {part}", "{part}.__version__"),
}


@pytest.mark.parametrize("part", ["part", "outer.part"])
@pytest.mark.parametrize("use", USES)
def test_a_library_that_needs_more_of_a_stand_in_gets_the_real_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, use: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    before = sys.modules.keys() | {"library"}
    folder = tmp_path / part.replace(".", "/")
    folder.mkdir(parents=True)
    body = "__version__ = 'real'\ndef other(new=0): return 'real'\n"
    (folder / "__init__.py").write_text(
        f"{body}class known:\n\tother = staticmethod(other)\nknown.known = known\n"
    )
    (folder / "within.py").write_text(f"from . import known\n{body}")
    if part != "part":
        (tmp_path / "outer/__init__.py").touch()
    at_import, later = (text.format(part=part) for text in USES[use])
    (tmp_path / "library.py").write_text(f"{at_import}\ndef use():\n\treturn {later}\n")
    try:
        load("library", {part: {"known": lambda: "fake"}})
        assert sys.modules["library"].use() == "real"
        kept = sys.modules.get(part)
        assert kept is None or kept.known.known, "a stand-in is left"
    finally:
        for name in sys.modules.keys() - before | {"library"}:
            del sys.modules[name]
