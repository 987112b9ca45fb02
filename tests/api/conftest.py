# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures: the real application on a real control socket, over the real engine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import docker
import docker.errors
import pytest

from tests.support.controller import Controller, serving
from tests.support.dockerd import BUSYBOX, PrivateDockerd


@pytest.fixture(scope="session")
def controller(engine: PrivateDockerd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    with serving(tmp_path_factory.mktemp("controller"), engine.host) as made:
        yield made


class Containers:
    """Makes containers and removes them."""

    def __init__(self, client: docker.DockerClient) -> None:
        self.client = client
        self._made: list[str] = []

    def run(self, command: str | list[str], **options: object) -> str:
        words = command if isinstance(command, list) else ["sh", "-c", command]
        made = self.client.containers.run(BUSYBOX, words, detach=True, network_mode="none", **options)
        assert made.id is not None
        self._made.append(made.id)
        return made.id

    def adopt(self, made: str) -> None:
        """Removes that one at the end too, if it is still there."""
        self._made.append(made)

    def finished(self, command: str | list[str], **options: object) -> str:
        made = self.run(command, **options)
        self.client.containers.get(made).wait(timeout=20)
        return made

    def clean(self) -> None:
        for made in self._made:
            with contextlib.suppress(docker.errors.NotFound):
                self.client.containers.get(made).remove(force=True, v=True)


@pytest.fixture
def containers(docker_client: docker.DockerClient) -> Iterator[Containers]:
    made = Containers(docker_client)
    yield made
    made.clean()
