# SPDX-License-Identifier: GPL-2.0-or-later
"""Single-use tickets: what a browser shows for a WebSocket, where it cannot set `Authorization`.

Issued to a session that holds the route's right, and good once, for 30 s, on that route and from that address only.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

LIFE_S = 30.0
_OPEN_LIMIT = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ticket:
    session: str
    path: str
    client: str
    ends_at: float


class Tickets:
    """`clock` is monotonic, in seconds. With 256 open ones, the oldest gives way."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._open: dict[str, _Ticket] = {}

    def issue(self, *, session: str, path: str, client: str) -> str:
        """A new ticket: 128 bits as 32 hexadecimal digits."""
        self._sweep()
        while len(self._open) >= _OPEN_LIMIT:
            del self._open[next(iter(self._open))]
        secret = secrets.token_hex(16)
        ends_at = self._clock() + LIFE_S
        self._open[secret] = _Ticket(session=session, path=path, client=client, ends_at=ends_at)
        return secret

    def redeem(self, secret: str, *, path: str, client: str) -> str | None:
        """The session it stands for. It is used up even when it is shown in the wrong place: then it has leaked."""
        ticket = self._open.pop(secret, None)
        if ticket is None or ticket.ends_at <= self._clock():
            return None
        return ticket.session if (ticket.path, ticket.client) == (path, client) else None

    def _sweep(self) -> None:
        now = self._clock()
        for secret in [secret for secret, ticket in self._open.items() if ticket.ends_at <= now]:
            del self._open[secret]
