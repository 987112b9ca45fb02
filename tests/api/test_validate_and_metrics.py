# SPDX-License-Identifier: GPL-2.0-or-later
"""`/v1/validate` and `/metrics` of a running agent."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest

from agent.status.metrics import format_metrics, many, one
from tests.support.box import Box
from tests.test_running_agent import Agent, running, wait_for

GOOD = "config container 'web'\n\toption image 'busybox:test'\n\toption command 'sleep 1000'\n\toption gate '0'\n"
WRONG = """config container 'web'
	option image 'busybox:test'
	option memroy '64m'
	list port '99999:80'
	option restart 'sometimes'

config container 'noimage'
"""
BROKEN = "config container 'web\n\toption image 'x'\n"


@pytest.fixture(scope="module")
def module_box(engine: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    client = docker.DockerClient(base_url=engine.host, version="auto")
    made = Box.make(tmp_path_factory.mktemp("validate"), engine, client)
    yield made
    made.clean()
    client.close()


@pytest.fixture(scope="module")
def agent(module_box: Box) -> Iterator[Agent]:
    made = Agent(module_box)
    made.commit(GOOD)
    made.start()
    wait_for(lambda: running(module_box, "web"))
    yield made
    made.end()


@pytest.fixture
def client(agent: Agent) -> Iterator[httpx.Client]:
    transport = httpx.HTTPTransport(uds=str(agent.box.options.socket))
    with httpx.Client(transport=transport, base_url="http://localhost", timeout=10) as made:
        yield made


def texts(issues: list[dict[str, Any]]) -> list[str]:
    return [issue["text"] for issue in issues]


@pytest.mark.parametrize(("text", "valid"), [(WRONG, False), (BROKEN, False), (GOOD, True), ("", True)])
def test_it_lists_what_check_would_and_writes_nothing(
    agent: Agent, client: httpx.Client, tmp_path: Path, text: str, valid: bool
) -> None:
    file = agent.box.config / "containers"
    before = file.stat()
    answer = client.post("/v1/validate", json={"containers": text}).json()
    assert answer["valid"] is valid
    assert file.stat() == before and file.read_text() == GOOD
    (tmp_path / "containers").write_text(text)
    words = [sys.executable, "-m", "agent", "check", "--json", f"--config-dir={tmp_path}"]
    checked = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    assert answer["issues"] or valid
    assert texts(answer["issues"]) == texts(json.loads(checked.replace(str(tmp_path), str(agent.box.config))))


def test_each_mistake_has_its_place_and_line(client: httpx.Client) -> None:
    issues = client.post("/v1/validate", json={"containers": WRONG}).json()["issues"]
    found = {(i["severity"], i["place"], i["line"]) for i in issues}
    assert ("warning", "containers.web.memroy", 3) in found
    assert ("error", "containers.web.port[0]", 4) in found
    assert ("error", "containers.web.restart", 5) in found
    assert any(place.startswith("containers.noimage") and line == 7 for _, place, line in found)


def test_packages_that_are_not_given_count_as_they_are(client: httpx.Client) -> None:
    again = client.post("/v1/validate", json={"dockerd": GOOD}).json()
    assert any("is in package containers too" in text for text in texts(again["issues"]))


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"network": ""}, 422, "unknown package 'network'"),
        ({"../containers": ""}, 422, "unknown package"),
        ({"containers": 5}, 400, "expected the text of a UCI file"),
    ],
)
def test_what_is_no_text_of_ours_is_refused(
    client: httpx.Client, body: dict[str, object], status: int, words: str
) -> None:
    answer = client.post("/v1/validate", json=body)
    assert answer.status_code == status and words in answer.json()["error"]["message"]


def test_metrics_count_what_is_and_what_was(client: httpx.Client) -> None:
    def metrics() -> dict[str, float]:
        answer = client.get("/metrics")
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
        assert all(
            re.fullmatch(r'[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? [0-9.e+-]+', line) for line in lines
        )
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    wait_for(
        lambda: metrics().get('ucidockd_conditions{condition="Synced",kind="container",status="true"}') == 1
    )
    # one that has just started is in progress for a moment
    wait_for(lambda: metrics().get('ucidockd_resources{kind="container",level="ok"}') == 1)
    first = metrics()
    assert first["ucidockd_engine_reachable"] == 1
    assert first["ucidockd_jobs_running"] == first["ucidockd_transfers_open"] == 0
    assert first["ucidockd_streams_open"] == 0
    assert 10e6 < first["process_resident_memory_bytes"] < 200e6 and first["process_open_fds"] > 5
    client.post("/v1/reconcile")
    job = client.post("/v1/jobs", json={"kind": "prune", "what": "networks"}).json()["job"]
    wait_for(lambda: client.get(f"/v1/jobs/{job['id']}").json()["job"]["state"] != "running")
    with client.stream("GET", "/v1/status/stream") as response:
        lines = response.iter_lines()  # kept: httpx closes the response with its iterator
        next(lines)
        assert metrics()["ucidockd_streams_open"] == 1
    second = metrics()
    assert second['ucidockd_passes_total{result="ok"}'] > first['ucidockd_passes_total{result="ok"}'] > 0
    assert second["ucidockd_pass_seconds_total"] > first["ucidockd_pass_seconds_total"] > 0
    assert second['ucidockd_jobs_ended_total{kind="prune",state="succeeded"}'] == 1


def test_the_text_format_escapes_labels() -> None:
    labels = (("kind", 'a"b\\c\nd'),)
    text = format_metrics(
        [many("m", "gauge", "Help.", {labels: 1.5}), one("n_total", "counter", "More.", 2**53)]
    )
    assert text.splitlines() == [
        "# HELP m Help.",
        "# TYPE m gauge",
        'm{kind="a\\"b\\\\c\\nd"} 1.5',
        "# HELP n_total More.",
        "# TYPE n_total counter",
        "n_total 9007199254740992",
    ]
