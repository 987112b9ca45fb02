# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's files and addresses, as far as the command line can override them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.model.addresses import EngineAddress, parse_engine_address

if TYPE_CHECKING:  # it imports the whole model, and `ucidockd status` has to start quickly
    from agent.model.resources import AgentSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeOptions:
    """None means that the agent section decides."""

    config_dir: Path = Path("/etc/config")
    override_dir: Path = Path("/var/run/uci")
    state_dir: Path = Path("/etc/ucidockd")
    socket: str | None = None
    docker_host: str | None = None
    docker_cert_path: str | None = None
    log_level: str | None = None
    ubus_socket: str = "/var/run/ubus/ubus.sock"
    save_dir: Path = Path("/tmp/.uci")
    scripts_dir: Path = Path("/etc/hotplug.d/ucidockd")

    def given(self, agent: AgentSettings) -> dict[str, str]:
        """The options that a command line may name and a running agent cannot change, with their values."""
        # absolute, because a running agent may have been started in another folder
        return {
            "config-dir": str(self.config_dir.absolute()),
            "override-dir": str(self.override_dir.absolute()),
            "state-dir": str(self.state_dir.absolute()),
            "save-dir": str(self.save_dir.absolute()),
            "docker-host": str(self.engine_address(agent)),
            "docker-cert-path": self.certificates_of_engine(agent),
        }

    def engine_address(self, agent: AgentSettings) -> EngineAddress:
        """The engine's address."""
        return parse_engine_address(self.docker_host or agent.docker_host)

    def certificates_of_engine(self, agent: AgentSettings) -> str:
        """The folder with the client certificate for a tcp engine; "" for a unix socket."""
        address = self.engine_address(agent)
        return "" if address.path else (self.docker_cert_path or agent.docker_cert_path)
