# SPDX-License-Identifier: GPL-2.0-or-later
"""A common interface to the engine in memory and to a real engine: the Engine port, and actions outside the agent."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import docker

from agent.apply.ports import Engine
from agent.engine.client import DockerEngine
from agent.errors import EngineError
from agent.model.identity import LABEL_INSTANCE
from tests.support.dockerd import BUSYBOX, PrivateDockerd
from tests.support.virtual.clock import VirtualTime
from tests.support.virtual.engine import FakeEngine
from tests.support.virtual.objects import FakeImage

INSTANCE = "contract"
_LIMIT_S = 20.0


class Stand(ABC):
    """An engine with the image `busybox:test`, empty at the start of each test."""

    engine: Engine

    @abstractmethod
    def kill(self, name: str) -> None: ...

    @abstractmethod
    def pause(self, name: str) -> None: ...

    @abstractmethod
    def tag(self, image: str, ref: str) -> None: ...

    @abstractmethod
    def image(self, ref: str, changes: dict[str, Any]) -> None:
        """Creates a new image with the name `ref`; `changes` are fields of its Config."""

    @abstractmethod
    def watch(self) -> None:
        """Starts to listen to events."""

    @abstractmethod
    def heard(self) -> list[dict[str, Any]]:
        """The events since `watch`."""

    @abstractmethod
    def let_pass(self, seconds: float) -> None: ...

    @abstractmethod
    def restart_engine(self) -> None: ...

    def wait(self, what: Callable[[], bool]) -> None:
        """Waits until the condition holds. Raises AssertionError after 20 s."""
        passed = 0.0
        while not what():
            assert passed < _LIMIT_S, "it did not come to that"
            self.let_pass(0.05)
            passed += 0.05

    # helpers of the contract tests

    def create(self, name: str, *command: str, network: str = "none", **host: Any) -> str:
        """Creates a container with the agent's label. The network `none` is the default because it is fast."""
        body: dict[str, Any] = {"Image": BUSYBOX, "Cmd": list(command or ("sleep", "1000"))}
        body |= {"Labels": {LABEL_INSTANCE: INSTANCE}, "StopTimeout": 0}
        config = host.pop("config", {})
        body["HostConfig"] = {"NetworkMode": network, **host}
        return self.engine.create_container(name, {**body, **config})

    def run(self, name: str, *command: str, network: str = "none", **host: Any) -> str:
        object_id = self.create(name, *command, network=network, **host)
        self.engine.start(object_id)
        return object_id

    def network(self, name: str, subnet: str = "") -> str:
        body: dict[str, Any] = {"Name": name, "Driver": "bridge", "CheckDuplicate": True}
        if subnet:
            body["IPAM"] = {"Driver": "default", "Config": [{"Subnet": subnet}]}
        return self.engine.create_network(body)

    def body(self, ref: str) -> dict[str, Any]:
        """GET /containers/{ref}/json."""
        seen = self.engine.inspect_container(ref)
        assert seen is not None
        return seen.inspect or {}

    def state(self, ref: str) -> str:
        """The container's state in GET /containers/json."""
        object_id = self.body(ref)["Id"]
        return next(c.state for c in self.engine.list_containers(INSTANCE) if c.id == object_id)

    def endpoint(self, ref: str, network: str) -> dict[str, Any]:
        found: dict[str, Any] = self.body(ref)["NetworkSettings"]["Networks"][network]
        return found


def refused(call: Callable[[], object]) -> int:
    """The HTTP status with which the engine refuses the call; 0 if it does not refuse."""
    try:
        call()
    except EngineError as exc:
        return exc.status
    return 0


class FakeStand(Stand):
    """The engine in memory."""

    def __init__(self) -> None:
        self.time = VirtualTime()
        self.fake = FakeEngine(self.time)
        self.engine: Engine = self.fake
        self.image(BUSYBOX, {"Cmd": None})

    def kill(self, name: str) -> None:
        self.fake.kill(name)

    def pause(self, name: str) -> None:
        self.fake.pause(name)

    def tag(self, image: str, ref: str) -> None:
        self.fake.tag(self.fake.images[image], ref)

    def image(self, ref: str, changes: dict[str, Any]) -> None:
        self.fake.untag(ref)
        self.fake.images[ref] = FakeImage(id=f"sha256:{self.fake.new_id()}", config=changes)

    def watch(self) -> None:
        self.fake.subscribe()

    def heard(self) -> list[dict[str, Any]]:
        return self.fake.read_events()

    def let_pass(self, seconds: float) -> None:
        self.time.sleep(seconds)

    def restart_engine(self) -> None:
        self.fake.stop_engine()
        self.fake.start_engine()


class RealStand(Stand):
    """A real dockerd."""

    def __init__(self, dockerd: PrivateDockerd) -> None:
        self.dockerd = dockerd
        self.engine: Engine = DockerEngine(dockerd.host)
        self.client = docker.DockerClient(base_url=dockerd.host, version="auto")
        self._events: list[dict[str, Any]] = []
        self._tags: set[str] = set()

    def kill(self, name: str) -> None:
        self._translated(lambda: self.client.api.kill(name))

    def pause(self, name: str) -> None:
        self._translated(lambda: self.client.api.pause(name))

    @staticmethod
    def _translated(call: Callable[[], object]) -> None:
        try:
            call()
        except docker.errors.APIError as exc:
            raise EngineError(str(exc), status=exc.status_code or 0) from exc

    def tag(self, image: str, ref: str) -> None:
        name, _, version = ref.rpartition(":")
        self.client.api.tag(image, name, version)
        self._tags.add(ref)

    def image(self, ref: str, changes: dict[str, Any]) -> None:
        made = self.client.api.create_container(BUSYBOX, ["true"])["Id"]
        name, _, version = ref.rpartition(":")
        self.client.api.commit(made, repository=name, tag=version, conf=changes)
        self.client.api.remove_container(made)
        self._tags.add(ref)

    def watch(self) -> None:
        stream = self.engine.events(None)
        threading.Thread(target=self._listen, args=(stream,), daemon=True).start()

    def _listen(self, stream: Any) -> None:
        try:
            self._events.extend(stream)
        except EngineError:
            return  # the test stopped the engine at its end

    def heard(self) -> list[dict[str, Any]]:
        return list(self._events)

    def let_pass(self, seconds: float) -> None:
        time.sleep(seconds)

    def restart_engine(self) -> None:
        self.dockerd.stop()
        self.dockerd.start()

    def close(self) -> None:
        """Removes everything from the engine."""
        for container in self.client.containers.list(all=True, ignore_removed=True):
            container.remove(force=True, v=True)
        for network in self.client.networks.list(filters={"type": "custom"}):
            network.remove()
        for volume in self.client.volumes.list():
            volume.remove(force=True)
        for tag in sorted(self._tags):
            self.client.api.remove_image(tag, force=True)
        self.client.close()
