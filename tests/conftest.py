# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures: one real dockerd for the whole run."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import docker
import hypothesis
import pytest
import pytest_timeout

from tests.support.box import Box
from tests.support.dockerd import PrivateDockerd, is_root
from tests.support.engines import VERSIONS, programs
from tests.support.network import listening_ports, own_network

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # in a job in the background: what tests start would not hear Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)

# how long one example takes tells of the other work on the machine, not of the code; pytest's time-out ends what hangs
hypothesis.settings.register_profile("shared-machine", deadline=None)
hypothesis.settings.load_profile("shared-machine")

# images for building set this; each of the hundreds of agents that tests start would compile all of its modules
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--machine-minutes", type=float, default=1.0, help="how long the random state machine runs"
    )
    parser.addoption("--machine-runs", type=int, default=10, help="how many times it runs on a real engine")
    parser.addoption(
        "--engine", choices=VERSIONS, help="the dockerd that tests run on, in place of the installed one"
    )
    parser.addoption(
        "--without-engine", action="store_true", help="leave out the tests that start an engine or a browser"
    )


@pytest.hookimpl(tryfirst=True)  # before -m looks at the marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    _mark_further_variants(items)
    if config.getoption("--without-engine"):
        left = [item for item in items if _starts_an_engine(item)]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if not _starts_an_engine(item)]


def _mark_further_variants(items: list[pytest.Item]) -> None:
    """`variants(n)`: n of a test's parameter sets, evenly spread, are quick ones; the others are long."""
    tests: dict[tuple[Path, str], list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("variants"):
            tests.setdefault((item.path, getattr(item, "originalname", item.name)), []).append(item)
    for found in tests.values():
        variants = [item for item in found if not item.get_closest_marker("long")]
        count = variants[0].get_closest_marker("variants").args[0] if variants else 0
        kept = {number * len(variants) // count for number in range(count)}
        for number, item in enumerate(variants):
            if number not in kept:
                item.add_marker(pytest.mark.long)


def _starts_an_engine(item: pytest.Item) -> bool:
    folder = item.path.relative_to(Path(__file__).parent).parts[0]
    return (
        folder in {"adoption", "browser", "dockerd", "faults", "firewall"}
        or "_on_engine" in item.path.name
        or "browser" in item.path.parts
        or "engine" in getattr(item, "fixturenames", ())
    )


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """A worker of pytest-xdist has a network of its own: two engines would fight over bridges, ports and rules.

    Last, because pytest-rerunfailures connects to the controlling process by TCP.
    """
    if hasattr(config, "workerinput") and is_root():
        own_network()
    version = config.getoption("--engine")
    if version:
        os.environ["PATH"] = f"{programs(version)}:{os.environ['PATH']}"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """pytest-timeout sets its timer once for all runs of a test: without a new one a second run could hang for ever."""
    if getattr(item, "execution_count", 1) > 1:
        settings = pytest_timeout._get_item_settings(item)
        item.ihook.pytest_timeout_set_timer(item=item, settings=settings)


@pytest.fixture(scope="session")
def engine() -> Iterator[PrivateDockerd]:
    dockerd = PrivateDockerd(subnet=1)
    try:
        dockerd.start()
        dockerd.import_busybox()
        yield dockerd
    finally:
        dockerd.close()


@pytest.fixture(autouse=True)
def _engine_left_empty(request: pytest.FixtureRequest) -> Iterator[None]:
    """The engine is shared: what a test leaves there, or what comes late, would fail another one later on."""
    # a test without a box of its own shares one with its module, which empties it at its end
    shared = request.getfixturevalue("engine") if "box" in request.fixturenames else None
    if not isinstance(shared, PrivateDockerd):
        yield
        return
    ports = listening_ports()
    if left := shared.leftovers():
        request.getfixturevalue("box").clean()  # one test fails for it, and not all after it
        pytest.fail(f"left by an earlier test, after it had ended: {left}")
    yield
    assert shared.leftovers() == []
    assert listening_ports() <= ports


@pytest.fixture
def docker_client(engine: PrivateDockerd) -> Iterator[docker.DockerClient]:
    client = docker.DockerClient(base_url=engine.host, version="auto")
    yield client
    client.close()


@pytest.fixture
def box(engine: PrivateDockerd, docker_client: docker.DockerClient, tmp_path: Path) -> Iterator[Box]:
    made = Box.make(tmp_path, engine, docker_client)
    yield made
    made.clean()
