# SPDX-License-Identifier: GPL-2.0-or-later
"""Every call to the engine fails once, in every way: when the fault ends the agent converges and nothing is doubled."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.apply.images import Images
from agent.engine.client import DockerEngine
from agent.errors import EngineError, EngineSlowError, EngineUnreachableError
from agent.model.resources import AgentSettings, Container, ContainerSpec
from agent.runtime.main import make_reconciler
from tests.support.agent_process import Agent, running, wait_for
from tests.support.box import Box
from tests.support.dockerd import BUSYBOX, PrivateDockerd
from tests.support.fault_proxy import Call, Fault, FaultProxy
from tests.support.oracle import Oracle

APP = """
config network 'lan'
	list subnet '10.219.7.0/24'

config network 'dmz'

config volume 'data'

config container 'db'
	option image 'IMAGE'
	option command 'sleep 1000'
	option stop_timeout '0'
	option gate '0.1'
	list volume 'data:/data'

config container 'web'
	option image 'IMAGE'
	option command 'sleep 1000'
	option stop_timeout '0'
	option gate '0.1'
	list network 'lan,ip=10.219.7.9'
	list network 'dmz'
	list depends_on 'db'
"""
CHANGED = APP.replace(
    "option gate '0.1'\n\tlist network", "option gate '0.1'\n\tlist env 'A=1'\n\tlist network"
)
EXPECTED = {"db": "sleep 1000", "web": "sleep 1000"}
NETWORKS = {"lan", "dmz"}
KINDS = [
    Fault.ERROR_500,
    Fault.ERROR_409,
    Fault.ERROR_404,
    Fault.LOST_REQUEST,
    Fault.LOST_REPLY,
    Fault.CUT_REPLY,
    Fault.HANG,
]
LIMIT = 60  # no apply here takes so many calls


@pytest.fixture
def proxy(engine: PrivateDockerd, tmp_path: Path) -> Iterator[FaultProxy]:
    with FaultProxy(tmp_path / "proxy.sock", engine.socket) as made:
        yield made


@pytest.fixture
def faulty(box: Box, proxy: FaultProxy) -> Box:
    """The box, its agent behind the proxy."""
    box.options = replace(box.options, docker_host=proxy.host)
    box.reconciler = make_reconciler(box.options, AgentSettings())
    return box


def at(number: int, fault: Fault) -> Callable[[Call], Fault | None]:
    return lambda call: fault if call.number == number else None


def first(method: str, part: str, fault: Fault) -> Callable[[Call], Fault | None]:
    """The first call that fits."""
    left = [fault]
    return lambda call: left.pop() if left and call.method == method and part in call.path else None


def try_pass(box: Box, text: str) -> None:
    """A pass that may fail; what it began has ended."""
    with contextlib.suppress(EngineError):
        box.apply(text)


@pytest.mark.parametrize(
    "fault", [pytest.param(kind, marks=pytest.mark.long, id=kind.name) for kind in KINDS]
)
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("before", "after"), [("\n", APP), (APP, CHANGED)], ids=["create", "swap"])
def test_whichever_call_fails_it_converges(
    faulty: Box, proxy: FaultProxy, before: str, after: str, fault: Fault
) -> None:
    oracle = Oracle(faulty)
    for number in range(1, LIMIT):
        proxy.reset()
        faulty.write(before)
        oracle.converge()
        proxy.reset(at(number, fault))
        if fault is Fault.HANG:
            faulty.reconciler.engine._timeout_s = 3  # type: ignore[attr-defined]
        try_pass(faulty, after)
        if not proxy.hit.is_set():
            assert number > 5
            return
        proxy.reset()
        oracle.converge()
        oracle.check(EXPECTED, networks=NETWORKS)
        faulty.apply("config agent 'agent'\n\toption remove '1'\n")
        faulty.later(1000)
        oracle.converge()
        faulty.restart_agent()
    raise AssertionError(f"more than {LIMIT} calls")


SAMPLE = {
    "a create whose reply is lost": ("\n", APP, first("POST", "/containers/create", Fault.LOST_REPLY)),
    "a network's create whose reply is lost": (
        "\n",
        APP,
        first("POST", "/networks/create", Fault.LOST_REPLY),
    ),
    "a connect whose reply is lost": ("\n", APP, first("POST", "/connect", Fault.LOST_REPLY)),
    "a start that is lost": ("\n", APP, first("POST", "/start", Fault.LOST_REQUEST)),
    "half a list": (APP, CHANGED, first("GET", "/containers/json", Fault.CUT_REPLY)),
    "a swap's stop whose reply is lost": (APP, CHANGED, first("POST", "/stop", Fault.LOST_REPLY)),
    "a swap's rename that fails": (APP, CHANGED, first("POST", "/rename", Fault.ERROR_500)),
}


FAST = {"a create whose reply is lost", "half a list", "a swap's rename that fails"}


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.long) for name in SAMPLE]
)
def test_it_converges_after(faulty: Box, proxy: FaultProxy, name: str) -> None:
    before, after, rule = SAMPLE[name]
    oracle = Oracle(faulty)
    faulty.apply(before)
    proxy.reset(rule)
    try_pass(faulty, after)
    assert proxy.hit.is_set()
    proxy.reset()
    oracle.converge()
    oracle.check(EXPECTED, networks=NETWORKS)


@pytest.mark.parametrize(
    "path",
    ["/containers/json", *(pytest.param(p, marks=pytest.mark.long) for p in ("/networks", "/volumes"))],
)
@pytest.mark.parametrize("fault", [Fault.EMPTY_LIST, Fault.SHORT_LIST], ids=lambda f: f.value)
def test_what_a_list_lacks_is_not_taken_for_gone(
    faulty: Box, proxy: FaultProxy, path: str, fault: Fault
) -> None:
    faulty.apply(APP)
    proxy.reset(lambda call: fault if call.path.split("?")[0].endswith(path) else None)
    with pytest.raises(EngineError):
        faulty.apply(APP)
    assert not [call for call in proxy.calls if call.changes]
    proxy.reset()
    assert str(faulty.apply(APP)[0]) == "nothing to do"


def impatient(host: str) -> DockerEngine:
    """Its calls may take 0.3 s. The engine's version is asked for before: a busy machine may take longer for that."""
    engine = DockerEngine(host, timeout_s=20)
    engine.ping()
    engine._timeout_s = 0.3
    return engine


