# SPDX-License-Identifier: GPL-2.0-or-later
"""Wiring of the doors to HTTP: the application, the control socket's server, the listeners of the agent section.

Imported by `web` once one of them is needed.
"""

from __future__ import annotations

import socket
from pathlib import Path

from agent.api.access.access import Access
from agent.api.access.listeners import Listeners
from agent.api.access.subnets import Subnets
from agent.api.access.tcp import ControlServer
from agent.api.app import make_app
from agent.errors import ConfigError
from agent.files.options import RuntimeOptions
from agent.files.uci_store import TextUciStore, UciMissing
from agent.model.addresses import IpAddress
from agent.model.resources import AgentSettings
from agent.router.routes import device_addresses
from agent.runtime.web import Parts
from agent.uci.router import wan_devices
from agent.uci.syntax import UciSyntaxError


def make_doors(
    parts: Parts, settings: AgentSettings, listener: socket.socket, path: Path
) -> tuple[ControlServer, Listeners]:
    """The server of the control socket that `listener` is bound to, and what follows the agent section."""
    access = Access(parts.sessions, Subnets(parts.engine), settings=settings)
    app = make_app(parts.agent, parts.engine, access, parts.consoles, jobs=parts.jobs, data=parts.data)
    listeners = Listeners(app, access, parts.agent.board, wan=lambda: wan_addresses(parts.options))
    listeners.want(settings)
    return ControlServer(app, path, listener=listener), listeners


def wan_addresses(options: RuntimeOptions) -> frozenset[IpAddress]:
    """Addresses in zones that refuse input; none where there is no OpenWrt firewall. Blocks. Raises ConfigError."""
    store = TextUciStore(config_dir=options.config_dir, override_dir=options.override_dir)
    try:
        return device_addresses(wan_devices(store.load("firewall"), store.load("network")))
    except UciMissing:
        return frozenset()
    except UciSyntaxError as exc:
        raise ConfigError(str(exc)) from exc
