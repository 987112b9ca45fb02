# SPDX-License-Identifier: GPL-2.0-or-later
"""What clients may ask of the engine while the file system of its data is away, at the doors of HTTP and ubus."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import docker
import pytest
from starlette.applications import Starlette

from agent.api.app import make_app
from agent.api.engine_requests import StorageGuard
from agent.engine.stream import DockerStream
from agent.errors import StorageLostError
from agent.model.dockerd.settings import DAEMON_KEY
from agent.status.board import StatusBoard
from agent.status.conditions import ConditionType
from tests.api.conftest import Containers
from tests.support.controller import Controller, QuietAgent, serving
from tests.support.dockerd import BUSYBOX, PrivateDockerd

WHY = "/mnt/sda1 was unmounted"


def lose(board: StatusBoard, message: str = WHY) -> None:
    board.ensure(DAEMON_KEY)
    board.set(
        DAEMON_KEY,
        ConditionType.ENGINE_STORAGE_LOST,
        status=True,
        reason="Unmounted",
        message=message,
    )


def guarded(agent: QuietAgent, engine: DockerStream) -> Starlette:
    return make_app(agent, DockerStream(engine.address, permit=StorageGuard(agent.board)))


@pytest.fixture(scope="module")
def served(engine: PrivateDockerd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    with serving(tmp_path_factory.mktemp("guard"), engine.host, app=guarded) as made:
        yield made


@pytest.fixture
def lost(served: Controller) -> Iterator[Controller]:
    lose(served.agent.board)
    yield served
    served.agent.board.clear(DAEMON_KEY, ConditionType.ENGINE_STORAGE_LOST)


REFUSED = [
    ("POST", "/docker/containers/create?name=new", {"Image": BUSYBOX}),
    ("POST", "/docker/v1.41/containers/prune", None),
    ("POST", "/docker/images/prune", None),
    ("POST", "/docker/volumes/prune", None),
    ("POST", "/docker/volumes/create", {"Name": "new"}),
    ("POST", "/docker/containers/{id}/start", None),
    ("POST", "/docker/containers/{id}/restart", None),
    ("DELETE", "/docker/containers/{id}?force=1", None),
    ("DELETE", f"/docker/images/{BUSYBOX}?force=1", None),
    ("POST", "/v1/jobs", {"kind": "prune", "what": "containers"}),
    ("POST", "/v1/jobs", {"kind": "pull", "image": BUSYBOX}),
    ("PUT", "/v1/images/load", None),
    ("PUT", "/v1/containers/{id}/archive?path=/tmp", None),
]


@pytest.mark.variants(5)
@pytest.mark.parametrize(("method", "path", "body"), REFUSED, ids=[f"{m} {p}" for m, p, _ in REFUSED])
def test_nothing_is_made_or_removed_while_the_disk_is_away(
    lost: Controller,
    containers: Containers,
    docker_client: docker.DockerClient,
    method: str,
    path: str,
    body: object,
) -> None:
    made = containers.finished("true")
    lost.agent.manual_actions.clear()
    tar = b"\0" * 1024 if path.startswith(("/v1/images", "/v1/containers")) else None
    answer = lost.client.request(method, path.format(id=made), json=body, content=tar)
    assert answer.status_code == 409, answer.text
    assert answer.json()["error"]["code"] == "storage-lost"
    assert WHY in answer.json()["error"]["message"]
    assert docker_client.containers.get(made).status == "exited"
    assert docker_client.images.get(BUSYBOX)
    announced = [action for action in lost.agent.manual_actions if not action.endswith("failed")]
    assert lost.agent.manual_actions == [word for a in announced for word in (a, f"{a} failed")]


def test_looking_and_stopping_go_on_while_the_disk_is_away(
    lost: Controller, containers: Containers, docker_client: docker.DockerClient
) -> None:
    made = containers.run("trap 'exit 0' TERM; while :; do sleep 0.05; done")
    assert lost.client.get(f"/docker/containers/{made}/json").status_code == 200
    assert lost.client.post(f"/docker/v1.41/containers/{made}/stop?t=5").status_code == 204
    assert docker_client.containers.get(made).status == "exited"


def test_all_is_allowed_again_once_the_disk_is_back(served: Controller, containers: Containers) -> None:
    made = containers.finished("true")
    lose(served.agent.board)
    served.agent.board.clear(DAEMON_KEY, ConditionType.ENGINE_STORAGE_LOST)
    assert served.client.post(f"/docker/containers/{made}/start").status_code == 204


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/containers/json", True),
        ("POST", "/containers/abc/kill", True),
        ("POST", "/exec/abc/start", True),
        ("POST", "/containers/abc/stop/x", False),
        ("POST", "/containers/create", False),
        ("POST", "/build", False),
        ("PUT", "/containers/stop/archive", False),
    ],
)
def test_only_what_cannot_harm_passes(method: str, path: str, allowed: bool) -> None:
    board = StatusBoard(time.time)
    guard = StorageGuard(board)
    guard(method, path)
    lose(board)
    with contextlib.nullcontext() if allowed else pytest.raises(StorageLostError, match=WHY):
        guard(method, path)
