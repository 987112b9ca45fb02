# SPDX-License-Identifier: GPL-2.0-or-later
"""A configuration directory with a reconciler on a real engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import docker
from docker.models.containers import Container

from agent.apply.worker_pool import Outcome
from agent.files.options import RuntimeOptions
from agent.model.resources import AgentSettings
from agent.plan.operations import Plan
from agent.runtime.main import make_reconciler
from agent.runtime.reconciler import Reconciler
from tests.support.dockerd import BUSYBOX, PrivateDockerd


@dataclass
class Box:
    """The test runs each pass itself: there is no loop and no timers."""

    config: Path
    options: RuntimeOptions
    client: docker.DockerClient
    reconciler: Reconciler

    @classmethod
    def make(cls, folder: Path, engine: PrivateDockerd, client: docker.DockerClient) -> Box:
        config = folder / "config"
        config.mkdir()
        options = RuntimeOptions(
            config_dir=config,
            override_dir=folder / "override",
            state_dir=folder / "state",
            socket=str(folder / "agent.sock"),
            docker_host=engine.host,
        )
        return cls(config, options, client, make_reconciler(options, AgentSettings()))

    def write(self, text: str) -> None:
        (self.config / "containers").write_text(text.replace("IMAGE", BUSYBOX))

    def apply(self, text: str | None = None) -> tuple[Plan, tuple[Outcome, ...]]:
        """Runs one full pass, on `text` if given."""
        if text is not None:
            self.write(text)
        self.reconciler.read_config()
        return self.reconciler.run_pass(deep=None)

    def errors(self, text: str) -> list[str]:
        """The errors of a pass on `text`."""
        return [str(outcome.error) for outcome in self.apply(text)[1] if outcome.error]

    def later(self, seconds: float) -> None:
        """Advances both clocks of the agent."""
        wall, monotonic = self.reconciler.wall, self.reconciler.monotonic
        self.reconciler.wall = lambda: wall() + seconds
        self.reconciler.monotonic = lambda: monotonic() + seconds

    def restart_agent(self) -> None:
        """Simulates a kill: memory is lost, files stay."""
        self.reconciler = make_reconciler(self.options, AgentSettings())

    def get(self, name: str) -> Container:
        return self.client.containers.get(name)

    def names(self) -> list[str]:
        # a single call: the client's own list inspects each container, and fails if one is removed meanwhile
        return sorted(item["Names"][0][1:] for item in self.client.api.containers(all=True))

    def clean(self) -> None:
        """Removes everything from the engine."""
        for container in self.client.containers.list(all=True):
            container.remove(force=True, v=True)
        for network in self.client.networks.list(filters={"type": "custom"}):
            network.remove()
        for volume in self.client.volumes.list():
            volume.remove(force=True)