@pytest.mark.usefixtures("faulty")
def test_a_call_without_an_answer_ends_at_its_deadline(proxy: FaultProxy) -> None:
    engine = impatient(proxy.host)
    proxy.reset(lambda call: Fault.HANG)
    for call in (lambda: engine.list_containers("x"), engine.ping, lambda: engine.start("web")):
        begun = time.monotonic()
        with pytest.raises(EngineSlowError):
            call()
        assert time.monotonic() - begun < 10


def test_a_hanging_engine_neither_blocks_status_nor_the_end(faulty: Box, proxy: FaultProxy) -> None:
    agent = Agent(faulty)
    agent.commit(APP)
    proxy.reset(first("POST", "/containers/create", Fault.HANG))
    agent.start()
    try:
        assert proxy.hit.wait(15)
        status = agent.status()
        assert status["agent"]["engine"]["reachable"] is True
        begun = time.monotonic()
        assert agent.end() == 0
        assert time.monotonic() - begun < 4
    finally:
        proxy.reset()
        agent.close()
    faulty.restart_agent()
    Path(faulty.config / "containers").unlink()
    oracle = Oracle(faulty)
    faulty.write(APP)
    oracle.converge()
    oracle.check(EXPECTED, networks=NETWORKS)


def test_a_pull_that_stalls_is_cancelled(proxy: FaultProxy) -> None:
    """By time that runs 600 times as fast."""
    proxy.reset(first("POST", "/images/create", Fault.STALL))
    images = Images(engine=DockerEngine(proxy.host), clock=lambda: time.monotonic() * 600)
    container = Container(section="web", name="web", spec=ContainerSpec(image="127.0.0.1:1/nothing:1"))
    with pytest.raises(EngineError, match="no progress for 300 s, cancelled") as raised:
        images.ensure(container)
    assert not isinstance(raised.value, EngineUnreachableError), "the engine is there, one image is not"


def test_pull_always_takes_what_is_there_while_the_registry_is_away(faulty: Box) -> None:
    faulty.client.images.get(BUSYBOX).tag("127.0.0.1:1/web", "1")
    text = APP.replace(
        "config container 'db'\n\toption image 'IMAGE'",
        "config container 'db'\n\toption image '127.0.0.1:1/web:1'\n\toption pull 'always'",
    )
    assert faulty.errors(text) == []
    faulty.clean()
    faulty.client.images.remove("127.0.0.1:1/web:1")


def test_events_that_never_come_leave_drift_to_the_resync(faulty: Box, proxy: FaultProxy) -> None:
    agent = Agent(faulty)
    agent.commit(APP + "\nconfig agent 'agent'\n\toption resync '1'\n")
    proxy.reset(lambda call: Fault.HANG if "/events" in call.path else None)
    agent.start()
    try:
        wait_for(lambda: running(faulty, "web"))
        wait_for(lambda: agent.status().get("agent", {}).get("generation"))
        faulty.get("web").kill()
        wait_for(lambda: running(faulty, "web"), 10)
    finally:
        agent.close()


def test_what_failed_once_is_tried_again_after_a_second(faulty: Box, proxy: FaultProxy) -> None:
    agent = Agent(faulty)
    agent.commit(APP + "\nconfig agent 'agent'\n\toption resync '3600'\n")
    proxy.reset(first("POST", "/containers/create", Fault.ERROR_500))
    agent.start()
    try:
        assert proxy.hit.wait(15)
        wait_for(lambda: running(faulty, "web"), 8)
    finally:
        agent.close()


@pytest.mark.long
def test_an_engine_that_gives_no_list_is_called_slow(faulty: Box, proxy: FaultProxy) -> None:
    agent = Agent(faulty)
    agent.commit(APP)
    proxy.reset(lambda call: Fault.HANG if "/json" in call.path else None)
    agent.start()
    try:
        wait_for(lambda: agent.status()["agent"].get("engine", {}).get("reason") == "EngineSlow", 30)
        proxy.release.set()
        proxy.rule = lambda call: None
        wait_for(lambda: running(faulty, "web"), 30)
        assert agent.status()["agent"]["engine"]["reachable"] is True
    finally:
        agent.close()


def test_works_on_other_resources_go_on_beside_one_that_hangs(faulty: Box, proxy: FaultProxy) -> None:
    faulty.write(APP)
    proxy.reset(first("POST", "/containers/create?name=db", Fault.HANG))
    done = threading.Thread(target=faulty.apply)
    done.start()
    assert proxy.hit.wait(10)
    wait_for(lambda: {n["Name"] for n in faulty.client.api.networks()} >= NETWORKS)
    proxy.release.set()
    done.join(20)
    assert [c["Names"] for c in faulty.client.api.containers()] == []  # web needs db
