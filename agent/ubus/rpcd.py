# SPDX-License-Identifier: GPL-2.0-or-later
"""rpcd's login sessions over ubus (rpcd/session.c): who may do what, rights for one session, a pending LuCI rollback.

Fails closed: without an answer within 2 s, that is a BusError and never a yes. A yes may be remembered for 5 s, a no
never is, and silence prolongs nothing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable

from agent.errors import BusError
from agent.ubus.client import UbusClient
from agent.wire.ubus_message import Status

DEADLINE_S = 2.0
CACHE_S = 5.0
_CACHE_LIMIT = 256
_ROLLBACK_MARGIN_S = 10.0  # rpcd puts the old files back when the time is over, and that takes a moment
_ROLLBACK_LIMIT_S = 3600.0
NOBODY = "0" * 32  # rpcd's default session, which everybody is in: never a login
_SESSION = re.compile(r"[0-9a-f]{32}")

Rights = Iterable[tuple[str, str]]  # (object, method)


def is_login(session: str) -> bool:
    """Whether it has the form of a login's session id."""
    return bool(_SESSION.fullmatch(session)) and session != NOBODY


class Rpcd:
    """Implements `agent.api.port.Sessions`. `clock` is monotonic, `wall` the time of day, both in seconds."""

    def __init__(
        self,
        bus: UbusClient,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._bus = bus
        self._clock = clock
        self._wall = wall
        self._granted: dict[tuple[str, str, str], float] = {}  # -> until when

    async def allowed(self, session: str, object: str, method: str) -> bool:  # noqa: A002 - ubus's word
        """Whether the session may call that method of that object; False for no session. Raises BusError."""
        key = (session, object, method)
        if self._granted.get(key, 0.0) > self._clock():
            return True
        self._granted.pop(key, None)
        # Before the question, so that the answer is not kept longer than it can be true.
        asked = self._clock()
        if not await self.allowed_now(session, object, method):
            return False
        # All at once: a list of the oldest is not worth its memory, and each is asked for again in a moment.
        if len(self._granted) >= _CACHE_LIMIT:
            self._granted.clear()
        self._granted[key] = asked + CACHE_S
        return True

    async def allowed_now(self, session: str, object: str, method: str) -> bool:  # noqa: A002 - ubus's word
        """As `allowed`, and nothing remembered counts. Note that asking keeps a session from timing out."""
        if not is_login(session):
            return False
        args = {"ubus_rpc_session": session, "scope": "ubus", "object": object, "function": method}
        try:
            answer = await self._bus.call("session", "access", args, timeout_s=DEADLINE_S)
        except BusError as exc:
            if exc.status != Status.NOT_FOUND:
                raise
            # "not found" is rpcd's own word about the session, or ubusd's about rpcd: then no one has decided
            try:
                await self._bus.lookup("session")
            except BusError:
                raise exc from None
            return False
        return answer.get("access") is True

    async def grant(self, session: str, rights: Rights) -> None:
        """Gives rights to one session, until it ends or they are revoked. Raises BusError."""
        await self._change("grant", session, rights)

    async def revoke(self, session: str, rights: Rights) -> None:
        """Takes them back. Raises BusError."""
        gone = list(rights)
        for right in gone:
            self._granted.pop((session, *right), None)
        await self._change("revoke", session, gone)

    async def _change(self, method: str, session: str, rights: Rights) -> None:
        if not is_login(session):
            raise BusError("no login session", status=Status.PERMISSION_DENIED)
        objects = [list(right) for right in rights]
        if not objects:  # without objects rpcd would take all of them
            return
        args = {"ubus_rpc_session": session, "scope": "ubus", "objects": objects}
        await self._bus.call("session", method, args, timeout_s=DEADLINE_S)

    async def rollback_left_s(self) -> float:
        """For how long LuCI may still take back what was applied last; 0.0 when nothing is pending. Raises BusError.

        LuCI notes it in everybody's session, empties the note on confirmation, and leaves it there after a rollback
        (luci-base, controller/admin/uci.uc): only its time-out, in wall clock seconds, tells that it is over.
        """
        args = {"ubus_rpc_session": NOBODY, "keys": ["rollback"]}
        answer = await self._bus.call("session", "get", args, timeout_s=DEADLINE_S)
        values = answer.get("values")
        note = values.get("rollback") if isinstance(values, dict) else None
        until = note.get("timeout") if isinstance(note, dict) else None
        if isinstance(until, bool) or not isinstance(until, int):
            return 0.0
        left = until + _ROLLBACK_MARGIN_S - self._wall()
        return left if 0 < left < _ROLLBACK_LIMIT_S else 0.0  # a clock that jumped holds nothing for ever
