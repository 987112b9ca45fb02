# SPDX-License-Identifier: GPL-2.0-or-later
"""The first pass over many sections: few questions to the engine, and whoever has a name of ours is found."""

from __future__ import annotations

import pytest

from agent.engine.client import DockerEngine
from tests.support.box import Box
from tests.support.dockerd import BUSYBOX

NAMES = ("one", "two", "three")
CONFIG = "".join(
    f"config container '{name}'\n\toption image 'IMAGE'\n\toption command 'sleep 1000'\n"
    "\toption network_mode 'none'\n\toption stop_timeout '0'\n"
    for name in NAMES
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of the engine, in order."""
    found: list[str] = []
    real = DockerEngine._send

    def noted(engine: DockerEngine, method: str, path: str, **args: object) -> bytes:
        found.append(f"{method} {path}")
        return real(engine, method, path, **args)  # type: ignore[arg-type]

    monkeypatch.setattr(DockerEngine, "_send", noted)
    return found


def test_names_that_nobody_has_are_not_asked_for_one_by_one(box: Box, asked: list[str]) -> None:
    assert box.errors(CONFIG) == []
    assert [call for call in asked if call.endswith(tuple(f"/{name}/json" for name in NAMES))] == []
    assert [call for call in asked if call.endswith("/create")] == ["POST /containers/create"] * 3


def test_a_container_takes_three_calls_and_its_image_is_not_looked_at_for_each(
    box: Box, asked: list[str]
) -> None:
    assert box.errors(CONFIG) == []
    of_containers = [call for call in asked if call.startswith(("POST /containers/", "GET /containers/"))]
    last = [call.rpartition("/")[2] for call in of_containers if call != "GET /containers/json"]
    assert sorted(last) == sorted(["create", "json", "start"] * 3)
    assert not [call for call in asked if call.startswith("GET /images/sha256:")]


def test_a_foreign_container_with_one_of_many_names_is_a_conflict(box: Box, asked: list[str]) -> None:
    foreign = box.client.containers.create(BUSYBOX, "sleep 1000", name="two")
    try:
        plan, outcomes = box.apply(CONFIG)
        assert [str(outcome.error) for outcome in outcomes if outcome.error] == []
        assert {operation.key for operation in plan.operations} == {"container:one", "container:three"}
        assert [finding.reason for finding in plan.findings if finding.key == "container:two"].count(
            "Conflict"
        ) == 1
        assert asked.count("GET /containers/two/json") == 1
        foreign.reload()
        assert foreign.status == "created"
    finally:
        foreign.remove(force=True)
