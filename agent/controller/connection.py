# SPDX-License-Identifier: GPL-2.0-or-later
"""One client connection: who is on the other end, how long it may take, what is refused before any parsing.

uvicorn's h11 protocol with the checks that it has no place for. The request's handlers find it as
`scope["state"]["connection"]`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from agent.wire.http_head import head_problem

logger = logging.getLogger(__name__)

HEAD_LIMIT = 16 * 1024
HEAD_TIMEOUT_S = 10.0
_UCRED = struct.Struct("3i")


@dataclass(slots=True, kw_only=True)
class Door:
    """A listener: how many may stand in it. `control` is the unix socket of root."""

    control: bool
    connections: int
    per_client: int
    open: Counter[str] = field(default_factory=Counter)

    def enter(self, client: str) -> bool:
        """Whether there is room for one more of that client."""
        if self.open.total() >= self.connections or self.open[client] >= self.per_client:
            return False
        self.open[client] += 1
        return True

    def leave(self, client: str) -> None:
        """Makes room."""
        self.open[client] -= 1
        if self.open[client] <= 0:
            del self.open[client]


class GuardedProtocol(H11Protocol):
    """`door` counts it; its `client_address` is "" on the control socket."""

    def __init__(
        self,
        door: Door,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, {**app_state, "connection": self}, _loop)
        self.door = door
        self.client_address = ""
        self._entered = False
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.client_address = self.client[0] if self.client else ""
        if self.door.control and not from_our_root(transport.get_extra_info("socket")):
            logger.warning("control socket: a peer that is not root, or runs in a container, was turned away")
            transport.abort()
            return
        self._entered = self.door.enter(self.client_address)
        if not self._entered:
            transport.abort()
            return
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self.release()
        super().connection_lost(exc)

    def release(self) -> None:
        """Gives the place in the door back; a WebSocket does it when it ends."""
        if self._entered:
            self._entered = False
            self.door.leave(self.client_address)

    def cut(self) -> None:
        """Drops the connection: the client sees that its answer is not complete."""
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._arm()
        elif self.conn.their_state is not h11.IDLE:
            self._disarm()

    def handle_events(self) -> None:
        if self.conn.their_state is h11.IDLE:
            problem = head_problem(self.conn.trailing_data[0])
            if problem is not None:
                self.send_400_response(problem)
                return
        super().handle_events()

    def _arm(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._too_slow)

    def _disarm(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        self._head_timer = None
        self.transport.abort()

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing to warn of: the route answers."""


def from_our_root(peer: socket.socket) -> bool:
    """Whether root, or we ourselves, sit on the other end (SO_PEERCRED), and not in a container.

    A container that got the socket by a bind mount is root too, but in a mount namespace of its own.
    """
    pid, uid, _ = _UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    if uid not in (0, os.geteuid()):
        return False
    try:
        return os.stat(f"/proc/{pid}/ns/mnt").st_ino == os.stat("/proc/self/ns/mnt").st_ino
    except OSError:
        return False
