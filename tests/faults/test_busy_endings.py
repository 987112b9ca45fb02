# SPDX-License-Identifier: GPL-2.0-or-later
"""SIGTERM while one thing keeps the agent busy: it ends within its deadline, and the next agent goes on from there."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.support.agent_process import Agent, running, wait_for
from tests.support.box import Box
from tests.support.dockerd import PrivateDockerd
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.tcp import make_certificate

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]

LIMIT_S = 10  # procd kills then (init.d/ucidockd)
WEB = """
config container 'web'
	option image 'IMAGE'
	option command 'sh -c "while :; do echo x; sleep 0.1; done"'
	list volume 'data:/data'
	option stop_timeout '0'
	option gate '0.1'

config backup 'away'
	list volume 'data'
	option exec 'cat >/dev/null; exec sleep 60'
	option stop '1'
"""


@dataclass
class Stand:
    agent: Agent
    box: Box
    proxy: FaultProxy
    folder: Path
    stack: ExitStack
    http: httpx.Client

    def hang(self, *words: str) -> None:
        """From now on the engine answers no call whose path has one of these words."""
        self.proxy.reset(lambda call: Fault.HANG if any(word in call.path for word in words) else None)

    def ask(self, method: str, path: str, **more: object) -> None:
        """A request that nobody waits for; the agent has it once the engine was asked, or soon."""

        def run() -> None:
            with suppress(httpx.HTTPError):
                self.client().request(method, path, **more)  # type: ignore[arg-type]

        threading.Thread(target=run, daemon=True).start()

    def client(self) -> httpx.Client:
        transport = httpx.HTTPTransport(uds=str(self.box.options.socket))
        return self.stack.enter_context(
            httpx.Client(transport=transport, base_url="http://localhost", timeout=60)
        )

    def hit(self) -> None:
        assert self.proxy.hit.wait(20), "the engine was not asked"
        time.sleep(0.2)


@pytest.fixture
def stand(box: Box, engine: PrivateDockerd, tmp_path: Path) -> Iterator[Stand]:
    with ExitStack() as stack:
        proxy = stack.enter_context(FaultProxy(tmp_path / "proxy.sock", engine.socket))
        behind = replace(box, options=replace(box.options, docker_host=proxy.host))
        agent = Agent(behind)
        stack.callback(agent.close)
        agent.commit(WEB)
        agent.start()
        wait_for(lambda: running(box, "web"))
        wait_for(lambda: not agent.status().get("agent", {}).get("in_progress"))
        made = Stand(agent, behind, proxy, tmp_path, stack, None)  # type: ignore[arg-type]
        made.http = made.client()
        yield made


def a_manual_action(stand: Stand) -> None:
    stand.hang("/stop")
    stand.ask("POST", "/docker/containers/web/stop")
    stand.hit()


def who_a_manual_action_is_for(stand: Stand) -> None:
    short = str(stand.box.get("web").id)[:12]  # which the agent does not know: it asks, in a thread
    stand.hang(short)
    stand.stack.enter_context(stand.client().stream("GET", "/v1/status/stream"))
    stand.ask("POST", f"/docker/containers/{short}/stop")
    stand.hit()


def a_pull_of_a_pass(stand: Stand) -> None:
    silent = stand.stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    image = f"127.0.0.1:{silent.getsockname()[1]}/never:1"
    stand.agent.commit(WEB + f"\nconfig container 'new'\n\toption image '{image}'\n")
    silent.settimeout(20)
    silent.accept()


def an_update(stand: Stand) -> None:
    stand.hang("/distribution/", "/images/create")
    stand.ask("POST", "/v1/update", json={"names": ["web"]})
    stand.ask("POST", "/v1/updates/check", json={"names": ["web"]})
    time.sleep(1)


def a_hold_command(stand: Stand) -> None:
    text = WEB.replace(
        "option gate",
        "list hold_cmd 'sh'\n\tlist hold_cmd '-c'\n\tlist hold_cmd 'exec sleep 47'\n\toption gate",
    )
    stand.agent.commit(text.replace("echo x", "echo y"))
    wait_for(lambda: "sleep 47" in str(stand.box.get("web").top()))


def a_pre_stop(stand: Stand) -> None:
    text = WEB.replace(
        "option gate", "option pre_stop 'sleep 48'\n\toption pre_stop_timeout '60'\n\toption gate"
    )
    stand.agent.commit(text.replace("echo x", "echo y"))
    wait_for(lambda: "sleep 48" in str(stand.box.get("web").top()))


def a_backup(stand: Stand) -> None:
    assert stand.http.post("/v1/backups", json={}).status_code < 300
    wait_for(lambda: not running(stand.box, "web"))
    time.sleep(0.5)


def a_backup_whose_container_is_not_started_again(stand: Stand) -> None:
    a_backup(stand)
    stand.hang("/start")


def a_prune(stand: Stand) -> None:
    stand.hang("/images/json")
    stand.ask("POST", "/v1/prune", json={"dry_run": True})
    stand.hit()


def a_diff(stand: Stand) -> None:
    stand.hang("/containers/")
    stand.ask("GET", "/v1/containers/web/diff")
    stand.hit()


def a_prune_of_images_by_a_client(stand: Stand) -> None:
    stand.hang("/images/prune")
    stand.ask("POST", "/docker/images/prune?filters=" + quote('{"dangling":["false"]}'))
    stand.hit()


def a_reconcile(stand: Stand) -> None:
    stand.hang("/containers/create")
    stand.agent.commit(
        WEB + "\nconfig container 'new'\n\toption image 'IMAGE'\n\toption command 'sleep 60'\n"
    )
    stand.ask("POST", "/v1/reconcile")
    stand.hit()


def an_engine_that_does_not_answer(stand: Stand) -> None:
    stand.proxy.close_streams()
    stand.hang("/")
    for path in ("/v1/containers/web/logs?follow=1", "/docker/info", "/v1/plan", "/v1/load"):
        stand.ask("GET", path)
    stand.ask("POST", "/v1/containers/web/exec", json={"command": ["sh"]})
    stand.hit()
    time.sleep(0.5)


def an_engine_that_is_gone(stand: Stand) -> None:
    stand.proxy.reset(lambda call: Fault.LOST_REQUEST)
    stand.proxy.close_streams()
    for path in ("/v1/containers/web/logs?follow=1", "/v1/plan"):
        stand.ask("GET", path)
    time.sleep(1)


def a_log_and_a_console_over_tls(stand: Stand) -> None:
    cert, key = make_certificate(stand.folder, "router")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    stand.agent.commit(
        WEB
        + f"\nconfig agent\n\tlist listen '127.0.0.1:{port}'\n\toption cert '{cert}'\n\toption key '{key}'\n"
    )
    wait_for(lambda: '"Listening"' in stand.agent.command("status", "--json").stdout)
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    token = (stand.box.options.state_dir / "token").read_text().strip()
    client = stand.stack.enter_context(
        httpx.Client(
            base_url=f"https://127.0.0.1:{port}",
            verify=trusting,
            headers={"authorization": f"Bearer {token}"},
        )
    )
    for path in (
        "/docker/containers/web/logs?follow=1&stdout=1",
        "/v1/containers/web/logs?follow=1&format=sse",
    ):
        next(stand.stack.enter_context(client.stream("GET", path)).iter_raw())
    console = client.post("/v1/containers/web/exec", json={"command": ["sleep", "49"]}).json()["id"]
    stand.stack.enter_context(client.stream("GET", f"/v1/exec/{console}/stream"))
    stand.hang("/stop")
    stand.ask("POST", "/docker/containers/web/stop")
    stand.hit()


BUSY: tuple[Callable[[Stand], None], ...] = (
    a_manual_action,
    who_a_manual_action_is_for,
    a_pull_of_a_pass,
    an_update,
    a_hold_command,
    a_pre_stop,
    a_backup,
    a_backup_whose_container_is_not_started_again,
    a_prune,
    a_diff,
    a_prune_of_images_by_a_client,
    a_reconcile,
    an_engine_that_does_not_answer,
    an_engine_that_is_gone,
    a_log_and_a_console_over_tls,
)


@pytest.mark.parametrize("busy", BUSY, ids=lambda busy: busy.__name__)
def test_the_end_waits_for_nothing(
    stand: Stand, busy: Callable[[Stand], None], engine: PrivateDockerd
) -> None:
    busy(stand)
    began = time.monotonic()
    assert stand.agent.end() == 0, stand.agent.log.read_text()
    took = time.monotonic() - began
    log = stand.agent.log.read_text()
    assert took < LIMIT_S, log
    assert [line for line in log.splitlines() if line.startswith(("ERROR", "Traceback"))] == [], log
    stand.proxy.release.set()
    stand.proxy.reset()
    # the next agent finds what was left, and all is as declared
    again = Agent(replace(stand.box, options=replace(stand.box.options, docker_host=engine.host)))
    stand.stack.callback(again.close)
    again.commit(WEB)
    again.start()
    wait_for(lambda: running(stand.box, "web"))
    wait_for(lambda: stand.box.names() == ["web"])
