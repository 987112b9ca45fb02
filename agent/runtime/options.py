# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the agent looks for its files: what the command line may override."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeOptions:
    """None means: as the agent section says."""

    config_dir: Path = Path("/etc/config")
    override_dir: Path = Path("/var/run/uci")
    state_dir: Path = Path("/etc/ucidockd")
    socket: str | None = None
    docker_host: str | None = None
    log_level: str | None = None
    ubus_socket: str = "/var/run/ubus/ubus.sock"
