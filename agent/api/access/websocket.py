# SPDX-License-Identifier: GPL-2.0-or-later
"""uvicorn's WebSocket protocol, which gives its connection slot back at the end. Loaded with the first WebSocket."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.http11 import Response
from websockets.server import ServerProtocol


class _Connection(ServerProtocol):
    """Converts the status, which uvicorn gives as a number and websockets from 12 on wants as an HTTPStatus."""

    def reject(self, status: int, text: str) -> Response:
        return super().reject(HTTPStatus(status), text)


class _Protocol(WebSocketsSansIOProtocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.conn.__class__ = _Connection
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.app_state["connection"].release()
        super().connection_lost(exc)


def make_protocol(
    *,
    config: Config,
    server_state: ServerState,
    app_state: dict[str, Any],
    _loop: asyncio.AbstractEventLoop | None = None,
) -> asyncio.Protocol:
    """Called by uvicorn at an upgrade."""
    return _Protocol(config=config, server_state=server_state, app_state=app_state, _loop=_loop)
