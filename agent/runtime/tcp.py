# SPDX-License-Identifier: GPL-2.0-or-later
"""Wiring of access by TCP: who knows the sessions, and the listeners that follow the agent section."""

from __future__ import annotations

import asyncio
import logging

from starlette.types import ASGIApp

from agent.clients.addresses import device_addresses
from agent.clients.docker_stream import DockerStream
from agent.clients.to_loop import tell
from agent.clients.token_file import TokenFile
from agent.clients.uci_store import TextUciStore, UciMissing
from agent.controller.access import Access
from agent.controller.listeners import Listeners
from agent.controller.subnets import Subnets
from agent.errors import BusError, ConfigError
from agent.model.listen import IpAddress
from agent.model.resources import AgentSettings
from agent.runtime.bus import Bus
from agent.runtime.loop import Loop
from agent.runtime.options import RuntimeOptions
from agent.uci.syntax import UciSyntaxError
from agent.uci.wan import wan_devices

logger = logging.getLogger(__name__)


def make_access(options: RuntimeOptions, engine: DockerStream, bus: Bus) -> Access:
    """Access by rpcd's sessions, or where there is no ubus by the token file."""
    return Access(bus.sessions(TokenFile(options.state_dir / "token")), Subnets(engine))


def make_listeners(options: RuntimeOptions, app: ASGIApp, access: Access, agent: Loop) -> Listeners:
    """The listeners, told of each agent section that is read."""
    loop = asyncio.get_running_loop()
    listeners = Listeners(app, access, agent.board, wan=lambda: wan_addresses(options))

    def read(settings: AgentSettings) -> None:
        if settings.listen and isinstance(access.sessions, TokenFile):
            _make_token(access.sessions)
        tell(loop, listeners.want, settings)

    agent.reconciler.settings_read = read
    return listeners


def _make_token(file: TokenFile) -> None:
    """Whoever is to use the listener has to find the token there."""
    try:
        file.token()
    except BusError as exc:
        logger.warning("%s", exc)


def wan_addresses(options: RuntimeOptions) -> frozenset[IpAddress]:
    """Addresses in zones that refuse input; none where there is no OpenWrt firewall. Blocks. Raises ConfigError."""
    store = TextUciStore(config_dir=options.config_dir, override_dir=options.override_dir)
    try:
        return device_addresses(wan_devices(store.load("firewall"), store.load("network")))
    except UciMissing:
        return frozenset()
    except UciSyntaxError as exc:
        raise ConfigError(str(exc)) from exc
